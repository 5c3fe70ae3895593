//! Every branch of budget forcing against a scripted model: no weights, the ids written out.

mod support;

use std::collections::{BTreeSet, VecDeque};

use infer::budget::{Ending, MaxTokens, Outcome, Procedure, Spec, Thinking};
use support::{ONE, answers, engine_of, request, tokenizer_of};

// The vocabulary. Words of thinking are 20 and up, words of answers 30 and up.
const START: i64 = 1; // <|im_start|>
const END: i64 = 2; // <|im_end|>
const THINK: i64 = 3;
const ANSWER: i64 = 4;
const LINE: i64 = 5; // a new line
const FINAL: i64 = 6; // Final Answer:
const DOT_LINE: i64 = 7; // a full stop and a new line, one token
const WAIT: i64 = 8;
const A_BIT: i64 = 9; // "Wait a bit" is WAIT, A_BIT
const MID: i64 = 18; // "u" and the beginning of "vw"
const AFTER: i64 = 19; // the end of "vw" and "u"
const VOCAB: usize = 40;

const PROMPT: [i64; 3] = [10, 11, 12];

/// s1's delimiters with `max_tokens` of thinking, 8 of answer, in a context of 100.
fn spec(max_tokens: MaxTokens) -> Spec {
    Spec {
        thinking_start: vec![START, THINK],
        thinking_end: vec![START, ANSWER],
        thinking: Some(Thinking {
            max_tokens,
            min_tokens: 0,
            until: vec![START, END],
            until_texts: vec![],
            n_ignore: 0,
            ignore: vec![],
            thinking_end_max: vec![START, ANSWER, LINE, FINAL],
            newline: vec![LINE],
            ends_line: BTreeSet::from([LINE, DOT_LINE]),
            procedure: Procedure::Harness,
            tries: None,
        }),
        until: vec![END],
        min_gen_toks: 0,
        max_gen_toks: 8,
        max_model_len: 100,
    }
}

fn cap(count: usize) -> Spec {
    spec(MaxTokens::Count(count))
}

fn plain() -> Spec {
    Spec { thinking: None, ..cap(0) }
}

/// A cap with ends of thinking ignored, as the config sets it up.
fn ignoring(count: usize, n_ignore: usize, ignore: &[i64]) -> Spec {
    let mut spec = cap(count);
    let thinking = spec.thinking.as_mut().unwrap();
    (thinking.n_ignore, thinking.ignore) = (n_ignore, ignore.to_vec());
    thinking.min_tokens = 1;
    spec
}

/// The text "vw", two ids, ends thinking too.
fn until_text(mut spec: Spec) -> Spec {
    spec.thinking.as_mut().unwrap().until_texts = vec!["vw".into(), "xyx".into()];
    spec
}

/// s1's README: the model opens the answer itself.
fn readme(count: usize, n_ignore: usize) -> Spec {
    let mut spec = ignoring(count, n_ignore, &[WAIT]);
    let thinking = spec.thinking.as_mut().unwrap();
    thinking.procedure = Procedure::Readme;
    (thinking.thinking_end_max, thinking.newline) = (vec![], vec![]);
    Spec { thinking_end: vec![], ..spec }
}

/// Rejection sampling.
fn rejecting(tries: usize, mut spec: Spec) -> Spec {
    spec.thinking.as_mut().unwrap().tries = Some(tries);
    spec
}

fn within(max_model_len: usize, spec: Spec) -> Spec {
    Spec { max_model_len, ..spec }
}

