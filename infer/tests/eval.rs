//! `infer eval` end to end on a tiny model with random weights: every file, the same bytes whatever
//! the numbers of threads and slots, and errors that say what to mend.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use infer::config::Config;
use infer::report::{Results, Sample, read_samples};
use model::Qwen2;
use serde_json::Value;
use support::run::write_run;
use tch::Kind;

/// By one process.
fn eval(config: &Path, sets: &[String], overwrite: bool) -> anyhow::Result<()> {
    infer::run::eval(config, sets, overwrite, 1)
}

/// A tiny run over five questions with `change` made to its config, in `folder`.
fn set_up(folder: &Path, change: impl FnOnce(String) -> String) -> PathBuf {
    write_run(folder, 5, change)
}

#[test]
fn a_whole_run() {
    let folder = tempfile::tempdir().unwrap();
    let config = set_up(folder.path(), |text| text);
    let output = folder.path().join("out");
    let read = |name: &str| fs::read_to_string(output.join(name)).unwrap();
    let names = ["results.json", "summary.txt", "samples.jsonl"];

    eval(&config, &[], false).unwrap();
    let first: Vec<String> = names.iter().map(|name| read(name)).collect();
    assert!(read("report.html").contains("task.jsonl"), "the page has the config");
    let manifest: Value = serde_json::from_str(&read("manifest.json")).unwrap();
    assert_eq!(manifest["seeds"]["sampling"], 3);
    assert_eq!(manifest["inputs"][1]["rows"], 5);

    let refused = eval(&config, &[], false).unwrap_err();
    assert!(format!("{refused:#}").contains("overwrite"), "{refused:#}");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = format!("model.threads={cores}");
    for set in [threads.as_str(), "engine.slots=1", "engine.prefill_chunk=7"] {
        eval(&config, &[set.into()], true).unwrap();
        for (name, first) in names.iter().zip(&first) {
            assert_eq!(*first, read(name), "{name} depends on {set}");
        }
    }

    let results: Value = serde_json::from_str(&first[0]).unwrap();
    let task = &results["tasks"][0];
    assert_eq!((&task["task"], &task["questions"]), (&"tiny".into(), &5.into()));
    assert_eq!(task["budgets"].as_array().unwrap().len(), 4);
    assert_eq!(task["budgets"][1]["mean_thinking_tokens"], 0.0);
    let samples = read_samples(&output).unwrap();
    assert_eq!(samples.len(), 4 * 5);
    for (n, sample) in samples[10..15].iter().enumerate() {
        assert_eq!((sample.budget.as_str(), sample.doc_id, sample.repeat), ("20", n, 0));
        assert!(sample.thinking_tokens <= 20);
        assert!(sample.completion.starts_with("<|im_start|>think"), "{:?}", sample.completion);
        assert!(sample.token_ids.iter().all(|id| *id < 98), "an id without a token");
        let forced = sample.forced.iter().map(|[from, to]| &sample.completion[*from..*to]);
        let forced: Vec<&str> = forced.collect();
        assert_eq!(forced[0], "<|im_start|>think");
        assert!(forced[1].ends_with("<|im_start|>answer\nFinal Answer:"), "{forced:?}");
    }
}

/// Continuing with forced ids in a cache is the same as reading the whole sequence at once: each
/// sampled id is what greedy decoding of everything before it gives.
#[test]
fn forced_continuations_equal_a_full_forward() {
    let folder = tempfile::tempdir().unwrap();
    let config = set_up(folder.path(), |text| text);
    eval(&config, &[], false).unwrap();
    let checkpoint = folder.path().join("checkpoint");
    let qwen2 = Qwen2::load(&checkpoint, tch::Device::Cpu, Kind::Float).unwrap();
    let tokenizer = model::Tokenizer::read(&checkpoint).unwrap();
    let mut sampled = 0;
    let samples = read_samples(&folder.path().join("out")).unwrap();
    for sample in samples.iter().filter(|sample| sample.budget == "wait") {
        let prompt = tokenizer.encode_fixed(&sample.prompt).unwrap();
        let all = [prompt.as_slice(), &sample.token_ids].concat();
        let logits = qwen2.logits(&all, &[0, all.len() as i64]); // [T, V]
        let known = logits.narrow(1, 0, tokenizer.vocab_size());
        let greedy = Vec::<i64>::try_from(known.argmax(-1, false)).unwrap();
        // The answer at the end is all sampled, and no stop is banned in it.
        for at in all.len() - sample.answer_tokens..all.len() {
            assert_eq!(all[at], greedy[at - 1], "position {at} of {sample:?}");
            sampled += 1;
        }
    }
    assert!(sampled > 20, "only {sampled} ids of answers were compared");
}

