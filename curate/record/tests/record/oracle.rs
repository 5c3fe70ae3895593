//! Checks against other programs: run with S1_ORACLE=1 and the Python packages of
//! tests/oracle/requirements.txt; otherwise each says in one line that it was skipped.

use std::path::{Path, PathBuf};
use std::process::Command;

use record::row::Row;
use record::table::write_rows;

use crate::{full_row, pool_row};

pub struct Python {
    interpreter: PathBuf,
    root: PathBuf,
}

/// The interpreter, unless oracles are switched off.
pub fn python(test: &str) -> Option<Python> {
    if std::env::var_os("S1_ORACLE").is_none_or(|value| value != "1") {
        eprintln!("{test}: skipped, it needs Python; `just oracle` runs it");
        return None;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_path_buf();
    let interpreter = match std::env::var_os("S1_ORACLE_PYTHON") {
        Some(path) => path.into(),
        None => root.join(".venv/bin/python"),
    };
    Some(Python { interpreter, root })
}

impl Python {
    /// Runs a script of tests/oracle; what it prints on failure is the test's failure.
    #[track_caller]
    pub fn run(&self, script: &str, args: &[&str]) {
        let script = self.root.join("tests/oracle").join(script);
        let output = Command::new(&self.interpreter).arg(&script).args(args).output();
        let output = output.unwrap_or_else(|error| {
            panic!("cannot run {}: {error}; set S1_ORACLE_PYTHON", self.interpreter.display())
        });
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} {args:?} failed:\n{stderr}", script.display());
    }
}

/// Rows in Parquet, read by pyarrow, datasets, polars and pandas.
#[track_caller]
fn check(rows: &[Row], schema: &str) {
    let Some(python) = python("written Parquet opens elsewhere") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (file, expected) = (folder.path().join("t.parquet"), folder.path().join("t.jsonl"));
    write_rows(&file, rows).unwrap();
    write_rows(&expected, rows).unwrap();
    let paths = [file.to_str().unwrap(), expected.to_str().unwrap()];
    python.run("parquet_reads.py", &[paths[0], paths[1], schema]);
}

#[test]
fn oracle_of_a_pool_as_s1_has_it() {
    let with_solution = Row { solution: Some("4".into()), ..pool_row("What is 2+2?") };
    let schema = "solution:string,question:string,cot_type:string,source_type:string,\
                  metadata:string,cot:null";
    check(&[with_solution, pool_row("naïve\u{2028}多少?")], schema);
}

#[test]
fn oracle_of_examples_as_s1k_has_them() {
    let row = Row {
        thinking_trajectories: vec!["a\n".into()],
        attempt: Some("Answer: 4".into()),
        ..pool_row("What is 2+2?")
    };
    let schema = "solution:string,question:string,cot_type:string,source_type:string,\
                  metadata:string,cot:null,thinking_trajectories:list<element: string>,\
                  attempt:string";
    check(&[row], schema);
}

#[test]
fn oracle_of_all_columns() {
    let schema = "solution:string,question:string,cot_type:string,source_type:string,\
                  metadata:string,cot:string,thinking_trajectories:list<element: string>,\
                  attempt:string,domain:string,isgeminicorrect:bool,isqwen7bcorrect:bool,\
                  isqwen32bcorrect:bool,gemini_length:int64,text:string";
    check(&[full_row(), pool_row("q"), full_row()], schema);
}
