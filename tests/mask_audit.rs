//! 2,000 random conversations of every format, cut around the limit: ids, trained tokens and the
//! list of cut rows against a slow reference written here, and against transformers with TRL's rule.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use model::chat::{Chat, IM_END, IM_START};
use record::example;
use record::row::Row;
use record::seed::{Rng, rng};
use record::table::write_rows;
use serde_json::{Value, json};
use tempfile::TempDir;
use train::config::{Control, Data, Format, OverLong};
use train::examples::{Examples, Table};

use crate::compare::golden;
use crate::oracle::ask;
use crate::real_model::model_folder;

const SEED: u64 = 23;
/// A model's 1,000 conversations, as tables of a few rows.
const BATCHES: usize = 125;
const ROWS: usize = 8;
const SYSTEM: &str = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.";
const CONTROLS: [&str; 4] = [IM_START, IM_END, "<|endoftext|>", "<|fim_pad|>"];
const WORDS: [&str; 22] = [
    "a",
    "Wait",
    ", ",
    " ",
    "  ",
    "\n",
    "\n\n",
    "\t",
    "2+2=",
    "\\frac{1}{2}",
    "user",
    "assistant\n",
    "think\n",
    "answer",
    "Answer: ",
    "12 steps left",
    "é",
    "e\u{301}",
    "多少",
    "🦀",
    "\u{1b}[31m",
    "\r\n",
];
const HOSTILE: [&str; 6] = [
    "<|im_start|>",
    "<|im_end|>",
    "<|im_start|>user",
    "<|im_start|>assistant\n",
    "<|im_end|>\n<|im_start|>user\n",
    "<|fim_pad|>",
];

/// The demo's tokenizer under one of two templates: with Qwen2.5's default system text, or without
/// one.
fn chat_folder(default_system: bool) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/demo/model");
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        fs::copy(demo.join(file), folder.path().join(file)).unwrap();
    }
    let system = format!(
        "{{%- if messages[0]['role'] != 'system' %}}\
         {{{{- '{IM_START}system\\n{SYSTEM}{IM_END}\\n' }}}}{{%- endif %}}"
    );
    let turns = format!(
        "{{%- for message in messages %}}{{{{- '{IM_START}' + message.role + '\\n' + \
         message.content + '{IM_END}' + '\\n' }}}}{{%- endfor %}}"
    );
    let template = if default_system { system + &turns } else { turns };
    fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
    folder
}

/// A row as it stands in a file, and what must come of it before any cut.
struct Case {
    row: Value,
    ids: Vec<i64>,
    /// Which ids are trained, from how the conversation was put together.
    trained: Option<Vec<bool>>,
    /// What the Python side is to make the same of; None where our texts stay texts and its do not.
    peer: Option<Value>,
}

/// Random texts; `hostile` ones spell control tokens now and then.
struct Writer {
    rng: Rng,
    hostile: bool,
}

impl Writer {
    fn text(&mut self, words: u64) -> String {
        let mut text = String::new();
        for _ in 0..self.rng.below(words) {
            if self.hostile && self.rng.below(6) == 0 {
                text += HOSTILE[self.rng.below(HOSTILE.len() as u64) as usize];
            }
            text += WORDS[self.rng.below(WORDS.len() as u64) as usize];
        }
        text
    }

    /// A text that does not begin with white space.
    fn plain(&mut self, words: u64) -> String {
        format!("q{}", self.text(words))
    }
}

/// Ids put together piece by piece, with what is trained of them.
struct Reference<'a> {
    chat: &'a Chat,
    ids: Vec<i64>,
    trained: Vec<bool>,
}

impl Reference<'_> {
    fn control(&mut self, name: &str, is_trained: bool) {
        self.ids.push(self.chat.tokenizer.control(name).unwrap());
        self.trained.push(is_trained);
    }

    fn text(&mut self, text: &str, is_trained: bool) {
        self.ids.extend(self.chat.tokenizer.encode_text(text).unwrap());
        self.trained.resize(self.ids.len(), is_trained);
    }

    fn turn(&mut self, role: &str, content: &str) {
        self.control(IM_START, false);
        let is_trained = role == "assistant";
        if is_trained {
            self.text("assistant\n", false);
            self.text(content, true);
        } else {
            self.text(&format!("{role}\n{content}"), false);
        }
        self.control(IM_END, is_trained);
        self.text("\n", is_trained);
    }
}

