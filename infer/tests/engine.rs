//! The engine on a tiny model with random weights: the same tokens whatever else is asked, what is
//! shared is computed once, no slot idles, memory stays flat.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use infer::budget::{Ending, MaxTokens, Procedure, Spec, Thinking};
use infer::config::{self, Device, Dtype};
use infer::engine::local::{self, Local};
use infer::engine::{Completion, Engine, Generate, Model, Request, Sampling, Settings};
use model::{Decoder, Tokenizer};
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

    fn keys(threads: usize) -> config::Model {
        config::Model {
            path: String::new(),
            device: Device::Cpu,
            dtype: Dtype::Float32,
            max_model_len: 256,
            threads: Some(threads),
            tensor_parallel: 1,
        }
    }

    fn engine(&self, slots: usize, prefill_chunk: usize, threads: usize) -> Engine<Local> {
        let model = Tiny::keys(threads);
        let engine = config::Engine { slots, cache_gib: Some(0.01), prefill_chunk };
        local::load(self.folder.path(), Arc::clone(&self.tokenizer), &model, &engine).unwrap()
    }

    /// With blocks as small as one likes.
    fn engine_of(&self, settings: Settings) -> Engine<Local> {
        let decoder = Decoder::load(self.folder.path(), tch::Device::Cpu, tch::Kind::Float);
        let local = Local::new(decoder.unwrap(), &settings);
        Engine::new(local, Arc::clone(&self.tokenizer), settings)
    }
}

