//! A source: what is read of a data set, which of its rows stay, and how they become s1's columns.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, anyhow, bail, ensure};
use record::example::is_python_space;
use record::publish::Input;
use record::question::question_hash;
use record::raw::{self, Object};
use record::row::Row;
use record::seed;
use serde::Deserialize;
use serde_json::Value;

use super::place::Place;
use super::python;

/// One source, a file of its own; those of s1 are `configs/curate/sources/*.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// What the report calls it.
    pub name: String,
    /// Does the config's `[decontaminate]` hold for it? By default it does.
    #[serde(default = "yes")]
    pub decontaminate: bool,
    /// How many rows are wanted, if not all.
    pub take: Option<Take>,
    /// A table that has s1's columns already, such as a released set: its rows come as they are.
    pub as_it_is: Option<Place>,
    /// Tables of the source's own shape, one after the other.
    #[serde(default)]
    pub read: Vec<Read>,
}

/// A part of a source, drawn at random; the rows keep their order.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Take {
    /// So many, or all if there are fewer; pinned questions count and are always among them.
    pub rows: usize,
    /// As many of each value of the first column as there are; among these the same by the next.
    #[serde(default)]
    pub evenly_over: Vec<String>,
}

/// Tables of one shape. A template is a text with `{column}` where the row's value belongs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Read {
    /// The tables.
    pub from: Place,
    /// A row stays when all of these are true of it.
    #[serde(default)]
    pub keep: Vec<Keep>,
    /// Changes to its columns, in this order.
    #[serde(default)]
    pub edit: Vec<Edit>,
    /// Template; a row with a null in it is dropped.
    pub question: String,
    /// Template; with a null in it there is no solution.
    pub solution: Option<String>,
    /// Choices to be appended to the question.
    pub choices: Option<Choices>,
    /// Template, or a text for each value of a column.
    pub cot_type: CotType,
    /// Template.
    pub source_type: String,
    /// Columns left out of `metadata`, beside those of question and solution.
    #[serde(default)]
    pub metadata_without: Vec<String>,
}

/// What `cot_type` becomes.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "a text, or { of = \"a column\", its value = \"a text\", … }")]
pub enum CotType {
    /// Template.
    Same(String),
    /// By the value of a column.
    By {
        /// The column.
        of: String,
        /// For the values not named; without it such a value is an error.
        otherwise: Option<String>,
        /// By value.
        #[serde(flatten)]
        values: BTreeMap<String, String>,
    },
}

/// A condition; the first text is the column.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// One of these is true.
    Any(Vec<Keep>),
    /// It has this value; 5 and 5.0 are the same.
    Is(String, Value),
    /// It has another value.
    IsNot(String, Value),
    /// It is null.
    Null(String),
    /// It is not null.
    NotNull(String),
    /// Its text sorts before this one.
    Below(String, String),
    /// Its text is in the named column of these tables, or is a pinned question.
    In(String, Place, String),
    /// Its text is not in the named column of these tables.
    NotIn(String, Place, String),
}

/// A change of one column, named first; null stays null.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Edit {
    /// White space around it goes.
    Strip(String),
    /// A list becomes its first item, or null.
    First(String),
    /// A list becomes one text, an item a line.
    Lines(String),
    /// What stands before this mark; all of it without the mark.
    Before(String, String),
    /// What stands after this mark; without the mark it is an error.
    After(String, String),
    /// Every occurrence of the first text becomes the second.
    Replace(String, String, String),
}

/// Answers to choose from, as s1's `fix_gpqa.py` puts them behind a question.
///
/// Differs from s1: the order is drawn for each question from its own text, not from one stream
/// over all rows.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choices {
    /// The column with the right one.
    pub right: String,
    /// The columns with the wrong ones.
    pub wrong: Vec<String>,
}

/// What a source gave.
#[derive(Debug, Default)]
pub struct Gathered {
    /// Its rows, in its order.
    pub rows: Vec<Row>,
    /// For each row the values of `take.evenly_over`.
    pub groups: Vec<Vec<String>>,
    /// For each row with choices these, to be appended when it is known to stay; or empty.
    pub choices: Vec<Option<Drawn>>,
    /// Rows that were read.
    pub read: usize,
    /// Rows that did not stay, by the reason.
    pub left_out: BTreeMap<String, usize>,
    /// What was read.
    pub inputs: Vec<Input>,
}

