//! What people read of an evaluation: the page, the comparison, single answers; and that no text of
//! a model or a table acts in a browser or a terminal.

#[path = "../../curate/page/tests/browser/mod.rs"]
mod browser;
mod support {
    pub mod evaluation;
}

use std::path::{Path, PathBuf};

use browser::Browser;
use infer::report::{Results, Sample, task_result};
use infer::{compare, draw, forced, points, report_page, show};
use support::evaluation::{budgets, publish, results, samples, task};

/// Right under more thinking only, but for every fourth question, which is always wrong.
fn mended_by_thinking(budget: &str, question: usize) -> bool {
    question % 4 != 3 && (budget == "512" || budget == "wait" || question.is_multiple_of(4))
}

#[track_caller]
fn check_pieces(text: &str, spans: &[[usize; 2]], expected: &str) {
    check_pieces_within(text, spans, 0..text.len(), expected);
}

#[track_caller]
fn check_pieces_within(
    text: &str,
    spans: &[[usize; 2]],
    within: std::ops::Range<usize>,
    expected: &str,
) {
    let pieces = forced::pieces(text, spans, within).into_iter();
    let shown = pieces.map(|(forced, text)| if forced { format!("[{text}]") } else { text.into() });
    assert_eq!(shown.collect::<String>(), expected);
}

#[test]
fn forced_parts() {
    check_pieces("think more answer", &[], "think more answer");
    check_pieces("think more answer", &[[0, 5], [11, 17]], "[think] more [answer]");
    check_pieces("Wait", &[[0, 4]], "[Wait]");
    check_pieces_within("think more answer", &[[0, 5], [11, 17]], 3..13, "[nk] more [an]");
    // What a damaged file may hold.
    check_pieces("", &[[0, 4]], "");
    check_pieces("wait", &[[2, 99]], "wa[it]");
    check_pieces("wait", &[[3, 1]], "wait");
    check_pieces("wait", &[[0, 3], [1, 4]], "[wai][t]");
    check_pieces("größer", &[[3, 4], [4, 6]], "gr[ö][ß]er");
}