/// Decodes with a script of ranked ids and checks that nothing was fed twice or left out.
#[track_caller]
fn decode(spec: &Spec, script: &[&[i64]]) -> Outcome {
    let mut script: VecDeque<&[i64]> = script.iter().copied().collect();
    let mut fed = vec![];
    let logits = |ids: &[i64]| {
        fed = ids.to_vec();
        let mut logits = vec![0.0; VOCAB];
        let ranked = script.pop_front().expect("more ids are sampled than the row has");
        for (rank, &id) in ranked.iter().enumerate() {
            logits[id as usize] = 9.0 - rank as f32;
        }
        logits
    };
    // A letter each, but for two, which come of no text.
    let letter = |id: i64| char::from_u32(97 + id as u32).unwrap().to_string();
    let texts = (0..VOCAB as i64).map(|id| match id {
        MID => "uv".into(),
        AFTER => "wu".into(),
        id => letter(id),
    });
    let requests = [request(spec, &PROMPT)];
    let answer = answers(&mut engine_of(logits, tokenizer_of(texts), ONE), &requests).remove(0);
    assert_eq!(script.len(), 0, "fewer ids are sampled than the row has");
    let whole = [&PROMPT[..], &answer.outcome.ids].concat();
    assert!(whole.starts_with(&fed), "fed {fed:?} of {whole:?}");
    check_forced(&answer.outcome, spec);
    answer.outcome
}

/// What is not sampled: the delimiters around thinking, and no id of the answer.
#[track_caller]
fn check_forced(outcome: &Outcome, spec: &Spec) {
    let forced: Vec<usize> = outcome.forced.iter().cloned().flatten().collect();
    assert!(forced.is_sorted() && outcome.forced.windows(2).all(|two| two[0].end < two[1].start));
    let Some(thinking) = &spec.thinking else {
        return assert!(forced.is_empty(), "plain generation");
    };
    let outside = (0..outcome.thinking.start).chain(outcome.thinking.end..outcome.answer.start);
    let inside = forced.iter().filter(|&&at| outcome.thinking.contains(&at));
    assert!(outside.clone().all(|at| forced.contains(&at)), "{outcome:?}");
    assert!(inside.clone().all(|&at| thinking.ignore.contains(&outcome.ids[at])), "{outcome:?}");
    assert_eq!(outside.count() + inside.count(), forced.len(), "{outcome:?}");
}

/// One row: sampled ids in, ids behind the prompt, the thinking among them and both endings out.
#[track_caller]
fn check(
    spec: &Spec,
    sampled: &[i64],
    ids: &[i64],
    thinking: &[i64],
    endings: (Option<Ending>, Ending),
) {
    let script: Vec<[i64; 1]> = sampled.iter().map(|&id| [id]).collect();
    let script: Vec<&[i64]> = script.iter().map(|ranked| &ranked[..]).collect();
    let outcome = decode(spec, &script);
    assert_eq!(outcome.ids, ids);
    assert_eq!(outcome.ids[outcome.thinking.clone()], *thinking);
    assert_eq!((outcome.thinking_ending, outcome.ending), endings);
}

const STOP: Ending = Ending::Stop;
const LENGTH: Ending = Ending::Length;
const CONTEXT: Ending = Ending::Context;

#[test]
fn plain_generation_forces_nothing() {
    check(&plain(), &[30, 31, END], &[30, 31], &[30, 31], (None, STOP));
    let long = [30; 8];
    check(&plain(), &long, &long, &long, (None, LENGTH));
    check(&within(5, plain()), &[30, 31], &[30, 31], &[30, 31], (None, CONTEXT));
    check(&within(3, plain()), &[], &[], &[], (None, CONTEXT));
    // The delimiters, when the model writes them itself, tell thinking from answer.
    let own = [START, THINK, 20, START, ANSWER, 30, 31];
    let outcome =
        decode(&plain(), &own.iter().chain(&[END]).map(std::slice::from_ref).collect::<Vec<_>>());
    assert_eq!(outcome.ids, own);
    assert_eq!((outcome.thinking, outcome.answer), (2..3, 5..7));
}

