//! The columns of every table, in the order they have in files.

use super::Kind::{Bool, Int, Text, Texts};
use super::Presence::{Optional, Required, Reserved, Written};
use super::{Cell, Column, Kind, Presence};
use crate::question::question_hash;
use crate::row::{Attempt, Features, Lineage, Outline, Row};

// Where the names differ between the authors' releases.

/// Question sets gathered elsewhere say `source` for `source_type`.
const SOURCE: &[&str] = &["source"];
/// s1K-1.1 has two teachers and no `thinking_trajectories`: DeepSeek's are taken, since its set
/// was made for them, and Gemini's from a file without DeepSeek's.
const TRACE: &[&str] = &["deepseek_thinking_trajectory", "gemini_thinking_trajectory"];
/// As [`TRACE`].
const ATTEMPT: &[&str] = &["deepseek_attempt", "gemini_attempt"];
/// Older feature tables misspell it; in s1K-1.1 it is the grade of the teacher of [`TRACE`].
const GEMINI_CORRECT: &[&str] = &["isgenminicorrect", "deepseek_grade", "gemini_grade"];
/// Older feature tables misspell it.
const GEMINI_LENGTH: &[&str] = &["genmini_length"];

/// The domain of any row that has one, as the column of a table; so below for the other features.
macro_rules! domain {
    ($presence:expr) => {
        Column {
            get: |row| Cell::opt_text(&row.domain),
            set: |row, cell| row.domain = cell.into_opt_text(),
            ..column("domain", Text, $presence)
        }
    };
}

/// Three columns, in s1's order.
macro_rules! grades {
    ($row:ty, $presence:expr) => {
        [
            Column {
                aliases: GEMINI_CORRECT,
                get: |row: &$row| Cell::opt_bool(row.isgeminicorrect),
                set: |row: &mut $row, cell| row.isgeminicorrect = cell.into_opt_bool(),
                ..column("isgeminicorrect", Bool, $presence)
            },
            Column {
                get: |row: &$row| Cell::opt_bool(row.isqwen7bcorrect),
                set: |row: &mut $row, cell| row.isqwen7bcorrect = cell.into_opt_bool(),
                ..column("isqwen7bcorrect", Bool, $presence)
            },
            Column {
                get: |row: &$row| Cell::opt_bool(row.isqwen32bcorrect),
                set: |row: &mut $row, cell| row.isqwen32bcorrect = cell.into_opt_bool(),
                ..column("isqwen32bcorrect", Bool, $presence)
            },
        ]
    };
}

macro_rules! length {
    ($presence:expr) => {
        Column {
            aliases: GEMINI_LENGTH,
            get: |row| Cell::opt_int(row.gemini_length),
            set: |row, cell| row.gemini_length = cell.into_opt_int(),
            ..column("gemini_length", Int, $presence)
        }
    };
}

/// s1's columns, its features and its text.
pub(super) fn of_row() -> Vec<Column<Row>> {
    let mut columns = of_example();
    columns.extend(of_features());
    columns
}

/// The eight columns of s1K.
fn of_example() -> Vec<Column<Row>> {
    vec![
        Column {
            get: |row| Cell::opt_text(&row.solution),
            set: |row, cell| row.solution = cell.into_opt_text(),
            ..column("solution", Text, Written)
        },
        Column {
            get: |row| Cell::Text(&row.question),
            set: |row, cell| row.question = cell.into_text(),
            ..column("question", Text, Required)
        },
        Column {
            get: |row| Cell::Text(&row.cot_type),
            set: |row, cell| row.cot_type = cell.into_text(),
            ..column("cot_type", Text, Written)
        },
        Column {
            aliases: SOURCE,
            get: |row| Cell::Text(&row.source_type),
            set: |row, cell| row.source_type = cell.into_text(),
            ..column("source_type", Text, Written)
        },
        Column {
            get: |row| Cell::Text(&row.metadata),
            set: |row, cell| row.metadata = cell.into_text(),
            ..column("metadata", Text, Written)
        },
        Column {
            get: |row| Cell::opt_text(&row.cot),
            set: |row, cell| row.cot = cell.into_opt_text(),
            ..column("cot", Text, Reserved)
        },
        Column {
            aliases: TRACE,
            get: |row| Cell::Texts(row.thinking_trajectories.iter().map(String::as_str).collect()),
            set: |row, cell| row.thinking_trajectories = cell.into_texts(),
            ..column("thinking_trajectories", Texts, Optional)
        },
        Column {
            aliases: ATTEMPT,
            get: |row| Cell::opt_text(&row.attempt),
            set: |row, cell| row.attempt = cell.into_opt_text(),
            ..column("attempt", Text, Optional)
        },
    ]
}

