//! Equivalence: what is the same answer and what is not, topic by topic.

/// The verdict both ways round; `equal` is also checked against the rule that decided.
#[track_caller]
fn verdict(given: &str, expected: &str) -> grading::Verdict {
    let verdict = grading::equivalent(given, expected);
    assert_eq!(verdict, grading::equivalent(expected, given), "{given:?} and {expected:?} swapped");
    let explained = grading::explain(given, expected);
    assert_eq!(explained.verdict, verdict, "{explained}");
    let equal = !["different", "unparsed", "budget"].contains(&verdict.rule);
    assert_eq!(verdict.equal, equal, "{explained}");
    verdict
}

#[track_caller]
fn same(rows: &[(&str, &str)]) {
    for (a, b) in rows {
        assert!(verdict(a, b).equal, "should be the same:\n{}", grading::explain(a, b));
    }
}

#[track_caller]
fn differ(rows: &[(&str, &str)]) {
    for (a, b) in rows {
        assert!(!verdict(a, b).equal, "should differ:\n{}", grading::explain(a, b));
    }
}

#[test]
fn each_rule_once() {
    let rows = [
        ("x+1", "x+1", "identical"),
        (r"\text{Evelyn}", "evelyn", "normalised"),
        (r"\text{(C) Plane}", "C", "choice"),
        ("3:30 pm", "15:30", "time"),
        ("023", "23", "integer"),
        ("1/2", r"\frac{1}{2}", "number"),
        ("1/3", "0.333333", "rounded"),
        (r"\sqrt8", r"2\sqrt{2}", "exact"),
        (r"\sin 2x", r"2\sin x\cos x", "probe"),
        ("x=5", "5", "equation"),
        ("2x > 4", "x > 2", "relation"),
        ("1, 2", "2, 1", "collection"),
        ("10 cm", "10", "units"),
        ("1", "2", "different"),
        ("east", "west", "different"),
        ("it depends", "3", "unparsed"),
        (r"e^{\pi\sqrt{163}}", "262537412640768744", "unparsed"),
    ];
    for (a, b, rule) in rows {
        assert_eq!(verdict(a, b).rule, rule, "{}", grading::explain(a, b));
    }
}

#[test]
fn letters_in_a_row() {
    same(&[
        ("mgh", "hgm"),
        ("ABD", "BAD"), // the choices A, B and D
        (r"\angle ABC", r"\angle CBA"),
        (r"\triangle ABC", r"\triangle BCA"),
        ("does not exist", "undefined"),
    ]);
    differ(&[
        ("CAB", "BAC"),
        (r"\angle ABC", r"\angle BAC"),
        (r"\ln x", r"\ln |x|"),
        ("undefined", "0"),
        ("mgh", "mg"),
    ]);
}

#[test]
fn text_and_its_wrapping() {
    same(&[
        (r"\left( 3, \frac{\pi}{2} \right)", r"(3, \frac{\pi}{2})"),
        (r"\mathrm{(B)}", "(B)"),
        (r"\textbf{A}", "(A)"),
        (r"$$ x \in [1,\,2] $$", r"x\in[1,2]"),
        (r"\[ \(a+b\) \]", "a + b"),
        (r"\text{two words}", "two  words"),
        (r"\text{Yes}", "yes"),
        ("True", "yes"),
        ("No.", r"\text{false}"),
        (r"$-1$, $2$, $-2$", "-2, -1, 2"),
        (r"\boxed{42}", "42"),
        (r"Therefore the answer is $\boxed{\frac12}$.", "0.5"),
        (r"\\frac{3}{4}", r"\frac34"),
        (r"\text{option B}", "B"),
        ("no solution", r"\emptyset"),
        ("...it is navin.", r"\text{Navin}"),
    ]);
    differ(&[
        ("", " "),
        ("", "0"),
        ("A", "a"),
        ("A", "B"),
        ("yes", "no"),
        ("odd", "even"),
        (r"\text{oddd}", "odd"),
        ("0", r"\text{no solution}"),
        (r"\leftarrow x", r"\rightarrow x"),
    ]);
}