fn s1_case(writer: &mut Writer, chat: &Chat, default_system: bool) -> Case {
    let question = writer.text(12) + "?"; // an empty one is refused
    let thinking: Vec<String> = (0..1 + writer.rng.below(2)).map(|_| writer.text(20)).collect();
    let attempt = writer.plain(12);
    let mut reference = Reference { chat, ids: Vec::new(), trained: Vec::new() };
    if default_system {
        reference.turn("system", SYSTEM);
    }
    reference.turn("user", &question);
    reference.control(IM_START, false);
    reference.text("assistant\n", false);
    let trace = thinking.join("\n");
    let prefix = if attempt.contains("Answer:") { "" } else { "Answer: " };
    for (heading, text, end) in
        [("think", trace.trim(), Some("\n")), ("answer", format!("{prefix}{attempt}").trim(), None)]
    {
        reference.control(IM_START, true);
        reference.text(&format!("{heading}\n{text}{}", end.unwrap_or_default()), true);
    }
    reference.control(IM_END, true);
    reference.text("\n", true);
    let row = json!({"question": question, "thinking_trajectories": thinking, "attempt": attempt,
        "cot_type": "math", "source_type": "t", "metadata": ""});
    let peer = (!writer.hostile).then(|| json!({"kind": "s1", "row": row}));
    Case { row, ids: reference.ids, trained: Some(reference.trained), peer }
}

/// The roles of a conversation of one to three questions; the last may be without an answer.
fn roles(writer: &mut Writer) -> Vec<&'static str> {
    let mut roles = Vec::new();
    if writer.rng.below(3) == 0 {
        roles.push("system");
    }
    for _ in 0..1 + writer.rng.below(3) {
        roles.extend(["user", "assistant"]);
    }
    if writer.rng.below(6) == 0 {
        roles.push("user");
    }
    roles
}

fn messages_case(writer: &mut Writer, chat: &Chat, default_system: bool) -> Case {
    let mut reference = Reference { chat, ids: Vec::new(), trained: Vec::new() };
    let roles = roles(writer);
    if default_system && roles[0] != "system" {
        reference.turn("system", SYSTEM);
    }
    let (mut messages, mut joins) = (Vec::new(), false);
    for role in roles {
        let content = writer.text(14);
        reference.turn(role, &content);
        // Where a template's text would make one token of the header's new line and this.
        joins |= role == "assistant" && content.starts_with(char::is_whitespace);
        messages.push(json!({"role": role, "content": content}));
    }
    let row = json!({"messages": messages});
    let peer = !(writer.hostile || joins);
    let peer = peer.then(|| json!({"kind": "messages", "row": row}));
    Case { row, ids: reference.ids, trained: Some(reference.trained), peer }
}

fn text_case(writer: &mut Writer, chat: &Chat) -> Case {
    let mut text = String::new();
    for role in roles(writer) {
        write!(text, "{IM_START}{role}\n{}{IM_END}\n", writer.text(14)).unwrap();
    }
    let mut reference = Reference { chat, ids: Vec::new(), trained: Vec::new() };
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let places = CONTROLS.iter().filter_map(|name| Some((rest.find(name)?, *name)));
        let (at, name) = places.min().unwrap_or((rest.len(), ""));
        reference.text(&rest[..at], false);
        if !name.is_empty() {
            reference.control(name, false);
        }
        rest = &rest[at + name.len()..];
    }
    let row = json!({"text": text});
    let peer = Some(json!({"kind": "text", "row": row}));
    Case { row, ids: reference.ids, trained: None, peer }
}

/// TRL 0.12's `DataCollatorForCompletionOnlyLM.torch_call`, statement for statement, on labels.
fn collator(chat: &Chat, ids: &[i64]) -> Vec<bool> {
    let encode = |text: &str| chat.tokenizer.encode_fixed(text).unwrap();
    let (instruction, response) = (encode("<|im_start|>user"), encode("<|im_start|>assistant\n"));
    let pad = chat.tokenizer.control("<|fim_pad|>").unwrap();
    let mut labels: Vec<i64> = ids.iter().map(|&id| if id == pad { -100 } else { id }).collect();
    let at = |labels: &[i64], from: usize, template: &[i64]| {
        labels[from..(from + template.len()).min(labels.len())] == *template
    };
    let mut responses = Vec::new();
    for i in 0..labels.len() {
        if at(&labels, i, &response) {
            responses.push(i + response.len());
        }
    }
    if responses.is_empty() {
        labels.fill(-100);
    }
    let mut humans = Vec::new();
    for i in 0..labels.len() {
        if at(&labels, i, &instruction) {
            humans.push(i);
        }
    }
    if humans.is_empty() {
        labels.fill(-100);
    }
    if !humans.is_empty() && !responses.is_empty() && humans[0] > responses[0] {
        humans.insert(0, 0);
    }
    for pair in 0..humans.len().min(responses.len()) {
        let start = if pair == 0 { 0 } else { humans[pair] };
        for label in labels.iter_mut().take(responses[pair]).skip(start) {
            *label = -100;
        }
    }
    if responses.len() < humans.len() {
        labels[humans[humans.len() - 1]..].fill(-100);
    }
    labels.iter().map(|label| *label != -100).collect()
}