/// Words of the output, one space between; the temporary folder's name is no part of it.
fn words(text: &str, folder: &Path) -> String {
    let text = text.replace(&folder.display().to_string(), "DIR");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn check_show(args: show::Args, expected: &[&str], absent: &[&str]) {
    let folder = args.folder.clone();
    let text = show::run(&args, false).unwrap_or_else(|error| format!("{error:#}"));
    let text = words(&text, &folder);
    for part in expected {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    for part in absent {
        assert!(!text.contains(part), "{part:?} is in\n{text}");
    }
}

#[test]
fn show_lists_and_opens() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().to_path_buf();
    publish(&folder, &samples(6, mended_by_thinking));
    let args = || show::Args { folder: folder.clone(), rows: 40, ..show::Args::default() };
    let some = |text: &str| Some(text.to_owned());
    let whole = "task budget sample id verdict given expected thinking answer sums plain 0 \
                 sum/0.json right 0 0 110 2";
    check_show(args(), &[whole, "sums wait 5"], &["more"]);
    check_show(show::Args { rows: 3, ..args() }, &["plain 2", "and 21 more; --rows 0"], &["512"]);
    check_show(show::Args { wrong: true, ..args() }, &["wait 3 sum/3.json wrong 7 6"], &["right"]);
    let budget = || show::Args { budget: some("wait"), ..args() };
    check_show(budget(), &["sums wait 5"], &["plain"]);
    check_show(
        show::Args { sample: some("1"), ..budget() },
        &[
            "sums, question 1 (sum/1.json), budget wait question What is 1+1? completion",
            "⟦<|im_start|>think⟧ Two numbers.⟦Wait⟧, I add them.⟦Wait⟧, done. \
             ⟦<|im_start|>answer⟧ ⟦Final Answer:⟧ 2",
            "given 2 expected 2 verdict right, by the rule “equal” prompt 9 tokens",
            "thinking 401 tokens, cut off at its limit answer 2 tokens, ended by the model",
            "elsewhere plain wrong, 0 wrong, 512 right",
            "next: infer show DIR 2 --task sums --budget wait",
        ],
        &["\u{1b}"],
    );
    let first = show::Args { sample: some("sum/1.json"), ..args() };
    check_show(first.clone(), &["question 1 (sum/1.json), budget plain"], &["⟦<"]);
    let wrong = show::Args { wrong: true, ..first.clone() };
    check_show(wrong.clone(), &["question 1 (sum/1.json), budget plain", "DIR 2 "], &[]);
    let next = show::Args { next: true, ..wrong };
    check_show(next.clone(), &["question 2 (sum/2.json), budget plain", "--wrong"], &[]);
    let mended = show::Args { sample: some("3"), budget: some("wait"), ..next };
    check_show(mended, &["there is no wrong answer \"3\" behind it among the 6 chosen"], &[]);
    check_show(show::Args { sample: some("9"), ..args() }, &["no answer \"9\" here"], &[]);
    check_show(
        show::Args { budget: some("all"), ..args() },
        &["no budget \"all\"; this evaluation has: plain, 0, 512, wait"],
        &[],
    );
    check_show(
        show::Args { folder: folder.join("no"), ..args() },
        &["samples.jsonl", "infer eval"],
        &[],
    );

    let coloured = show::run(&show::Args { sample: some("1"), ..budget() }, true).unwrap();
    assert!(coloured.contains("\u{1b}[1;33mWait\u{1b}[0m, I add them."), "{coloured:?}");
    assert!(coloured.contains("\u{1b}[1;33mFinal Answer:\u{1b}[0m 2\n"), "{coloured:?}");
}

#[track_caller]
fn check_compare(a: &[Sample], b: &[Sample], expected: &[&str]) {
    let temp = tempfile::tempdir().unwrap();
    publish_samples(&temp.path().join("a"), a);
    publish_samples(&temp.path().join("b"), b);
    check_sides(temp.path(), "a", "b", expected);
}

/// Compares what has these names in the folder.
#[track_caller]
fn check_sides(folder: &Path, a: &str, b: &str, expected: &[&str]) {
    let [a, b] = [a, b].map(|name| folder.join(name).display().to_string());
    let text = compare::run(&compare::Args { a, b }).unwrap_or_else(|error| format!("{error:#}"));
    let text = words(&text, folder);
    for part in expected {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

fn publish_samples(folder: &Path, samples: &[Sample]) {
    std::fs::create_dir_all(folder).unwrap();
    record::jsonl::write(&folder.join("samples.jsonl"), samples).unwrap();
}

#[test]
fn compare_pairs_questions() {
    let a = samples(40, |_, question| question % 2 == 0);
    let better = samples(40, |budget, question| question % 2 == 0 || budget == "512");
    let mixed = samples(40, |_, question| question % 4 < 2);
    check_compare(
        &a,
        &a,
        &["A DIR/a B DIR/b", "sums plain 40 50.0% 50.0% +0.0 +0.0 to +0.0 1.000 0 0 130 130"],
    );
    check_compare(&a, &better, &["sums 512 40 50.0% 100.0% +50.0 +35.0 to +65.0 <0.001 0 20"]);
    check_compare(&a, &mixed, &["sums wait 40 50.0% 50.0% +0.0", "1.000 10 10 420 420"]);
    // Several answers to a question are one question.
    let again = |samples: &[Sample]| {
        let twice = |sample: &Sample| {
            [sample.clone(), Sample { repeat: 1, correct: false, ..sample.clone() }]
        };
        samples.iter().flat_map(twice).collect::<Vec<_>>()
    };
    check_compare(&again(&a), &again(&better), &["sums 512 40 25.0% 50.0% +25.0 +17.5 to +32.5"]);

    let plain = |samples: &[Sample]| samples[..40].to_vec();
    check_compare(&plain(&a), &a, &["only in B: task sums under 0, 512, wait B - A:"]);
    check_compare(
        &plain(&a),
        &a[40..],
        &["nothing to compare", "A has task sums under plain B has task sums under 0, 512, wait"],
    );
    // One question says nothing, and of two that went one way half of all coins do as much.
    for (of, p) in [(1, "1.000"), (2, "0.500"), (4, "0.125")] {
        let none = samples(of, |_, _| false);
        let all = samples(of, |_, _| true);
        let n = of.to_string();
        check_compare(&none, &all, &[&format!("sums 0 {n} 0.0% 100.0% +100.0"), p]);
    }
}

#[test]
fn compare_two_budgets() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path();
    publish(&folder.join("a"), &samples(40, |budget, n| n % 2 == 0 || budget == "wait"));
    publish(&folder.join("b:c"), &samples(40, |_, question| question % 2 == 0));
    let expected = ["A DIR/a:512 B DIR/a:wait", "sums 512, wait 40 50.0% 100.0% +50.0"];
    check_sides(folder, "a:512", "a:wait", &expected);
    check_sides(folder, "a:wait", "b:c:wait", &["sums wait 40 100.0% 50.0% -50.0"]);
    check_sides(folder, "a", "b:c", &["sums wait 40 100.0% 50.0% -50.0"]);
    check_sides(folder, "a:512", "b:c", &["only one side names a budget"]);
    check_sides(folder, "a:513", "b:c", &["no budget \"513\"; it has task sums under plain, 0"]);

    let results = folder.join("b:c/results.json");
    let text = std::fs::read_to_string(&results).unwrap();
    std::fs::write(&results, text.replace("2x Wait", "4x Wait")).unwrap();
    let warning = "warning: wait is limit 512, 2x Wait in A, but limit 512, 4x Wait in B";
    check_sides(folder, "a", "b:c", &[warning]);
}

#[test]
fn compare_refuses_other_questions() {
    let a = samples(6, |_, _| true);
    check_compare(&a, &samples(5, |_, _| true), &["A has 6 questions and B has 5; evaluate both"]);
    let mut other = a.clone();
    other[3].question = "What is 3-3?".into();
    let parts = "task sums under budget plain: A has question 3 \"What is 3+3?\" with answer \"6\", \
                 where B has question 3 \"What is 3-3?\" with answer \"6\"";
    check_compare(&a, &other, &[parts]);
    other[3] = Sample { target: "7".into(), ..a[3].clone() };
    check_compare(&a, &other, &["with answer \"7\"; evaluate both with the same tasks"]);
}

/// Published points of the same task, and of another one.
const POINTS: &str = r#"{"model": "x/s1-32B", "benchmark": "Sums", "intervention": "limit", "setting": 500, "accuracy": 0.5, "mean_tokens": 400, "n": 500}
{"model": "x/s1-32B", "benchmark": "Sums", "intervention": "limit", "setting": "auto", "accuracy": 0.75, "mean_tokens": 900.5, "n": null, "origin": "a paper"}
{"model": "x/s1-32B", "benchmark": "other", "intervention": "limit", "setting": 500, "accuracy": 0.5, "mean_tokens": 400}
"#;

fn points_file(folder: &Path) -> PathBuf {
    let file = folder.join("points.jsonl");
    std::fs::write(&file, POINTS).unwrap();
    file
}

fn page(samples: &[Sample], published: &[points::Published]) -> String {
    let config: toml::Table = toml::from_str("seed = 42").unwrap();
    report_page::html(&results("models/ours", samples), samples, published, &config).unwrap()
}

#[track_caller]
fn check_markup(html: &str) {
    let mut ids = ids(html);
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all, "an id comes twice");
}

/// All ids. Every element is closed where it was opened, and has no attribute twice.
#[track_caller]
fn ids(html: &str) -> Vec<&str> {
    let mut open = vec!["html", "head"];
    let mut ids = Vec::new();
    let (_, body) = html.split_once("</style>").unwrap();
    for tag in body.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').unwrap_or_else(|| panic!("<{tag} has no end"));
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name));
            continue;
        }
        let mut parts = tag.splitn(2, ' ');
        open.push(parts.next().unwrap());
        let mut names: Vec<&str> = Vec::new();
        for (nth, part) in parts.next().unwrap_or_default().split('"').enumerate() {
            match nth % 2 {
                0 if part.is_empty() => {}
                0 => names.push(part.trim().strip_suffix('=').expect("every value is quoted")),
                _ if names.last() == Some(&"id") => ids.push(part),
                _ => {}
            }
        }
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all, "an attribute comes twice in {tag}");
    }
    assert!(open.is_empty(), "{open:?} stay open");
    ids
}