#[test]
fn numbers() {
    same(&[
        ("-0", "0"),
        ("+7", "7"),
        ("1,234", "1234"),
        (r"11,\! 111,\! 111,\! 100", "11111111100"),
        ("1{,}234", "1234"),
        (r"10\,000", "10000"),
        ("1 000", "1000"),
        ("1.234,56", "1234.56"),
        ("1000,99", "1000.99"),
        ("2.0", "2"),
        ("$204$.", "204"),
        (r"\(-5\)", "−5"),
        ("0123456789012345678901234567890", "123456789012345678901234567890"),
        ("0.50", ".5"),
        (r"-\dfrac{1}{2}", r"\frac{-1}{2}"),
        (r"\frac12", "0.5"),
        (r"\frac{270}7", "270/7"),
        ("4/2", "2"),
        (r"137\frac{1}{2}", "137.5"),
        ("5 1/2", "5.5"),
        (r"-2\frac12", r"-\frac52"),
        (r"2\cdot\frac12", "1"),
        (r"1.5 \times 10^{3}", "1500"),
        ("1.5e-3", "0.0015"),
        ("12_8", "10"),
        ("4210_5", "4210_{5}"),
        (r"0.1\overline{6}", r"\frac16"),
        ("21st", "21"),
        (r"12^{\mathrm{th}}", "12"),
        ("0.1+0.2", "0.3"),
        ("0.333...", "1/3"),
        ("1 million", "1,000,000"),
        ("six hundred", "600"),
        ("1.5 x 10^-3", "0.0015"),
        (r"2^2 \cdot 3^3 \cdot 4^4", "27648"),
    ]);
    differ(&[
        ("1 2", "12"),
        ("12,34", "1234"),
        ("(1,234)", "1234"),
        ("1,2,3", "123"),
        ("1.234", "1,234"),
        ("5", "-5"),
        ("1/0", "2/0"),
        ("12_8", "12"),
        (r"\frac{1}{2}", r"\frac{2}{1}"),
        ("5", "5.001"),
        ("326.53", "326.5"),
        ("123456789012345678901234567890.5", "123456789012345678901234567891"),
        ("1.00000000001", "1"),
        (r"\sqrt{10^{20}+1}", "10^{10}"),
    ]);
}

/// A decimal is an exact value's rounding from six significant digits on.
#[test]
fn rounding() {
    same(&[
        ("0.0833333333333333", r"\frac{1}{12}"),
        (r"\pi", "3.14159"),
        (r"\ln 2", "0.693147"),
        (r"\begin{pmatrix}0.333333\\0.2\end{pmatrix}", r"\begin{pmatrix}1/3\\1/5\end{pmatrix}"),
    ]);
    differ(&[
        ("0.333", "1/3"),
        ("0.333334", "1/3"),
        (r"\pi", "3.14"),
        (r"\pi", "22/7"),
        ("85.71", r"\frac{600}{7}"),
        ("0.333333", "0.3333333"),
    ]);
}

#[test]
fn units_percent_and_money() {
    same(&[
        (r"10 \text{ cm}", "10cm"),
        (r"5.4 \text{ cents}", "5.4"),
        ("1 km", "1000 m"),
        ("90 minutes", "1.5 hours"),
        ("3 hours 20 minutes", "200 minutes"),
        (r"3 \times 10^8 \text{ m/s}", "300000 km/s"),
        ("5 miles per hour", "5 mph"),
        (r"864 \mbox{ inches}^2", "864 square inches"),
        (r"\frac{600}{7} \mathrm{~km} / \mathrm{h}", r"\frac{600}{7}"),
        ("50%", "50"),
        ("50%", "0.5"),
        (r"28\%", "28 percent"),
        (r"\$1,250.00", "1250"),
        ("5 dollars", r"\$5"),
        (r"90^\circ", "90"),
        (r"90^{\circ}", r"\frac{\pi}{2}"),
        ("72 degrees", "72°"),
        ("72°F", "72"),
        (r"33\frac{1}{3}\%", r"\frac13"),
        ("500 cm", "5 m"),
    ]);
    differ(&[
        ("10 cm", "10 km"),
        (r"10\text{ units}", "100"),
        ("0.64", "0.64N"),
        ("30%", "10"),
        (r"5\text{ apples}", r"5\text{ pears}"),
        (r"15\text{ cm}^2", r"15\text{ cm}^3"),
        ("10:00 am", "10:00 pm"),
    ]);
}