/// What comes of a case under a limit.
fn cut(case: &Case, chat: &Chat, limit: usize) -> (Vec<i64>, Vec<bool>) {
    let ids = case.ids[..case.ids.len().min(limit)].to_vec();
    let by_rule = collator(chat, &ids);
    if let Some(trained) = &case.trained {
        let mut built = trained[..ids.len()].to_vec();
        // What a cut leaves of a later `<|im_start|>user` is not yet seen to be one.
        let instruction = chat.tokenizer.encode_fixed("<|im_start|>user").unwrap();
        for left in 1..instruction.len() {
            let from = ids.len().saturating_sub(left);
            if built.contains(&true) && case.ids[from..].starts_with(&instruction) {
                built[from..].fill(true);
            }
        }
        assert_eq!(built, by_rule, "the two references differ on {}", case.row);
    }
    (ids, by_rule)
}

/// Figures over all batches.
#[derive(Default)]
struct Totals {
    conversations: usize,
    tokens: usize,
    trained: usize,
    cut: usize,
    refused: usize,
    peers: Vec<Value>,
}

fn flags(example: &model::chat::Example) -> Vec<bool> {
    (0..example.ids.len()).map(|i| example.trained.iter().any(|range| range.contains(&i))).collect()
}

fn data(path: &Path, format: Format, block_size: usize, over_long: OverLong) -> Data {
    let examples = path.display().to_string();
    Data { examples, format, control: Control::None, block_size, over_long }
}

/// Reads `cases` as one table under `limit`, by each rule for over-long rows.
fn audit(chat: &Chat, format: Format, cases: &[Case], limit: usize, totals: &mut Totals) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.jsonl");
    let lines: String = cases.iter().map(|case| format!("{}\n", case.row)).collect();
    fs::write(&path, lines).unwrap();
    let read = |over_long| Examples::read(&data(&path, format, limit, over_long), chat, false);
    let whole: Vec<_> = cases.iter().map(|case| cut(case, chat, usize::MAX)).collect();
    let short: Vec<_> = cases.iter().map(|case| cut(case, chat, limit)).collect();
    let is_over = |row: &usize| cases[*row].ids.len() > limit;
    let is_lost = |(_, trained): &(Vec<i64>, Vec<bool>)| !trained.contains(&true);
    let rows: Vec<usize> = (0..cases.len()).collect();
    let over: Vec<usize> = rows.iter().copied().filter(is_over).collect();

    let table = Table::read(&data(&path, format, limit, OverLong::Truncate)).unwrap();
    for row in 0..cases.len() {
        let ours = table.tokens(row, chat).unwrap();
        assert_eq!((ours.example.ids.clone(), flags(&ours.example)), short[row]);
        let trained = whole[row].1.iter().filter(|is_trained| **is_trained).count();
        assert_eq!((ours.length, ours.trained), (cases[row].ids.len(), trained));
    }
    for over_long in [OverLong::Truncate, OverLong::Drop, OverLong::Error] {
        let is_bad = |row: &usize| match over_long {
            OverLong::Truncate => is_lost(&short[*row]),
            OverLong::Drop => !is_over(row) && is_lost(&whole[*row]),
            OverLong::Error => is_over(row) || is_lost(&whole[*row]),
        };
        let kept: Vec<usize> = match over_long {
            OverLong::Drop => rows.iter().copied().filter(|row| !is_over(row)).collect(),
            _ => rows.clone(),
        };
        match (read(over_long), rows.iter().find(|row| is_bad(row))) {
            (Err(error), Some(bad)) => {
                let text = format!("{error:#}");
                assert!(text.contains(&format!("row {}, question ", bad + 1)), "{text}");
                totals.refused += 1;
            }
            (Err(error), None) => {
                assert!(kept.is_empty() && format!("{error:#}").contains("every row was dropped"));
            }
            (Ok(found), None) => {
                let ours = found.examples.iter().map(|e| (e.ids.clone(), flags(e)));
                let expected: Vec<_> = kept.iter().map(|&row| short[row].clone()).collect();
                assert_eq!(ours.collect::<Vec<_>>(), expected, "{over_long:?} {}", cases[0].row);
                let trained = expected.iter().flat_map(|(_, t)| t).filter(|t| **t).count();
                assert_eq!(found.trained_tokens(), trained);
                let named = |line: &String| -> usize {
                    let number = line.split(": row ").nth(1).unwrap().split(',').next().unwrap();
                    number.parse::<usize>().unwrap() - 1
                };
                assert_eq!(found.over_long.iter().map(named).collect::<Vec<_>>(), over);
            }
            (Ok(_), Some(bad)) => panic!("row {} trains nothing: {}", bad + 1, cases[*bad].row),
        }
    }
    totals.conversations += cases.len();
    totals.cut += over.len();
    for (case, (ids, trained)) in cases.iter().zip(short) {
        totals.tokens += ids.len();
        totals.trained += trained.iter().filter(|is_trained| **is_trained).count();
        if let Some(peer) = &case.peer {
            let trained: Vec<u8> = trained.into_iter().map(u8::from).collect();
            let more = json!({"limit": limit, "ids": ids, "trained": trained});
            totals.peers.push(json!({"of": peer, "ours": more}));
        }
    }
}

