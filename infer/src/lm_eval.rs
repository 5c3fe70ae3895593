//! An evaluation in the shape of EleutherAI's lm-evaluation-harness, for tools that read its files:
//! `results_<time>.json`, and `samples_<task>_<time>.jsonl` with a line for each question.
//!
//! A task under a budget is a task of lm-eval's, called `<task>-<budget>`: its generation settings
//! belong to tasks. As in s1's files `exact_match` is that of the first answer to a question, and
//! beside it stand `extracted_answers`, of several answers `exact_matches`, `cov@k` and `maj@k`;
//! then what was counted. Source of the shape: version 0.4.13, `loggers/evaluation_tracker.py` and
//! `evaluator.py`.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use record::jsonl;
use record::question::sha256;
use serde_json::{Map, Value, json};

use crate::config::{Budget, Config, Generation};
use crate::report::together::at_powers_of_two;
use crate::report::{BudgetResult, Sample};
use crate::task::{Grading, Question, Task};

/// Both kinds of files, under way.
pub struct Files<'a> {
    config: &'a Config,
    /// When, as lm-eval writes it into names.
    time: String,
    results: Value,
}

/// One task under one budget.
pub struct Part<'a> {
    /// What was asked.
    pub task: &'a Task,
    /// With the task's own settings.
    pub generation: &'a Generation,
    /// Under which budget.
    pub budget: &'a Budget,
    /// All of the task.
    pub questions: &'a [Question],
    /// By question, then repeat.
    pub samples: &'a [Sample],
    /// What the samples say.
    pub row: &'a BudgetResult,
}

impl<'a> Files<'a> {
    /// The files of a run that ends now, or at SOURCE_DATE_EPOCH where that is set.
    pub fn new(config: &'a Config) -> Result<Self> {
        let now = match std::env::var("SOURCE_DATE_EPOCH") {
            Ok(text) => {
                let seconds = text.parse().with_context(|| format!("SOURCE_DATE_EPOCH={text}"))?;
                UNIX_EPOCH + Duration::from_secs(seconds)
            }
            Err(_) => SystemTime::now(),
        };
        let since = now.duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
        let path = &config.model.path;
        let (source, dtype) = match &config.endpoint {
            Some(endpoint) => {
                (format!("{} at {}", endpoint.server.model, endpoint.server.base_url), "")
            }
            None => (path.clone(), config.model.dtype.name()),
        };
        let seed = config.seed;
        let results = json!({
            "results": {}, "group_subtasks": {}, "configs": {}, "versions": {}, "n-shot": {},
            "higher_is_better": {}, "n-samples": {}, "task_hashes": {},
            "config": {
                "model": "infer",
                "model_args": format!("pretrained={source},dtype={dtype},max_model_len={}", config.model.max_model_len),
                "batch_size": config.engine.slots, "device": config.model.device.name(),
                "limit": config.limit, "bootstrap_iters": 0, "gen_kwargs": null,
                "random_seed": seed, "numpy_seed": seed, "torch_seed": seed, "fewshot_seed": seed,
            },
            "git_hash": null,
            "date": since.as_secs_f64(),
            "infer_version": env!("CARGO_PKG_VERSION"),
            "model_source": "infer",
            "model_name": path,
            "model_name_sanitized": sanitized(path),
            "system_instruction": null, "system_instruction_sha": null,
            "fewshot_as_multiturn": null, "chat_template": null, "chat_template_sha": null,
        });
        Ok(Files { config, time: timestamp(since), results })
    }

