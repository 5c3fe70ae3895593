//! How requests are to be answered, in token ids.

use std::collections::BTreeSet;

use serde::Deserialize;

/// How requests are to be answered.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Opens thinking, `<|im_start|>think`.
    pub thinking_start: Vec<i64>,
    /// Opens the answer, `<|im_start|>answer`.
    pub thinking_end: Vec<i64>,
    /// `None` is plain generation: nothing is forced, the delimiters only tell thinking from
    /// answer in the [`Outcome`].
    pub thinking: Option<Thinking>,
    /// Any of these ends the answer.
    pub until: Vec<i64>,
    /// For so many ids of answer, none of `until` may be sampled.
    pub min_gen_toks: usize,
    /// Ids of answer at most.
    pub max_gen_toks: usize,
    /// Ids of prompt, thinking and answer together at most.
    pub max_model_len: usize,
}

/// The forced stage of thinking.
#[derive(Debug, Clone)]
pub struct Thinking {
    /// The budget.
    pub max_tokens: MaxTokens,
    /// The ids of [`Thinking::until`] are banned for so many ids after the start and after every
    /// ignored end.
    pub min_tokens: usize,
    /// Any of these ends thinking.
    pub until: Vec<i64>,
    /// So do these texts, wherever their tokens begin and end.
    pub until_texts: Vec<String>,
    /// Ends of thinking that are ignored.
    pub n_ignore: usize,
    /// What stands in the place of an ignored end; may be empty.
    pub ignore: Vec<i64>,
    /// Opens the answer when the budget ran out, `<|im_start|>answer\nFinal Answer:`.
    pub thinking_end_max: Vec<i64>,
    /// Stands before `thinking_end_max`, unless the thinking already ends with a new line.
    pub newline: Vec<i64>,
    /// Every id whose text ends with a new line.
    pub ends_line: BTreeSet<i64>,
    /// Whose rules hold.
    pub procedure: Procedure,
    /// Rejection sampling: thinking that reaches its budget, or the end of the context, is thrown
    /// away and sampled anew, until it ends by itself or was tried so many times. `None` closes it.
    ///
    /// Differs from s1: a question keeps its own thinking. There, what a question that is done
    /// samples besides may become the thinking of another one.
    pub tries: Option<usize>,
}

/// Which of s1's two procedures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Procedure {
    /// The evaluation harness's, described above.
    #[default]
    Harness,
    /// The README's (with the mend of its pull request 120): the budget counts what is sampled,
    /// ends of thinking included, and not what stands in their places; an end is ignored only if
    /// some of the budget is left; the first id may be an end. [`Thinking::min_tokens`] is not
    /// looked at. The closings should be empty: there the model opens the answer itself.
    ///
    /// Differs from s1: ids stay as they were sampled (the README's text is tokenised anew).
    Readme,
}

/// The limit on thinking, forced ids in it included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxTokens {
    /// So many ids.
    Count(usize),
    /// What `max_gen_toks` leaves when the prompt, the delimiters and 100 ids of answer are taken
    /// off.
    Auto,
}

/// Ids of answer that a budget leaves room for where nobody gave a number; s1's.
pub const LEFT_FOR_ANSWER: usize = 100;

impl Spec {
    /// The thinking budget of a request with a prompt of `prompt_len` ids; `None` if nothing is
    /// forced.
    pub fn max_tokens_thinking(&self, prompt_len: usize) -> Option<usize> {
        self.thinking.as_ref().map(|thinking| match thinking.max_tokens {
            MaxTokens::Count(count) => count,
            MaxTokens::Auto => {
                let delimiters = self.thinking_start.len() + thinking.thinking_end_max.len();
                self.max_gen_toks.saturating_sub(prompt_len + delimiters + LEFT_FOR_ANSWER)
            }
        })
    }

    /// Ids that may be thought so that there is room for `answer` ids behind the closing.
    fn room_to_think(&self, prompt_len: usize, answer: usize) -> usize {
        // The README's budget does not count what stands in the places of ignored ends.
        let ignored = self.thinking.as_ref().filter(|t| t.procedure == Procedure::Readme);
        let ignored = ignored.map_or(0, |thinking| thinking.n_ignore * thinking.ignore.len());
        self.max_model_len.saturating_sub(self.least_len(prompt_len) + ignored + answer)
    }

    /// A limit on thinking that is a number and, if it is used up, leaves no room for `answer` ids:
    /// that number, and the most that would.
    pub fn too_much_thinking(&self, prompt_len: usize, answer: usize) -> Option<(usize, usize)> {
        let thinking = self.thinking.as_ref().filter(|thinking| thinking.tries.is_none())?;
        let MaxTokens::Count(most) = thinking.max_tokens else { return None };
        let room = self.room_to_think(prompt_len, answer);
        (most > room).then_some((most, room))
    }

    /// The ids of prompt and delimiters when nothing is thought: any answer makes it more
    /// (thinking that ends by itself is closed with fewer).
    pub fn least_len(&self, prompt_len: usize) -> usize {
        let closing = |thinking: &Thinking| {
            self.thinking_start.len() + thinking.newline.len() + thinking.thinking_end_max.len()
        };
        prompt_len + self.thinking.as_ref().map_or(0, closing)
    }
}