/// A row with its groups and its choices.
type Made = (Row, Vec<String>, Option<Drawn>);

impl Source {
    /// What the types cannot say; errors name the key and the cure.
    pub fn check(&self) -> Result<()> {
        ensure!(
            self.as_it_is.is_some() == self.read.is_empty(),
            "name tables: [[read]], or as_it_is = {{ … }} for one with s1's columns"
        );
        ensure!(
            self.as_it_is.is_none() || self.take.is_none(),
            "`take` is for [[read]]; a table that comes as it is comes whole"
        );
        Ok(())
    }

    /// Every table that will be read, those that conditions look up included.
    pub fn places(&self) -> Vec<&Place> {
        let mut places: Vec<&Place> = self.as_it_is.iter().collect();
        for read in &self.read {
            for keep in &read.keep {
                places.extend(keep.lookups().into_iter().map(|(place, ..)| place));
            }
            places.push(&read.from);
        }
        places
    }

    /// Reads the tables of the source's own shape; `seed` orders choices, `pinned` questions pass
    /// every [`Keep::In`].
    pub fn gather(&self, seed: u64, pinned: &BTreeSet<String>) -> Result<Gathered> {
        let mut gathered = Gathered::default();
        let columns = self.take.as_ref().map_or(&[][..], |take| &take.evenly_over);
        for read in &self.read {
            gathered.read(read, columns, seed, pinned)?;
        }
        Ok(gathered)
    }
}

impl Gathered {
    fn read(
        &mut self,
        read: &Read,
        groups: &[String],
        seed: u64,
        pinned: &BTreeSet<String>,
    ) -> Result<()> {
        let lists = self.lists(&read.keep, pinned)?;
        let keep = |row: &Object| {
            let mut lists = lists.iter();
            let mut judge = |keep: &Keep| keep.judge(row, &mut lists);
            read.keep.iter().map(&mut judge).collect::<Result<Vec<_>>>()
        };
        for file in read.from.find()? {
            let mut count = 0;
            for row in raw::read(&file.path)? {
                count += 1;
                let place = || format!("{}, row {count}", file.path.display());
                let row = row?;
                let made = match keep(&row).with_context(place)? {
                    why if why.iter().any(Option::is_some) => Err(why.into_iter().flatten().next()),
                    _ => read.row(row, groups, seed).with_context(place)?.ok_or(None),
                };
                match made {
                    Ok((row, groups, choices)) => {
                        self.rows.push(row);
                        self.groups.push(groups);
                        self.choices.push(choices);
                    }
                    Err(why) => {
                        let why = why.unwrap_or_else(|| "no question".to_string());
                        *self.left_out.entry(why).or_default() += 1;
                    }
                }
            }
            self.read += count;
            self.inputs.push(Input { rows: Some(count as u64), ..file.input });
        }
        Ok(())
    }

    /// The texts that conditions look up, in the order of [`Keep::lookups`].
    fn lists(&mut self, keep: &[Keep], pinned: &BTreeSet<String>) -> Result<Vec<BTreeSet<String>>> {
        let mut lists = Vec::new();
        for (place, column, pinned_too) in keep.iter().flat_map(Keep::lookups) {
            let mut list = if pinned_too { pinned.clone() } else { BTreeSet::new() };
            for file in place.find()? {
                let texts = raw::texts(&file.path, column)?;
                self.inputs.push(Input { rows: Some(texts.len() as u64), ..file.input });
                list.extend(texts);
            }
            lists.push(list);
        }
        Ok(lists)
    }
}

impl Keep {
    /// The tables and columns it looks up, and whether pinned questions count as found.
    fn lookups(&self) -> Vec<(&Place, &str, bool)> {
        match self {
            Keep::Any(any) => any.iter().flat_map(Keep::lookups).collect(),
            Keep::In(_, place, column) => vec![(place, column, true)],
            Keep::NotIn(_, place, column) => vec![(place, column, false)],
            _ => Vec::new(),
        }
    }

