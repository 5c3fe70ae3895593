//! Budget forcing against s1's own procedure over random scenarios: a transcription that is always
//! run, and with S1_ORACLE=1 an independent one in Python.
//!
//! The transcriptions generate in whole rounds, as vLLM does for the harness, each with the same
//! `max_tokens`, and cut afterwards. The state machine never goes over the budget, so that both
//! must give the same ids.

mod support;

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use infer::budget::{Ending, MaxTokens, Outcome, Procedure, Spec, Thinking};
use infer::engine::Settings;
use record::seed::{Rng, rng};
use serde_json::{Value, json};
use support::{ONE, answers, engine, request};

const START: i64 = 0;
const END: i64 = 1;
const LINE: i64 = 2;
const DOT_LINE: i64 = 3;
const THINK: i64 = 4;
const ANSWER: i64 = 5;
const FINAL: i64 = 6;
const VOCAB: usize = 14;

/// A request of one of s1's kinds.
struct Scenario {
    kind: &'static str,
    /// Ends of thinking to ignore, if that was asked for; 0 is not the same as nothing.
    rounds: Option<usize>,
    /// Each end of thinking as ids.
    until: Vec<Vec<i64>>,
    spec: Spec,
    prompt: Vec<i64>,
}

fn mix(mut state: u64) -> u64 {
    state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    state ^ (state >> 31)
}

/// A model whose logits are a hash of all ids before: it never writes one thing twice. `begun` is
/// how often it was to begin a try at thinking before.
fn hashed(begun: u64, ids: &[i64]) -> Vec<f32> {
    let step = |state: u64, &id: &i64| {
        mix(state.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(id as u64 + 1))
    };
    let state = ids.iter().fold(begun, step);
    (0..VOCAB as u64).map(|v| (mix(state.wrapping_add(v)) >> 40) as f32).collect()
}

/// vLLM's `generate` for one greedy request: the new ids with the stop that ended them, and whether
/// it was a length instead. Stops are banned until there are `min_tokens`.
fn vllm(
    prompt: &[i64],
    max_tokens: usize,
    min_tokens: usize,
    stops: &[Vec<i64>],
    max_model_len: usize,
) -> (Vec<i64>, bool) {
    let mut ids = prompt.to_vec();
    while ids.len() - prompt.len() < max_tokens && ids.len() < max_model_len {
        let logits = hashed(0, &ids);
        let banned = ids.len() - prompt.len() < min_tokens;
        let allowed = (0..VOCAB).filter(|&id| !(banned && stops.contains(&vec![id as i64])));
        ids.push(allowed.rev().max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap() as i64);
        if stops.iter().any(|stop| ids[prompt.len()..].ends_with(stop)) {
            return (ids[prompt.len()..].to_vec(), false);
        }
    }
    (ids[prompt.len()..].to_vec(), true)
}

fn strip_stop(ids: &mut Vec<i64>, stops: &[Vec<i64>]) {
    for stop in stops {
        if ids.ends_with(stop) {
            ids.truncate(ids.len() - stop.len());
        }
    }
}

/// `_model_generate` of the harness for one request: everything behind the prompt.
fn harness(scenario: &Scenario) -> Vec<i64> {
    let Scenario { rounds, until, spec, prompt, .. } = scenario;
    let thinking = spec.thinking.as_ref().unwrap();
    let budget = spec.max_tokens_thinking(prompt.len()).unwrap();
    let opened = [&prompt[..], &spec.thinking_start].concat();
    let longest = spec.max_model_len;
    let mut thought = Vec::new();
    let mut by_length = false;
    for round in 0..=rounds.unwrap_or(0) {
        let so_far = [&opened[..], &thought].concat();
        let (mut new, length) = vllm(&so_far, budget, thinking.min_tokens, until, longest);
        by_length = length;
        if length || round == rounds.unwrap_or(0) {
            thought.extend(new);
            break;
        }
        strip_stop(&mut new, until);
        thought.extend(new);
        let string = thinking.ignore.len().min(budget.saturating_sub(thought.len()));
        if opened.len() + thought.len() + string > longest {
            // Differs from s1: the string is not written beyond the context.
            return [&spec.thinking_start[..], &thought].concat();
        }
        thought.extend(&thinking.ignore);
    }
    if thought.len() > budget {
        thought.truncate(budget);
        by_length = true; // Differs from s1: thinking that was cut ran out, whatever came later.
    }
    strip_stop(&mut thought, until);
    let mut closing = spec.thinking_end.clone();
    if by_length {
        let ends_line = thought.last().is_some_and(|id| thinking.ends_line.contains(id));
        let newline = if ends_line { &[][..] } else { &thinking.newline };
        closing = [newline, &thinking.thinking_end_max].concat();
    }
    let thought = [&opened[..], &thought].concat();
    if thought.len() + closing.len() > longest {
        return thought[prompt.len()..].to_vec(); // Differs from s1: no answer where none fits.
    }
    let asked = [thought, closing].concat();
    let stops: Vec<_> = spec.until.iter().map(|&id| vec![id]).collect();
    let (mut answer, _) = vllm(&asked, spec.max_gen_toks, 0, &stops, longest);
    strip_stop(&mut answer, &stops);
    [&asked[prompt.len()..], &answer].concat()
}

