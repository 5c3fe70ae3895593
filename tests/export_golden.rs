//! Exported checkpoints: every tensor reads back bit by bit, however many files.

use std::fs;
use std::path::Path;

use model::{Checkpoint, Layout};
use tch::Kind;
use train::config::SaveDtype;
use train::export::export;

use crate::compare::golden;

/// Exports a golden folder into `to`.
pub fn export_from(folder: &str, dtype: SaveDtype, file_limit: Option<usize>, to: &Path) {
    let checkpoint = Checkpoint::open(&golden(folder)).unwrap();
    let weights = |unit: &model::Unit| checkpoint.read_unit(unit, Kind::Float);
    export(checkpoint.config(), weights, dtype, &golden(folder), to, file_limit).unwrap();
}

/// Exports and reads back: every tensor is the golden one in `dtype`, in so many files.
#[track_caller]
fn check(folder: &str, dtype: SaveDtype, file_limit: Option<usize>, files: usize) {
    let out = tempfile::tempdir().unwrap();
    export_from(folder, dtype, file_limit, out.path());
    let kind = match dtype {
        SaveDtype::Float32 => Kind::Float,
        SaveDtype::Bfloat16 => Kind::BFloat16,
    };
    let (ours, theirs) =
        (Checkpoint::open(out.path()).unwrap(), Checkpoint::open(&golden(folder)).unwrap());
    for param in Layout::new(theirs.config()).params() {
        let (ours, theirs) = (ours.read(&param.name).unwrap(), theirs.read(&param.name).unwrap());
        assert_eq!(ours.kind(), kind, "{}", param.name);
        assert!(ours.equal(&theirs.to_kind(kind)), "{folder}: {} changed", param.name);
    }
    let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
    let names = fs::read_dir(out.path()).unwrap().map(|entry| name(entry.unwrap()));
    let weights = names.filter(|name| name.ends_with(".safetensors")).count();
    assert_eq!(weights, files, "{folder}: files of weights");
}

#[test]
fn exports_read_back_bit_by_bit() {
    check("tiny-tied-gqa4", SaveDtype::Float32, None, 1);
    check("tiny-untied-gqa1", SaveDtype::Float32, None, 1);
    check("tiny-untied-gqa4", SaveDtype::Float32, Some(35_000), 2);
    check("tiny-untied-gqa4-bf16", SaveDtype::Bfloat16, Some(1_000), 19);
    check("tiny-tied-gqa4", SaveDtype::Bfloat16, None, 1);
}
