//! An evaluation's folder, made by hand.

#![allow(dead_code)] // each test binary uses its part

use std::path::Path;

use infer::budget::Ending;
use infer::config::Budget;
use infer::report::{self, Results, SAMPLES, Sample};
use infer::task::Task;

/// Plain generation, two limits, and one with ignored ends.
const BUDGETS: &str = r#"
[[budget]]
name = "plain"
[[budget]]
name = "0"
max_tokens_thinking = 0
[[budget]]
name = "512"
max_tokens_thinking = 512
published.sums = 50.0
[[budget]]
name = "wait"
max_tokens_thinking = 512
thinking_n_ignore = 2
thinking_n_ignore_str = "Wait"
"#;

/// The budgets of every evaluation here.
pub fn budgets() -> Vec<Budget> {
    #[derive(serde::Deserialize)]
    struct Budgets {
        budget: Vec<Budget>,
    }
    toml::from_str::<Budgets>(BUDGETS).unwrap().budget
}

/// What is asked.
pub fn task() -> Task {
    let text = "name = 'sums'\ndataset = 'sums.jsonl'\nprompt = '{question}'\nanswer = 'answer'\n\
                grading = 'exact'";
    toml::from_str(text).unwrap()
}

/// `right(budget, question)` says which of the answers to `questions` sums are right.
pub fn samples(questions: usize, right: impl Fn(&str, usize) -> bool) -> Vec<Sample> {
    let mut samples = Vec::new();
    for budget in budgets() {
        for doc_id in 0..questions {
            samples.push(sample(&budget.name, doc_id, right(&budget.name, doc_id)));
        }
    }
    samples
}

fn sample(budget: &str, doc_id: usize, correct: bool) -> Sample {
    let (sum, forces) = (2 * doc_id, budget != "plain");
    let given = if correct { sum } else { sum + 1 };
    let open = "<|im_start|>think\n";
    let thinking = match budget {
        "wait" => "Two numbers.Wait, I add them.Wait, done.",
        "0" => "",
        _ => "I add them.",
    };
    let close = if forces { "\n<|im_start|>answer\nFinal Answer:" } else { "<|im_start|>answer" };
    let completion = format!("{open}{thinking}{close} {given}");
    let mut forced = vec![[0, open.len() - 1]];
    let waits = thinking.match_indices("Wait").map(|(at, text)| [at, at + text.len()]);
    forced.extend(waits.map(|span| span.map(|at| open.len() + at)));
    let closes = open.len() + thinking.len();
    forced.push([closes, closes + close.len()]);
    Sample {
        task: "sums".into(),
        budget: budget.into(),
        doc_id,
        repeat: 0,
        tries: 1,
        id: Some(format!("sum/{doc_id}.json")),
        question: format!("What is {doc_id}+{doc_id}?"),
        target: sum.to_string(),
        prompt: format!("What is {doc_id}+{doc_id}?"),
        completion,
        prompt_tokens: 9,
        thinking_tokens: if thinking.is_empty() { 0 } else { thinking.len() * 10 + doc_id },
        answer_tokens: 2,
        thinking_ending: forces.then_some(Ending::Length),
        ending: Ending::Stop,
        extracted: Some(given.to_string()),
        correct,
        rule: "equal".into(),
        forced: if forces { forced } else { Vec::new() },
        token_ids: vec![1, 2, 3],
    }
}

/// What the samples say.
pub fn results(model: &str, samples: &[Sample]) -> Results {
    let task = Task { name: samples[0].task.clone(), ..task() };
    let task = report::task_result(&task, &budgets(), &[], samples).unwrap();
    Results { model: model.into(), repeats: 1, tasks: vec![task] }
}

/// Writes what is read of an evaluation's folder.
pub fn publish(folder: &Path, samples: &[Sample]) {
    std::fs::create_dir_all(folder).unwrap();
    record::jsonl::write(&folder.join(SAMPLES), samples).unwrap();
    let results = serde_json::to_string(&results("models/ours", samples)).unwrap();
    std::fs::write(folder.join("results.json"), results).unwrap();
}
