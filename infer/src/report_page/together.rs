//! What several answers to each question are worth together.

use page::chart::number;
use page::document::paragraph;
use page::html::Html;
use page::table::{Kind, Table};

use super::NONE;
use crate::points::{Line, Point};
use crate::report::{BudgetResult, TaskResult, Together};

const WORDS: &str = "\
Over the first answers to each question, as many as the point says. Majority (maj@k): the answer that \
most of them give is right; of equals the first counts, what says the same counts as one, and what \
is empty does not count. One right (cov@k): any of them is. pass@k: one of so many drawn from all \
answers is right, an unbiased estimate. Tokens: thinking and answers of all of them, for each question.";

/// Nothing where one answer was asked for.
pub fn html(task: &TaskResult) -> Html {
    let several = || task.budgets.iter().filter(|row| !row.together.is_empty());
    if several().next().is_none() {
        return Html::default();
    }
    let lines: Vec<Line> = several().flat_map(lines).collect();
    let tokens = "mean tokens of all answers to a question";
    [
        Html::plain("h3", "Several answers together"),
        super::accuracy(&lines, "Accuracy against all that is written", tokens),
        table(several()),
        paragraph(WORDS),
    ]
    .into()
}

/// The majority of one budget's answers, and others' where it is known.
fn lines(row: &BudgetResult) -> Vec<Line> {
    let point = |k: usize, thinking_tokens: f64, accuracy: f64| Point {
        name: k.to_string(),
        thinking_tokens,
        accuracy,
        interval: None,
        n: None,
    };
    let first = (row.mean_thinking_tokens + row.mean_answer_tokens, 100.0 * row.accuracy);
    let of = |value: fn(&Together) -> Option<f64>| {
        let points = row.together.iter();
        points.filter_map(|at| Some(point(at.k, at.tokens, value(at)?))).collect::<Vec<_>>()
    };
    let mut majority = vec![point(1, first.0, first.1)];
    majority.extend(of(|at| Some(100.0 * at.maj)));
    let name = |what: &str| format!("{}, {what}", row.name);
    let published = row.published.map(|percent| point(1, first.0, percent));
    let published: Vec<Point> = published.into_iter().chain(of(|at| at.published)).collect();
    let mut lines = vec![
        Line { name: name("majority"), published: false, points: majority },
        Line { name: name("published majority"), published: true, points: published },
    ];
    lines.retain(|line| !line.published || line.points.iter().any(|point| point.name != "1"));
    lines
}

fn table<'a>(rows: impl Iterator<Item = &'a BudgetResult>) -> Html {
    let mut columns = vec![("budget", Kind::Text)];
    let heads = ["answers", "tokens", "majority", "published", "one right", "pass@k"];
    columns.extend(heads.map(|head| (head, Kind::Number)));
    let mut table = Table::new(&columns);
    for row in rows {
        for Together { k, cov, maj, pass, tokens, published } in &row.together {
            let share = |share: &f64| format!("{:.1}%", 100.0 * share);
            table.row([
                row.name.clone(),
                number(*k as f64),
                number(tokens.round()),
                share(maj),
                published.map_or(NONE.into(), |percent| format!("{percent:.1}%")),
                share(cov),
                share(pass),
            ]);
        }
    }
    table.html()
}