/// The columns of the feature table, and the text of s1K_tokenized.
fn of_features() -> Vec<Column<Row>> {
    let mut columns: Vec<Column<Row>> = vec![domain!(Optional)];
    columns.extend(grades!(Row, Optional));
    columns.push(length!(Optional));
    columns.push(Column {
        get: |row| Cell::opt_text(&row.text),
        set: |row, cell| row.text = cell.into_opt_text(),
        ..column("text", Text, Optional)
    });
    columns
}

/// The columns of [`of_row`] that decide; they are only read.
pub(super) fn of_outline() -> Vec<Column<Outline>> {
    let text = |name, presence| column(name, Text, presence);
    let mut columns: Vec<Column<Outline>> = vec![
        Column { set: |row, cell| row.question = cell.into_text(), ..text("question", Required) },
        Column { set: |row, cell| row.cot_type = cell.into_text(), ..text("cot_type", Written) },
        Column {
            aliases: SOURCE,
            set: |row, cell| row.source_type = cell.into_text(),
            ..text("source_type", Written)
        },
        Column {
            aliases: TRACE,
            set: |row, cell| {
                let Cell::Texts(traces) = cell else { return };
                row.has_trace = traces.iter().any(|trace| !trace.trim().is_empty());
            },
            ..column("thinking_trajectories", Texts, Optional)
        },
        Column {
            aliases: ATTEMPT,
            set: |row, cell| row.has_attempt = cell != Cell::Null,
            ..text("attempt", Optional)
        },
    ];
    columns.push(domain!(Optional));
    columns.extend(grades!(Outline, Optional));
    columns.push(length!(Optional));
    columns
}

pub(super) fn of_attempt() -> Vec<Column<Attempt>> {
    vec![
        Column {
            get: |row| Cell::Text(&row.question_hash),
            set: |row, cell| row.question_hash = cell.into_text(),
            ..column("question_hash", Text, Required)
        },
        Column {
            get: |row| Cell::Text(&row.model),
            set: |row, cell| row.model = cell.into_text(),
            ..column("model", Text, Required)
        },
        Column {
            get: |row| Cell::Text(&row.attempt),
            set: |row, cell| row.attempt = cell.into_text(),
            ..column("attempt", Text, Required)
        },
        Column {
            get: |row| Cell::opt_bool(row.grade),
            set: |row, cell| row.grade = cell.into_opt_bool(),
            ..column("grade", Bool, Written)
        },
        Column {
            get: |row| Cell::opt_text(&row.reason),
            set: |row, cell| row.reason = cell.into_opt_text(),
            ..column("reason", Text, Written)
        },
    ]
}

/// A side table of features, in their older spellings too.
pub(super) fn of_side_table() -> Vec<Column<Features>> {
    let mut columns: Vec<Column<Features>> = vec![
        Column {
            get: |row| Cell::Text(&row.question_hash),
            set: |row, cell| row.question_hash = cell.into_text(),
            ..column("question_hash", Text, Written)
        },
        domain!(Written),
    ];
    columns.extend(grades!(Features, Written));
    columns.push(length!(Written));
    columns
}

/// As [`of_side_table`], to be read: a question's text stands for its hash where that is missing.
pub(super) fn of_side_table_in() -> Vec<Column<Features>> {
    let mut columns = of_side_table();
    columns.push(Column {
        set: |row, cell| {
            if let (Cell::Text(question), true) = (cell, row.question_hash.is_empty()) {
                row.question_hash = question_hash(question);
            }
        },
        ..column("question", Text, Written)
    });
    columns
}

/// What tells questions of any table apart, as far as it has them: texts, or hashes alone where
/// texts are withheld.
pub(super) fn of_questions() -> Vec<Column<Lineage>> {
    let columns = of_lineage_question().into_iter();
    let columns = columns.filter(|column| column.name != "row");
    columns
        .map(|column| {
            let aliases = if column.name == "source_type" { SOURCE } else { column.aliases };
            Column { presence: Written, aliases, ..column }
        })
        .collect()
}

pub(super) fn of_lineage() -> Vec<Column<Lineage>> {
    let mut columns = of_lineage_question();
    columns.extend(of_lineage_verdict());
    columns
}

