//! `curate featurise` over a small pool: without models, and with all five behind a local server.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use curate::featurise::{Args, Prompt, Texts, by_rules, run};
use record::row::{Attempt, Features};
use record::table::{read_attempts, read_rows, stream_features};
use serde_json::{Value, json};

use crate::shared::{lines, shared, text};
use crate::tokens::byte_letter;

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
    assert!(!work.path("replies.sqlite").exists(), "no model, no cache");

    let first = bytes(&work.path("out"));
    run(&work.args(&[])).unwrap();
    assert_eq!(bytes(&work.path("out")), first, "the same input gives the same bytes");
}

/// A server whose reply depends on the model's name, with a count of calls and the bodies it got.
struct Server {
    url: String,
    calls: Arc<AtomicUsize>,
    /// So many calls are answered; then the key is refused.
    limit: Arc<AtomicUsize>,
    bodies: Arc<Mutex<Vec<Value>>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let (calls, bodies) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let limit = Arc::new(AtomicUsize::new(usize::MAX));
        let server =
            Self { url, calls: calls.clone(), limit: limit.clone(), bodies: bodies.clone() };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let body = request(stream.as_ref().unwrap());
                let number = calls.fetch_add(1, Ordering::SeqCst);
                let (status, text) = if number < limit.load(Ordering::SeqCst) {
                    let choice = json!({"message": reply(&body), "finish_reason": "stop"});
                    bodies.lock().unwrap().push(body);
                    let usage = json!({"prompt_tokens": 10, "completion_tokens": 5});
                    ("200 OK", json!({"choices": [choice], "usage": usage}).to_string())
                } else {
                    ("401 Unauthorized", "{}".to_string())
                };
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
                     Connection: close\r\n\r\n",
                    text.len()
                );
                stream.unwrap().write_all((head + &text).as_bytes()).unwrap();
            }
        });
        server
    }

    /// The sections of all five models.
    fn sections(&self) -> String {
        let prompts = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/curate/prompts");
        let section = |name: &str, prompt: &str| {
            format!(
                "[{name}]\nprompt = '{prompts}/{prompt}.md'\nmax_tokens = 100\nexpected_tokens = 10\n\
                 [{name}.endpoint]\nbase_url = '{}'\nmodel = '{name}'\nstream = false\n\
                 price_in = 1.0\nprice_out = 2.0\n",
                self.url
            )
        };
        [
            section("teacher", "question"),
            section("isqwen7bcorrect", "question"),
            section("isqwen32bcorrect", "question"),
            section("judge", "grade"),
            section("domain", "domain"),
        ]
        .concat()
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

fn request(stream: &TcpStream) -> Value {
    let mut reader = BufReader::new(stream);
    let (mut length, mut line) = (0, String::new());
    while reader.read_line(&mut line).unwrap() > 2 {
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    serde_json::from_slice(&body).unwrap()
}

fn reply(body: &Value) -> Value {
    let asked = body["messages"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap();
    match body["model"].as_str().unwrap() {
        "teacher" => json!({"content": "So \\boxed{4}.", "reasoning_content": "hm"}),
        "isqwen7bcorrect" => json!({"content": "I say Yes\nFinal Answer: 5"}),
        "isqwen32bcorrect" => json!({"content": "It is $4$.\nYes"}),
        // The first draw of every verdict cannot be read.
        "judge" if body["seed"].is_null() => json!({"content": "Perhaps."}),
        "judge" if asked.contains("Final Answer: 5") => json!({"content": "It says Yes.\nNo"}),
        "judge" => json!({"content": "Same.\nYes"}),
        "domain" => json!({"content": "A sum.\n**11**"}),
        model => panic!("no such model: {model}"),
    }
}

#[test]
fn models_give_what_is_missing_and_are_paid_once() {
    let server = Server::start();
    let work = Work::new(&server.sections());
    let estimate = Args { dry_run: true, ..work.args(&[]) };
    run(&estimate).unwrap();
    assert_eq!((server.calls(), work.path("out").exists()), (0, false), "a dry run does nothing");

    let summary = run(&work.args(&[])).unwrap();
    // 2 traces, 2 and 2 attempts at what has a solution, 6 verdicts in two draws, 2 domains.
    assert_eq!(server.calls(), 2 + 2 + 2 + 6 * 2 + 2, "{summary}");
    let features = work.features();
    let grades = |of: &Features| (of.isgeminicorrect, of.isqwen7bcorrect, of.isqwen32bcorrect);
    assert_eq!(grades(&features[0]), (Some(true), Some(false), Some(true)));
    assert_eq!(grades(&features[1]), (Some(true), Some(false), Some(true)));
    assert_eq!(grades(&features[2]), (None, Some(true), None), "no solution, no grade");
    assert_eq!(features[1].gemini_length, Some(2));
    assert_eq!(features[0].domain.as_deref(), Some("Number theory"));
    assert!(summary.contains("the rules and the judge agree on 2 of 2"), "{summary}");
    let attempts = work.attempts();
    assert_eq!(attempts.len(), 6);
    let wrong = attempts.iter().find(|of| of.model == "isqwen7bcorrect").unwrap();
    assert!(wrong.reason.as_ref().unwrap().ends_with("; the judge says no"), "{wrong:?}");

    let pool = read_rows(&work.path("out/pool.parquet")).unwrap();
    assert_eq!(pool.len(), 4, "the pool's rows, each as often as it is there");
    assert_eq!(pool[0].thinking_trajectories, ["two and two"], "the pool's own stays");
    assert_eq!(pool[1].thinking_trajectories, ["hm"]);
    assert_eq!(pool[1].attempt.as_deref(), Some("So \\boxed{4}."));
    assert_eq!(
        pool[3].thinking_trajectories,
        [] as [&str; 0],
        "of equal questions the first counts"
    );

    let (calls, first) = (server.calls(), bytes(&work.path("out")));
    run(&work.args(&[])).unwrap();
    assert_eq!(server.calls(), calls, "nothing is paid twice");
    assert_eq!(bytes(&work.path("out")), first, "and the bytes are the same");
    run(&work.args(&["grading.decides=judge"])).unwrap();
    assert_eq!(server.calls(), calls);
    assert_eq!(grades(&work.features()[0]), (Some(true), Some(false), Some(true)));
    fences_hold(&server.bodies.lock().unwrap());
}

/// What the judge got: foreign text between marks that carry a code, and the rule about them.
fn fences_hold(bodies: &[Value]) {
    let judged = bodies.iter().filter(|body| body["model"] == "judge");
    for body in judged {
        let [system, user] = [0, 1].map(|at| body["messages"][at]["content"].as_str().unwrap());
        let mark = user.lines().next().unwrap();
        let code = mark.strip_prefix("<problem ").unwrap().trim_end_matches('>');
        assert!(system.contains(&format!("carry the code {code} ")), "{system}");
        assert!(user.ends_with(&format!("</correct-answer {code}>")), "{user}");
    }
}

#[test]
fn a_run_that_was_stopped_goes_on_where_it_was() {
    let server = Server::start();
    let work = Work::new(&server.sections());
    server.limit.store(7, Ordering::SeqCst);
    let error = format!("{:#}", run(&work.args(&[])).unwrap_err());
    assert!(error.contains("401"), "{error}");
    assert!(!work.path("out").exists(), "nothing half-done is published");
    server.limit.store(usize::MAX, Ordering::SeqCst);
    run(&work.args(&[])).unwrap();
    let bodies = server.bodies.lock().unwrap();
    let different: BTreeSet<String> = bodies.iter().map(Value::to_string).collect();
    assert_eq!((bodies.len(), different.len()), (20, 20), "each request was answered once");
}

#[test]
fn batch_files_stand_in_for_calls() {
    let server = Server::start();
    let work = Work::new(&server.sections());
    let write = || Args { write_batches: Some(work.path("batches")), ..work.args(&[]) };
    run(&write()).unwrap();
    assert_eq!(server.calls(), 0);
    // A vendor's answer to each section's file.
    for section in ["teacher", "isqwen7bcorrect", "isqwen32bcorrect", "domain"] {
        let asked = work.path(&format!("batches/{section}/requests-1.jsonl"));
        let asked = std::fs::read_to_string(asked).unwrap();
        let results = asked.lines().map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            let body =
                json!({"choices": [{"message": reply(&line["body"]), "finish_reason": "stop"}]});
            let response = json!({"status_code": 200, "body": body});
            json!({"custom_id": line["custom_id"], "response": response}).to_string() + "\n"
        });
        let folder = work.path(&format!("results/{section}"));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("results.jsonl"), results.collect::<String>()).unwrap();
    }
    run(&Args { read_batches: Some(work.path("results")), ..work.args(&[]) }).unwrap();
    assert_eq!(server.calls(), 6 * 2, "only the judge was left to ask");
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
