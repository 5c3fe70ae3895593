//! The config of a featurising run: which features, from which models, by which prompts.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use endpoint::Settings;
use serde::Deserialize;
use serde_json::{Map, Value};

/// `configs/curate/featurise.toml` is the annotated example. Without any model's section nothing
/// leaves the machine: lengths are counted, answers graded by rules, and domains told by words.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The folder to publish.
    pub output: PathBuf,
    /// The file that keeps every reply, so that none is paid for twice; needed with models only.
    pub cache: Option<PathBuf>,
    /// Publish also when some requests have no reply; their features are then missing.
    #[serde(default)]
    pub allow_missing: bool,
    /// `[pool]`
    pub pool: Pool,
    /// `[length]`
    pub length: Length,
    /// `[grading]`
    pub grading: Grading,
    /// Gives the traces and answers that the pool lacks.
    pub teacher: Option<Model>,
    /// Qwen2.5-7B-Instruct in s1: what it solves is too easy.
    pub isqwen7bcorrect: Option<Model>,
    /// Qwen2.5-32B-Instruct in s1: what it solves is too easy.
    pub isqwen32bcorrect: Option<Model>,
    /// Answers of these two that are there already, and are not asked for.
    #[serde(default)]
    pub attempts: Attempts,
    /// Grades what the rules cannot, or everything.
    pub judge: Option<Model>,
    /// Tells a question's class; without it its words do.
    pub domain: Option<Model>,
}

/// The questions.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Parquet or JSONL files with s1's columns, taken one after the other.
    pub files: Vec<PathBuf>,
}

/// Tables of answers by the two graded models, such as `attempts.parquet` of an `infer eval` whose
/// task is the pool. The first one at a question counts.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Attempts {
    /// By Qwen2.5-7B-Instruct in s1.
    pub isqwen7bcorrect: Vec<PathBuf>,
    /// By Qwen2.5-32B-Instruct in s1.
    pub isqwen32bcorrect: Vec<PathBuf>,
}

/// How traces are measured.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Length {
    /// A `tokenizer.json` or `qwen.tiktoken`.
    pub tokenizer: PathBuf,
}

/// Who says whether an answer is right.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grading {
    /// Whose verdict becomes the grade.
    pub decides: Grader,
    /// Ask the judge also where the rules decide, to tell both beside each other.
    #[serde(default)]
    pub compare: bool,
}

/// Who grades.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grader {
    /// `grading` compares the final answers; where it cannot tell, the model of `[judge]` does.
    Rules,
    /// The model of `[judge]` alone, as in s1.
    Judge,
}

/// A model, and what it is asked.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// The prompt, a file with placeholders.
    pub prompt: PathBuf,
    /// The most tokens of a reply, thinking included.
    pub max_tokens: u32,
    /// Absent: the server's own.
    pub temperature: Option<f64>,
    /// Tokens that a reply has on average; for the estimate of `--dry-run` alone.
    pub expected_tokens: u32,
    /// Further parameters of the request, such as `top_p`.
    #[serde(default)]
    pub parameters: Map<String, Value>,
    /// Which server and model, which limits, what it may cost.
    pub endpoint: Settings,
}

impl Config {
    /// The sections of models that there are, by name.
    pub fn models(&self) -> impl Iterator<Item = (&'static str, &Model)> {
        let sections = [
            ("teacher", &self.teacher),
            ("isqwen7bcorrect", &self.isqwen7bcorrect),
            ("isqwen32bcorrect", &self.isqwen32bcorrect),
            ("judge", &self.judge),
            ("domain", &self.domain),
        ];
        sections.into_iter().filter_map(|(name, model)| Some((name, model.as_ref()?)))
    }

    /// What the types cannot say; errors name the key and the cure.
    pub fn check(&self) -> Result<()> {
        ensure!(!self.pool.files.is_empty(), "pool.files is empty: name at least one file");
        ensure!(
            self.grading.decides == Grader::Rules || self.judge.is_some(),
            "grading.decides = \"judge\" needs the section [judge], or say \"rules\""
        );
        ensure!(
            !self.grading.compare || self.judge.is_some(),
            "grading.compare needs the section [judge], whose verdicts it compares with the rules'"
        );
        ensure!(
            self.cache.is_some() || self.models().next().is_none(),
            "a model is asked, so `cache` must name the file that keeps its replies: put it where \
             it survives, since it is what has been paid for"
        );
        Ok(())
    }
}
