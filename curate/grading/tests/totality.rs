//! What must hold for all texts: verdicts are reflexive, symmetric and blind to ways of writing,
//! nothing panics, and hostile text costs linear time.

mod mutate;

use std::time::{Duration, Instant};

use grading::{Mode, choice, equivalent, extract};
use proptest::prelude::*;

/// Texts of the pieces that mathematics is written in, valid or not.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        proptest::sample::select(&mutate::PIECES[..]).prop_map(String::from),
        proptest::sample::select(mutate::answers()),
        "[ -~]{0,6}",
    ];
    proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

/// A mathematical expression, to be written in several ways.
#[derive(Debug, Clone)]
enum Tree {
    Number(u32),
    Variable(char),
    Sum(Box<Tree>, Box<Tree>),
    Difference(Box<Tree>, Box<Tree>),
    Product(Box<Tree>, Box<Tree>),
    Fraction(Box<Tree>, Box<Tree>),
    Power(Box<Tree>, u32),
    Root(Box<Tree>),
    Sine(Box<Tree>),
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        (1..100u32).prop_map(Tree::Number),
        prop_oneof![Just('x'), Just('y'), Just('n')].prop_map(Tree::Variable),
    ];
    leaf.prop_recursive(3, 10, 2, |inner| {
        let pair = (inner.clone(), inner.clone()).prop_map(|(a, b)| (Box::new(a), Box::new(b)));
        let one = inner.prop_map(Box::new);
        prop_oneof![
            pair.clone().prop_map(|(a, b)| Tree::Sum(a, b)),
            pair.clone().prop_map(|(a, b)| Tree::Difference(a, b)),
            pair.clone().prop_map(|(a, b)| Tree::Product(a, b)),
            pair.prop_map(|(a, b)| Tree::Fraction(a, b)),
            (one.clone(), 2..5u32).prop_map(|(a, n)| Tree::Power(a, n)),
            one.clone().prop_map(Tree::Root),
            one.prop_map(Tree::Sine),
        ]
    })
}

impl Tree {
    /// `plain` LaTeX, or the same with `\dfrac`, `\left(`, `\times`, braces and spaces.
    fn latex(&self, plain: bool) -> String {
        let (open, close) = if plain { ("(", ")") } else { ("\\left( ", " \\right)") };
        let write = |tree: &Tree| tree.latex(plain);
        let group = |tree: &Tree| format!("{open}{}{close}", write(tree));
        match self {
            Tree::Number(value) => value.to_string(),
            Tree::Variable(name) => name.to_string(),
            Tree::Sum(a, b) if plain => format!("{}+{}", group(a), group(b)),
            Tree::Sum(a, b) => format!("{} + {}", group(a), group(b)),
            Tree::Difference(a, b) => format!("{}-{}", group(a), group(b)),
            Tree::Product(a, b) if plain => format!("{}\\cdot {}", group(a), group(b)),
            Tree::Product(a, b) => format!("{} \\times {}", group(a), group(b)),
            Tree::Fraction(a, b) if plain => format!("\\frac{{{}}}{{{}}}", write(a), write(b)),
            Tree::Fraction(a, b) => format!("\\dfrac {{ {} }} {{ {} }}", write(a), write(b)),
            Tree::Power(a, n) if plain => format!("{}^{n}", group(a)),
            Tree::Power(a, n) => format!("{} ^ {{{n}}}", group(a)),
            Tree::Root(a) if plain => format!("\\sqrt{{{}}}", write(a)),
            Tree::Root(a) => format!("\\sqrt {{\\, {} }}", write(a)),
            Tree::Sine(a) if plain => format!("\\sin{}", group(a)),
            Tree::Sine(a) => format!("\\sin {}", group(a)),
        }
    }
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..Default::default() }
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn reflexive(text in prop_oneof![pieces(), any::<String>()]) {
        prop_assert!(equivalent(&text, &text).equal);
    }

    #[test]
    fn symmetric(a in pieces(), b in pieces()) {
        prop_assert_eq!(equivalent(&a, &b), equivalent(&b, &a));
    }

    #[test]
    fn extraction_takes_any_text(text in prop_oneof![pieces(), any::<String>()]) {
        for mode in [Mode::S1, Mode::Strict] {
            extract(&text, mode);
            choice(&text, mode);
        }
    }

    /// An answer in a box is that answer, whatever stands around it.
    #[test]
    fn a_box_is_found(tree in tree(), before in "[a-z ,.]{0,30}", behind in "[a-z ,.]{0,30}") {
        let answer = tree.latex(true);
        let found = extract(&format!("{before} $\\boxed{{{answer}}}$. {behind}"), Mode::Strict);
        prop_assert_eq!(found.map(|found| found.text), Some(answer));
    }
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn ways_of_writing_do_not_count(tree in tree()) {
        let (plain, other) = (tree.latex(true), tree.latex(false));
        let verdict = equivalent(&plain, &other);
        prop_assert!(verdict.equal, "{} against {}: {}", plain, other, verdict.rule);
        let spaced = plain.replace('+', " + ").replace('-', " - ").replace('(', "( ");
        prop_assert!(equivalent(&plain, &spaced).equal, "{} against {}", plain, spaced);
    }

    #[test]
    fn one_more_is_not_the_same(tree in tree()) {
        let text = tree.latex(true);
        let more = format!("{text}+1");
        let verdict = equivalent(&text, &more);
        prop_assert!(!verdict.equal, "{} against {}: {}", text, more, verdict.rule);
    }
}

