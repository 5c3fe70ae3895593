//! `curate featurise` with models: what they are asked, what is paid, what survives `kill -9`.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use curate::featurise::{Args, run};
use record::row::Features;
use record::table::read_rows;
use serde_json::{Value, json};

use super::server::{Server, TOO_LONG, reply};
use super::{POOL, Work, bytes};

#[test]
fn models_give_what_is_missing_and_are_paid_once() {
    let server = Server::start();
    let work = Work::new(&server.sections());
    let compare = "grading.compare=true";
    let estimate = Args { dry_run: true, ..work.args(&[compare]) };
    let preview = run(&estimate).unwrap();
    assert!(preview.contains("[teacher] 2 requests, 0 answered already; about"), "{preview}");
    assert!(preview.contains("[judge] 6 requests, 0 answered"), "{preview}");
    assert_eq!((server.calls(), work.path("out").exists()), (0, false), "a dry run does nothing");
    assert!(!work.path("replies.sqlite").exists(), "not even an empty cache");

    let summary = run(&work.args(&[compare])).unwrap();
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

    let preview = run(&estimate).unwrap();
    assert!(preview.contains("[judge] 6 requests, 6 answered already"), "{preview}");
    let (calls, first) = (server.calls(), bytes(&work.path("out")));
    run(&work.args(&[compare])).unwrap();
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
    let args = work.args(&["grading.compare=true"]);
    server.limit.store(7, Ordering::SeqCst);
    let error = format!("{:#}", run(&args).unwrap_err());
    assert!(error.contains("401"), "{error}");
    assert!(!work.path("out").exists(), "nothing half-done is published");
    server.limit.store(usize::MAX, Ordering::SeqCst);
    run(&args).unwrap();
    let bodies = server.bodies.lock().unwrap();
    let different: BTreeSet<String> = bodies.iter().map(Value::to_string).collect();
    assert_eq!((bodies.len(), different.len()), (20, 20), "each request was answered once");
}

#[test]
fn batch_files_stand_in_for_calls() {
    let server = Server::start();
    let work = Work::new(&server.sections());
    let args = || work.args(&["grading.compare=true"]);
    let write = || Args { write_batches: Some(work.path("batches")), ..args() };
    let read = || Args { read_batches: Some(work.path("results")), ..write() };
    run(&write()).unwrap();
    answer_batches(&work, &["teacher", "isqwen7bcorrect", "isqwen32bcorrect", "domain"]);
    // Now there are attempts, so that the judge's batch can be written.
    run(&read()).unwrap();
    answer_batches(&work, &["judge"]);
    assert_eq!(server.calls(), 0);
    wrong_results_are_errors(&work);
    run(&Args { write_batches: None, ..read() }).unwrap();
    assert_eq!(server.calls(), 6, "only the judge's second draws were left to ask");
    assert_eq!(work.attempts().len(), 6);
}

/// Results that would be passed over, so that everything would be paid again.
fn wrong_results_are_errors(work: &Work) {
    let check = |folder: &str, expected: &str| {
        let results = Some(work.path(folder));
        let args = Args { read_batches: results, dry_run: true, ..work.args(&[]) };
        let error = format!("{:#}", run(&args).unwrap_err());
        assert!(error.contains(expected), "{error}");
    };
    check("nowhere", "nowhere: --read-batches takes a folder");
    std::fs::create_dir_all(work.path("misspelt/juge")).unwrap();
    check("misspelt", "misspelt/juge is no section of the config");
    std::fs::create_dir_all(work.path("empty/judge")).unwrap();
    check("empty", "empty/judge: no *.jsonl");
    // Requests are no results, and another cache's results are strangers.
    check("batches", "answers a request of this cache");
    std::fs::create_dir_all(work.path("strange/judge")).unwrap();
    std::fs::write(work.path("strange/judge/results.jsonl"), "{\"custom_id\": \"x\"}\n").unwrap();
    check("strange", "strange/judge: none of its 1 lines answers a request of this cache");
}

/// Writes what a vendor's batch API makes of each section's file.
fn answer_batches(work: &Work, sections: &[&str]) {
    for section in sections {
        let asked = work.path(&format!("batches/{section}/requests-1.jsonl"));
        let asked = std::fs::read_to_string(asked).unwrap();
        let results = asked.lines().map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            let choice = json!({"message": reply(&line["body"]), "finish_reason": "stop"});
            let response = json!({"status_code": 200, "body": {"choices": [choice]}});
            json!({"custom_id": line["custom_id"], "response": response}).to_string() + "\n"
        });
        let folder = work.path(&format!("results/{section}"));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("results.jsonl"), results.collect::<String>()).unwrap();
    }
}

/// A proof, whose solution names no final answer, and a sum.
fn proof_and_sum() -> String {
    let proof =
        "Suppose it were not so. Then there is a least such number, and so a lesser one.\nQED";
    let row = |question: &str, solution: &str| {
        json!({"question": question, "solution": solution, "source_type": "a", "attempt": solution,
               "thinking_trajectories": ["hm"]})
        .to_string()
    };
    row("Show that x < y.", proof) + "\n" + &row("What is 2+2?", "\\boxed{4}")
}