/// Scores are those of the ids that are there, and of none that was forced.
#[track_caller]
fn check_scores(answer: &Completion) {
    let outcome = &answer.outcome;
    assert!(answer.logprobs.is_sorted_by(|a, b| a.at < b.at), "{:?}", answer.logprobs);
    for scored in &answer.logprobs {
        let end = scored.at == outcome.ids.len() && outcome.ending == Ending::Stop;
        assert!(end || outcome.ids[scored.at] == scored.id, "{scored:?} in {outcome:?}");
        let forced = outcome.forced.iter().any(|range| range.contains(&scored.at));
        assert!(!forced, "{scored:?} in {outcome:?}");
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
            let mut ids = seed::rng(below(count as u64 / 4), &["prompt"]);
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
            let (seed, logprobs) = (n as u64 % 3, (n % 2 == 0).then_some(1));
            Request { sampling, seed, logprobs, ..request(&spec, &prompt) }
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
    for settings in [
        Settings { slots: 7, blocks: 25, block_len: 16, prefill_chunk: 30 },
        Settings { slots: 16, blocks: 90, block_len: 3, prefill_chunk: 17 },
    ] {
        let mut small = tiny.engine_of(settings);
        assert_eq!(answers(&mut small, &requests), alone, "{settings:?}");
        assert!(small.statistics().evictions > 20, "{}", small.statistics());
        assert_eq!(small.blocks_in_use(), 0);
    }
    alone.iter().for_each(check_scores);
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
    let up: Vec<Request> = specs.iter().map(|spec| request(spec, &prompt)).collect();
    let down: Vec<Request> = up.iter().rev().cloned().collect();
    for (slots, requests) in [1, 2, 16].into_iter().flat_map(|slots| [(slots, &up), (slots, &down)])
    {
        let (mut one, mut all) = (tiny.engine(slots, 256, 1), tiny.engine(slots, 256, 1));
        let longest = answers(&mut one, &up[4..]).remove(0);
        assert_eq!(longest.outcome.thinking_ending, Some(Ending::Length), "not the longest");
        let together = answers(&mut all, requests);
        assert!(together.contains(&longest), "{slots} slots");
        let ratio = computed(&all) as f64 / computed(&one) as f64;
        assert!(ratio < 1.3, "{slots} slots: {ratio:.2} times the longest");
        assert_eq!(all.statistics().evictions, 0);
    }
}

fn computed<M: Model>(engine: &Engine<M>) -> u64 {
    engine.statistics().prefilled + engine.statistics().decoded
}

/// Too small a cache costs the blocks that had to go, not what they share with others.
#[track_caller]
fn check_pressure(requests: &[Request], slots: usize, blocks: usize, once: u64, most: f64) -> u64 {
    let settings = Settings { slots, blocks: 40, block_len: 256, prefill_chunk: 256 };
    let mut large = engine(alphabet, 26, settings);
    let expected = answers(&mut large, requests);
    let statistics = large.statistics();
    assert_eq!((statistics.evictions, statistics.recomputed), (0, 0), "{statistics}");
    let mut small = engine(alphabet, 26, Settings { blocks, ..settings });
    assert_eq!(answers(&mut small, requests), expected);
    let statistics = small.statistics();
    assert!(statistics.recomputed <= 256 * statistics.evictions, "{statistics}");
    for engine in [&small, &large] {
        // Each request has computed, or shares, all ids but its last, whose logits nobody wants.
        let statistics = engine.statistics();
        let new = computed(engine) - statistics.recomputed;
        assert_eq!(
            new + statistics.shared + statistics.requests,
            statistics.prompts + statistics.written
        );
        assert!(new < once, "{statistics}");
    }
    let times = computed(&small) as f64 / computed(&large) as f64;
    println!("{times:.2} times what a large cache takes: {statistics}");
    assert!(times < most, "{times:.2} times what a large cache takes: {statistics}");
    small.statistics().evictions
}

#[test]
fn eviction_costs_what_is_gone() {
    let prompt: Vec<i64> = (0..36).map(|n| n % 26).collect();
    let budget = |tokens: usize| {
        let mut spec =
            Spec { thinking_start: vec![1, 2], thinking_end: vec![3], ..spec(tokens, 0) };
        let thinking = spec.thinking.as_mut().unwrap();
        (thinking.until, thinking.thinking_end_max) = (vec![], vec![4, 5]);
        (thinking.newline, thinking.ends_line) = (vec![6], BTreeSet::new());
        request(&Spec { until: vec![], max_model_len: 1000, ..spec }, &prompt)
    };
    let mut evictions = 0;
    for budgets in [[100, 300, 500, 700, 900], [900, 700, 500, 300, 100], [500, 900, 100, 700, 300]]
    {
        let requests = budgets.map(budget);
        evictions += check_pressure(&requests, 1, 5, 36 + 2 + 900 + 5 * 9, 1.3);
    }
    let prompt: Vec<i64> = (0..700).map(|n| n % 26).collect();
    let plain =
        Spec { thinking: None, max_gen_toks: 100, until: vec![], max_model_len: 850, ..spec(0, 0) };
    let sampling = Sampling { temperature: 3.0, ..Sampling::GREEDY };
    let sample = |seed| Request { seed, sampling, ..request(&plain, &prompt) };
    let requests: Vec<Request> = (0..16).map(sample).collect();
    evictions += check_pressure(&requests, 4, 7, 700 + 16 * 100, 2.0);
    assert!(evictions > 5, "{evictions}");
}

/// What an error leaves of the requests is gone, and its blocks are free.
#[test]
fn an_engine_goes_on_after_an_error() {
    let plain = Spec { thinking: None, max_gen_toks: 9, ..spec(0, 0) };
    let requests: Vec<Request> = (0..9).map(|n| request(&plain, &[n, n + 1, n + 2])).collect();
    let settings = Settings { slots: 3, blocks: 200, block_len: 4, prefill_chunk: 8 };
    let expected = answers(&mut engine(alphabet, 26, settings), &requests);
    let mut passes = 0;
    let model = |ids: &[i64]| {
        passes += 1;
        if passes == 40 { vec![f32::NAN; 26] } else { alphabet(ids) }
    };
    let mut engine = engine(model, 26, settings);
    let error = engine.generate(&requests, &mut |_, _| Ok(())).unwrap_err();
    assert!(format!("{error:#}").contains("no finite number"), "{error:#}");
    assert_eq!((engine.blocks_in_use(), engine.load()), (0, (0, 0)));
    assert_eq!(answers(&mut engine, &requests[3..5]), expected[3..5]);

    let stop = engine.generate(&requests, &mut |_, _| anyhow::bail!("the disk is full"));
    assert!(stop.is_err());
    assert_eq!(answers(&mut engine, &requests[..2]), expected[..2]);
    assert_eq!(engine.blocks_in_use(), 0);
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

/// Thinking that one of `texts` ends, closed by `closing` with no room behind: the places of the ids
/// that have scores.
#[track_caller]
fn check_taken_back(texts: &[&str], closing: &[i64], max_model_len: usize, places: &[usize]) {
    let mut spec = Spec { thinking_start: vec![], thinking_end: closing.to_vec(), ..spec(20, 0) };
    let thinking = spec.thinking.as_mut().unwrap();
    thinking.until_texts = texts.iter().map(|text| text.to_string()).collect();
    thinking.until = vec![];
    let spec = Spec { max_model_len, ..spec };
    let request = Request { logprobs: Some(1), ..request(&spec, &[0]) };
    let settings = Settings { slots: 1, blocks: 64, block_len: 4, prefill_chunk: 8 };
    let answer = answers(&mut engine(alphabet, 26, settings), &[request]).remove(0);
    assert_eq!(answer.outcome.ending, Ending::Context, "{answer:?}");
    check_scores(&answer);
    assert_eq!(answer.logprobs.iter().map(|scored| scored.at).collect::<Vec<_>>(), places);
}

#[test]
fn ids_that_are_taken_back_have_no_scores() {
    check_taken_back(&["fgh"], &[23, 24, 25], 8, &[0, 1, 2, 3]);
    check_taken_back(&["e"], &[4, 25], 6, &[0, 1, 2]); // the forced id is the one that was drawn
    check_taken_back(&["fg"], &[5, 6, 7], 8, &[0, 1, 2, 3]);
}

/// Ids below the vocabulary's size that no token has are never chosen, nor counted.
#[test]
fn gaps_in_a_vocabulary_are_never_chosen() {
    let tokenizer = support::tokenizer_with([("a", 0), ("b", 1), ("d", 3)]);
    assert_eq!((tokenizer.vocab_size(), tokenizer.gaps()), (4, &[2][..]));
    let logits = |_: &[i64]| vec![0.0, 1.0, 5.0, 2.0, 9.0];
    let plain = Spec { thinking: None, max_gen_toks: 5, ..spec(0, 0) };
    let request = Request { logprobs: Some(3), ..request(&plain, &[0]) };
    let mut engine = support::engine_of(logits, tokenizer, support::ONE);
    let answer = answers(&mut engine, &[request]).remove(0);
    assert_eq!((answer.text.as_str(), answer.logprobs[0].top[2].0), ("ddddd", 0));
    let mass: f64 = answer.logprobs[0].top.iter().map(|(_, logprob)| logprob.exp()).sum();
    assert!((mass - 1.0).abs() < 1e-9, "{mass}");
}

/// A tokenizer with more ids than the model has rows is refused before anything is written.
#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let tiny = Tiny::new();
    let path = tiny.folder.path().join("config.json");
    let config = std::fs::read_to_string(&path).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    config["vocab_size"] = 60.into();
    std::fs::write(&path, config.to_string()).unwrap();
    let refused = infer::run::chat(&Tiny::keys(1), tiny.folder.path()).unwrap_err();
    let text = format!("{refused:#}");
    assert!(text.contains("ids up to 97, but the model has only 60 rows"), "{text}");
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
