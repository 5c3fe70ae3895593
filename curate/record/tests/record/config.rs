//! Run configs: overrides, and whose fault an error is.

use std::fs;

use record::config::load;
use serde::Deserialize;

use crate::error_text;

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    output: String,
    train: Train,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Train {
    learning_rate: f64,
    epochs: u32,
    tags: Option<Vec<String>>,
}

const GOOD: &str = "# A run.\noutput = \"runs/a\"\n[train]\nlearning_rate = 1e-5\nepochs = 5\n";

fn read(text: &str, sets: &[&str]) -> Result<(Config, toml::Table), String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.toml");
    fs::write(&file, text).unwrap();
    let sets: Vec<String> = sets.iter().map(|&set| set.into()).collect();
    let result = load(&file, &sets);
    if result.is_err() {
        return Err(error_text(result, folder.path()));
    }
    Ok(result.unwrap())
}

#[track_caller]
fn check(sets: &[&str], expected: (&str, f64, u32, Option<&[&str]>), expected_table: &str) {
    let (config, table) = read(GOOD, sets).unwrap();
    let (output, learning_rate, epochs, tags) = expected;
    let tags = tags.map(|tags| tags.iter().map(|&tag| tag.into()).collect());
    let train = Train { learning_rate, epochs, tags };
    assert_eq!(config, Config { output: output.into(), train });
    assert_eq!(table, expected_table.parse().unwrap());
}

#[track_caller]
fn check_error(text: &str, sets: &[&str], expected: &str) {
    assert_eq!(read(text, sets).unwrap_err(), expected);
}

#[test]
fn overrides() {
    check(&[], ("runs/a", 1e-5, 5, None), GOOD);
    check(
        &["train.epochs=3", "output=runs/b", "train.tags=[\"x\", \"y\"]"],
        ("runs/b", 1e-5, 3, Some(&["x", "y"])),
        "output = 'runs/b'\n[train]\nlearning_rate = 1e-5\nepochs = 3\ntags = ['x', 'y']\n",
    );
    // The last one wins; a text may hold the separator; quotes make a text of a number.
    check(
        &["output=a", "output=b=c"],
        ("b=c", 1e-5, 5, None),
        "output = 'b=c'\n[train]\nlearning_rate = 1e-5\nepochs = 5\n",
    );
    check(
        &["output=\"7\"", "train.learning_rate=2"],
        ("7", 2.0, 5, None),
        "output = '7'\n[train]\nlearning_rate = 2\nepochs = 5\n",
    );
}

#[test]
fn an_override_may_bring_what_the_file_lacks() {
    let (config, _) = read("output = \"a\"\n", &["train.learning_rate=0.1", "train.epochs=1"])
        .expect("the overrides complete the file");
    assert_eq!(config.train.epochs, 1);
}

#[test]
fn errors_of_the_file_name_line_and_column() {
    let unknown = "unknown field `epoch`, expected one of `learning_rate`, `epochs`, `tags`";
    let bad = GOOD.replace("epochs", "epoch");
    check_error(&bad, &[], &format!("run.toml:5:1: {unknown}"));
    // An override elsewhere does not change whose fault it is.
    check_error(&bad, &["train.epochs=3"], &format!("run.toml:5:1: {unknown}"));
    check_error(
        &GOOD.replace("= 5", "= \"five\""),
        &[],
        "run.toml:5:10: invalid type: string \"five\", expected a whole number, 0 or more",
    );
    check_error("output = \"a\"\n", &[], "run.toml:1:1: missing field `train`");
    check_error("é = [1\n", &[], "run.toml:1:7: unclosed array, expected `]`");
}

#[test]
fn errors_of_an_override_name_it() {
    check_error(
        GOOD,
        &["output=b", "train.epoch=3"],
        "--set train.epoch=3: unknown field `epoch`, \
         expected one of `learning_rate`, `epochs`, `tags`",
    );
    check_error(
        GOOD,
        &["train.epochs=many"],
        "--set train.epochs=many: invalid type: string \"many\", \
         expected a whole number, 0 or more",
    );
    check_error(GOOD, &["epochs"], "--set epochs: wants the form section.key=value");
    check_error(
        GOOD,
        &["train..epochs=1"],
        "--set train..epochs=1: wants the form section.key=value",
    );
    check_error(
        GOOD,
        &["output.x=1"],
        "--set output.x=1: `output` is no section but a value, \"runs/a\"",
    );
}

#[test]
fn errors_speak_of_toml() {
    let check = |set: &str, expected: &str| {
        check_error(GOOD, &[set], &format!("--set {set}: invalid {expected}"));
    };
    check("train=5", "type: integer `5`, expected a section");
    check("train.tags=5", "type: integer `5`, expected a list");
    check("train.tags={a=1}", "type: a section, expected a list");
    check("train.learning_rate=[1]", "type: a list, expected a number");
    check("train.epochs=-1", "value: integer `-1`, expected a whole number, 0 or more");
    check("output=5", "type: integer `5`, expected a text");
}

#[test]
fn a_missing_file() {
    let folder = tempfile::tempdir().unwrap();
    let result = load::<Config>(&folder.path().join("run.toml"), &[]);
    assert_eq!(
        error_text(result, folder.path()),
        "cannot read run.toml: No such file or directory (os error 2)"
    );
}
