//! Answers and random changes to them, for the tests of totality and the long fuzzing run.

/// One answer of each kind that the graders know, as models write them, parted by `|`.
pub const ANSWERS: &str = r"
42|-5|1,234.50|1 000|.5|1/2|-\dfrac{3}{4}|2\frac{1}{3}|3.2\times10^{-5}|50\%|28 percent|$18.90
12_{8}|12^{\mathrm{th}}|10:30 \text{ p.m.}|90^\circ|5 \text{ cm}^2|3\sqrt{13}
\sqrt[3]{\frac{5}{12}}|\frac94\pi|(x+1)^2|x^2+2x+1|\frac{x^2-1}{x-1}|e^{i\pi}+1
\sin^2 x+\cos^2 x|\log_2 8|\ln(x)|2 \sin b \cos a|n!|\binom{5}{2}|y=-\frac{1}{2}x+\frac{3}{4}
2x+4y-3=0|x \geq 5|1\leq|z|\leq\frac{3}{2}|x=5+5+1=11|x \in [-2,7]|(1,2)|[0,1)
(-\infty,1]\cup[10,+\infty)|\{1\pm\sqrt{5},-2\}|1, -2|(2,1),(1,2)|\emptyset|\mathbb{R}
\begin{pmatrix} 1 & 2 \\ 3 & 4\end{pmatrix}|\langle 1,2,3\rangle|3+4i|\text{(B)}|B|Yes
\text{Evelyn}|odd|10^{10^{10}}|x^{-1}|\frac{1}{0}|0^0|\infty|\sum_{k=0}^{n} k|\int_0^1 x dx
\lim_{x\to 0} x|a_1 + a_2|f(x)|x-2|=2-x|\left\lfloor \frac{7}{2} \right\rfloor
x \equiv 3 \pmod{5}|3:4|A:B=1|W(x)=1orW(x)=-1|k=45, n=2|so $x = \boxed{7}$.|\boxed{1}, \boxed{2}
The answer is (B).|Final Answer: $\frac{1}{2}$. I hope|<|im_start|>answer
";

/// Pieces that are put in: marks that open and never close, huge numbers, text that is no LaTeX.
pub const PIECES: [&str; 66] = [
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    "\\",
    "\\\\",
    "$",
    "$$",
    "\\(",
    "\\)",
    "\\[",
    "\\]",
    "\\left(",
    "\\right)",
    "\\left",
    "|",
    "^",
    "_",
    "^{",
    "_{",
    "\\frac",
    "\\frac{",
    "\\frac12",
    "\\sqrt",
    "\\sqrt[",
    "\\boxed{",
    "\\text{",
    "\\begin{pmatrix}",
    "\\end{pmatrix}",
    "&",
    ",",
    ";",
    ".",
    ":",
    "=",
    "<",
    "\\le",
    "\\ne",
    "+",
    "-",
    "*",
    "/",
    "!",
    "%",
    "\\pm",
    "\\cdot",
    "10^{10^{10}}",
    "99999999999999999999",
    "0",
    "1e308",
    "0.0000001",
    "e",
    "i",
    "\\pi",
    "x",
    "\\infty",
    "\\cup",
    "\\sin",
    "\\log_",
    "\\sum_{k=1}^{200}",
    "1e-400+",
    "answer: ",
    "\u{1F600}",
    "é",
];

/// Steele's SplitMix64: enough for choosing, and the same everywhere.
pub struct Random(pub u64);

impl Random {
    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let at = self.below(from.len());
        &from[at]
    }
}

/// The answers, one text each.
pub fn answers() -> Vec<String> {
    ANSWERS.split(['|', '\n']).filter(|answer| !answer.is_empty()).map(String::from).collect()
}

/// An answer after one to four changes: something put in, left out, doubled, repeated, wrapped,
/// swapped, or spliced with another answer.
pub fn mutated(random: &mut Random, answers: &[String]) -> String {
    let mut text: Vec<char> = random.pick(answers).chars().take(2000).collect();
    for _ in 0..=random.below(4) {
        let at = random.below(text.len() + 1);
        let upto = at + random.below((text.len() - at).min(20) + 1);
        match random.below(8) {
            0..=2 => drop(text.splice(at..at, random.pick(&PIECES).chars())),
            3 => drop(text.drain(at..upto)),
            4 => {
                let piece = text[at..upto].to_vec();
                let most = if random.below(50) == 0 { 500 } else { 3 };
                let times = 1 + random.below(most);
                text.splice(at..at, piece.repeat(times));
            }
            5 => {
                let wrapped =
                    random.pick(&[("(", ")"), ("\\frac{", "}{2}"), ("\\sqrt{", "}"), ("{", "}^2")]);
                text.splice(upto..upto, wrapped.1.chars());
                text.splice(at..at, wrapped.0.chars());
            }
            6 => {
                let other = random.below(text.len() + 1);
                if at < text.len() && other < text.len() {
                    text.swap(at, other);
                }
            }
            _ => {
                let other: Vec<char> = random.pick(answers).chars().take(2000).collect();
                let from = random.below(other.len() + 1);
                text.truncate(at);
                text.extend(&other[from..]);
            }
        }
    }
    text.into_iter().collect()
}