#[test]
fn thinking_that_ends_by_itself() {
    let ids = [START, THINK, 20, 21, START, ANSWER, 30];
    check(&cap(5), &[20, 21, START, 30, END], &ids, &[20, 21], (Some(STOP), STOP));
    check(&cap(5), &[20, 21, END, 30, END], &ids, &[20, 21], (Some(STOP), STOP));
    // An end as the last id that the budget allows is an end, not a cut.
    check(&cap(3), &[20, 21, START, 30, END], &ids, &[20, 21], (Some(STOP), STOP));
    check(&cap(3), &[START, END], &[START, THINK, START, ANSWER], &[], (Some(STOP), STOP));
}

#[test]
fn thinking_that_reaches_its_budget() {
    let ids = [START, THINK, 20, 21, LINE, START, ANSWER, LINE, FINAL, 30];
    check(&cap(2), &[20, 21, 30, END], &ids, &[20, 21], (Some(LENGTH), STOP));
    // No second new line where the thinking ends with one.
    let ids = [START, THINK, 20, DOT_LINE, START, ANSWER, LINE, FINAL, 30];
    check(&cap(2), &[20, DOT_LINE, 30, END], &ids, &[20, DOT_LINE], (Some(LENGTH), STOP));
    let ids = [START, THINK, LINE, START, ANSWER, LINE, FINAL];
    check(&cap(1), &[LINE, END], &ids, &[LINE], (Some(LENGTH), STOP));
}

#[test]
fn a_budget_of_0_answers_at_once() {
    let ids = [START, THINK, LINE, START, ANSWER, LINE, FINAL, 30];
    check(&cap(0), &[30, END], &ids, &[], (Some(LENGTH), STOP));
}

#[test]
fn an_ignored_end_is_replaced() {
    let ids = [START, THINK, 20, WAIT, 21, START, ANSWER, 30];
    let wait = ignoring(9, 1, &[WAIT]);
    check(&wait, &[20, START, 21, START, 30, END], &ids, &[20, WAIT, 21], (Some(STOP), STOP));
    let ids = [START, THINK, 20, WAIT, A_BIT, 21, WAIT, A_BIT, 22, START, ANSWER];
    let twice = ignoring(9, 2, &[WAIT, A_BIT]);
    let thinking = [20, WAIT, A_BIT, 21, WAIT, A_BIT, 22];
    check(&twice, &[20, START, 21, END, 22, END, END], &ids, &thinking, (Some(STOP), STOP));
}

#[test]
fn the_first_id_of_a_round_is_no_end() {
    // Ignored without a string: the same logits again, and the second choice is taken.
    let outcome = decode(&ignoring(9, 1, &[]), &[&[START, 20], &[START, 21], &[START], &[END]]);
    assert_eq!(outcome.ids, [START, THINK, 20, 21, START, ANSWER]);
    // With thinking_n_ignore = 0 as well, as in the harness.
    let outcome = decode(&ignoring(9, 0, &[]), &[&[END, 20], &[END], &[END]]);
    assert_eq!(outcome.ids, [START, THINK, 20, START, ANSWER]);
}

#[test]
fn rounds_share_one_budget() {
    let closing = [LINE, START, ANSWER, LINE, FINAL];
    let row = |spec: &Spec, sampled: &[i64], thinking: &[i64]| {
        let ids = [&[START, THINK], thinking, &closing].concat();
        check(spec, &[sampled, &[END]].concat(), &ids, thinking, (Some(LENGTH), STOP));
    };
    // The first round uses it all: nothing is ignored.
    row(&ignoring(2, 1, &[WAIT]), &[20, 21], &[20, 21]);
    // The second round reaches it.
    row(&ignoring(4, 1, &[WAIT]), &[20, START, 21, 22], &[20, WAIT, 21, 22]);
    // The string itself fills it, or is cut by it.
    row(&ignoring(2, 1, &[WAIT]), &[20, START], &[20, WAIT]);
    row(&ignoring(3, 2, &[WAIT, A_BIT]), &[20, 21, START], &[20, 21, WAIT]);
}

