//! Pages: what is escaped, what is made visible, where marks lie, and that no text can act.

mod browser;

use std::path::Path;

use browser::Browser;
use page::bars::{Bars, Group};
use page::chart::{Scale, number};
use page::document::{Page, details, figures, paragraph, verbatim};
use page::histogram::Histogram;
use page::html::{Html, visible};
use page::lines::{Line, Lines, Point};
use page::table::{Kind, Table};

#[track_caller]
fn check_escape(text: &str, expected: &str) {
    assert_eq!(Html::from(text).as_str(), expected);
    let attribute = Html::element("a", &[("title", text)], "");
    assert_eq!(attribute.as_str(), format!("<a title=\"{expected}\"></a>"));
}

#[test]
fn text_is_escaped_everywhere() {
    check_escape("plain, naïve 数学", "plain, naïve 数学");
    check_escape("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;");
    check_escape("a & b &amp; c", "a &amp; b &amp;amp; c");
    check_escape("\" onload='x'", "&quot; onload=&#39;x&#39;");
    check_escape("$x_1 < x_2$\n\tnext", "$x_1 &lt; x_2$\n\tnext");
    check_escape("\u{1b}[31m\0", "␛[31m␀");
}

#[test]
fn no_character_gets_through_as_markup() {
    let entities = ["&amp;", "&lt;", "&gt;", "&quot;", "&#39;"];
    for character in '\0'..=char::MAX {
        let html = Html::from(character.to_string());
        let html = html.as_str();
        let plain = !html.contains(['&', '<', '>', '"', '\'']) || entities.contains(&html);
        let calm = !html.contains(|c: char| c.is_control()) || html == "\t" || html == "\n";
        assert!(plain && calm, "{character:?} becomes {html:?}");
    }
}

#[track_caller]
fn check_visible(text: &str, expected: &str) {
    assert_eq!(visible(text), expected);
}

#[test]
fn what_would_act_is_shown() {
    check_visible("a\tb\nc", "a\tb\nc");
    check_visible("a\r\nb", "a␍\nb");
    check_visible("\u{7f}\u{9b}31m", "␡⟦U+009B⟧31m");
    check_visible("abc\u{202e}fed", "abc⟦U+202E⟧fed");
    check_visible("\u{200b}\u{feff}\u{2066}", "⟦U+200B⟧⟦U+FEFF⟧⟦U+2066⟧");
    check_visible("\u{e0041}\u{fffe}\u{1ffff}", "⟦U+E0041⟧⟦U+FFFE⟧⟦U+1FFFF⟧");
    check_visible("👩\u{200d}🔬 and נכון", "👩\u{200d}🔬 and נכון");
}

#[track_caller]
fn check_number(value: f64, expected: &str) {
    assert_eq!(number(value), expected);
}

#[test]
fn numbers_are_grouped() {
    check_number(0.0, "0");
    check_number(999.0, "999");
    check_number(59_029.0, "59,029");
    check_number(-1_234_567.125, "-1,234,567.13");
    check_number(0.5, "0.5");
    check_number(-0.001, "0");
}

/// An interval, where one is known.
type Interval = Option<(f64, f64)>;

fn line(name: &str, points: &[(f64, f64, Interval)]) -> Line {
    let points = points.iter().map(|&(x, y, interval)| Point { x, y, interval, name: name.into() });
    let points = points.collect();
    Line { name: name.to_string(), points, dashed: false }
}

fn lines(scale: Scale, lines: Vec<Line>) -> Lines {
    Lines { title: "Curve".into(), axes: ("x".into(), "y".into()), scale, lines }
}

/// Everything a page can hold, with `text` in every place that takes one.
fn gallery(text: &str) -> Page {
    let group = |label: &str, one: f64, other: Option<f64>| Group {
        label: format!("{label} {text}"),
        bars: vec![Some((one, number(one))), other.map(|other| (other, text.to_string()))],
    };
    let bars = Bars {
        title: text.to_string(),
        series: vec!["candidates".into(), text.to_string()],
        rows: vec![
            group("Geometry", 109.0, Some(80.0)),
            group("Number theory", 98.0, Some(120.0)),
            group("A name that is far too long to stand beside its bar", 3.0, None),
        ],
    };
    let bell = |middle: f64, nth: u32| middle + f64::from(nth % 97) * f64::from(nth % 89);
    let histogram = Histogram {
        title: text.to_string(),
        values: "tokens of the trace".into(),
        sets: vec![
            ("candidates".into(), (0..5000).map(|nth| bell(400.0, nth)).collect()),
            (text.to_string(), (0..300).map(|nth| bell(3000.0, nth)).collect()),
        ],
    };
    let points = [512.0, 1024.0, 2048.0, 4096.0, 8192.0].map(|x: f64| {
        let y = 8.0 * x.log2() - 55.0;
        (x, y, Some((y - 6.0, y + 4.0)))
    });
    let mut published = line(text, &[(512.0, 20.0, None), (8192.0, 57.0, None)]);
    published.dashed = true;
    let curve = lines(Scale::Log2, vec![line("ours", &points), published]);
    let mut table = Table::new(&[(text, Kind::Text), ("rows", Kind::Number)]);
    table.row([text.to_string(), number(59_029.0)]);
    table.row(["in code", "1"]);

    let mut page = Page::new(text, figures(&[("1,000".into(), "selected"), (text.into(), "in")]));
    page.section("Bars", bars.html());
    page.section("A histogram", histogram.html());
    page.section("Lines & bands", curve.html());
    page.section("Table", table.html());
    page.section(text, [paragraph(text), verbatim(text), details(text, verbatim(text))]);
    page
}