    /// Writes the samples of one part into `folder`, and notes its results.
    pub fn add(&mut self, folder: &Path, part: &Part) -> Result<()> {
        let name = format!("{}-{}", part.task.name, part.budget.name);
        let arguments = part.arguments(self.config.model.max_model_len)?;
        let repeats = part.samples.len() / part.questions.len();
        let answers = part.questions.iter().zip(part.samples.chunks(repeats));
        let grading = part.task.grading;
        let lines = answers.map(|(question, answers)| line(grading, question, answers, &arguments));
        let lines = lines.collect::<Result<Vec<Value>>>()?;
        jsonl::write(&folder.join(format!("samples_{name}_{}.jsonl", self.time)), &lines)?;

        let text = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_string();
        let keys = ["doc_hash", "prompt_hash", "target_hash"];
        let hashes: String =
            lines.iter().flat_map(|line| keys.map(|key| text(line, key))).collect();
        let per_question: Vec<f64> =
            lines.iter().filter_map(|line| line["exact_match"].as_f64()).collect();
        let BudgetResult { mean_thinking_tokens, mean_answer_tokens, .. } = part.row;
        let n = part.questions.len();
        let mut results = json!({
            "alias": name,
            "exact_match,none": per_question.iter().sum::<f64>() / n as f64,
            "exact_match_stderr,none": standard_error(&per_question),
            "thinking_tokens,none": mean_thinking_tokens,
            "answer_tokens,none": mean_answer_tokens,
        });
        for at in &part.row.together {
            results[format!("cov@{},none", at.k)] = json!(at.cov);
            results[format!("maj@{},none", at.k)] = json!(at.maj);
        }
        let mut set = |section: &str, value: Value| self.results[section][&name] = value;
        set("results", results);
        set("group_subtasks", json!([]));
        set("configs", part.config(&name, &arguments, repeats));
        set("versions", json!(1.0));
        set("n-shot", json!(0));
        set("higher_is_better", json!({"exact_match": true}));
        set("n-samples", json!({"original": n, "effective": n}));
        set("task_hashes", json!(sha256(&hashes)));
        Ok(())
    }

    /// Writes the results into `folder`.
    pub fn finish(self, folder: &Path) -> Result<()> {
        let path = folder.join(format!("results_{}.json", self.time));
        let text = serde_json::to_string_pretty(&self.results)? + "\n";
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Part<'_> {
    /// The settings under the names that s1's harness takes.
    fn arguments(&self, max_model_len: usize) -> Result<Value> {
        let sampling = self.generation.sampling(Some(self.budget));
        let mut arguments = json!({
            "until": self.generation.until,
            "max_gen_toks": self.generation.max_gen_toks()?,
            "do_sample": sampling.temperature > 0.0,
            "temperature": sampling.temperature,
            "top_k": sampling.top_k, "top_p": sampling.top_p, "min_p": sampling.min_p,
            "repetition_penalty": sampling.repetition_penalty,
            "max_model_len": max_model_len,
        });
        let budget = self.budget;
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                arguments[name] = value;
            }
        };
        let limit = budget.max_tokens_thinking.as_ref();
        set("max_tokens_thinking", limit.map(|limit| json!(limit)));
        set("min_tokens_thinking", budget.min_tokens_thinking.map(Value::from));
        set("thinking_n_ignore", budget.thinking_n_ignore.map(Value::from));
        set("thinking_n_ignore_str", budget.thinking_n_ignore_str.clone().map(Value::from));
        set("rejection_sample", budget.rejection_tries.map(|_| true.into()));
        if budget.forces_thinking() {
            set("thinking_start", Some(json!(self.generation.thinking_start)));
            set("thinking_end", Some(json!(self.generation.thinking_end)));
            set("until_thinking", Some(json!(self.generation.until_thinking)));
        }
        Ok(arguments)
    }

    fn config(&self, name: &str, arguments: &Value, repeats: usize) -> Value {
        let Task { dataset, revision, file, prompt, answer, .. } = self.task;
        json!({
            "task": name, "dataset_path": dataset, "dataset_name": file,
            "dataset_kwargs": {"revision": revision},
            "doc_to_text": prompt, "doc_to_target": answer, "description": "",
            "target_delimiter": "", "fewshot_delimiter": "", "num_fewshot": 0,
            "metric_list": [
                {"metric": "exact_match", "aggregation": "mean", "higher_is_better": true},
            ],
            "output_type": "generate_until", "generation_kwargs": arguments, "repeats": repeats,
            "should_decontaminate": false, "metadata": {"version": 1.0},
        })
    }
}