#[test]
fn the_page_has_everything() {
    let temp = tempfile::tempdir().unwrap();
    let published = points::read(&points_file(temp.path())).unwrap();
    let samples = samples(20, mended_by_thinking);
    let html = page(&samples, &published);
    assert_eq!(html, page(&samples, &published), "the same bytes again");
    check_markup(&html);
    for part in [
        "ours under thinking budgets",
        "models/ours: 20 questions of sums under 4 budgets.",
        "Accuracy against thinking",
        "</span>no end ignored</li>",
        "</span>2x Wait</li>",
        "</span>s1-32B, limit</li>",
        "<title>s1-32B, limit, auto: 75 at 900.5</title>",
        "<title>no end ignored, 512: 75 at 119.5 (53.13 to 88.81)</title>",
        "<td>no end ignored</td><td class=\"number\">2</td>",
        "of the limits kept, no end ignored",
        "75.0% (55.0 to 90.0)",
        "100.0% (100.0 to 100.0)",
        "<td class=\"number\">53.1 to 88.8</td><td class=\"number\">55.0 to 90.0</td>",
        "<td class=\"number\">50.0%</td>",
        "class=\"break\"",
        "<mark>Wait</mark>, I add them.",
        "<mark>\n&lt;|im_start|&gt;answer\nFinal Answer:</mark>",
        "seed = 42",
        "default-src &#39;none&#39;",
    ] {
        let found = html.contains(part) || html.contains(&part.replace("&#39;", "'"));
        assert!(found, "{part:?} is not in\n{html}");
    }
    for part in ["<script", "http:", "https:", "NaN", "inf ", "url(", "@import", "src=", "<link"] {
        assert!(!html.contains(part), "{part:?} is in\n{html}");
    }
}