#[test]
fn a_minimum_bans_the_stops() {
    let mut least = cap(9);
    least.thinking.as_mut().unwrap().min_tokens = 2;
    let outcome = decode(&least, &[&[START, 20], &[END, START, 21], &[START], &[30], &[END]]);
    assert_eq!(outcome.ids, [START, THINK, 20, 21, START, ANSWER, 30]);
}

#[test]
fn the_answer_has_its_own_limit() {
    let answer = [30; 8];
    let ids = [&[START, THINK, 20, START, ANSWER], &answer[..]].concat();
    let sampled = [&[20, START], &answer[..]].concat();
    check(&cap(5), &sampled, &ids, &[20], (Some(STOP), LENGTH));
    let least = Spec { min_gen_toks: 2, ..cap(5) };
    let outcome = decode(&least, &[&[20], &[START], &[END, 30], &[START, END], &[END]]);
    assert_eq!(outcome.ids, [START, THINK, 20, START, ANSWER, 30, START]);
    // What would end thinking does not end the answer.
    let ids = [START, THINK, START, ANSWER, START, 30];
    check(&cap(5), &[START, START, 30, END], &ids, &[], (Some(STOP), STOP));
}

#[test]
fn the_context_bounds_everything() {
    let full = (Some(CONTEXT), CONTEXT);
    // Full before thinking, in thinking, and by a closing that no longer fits.
    check(&within(5, cap(9)), &[], &[START, THINK], &[], full);
    check(&within(7, cap(9)), &[20, 21], &[START, THINK, 20, 21], &[20, 21], full);
    check(&within(8, cap(9)), &[20, 21, START], &[START, THINK, 20, 21], &[20, 21], full);
    check(&within(11, cap(2)), &[20, 21], &[START, THINK, 20, 21], &[20, 21], full);
    // Not even the opening fits; a string in the place of an ignored end that does not, and one
    // that just does.
    check(&within(4, cap(9)), &[], &[], &[], full);
    let wait = |len| within(len, ignoring(9, 1, &[WAIT, A_BIT]));
    check(&wait(7), &[20, START], &[START, THINK, 20], &[20], full);
    let fits = [START, THINK, 20, WAIT, A_BIT];
    check(&wait(8), &[20, START], &fits, &fits[2..], full);
    // Full right after the closing, and in the answer.
    let ids = [START, THINK, 20, START, ANSWER];
    check(&within(8, cap(9)), &[20, START], &ids, &[20], (Some(STOP), CONTEXT));
    let ids = [START, THINK, 20, START, ANSWER, 30];
    check(&within(9, cap(9)), &[20, START, 30], &ids, &[20], (Some(STOP), CONTEXT));
}

#[test]
fn auto_is_what_the_answer_leaves() {
    // s1's numbers: 32768 less a prompt of 200, 2 and 6 ids of delimiters, and 100.
    let mut auto = Spec { max_gen_toks: 32_768, ..spec(MaxTokens::Auto) };
    auto.thinking.as_mut().unwrap().thinking_end_max = vec![151644, 9217, 198, 19357, 21806, 25];
    assert_eq!(auto.max_tokens_thinking(200), Some(32_460));
    assert_eq!(auto.max_tokens_thinking(40_000), Some(0));
    assert_eq!(cap(7).max_tokens_thinking(40_000), Some(7));
    assert_eq!(plain().max_tokens_thinking(200), None);
    // Three of prompt, two and four of delimiters: two are left.
    let small = Spec { max_gen_toks: 111, max_model_len: 1000, ..spec(MaxTokens::Auto) };
    let ids = [START, THINK, 20, 21, LINE, START, ANSWER, LINE, FINAL];
    check(&small, &[20, 21, END], &ids, &[20, 21], (Some(LENGTH), STOP));
}

