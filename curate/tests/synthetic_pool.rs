//! The pool made for measurements: the same bytes every time, and something for every stage.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use record::table;

fn make(folder: &Path, rows: &str) {
    let target = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_path_buf();
    let generator = target.join("examples/synthetic_pool");
    assert!(generator.exists(), "`cargo test -p curate` builds {}", generator.display());
    let made = Command::new(generator).arg(folder).arg(rows).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

#[test]
fn the_synthetic_pool_is_reproducible_and_has_the_published_shape() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    make(&first, "590");
    make(&second, "590");
    for file in ["pool.parquet", "held_out.jsonl"] {
        assert_eq!(fs::read(first.join(file)).unwrap(), fs::read(second.join(file)).unwrap());
    }
    let rows = table::read_rows(&first.join("pool.parquet")).unwrap();
    let mut sources: BTreeMap<&str, usize> = BTreeMap::new();
    for row in &rows {
        *sources.entry(row.source_type.split('/').next().unwrap()).or_default() += 1;
    }
    assert_eq!(rows.len(), 590);
    // A hundredth of the published sizes: NuminaMATH 30,660; MATH, s1-prob, s1-teasers 12,204.
    for (name, published) in [("AI-MO", 306), ("qfq", 122), ("GAIR", 42), ("baber", 24)] {
        assert!(sources[name].abs_diff(published) <= 2, "{} rows of {name}", sources[name]);
    }
    let tokens: Vec<i64> = rows.iter().filter_map(|row| row.gemini_length).collect();
    let mean = tokens.iter().sum::<i64>() / tokens.len() as i64;
    assert!((3_400..3_800).contains(&mean), "{mean} tokens on average, published are 3.6K");
    let bytes: usize = rows.iter().map(|row| row.thinking_trajectories.concat().len()).sum();
    assert!((15_000..17_000).contains(&(bytes / rows.len())), "{bytes} bytes of traces");
}