#[test]
fn pages_of_little() {
    let nothing_right = page(&samples(1, |_, _| false), &[]);
    check_markup(&nothing_right);
    assert!(!nothing_right.contains("NaN") && nothing_right.contains("0 of 1"));
    let plain_only = samples(3, |_, _| true);
    let task = task_result(&task(), &budgets()[..1], &[], &plain_only[..3]).unwrap();
    let results = Results { repeats: 1, model: "m".into(), tasks: vec![task] };
    let html = report_page::html(&results, &plain_only[..3], &[], &toml::Table::new()).unwrap();
    check_markup(&html);
    assert!(html.contains("100.0%") && !html.contains("of the limits kept"));
}

#[test]
fn several_sources_in_one_picture() {
    let temp = tempfile::tempdir().unwrap();
    let [ours, out] = ["ours", "out.html"].map(|name| temp.path().join(name));
    publish(&ours, &samples(20, mended_by_thinking));
    let file = points_file(temp.path());
    let args = draw::Args { sources: vec![ours, file], out, task: None, overwrite: false };
    assert_eq!(draw::run(&args).unwrap(), format!("{}\n", args.out.display()));
    let html = std::fs::read_to_string(&args.out).unwrap();
    check_markup(&html);
    for part in ["ours, 2x Wait", "s1-32B, limit", "id=\"sums\"", "id=\"other\"", "+21.4"] {
        assert!(html.contains(part), "{part:?} is not in\n{html}");
    }
    let refused = draw::run(&args).unwrap_err().to_string();
    assert!(refused.contains("exists") && refused.contains("--overwrite"), "{refused}");
    let one = draw::Args { task: Some("OTHER".into()), overwrite: true, ..args };
    draw::run(&one).unwrap();
    assert!(!std::fs::read_to_string(&one.out).unwrap().contains("id=\"sums\""));
    let none = draw::Args { task: Some("none".into()), ..one };
    assert!(draw::run(&none).unwrap_err().to_string().contains("no source has points"));
}