const KINDS: [&str; 6] = ["plain", "texts", "minimum", "ignores", "rejection", "readme"];

/// A random request of the kind. `n` makes its prompt unlike all others.
fn scenario(kind: &'static str, n: usize, random: &mut Rng) -> Scenario {
    let mut below = |n: u64| random.below(n) as usize;
    let ignores = ["ignores", "readme"].contains(&kind);
    let rounds = ignores.then(|| below(4));
    let mut until = vec![vec![START], vec![END]];
    if kind == "texts" {
        until = vec![[vec![7, 8], vec![START, 9], vec![10, 11, 10]][below(3)].clone(), vec![END]];
    }
    let single = |ids: &&Vec<i64>| ids.len() == 1;
    let text = |ids: &Vec<i64>| ids.iter().map(|&id| (b'a' + id as u8) as char).collect();
    let opens_line = below(8) == 0;
    let readme = kind == "readme";
    let auto = !["readme", "rejection"].contains(&kind) && below(8) == 0;
    let closing = |ids: &[i64]| if readme { vec![] } else { ids.to_vec() };
    let thinking = Thinking {
        max_tokens: match auto {
            true => MaxTokens::Auto,
            // The harness cannot do 0. A second id is computed anew for each try, see `alone`.
            false => MaxTokens::Count(1 + usize::from(kind == "rejection") + below(24)),
        },
        min_tokens: match kind {
            "ignores" => 1,
            "minimum" => below(6),
            _ => 0,
        },
        until: until.iter().filter(single).map(|ids| ids[0]).collect(),
        until_texts: until.iter().filter(|ids| !single(ids)).map(text).collect(),
        n_ignore: rounds.unwrap_or(0),
        ignore: [vec![], vec![7], vec![7, 8, 9]][below(3)].clone(),
        thinking_end_max: closing(&[START, ANSWER, LINE, FINAL]),
        newline: if opens_line { vec![] } else { closing(&[LINE]) },
        ends_line: BTreeSet::from([LINE, DOT_LINE]),
        procedure: if readme { Procedure::Readme } else { Procedure::Harness },
        tries: (kind == "rejection").then(|| 1 + below(12)),
    };
    let prompt = vec![10 + below(4) as i64, n as i64];
    let spec = Spec {
        thinking_start: if opens_line { vec![LINE, THINK] } else { vec![START, THINK] },
        thinking_end: closing(&[START, ANSWER]),
        thinking: Some(thinking),
        until: vec![END],
        min_gen_toks: 0,
        max_gen_toks: if auto { 109 + below(24) } else { 1 + below(12) },
        max_model_len: [200, 8 + below(20)][usize::from(below(8) == 0)],
    };
    Scenario { kind, rounds, until, spec, prompt }
}

