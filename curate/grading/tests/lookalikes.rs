//! Answers that look alike and are not the same, each topic beside what it must not lose.

/// Checks rows both ways round.
#[track_caller]
fn check(rows: &[(&str, &str)], equal: bool) {
    let mut wrong = String::new();
    for (a, b) in rows {
        let explained = grading::explain(a, b);
        if explained.verdict.equal != equal {
            wrong += &format!("{explained}\n");
        }
        assert_eq!(explained.verdict, grading::equivalent(b, a), "swapped: {explained}");
    }
    assert!(wrong.is_empty(), "should {}be equal:\n{wrong}", if equal { "" } else { "not " });
}

#[track_caller]
fn same(rows: &[(&str, &str)]) {
    check(rows, true);
}

#[track_caller]
fn differ(rows: &[(&str, &str)]) {
    check(rows, false);
}

/// Nobody may take these for a sure verdict.
#[track_caller]
fn unparsed(rows: &[(&str, &str)]) {
    for (a, b) in rows {
        let explained = grading::explain(a, b);
        assert_eq!(explained.verdict.rule, "unparsed", "{explained}");
    }
}

/// An operator that the parser does not know is no factor.
#[test]
fn operators_that_do_not_commute() {
    differ(&[
        (r"A\subseteq B", r"B\subseteq A"),
        (r"p\implies q", r"q\implies p"),
        (r"a\to b", r"b\to a"),
        (r"f\circ g", r"g\circ f"),
        (r"\exists x\forall y", r"\forall y\exists x"),
        (r"x\propto y^2", r"y^2\propto x"),
        (r"x\notin A", r"A\notin x"),
        (r"x\notin A", r"x\in A"),
        (r"x\not=5", "x=5"),
        (r"\neg p q", r"p\neg q"),
        (r"\mathbf a\times\mathbf b", r"\mathbf b\times\mathbf a"),
        (r"\vec a\times\vec b", r"\vec b\times\vec a"),
        (r"\vec{AB}", r"\vec{BA}"),
        (r"x \to 5", "5"),
    ]);
    same(&[
        (r"A \subseteq B", r"A\subseteq B"),
        (r"\hbar\omega", r"\omega\hbar"),
        (r"\ell^2", r"\ell\ell"),
        (r"2\times\vec a", r"2\vec a"),
        (r"\vec{a}+\vec{b}", r"\vec b+\vec a"),
        (r"45^\circ", "45"),
        (r"45\circ", "45"),
        (r"\Gamma\Pi", r"\Pi\Gamma"),
    ]);
}

#[test]
fn set_builders() {
    differ(&[
        (r"\{2k:k\in\mathbb Z\}", r"\{k:k\in\mathbb Z\}"),
        (r"\{x^2:x\in[0,2]\}", "[0,2]"),
        (r"\{2x\mid x>1\}", r"(1,\infty)"),
        (r"\{x\in\mathbb Z:x>0\}", "x>0"),
        (r"\{n\in\mathbb N:n<3\}", r"(-\infty,3)"),
        (r"\{(x,y):x<y\}", "x<y"),
        (r"\{x\in\mathbb{R}:x>0\}", r"\{x\in\mathbb{Z}:x>0\}"),
    ]);
    same(&[
        (r"\{x\in\mathbb R:x>0\}", r"(0,\infty)"),
        (r"\{x \mid x>0\}", "x > 0"),
        (r"\{ 2k : k \in \mathbb{Z} \}", r"\{2k\mid k\in\mathbb Z\}"),
        (r"\{n\in\mathbb Z: 2n>6\}", r"\{n\in\mathbb Z: n>3\}"),
    ]);
}

#[test]
fn and_is_not_or() {
    differ(&[
        ("x<1 or x>3", "x<1 and x>3"),
        ("x<3 or x>1", "x<3 and x>1"),
        ("x=1 and y=2", "x=1 or y=2"),
        (r"p\lor q", r"p\land q"),
        (r"p\lor q", "p,q"),
    ]);
    same(&[
        ("1 and 2", "1 or 2"),
        ("x=1 and x=2", "x=1 or x=2"),
        ("x>1 and x<3", "(1,3)"),
        (r"x<1 \lor x>3", "x<1 or x>3"),
    ]);
}

#[test]
fn a_comma_that_parts_is_no_decimal_mark() {
    differ(&[
        ("2,5", "2.5"),
        ("-2,1", "-2.1"),
        ("x=2,5", "x=2.5"),
        ("x=2,50", "x=2.50"),
        (r"\{2,5\}", "2.5"),
        (r"\{2,55\}", "2.55"),
        ("0,5", "0.5"),
    ]);
    same(&[("12,75", "12.75"), ("0,125", "0.125")]);
}

