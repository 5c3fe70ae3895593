//! The engine on a tiny model with random weights: the same tokens whatever else is asked, what is
//! shared is computed once, no slot idles, memory stays flat.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use infer::budget::{Ending, MaxTokens, Procedure, Spec, Thinking};
use infer::config::{self, Device, Dtype};
use infer::engine::local::{self, Local};
use infer::engine::{Completion, Engine, Request, Sampling, Settings};
use model::Tokenizer;
use record::seed;
use support::{answers, engine, request, write_checkpoint};

/// The tiny checkpoint's control tokens, `<|im_start|>` and `<|im_end|>`.
const START: i64 = 96;
const END: i64 = 97;

/// A folder with the tiny checkpoint.
struct Tiny {
    folder: tempfile::TempDir,
    tokenizer: Arc<Tokenizer>,
}

impl Tiny {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_checkpoint(folder.path());
        let tokenizer = Arc::new(Tokenizer::read(folder.path()).unwrap());
        Tiny { folder, tokenizer }
    }

    fn engine(&self, slots: usize, prefill_chunk: usize, threads: usize) -> Engine<Local> {
        let model = config::Model {
            path: String::new(),
            device: Device::Cpu,
            dtype: Dtype::Float32,
            max_model_len: 256,
            threads: Some(threads),
            tensor_parallel: 1,
        };
        let engine = config::Engine { slots, cache_gib: Some(0.01), prefill_chunk };
        local::load(self.folder.path(), Arc::clone(&self.tokenizer), &model, &engine).unwrap()
    }
}

/// Thinking of at most `budget` ids, `n_ignore` ends of it replaced by `ab`, and short answers.
fn spec(budget: usize, n_ignore: usize) -> Spec {
    Spec {
        thinking_start: vec![START, 10],
        thinking_end: vec![START, 11],
        thinking: Some(Thinking {
            max_tokens: MaxTokens::Count(budget),
            min_tokens: usize::from(n_ignore > 0),
            until: vec![START, END, 20, 21, 22],
            until_texts: vec![],
            n_ignore,
            ignore: vec![65, 66],
            thinking_end_max: vec![START, 11, 95, 12],
            newline: vec![95],
            ends_line: BTreeSet::from([95]),
            procedure: Procedure::Harness,
            tries: None,
        }),
        until: vec![END],
        max_gen_toks: 6,
        min_gen_toks: 0,
        max_model_len: 250,
    }
}

/// Mixed requests: prompts of 1 to 40 ids of which some are equal, budgets of 0 to 60, some plain,
/// some drawn at a temperature, some that end thinking by texts of two ids, some that try again.
fn mixed(count: usize) -> Vec<Request> {
    let mut random = seed::rng(3, &["mixed"]);
    let mut below = |n: u64| random.below(n);
    (0..count)
        .map(|n| {
            let mut ids = seed::rng(below(count as u64 / 2), &["prompt"]);
            let prompt: Vec<i64> = (0..1 + ids.below(40)).map(|_| ids.below(95) as i64).collect();
            let mut spec = spec(below(60) as usize, below(3) as usize);
            let thinking = spec.thinking.as_mut().unwrap();
            if below(2) == 0 {
                let texts = (' '..='~').flat_map(|a| "abc".chars().map(move |b| [a, b]));
                thinking.until = vec![END];
                thinking.until_texts = texts.map(String::from_iter).collect();
            }
            if thinking.n_ignore == 0 && below(2) == 0 {
                thinking.tries = Some(1 + below(4) as usize);
            }
            if below(4) == 0 {
                (spec.thinking, spec.max_gen_toks) = (None, 1 + below(60) as usize);
            }
            let temperature = [0.0, 0.0, 1.5][below(3) as usize];
            let sampling = Sampling { temperature, ..Sampling::GREEDY };
            Request { sampling, seed: n as u64 % 3, ..request(&spec, &prompt) }
        })
        .collect()
}

