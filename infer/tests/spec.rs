//! How the strings of a config become the ids of a spec: s1's delimiters, other models', and what
//! is refused.

mod support;

use std::sync::Arc;

use infer::budget::{Procedure, Spec};
use infer::config::{self, Budget, Engine, Generation, check as check_keys, specs};
use model::Tokenizer;
use serde::Deserialize;
use support::write_checkpoint;

#[derive(Deserialize)]
struct Keys {
    model: config::Model,
    generation: Generation,
    budget: Budget,
}

/// The tiny checkpoint's tokenizer, one id for each character; the keys of both sections.
fn set_up(generation: &str, budget: &str) -> (Tokenizer, Keys) {
    let folder = tempfile::tempdir().unwrap();
    write_checkpoint(folder.path());
    let text = format!(
        "[model]\npath = \"p\"\ndevice = \"cpu\"\ndtype = \"float32\"\nmax_model_len = 100\n\
         [generation]\nmax_gen_toks = 9\n{generation}\n[budget]\nname = \"b\"\n{budget}\n"
    );
    (Tokenizer::read(folder.path()).unwrap(), toml::from_str(&text).unwrap())
}

/// The texts of start, end, end of a cut, new line, and of what ends thinking, by ids and by text.
#[track_caller]
fn check(generation: &str, budget: &str, texts: [&str; 4], until: &[&str]) -> Arc<Spec> {
    let (tokenizer, Keys { generation, budget, .. }) = set_up(generation, budget);
    let spec = specs(&generation, &[budget], 100, &tokenizer).unwrap().remove(0);
    let thinking = spec.thinking.as_ref().expect("the budget forces thinking");
    let ids =
        [&spec.thinking_start, &spec.thinking_end, &thinking.thinking_end_max, &thinking.newline];
    assert_eq!(ids.map(|ids| tokenizer.decode(ids).unwrap()), texts);
    let single = thinking.until.iter().map(|&id| tokenizer.decode(&[id]).unwrap());
    let found: Vec<String> = single.chain(thinking.until_texts.clone()).collect();
    assert_eq!(found, until);
    spec
}

const CAP: &str = "max_tokens_thinking = 5";
const START: &str = "<|im_start|>think";
const END: &str = "<|im_start|>answer";
const CUT: &str = "<|im_start|>answer\nFinal Answer:";

#[test]
fn delimiters() {
    let s1 = ["<|im_start|>", "<|im_end|>"];
    check("", CAP, [START, END, CUT, "\n"], &s1);
    // s1's step-conditional control with forcing: a stop of two tokens.
    let steps = "thinking_start = \"<|im_start|>\"\nuntil_thinking = [\"<|im_start|>0\"]";
    check(steps, CAP, ["<|im_start|>", END, CUT, "\n"], &["<|im_end|>", "<|im_start|>0"]);
    // A template that opens thinking, delimiters of many tokens, another text where it is cut.
    let tags =
        "thinking_start = \"\"\nthinking_end = \"</think>\"\nuntil_thinking = [\"</think>\"]";
    let until = ["<|im_end|>", "</think>"];
    check(tags, CAP, ["", "</think>", "</think>\nFinal Answer:", "\n"], &until);
    let own = format!("{tags}\nthinking_end_max = \"\\nTime is up.\\n</think>\"");
    check(&own, CAP, ["", "</think>", "\nTime is up.\n</think>", ""], &until);
    // No new line before nothing, nor where the delimiters bring theirs.
    check("thinking_end_max = \"\"", CAP, [START, END, "", ""], &s1);
    let lines = "thinking_start = \"\\n<|im_start|>think\"";
    check(lines, CAP, ["\n<|im_start|>think", END, CUT, ""], &s1);
    let readme = check("procedure = \"readme\"", CAP, [START, "", "", ""], &s1);
    assert_eq!(readme.thinking.as_ref().unwrap().procedure, Procedure::Readme);
    let tries = format!("{CAP}\nrejection_tries = 7\ntemperature = 1.0");
    let rejecting = check("", &tries, [START, END, CUT, "\n"], &s1);
    assert_eq!(rejecting.thinking.as_ref().unwrap().tries, Some(7));
}

#[track_caller]
fn check_error(generation: &str, budget: &str, part: &str) {
    let (_, Keys { model, generation, budget }) = set_up(generation, budget);
    let error = check_keys(&model, &Engine::default(), &generation, &[budget]).unwrap_err();
    assert!(format!("{error:#}").contains(part), "{part:?} is not in: {error:#}");
}

#[test]
fn budgets_that_mean_nothing() {
    check_error("until_thinking = [\"\"]", CAP, "empty text");
    check_error("", "max_tokens_thinking = 5\nmin_tokens_thinking = 6", "more than max_tokens");
    check_error("procedure = \"readme\"", "min_tokens_thinking = 6", "knows no minimum");
    check_error("temperature = 1.0", "rejection_tries = 2", "without a max_tokens_thinking");
    check_error("temperature = 1.0", "rejection_tries = 0\nmax_tokens_thinking = 5", "tries is 0");
    check_error("", "rejection_tries = 2\nmax_tokens_thinking = 5", "at temperature 0");
    let ignoring = "rejection_tries = 2\nmax_tokens_thinking = 5\nthinking_n_ignore = 1";
    check_error("temperature = 1.0", ignoring, "neither with thinking_n_ignore");
}
