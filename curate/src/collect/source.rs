//! A source: what is read of a data set, which of its rows stay, and how they become s1's columns.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, anyhow, bail, ensure};
use record::example::is_python_space;
use record::publish::Input;
use record::question::question_hash;
use record::row::Row;
use record::seed;
use serde::Deserialize;
use serde_json::Value;

use super::place::Place;
use super::python;
use super::raw::{self, Object};

/// One source, a file of its own; those of s1 are `configs/curate/sources/*.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// What the report calls it.
    pub name: String,
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
    /// Template.
    pub cot_type: String,
    /// Template.
    pub source_type: String,
    /// Columns left out of `metadata`, beside those of question and solution.
    #[serde(default)]
    pub metadata_without: Vec<String>,
}

/// A condition; the first text is the column.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// It has this value.
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
    /// Rows that were read.
    pub read: usize,
    /// Rows that did not stay, by the reason.
    pub left_out: BTreeMap<String, usize>,
    /// What was read.
    pub inputs: Vec<Input>,
}

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
                if let Keep::In(_, place, _) | Keep::NotIn(_, place, _) = keep {
                    places.push(place);
                }
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
        for file in read.from.find()? {
            let mut count = 0;
            for row in raw::read(&file.path)? {
                count += 1;
                let place = || format!("{}, row {count}", file.path.display());
                let row = row?;
                let why = read.keep.iter().zip(&lists).map(|(keep, list)| keep.judge(&row, list));
                let made = match why.collect::<Result<Vec<_>>>().with_context(place)? {
                    why if why.iter().any(Option::is_some) => Err(why.into_iter().flatten().next()),
                    _ => read.row(row, groups, seed).with_context(place)?.ok_or(None),
                };
                match made {
                    Ok((row, groups)) => {
                        self.rows.push(row);
                        self.groups.push(groups);
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

    /// For each condition the texts it looks up.
    fn lists(&mut self, keep: &[Keep], pinned: &BTreeSet<String>) -> Result<Vec<BTreeSet<String>>> {
        let mut lists = Vec::new();
        for keep in keep {
            let (place, column, mut list) = match keep {
                Keep::In(_, place, column) => (place, column, pinned.clone()),
                Keep::NotIn(_, place, column) => (place, column, BTreeSet::new()),
                _ => {
                    lists.push(BTreeSet::new());
                    continue;
                }
            };
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
    /// Why the row goes, or `None` if it stays.
    fn judge(&self, row: &Object, list: &BTreeSet<String>) -> Result<Option<String>> {
        let text = |column| Ok::<_, anyhow::Error>(python::text(get(row, column)?));
        let (stays, why) = match self {
            Keep::Is(column, value) => {
                (get(row, column)? == value, format!("{column} is not {}", python::text(value)))
            }
            Keep::IsNot(column, value) => {
                (get(row, column)? != value, format!("{column} is {}", python::text(value)))
            }
            Keep::Null(column) => (get(row, column)?.is_null(), format!("has {column}")),
            Keep::NotNull(column) => (!get(row, column)?.is_null(), format!("no {column}")),
            Keep::Below(column, end) => {
                (text(column)? < *end, format!("{column} is not before {end}"))
            }
            Keep::In(column, ..) => {
                (list.contains(&text(column)?), format!("{column} is not in the list"))
            }
            Keep::NotIn(column, ..) => {
                (!list.contains(&text(column)?), format!("{column} is in the list"))
            }
        };
        Ok((!stays).then_some(why))
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
    /// The row in s1's columns and its groups; `None` without a question.
    fn row(
        &self,
        mut row: Object,
        groups: &[String],
        seed: u64,
    ) -> Result<Option<(Row, Vec<String>)>> {
        for edit in &self.edit {
            edit.apply(&mut row)?;
        }
        let Some(mut question) = fill(&self.question, &row)? else { return Ok(None) };
        let mut solution = match &self.solution {
            Some(template) => fill(template, &row)?,
            None => None,
        };
        if let Some(choices) = &self.choices {
            let answer = choices.append(&mut question, &row, seed)?;
            solution = Some(format!("{}\n\nAnswer: {answer}", solution.unwrap_or_default()));
        }
        let of_all = |template| fill(template, &row).map(Option::unwrap_or_default);
        let (cot_type, source_type) = (of_all(&self.cot_type)?, of_all(&self.source_type)?);
        let group = |column: &String| Ok(python::text(get(&row, column)?));
        let groups = groups.iter().map(group).collect::<Result<_>>()?;
        let used = placeholders(&self.question);
        let used = used.chain(self.solution.iter().flat_map(|template| placeholders(template)));
        for column in used.chain(self.metadata_without.iter().map(String::as_str)) {
            row.shift_remove(column);
        }
        let metadata = python::dict(&row);
        let row = Row { question, solution, cot_type, source_type, metadata, ..Row::default() };
        Ok(Some((row, groups)))
    }
}

impl Choices {
    /// Appends the choices in random order and returns the right one's letter.
    fn append(&self, question: &mut String, row: &Object, seed: u64) -> Result<char> {
        let choice = |column: &String| Ok(python::text(get(row, column)?));
        let trimmed = |text: Result<String>| text.map(|text| text.trim_matches('\n').to_string());
        let columns = self.wrong.iter().chain([&self.right]);
        let mut choices = columns
            .enumerate()
            .map(|(nth, column)| Ok((nth, trimmed(choice(column))?)))
            .collect::<Result<Vec<(usize, String)>>>()?;
        seed::rng(seed, &["choices", &question_hash(question)]).shuffle(&mut choices);
        question.push_str("\nAnswer Choices:");
        let mut answer = 'A';
        for ((nth, choice), letter) in choices.into_iter().zip('A'..) {
            question.push_str(&format!("\n({letter}) {choice}"));
            if nth == self.wrong.len() {
                answer = letter;
            }
        }
        Ok(answer)
    }
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
