//! A run is a TOML file: load it, apply `--set section.key=value`, refuse what it does not know.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// Reads the run config at `path` into `T`, with the overrides `sets` (`section.key=value`)
/// applied, and returns the effective table beside it for the manifest.
///
/// The value of an override is a TOML value where it parses as one (`3`, `true`, `[1, 2]`,
/// `"text"`), else the bare text. `T` derives `deny_unknown_fields`, down to its sections. Errors
/// name file, line and column, or the override that is wrong.
pub fn load<T: DeserializeOwned>(path: &Path, sets: &[String]) -> Result<(T, Table)> {
    let shown = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
    let in_file = |error: toml::de::Error| match error.span() {
        Some(span) => anyhow!("{shown}:{}: {}", position(&text, span.start), words(&error)),
        None => anyhow!("{shown}: {}", words(&error)),
    };
    let mut table: Table = toml::from_str(&text).map_err(in_file)?;

    // Both ways of reading are needed: the text knows positions, the table knows the overrides.
    let of_file: Result<T, _> = toml::from_str(&text);
    let mut messages = vec![of_file.as_ref().err().map(words)];
    let mut last: Result<T, _> = table.clone().try_into();
    for set in sets {
        apply(&mut table, set).with_context(|| format!("--set {set}"))?;
        last = table.clone().try_into();
        messages.push(last.as_ref().err().map(words));
    }
    // The file comes first and may miss what an override adds; so what counts is the error that
    // is left at the end, and it is blamed on whoever brought it.
    let error = match last {
        Ok(config) => return Ok((config, table)),
        Err(error) => words(&error),
    };
    match messages.iter().position(|message| message.as_deref() == Some(error.as_str())) {
        Some(0) => Err(of_file.err().map_or_else(|| anyhow!("{shown}: {error}"), in_file)),
        Some(set) => bail!("--set {}: {error}", sets[set - 1]),
        None => bail!("{shown}: {error}"),
    }
}

/// The error's message, in a writer's words where serde has Rust's types.
fn words(error: &toml::de::Error) -> String {
    let message = error.message();
    let Some((found, expected)) = message.rsplit_once(", expected ") else {
        return message.to_owned();
    };
    let found =
        found.replace("type: map", "type: a section").replace("type: sequence", "type: a list");
    let expected = match expected {
        "u16" | "u32" | "u64" | "usize" => "a whole number, 0 or more",
        "i32" | "i64" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a string" => "a text",
        "path string" => "a path",
        "a sequence" => "a list",
        _ if expected.starts_with("struct ") => "a section",
        _ => expected,
    };
    format!("{found}, expected {expected}")
}

/// `line:column` of a byte of `text`, both from 1, the column in characters.
fn position(text: &str, byte: usize) -> String {
    let before = &text[..byte];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    format!("{line}:{column}")
}

fn apply(table: &mut Table, set: &str) -> Result<()> {
    let (key, value) = set.split_once('=').context("wants the form section.key=value")?;
    let value = value.parse::<Value>().unwrap_or_else(|_| Value::from(value));
    let mut keys: Vec<&str> = key.split('.').collect();
    if keys.iter().any(|key| key.is_empty()) {
        bail!("wants the form section.key=value");
    }
    let last = keys.pop().expect("split gives at least one part");
    let mut section = table;
    for key in keys {
        let entry = section.entry(key).or_insert_with(|| Value::Table(Table::new()));
        section = match entry {
            Value::Table(inner) => inner,
            other => bail!("`{key}` is no section but a value, {other}"),
        };
    }
    section.insert(last.to_owned(), value);
    Ok(())
}
