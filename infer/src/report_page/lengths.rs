//! How long thinking and answers are, budget by budget.

use page::bars::{Bars, Group};
use page::chart::number;
use page::document::{details, paragraph};
use page::html::Html;
use page::table::{Kind, Table};

use crate::report::{Sample, TaskResult};

/// Mean lengths of each budget as bars, and how they are spread as a table.
pub fn html(tasks: &[TaskResult], samples: &[Sample]) -> Html {
    let mut parts = Vec::new();
    for task in tasks {
        let bar = |tokens: f64| Some((tokens, number(tokens.round())));
        let bars = Bars {
            title: format!("Mean tokens, {}", task.task),
            series: ["thinking", "answer"].map(String::from).to_vec(),
            rows: (task.budgets.iter())
                .map(|row| Group {
                    label: row.name.clone(),
                    bars: vec![bar(row.mean_thinking_tokens), bar(row.mean_answer_tokens)],
                })
                .collect(),
        };
        let spread = details(format!("How they are spread, {}", task.task), table(task, samples));
        parts.extend([bars.html(), spread]);
    }
    let words = "Tokens are counted on the ids themselves. Texts put in the place of an ignored \
                 end belong to the thinking; a forced “Final Answer:” does not belong to the answer.";
    parts.push(paragraph(words));
    parts.into()
}

fn table(task: &TaskResult, samples: &[Sample]) -> Html {
    let heads = ["shortest", "10%", "median", "90%", "longest"];
    let mut columns = vec![("budget", Kind::Text), ("tokens of", Kind::Text)];
    columns.extend(heads.map(|head| (head, Kind::Number)));
    let mut table = Table::new(&columns);
    for row in &task.budgets {
        let own = || samples.iter().filter(|s| s.task == task.task && s.budget == row.name);
        type Tokens = fn(&Sample) -> usize;
        let kinds: [(&str, Tokens); 2] =
            [("thinking", |s| s.thinking_tokens), ("answer", |s| s.answer_tokens)];
        for (kind, tokens) in kinds {
            let mut sorted: Vec<usize> = own().map(tokens).collect();
            sorted.sort_unstable();
            let at = |part: usize| sorted.get(sorted.len().saturating_sub(1) * part / 10);
            let shown = |tokens: Option<&usize>| number(*tokens.unwrap_or(&0) as f64);
            let mut cells = vec![row.name.clone(), kind.to_owned()];
            cells.extend([0, 1, 5, 9, 10].map(|part| shown(at(part))));
            table.row(cells);
        }
    }
    table.html()
}