#[test]
fn the_judge_grades_what_the_rules_cannot() {
    let server = Server::start();
    let work = Work::new(&server.section("judge", "grade"));
    std::fs::write(work.path("pool.jsonl"), proof_and_sum()).unwrap();
    let summary = run(&work.args(&[])).unwrap();
    let grades = || work.features().iter().map(|of| of.isgeminicorrect).collect::<Vec<_>>();
    assert_eq!(grades(), [Some(true), Some(true)], "{summary}");
    assert_eq!(server.calls(), 2, "two draws on the proof");
    assert!(summary.contains("attempts that only the judge can grade: 1"), "{summary}");
    run(&work.args(&["grading.compare=true"])).unwrap();
    assert_eq!(server.calls(), 4, "on demand it says what it thinks of the others too");
    let without = Work::new("");
    std::fs::write(without.path("pool.jsonl"), proof_and_sum()).unwrap();
    run(&without.args(&[])).unwrap();
    assert_eq!(without.features()[0].isgeminicorrect, None, "nobody is left to tell");
}

#[test]
fn keys_are_read_when_something_is_sent() {
    let server = Server::start();
    let key = "api_key = { env = 'S1_NOT_SET' }\n";
    let work = Work::new(&(server.section("judge", "grade") + key));
    std::fs::write(work.path("pool.jsonl"), proof_and_sum()).unwrap();
    let preview = run(&Args { dry_run: true, ..work.args(&[]) }).unwrap();
    assert!(preview.contains("[judge] 1 requests, 0 answered"), "{preview}");
    run(&Args { write_batches: Some(work.path("batches")), ..work.args(&[]) }).unwrap();
    let error = format!("{:#}", run(&work.args(&[])).unwrap_err());
    assert!(error.contains("S1_NOT_SET is not set"), "{error}");
    assert_eq!(server.calls(), 0);
}

#[test]
fn nothing_is_published_while_replies_are_missing() {
    let server = Server::start();
    let fast = "attempts = 1\n";
    let work = Work::new(&(server.section("domain", "domain") + fast));
    let wrong = "domain.endpoint.base_url=http://127.0.0.1:9/v1";
    let error = |sets: &[&str]| {
        let error = format!("{:#}", run(&work.args(sets)).unwrap_err());
        assert!(!work.path("out").exists(), "nothing is published");
        error
    };
    // Nobody listens at that port, and one question or two are less than `give_up_after`.
    for sets in [&[wrong][..], &[wrong, "allow_missing=true"]] {
        let error = error(sets);
        assert!(error.contains("[domain]: none of 2 questions"), "{error}");
    }
    // One of the two is too long for the model.
    std::fs::write(work.path("pool.jsonl"), POOL.replace("every subgroup", TOO_LONG)).unwrap();
    let error = error(&[]);
    assert!(error.contains("[domain]: 1 of 2 questions"), "{error}");
    assert!(error.contains("allow_missing"), "{error}");
    let calls = server.calls();
    let summary = run(&work.args(&["allow_missing=true"])).unwrap();
    assert!(summary.contains("1 longer than the model's context"), "{summary}");
    assert_eq!(server.calls(), calls + 1, "the reply that came is kept");
    assert_eq!(work.features()[1].domain, None);
}

/// Calls at the same time in the test below, and so replies in flight when a client is killed.
const IN_FLIGHT: usize = 4;

#[test]
fn killed_runs_pay_for_no_reply_twice() {
    const ROWS: usize = 30;
    const KILLS: usize = 6;
    let server = Server::start();
    let sets =
        server.sections().replace("stream =", &format!("concurrency = {IN_FLIGHT}\nstream ="));
    let work = Work::new(&sets);
    let row = |at: usize| {
        let question = format!("What is {at}+2?");
        json!({"question": question, "solution": "\\boxed{4}", "source_type": "a"}).to_string()
            + "\n"
    };
    std::fs::write(work.path("pool.jsonl"), (0..ROWS).map(row).collect::<String>()).unwrap();
    let config = work.args(&[]).config;
    let client = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_curate"));
        command.arg("featurise").arg(&config).args([
            "--overwrite",
            "--set",
            "grading.compare=true",
        ]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let paid = || -> Vec<String> {
        server.bodies.lock().unwrap().drain(..).map(|body| body.to_string()).collect()
    };
    assert!(client().wait().unwrap().success());
    let (undisturbed, asked) = (bytes(&work.path("out")), paid());
    let different: BTreeSet<String> = asked.iter().cloned().collect();
    assert_eq!((asked.len(), different.len()), (ROWS * 10, ROWS * 10));
    std::fs::remove_dir_all(work.path("out")).unwrap();
    std::fs::remove_file(work.path("replies.sqlite")).unwrap();

    for kill in 1..=KILLS {
        let mut client = client();
        while server.bodies.lock().unwrap().len() < kill * ROWS * 10 / (KILLS + 1) {
            assert_eq!(client.try_wait().unwrap(), None, "it still runs");
            std::thread::sleep(Duration::from_millis(1));
        }
        client.kill().unwrap();
        client.wait().unwrap();
        assert!(!work.path("out").exists(), "nothing half-done is published");
    }
    assert!(client().wait().unwrap().success());
    assert_eq!(bytes(&work.path("out")), undisturbed);
    let again = paid();
    assert_eq!(again.iter().cloned().collect::<BTreeSet<_>>(), different);
    let twice = again.len() - different.len();
    assert!(twice <= KILLS * IN_FLIGHT, "{twice} replies were paid twice");
    eprintln!("{KILLS} kills in {} replies: {twice} asked for again", different.len());
}