#[test]
fn a_request_has_the_same_tokens_whatever_else_is_asked() {
    let tiny = Tiny::new();
    let requests = mixed(200);
    let alone: Vec<Completion> = {
        let mut engine = tiny.engine(1, 256, 1);
        requests.iter().flat_map(|one| answers(&mut engine, std::slice::from_ref(one))).collect()
    };
    let mut order: Vec<usize> = (0..requests.len()).collect();
    for (slots, prefill_chunk, threads) in [(1, 256, 1), (2, 30, 1), (7, 64, 1), (16, 17, 2)] {
        seed::rng(slots as u64, &["order"]).shuffle(&mut order);
        let shuffled: Vec<Request> = order.iter().map(|&n| requests[n].clone()).collect();
        let together = answers(&mut tiny.engine(slots, prefill_chunk, threads), &shuffled);
        for (&n, answer) in order.iter().zip(&together) {
            assert_eq!(*answer, alone[n], "request {n} with {slots} slots");
        }
    }
    let tried = alone.iter().filter(|answer| answer.outcome.tries > 1);
    assert!(tried.count() > 5, "some thinking is rejected");
    let endings: BTreeSet<String> =
        alone.iter().map(|answer| format!("{:?}", answer.outcome.thinking_ending)).collect();
    assert_eq!(endings.len(), 3, "stopped, cut and plain: {endings:?}");
}

/// A curve costs its longest thinking and the answers: what is computed in all is at most 1.3
/// times what the largest budget takes alone, and the same ids come out.
#[test]
fn a_curve_costs_one_long_generation() {
    let tiny = Tiny::new();
    let prompt: Vec<i64> = (0..30).collect();
    let mut specs: Vec<Spec> = [0, 25, 50, 100, 200].map(|budget| spec(budget, 0)).into();
    for spec in &mut specs {
        spec.thinking.as_mut().unwrap().until = vec![]; // it runs to its budget
        spec.max_gen_toks = 5;
    }
    let requests: Vec<Request> = specs.iter().map(|spec| request(spec, &prompt)).collect();
    for slots in [1, 2, 16] {
        let (mut one, mut all) = (tiny.engine(slots, 256, 1), tiny.engine(slots, 256, 1));
        let longest = answers(&mut one, &requests[4..]).remove(0);
        assert_eq!(longest.outcome.thinking_ending, Some(Ending::Length), "not the longest");
        let together = answers(&mut all, &requests);
        assert_eq!(together[4], longest);
        let computed = |engine: &Engine<Local>| {
            let statistics = engine.statistics();
            (statistics.prefilled + statistics.decoded) as f64
        };
        let ratio = computed(&all) / computed(&one);
        assert!(ratio < 1.3, "{slots} slots: {ratio:.2} times the longest");
        assert_eq!(all.statistics().evictions, 0);
    }
}

/// Samples of one question compute its prompt once, and differ.
#[test]
fn samples_share_their_prompt() {
    let tiny = Tiny::new();
    let prompt: Vec<i64> = (0..90).collect();
    let plain = Spec { thinking: None, max_gen_toks: 10, ..spec(0, 0) };
    let sampling = Sampling { temperature: 2.0, ..Sampling::GREEDY };
    let sample = |seed| Request { seed, sampling, ..request(&plain, &prompt) };
    let requests: Vec<Request> = (0..20).map(sample).collect();
    let mut engine = tiny.engine(16, 256, 1);
    let all = answers(&mut engine, &requests);
    let different: BTreeSet<Vec<i64>> = all.iter().map(|one| one.outcome.ids.clone()).collect();
    assert!(different.len() > 15, "{different:?}");
    assert_eq!(engine.statistics().prefilled, 90, "{}", engine.statistics());
}

/// An ignored end of thinking costs what is put in its place, computed once, behind what is cached.
#[test]
fn a_continuation_is_no_prefill() {
    let tiny = Tiny::new();
    let prompt: Vec<i64> = (0..90).collect();
    let mut engine = tiny.engine(1, 256, 1);
    let all = answers(&mut engine, &[request(&spec(100, 2), &prompt)]);
    let ids = all[0].outcome.ids.len() as u64;
    let computed = engine.statistics().prefilled + engine.statistics().decoded;
    assert!(computed <= 90 + ids, "{computed} computed for a prompt of 90 and {ids}");
    assert_eq!(engine.statistics().requests, 1);
}