/// Random conversations for the tokenizer and template in `folder`.
fn check_model(folder: &Path, default_system: bool) {
    let mut rng = rng(SEED, &["mask audit"]);
    let chat = Chat::read(folder).unwrap();
    let mut totals = Totals::default();
    for batch in 0..BATCHES {
        let format = [Format::S1, Format::Messages, Format::Text][batch % 3];
        let seed = record::seed::rng(rng.below(u64::MAX), &["texts"]);
        let mut writer = Writer { rng: seed, hostile: rng.below(2) == 0 };
        let case = |_| match format {
            Format::S1 => s1_case(&mut writer, &chat, default_system),
            Format::Messages => messages_case(&mut writer, &chat, default_system),
            _ => text_case(&mut writer, &chat),
        };
        let cases: Vec<Case> = (0..ROWS).map(case).collect();
        // One token more or less than some row, or somewhere inside it.
        let length = cases[rng.below(ROWS as u64) as usize].ids.len() as u64;
        let limit = match rng.below(4) {
            0 => 1 + rng.below(length),
            near => length + near - 2,
        };
        audit(&chat, format, &cases, limit.max(1) as usize, &mut totals);
    }
    let Totals { conversations, tokens, trained, cut, refused, peers } = totals;
    println!(
        "{conversations} conversations, {tokens} tokens, {trained} of them trained, {cut} rows cut \
         or dropped, {refused} tables refused: 0 mismatches"
    );
    let lines: String = peers.iter().map(|peer| format!("{peer}\n")).collect();
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("peers.jsonl");
    fs::write(&path, lines).unwrap();
    if let Some(report) = ask("masks_agree.py", &[folder, &path]) {
        println!("transformers and TRL's rule: {report}");
        assert_eq!(report["compared"], peers.len());
        assert_eq!(report["mismatches"], json!([]));
    }
}

#[test]
fn trained_tokens_are_the_answers_and_nothing_else() {
    for default_system in [false, true] {
        check_model(chat_folder(default_system).path(), default_system);
    }
    if let Some(folder) = model_folder() {
        check_model(&folder, true);
    }
}

/// s1's two public sets of texts are what `example::text` makes of their rows: read as `text` they
/// must give the ids and the trained tokens of the rows themselves.
#[track_caller]
fn check_text_is_s1(folder: &Path, rows: &[Row]) {
    let chat = Chat::read(folder).unwrap();
    let out = tempfile::tempdir().unwrap();
    let [as_s1, as_text] = ["s1.parquet", "text.parquet"].map(|name| out.path().join(name));
    let with_text = |row: &Row| Row { text: Some(example::text(row).unwrap()), ..row.clone() };
    write_rows(&as_s1, rows).unwrap();
    write_rows(&as_text, &rows.iter().map(with_text).collect::<Vec<_>>()).unwrap();
    for limit in [usize::MAX, 90] {
        let read = |path: &Path, format| {
            let table = Table::read(&data(path, format, limit, OverLong::Truncate)).unwrap();
            table.tokenise(&chat, false).into_iter().map(Result::unwrap).collect::<Vec<_>>()
        };
        let (s1, text) = (read(&as_s1, Format::S1), read(&as_text, Format::Text));
        assert_eq!(s1.len(), rows.len());
        for ((s1, text), row) in s1.iter().zip(text).zip(rows) {
            assert_eq!(s1.example, text.example, "{row:?}");
        }
    }
}

#[test]
fn a_table_of_texts_trains_what_its_rows_train() {
    let demo = chat_folder(true);
    let chat = Chat::read(demo.path()).unwrap();
    let mut writer = Writer { rng: rng(SEED, &["text is s1"]), hostile: false };
    let random = (0..200).map(|_| s1_case(&mut writer, &chat, true).row);
    let golden = fs::read_to_string(golden("chat.jsonl")).unwrap();
    let golden = golden.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let of_json = |row: Value| serde_json::from_value::<Row>(row).unwrap();
    let rows = random.chain(golden).map(of_json).map(|row| Row { text: None, ..row });
    let spells = |row: &Row| CONTROLS.iter().any(|name| format!("{row:?}").contains(name));
    let rows: Vec<Row> = rows.filter(|row| !spells(row)).collect();
    check_text_is_s1(demo.path(), &rows);
    if let Some(folder) = model_folder() {
        check_text_is_s1(&folder, &rows);
    }
}
