//! `grade`: the library's verdicts on rows of JSON, from a pipe to a pipe.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Read, Write};
use std::process::ExitCode;

use grading::{Mode, Verdict};
use serde_json::{Value, json};

const HELP: &str = "\
Is this answer right? Reads rows of JSON, one a line, and writes a verdict for each, in order.

Usage: grade [OPTIONS] < rows.jsonl > verdicts.jsonl
       grade [OPTIONS] --table rows.jsonl

A row is two answers, or a whole completion whose final answer is extracted first; other keys are
ignored:
  {\"pred\": \"1/2\", \"gold\": \"0.5\"}
  {\"output\": \"It is \\\\boxed{1/2}.\", \"gold\": \"0.5\"}

A verdict names the rule that decided, the text that was graded, and whether the output gave several
different answers, of which the last one counts:
  {\"equal\": true, \"rule\": \"number\", \"extracted\": \"1/2\", \"ambiguous\": false}

Rules of equal answers, the cheapest first:
  identical   the same string
  normalised  the same text, or words in any case
  choice      the same letter of a multiple choice
  time        the same time of day
  integer, number
              the same integer or rational number
  rounded     a decimal of six digits or more, correctly rounded
  exact       the same canonical form
  probe       the same value at each of many points
  equation, relation, collection, units
              likewise for these, part by part
Rules of answers that are not:
  different   both sides were understood and differ
  unparsed    a side was understood only as text, or no rule could tell: no sure verdict
  budget      to find out would have taken too long: no sure verdict
  no_answer   the output gives no answer; extracted is null

Options:
      --extract MODE  how the answer of an output is found [default: strict]
                        strict  the last finished box, else the last statement of an answer, else
                                the last formula or number
                        s1      as s1's evaluation harness does it
      --table FILE    read FILE (- for standard input) and print a summary: counts by rule, the
                      answers that were not parsed or are ambiguous, and, when rows carry
                      \"equal\": true or false, where the verdicts agree with it
      --explain       print for people: both sides as they were understood, and the rule
  -h, --help          print this
";

/// Which of the three things the program writes.
#[derive(PartialEq)]
enum Show {
    Rows,
    Table(String),
    Explanations,
}

struct Options {
    mode: Mode,
    show: Show,
}

/// Why the program stops; what the user reads ends with what to do.
enum Stop {
    /// Wrong arguments.
    Usage(String),
    /// Wrong rows or files.
    Input(String),
    /// Nobody reads standard output any more.
    Done,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    match options(&arguments).and_then(|options| run(&options)) {
        Ok(()) | Err(Stop::Done) => ExitCode::SUCCESS,
        Err(Stop::Usage(message)) => {
            eprintln!("error: {message}\ngrade --help lists what there is.");
            ExitCode::from(2)
        }
        Err(Stop::Input(message)) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn options(arguments: &[String]) -> Result<Options, Stop> {
    let mut options = Options { mode: Mode::Strict, show: Show::Rows };
    let mut shown = Vec::new();
    let mut left = arguments.iter();
    while let Some(argument) = left.next() {
        let (name, inline) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (argument.as_str(), None),
        };
        let mut value = |what: &str| {
            let given = inline.clone().or_else(|| left.next().cloned());
            given.ok_or_else(|| Stop::Usage(format!("{name} needs {what} behind it")))
        };
        match name {
            "--extract" => {
                options.mode = match value("strict or s1")?.as_str() {
                    "strict" => Mode::Strict,
                    "s1" => Mode::S1,
                    other => {
                        return Err(Stop::Usage(format!(
                            "--extract is strict or s1, not {other:?}"
                        )));
                    }
                };
            }
            "--table" => shown.push(Show::Table(value("a file")?)),
            "--explain" => shown.push(Show::Explanations),
            other => return Err(Stop::Usage(format!("unknown argument {other:?}"))),
        }
    }
    if shown.len() > 1 && shown.iter().any(|show| *show != shown[0]) {
        return Err(Stop::Usage(
            "--table and --explain print different things; leave one out".into(),
        ));
    }
    options.show = shown.pop().unwrap_or(Show::Rows);
    Ok(options)
}

fn run(options: &Options) -> Result<(), Stop> {
    let (name, input): (&str, Box<dyn Read>) = match &options.show {
        Show::Table(file) if file != "-" => {
            let opened = File::open(file).map_err(|error| {
                Stop::Input(format!("{file}: {error}; --table needs a file of JSON rows, or -"))
            })?;
            (file, Box::new(opened))
        }
        _ => ("standard input", Box::new(io::stdin())),
    };
    let mut rows = Rows { name, reader: BufReader::with_capacity(1 << 16, input), line: 0 };
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let mut summary = Summary::default();
    let mut buffer = Vec::new();
    while let Some(row) = rows.next(&mut buffer)? {
        let graded = grade(&row, options.mode);
        match options.show {
            Show::Rows => {
                let Verdict { equal, rule } = graded.verdict;
                let Graded { extracted, ambiguous, .. } = graded;
                let line = json!({"equal": equal, "rule": rule, "extracted": extracted, "ambiguous": ambiguous});
                writeln!(out, "{line}").map_err(written)?;
            }
            Show::Table(_) => summary.add(&mut out, rows.line, &row, &graded).map_err(written)?,
            Show::Explanations => explain(&mut out, rows.line, &row, &graded).map_err(written)?,
        }
        // Whoever waits at the other end of the pipe gets every verdict that can be given now.
        if rows.reader.buffer().is_empty() {
            out.flush().map_err(written)?;
        }
    }
    if let Show::Table(_) = options.show {
        write!(out, "{summary}").map_err(written)?;
    }
    out.flush().map_err(written)
}

fn written(error: io::Error) -> Stop {
    match error.kind() {
        ErrorKind::BrokenPipe => Stop::Done,
        _ => Stop::Input(format!("standard output: {error}; is the disk full?")),
    }
}

/// One row of the input.
struct Row {
    given: Given,
    gold: String,
    /// What the row says the verdict should be.
    equal: Option<bool>,
}

enum Given {
    /// `None`: the row holds null.
    Answer(Option<String>),
    Completion(String),
}

/// The rows of a file, one line at a time in one buffer.
struct Rows<'a> {
    name: &'a str,
    reader: BufReader<Box<dyn Read>>,
    line: usize,
}

impl Rows<'_> {
    /// The next row; blank lines are passed over.
    fn next(&mut self, buffer: &mut Vec<u8>) -> Result<Option<Row>, Stop> {
        loop {
            buffer.clear();
            self.line += 1;
            let read = self.reader.read_until(b'\n', buffer);
            let place = format!("{}, line {}", self.name, self.line);
            match read {
                Err(error) => {
                    return Err(Stop::Input(format!("{place}: {error}; can it be read?")));
                }
                Ok(0) => return Ok(None),
                Ok(_) if buffer.trim_ascii().is_empty() => continue,
                Ok(_) => {}
            }
            let row = parse(buffer).map_err(|wrong| Stop::Input(format!("{place}: {wrong}")));
            return row.map(Some);
        }
    }
}

/// What is wrong with a line, and how a right one looks, as the error.
fn parse(line: &[u8]) -> Result<Row, String> {
    const LIKE: &str = r#"{"pred": "…", "gold": "…"} or {"output": "…", "gold": "…"}"#;
    let line = line.trim_ascii();
    let value: Value = serde_json::from_slice(line)
        .or_else(|error| serde_json::from_slice(&whole_characters(line)).map_err(|_| error))
        .map_err(|error| {
            let (what, column) = (error.to_string(), error.column());
            let what = what.split(" at line ").next().unwrap_or("");
            format!("not JSON ({what}, column {column}); each line is one object, {LIKE}")
        })?;
    if !value.is_object() {
        return Err(format!("not an object; each line is one, {LIKE}"));
    }
    // A number stands for its digits.
    let text = |key: &str| match value.get(key) {
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Number(number)) => Ok(Some(number.to_string())),
        None | Some(Value::Null) => Ok(None),
        Some(_) => Err(format!("{key:?} is neither text nor a number; write it as a string")),
    };
    let gold = text("gold")?;
    let gold = gold.ok_or_else(|| format!("no \"gold\", the expected answer; a row is {LIKE}"))?;
    let given = match (value.get("pred").is_some(), value.get("output").is_some()) {
        (true, false) => Given::Answer(text("pred")?),
        (false, true) => Given::Completion(text("output")?.unwrap_or_default()),
        (true, true) => {
            return Err("both \"pred\" and \"output\"; leave out the one not to grade".into());
        }
        (false, false) => return Err(format!("neither \"pred\" nor \"output\"; a row is {LIKE}")),
    };
    Ok(Row { given, gold, equal: value.get("equal").and_then(Value::as_bool) })
}

/// The line with U+FFFD in place of every half of a surrogate pair, which is what an output that was
/// cut inside a character ends with, and which no text can hold.
fn whole_characters(line: &[u8]) -> Vec<u8> {
    let unit = |at: usize| {
        let digits = line.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let (mut out, mut at) = (Vec::with_capacity(line.len()), 0);
    while at < line.len() {
        let length = match (line[at], unit(at), unit(at + 6)) {
            (b'\\', Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (b'\\', Some(0xd800..=0xdfff), _) => {
                out.extend(b"\\ufffd");
                at += 6;
                continue;
            }
            (b'\\', ..) => 2.min(line.len() - at),
            _ => 1,
        };
        out.extend(&line[at..at + length]);
        at += length;
    }
    out
}

/// A verdict and the text that it is about.
struct Graded {
    extracted: Option<String>,
    verdict: Verdict,
    ambiguous: bool,
}

fn grade(row: &Row, mode: Mode) -> Graded {
    let (extracted, ambiguous) = match &row.given {
        Given::Answer(pred) => (pred.clone(), false),
        Given::Completion(output) => match grading::extract(output, mode) {
            Some(found) => (Some(found.text), found.ambiguous),
            None => (None, false),
        },
    };
    // Where a letter is expected, the completion is asked for its letter.
    let extracted = match &row.given {
        Given::Completion(output) if is_letter(&row.gold) => {
            grading::choice(output, mode).map(String::from).or(extracted)
        }
        _ => extracted,
    };
    let verdict = match &extracted {
        Some(given) => grading::equivalent(given, &row.gold),
        None => Verdict { equal: false, rule: "no_answer" },
    };
    Graded { extracted, verdict, ambiguous }
}

fn is_letter(gold: &str) -> bool {
    let letters = gold.trim().trim_start_matches('(').trim_end_matches([')', '.']);
    letters.len() == 1 && grading::choice(letters, Mode::Strict).is_some()
}

fn explain(out: &mut impl Write, line: usize, row: &Row, graded: &Graded) -> io::Result<()> {
    match &graded.extracted {
        Some(given) => writeln!(out, "line {line}: {}", grading::explain(given, &row.gold)),
        None => writeln!(out, "line {line}: no answer was found; expected {:?}", row.gold),
    }
}

/// What `--table` counts; what it lists is written at once, so that memory stays small.
#[derive(Default)]
struct Summary {
    rows: usize,
    equal: usize,
    ambiguous: usize,
    rules: std::collections::BTreeMap<&'static str, usize>,
    /// Rows that say equal and different, and on how many of each we agree.
    expected: [usize; 2],
    agreed: [usize; 2],
}

impl Summary {
    fn add(
        &mut self,
        out: &mut impl Write,
        line: usize,
        row: &Row,
        graded: &Graded,
    ) -> io::Result<()> {
        let Verdict { equal, rule } = graded.verdict;
        self.rows += 1;
        self.equal += usize::from(equal);
        self.ambiguous += usize::from(graded.ambiguous);
        *self.rules.entry(rule).or_default() += 1;
        let mut notes = Vec::new();
        if ["unparsed", "budget", "no_answer"].contains(&rule) {
            notes.push(rule);
        }
        if graded.ambiguous {
            notes.push("ambiguous");
        }
        if let Some(expected) = row.equal {
            let side = usize::from(!expected);
            self.expected[side] += 1;
            self.agreed[side] += usize::from(equal == expected);
            if equal != expected {
                notes.push(if expected { "should be equal" } else { "should differ" });
            }
        }
        if notes.is_empty() {
            return Ok(());
        }
        let given = graded.extracted.as_deref().map_or("nothing".into(), short);
        writeln!(out, "line {line}: {}: {given} against {}", notes.join(", "), short(&row.gold))
    }
}

/// At most 80 characters of a text, quoted.
fn short(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        writeln!(f, "rows       {:>8}", self.rows)?;
        writeln!(f, "equal      {:>8}", self.equal)?;
        writeln!(f, "different  {:>8}", self.rows - self.equal)?;
        writeln!(f, "ambiguous  {:>8}", self.ambiguous)?;
        writeln!(f, "by rule")?;
        for (rule, count) in &self.rules {
            writeln!(f, "  {rule:<11}{count:>6}")?;
        }
        let expected: usize = self.expected.iter().sum();
        if expected > 0 {
            let agreed: usize = self.agreed.iter().sum();
            let share = 100.0 * agreed as f64 / expected as f64;
            writeln!(f, "agreement with the rows' \"equal\": {agreed} of {expected}, {share:.2}%")?;
            let [equal, different] = self.expected;
            writeln!(f, "  equal      {} of {equal}", self.agreed[0])?;
            writeln!(f, "  different  {} of {different}", self.agreed[1])?;
        }
        Ok(())
    }
}
