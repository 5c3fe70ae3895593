//! Difficulty: what a small model already solves has little to teach.

use record::row::Outline;

use crate::config::Grade;
use crate::funnel::Reason;

/// Drops a question that any of the graded models solved; an unknown grade is no success.
pub fn too_easy(row: &Outline, too_easy_if: &[Grade]) -> Option<Reason> {
    let solved = |grade: &&Grade| match grade {
        Grade::IsQwen7bCorrect => row.isqwen7bcorrect == Some(true),
        Grade::IsQwen32bCorrect => row.isqwen32bcorrect == Some(true),
    };
    let solved_by: Vec<&str> = too_easy_if.iter().filter(solved).map(Grade::rule).collect();
    (!solved_by.is_empty()).then(|| Reason::new(solved_by.join("; "), ""))
}

impl Grade {
    /// What the report calls the rule.
    fn rule(&self) -> &'static str {
        match self {
            Grade::IsQwen7bCorrect => "solved by the 7B model",
            Grade::IsQwen32bCorrect => "solved by the 32B model",
        }
    }
}
