//! Models that grade: the messages to send. Their verdicts are read by [`crate::verdict`].
//!
//! Nothing needs them: answers are compared by rules first, and these only see what rules cannot
//! tell. The texts are our own; what they ask, and how the answer ends, is s1's.

use crate::request::Message;
use crate::verdict::Fence;

/// Instructions for [`grade`] (`data/grading.txt`): reasons first, `Yes` or `No` alone at the end.
pub const GRADE: &str = "\
You grade a student's attempt at a problem in science. You get the problem, the attempt and the \
correct answer. Where the correct answer ends in a number or a choice, the attempt is right if \
its final answer is the same, however it is written. Where the correct answer is a whole argument, \
judge whether the attempt's reasoning is right and complete. An attempt without a final answer is \
wrong.

Give your reasons first. Then write the single word Yes, if the attempt is right, or No, alone on \
the last line.";

/// Instructions for [`same_answer`] (`eval/lm-evaluation-harness`, the tasks' `process_results`).
pub const SAME_ANSWER: &str = "\
You get an answer to a mathematical problem and a numbered list of options. Say which option is \
the same answer, written in another way: the same number, expression, set or word. Do not solve \
the problem, and do not accept what is merely close.

Write the number of that option, or -1 if there is none, alone on the last line.";

/// Instructions for [`chosen_letter`] (the same, for questions with choices).
pub const CHOSEN_LETTER: &str = "\
You get a question with choices and somebody's answer to it. Say which choice that answer names or \
amounts to. Do not judge whether it is right.

Write the letter of the choice, or - if it is none of them, alone on the last line.";

/// Is the attempt right? The reply is for [`crate::verdict::yes_no`].
pub fn grade(instructions: &str, question: &str, attempt: &str, solution: &str) -> Vec<Message> {
    messages(
        instructions,
        &[("problem", question), ("attempt", attempt), ("correct-answer", solution)],
    )
}

/// Which of the options is the same answer? The reply is for [`crate::verdict::index`].
pub fn same_answer(answer: &str, options: &[&str]) -> Vec<Message> {
    let names: Vec<_> = (1..=options.len()).map(|number| format!("option-{number}")).collect();
    let mut parts = vec![("answer", answer)];
    parts.extend(names.iter().map(String::as_str).zip(options.iter().copied()));
    messages(SAME_ANSWER, &parts)
}

/// Which choice does the answer name? The reply is for [`crate::verdict::letter`].
pub fn chosen_letter(question: &str, answer: &str) -> Vec<Message> {
    messages(CHOSEN_LETTER, &[("question", question), ("answer", answer)])
}

fn messages(instructions: &str, parts: &[(&str, &str)]) -> Vec<Message> {
    let texts: Vec<_> = parts.iter().map(|(_, text)| *text).collect();
    let fence = Fence::of(&texts);
    let fenced: Vec<_> = parts.iter().map(|(name, text)| fence.around(name, text)).collect();
    vec![
        Message::system(format!("{instructions}\n\n{}", fence.rule())),
        Message::user(fenced.join("\n\n")),
    ]
}