#[track_caller]
fn check_error(change: impl Fn(String) -> String, parts: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let config = set_up(folder.path(), change);
    let error = format!("{:#}", eval(&config, &[], false).unwrap_err());
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
    assert!(!folder.path().join("out").exists(), "something was published");
}

#[test]
fn mistakes_are_explained() {
    let with = |from: &'static str, to: &'static str| move |text: String| text.replace(from, to);
    check_error(with("/checkpoint", "/nowhere"), &["nowhere", "train first"]);
    check_error(with("/checkpoint", ""), &["tokenizer.json", "whole Hugging Face model folder"]);
    check_error(
        with("max_model_len = 160", "max_model_len = 59"),
        &["budget \"0\"", "question 0", "max_model_len is 59", "take 59", "task.jsonl"],
    );
    check_error(with("float32", "float16"), &["infer.toml", "float16"]);
    check_error(with("max_model_len = 160", "max_model_len = 1000"), &["1000", "256 positions"]);
    check_error(with("answer = ", "gold = \"\"\nanswer = "), &["infer.toml", "gold"]);
    check_error(|t| "tasks = [\"a.toml\"]\n".to_string() + &t, &["`tasks`", "[task]"]);
    check_error(
        |t| t.replace("seed = 3", "seed = 3\nrepeats = 2").replace("temperature = 1.5", ""),
        &["repeats is 2", "task tiny", "generation.temperature"],
    );
    check_error(with("max_gen_toks = 12", ""), &["task tiny", "max_gen_toks is missing"]);
    let engine = |keys: &str| format!("[engine]\n{keys}\n[task]");
    check_error(|t| t.replace("[task]", &engine("slots = 0")), &["engine.slots is 0"]);
    check_error(
        |t| t.replace("[task]", &engine("cache_gib = 0.00001")),
        &["engine.cache_gib is 0.00001", "max_model_len (160)"],
    );
    check_error(with("temperature = 0.0", "temperature = 0.0\ntop_p = 0.0"), &["top_p 0"]);
    check_error(with("\"20\"", "\"a/b\""), &["budget name \"a/b\""]);
    check_error(with("\"20\"", "\"0\""), &["two budgets are named \"0\""]);
    for key in ["asked_below", "asked_above"] {
        for other in ["20", "short"] {
            let keys = format!("= 20\n{key} = {other:?}");
            check_error(|text| text.replace("= 20", &keys), &["budget \"20\"", key, other]);
        }
    }
    check_error(
        with("max_tokens_thinking = 20", "max_tokens_thinking = 120"),
        &["budget \"20\"", "behind 120 tokens of thinking", "question 0", "max_model_len is 160"],
    );
    check_error(with("threads = 1", "threads = 999"), &["task tiny", "model.threads is 999"]);
    check_error(with("= 20", "= -1"), &["budget \"20\"", "max_tokens_thinking = -1"]);
    check_error(with("= 20", "= \"all\""), &["budget \"20\"", "max_tokens_thinking = \"all\""]);
    check_error(with("= 20", "= \"auto\""), &["budget \"20\"", "auto leaves no thinking"]);
    check_error(with("_ignore = 2", "_ignore = 2\nmin_tokens_thinking = 2"), &["wait", "drop one"]);
    check_error(with("thinking_n_ignore = 2", ""), &["wait", "without thinking_n_ignore"]);
    check_error(
        with("temperature = 0.0", "temperature = 0.0\nuntil = [\"stop\"]"),
        &["generation.until", "\"stop\" is 4 tokens"],
    );
}