#[test]
fn named_values() {
    differ(&[
        ("P(A)=0.5", "P(B)=0.5"),
        ("E(X)=2", "E(Y)=2"),
        ("f(a)=0", "f(b)=0"),
        (r"\sin x=1", r"\sin y=1"),
        ("N(A)=3,N(B)=4", "N(A)=4,N(B)=3"),
        ("y=2,x=1", "(2,1)"),
    ]);
    same(&[
        ("f(n)=2n+1", "f(x)=2x+1"),
        ("y=2,x=1", "(1,2)"),
        ("x=1,y=2", "(1,2)"),
        ("b=2, a=1", "a=1, b=2"),
    ]);
}

/// Words that change a number are no unit, and prose that does is not its last number.
#[test]
fn words_behind_and_before_a_number() {
    differ(&[
        ("5 dozen", "5"),
        ("2 thirds", "2"),
        ("5 tenths", "5"),
        ("5 squared", "5"),
        ("5 factorial", "5"),
        (r"5\text{ or more}", "5"),
        (r"1010\text{ (base 2)}", "1010"),
        ("5 false", "5"),
        ("5 wrong", "5"),
        ("square root of 5", "5"),
        ("no more than 5", "5"),
        ("every integer except 5", "5"),
        ("two more than 5", "5"),
        ("5 less than x", "5"),
        ("twice 5", "5"),
        ("5 to the power 3", "5"),
        ("5 does not work", "5"),
        ("5 out of 7", "7"),
        ("neither 5", "5"),
        ("half of 10", "10"),
        ("greater than 5", "5"),
    ]);
    same(&[
        ("5 apples", "5"),
        ("5 meters squared", "5 m^2"),
        ("5 miles per hour", "5"),
        ("The answer is 5", "5"),
        ("it takes 5 hours", "5"),
        ("12 square units", "12"),
    ]);
}

#[test]
fn differentials_do_not_cancel() {
    differ(&[
        (r"\frac{dy}{dx}", r"\frac yx"),
        (r"\frac{d}{dx}x^2", "x"),
        (r"\frac{dy}{dx}=2", "y=2x"),
        (r"\frac{\partial f}{\partial x}", r"\frac fx"),
        (r"\frac{\Delta y}{\Delta x}", r"\frac yx"),
        (r"\frac{d^2y}{dx^2}", r"\frac{y}{x^2}"),
        (r"\int f(x)\,dx", r"\int f(x)\,dy"),
    ]);
    same(&[
        (r"\frac{dy}{dx} = 2x", r"\frac{\mathrm{d}y}{\mathrm{d}x}=2x"),
        (r"2\frac{dy}{dx}", r"\frac{2dy}{dx}"),
        (r"\frac{ad}{bd}", r"\frac ab"),
        (r"\frac{d}{d+1}", r"1-\frac1{d+1}"),
        (r"\int 2x\,dx", r"\int x\cdot 2\,dx"),
    ]);
}

/// What a factor of unknown sign does to an inequality is not known.
#[test]
fn inequalities_over_unknown_signs() {
    differ(&[
        (r"\frac1x>1", "x<1"),
        (r"\frac xy>1", "x>y"),
        (r"\frac ab<c", "a<bc"),
        ("x^{-1}>2", r"x<\frac12"),
    ]);
    same(&[
        (r"\frac x2>1", "x>2"),
        (r"\frac{a}{3}<b", "a<3b"),
        (r"\frac xy=2", "x=2y"),
        (r"y=\frac{1}{x-1}", "y(x-1)=1"),
    ]);
}

#[test]
fn many_pieces_and_sets_in_sets() {
    let many = |last: u32| {
        let pieces = (0..64).map(|k| format!("({},{})", 2 * k, 2 * k + 1)).collect::<Vec<_>>();
        format!("{} or ({last},{})", pieces.join(" or "), last + 1)
    };
    differ(&[
        (&many(200), &many(300)),
        (r"\{\{1,2\}\}", r"\{1,2\}"),
        (r"\{1,\{2\}\}", r"\{1,2\}"),
        ("1,1,2", r"\{1,2\}"),
        (r"\{\emptyset\}", r"\emptyset"),
    ]);
    same(&[
        (r"\{5\}", "5"),
        (r"x\in\{5\}", "5"),
        (r"x=\{5\}", "x=5"),
        (r"\{\{1\},\{2\}\}", r"\{\{2\},\{1\}\}"),
    ]);
}

/// `a(b)` is a product only where it can be nothing else.
#[test]
fn calls_and_dates() {
    differ(&[
        ("P(0)", "0"),
        ("N(0)", "0"),
        ("y(0)", "0"),
        ("a(2)", "2a"),
        ("P(x)", "Px"),
        ("O(n^2)", "O(n)n"),
        ("y(x)=2", "xy=2"),
        ("T(n-1)+T(n-2)", "T(2n-3)"),
        ("2021-01-02", "2021-02-01"),
        ("2021-1-2", "2018"),
    ]);
    same(&[
        ("k(n-k)!", "(n-k)! k"),
        ("x(x+1)", "x^2+x"),
        ("N(N-1)", "N^2-N"),
        (r"\pi(r+1)", r"\pi r+\pi"),
        ("2021-01-02", "2021-01-02."),
        ("2021-1", "2020"),
    ]);
}

