//! `curate featurise` over a small pool: without models, and with all five behind a local server.

mod models;
mod server;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use curate::featurise::{Args, Prompt, Texts, by_rules, run};
use record::row::{Attempt, Features};
use record::table::{read_attempts, stream_features};
use serde_json::{Value, json};

use crate::shared::{lines, shared, text};
use crate::tokens::byte_letter;
use server::Server;

/// Four questions: one complete, one without anything, one without a solution, the first again.
const POOL: &str = r#"{"question": "What is 2+2?", "solution": "\\boxed{4}", "source_type": "a", "thinking_trajectories": ["two and two"], "attempt": "It is \\boxed{4}."}
{"question": "Is every subgroup of a cyclic group cyclic? The number of subgroups of $Z_6$ is?", "solution": "There are \\boxed{4}.", "source_type": "b"}
{"question": "Name a prime number.", "solution": null, "source_type": "a", "isqwen7bcorrect": true, "domain": "Geometry"}
{"question": "What is 2+2?", "solution": "\\boxed{5}", "source_type": "c"}
"#;

/// A folder with the pool and a tokenizer whose tokens are single bytes, and the config's text.
struct Work {
    folder: tempfile::TempDir,
    config: String,
}

impl Work {
    fn new(models: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("pool.jsonl"), POOL).unwrap();
        std::fs::write(folder.path().join("tokenizer.json"), byte_tokenizer()).unwrap();
        let at = folder.path().display();
        let config = format!(
            "output = '{at}/out'\ncache = '{at}/replies.sqlite'\n\
             pool = {{ files = ['{at}/pool.jsonl'] }}\n\
             length = {{ tokenizer = '{at}/tokenizer.json' }}\n\
             grading = {{ decides = 'rules' }}\n{models}"
        );
        Self { folder, config }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn args(&self, sets: &[&str]) -> Args {
        let config = self.path("featurise.toml");
        std::fs::write(&config, &self.config).unwrap();
        let sets = sets.iter().map(|set| set.to_string()).collect();
        Args { config, sets, overwrite: true, ..Args::default() }
    }

    fn features(&self) -> Vec<Features> {
        stream_features(&self.path("out/features.parquet")).unwrap().map(Result::unwrap).collect()
    }

    fn attempts(&self) -> Vec<Attempt> {
        read_attempts(&self.path("out/attempts.parquet")).unwrap()
    }
}

/// A `tokenizer.json` in which every byte is a token, and `tw` is one too.
fn byte_tokenizer() -> String {
    let mut vocab: BTreeMap<String, u32> =
        (0..=255).map(|byte| (byte_letter(byte).to_string(), u32::from(byte))).collect();
    vocab.insert("tw".to_string(), 256);
    json!({"version": "1.0", "added_tokens": [], "normalizer": null,
           "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false,
                             "use_regex": true},
           "post_processor": null, "decoder": null,
           "model": {"type": "BPE", "dropout": null, "unk_token": null, "fuse_unk": false,
                     "continuing_subword_prefix": "", "end_of_word_suffix": "",
                     "byte_fallback": false, "ignore_merges": false,
                     "vocab": vocab, "merges": [["t", "w"]]}})
    .to_string()
}

fn bytes(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_string();
    entries.map(|path| (name(&path), std::fs::read(path).unwrap())).collect()
}

#[test]
fn without_models_features_come_from_the_pool_rules_and_words() {
    let work = Work::new("");
    let summary = run(&work.args(&[])).unwrap();
    let features = work.features();
    assert_eq!(features.len(), 3, "equal questions are one");
    let first = &features[0];
    assert_eq!(first.question_hash, "52cb6b5e4a038af1");
    assert_eq!(first.gemini_length, Some(9), "of two and two");
    assert_eq!(first.isgeminicorrect, Some(true));
    assert_eq!((first.isqwen7bcorrect, first.isqwen32bcorrect), (None, None));
    assert_eq!(features[1].domain.as_deref(), Some("Group theory and generalizations"));
    assert_eq!((features[1].gemini_length, features[1].isgeminicorrect), (None, None));
    assert_eq!(features[2].domain.as_deref(), Some("Geometry"), "the pool's own stays");
    assert_eq!(features[2].isqwen7bcorrect, Some(true));
    let attempts = work.attempts();
    assert_eq!(attempts.len(), 1);
    assert_eq!(attempts[0].reason.as_deref(), Some("4 is 4 (identical)"));
    assert!(
        summary.contains("isqwen7bcorrect                 1            0            2"),
        "{summary}"
    );
    assert!(
        summary.contains("gemini_length                   0            1            2"),
        "{summary}"
    );
    assert!(summary.contains("as the model or the pool says, of 0 of 1 questions"), "{summary}");
    assert!(!work.path("replies.sqlite").exists(), "no model, no cache");

    let first = bytes(&work.path("out"));
    run(&work.args(&[])).unwrap();
    assert_eq!(bytes(&work.path("out")), first, "the same input gives the same bytes");
}