/// Where the template opens thinking, as QwQ's does, `thinking_start` is empty, and the prompt ends
/// with what the template wrote.
#[test]
fn a_template_that_opens_thinking() {
    let folder = tempfile::tempdir().unwrap();
    let config = set_up(folder.path(), |text| {
        text.replace("[generation]", "[generation]\nthinking_end = \"</think>\"")
    });
    let template = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}\
        {% endif %}<|im_end|>";
    fs::write(folder.path().join("checkpoint/chat_template.jinja"), template).unwrap();
    let error = format!("{:#}", eval(&config, &[], false).unwrap_err());
    assert!(
        error.contains("opens thinking itself: set generation.thinking_start = \"\""),
        "{error}"
    );
    eval(&config, &["generation.thinking_start=\"\"".into()], false).unwrap();
    for sample in read_samples(&folder.path().join("out")).unwrap() {
        assert!(sample.prompt.ends_with("<|im_start|>assistant\n<think>\n"), "{}", sample.prompt);
        assert!(
            sample.budget != "0" || sample.completion.starts_with("\n</think>\n"),
            "{sample:?}"
        );
    }
}

/// Several tasks and several answers to each question, by hand from the samples.
#[test]
fn tasks_and_repeats() {
    let folder = tempfile::tempdir().unwrap();
    let config = set_up(folder.path(), |text| {
        let (before, rest) = text.split_once("[task]").unwrap();
        let (task, generation) = rest.split_once("[generation]").unwrap();
        let files = ["one", "two"].map(|name| {
            let file = folder.path().join(format!("{name}.toml"));
            fs::write(&file, task.replace("\"tiny\"", &format!("{name:?}"))).unwrap();
            file.display().to_string()
        });
        let run = "limit = 3\nrepeats = 4\n";
        format!("{run}tasks = {files:?}\n{before}[generation]{generation}")
            .replace("temperature = 0.0", "temperature = 1.5")
            .replace(
                "name = \"0\"",
                "name = \"0\"\nprompt_suffix = \"\\n\\nNow.\"\npublished.two = 12.5",
            )
    });
    eval(&config, &[], false).unwrap();
    let out = folder.path().join("out");
    let samples = read_samples(&out).unwrap();
    let text = fs::read_to_string(out.join("results.json")).unwrap();
    let results: Results = serde_json::from_str(&text).unwrap();
    assert_eq!((results.repeats, results.tasks.len(), samples.len()), (4, 2, 2 * 4 * 3 * 4));
    let mut left = samples.as_slice();
    for task in &results.tasks {
        assert_eq!(task.questions, 3);
        for row in &task.budgets {
            let own;
            (own, left) = left.split_at(3 * 4);
            let right = own.iter().filter(|sample| sample.correct).count();
            assert_eq!((row.n, row.correct, row.accuracy), (12, right, right as f64 / 12.0));
            let cov = own.chunks(4).filter(|answers| answers.iter().any(|a| a.correct)).count();
            assert_eq!(row.together.iter().map(|at| at.k).collect::<Vec<_>>(), [2, 4]);
            assert!((row.together[1].cov - cov as f64 / 3.0).abs() < 1e-12);
            assert!((row.together[1].pass - cov as f64 / 3.0).abs() < 1e-12, "all four are drawn");
            let published = (task.task == "two" && row.name == "0").then_some(12.5);
            assert_eq!(row.published, published);
            for (n, sample) in own.iter().enumerate() {
                assert_eq!((&sample.task, &sample.budget), (&task.task, &row.name));
                assert_eq!((sample.doc_id, sample.repeat), (n / 4, n % 4));
                assert_eq!(sample.prompt.contains("?\n\nNow."), row.name == "0", "{sample:?}");
            }
        }
    }
    check_rows_for_lm_eval(&out, &samples);
    let texts: BTreeSet<&str> = samples[..12].iter().map(|s| s.completion.as_str()).collect();
    assert!(texts.len() > 6, "answers are drawn apart");
}