#[test]
fn algebra() {
    same(&[
        ("x^2+2x+1", "(x+1)^2"),
        (r"\left(x-2\right)\left(x+2\right)", "x^2-4"),
        (r"\frac{x^2-1}{x-1}", "x+1"),
        (r"\frac{a}{b}+\frac{c}{d}", r"\frac{ad+bc}{bd}"),
        ("x(x+1)^2", "x^3+2x^2+x"),
        (r"\frac{1}{2k}\frac{d!}{(d-k)!}", r"\frac{d !}{2 k(d-k) !}"),
        (r"\frac{1}{1+\sqrt2}", r"\sqrt2-1"),
        (r"\sqrt{3+2\sqrt2}", r"1+\sqrt2"),
        (r"\sqrt[3]{-8}", "-2"),
        ("8^{2/3}", "4"),
        (r"\sqrt[4]{4}", r"\sqrt2"),
        ("3*sqrt(13)", r"3\sqrt{13}"),
        ("√5", r"\sqrt{5}"),
        ("2^{k+1}", r"2\cdot 2^k"),
        ("4^n", "2^{2n}"),
        ("e^{x+y}", "e^x e^y"),
        ("x_1+x_2", "x_{2}+x_{1}"),
        (r"k_{\mathrm{B}}T", "T k_B"),
        (r"\omega_{L}^{\prime}v", r"v\omega_L'"),
        ("10^{10^{10}}", "100^{5 \\cdot 10^9}"),
        (r"\sqrt{x^2}", "|x|"),
        (r"\sqrt{x}\sqrt{y}", r"\sqrt{xy}"),
    ]);
    differ(&[
        (r"\pi r", r"\pir^2"),
        ("x^{2}+1", "x^{2+1}"),
        ("2x", "2y"),
        ("f(x)", "f(y)"),
        ("x+1", "x+2n+1"),
        ("11+9a/20", r"\frac{11+9a}{20}"),
        (r"\sqrt{x^2}", "x"),
        (r"\bar z", "z"),
        ("n", "N"),
        ("10^{10^{10}}", "10^{10^{10}}+1"),
        (r"\sin x + 10^{-15}", r"\sin x"),
    ]);
}

#[test]
fn functions_and_complex_numbers() {
    same(&[
        (r"\sin 30^\circ", r"\frac12"),
        (r"\sec^2 y", r"\tan^2 y+1"),
        (r"\cotx", r"\frac{\cos x}{\sin x}"),
        (r"\tan^{-1} 1", r"\frac{\pi}{4}"),
        (r"\cosh^2 x-\sinh^2 x", "1"),
        (r"\log_2 8", "3"),
        (r"\log 100", "2"),
        (r"\log e", "1"),
        (r"\ln x^2", r"2\ln x"),
        (r"\log_3 9x", r"2+\log_3 x"),
        (r"\binom52", "C(5,2)"),
        ("5!", "120"),
        (r"\frac{n!}{k!(n-k)!}", r"\binom{n}{k}"),
        (r"\sum_{k=1}^{10} k", "55"),
        (r"\lfloor 3.7\rfloor", "3"),
        (r"\gcd(12,18)", "6"),
        (r"\sin 100^\circ \left(4-\frac{1}{\cos 80^\circ}\right)", r"-\sqrt3"),
        ("6+9i", "9i+6"),
        ("(1+i)^2", "2i"),
        (r"e^{i\pi}", "-1"),
        ("|3+4i|", "5"),
        (r"\sqrt{-4}", "2i"),
    ]);
    differ(&[
        (r"\sin x", r"\cos x"),
        (r"\sin(10^{-9})", "10^{-9}"),
        (r"\log_2 8", r"\log_8 2"),
        (r"\lfloor x\rfloor", "x"),
        ("3+4i", "3-4i"),
        (r"\sum_{k=0}^{n-2} F_k F_{n-k-2}", r"\sum_{k=0}^{n-1} F_k F_{n-k-1}"),
    ]);
}

