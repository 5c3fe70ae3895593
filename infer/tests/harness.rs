//! Budget forcing against an independent transcription of s1's harness over random scenarios.
//!
//! The transcription generates in whole rounds, as vLLM does for the harness, each with the same
//! `max_tokens`, and cuts afterwards. The state machine never goes over the budget, so that both
//! must give the same ids.

mod support;

use std::collections::BTreeSet;

use infer::budget::{MaxTokens, Procedure, Spec, Thinking};
use infer::engine::Settings;
use record::seed::{Rng, rng};
use support::{answers, engine, request};

const START: i64 = 0;
const END: i64 = 1;
const LINE: i64 = 2;
const DOT_LINE: i64 = 3;
const THINK: i64 = 4;
const ANSWER: i64 = 5;
const FINAL: i64 = 6;
const VOCAB: usize = 14;

/// A model whose logits are a hash of all ids before: it never writes one thing twice.
fn hashed(ids: &[i64]) -> Vec<f32> {
    let mut stream = rng(0, &[&format!("{ids:?}")]);
    (0..VOCAB).map(|_| stream.uniform() as f32).collect()
}

/// vLLM's `generate` for one greedy request: the new ids with the stop that ended them, and whether
/// it was the length instead. Stops are banned until there are `min_tokens`.
fn vllm(prompt: &[i64], max_tokens: usize, min_tokens: usize, stops: &[i64]) -> (Vec<i64>, bool) {
    let mut ids = prompt.to_vec();
    while ids.len() - prompt.len() < max_tokens {
        let logits = hashed(&ids);
        let banned = ids.len() - prompt.len() < min_tokens;
        let allowed = (0..VOCAB).filter(|&id| !(banned && stops.contains(&(id as i64))));
        let best = allowed.max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap() as i64;
        ids.push(best);
        if stops.contains(&best) {
            return (ids[prompt.len()..].to_vec(), false);
        }
    }
    (ids[prompt.len()..].to_vec(), true)
}

fn strip_stop(ids: &mut Vec<i64>, stops: &[i64]) {
    if ids.last().is_some_and(|id| stops.contains(id)) {
        ids.pop();
    }
}

/// `_model_generate` of the harness for one request: everything behind the prompt.
fn harness(spec: &Spec, rounds: Option<usize>, prompt: &[i64]) -> Vec<i64> {
    let thinking = spec.thinking.as_ref().unwrap();
    let budget = spec.max_tokens_thinking(prompt.len()).unwrap();
    let opened = [prompt, &spec.thinking_start].concat();
    let mut thought = Vec::new();
    let mut by_length = false;
    for round in 0..=rounds.unwrap_or(0) {
        let so_far = [&opened[..], &thought].concat();
        let (mut new, length) = vllm(&so_far, budget, thinking.min_tokens, &thinking.until);
        by_length = length;
        if length || round == rounds.unwrap_or(0) {
            thought.extend(new);
            break;
        }
        strip_stop(&mut new, &thinking.until);
        new.extend(&thinking.ignore);
        thought.extend(new);
    }
    if thought.len() > budget {
        thought.truncate(budget);
        by_length = true; // Differs from s1: thinking that was cut ran out, whatever came later.
    }
    strip_stop(&mut thought, &thinking.until);
    let mut closing = spec.thinking_end.clone();
    if by_length {
        let ends_line = thought.last().is_some_and(|id| thinking.ends_line.contains(id));
        let newline = if ends_line { &[][..] } else { &thinking.newline };
        closing = [newline, &thinking.thinking_end_max].concat();
    }
    let asked = [&opened[..], &thought, &closing].concat();
    let (mut answer, _) = vllm(&asked, spec.max_gen_toks, 0, &spec.until);
    strip_stop(&mut answer, &spec.until);
    [&asked[prompt.len()..], &answer].concat()
}

/// A random request: how many ends to ignore, and its spec.
fn scenario(random: &mut Rng) -> (Option<usize>, Spec) {
    let mut below = |n: u64| random.below(n) as usize;
    let rounds = [None, Some(below(4))][below(2)];
    let ignore = [vec![], vec![7], vec![7, 8, 9]][below(3)].clone();
    let thinking = Thinking {
        max_tokens: MaxTokens::Count(1 + below(24)), // the harness cannot do 0
        min_tokens: if rounds.is_some() { 1 } else { [0, below(6)][below(2)] },
        until: vec![START, END],
        until_texts: vec![],
        n_ignore: rounds.unwrap_or(0),
        ignore,
        thinking_end_max: vec![START, ANSWER, LINE, FINAL],
        newline: vec![LINE],
        ends_line: BTreeSet::from([LINE, DOT_LINE]),
        procedure: Procedure::Harness,
        tries: None,
    };
    let spec = Spec {
        thinking_start: vec![START, THINK],
        thinking_end: vec![START, ANSWER],
        thinking: Some(thinking),
        until: vec![END],
        min_gen_toks: 0,
        max_gen_toks: 1 + below(12),
        max_model_len: 200,
    };
    (rounds, spec)
}

/// All scenarios in one engine whose cache is too small for them: slots are refilled thousands of
/// times, and sequences are given up and computed again.
#[test]
fn same_ids_as_the_harness() {
    let mut random = rng(42, &["scenarios"]);
    let mut scenarios = Vec::new();
    for n in 0..10_000 {
        let (rounds, spec) = scenario(&mut random);
        scenarios.push((rounds, spec, [10 + random.below(4) as i64, n]));
    }
    let requests: Vec<_> = scenarios.iter().map(|(_, spec, ids)| request(spec, ids)).collect();
    let settings = Settings { slots: 16, blocks: 50, block_len: 4, prefill_chunk: 5 };
    let mut engine = engine(hashed, VOCAB, settings);
    let answers = answers(&mut engine, &requests);
    let (mut cut, mut ignored) = (0, 0);
    for (n, ((rounds, spec, prompt), answer)) in scenarios.iter().zip(answers).enumerate() {
        let outcome = answer.outcome;
        assert_eq!(outcome.ids, harness(spec, *rounds, prompt), "scenario {n}: {spec:?}");
        cut += usize::from(outcome.ids.contains(&FINAL));
        ignored += usize::from(outcome.ids[outcome.thinking].contains(&7));
    }
    // Each kind of ending is common enough to have been tried in many ways.
    assert!(cut > 1000 && cut < 9000 && ignored > 1000, "{cut} cut, {ignored} with the string");
    assert!(engine.statistics().evictions > 100, "{}", engine.statistics());
}