/// The legend's names: every model that is trained here ends in `checkpoint`.
#[test]
fn sources_are_told_apart() {
    let temp = tempfile::tempdir().unwrap();
    let check = |models: [&str; 2], expected: [&str; 2]| {
        let folders = ["one/eval", "two/eval"].map(|name| temp.path().join(name));
        for (folder, model) in folders.iter().zip(models) {
            publish(folder, &samples(4, mended_by_thinking));
            let mut results = points::read_results(folder).unwrap();
            results.model = model.into();
            let text = serde_json::to_string(&results).unwrap();
            std::fs::write(folder.join("results.json"), text).unwrap();
        }
        let out = temp.path().join("out.html");
        let args =
            draw::Args { sources: folders.to_vec(), out: out.clone(), task: None, overwrite: true };
        draw::run(&args).unwrap();
        let html = std::fs::read_to_string(out).unwrap();
        for name in expected {
            let entry = format!("</span>{name}, 2x Wait</li>");
            assert!(html.contains(&entry), "{entry} is not in\n{html}");
        }
    };
    check(["runs/a/checkpoint", "runs/b/checkpoint/"], ["a/checkpoint", "b/checkpoint"]);
    check(["x/s1-32B", "y/s1.1"], ["s1-32B", "s1.1"]);
    check(["checkpoint", "runs/checkpoint"], ["checkpoint", "runs/checkpoint"]);
    check(["runs/a/checkpoint"; 2], ["one/eval", "two/eval"]);
}

#[track_caller]
fn check_points(line: &str, expected: &str) {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("points.jsonl");
    std::fs::write(&file, line).unwrap();
    let error = format!("{:#}", points::read(&file).unwrap_err());
    assert!(error.contains(expected), "{expected:?} is not in: {error}");
}

#[test]
fn points_that_cannot_be() {
    let first = POINTS.lines().next().unwrap();
    check_points("", "there are no points in it");
    check_points(&first.replace("0.5", "50.0"), "line 1: accuracy is 50; a share from 0 to 1");
    check_points(&first.replace("400", "-4"), "line 1: mean_tokens is -4");
    check_points(&first.replace("\"n\": 500", "\"n\": 0"), "n is Some(0)");
    check_points(&first.replace("accuracy", "accurate"), "missing field `accuracy`");
}

/// The published ladders of s1-32B, when the optional folder of real data is there: a curve that
/// rises and levels off, and two that fall.
#[test]
fn real_ladders() {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let shared = std::env::var_os("S1_SHARED").map_or(beside, PathBuf::from);
    let ladders = shared.join("data/scaling/s1_32b_ladders.jsonl");
    if !ladders.exists() {
        eprintln!("skipped: no {}", ladders.display());
        return;
    }
    let rows = points::read(&ladders).unwrap();
    let lines = |task: &str| points::published(&rows, task);
    let sizes: Vec<usize> = lines("math500").iter().map(|line| line.points.len()).collect();
    assert_eq!((rows.len(), sizes), (23, vec![7, 8]));
    let slopes: Vec<f64> = (lines("math500").iter().chain(&lines("gpqa_diamond")))
        .map(|line| points::metrics(line).0.unwrap())
        .collect();
    // Checked by hand with a few lines of Python.
    for (slope, expected) in slopes.iter().zip([7.60, -1.11, -1.56]) {
        assert!((slope - expected).abs() < 0.005, "{slopes:?}");
    }
    let temp = tempfile::tempdir().unwrap();
    let out = temp.path().join("ladders.html");
    let args = draw::Args { sources: vec![ladders], out, task: None, overwrite: false };
    draw::run(&args).unwrap();
    let html = std::fs::read_to_string(&args.out).unwrap();
    check_markup(&html);
    assert_eq!(html.matches("<circle").count(), 2 * 23, "drawn for wide and for narrow screens");
}

