//! The bundled data is what its generator writes, byte for byte.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every file under `folder`, by its path inside.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    let bytes = fs::read(&path).unwrap();
                    found.push((path.strip_prefix(folder).unwrap().to_path_buf(), bytes));
                }
            }
        }
    }
    found.sort();
    found
}

#[test]
fn the_bundled_data_is_what_the_generator_writes() {
    let target = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_path_buf();
    let generator = target.join("examples/demo_data");
    assert!(generator.exists(), "`cargo test -p curate` builds {}", generator.display());
    let folder = tempfile::tempdir().unwrap();
    let status = Command::new(generator).arg(folder.path()).status().unwrap();
    assert!(status.success());
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/demo");
    let (written, committed) = (files(folder.path()), files(&committed));
    let names = |files: &[(PathBuf, Vec<u8>)]| -> Vec<PathBuf> {
        files.iter().map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(names(&written), names(&committed));
    for ((name, found), (_, expected)) in written.iter().zip(&committed) {
        assert!(
            found == expected,
            "data/demo/{} is stale: run `cargo run -p curate --example demo_data -- data/demo`",
            name.display()
        );
    }
}
