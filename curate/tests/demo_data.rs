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

/// The first command of curate/README.md, as it stands there, into a folder of the test.
#[test]
fn the_readmes_first_command_runs() {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(crate_folder.join("README.md")).unwrap();
    let block = readme.split("```").nth(1).unwrap().strip_prefix("sh\n").unwrap();
    let command = block.replace("\\\n", " ");
    let arguments = command.trim().strip_prefix("target/debug/curate ").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let output = format!("output={}", folder.path().join("out").display());
    let mut curate = Command::new(env!("CARGO_BIN_EXE_curate"));
    curate.args(arguments.split_whitespace()).args(["--set", &output]);
    let out = curate.current_dir(crate_folder.join("..")).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(String::from_utf8_lossy(&out.stdout).contains("500"), "500 are selected");
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