/// What was not read before, or read as something else.
#[test]
fn also_understood() {
    same(&[
        (r"\operatorname{arcsec}(2)", r"\frac\pi3"),
        (r"\sec^{-1}(2)", r"\frac\pi3"),
        (r"\arccsc 2", r"\frac\pi6"),
        ("F_{n+1}", "F_{1+n}"),
        ("1 m^2", "10000 cm^2"),
        ("3 kJ", "3000 J"),
        (r"5\text{ m s}^{-1}", r"5\text{ m/s}"),
        (r"12\text{ million dollars}", "12000000"),
        ("3 hours and 20 minutes", "200 minutes"),
        ("x=1,y=2", "1,2"),
        (r"\frac12\begin{pmatrix}2\\4\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
        (r"A\cup B", r"B \cup A"),
        (r"\approx 3.14", "3.14"),
        ("x_1=1, x_2=-1", "-1, 1"),
        (r"x\equiv1\pmod 3", r"x \equiv 1 \pmod{3}"),
        (r"x\equiv1\ (\text{mod } 3)", r"x \equiv 1 \bmod 3"),
        (r"1+2\equiv x\pmod{12}", "x ≡ 3 (mod 12)"),
        (r"\mathbb{R}-\{0\}", r"x \ne 0"),
        ("f'(x)", r"f^{\prime}(x)"),
        (r"f^\prime(x)=2", "f'(x)=2"),
        (r"\frac\pi4+k\pi, k\in\mathbb Z", r"\frac\pi4+n\pi, n\in\mathbb Z"),
        (r"\sum_{i=1}^{10} i", "55"),
        (r"\sum_{i=1}^n i^2", r"\sum_{k=1}^n k^2"),
        (r"\sum_{i=1}^n\sum_{j=1}^i ij", r"\sum_{j=1}^n\sum_{k=1}^j kj"),
        (r"\begin{vmatrix}a&b\\c&d\end{vmatrix}", "ad-bc"),
        (r"\det\begin{pmatrix}1&2\\3&4\end{pmatrix}", "-2"),
        (r"\begin{vmatrix}1&0&2\\0&1&0\\1&0&1\end{vmatrix}", "-1"),
        (r"\begin{cases}x=1\\y=2\end{cases}", "x=1, y=2"),
        ("½", "0.5"),
        ("1½", "1.5"),
        ("x⁴", "x^4"),
        ("10⁻³", "0.001"),
        ("∛8", "2"),
        (r"0.\dot3", r"\frac13"),
        (r"0.\dot{3}", r"\frac13"),
        (r"0.1\overline6", r"\frac16"),
        (r"(5, \\infty)", r"(5,\infty)"),
        ("10 m/s", "10"),
        (r"\Bbb R", r"\mathbb R"),
    ]);
    differ(&[
        ("1 in 5", "5"),
        (r"x\equiv1\pmod 3", r"x\equiv1\pmod 4"),
        (r"x\equiv1\pmod 3", "1"),
        (r"x\equiv1", r"x=1"),
        ("x_1=1, x_2=2", "x_1=2, x_2=1"),
        (r"\frac\pi4+k\pi, k\in\mathbb Z", r"\frac\pi4+n\pi, n\in\mathbb N"),
        (r"\frac\pi4+k\pi, k\in\mathbb Z", r"\frac\pi4+2n\pi, n\in\mathbb Z"),
        ("x=1,y=2", "2,1"),
        (r"5\text{ m s}^{-1}", r"5\text{ m s}"),
        ("3 hours and 20 minutes", "20 minutes"),
        (r"12\text{ million dollars}", "12"),
        (r"\sum_{i=1}^n i^2", r"\sum_{k=1}^n k^3"),
        (r"\sum_{i=1}^n\sum_{j=1}^n i^2j", r"\sum_{i=1}^n\sum_{j=1}^n ij"),
        (r"\begin{vmatrix}a&b\\c&d\end{vmatrix}", "ad+bc"),
        (r"\begin{cases}x=1\\y=2\end{cases}", "x=2, y=1"),
        ("10⁻³", "1000"),
        (r"0.\dot{1}\dot{8}", r"\frac{1}{9}"),
        (r"A\setminus B", r"B \setminus A"),
    ]);
    unparsed(&[("x^2<1", "(-1,1)"), (r"A\setminus B", r"B\setminus A"), ("2(1,2)", "(2,4)")]);
}

/// Both write parts of the answer more than once, which must not add up.
#[test]
fn determinants_and_families_cost_little() {
    let nested = (0..20).fold("a".to_owned(), |inner, _| {
        format!(r"\begin{{vmatrix}}1&2&3\\4&5&6\\{inner}&8&9\end{{vmatrix}}")
    });
    let family = (0..240).map(|k| format!(r"x_{{{k}}}\in\mathbb Z")).collect::<Vec<_>>().join(",");
    for text in [nested, family] {
        let start = std::time::Instant::now();
        assert!(!grading::equivalent(&text, "1").equal);
        assert!(start.elapsed().as_millis() < 100, "{:?}", start.elapsed());
    }
}