/// One question with all answers to it.
fn line(
    grading: Grading,
    question: &Question,
    answers: &[Sample],
    arguments: &Value,
) -> Result<Value> {
    let texts: Vec<&str> = answers.iter().map(|answer| answer.completion.as_str()).collect();
    let all = |value: fn(&Sample) -> Value| answers.iter().map(value).collect::<Vec<Value>>();
    let mut line = Map::new();
    let mut set = |name: &str, value: Value| drop(line.insert(name.to_string(), value));
    set("doc_id", json!(question.doc_id));
    set("doc", json!(question.row));
    set("target", json!(question.target));
    set("arguments", json!({"gen_args_0": {"arg_0": answers[0].prompt, "arg_1": arguments}}));
    set("resps", json!([texts]));
    // What lm-eval's own filter, the first of the answers, leaves.
    set("filtered_resps", json!([texts[0]]));
    set("filter", json!("none"));
    set("metrics", json!(["exact_match", "extracted_answers"]));
    set("doc_hash", json!(sha256(&serde_json::to_string_pretty(&question.row)?)));
    set("prompt_hash", json!(sha256(&answers[0].prompt)));
    set("target_hash", json!(sha256(&question.target)));
    set("exact_match", json!(f64::from(u8::from(answers[0].correct))));
    // As texts, so that the column has one type.
    let extracted = |answer: &Sample| json!(answer.extracted.as_deref().unwrap_or_default());
    set("extracted_answers", json!(all(extracted)));
    set("exact_matches", json!(all(|answer| json!(u8::from(answer.correct)))));
    for at in at_powers_of_two(grading, answers) {
        set(&format!("cov@{}", at.k), json!(u8::from(at.cov)));
        set(&format!("maj@{}", at.k), json!(u8::from(at.maj)));
    }
    set("thinking_tokens", json!(all(|answer| json!(answer.thinking_tokens))));
    set("answer_tokens", json!(all(|answer| json!(answer.answer_tokens))));
    Ok(Value::Object(line))
}

/// Of the mean, as lm-eval reckons it for means; its `N/A` for a single question.
fn standard_error(values: &[f64]) -> Value {
    let n = values.len() as f64;
    if values.len() < 2 {
        return json!("N/A");
    }
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0);
    json!((variance / n).sqrt())
}

/// A model's name as lm-eval calls folders after it.
fn sanitized(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        match c {
            '"' | '<' | '>' | ':' | '/' | '|' | '\\' | '?' | '*' | '[' | ']' => {
                if !out.ends_with('\0') {
                    out.push('\0');
                }
            }
            c => out.push(c),
        }
    }
    out.replace('\0', "__")
}

/// As Python's `datetime.isoformat()`, in UTC, with `-` for `:`.
fn timestamp(since: Duration) -> String {
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let micros = since.subsec_micros();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}-{minute:02}-{second:02}.{micros:06}")
}

/// Year, month and day of a day counted from 1970-01-01.
fn date(mut days: u64) -> (u64, usize, u64) {
    let leap =
        |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= months[month] {
        days -= months[month];
        month += 1;
    }
    (year, month + 1, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_python_writes_them() {
        // datetime.fromtimestamp(t, timezone.utc), for each t.
        let rows = [
            (0, "1970-01-01T00-00-00.000000"),
            (951_782_399, "2000-02-28T23-59-59.000000"),
            (951_868_799, "2000-02-29T23-59-59.000000"),
            (1_740_787_200, "2025-03-01T00-00-00.000000"),
            (4_102_444_799, "2099-12-31T23-59-59.000000"),
        ];
        for (seconds, expected) in rows {
            assert_eq!(timestamp(Duration::from_secs(seconds)), expected, "{seconds}");
        }
        assert_eq!(timestamp(Duration::new(1, 2_345_678)), "1970-01-01T00-00-01.002345");
    }

    #[test]
    fn names_of_folders() {
        assert_eq!(sanitized("a/b:c[[d\\ e"), "a__b__c__d__ e");
    }
}