/// As in s1's files a question's `exact_match` is that of its first answer, and what several are
/// worth stands beside it.
fn check_rows_for_lm_eval(out: &Path, samples: &[Sample]) {
    let mut rows = 0;
    for answers in samples.chunks(4) {
        let (task, budget) = (&answers[0].task, &answers[0].budget);
        let file = file(out, &format!("samples_{task}-{budget}_"));
        let text = fs::read_to_string(file).unwrap();
        let row: Value =
            serde_json::from_str(text.lines().nth(answers[0].doc_id).unwrap()).unwrap();
        let right = |answers: &[Sample]| answers.iter().any(|answer| answer.correct);
        assert_eq!(row["exact_match"], f64::from(u8::from(right(&answers[..1]))));
        assert_eq!(row["exact_matches"].as_array().unwrap().len(), 4);
        assert_eq!(row["cov@2"], u8::from(right(&answers[..2])));
        assert_eq!(row["cov@4"], u8::from(right(answers)));
        assert!(row["maj@4"].as_u64() <= row["cov@4"].as_u64(), "{row}");
        rows += 1;
    }
    assert_eq!(rows, 2 * 4 * 3);
    let text = fs::read_to_string(file(out, "results_")).unwrap();
    let results: Value = serde_json::from_str(&text).unwrap();
    let first = samples.chunks(4).filter(|answers| answers[0].task == "two");
    let first = first.filter(|answers| answers[0].budget == "0" && answers[0].correct).count();
    assert_eq!(results["results"]["two-0"]["exact_match,none"], first as f64 / 3.0);
}

/// The file whose name begins so.
fn file(folder: &Path, name: &str) -> PathBuf {
    let all = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut own = all.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(name));
    own.next().unwrap()
}

#[test]
fn ranks_that_cannot_be_are_refused() {
    let server = "[endpoint]\ncache = \"DIR/c.sqlite\"\ntoken_ids = true\n[endpoint.server]\n\
                  base_url = \"http://127.0.0.1:9/v1\"\nmodel = \"m\"\n[task]";
    for (change, ranks, part) in [("[task]", 0, "--ranks 0"), (server, 2, "[endpoint]")] {
        let folder = tempfile::tempdir().unwrap();
        let config = set_up(folder.path(), |text| text.replace("[task]", change));
        let error = infer::run::eval(&config, &[], false, ranks).unwrap_err();
        assert!(format!("{error:#}").contains(part), "{error:#}");
    }
}

/// Every config that the repository ships loads and passes its checks.
#[test]
fn shipped_configs_are_sound() {
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
    let mut checked = 0;
    let judge = configs.join("infer/judge.toml");
    record::config::load::<infer::judge::Config>(&judge, &[]).unwrap();
    let own = fs::read_dir(configs.join("infer")).unwrap().map(|entry| entry.unwrap().path());
    let generate = configs.join("infer/generate.toml");
    let (config, _) = record::config::load::<infer::generate::Config>(&generate, &[]).unwrap();
    config.check().unwrap();
    let (serve, chat) = (configs.join("infer/serve.toml"), configs.join("infer/chat.toml"));
    record::config::load::<infer::serve::Config>(&serve, &[]).unwrap();
    record::config::load::<infer::chat::Config>(&chat, &[]).unwrap();
    let own = own.filter(|path| ![&judge, &generate, &serve, &chat].contains(&path));
    let mut published = 0;
    for path in own.chain(
        ["demo/infer.toml", "real/infer.toml", "real/curve.toml"].map(|name| configs.join(name)),
    ) {
        let place = path.display();
        let (mut config, _) = record::config::load::<Config>(&path, &[]).unwrap();
        config.tasks.iter_mut().for_each(|task| *task = configs.join("..").join(&*task));
        config.check().unwrap_or_else(|error| panic!("{place}: {error:#}"));
        for points in &config.published {
            infer::points::read(&configs.join("..").join(points)).unwrap();
        }
        let tasks: Vec<String> = config.tasks().unwrap().into_iter().map(|t| t.name).collect();
        for task in config.budgets().iter().flat_map(|budget| budget.published.keys()) {
            assert!(tasks.contains(task), "{place}: published for {task}, which is not asked");
            published += 1;
        }
        checked += 1;
    }
    assert!(checked >= 5 && published > 50, "only {checked} configs, {published} figures");
}
