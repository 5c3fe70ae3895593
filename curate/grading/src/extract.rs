//! The final answer of a completion: s1's own rules, or the stricter ones that we recommend.

mod boxes;
mod choice;
mod s1;
mod sentence;
mod spans;
mod strict;

pub use choice::choice;

/// By whose rules an answer is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As s1's evaluation harness does it, so that its published numbers can be compared with.
    S1,
    /// What a careful reader takes for the final answer; the recommended mode.
    Strict,
}

/// A final answer and how it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extracted {
    /// The answer as it stands in the completion.
    pub text: String,
    /// Which rule found it; see [`extract()`].
    pub rule: &'static str,
    /// Were there several different boxes, or a box and a later final statement that differ?
    /// Always false in [`Mode::S1`].
    pub ambiguous: bool,
}

/// The final answer of a completion, or `None` when it gives none. Linear in the text.
///
/// [`Mode::S1`] has the rules `box`, `answer` and `text`: only what follows the last
/// `<|im_start|>answer\n`, else the last `<|im_start|>`, counts; of that the last box with balanced
/// braces, else everything after the first `Answer:`, else all of it. It is proved equal to s1's
/// code on real outputs, its oddities included.
///
/// [`Mode::Strict`] looks at the answer part: what follows the last `<|im_start|>answer\n`,
/// `</think>` or `<|begin_of_solution|>`, else the last turn that is not the user's; a turn that
/// begins behind it does not count. The first of these rules that finds something wins:
///
/// - `box`: the content of the last finished `\boxed{…}` or `\fbox{…}`. An unfinished box is no
///   answer, nor are empty ones. Different boxes make the answer ambiguous.
/// - `boxes`: several boxes joined by a comma, `and` or `or` in one sentence, as one list.
/// - `statement`: the end of the last `Final Answer: …`, `Answer: …`, `the answer is …` or heading
///   `Answer`, cut at the sentence's end; so are a last line `A: 96` or `#### 96`,
///   and `<answer>96</answer>`. A `final answer` with a number or formula behind the last
///   box goes before that box.
/// - `formula`, `number`, `text`: of the last sentence that has one, the formula, else the number;
///   a completion of a few words is its own answer. Not where an unfinished box or thought shows
///   that the completion was cut off.
pub fn extract(completion: &str, mode: Mode) -> Option<Extracted> {
    match mode {
        Mode::S1 => s1::extract(completion),
        Mode::Strict => strict::extract(completion),
    }
}
