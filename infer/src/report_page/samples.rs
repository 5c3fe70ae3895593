//! A few questions of each task under every budget, with the forced parts marked.

use std::collections::BTreeMap;

use page::chart::number;
use page::document::{details, paragraph, verbatim};
use page::html::Html;
use page::terminal::line;
use record::question::question_hash;

use crate::forced::pieces;
use crate::report::{Sample, TaskResult};
use crate::show::words;

/// Questions of a task: one that some budgets answer and others do not, and the next one.
const QUESTIONS: usize = 2;
/// Bytes of a completion's beginning and end; what lies between is left out.
const SHOWN: usize = 3000;

/// The questions, chosen by their hash.
pub fn html(tasks: &[TaskResult], samples: &[Sample]) -> Html {
    let words: [Html; 5] = [
        "Questions chosen by their hash, for each task first one on which budgets differ. ".into(),
        Html::plain("mark", "Marked"),
        " is what was forced, not written by the model. ".into(),
        Html::plain("code", "infer show OUT --wrong"),
        " lists all that went wrong.".into(),
    ];
    let mut parts = vec![paragraph(words)];
    for task in tasks {
        let mut questions: BTreeMap<(bool, String), Vec<&Sample>> = BTreeMap::new();
        for of_question in questions_of(task, samples).into_values() {
            let differ = of_question.iter().any(|sample| sample.correct != of_question[0].correct);
            let hash = question_hash(&of_question[0].question);
            questions.insert((!differ, hash), of_question);
        }
        for of_question in questions.into_values().take(QUESTIONS) {
            let Sample { doc_id, question, target, .. } = of_question[0];
            parts.push(Html::plain("h3", format!("{}, question {doc_id}", task.task)));
            parts.push(verbatim(question));
            parts.push(paragraph(["Expected: ".into(), Html::plain("bdi", target)]));
            parts.extend(of_question.into_iter().map(answer));
        }
    }
    parts.into()
}

/// The first answer under each budget, by question.
fn questions_of<'a>(task: &TaskResult, samples: &'a [Sample]) -> BTreeMap<usize, Vec<&'a Sample>> {
    let mut questions: BTreeMap<usize, Vec<&Sample>> = BTreeMap::new();
    for sample in samples.iter().filter(|s| s.task == task.task && s.repeat == 0) {
        questions.entry(sample.doc_id).or_default().push(sample);
    }
    questions
}

fn answer(sample: &Sample) -> Html {
    let verdict = if sample.correct { ("right", "✓ right") } else { ("wrong", "✗ wrong") };
    let given = sample.extracted.as_deref().map_or("no answer".into(), |text| line(text, 40));
    let summary = [
        Html::element("span", &[("class", verdict.0)], verdict.1),
        format!(
            " under {}, {} + {} tokens: ",
            sample.budget,
            number(sample.thinking_tokens as f64),
            number(sample.answer_tokens as f64)
        )
        .into(),
        // On its own, or text written from right to left would move its neighbours.
        Html::plain("bdi", given),
    ];
    details(summary, [Html::plain("pre", completion(sample)), rule(sample)])
}

/// The text with its forced parts marked, without its middle if it is long.
fn completion(sample: &Sample) -> Html {
    let text = &sample.completion;
    let part = |within| {
        let piece = |(forced, piece): (bool, &str)| match forced {
            true => Html::plain("mark", piece),
            false => piece.into(),
        };
        pieces(text, &sample.forced, within).into_iter().map(piece).collect::<Html>()
    };
    if text.len() <= 2 * SHOWN {
        return part(0..text.len());
    }
    let left_out = format!("\n[… {} bytes …]\n", number((text.len() - 2 * SHOWN) as f64));
    [part(0..SHOWN), left_out.into(), part(text.len() - SHOWN..text.len())].into()
}

fn rule(sample: &Sample) -> Html {
    let thinking = sample.thinking_ending.map_or("none was forced", words);
    let answer = words(sample.ending);
    let rule =
        format!("Graded by the rule “{}”. Thinking: {thinking}; answer: {answer}.", sample.rule);
    Html::element("p", &[("class", "quiet")], rule)
}