/// Who the row is.
fn of_lineage_question() -> Vec<Column<Lineage>> {
    let mut columns: Vec<Column<Lineage>> = vec![
        Column {
            get: |row| Cell::Int(row.row),
            set: |row, cell| row.row = cell.into_int(),
            ..column("row", Int, Required)
        },
        Column {
            get: |row| Cell::Text(&row.question_hash),
            set: |row, cell| row.question_hash = cell.into_text(),
            ..column("question_hash", Text, Required)
        },
        Column {
            get: |row| Cell::Text(&row.source_type),
            set: |row, cell| row.source_type = cell.into_text(),
            ..column("source_type", Text, Written)
        },
        Column {
            get: |row| Cell::Text(&row.cot_type),
            set: |row, cell| row.cot_type = cell.into_text(),
            ..column("cot_type", Text, Written)
        },
        Column {
            get: |row| Cell::Text(&row.question),
            set: |row, cell| row.question = cell.into_text(),
            ..column("question", Text, Required)
        },
        domain!(Written),
        length!(Written),
    ];
    columns.extend(grades!(Lineage, Written));
    columns
}

/// What became of it.
fn of_lineage_verdict() -> Vec<Column<Lineage>> {
    vec![
        Column {
            get: |row| Cell::Text(&row.stage),
            set: |row, cell| row.stage = cell.into_text(),
            ..column("stage", Text, Required)
        },
        Column {
            get: |row| Cell::Text(&row.reason),
            set: |row, cell| row.reason = cell.into_text(),
            ..column("reason", Text, Required)
        },
        Column {
            get: |row| Cell::opt_text(&row.evidence),
            set: |row, cell| row.evidence = cell.into_opt_text(),
            ..column("evidence", Text, Written)
        },
        Column {
            get: |row| Cell::opt_int(row.rank),
            set: |row, cell| row.rank = cell.into_opt_int(),
            ..column("rank", Int, Written)
        },
        Column {
            get: |row| Cell::opt_text(&row.phase),
            set: |row, cell| row.phase = cell.into_opt_text(),
            ..column("phase", Text, Written)
        },
        Column {
            get: |row| Cell::opt_int(row.draw),
            set: |row, cell| row.draw = cell.into_opt_int(),
            ..column("draw", Int, Written)
        },
    ]
}

/// The one text column `name` of a table of any shape.
pub(super) fn of_text(name: &str) -> Column<String> {
    Column {
        get: |text| Cell::Text(text),
        set: |text, cell| *text = cell.into_text(),
        ..column(name, Text, Required)
    }
}

/// A column without its field: what is filled in beside `get` and `set`.
fn column<R>(name: &str, kind: Kind, presence: Presence) -> Column<R> {
    let name = name.to_owned();
    Column { name, aliases: &[], kind, presence, get: |_| Cell::Null, set: |_, _| {} }
}

impl<'a> Cell<'a> {
    fn opt_text(text: &'a Option<String>) -> Self {
        text.as_deref().map_or(Cell::Null, Cell::Text)
    }

    fn opt_bool(value: Option<bool>) -> Self {
        value.map_or(Cell::Null, Cell::Bool)
    }

    fn opt_int(value: Option<i64>) -> Self {
        value.map_or(Cell::Null, Cell::Int)
    }

    fn into_opt_text(self) -> Option<String> {
        match self {
            Cell::Null => None,
            Cell::Text(text) => Some(text.to_owned()),
            cell => panic!("{cell:?} in a text column"),
        }
    }

    fn into_text(self) -> String {
        self.into_opt_text().unwrap_or_default()
    }

    fn into_texts(self) -> Vec<String> {
        match self {
            Cell::Null => Vec::new(),
            Cell::Texts(texts) => texts.into_iter().map(str::to_owned).collect(),
            cell => panic!("{cell:?} in a column of lists of texts"),
        }
    }

    fn into_opt_bool(self) -> Option<bool> {
        match self {
            Cell::Null => None,
            Cell::Bool(value) => Some(value),
            cell => panic!("{cell:?} in a boolean column"),
        }
    }

    fn into_opt_int(self) -> Option<i64> {
        match self {
            Cell::Null => None,
            Cell::Int(value) => Some(value),
            cell => panic!("{cell:?} in an integer column"),
        }
    }

    /// Of a required column, where a null was refused before.
    fn into_int(self) -> i64 {
        self.into_opt_int().unwrap_or_default()
    }
}