    /// Why the row goes, or `None` if it stays; takes the lists of [`Keep::lookups`].
    fn judge<'a>(
        &self,
        row: &Object,
        lists: &mut std::slice::Iter<'a, BTreeSet<String>>,
    ) -> Result<Option<String>> {
        let text = |column| Ok::<_, anyhow::Error>(python::text(get(row, column)?));
        let (stays, why) = match self {
            Keep::Any(any) => {
                // All of them, so that each takes its lists.
                let why = any.iter().map(|keep| keep.judge(row, lists));
                let why = why.collect::<Result<Vec<_>>>()?;
                let all: Option<Vec<String>> = why.into_iter().collect();
                return Ok(all.map(|why| why.join(" and ")));
            }
            Keep::Is(column, value) => (
                is_same(get(row, column)?, value),
                format!("{column} is not {}", python::text(value)),
            ),
            Keep::IsNot(column, value) => {
                (!is_same(get(row, column)?, value), format!("{column} is {}", python::text(value)))
            }
            Keep::Null(column) => (get(row, column)?.is_null(), format!("has {column}")),
            Keep::NotNull(column) => (!get(row, column)?.is_null(), format!("no {column}")),
            Keep::Below(column, end) => {
                (text(column)? < *end, format!("{column} is not before {end}"))
            }
            Keep::In(column, ..) => {
                (next(lists).contains(&text(column)?), format!("{column} is not in the list"))
            }
            Keep::NotIn(column, ..) => {
                (!next(lists).contains(&text(column)?), format!("{column} is in the list"))
            }
        };
        Ok((!stays).then_some(why))
    }
}

fn next<'a>(lists: &mut std::slice::Iter<'a, BTreeSet<String>>) -> &'a BTreeSet<String> {
    lists.next().expect("one for each lookup")
}

/// Equal; of numbers the value counts, not whether a table or TOML holds it as a float.
fn is_same(one: &Value, other: &Value) -> bool {
    one == other || one.as_f64().is_some_and(|number| other.as_f64() == Some(number))
}

impl CotType {
    fn of(&self, row: &Object) -> Result<String> {
        let (column, otherwise, values) = match self {
            CotType::Same(template) => return Ok(fill(template, row)?.unwrap_or_default()),
            CotType::By { of, otherwise, values } => (of, otherwise, values),
        };
        let value = python::text(get(row, column)?);
        values.get(&value).or(otherwise.as_ref()).cloned().with_context(|| {
            format!(
                "cot_type says nothing for the {column} {value:?}: name it or `otherwise` there, \
                 or leave such rows out with `keep`"
            )
        })
    }
}

impl Edit {
    fn apply(&self, row: &mut Object) -> Result<()> {
        let (Edit::Strip(column)
        | Edit::First(column)
        | Edit::Lines(column)
        | Edit::Before(column, ..)
        | Edit::After(column, ..)
        | Edit::Replace(column, ..)) = self;
        get(row, column)?;
        let value = row.get_mut(column).expect("it is there");
        let edited = match (self, value.take()) {
            (_, Value::Null) => Value::Null,
            (Edit::First(_), Value::Array(mut items)) => match items.is_empty() {
                true => Value::Null,
                false => items.swap_remove(0),
            },
            (Edit::Lines(_), Value::Array(items)) => {
                let lines: Vec<String> = items.iter().map(python::text).collect();
                Value::from(lines.join("\n"))
            }
            (Edit::First(_) | Edit::Lines(_), _) => bail!("column `{column}` is not a list"),
            (edit, Value::String(text)) => {
                Value::from(edit.of_text(&text).with_context(|| format!("column `{column}`"))?)
            }
            _ => bail!("column `{column}` is not text"),
        };
        *value = edited;
        Ok(())
    }

    fn of_text<'a>(&self, text: &'a str) -> Result<String> {
        let part: &'a str = match self {
            Edit::Before(_, mark) => text.split(mark.as_str()).next().unwrap_or(text),
            Edit::After(_, mark) => {
                let mut parts = text.split(mark.as_str()).skip(1);
                parts.next().with_context(|| format!("there is no {mark:?} in {text:?}"))?
            }
            Edit::Replace(_, from, to) => return Ok(text.replace(from, to)),
            _ => text.trim_matches(is_python_space),
        };
        Ok(part.to_string())
    }
}