/// Mutated answers; the example `fuzz` does the same a million times.
#[test]
fn mutated_answers() {
    let answers = mutate::answers();
    for round in 0..20_000 {
        let mut random = mutate::Random(round);
        let (a, b) =
            (mutate::mutated(&mut random, &answers), mutate::mutated(&mut random, &answers));
        assert_eq!(equivalent(&a, &b), equivalent(&b, &a), "{a:?} against {b:?}");
        assert!(equivalent(&a, &a).equal, "{a:?} against itself");
    }
}

/// One nasty piece after another: every piece for 100 kB, those that open something or that
/// extraction looks for, for 1 MB.
#[test]
fn hostile_text_costs_linear_time() {
    const LONG: [&str; 14] = [
        "{",
        "$",
        "\\[",
        "\\begin{pmatrix}",
        "\\boxed{",
        "\\boxed{1} ",
        "\\boxed 7",
        "\\boxed{\\boxed{1} ",
        "answer is ",
        "$1$, ",
        "(1+",
        "\\frac{1}{",
        "<|im_start|>user",
        "so a. ",
    ];
    let rows = mutate::PIECES.iter().map(|piece| (piece, 100_000));
    for (piece, length) in rows.chain(LONG.iter().map(|piece| (piece, 1_000_000))) {
        let text = piece.repeat(length / piece.len());
        let start = Instant::now();
        assert!(equivalent(&text, &text).equal, "{piece:?} repeated");
        equivalent(&text, &format!("{text}1"));
        extract(&text, Mode::S1);
        choice(&text, Mode::Strict);
        // Twenty times what it takes, and a hundredth of what a square of the length would.
        let (took, limit) = (start.elapsed(), Duration::from_micros(5 * length as u64));
        assert!(took < limit, "{piece:?} for {length} bytes took {took:?}");
    }
}

/// Nested braces and towers of powers neither overflow the stack nor fill the memory.
#[test]
fn deep_and_huge_things_cost_nothing() {
    let rows = [
        ("{".repeat(5000) + "1" + &"}".repeat(5000), "1".to_string()),
        ("(".repeat(5000) + "1" + &")".repeat(5000), "1".to_string()),
        ("10^{10^{10}}".to_string(), "10^{10^{10}}+1".to_string()),
        ("9^{9^{9^9}}".to_string(), "\\sqrt{9^{9^{9^9}}}".to_string()),
        (format!("\\frac{{{}}}{{3}}", "7".repeat(1_000_000)), "1".to_string()),
        ("1000000!".to_string(), "\\binom{1000000}{500000}".to_string()),
        ("(x+y+z+1)^{1000}".to_string(), "(x+y+z+2)^{1000}".to_string()),
        ("-".repeat(100_000) + "1", "1".to_string()),
        ("2^".repeat(50_000) + "2", "4".to_string()),
    ];
    for (a, b) in rows {
        // A machine that is busy with something else is slow once; a slow input is slow always.
        let took = (0..3).map(|_| {
            let start = Instant::now();
            assert_eq!(equivalent(&a, &b), equivalent(&b, &a));
            start.elapsed()
        });
        let (took, shown) = (took.min().unwrap(), &a[..a.len().min(40)]);
        assert!(took < Duration::from_millis(500), "{shown}… took {took:?}");
    }
}