#[test]
fn collections() {
    same(&[
        ("-2, 1", "1,-2"),
        (r"\{1,2\}", r"\{2,1,1\}"),
        (r"\{1,3\}", "3, 1"),
        (r"\{5\}", "5"),
        (r"1 \text{ and } 5", "5,1"),
        ("x = 5 or x = -2", "-2, 5"),
        (r"\pm 1, \pm 7", "1,-1,7,-7"),
        (r"1\pm\sqrt{19}", r"1-\sqrt{19}, 1+\sqrt{19}"),
        ("(1,2,3)", "1,2,3"),
        ("(7,11), (11,7)", "(11,7)or(7,11)"),
        ("p=5,q=2;p=7,q=2", "(5,2),(7,2)"),
        ("[1,2,3]", r"\langle 1,2,3\rangle"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", "(1,2)"),
        (r"\begin{bmatrix}1&2\\3&4\end{bmatrix}", r"\begin{pmatrix}1&2\\3&\frac82\end{pmatrix}"),
        ("100,200,300", "300, 100, 200"),
        ("1:2:3", "2:4:6"),
    ]);
    differ(&[
        ("(1,2)", "(2,1)"),
        ("(1,2)", "[1,2]"),
        (r"\{1,2\}", "(1,2)"),
        ("1, 2", "1, 2, 2"),
        ("1", "1, 2"),
        ("2021", r"\pm 2021"),
        ("x=1, y=2", "x=2, y=1"),
        (r"\begin{pmatrix}1&2\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    ]);
}

#[test]
fn relations_and_intervals() {
    same(&[
        ("x=5", "5"),
        ("f(x)=2x", "2x"),
        ("f(n)=2n+1", "f(x) = 2x+1"),
        ("x = 2+3 = 5", "5"),
        (r"x \approx 600", "600"),
        (r"\frac{34}{100}=\frac{17}{50}", "17/50"),
        ("QM = 30", "30"),
        (r"m\angle A = 30^\circ", "30"),
        ("(x,y)=(1,2)", "(1,2)"),
        ("20x-28y+44z+16=0", "5x - 7y + 11z + 4 = 0"),
        (r"y=-\frac12x+\frac34", "2x+4y-3=0"),
        (r"\frac xy=2", "x=2y"),
        ("-x > -1", "x < 1"),
        ("5 \\geq x", r"x \leqslant 5"),
        ("2 < x < 3", "3 > x > 2"),
        (r"x \in [-2,7]", r"-2 \le x \le 7"),
        ("0<f(x)<1", "(0,1)"),
        ("a<x<b", "(a,b)"),
        ("x<1 or x>3", r"(-\infty,1)\cup(3,\infty)"),
        (r"x \neq 3", r"\mathbb{R}\setminus\{3\}"),
        ("|x-1| <= 2", "[-1,3]"),
        (r"1\leq|z|\leq\frac32", r"z\in[-\frac32,-1]\cup[1,\frac32]"),
        (r"(0,1]\cup(1,2)", "(0,2)"),
        (r"\{x : 1 < x < 2\}", "(1,2)"),
    ]);
    differ(&[
        ("x=5", "y=5"),
        ("x=2", "x^2=4"),
        ("x^2+y^2=1", "x^2+y^2=2"),
        ("11a+c", "7=11a+c"),
        ("1", "2x+z=1"),
        ("x > 5", "x < 5"),
        ("x > 5", r"x \ge 5"),
        ("x < y", "y < x"),
        ("[0,9)", "(0,9)"),
        ("-[0,1)", "1"),
        (r"(0,1)\cup(1,2)", "(0,2)"),
        ("y=2x+3", "y=2x+4"),
    ]);
}

#[test]
fn exact_is_s1_without_its_judge() {
    let rows = [("042", "42", true), ("x", "x", true), ("$42$", "42", false), ("0", "000", true)];
    for (given, expected, equal) in rows {
        assert_eq!(grading::exact(given, expected).equal, equal, "{given:?} {expected:?}");
    }
}