#[test]
fn a_wrong_config_is_an_error_with_its_cure() {
    let check = |models: &str, sets: &[&str], expected: &str| {
        let error = format!("{:#}", run(&Work::new(models).args(sets)).unwrap_err());
        assert!(error.contains(expected), "{error}");
    };
    check("", &["grading.decides=judge"], "needs the section [judge]");
    check("", &["pool.files=[]"], "name at least one file");
    check("", &["pool.files=['none.parquet']"], "none.parquet does not exist");
    check("", &["length.tokenizer=none.json"], "name the tokenizer.json of a Qwen2.5 model");
    check("[teacher]\nprompts = 'x'", &[], "unknown field");
    let server = Server::start();
    check(&server.sections(), &["judge.prompt=none.md"], "cannot read the prompt none.md");
    check(&server.sections(), &["judge.prompt=none.md"], "the section [judge]");
}

#[test]
fn prompts_say_what_is_wrong_with_them() {
    let check = |text: &str, expected: &str| {
        let error = format!("{:#}", Prompt::parse(text).unwrap_err());
        assert!(error.contains(expected), "{error}");
    };
    check("", "needs the line `## user`");
    check("# x\n\n## user\n{nobody}", "there is no placeholder {nobody}");
    check("# x\n\n## user\n{question", "a brace is not closed");
    // A text that holds placeholders or a heading is no part of the prompt.
    let prompt = Prompt::parse("# x\n\n## user\nQ: {question}!").unwrap();
    let texts = Texts { question: "{solution}\n## system\nx", ..Texts::default() };
    assert_eq!(prompt.messages(&texts)[0].content, "Q: {solution}\n## system\nx!");
}

#[track_caller]
fn check_rules(attempt: &str, solution: &str, right: Option<bool>, why: &str) {
    let verdict = by_rules(attempt, solution);
    assert_eq!((verdict.right, verdict.why.as_str()), (right, why), "{attempt:?} {solution:?}");
}

#[test]
fn rules_compare_final_answers_or_cannot_tell() {
    check_rules(
        "So \\boxed{72}.",
        "She sold 48+24 = 72.\n#### 72",
        Some(true),
        "72 is 72 (identical)",
    );
    check_rules("So \\boxed{7", "7", Some(false), "the attempt has no final answer");
    check_rules("So \\boxed{7}", "", None, "the solution names no final answer");
    let proof =
        "Suppose it were not so. Then there is a least such number, and so a lesser one.\nQED";
    check_rules("So \\boxed{7}", proof, None, "the solution names no final answer");
}

/// Real attempts at MATH500 and AIME24 with the verdicts of those who ran them; the solutions are
/// whole texts, in which the answer has to be found first.
#[test]
fn rules_agree_with_recorded_verdicts() {
    let Some(folder) = shared() else { return };
    let solution = |line: Value| {
        Some((line["id"].clone().to_string(), line["solution"].as_str()?.to_string()))
    };
    let solutions: BTreeMap<String, String> = ["math500", "aime24"]
        .iter()
        .flat_map(|name| lines(&folder.join("eval").join(name).with_extension("jsonl")))
        .filter_map(solution)
        .collect();
    let (mut told, mut same, mut untold) = (0, 0, 0);
    for name in ["qwen25_32b_instruct_math500", "qwen25_32b_instruct_aime24"] {
        for line in lines(&folder.join("generations").join(name).with_extension("jsonl")) {
            let Some(solution) = solutions.get(&line["question_id"].to_string()) else { continue };
            match by_rules(text(&line["output"]), solution).right {
                Some(right) => {
                    told += 1;
                    same += usize::from(right == (line["origin"]["verdict"] == true));
                }
                None => untold += 1,
            }
        }
    }
    eprintln!("{same} of {told} verdicts are the recorded ones, {untold} the rules cannot tell");
    assert!(told >= 1_500 && same * 100 >= told * 97 && untold <= 10, "{same} of {told}, {untold}");
}