#[test]
fn a_page_stands_alone() {
    let page = gallery("1 < 2").html();
    let written = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gallery.html");
    std::fs::write(written, &page).unwrap();
    assert_eq!(page, gallery("1 < 2").html(), "the same calls give the same bytes");
    assert!(page.starts_with("<!DOCTYPE html>\n<html lang=\"en\">"));
    for outside in ["http:", "https:", "src=", "url(", "@import", "<script", "<link", " style="] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("default-src 'none'"));
    assert!(page.contains("<a href=\"#lines-bands\">Lines &amp; bands</a>"));
    assert!(page.contains("<section id=\"lines-bands\">"));
}

#[track_caller]
fn check_marks(chart: &Html, mark: &str, count: usize) {
    let found = chart.as_str().matches(mark).count();
    assert_eq!(found, count, "{mark} in {}", chart.as_str());
    assert!(!chart.as_str().contains("NaN") && !chart.as_str().contains("inf"));
}

#[test]
fn charts_mark_what_has_a_place() {
    let bars = |rows: &[Option<f64>]| Bars {
        rows: rows
            .iter()
            .map(|bar| Group { label: "a".into(), bars: vec![bar.map(|x| (x, number(x)))] })
            .collect(),
        ..Bars::default()
    };
    check_marks(&bars(&[]).html(), "<rect", 0);
    check_marks(&bars(&[Some(0.0), None]).html(), "<rect", 1);
    check_marks(&bars(&[Some(7.0), Some(14.0)]).html(), " width=\"400.0\"", 1);
    check_marks(&bars(&[Some(7.0), Some(14.0)]).html(), " width=\"200.0\"", 1);

    let histogram = |sets: &[&[f64]]| Histogram {
        sets: sets.iter().map(|set| ("set".to_string(), set.to_vec())).collect(),
        ..Histogram::default()
    };
    check_marks(&histogram(&[]).html(), "class=\"area", 0);
    check_marks(&histogram(&[&[]]).html(), "class=\"area", 1);
    check_marks(&histogram(&[&[5.0], &[5.0, f64::NAN]]).html(), "set 100%, set 100%", 1);
    check_marks(&histogram(&[&[0.0, 10.0, 10.0, 20.0]]).html(), "set 50%", 1);
    check_marks(&histogram(&[&[0.0, 10.0, 10.0, 20.0]]).html(), "set 25%", 2);

    // A chart of lines is drawn twice, for wide and for narrow screens.
    let infinite = (f64::INFINITY, 1.0, None);
    let (one, two) = ((1.0, 1.0, Some((0.5, 1.5))), (2.0, 3.0, Some((2.0, f64::NAN))));
    let named = |scale, name: &str, points: &[_]| lines(scale, vec![line(name, points)]).html();
    let curve = |scale, points: &[_]| named(scale, "ours", points);
    check_marks(&curve(Scale::Linear, &[]), "no points", 2);
    check_marks(&curve(Scale::Linear, &[one]), "<circle", 2);
    check_marks(&curve(Scale::Linear, &[one, two, infinite]), "<circle", 4);
    check_marks(&curve(Scale::Linear, &[one, two]), "class=\"whisker", 2);
    check_marks(&curve(Scale::Linear, &[one, (2.0, 3.0, one.2)]), "class=\"whisker", 4);
    let (zero, below) = ((0.0, 1.0, None), (-4.0, 1.0, None));
    check_marks(&curve(Scale::Log2, &[zero, one, (4.0, 2.0, None), below]), "<circle", 6);
    check_marks(&curve(Scale::Log2, &[zero, one, (4.0, 2.0, None)]), "class=\"break", 2);
    check_marks(&curve(Scale::Log2, &[zero, one, (4.0, 2.0, None)]), "class=\"line over", 2);
    check_marks(&curve(Scale::Log2, &[zero]), "class=\"line", 0);
    check_marks(&curve(Scale::Log2, &[one, (1024.0, 1.0, None)]), "class=\"break", 0);
    for ticks in [">16</text>", ">64</text>", ">1,024</text>"] {
        check_marks(&curve(Scale::Log2, &[one, (1024.0, 1.0, None)]), ticks, 2);
    }
    check_marks(&curve(Scale::Log2, &[(700.0, 0.0, None), (800.0, 1.0, None)]), ">700</text>", 2);
    // Of names that would cover each other, those for which there is no room are left out.
    let apart: Vec<_> = (0..4).map(|nth| (f64::from(1 << (2 * nth)), 1.0, None)).collect();
    check_marks(&named(Scale::Log2, "500", &apart), "class=\"name\"", 8);
    check_marks(&named(Scale::Log2, "500", &[(7.0, 1.0, None); 9]), "class=\"name\"", 4);
    check_marks(&named(Scale::Log2, "", &apart), "class=\"name\"", 0);
}

#[test]
fn no_text_acts_in_a_browser() {
    let Some(browser) = Browser::find() else { return };
    let texts = browser::hostile();
    let mut page = Page::new("hostile", "");
    for text in &texts {
        page.section(text, [paragraph(text), details(text, verbatim(text))]);
        page.section("x", Html::element("a", &[("title", text)], text));
    }
    let hostile = page.html();
    assert_eq!(texts.len(), 300);
    assert!(!browser.runs_script(&hostile), "one of the texts runs");
    let script = browser::script();
    assert!(!browser.runs_script(&gallery(&script).html()), "it runs in a chart");

    let with_policy = hostile.replace("</main>", &script);
    assert!(!browser.runs_script(&with_policy), "the policy lets run what gets in unescaped");
}
