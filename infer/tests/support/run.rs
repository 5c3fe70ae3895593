//! A whole evaluation's folder: the tiny checkpoint, sums to ask for, and the run's config.

use std::fs;
use std::path::{Path, PathBuf};

use super::write_checkpoint;

const CONFIG: &str = r#"
output = "DIR/out"
seed = 3
[model]
path = "DIR/checkpoint"
device = "cpu"
dtype = "float32"
max_model_len = 160
threads = 1
[task]
name = "tiny"
dataset = "DIR/task.jsonl"
prompt = "{question}"
answer = "answer"
grading = "equivalent"
[generation]
max_gen_toks = 12
temperature = 0.0
[[budget]]
name = "plain"
[[budget]]
name = "0"
max_tokens_thinking = 0
[[budget]]
name = "20"
max_tokens_thinking = 20
temperature = 1.5
[[budget]]
name = "wait"
max_tokens_thinking = 40
thinking_n_ignore = 2
thinking_n_ignore_str = "Wait"
"#;

/// So many questions under four budgets in `folder`, and the config's file, with `change` made.
pub fn write_run(
    folder: &Path,
    questions: usize,
    change: impl FnOnce(String) -> String,
) -> PathBuf {
    write_checkpoint(&folder.join("checkpoint"));
    let row = |n: usize| format!("{{\"question\": \"What is {n}+{n}?\", \"answer\": {}}}\n", 2 * n);
    fs::write(folder.join("task.jsonl"), (1..=questions).map(row).collect::<String>()).unwrap();
    let text = CONFIG.replace("DIR", &folder.display().to_string());
    let path = folder.join("infer.toml");
    fs::write(&path, change(text)).unwrap();
    path
}