/// A task for each text, in which all that a model or a table may bring is that text.
fn hostile_samples(texts: &[String]) -> Vec<Sample> {
    let hostile = |text: &String| {
        let mut samples = samples(1, mended_by_thinking);
        for sample in &mut samples {
            sample.task.clone_from(text);
            sample.id = Some(text.clone());
            sample.question.clone_from(text);
            sample.target.clone_from(text);
            sample.extracted = Some(text.clone());
            sample.rule.clone_from(text);
            sample.completion = format!("{text}{}{text}", sample.completion);
            sample.forced = vec![[0, text.len()]];
        }
        samples
    };
    texts.iter().flat_map(hostile).collect()
}

/// Reliability's S11: 300 texts, no script that runs, no byte that steers a terminal.
#[test]
fn no_text_acts() {
    let texts = browser::hostile();
    let samples = hostile_samples(&texts);
    let temp = tempfile::tempdir().unwrap();
    publish_samples(temp.path(), &samples);
    let args = show::Args { folder: temp.path().to_path_buf(), ..show::Args::default() };
    let name = args.folder.display().to_string();
    let both = compare::Args { a: name.clone(), b: name };
    let mut outputs = vec![show::run(&args, true).unwrap(), compare::run(&both).unwrap()];
    for text in &texts {
        let one = show::Args {
            sample: Some("0".into()),
            task: Some(text.clone()),
            budget: Some("wait".into()),
            ..args.clone()
        };
        outputs.push(show::text(&samples, &one, false).unwrap());
        let coloured = show::text(&samples, &one, true).unwrap();
        let ours = ["\u{1b}[0m", "\u{1b}[1m", "\u{1b}[1;31m", "\u{1b}[1;32m", "\u{1b}[1;33m"];
        outputs.push(ours.iter().fold(coloured, |text, mark| text.replace(mark, "")));
    }
    let acts = |text: &&String| text.chars().any(|c| c != '\n' && c.is_control());
    assert_eq!(outputs.iter().filter(acts).count(), 0, "a control character gets through");
    let hidden = ['\u{202e}', '\u{2066}', '\u{200b}', '\u{feff}', '\u{e0041}'];
    assert!(!outputs.iter().any(|text| text.contains(hidden)));

    let Some(browser) = Browser::find() else { return eprintln!("skipped: no Chromium") };
    let mut all = results(&texts[0], &samples[..4]);
    all.tasks = samples.chunks(4).flat_map(|own| results("", own).tasks).collect();
    let html = report_page::html(&all, &samples, &[], &toml::Table::new()).unwrap();
    ids(&html);
    assert!(all.tasks.len() == 300 && !browser.runs_script(&html), "one of the texts runs");
    let lines = points::published(&hostile_points(&texts), "t");
    let html = report_page::drawing(&texts[0], &[(texts[1].clone(), lines)]);
    ids(&html);
    assert!(!browser.runs_script(&html), "one of the names in a chart runs");
}

/// Lines and points whose names are hostile.
fn hostile_points(texts: &[String]) -> Vec<points::Published> {
    let point = |(nth, text): (usize, &String)| points::Published {
        model: text.clone(),
        benchmark: "t".into(),
        intervention: text.clone(),
        setting: text.clone().into(),
        accuracy: nth as f64 / texts.len() as f64,
        mean_tokens: 100.0 + nth as f64,
        n: Some(30),
    };
    texts.iter().enumerate().map(point).collect()
}