/// A mixed queue keeps the slots busy, and ten thousand requests leave nothing behind.
#[test]
fn slots_are_busy_and_memory_is_flat() {
    let tiny = Tiny::new();
    let mut engine = tiny.engine(16, 64, 1);
    let _ = answers(&mut engine, &mixed(1000));
    let (overall, under_load) = engine.statistics().occupancy();
    assert!(overall > 0.95 && under_load > 0.95, "{}", engine.statistics());

    let short = Spec { thinking: None, max_gen_toks: 2, ..spec(0, 0) };
    let prompt = |n: usize| [n as i64 % 95, n as i64 / 95 % 95, n as i64 / 9025];
    let mut before = 0;
    for n in 0..10 {
        let requests: Vec<Request> =
            (0..1000).map(|m| request(&short, &prompt(1000 * n + m))).collect();
        let _ = answers(&mut engine, &requests);
        if n == 1 {
            before = resident();
        }
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 4 << 20, "8,000 requests left {grown} bytes");
    assert_eq!(engine.statistics().requests, 11_000);
}

/// Bytes of memory that this process has; 0 where the system does not tell.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    4096 * statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0)
}

/// A model that writes the alphabet: id 1 is `b`, and so on.
fn alphabet(ids: &[i64]) -> Vec<f32> {
    let next = (ids[ids.len() - 1] + 1) % 26;
    (0..26).map(|id| if id == next { 5.0 } else { 0.0 }).collect()
}

#[track_caller]
fn check_stop(stop: &[&str], text: &str, ids: usize, ending: Ending) {
    let plain = Spec { thinking: None, max_gen_toks: 20, until: vec![25], ..spec(0, 0) };
    let stop = stop.iter().map(|text| text.to_string()).collect();
    let request = Request { stop, ..request(&plain, &[0]) };
    let settings = Settings { slots: 1, blocks: 64, block_len: 4, prefill_chunk: 8 };
    let answer = answers(&mut engine(alphabet, 26, settings), &[request]).remove(0);
    assert_eq!((answer.text.as_str(), answer.outcome.ids.len()), (text, ids));
    assert_eq!(answer.outcome.ending, ending);
}

#[test]
fn stop_texts_may_span_tokens() {
    check_stop(&[], "bcdefghijklmnopqrstu", 20, Ending::Length);
    check_stop(&["efg"], "bcd", 6, Ending::Stop);
    check_stop(&["xyz", "k", "lm"], "bcdefghij", 10, Ending::Stop);
    check_stop(&["bc"], "", 2, Ending::Stop);
    check_stop(&["ab"], "bcdefghijklmnopqrstu", 20, Ending::Length); // `a` is the prompt's
    check_stop(&["stu"], "bcdefghijklmnopqr", 20, Ending::Stop); // as its last id is allowed
}

#[test]
fn log_probabilities_are_of_the_sampled_ids() {
    let plain = Spec { thinking: None, max_gen_toks: 3, ..spec(0, 0) };
    let request = Request { logprobs: Some(2), ..request(&plain, &[0]) };
    let settings = Settings { slots: 1, blocks: 128, block_len: 4, prefill_chunk: 8 };
    let answer = answers(&mut engine(alphabet, 26, settings), &[request]).remove(0);
    let expected = 5.0 - (5.0f64.exp() + 25.0).ln();
    for (at, scored) in answer.logprobs.iter().enumerate() {
        assert_eq!(scored.at, at);
        assert!((scored.logprob - expected).abs() < 1e-12);
        assert_eq!(scored.top[0], (at as i64 + 1, scored.logprob));
    }
    assert_eq!(answer.logprobs.len(), 3);
}

#[test]
fn what_does_not_fit_is_refused() {
    let settings = Settings { slots: 1, blocks: 2, block_len: 100, prefill_chunk: 8 };
    let mut engine = engine(alphabet, 26, settings);
    let refused = engine.submit(&[(0, &request(&spec(1, 0), &[1]))]).unwrap_err();
    assert!(refused.to_string().contains("raise engine.cache_gib"), "{refused}");
    let empty = request(&Spec { max_model_len: 200, ..spec(1, 0) }, &[]);
    assert!(engine.submit(&[(0, &empty)]).unwrap_err().to_string().contains("prompt is empty"));
    assert!(engine.is_idle());
}