/// The scenario and our outcome as `tests/oracle/harness.py` reads them.
fn line(scenario: &Scenario, ours: &Outcome) -> Value {
    let Scenario { kind, rounds, until, spec, prompt } = scenario;
    let thinking = spec.thinking.as_ref().unwrap();
    let text = |id: usize| match id as i64 {
        LINE => "\n".to_owned(),
        DOT_LINE => ".\n".to_owned(),
        _ => ((b'a' + id as u8) as char).to_string(),
    };
    let max_tokens = match thinking.max_tokens {
        MaxTokens::Auto => json!("auto"),
        MaxTokens::Count(count) => json!(count),
    };
    let ending = match ours.thinking_ending.expect("thinking was forced") {
        Ending::Stop => "stop",
        Ending::Length => "length",
        Ending::Context => "context",
    };
    json!({
        "kind": kind, "prompt": prompt, "until_thinking": until, "until": spec.until,
        "vocab": VOCAB, "text": (0..VOCAB).map(text).collect::<Vec<_>>(),
        "thinking_start": spec.thinking_start, "thinking_end": spec.thinking_end,
        "thinking_end_max": thinking.thinking_end_max, "newline": [LINE],
        "max_tokens_thinking": max_tokens, "thinking_n_ignore": rounds, "ignore": thinking.ignore,
        "min_tokens_thinking": (*kind == "minimum").then_some(thinking.min_tokens),
        "rejection": thinking.tries.is_some(), "tries": thinking.tries, "readme": *kind == "readme",
        "max_gen_toks": spec.max_gen_toks, "max_model_len": spec.max_model_len,
        "ours": {"ids": ours.ids, "thinking_ending": ending, "tries": ours.tries},
    })
}

/// What Python makes of the scenarios.
fn ask_python(lines: &str) {
    if std::env::var_os("S1_ORACLE").is_none() {
        return eprintln!("skipped: `just oracle` asks Python too (S1_ORACLE, S1_ORACLE_PYTHON)");
    }
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let python = std::env::var("S1_ORACLE_PYTHON").unwrap_or(format!("{root}/.venv/bin/python"));
    let mut child = Command::new(&python)
        .arg(format!("{root}/tests/oracle/harness.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{python}: {error}; set S1_ORACLE_PYTHON"));
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "the oracle failed: {}", output.status);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["first_difference"], Value::Null);
    let identical = &report["identical"];
    println!("{} scenarios, all as in Python: {identical}", report["scenarios"]);
    let endings = ["stop", "length", "context"];
    for name in KINDS.iter().chain(&endings) {
        assert!(identical[name].as_u64() > Some(100), "{name} is hardly tried: {identical}");
    }
}

/// All scenarios but those of rejection sampling in one engine whose cache is too small for them:
/// slots are refilled thousands of times, and sequences are given up and computed again.
#[test]
fn same_ids_as_s1() {
    let mut random = rng(42, &["scenarios"]);
    let scenarios: Vec<Scenario> =
        (0..10_000).map(|n| scenario(KINDS[n % KINDS.len()], n, &mut random)).collect();
    let settings = Settings { slots: 16, blocks: 50, block_len: 4, prefill_chunk: 5 };
    let mut shared = engine(|ids| hashed(0, ids), VOCAB, settings);
    let together = |scenario: &&Scenario| scenario.kind != "rejection";
    let requests: Vec<_> =
        scenarios.iter().filter(together).map(|one| request(&one.spec, &one.prompt)).collect();
    let mut outcomes = answers(&mut shared, &requests).into_iter();
    let (mut cut, mut ignored, mut lines) = (0, 0, String::new());
    for (n, scenario) in scenarios.iter().enumerate() {
        let outcome = match scenario.kind {
            "rejection" => alone(scenario),
            _ => outcomes.next().expect("one for each").outcome,
        };
        if !["rejection", "readme"].contains(&scenario.kind) {
            assert_eq!(outcome.ids, harness(scenario), "scenario {n}: {:?}", scenario.spec);
        }
        lines += &format!("{}\n", line(scenario, &outcome));
        cut += usize::from(outcome.ids.contains(&FINAL));
        ignored += usize::from(outcome.ids[outcome.thinking].contains(&7));
    }
    // Each kind of ending is common enough to have been tried in many ways.
    assert!(cut > 1000 && cut < 9000 && ignored > 1000, "{cut} cut, {ignored} with the string");
    assert!(shared.statistics().evictions > 100, "{}", shared.statistics());
    ask_python(&lines);
}

/// One request, whose tries at thinking begin in different ways.
fn alone(scenario: &Scenario) -> Outcome {
    let Scenario { spec, prompt, .. } = scenario;
    let opening = [&prompt[..], &spec.thinking_start].concat();
    let mut begun = 0;
    let logits = |ids: &[i64]| {
        let again = u64::from(ids == opening);
        begun += again;
        hashed(again * begun.saturating_sub(1), ids)
    };
    answers(&mut engine(logits, VOCAB, ONE), &[request(spec, prompt)]).remove(0).outcome
}