#[test]
fn a_text_ends_thinking() {
    let text = |count| until_text(cap(count));
    let ids = [START, THINK, 20, START, ANSWER, 30];
    check(&text(9), &[20, 21, 22, 30, END], &ids, &[20], (Some(STOP), STOP));
    // As the last ids that the budget allows it is an end; the beginning of one is none.
    check(&text(3), &[20, 21, 22, 30, END], &ids, &[20], (Some(STOP), STOP));
    let cut = [START, THINK, 20, 21, LINE, START, ANSWER, LINE, FINAL];
    check(&text(2), &[20, 21, END], &cut, &[20, 21], (Some(LENGTH), STOP));
    let other = [START, THINK, 21, 23, START, ANSWER];
    check(&text(9), &[21, 23, START, END], &other, &[21, 23], (Some(STOP), STOP));
    // Nothing but the text, and one of three ids.
    let nothing = [START, THINK, START, ANSWER];
    check(&text(9), &[21, 22, END], &nothing, &[], (Some(STOP), STOP));
    check(&text(9), &[23, 24, 23, END], &nothing, &[], (Some(STOP), STOP));
    // It begins in the middle of an id, whose other half stays; it ends in the middle of one.
    let half = [START, THINK, 23, 20, START, ANSWER, 30];
    check(&text(9), &[23, MID, 22, 30, END], &half, &[23, 20], (Some(STOP), STOP));
    check(&text(9), &[20, 21, AFTER, 30, END], &ids, &[20], (Some(STOP), STOP));
    // It ends no answer, and a context that its beginning fills holds no answer.
    let answer = [START, THINK, START, ANSWER, 21, 22];
    check(&text(9), &[START, 21, 22, END], &answer, &[], (Some(STOP), STOP));
    let full = [START, THINK, 20, 21];
    check(&within(7, text(9)), &[20, 21], &full, &[20, 21], (Some(CONTEXT), CONTEXT));
    let last = [START, THINK, START, ANSWER, 30];
    check(&within(8, text(9)), &[21, 22, 30], &last, &[], (Some(STOP), CONTEXT));
}

#[test]
fn a_text_is_ignored_as_an_id_is() {
    let wait = until_text(ignoring(9, 1, &[WAIT]));
    let ids = [START, THINK, 20, WAIT, 23, START, ANSWER];
    let thinking = [20, WAIT, 23];
    check(&wait, &[20, 21, 22, 23, 21, 22, END], &ids, &thinking, (Some(STOP), STOP));
    // The budget counts what stays.
    let ids = [START, THINK, 20, WAIT, 23, LINE, START, ANSWER, LINE, FINAL];
    let wait = until_text(ignoring(3, 1, &[WAIT]));
    check(&wait, &[20, 21, 22, 23, END], &ids, &thinking, (Some(LENGTH), STOP));
    // What stands in its place is no part of the next one.
    let half = until_text(ignoring(9, 1, &[21]));
    let ids = [START, THINK, 20, 21, 22, START, ANSWER];
    check(&half, &[20, START, 22, START, END], &ids, &[20, 21, 22], (Some(STOP), STOP));
    // Without a string, the id that began it is not chosen again at the same place.
    let none = until_text(ignoring(9, 1, &[]));
    let script: [&[i64]; 7] = [&[20], &[21], &[22], &[21, 23], &[21], &[22], &[END]];
    assert_eq!(decode(&none, &script).ids, [START, THINK, 20, 23, START, ANSWER]);
}

#[test]
fn before_the_minimum_no_text_is_completed() {
    let mut least = until_text(cap(9));
    least.thinking.as_mut().unwrap().min_tokens = 3;
    let script: [&[i64]; 6] = [&[20], &[21], &[22, AFTER, 23], &[21], &[22], &[END]];
    assert_eq!(decode(&least, &script).ids, [START, THINK, 20, 21, 23, START, ANSWER]);
}