impl Read {
    /// The row in s1's columns, its groups and its choices; `None` without a question.
    fn row(&self, mut row: Object, groups: &[String], seed: u64) -> Result<Option<Made>> {
        for edit in &self.edit {
            edit.apply(&mut row)?;
        }
        let question = fill(&self.question, &row)?;
        let Some(question) = question.filter(|question| !question.trim().is_empty()) else {
            return Ok(None);
        };
        let solution = match &self.solution {
            Some(template) => fill(template, &row)?,
            None => None,
        };
        let choices = self.choices.as_ref().map(|choices| choices.draw(&question, &row, seed));
        let choices = choices.transpose()?;
        let cot_type = self.cot_type.of(&row)?;
        let source_type = fill(&self.source_type, &row)?.unwrap_or_default();
        let group = |column: &String| Ok(python::text(get(&row, column)?));
        let groups = groups.iter().map(group).collect::<Result<_>>()?;
        let used = placeholders(&self.question);
        let used = used.chain(self.solution.iter().flat_map(|template| placeholders(template)));
        for column in used.chain(self.metadata_without.iter().map(String::as_str)) {
            row.shift_remove(column);
        }
        let metadata = python::dict(&row);
        let row = Row { question, solution, cot_type, source_type, metadata, ..Row::default() };
        Ok(Some((row, groups, choices)))
    }
}

impl Choices {
    /// The choices in an order of this question's own.
    fn draw(&self, question: &str, row: &Object, seed: u64) -> Result<Drawn> {
        let choice = |column: &String| match get(row, column)? {
            Value::Null => bail!(
                "the choice `{column}` is null; `keep` can leave such rows out: \
                 {{ not_null = \"{column}\" }}"
            ),
            choice => Ok(python::text(choice)),
        };
        let trimmed = |text: Result<String>| text.map(|text| text.trim_matches('\n').to_string());
        let columns = self.wrong.iter().chain([&self.right]);
        let mut choices = columns
            .enumerate()
            .map(|(nth, column)| Ok((nth, trimmed(choice(column))?)))
            .collect::<Result<Vec<(usize, String)>>>()?;
        seed::rng(seed, &["choices", &question_hash(question)]).shuffle(&mut choices);
        let mut text = "\nAnswer Choices:".to_string();
        let mut right = 'A';
        for ((nth, choice), letter) in choices.into_iter().zip('A'..) {
            text += &format!("\n({letter}) {choice}");
            if nth == self.wrong.len() {
                right = letter;
            }
        }
        Ok(Drawn { text, right })
    }
}

/// A question's choices in their order.
///
/// They come behind a row when it is known to stay: what is held out, pinned or a duplicate is
/// judged by the bare question, as in s1.
#[derive(Debug)]
pub struct Drawn {
    text: String,
    /// Letter of the right one.
    right: char,
}

impl Drawn {
    /// Appends the choices to the question and the right one to the solution.
    pub fn append(&self, row: &mut Row) {
        row.question += &self.text;
        let solution = row.solution.take().unwrap_or_default();
        row.solution = Some(format!("{solution}\n\nAnswer: {}", self.right));
    }
}

fn yes() -> bool {
    true
}

fn get<'a>(row: &'a Object, column: &str) -> Result<&'a Value> {
    row.get(column).ok_or_else(|| {
        let has: Vec<&str> = row.keys().map(String::as_str).collect();
        anyhow!("no column `{column}`; it has: {}", has.join(", "))
    })
}

/// The template with the row's values in it; `None` if one of them is null.
fn fill(template: &str, row: &Object) -> Result<Option<String>> {
    let mut filled = String::new();
    for (nth, part) in template.split('{').enumerate() {
        let literal = match part.split_once('}') {
            Some((column, literal)) if nth > 0 => {
                let value = get(row, column).with_context(|| format!("in {template:?}"))?;
                if value.is_null() {
                    return Ok(None);
                }
                filled.push_str(&python::text(value));
                literal
            }
            _ => {
                ensure!(nth == 0, "{template:?}: a {{ without its }}");
                part
            }
        };
        filled.push_str(literal);
    }
    Ok(Some(filled))
}

/// The columns named in a template.
fn placeholders(template: &str) -> impl Iterator<Item = &str> {
    template.split('{').skip(1).filter_map(|part| Some(part.split_once('}')?.0))
}
