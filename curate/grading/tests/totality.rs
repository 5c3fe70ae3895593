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

/// What has a first and a second part, on LaTeX of its parts.
const ORDERED: [(&str, &str, &str); 11] = [
    ("(", ",", ")"),
    ("[", ",", ")"),
    ("", "-", ""),
    ("", "<", ""),
    (r"\begin{pmatrix}", r"\\", r"\end{pmatrix}"),
    (r"\begin{pmatrix}0&", "&", r"\end{pmatrix}"),
    ("f(", ",", ")"),
    (r"\lim_{x\to 0}f(", ",", ")"),
    ("", r"\subseteq ", ""),
    ("", r"\implies ", ""),
    (r"\vec{a}\times ", r"\propto ", ""),
];

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn the_order_of_what_is_ordered_counts(
        (a, b) in (tree(), tree()),
        (open, between, close) in proptest::sample::select(&ORDERED[..]),
    ) {
        let (a, b) = (format!("({})", a.latex(true)), format!("({})", b.latex(true)));
        prop_assume!(!equivalent(&a, &b).equal);
        let one = format!("{open}{a}{between}{b}{close}");
        let other = format!("{open}{b}{between}{a}{close}");
        let verdict = equivalent(&one, &other);
        prop_assert!(!verdict.equal, "{} against {}: {}", one, other, verdict.rule);
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

/// Runs `call` on two texts until once it is fast enough: 20 milliseconds for what is no longer than
/// an answer, and a microsecond for each byte of longer texts.
#[track_caller]
fn check_cost(a: &str, b: &str, call: impl Fn(&str, &str)) {
    let bytes = (a.len() + b.len()).saturating_sub(8_000);
    let limit = Duration::from_millis(20) + Duration::from_micros(bytes as u64);
    let limit = if cfg!(debug_assertions) { 20 * limit } else { limit };
    let mut fastest = Duration::MAX;
    // A machine that is busy with something else is slow once; a slow input is slow always.
    for _ in 0..30 {
        let start = Instant::now();
        call(a, b);
        fastest = fastest.min(start.elapsed());
        if fastest < limit {
            return;
        }
    }
    let shown: String = a.chars().take(40).collect();
    panic!("{shown:?}… took {fastest:?}, not {limit:?}");
}

/// One nasty piece after another: every piece as long as an answer and for 100 kB, those that open
/// something or that extraction looks for, for 1 MB.
#[test]
fn hostile_text_costs_linear_time() {
    const LONG: [&str; 21] = [
        "{",
        "$",
        "\\[",
        "\\begin{pmatrix}",
        "\\begin{pmatrix}1&",
        "\\boxed{",
        "\\boxed{1} ",
        "\\boxed{1},",
        "\\boxed 7",
        "\\boxed{\\boxed{1} ",
        "answer is ",
        "$1$, ",
        "(1+",
        "\\frac{1}{",
        "<|im_start|>user",
        "so a. ",
        "1,",
        "x^",
        "1=",
        "±",
        "\\sqrt{",
    ];
    let pieces = || mutate::PIECES.iter().chain(&LONG);
    let wide = pieces().map(|piece| (piece, 2_000)).chain(pieces().map(|piece| (piece, 100_000)));
    for (piece, length) in wide.chain(LONG.iter().map(|piece| (piece, 1_000_000))) {
        let text = piece.repeat(length / piece.len());
        check_cost(&text, &text, |a, b| assert!(equivalent(a, b).equal));
        check_cost(&text, &format!("{text}1"), |a, b| {
            equivalent(a, b);
        });
        check_cost(&text, "x+1", |a, b| {
            equivalent(a, b);
        });
        check_cost(&text, "", |text, _| {
            extract(text, Mode::S1);
        });
        check_cost(&text, "", |text, _| {
            choice(text, Mode::Strict);
        });
    }
}

/// Nested braces and towers of powers neither overflow the stack nor fill the memory.
#[test]
fn deep_and_huge_things_cost_nothing() {
    let rows = [
        ("{".repeat(5000) + "1" + &"}".repeat(5000), "1"),
        ("(".repeat(5000) + "1" + &")".repeat(5000), "1"),
        ("10^{10^{10}}".into(), "10^{10^{10}}+1"),
        ("9^{9^{9^9}}".into(), "\\sqrt{9^{9^{9^9}}}"),
        (format!("\\frac{{{}}}{{3}}", "7".repeat(1_000_000)), "1"),
        ("1000000!".into(), "\\binom{1000000}{500000}"),
        ("1000!".into(), "1001!"),
        ("\\binom{1000}{500}^{1000}".into(), "10^{-2000}"),
        ("(x+y+z+1)^{1000}".into(), "(x+y+z+2)^{1000}"),
        ("(a+b+c+d+e)^{30}".into(), "1"),
        ("((((1+x)^9)^9)^9)^9".into(), "((((2+x)^9)^9)^9)^9"),
        ("\\sqrt{\\sqrt{\\sqrt{1+\\sqrt{2+x}}}}".into(), "x"),
        ("1e99999".into(), "1e99998"),
        ("-".repeat(100_000) + "1", "1"),
        ("2^".repeat(50_000) + "2", "4"),
    ];
    for (a, b) in rows {
        check_cost(&a, b, |a, b| assert_eq!(equivalent(a, b), equivalent(b, a)));
    }
}

fn joined(count: u64, by: &str, item: impl Fn(u64) -> String) -> String {
    (0..count).map(item).collect::<Vec<_>>().join(by)
}

fn nested(depth: usize, open: &str, inside: &str, close: &str) -> String {
    format!("{}{inside}{}", open.repeat(depth), close.repeat(depth))
}

fn sums(depth: usize) -> String {
    nested(depth, r"\sum_{k=1}^{200}", r"\sqrt{kx}", "")
}

/// 990 different letters.
fn letters(by: &str, from: u32) -> String {
    joined(990, by, |k| char::from_u32(from + k as u32).unwrap().to_string())
}

/// Answers below 4,000 characters that would cost much, each in its own way.
fn costly_alone() -> Vec<String> {
    let (thousand, million) = (10u64.pow(3), 10u64.pow(6));
    let points = joined(900, ",", |k| k.to_string());
    vec![
        sums(4),
        sums(4).replace("kx", "k"),
        sums(2) + &format!("0.{}", "37".repeat(1800)),
        sums(2) + &"7".repeat(3800),
        sums(2) + &format!(r"\frac{{{}1}}{{x}}", "3".repeat(3000)),
        sums(3).replace("kx", "k^{63}"),
        sums(3).replace(r"\sqrt", r"\sin"),
        sums(3).replace("kx", &format!("x_{{{}}}", "abcdefgh".repeat(400))),
        format!(r"\max({})", joined(150, ",", |_| sums(1).replace("x", "+j"))),
        sums(3).replace("sum", "prod"),
        joined(60, ",", |_| sums(2)),
        format!(r"x<{}", sums(4).replace("kx", "k")),
        format!(r"({0},1+{0})\cup(1,2)", sums(4).replace("kx", "k")),
        format!("1e-2000{}", "+1e2000".repeat(500)),
        format!("1e-400{}", "+1e400".repeat(500)),
        "*1e400".repeat(500)[1..].to_string(),
        joined(480, "+", |k| format!("1e-{}", k % 400)),
        joined(110, "+", |k| format!("1/{}", 10u128.pow(30) + u128::from(k))),
        joined(400, "+", |k| format!("1/{}", thousand + k)),
        joined(150, "+", |k| format!(r"\frac{{1e390}}{{{}}}", million + k)),
        joined(160, ",", |k| format!("10{}", million * million * million + k)).replace(',', ",10"),
        format!("lcm({})", joined(170, ",", |k| format!("10{}", million * million * million + k))),
        joined(220, "+", |k| format!(r"\binom{{1000}}{{{k}}}")),
        joined(80, "+", |k| {
            format!(r"\sqrt{{{}}}", 340282366920938463463374607431768211297 - 2 * u128::from(k))
        }),
        format!(r"0.\overline{{{}7}},2\log 3", "123456789".repeat(400)),
        format!("0.{0}{0}...,2\\log 3", "123456789".repeat(200)),
        format!("5e-1,{}5,\\log 2", "37".repeat(1900)),
        format!(r"1\frac{{{0}7}}{{{0}8}},2\log 3", "123456789".repeat(200)),
        nested(20, r"\sqrt{x+", &letters("+", 0x4e00)[..1599], "}"),
        format!(r"\mathbb{{R}}\setminus\{{{points}\}}"),
        points.replace(',', "<"),
        nested(46, r"\sum_{", "x\\to 0", "}x"),
        nested(40, "f(", "x\\to 1", ")"),
        r"\\(".repeat(1300),
        r"\begin{array}".to_string() + &r"\\".repeat(1900),
        "1:1:".repeat(900),
        "x".to_string() + &"^2".repeat(900),
        format!("({})^{{30}}", "a+b+c+d+e+f+g"),
    ]
}

/// Pairs of such answers.
fn costly_pairs() -> Vec<(String, String)> {
    let logs = |front: &str| format!(r"\log {front},3+1e-400{}", "+1e400".repeat(540));
    // All digits but the last are the same.
    let close = |count: u64, digits: usize, behind: &str| {
        joined(count, ",", |k| format!("0.{}{}{behind}", "37".repeat(digits / 2), 10 + k))
    };
    let unions = |from: u64| {
        joined(40, r"\cup", |k| {
            format!(r"({}+\sin(1+\cos{k}),{}+\sqrt[3]{{{k}+\pi}})", 9 * k + from, 9 * k + 2)
        })
    };
    vec![
        (logs("2"), logs("3")),
        (letters("+", 0x4e00), letters("+", 0x4e01)),
        (format!(r"\sqrt{{{}}}", letters("+", 0x4e00)), letters("", 0x4e01)),
        (joined(230, ",", |_| "1e-399+1e399".into()), joined(230, ",", |_| "1e-398+1e399".into())),
        (close(55, 64, ""), close(55, 64, "5")),
        (close(55, 64, ",\\log x"), close(55, 64, "5,\\log x")),
        (close(55, 60, "+x"), close(55, 60, "5+x")),
        (format!(r"\{{{}\}}", close(55, 64, "")), format!(r"\{{{}\}}", close(55, 64, "5"))),
        (unions(0), unions(1)),
        (unions(0).replace(r"\cup", ","), unions(1).replace(r"\cup", ",")),
        (joined(400, ",", |k| format!("x={k}")), joined(400, ",", |k| format!("y={k}"))),
        (
            joined(200, ",", |k| format!("\\sin x+y={k}")),
            joined(200, ",", |k| format!("\\cos x+y={k}")),
        ),
        (
            joined(200, ",", |k| format!("\\sqrt{{x+{k}}}")),
            joined(200, ",", |k| format!("\\sqrt{{x-{k}}}")),
        ),
        (
            joined(200, ",", |k| format!("(x!)^{{{k}}}")),
            joined(200, ",", |k| format!("(x!)^{{-{k}}}")),
        ),
        (format!("1,2\\log {}", sums(3)), format!("1,3\\log {}", sums(3))),
        (joined(30, "*", |k| format!("(x+{k})")), joined(30, "*", |k| format!("(x-{k})"))),
        ("9".repeat(1900) + "^{999999999}", "x".into()),
        (r"\{".repeat(45) + "1" + &r"\}".repeat(45), r"\{".repeat(44) + "2" + &r"\}".repeat(44)),
    ]
}

/// Whatever an answer says.
#[test]
fn no_answer_is_expensive() {
    let alone = costly_alone().into_iter().map(|text| (text, "1".to_string()));
    for (a, b) in alone.chain(costly_pairs()) {
        check_cost(&a, &b, |a, b| {
            equivalent(a, b);
        });
    }
}

/// What the budget does not reach is said to be so; exponents at the ends of the machine's
/// numbers, and what has no value, are read or not, but stop nothing.
#[test]
fn the_ends_are_named() {
    let sums = r"\sum_{k=1}^{200}\sum_{j=1}^{200}\sum_{m=1}^{200}\sum_{n=1}^{200} kjm";
    for (a, b, rule) in [
        (sums, "1", "budget"),
        (r"\sum_{k=1}^{200}\sum_{j=1}^{20} kj", "4221000", "probe"),
        ("1e-9223372036854775808", "1", "unparsed"),
        ("1.5e-9223372036854775807", "1", "unparsed"),
        ("1e9223372036854775807", "1", "unparsed"),
        ("2.50e-400", "0.25e-399", "number"),
        ("(a+b+c+d+f)^{30}", "(f+d+c+b+a)^{30}", "probe"),
        ("(a+b+c+d+f)^{30}", "(f+d+c+b+a)^{29}", "different"),
        (r"3\frac{-1}{0}", "1", "unparsed"),
        (r"3\frac{-1}{2}", "-1.5", "number"),
    ] {
        assert_eq!(equivalent(a, b).rule, rule, "{a} against {b}");
    }
}