#[test]
fn a_minimum_may_be_the_maximum() {
    let mut exact = cap(2);
    exact.thinking.as_mut().unwrap().min_tokens = 2;
    let outcome = decode(&exact, &[&[START, 20], &[END, 21], &[END]]);
    assert_eq!(outcome.ids, [START, THINK, 20, 21, LINE, START, ANSWER, LINE, FINAL]);
    // Ignored or not, the budget holds.
    let thinking = exact.thinking.as_mut().unwrap();
    (thinking.n_ignore, thinking.ignore) = (3, vec![WAIT]);
    assert_eq!(decode(&exact, &[&[START, 20], &[END, 21], &[END]]), outcome);
}

#[test]
fn rejected_thinking_is_tried_again() {
    let three = rejecting(3, cap(2));
    let ids = [START, THINK, 22, START, ANSWER, 30];
    let check_tries = |spec: &Spec, sampled: &[i64], tries: usize| {
        let script: Vec<&[i64]> = sampled.chunks(1).collect();
        let outcome = decode(spec, &script);
        assert_eq!((&outcome.ids[..], outcome.tries), (&ids[..], tries));
        assert_eq!(outcome.thinking_ending, Some(STOP));
    };
    check_tries(&three, &[22, START, 30, END], 1);
    check_tries(&three, &[20, 21, 22, START, 30, END], 2);
    check_tries(&three, &[20, 21, 20, 21, 22, START, 30, END], 3);
    // A text's ids count as they do elsewhere.
    check_tries(&until_text(rejecting(2, cap(3))), &[22, 21, 22, 30, END], 1);
    check_tries(&until_text(rejecting(2, cap(2))), &[22, 21, 22, START, 30, END], 2);
    // So does a context that is full.
    check_tries(&within(10, rejecting(2, cap(9))), &[20, 21, 22, 23, 24, 22, START, 30, END], 2);
    // No answer after the last try, nor where nothing can be thought.
    let last = [START, THINK, 20, 21];
    check(&rejecting(1, cap(2)), &[20, 21], &last, &[20, 21], (Some(LENGTH), LENGTH));
    check(&rejecting(2, cap(2)), &[20, 21, 20, 21], &last, &[20, 21], (Some(LENGTH), LENGTH));
    check(&rejecting(2, cap(0)), &[], &last[..2], &[], (Some(LENGTH), LENGTH));
}

#[test]
fn the_readme_counts_what_is_sampled() {
    let stopped = (Some(STOP), STOP);
    let ids = [START, THINK, 20, WAIT, 21, START, ANSWER, 30];
    let thinking = [20, WAIT, 21];
    // The answer begins where thinking ended, with the same id if the model is greedy.
    let sampled = [20, START, 21, START, ANSWER, 30, END];
    check(&readme(9, 1), &sampled, &ids, &thinking, stopped);
    check(&readme(4, 1), &sampled, &ids, &thinking, stopped);
    // Two of three ids are used up by the first round: one is left, and closed with nothing.
    let cut = [20, START, 21, START, ANSWER, 30, END];
    check(&readme(3, 1), &cut, &ids, &thinking, (Some(LENGTH), STOP));
    // Nothing is left: the end is not ignored.
    let short = [START, THINK, 20, START, 30];
    check(&readme(2, 1), &[20, START, 30, END], &short, &[20], stopped);
    check(&readme(1, 1), &[20, START, 30, END], &short, &[20], (Some(LENGTH), STOP));
    // The first id may be an end, the first after an ignored one may not.
    let outcome = decode(&readme(9, 1), &[&[START], &[START, 20], &[START], &[END]]);
    assert_eq!(outcome.ids, [START, THINK, WAIT, 20, START]);
    // A text's ids are sampled, too.
    let text = until_text(readme(4, 1));
    check(
        &text,
        &[20, 21, 22, 21, 30, END],
        &[START, THINK, 20, WAIT, 21, 30],
        &[20, WAIT, 21],
        (Some(LENGTH), STOP),
    );
}
