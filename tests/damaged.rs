//! Exported checkpoints under damage: no flipped byte passes the manifest's digests.

use std::fs;
use std::path::{Path, PathBuf};

use record::publish::{Manifest, OutputFolder, verify};
use record::seed;
use train::config::SaveDtype;

use crate::export_golden::export_from;

const FLIPS: usize = 250;

/// Every file of a folder with its length, by name.
fn files(folder: &Path) -> Vec<(PathBuf, u64)> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    let mut files: Vec<_> = entries.map(|e| (e.path(), e.metadata().unwrap().len())).collect();
    files.sort();
    files
}

/// Publishes a golden folder as `train` does, then flips single bytes at random places of all its
/// files, the manifest's too.
#[track_caller]
fn check(folder: &str, dtype: SaveDtype, file_limit: Option<usize>) {
    let out = tempfile::tempdir().unwrap();
    let checkpoint = out.path().join("checkpoint");
    let output = OutputFolder::create(&checkpoint, false).unwrap();
    export_from(folder, 2, dtype, file_limit, output.path());
    output.finish(Manifest { tool: "train".into(), ..Manifest::default() }).unwrap();
    verify(&checkpoint).unwrap();
    let files = files(&checkpoint);
    let total: u64 = files.iter().map(|(_, bytes)| bytes).sum();
    let mut rng = seed::rng(13, &["damage", folder]);
    for _ in 0..FLIPS {
        let (mut at, mask) = (rng.below(total), 1 + rng.below(255) as u8);
        let file = files.iter().find_map(|(path, bytes)| {
            let here = at < *bytes;
            at -= if here { 0 } else { *bytes };
            here.then_some(path)
        });
        let path = file.expect("a place in one of the files");
        let whole = fs::read(path).unwrap();
        let mut damaged = whole.clone();
        damaged[at as usize] ^= mask;
        fs::write(path, damaged).unwrap();
        let place = || format!("{folder}: byte {at} of {} xor {mask:#04x}", path.display());
        let error = verify(&checkpoint).err().unwrap_or_else(|| panic!("{} passes", place()));
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(format!("{error:#}").contains(name), "{}: {error:#}", place());
        fs::write(path, whole).unwrap();
    }
    verify(&checkpoint).unwrap();
    let count = files.len();
    println!("{folder} as {dtype:?}: {FLIPS} of {FLIPS} flips in {count} files refused");
}

#[test]
fn a_thousand_flipped_bytes_are_all_refused() {
    check("tiny-tied-gqa4", SaveDtype::Float32, None);
    check("tiny-tied-gqa1", SaveDtype::Bfloat16, Some(20_000));
    check("tiny-untied-gqa4", SaveDtype::Float32, Some(35_000));
    check("tiny-untied-gqa1", SaveDtype::Bfloat16, None);
}
