//! The run files that come with the repository: each loads, and fits the machine it names.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use train::config::Config;

fn configs() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/train");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|e| e == "toml")).collect();
    found.sort();
    found
}

/// Heads for keys of the published Qwen2.5 models, which bound sequence parallelism.
const KEY_HEADS: [(&str, usize); 6] =
    [("0.5B", 2), ("1.5B", 2), ("3B", 2), ("7B", 4), ("14B", 8), ("32B", 8)];

#[test]
fn every_run_loads_and_fits_its_machine() {
    let (mut outputs, mut count) = (BTreeSet::new(), 0);
    for path in configs() {
        let place = path.display();
        let text = fs::read_to_string(&path).unwrap();
        // `# s1-32B on 16x80GB: …`
        let gpus = text.split([' ', ':']).find_map(|word| word.strip_suffix("x80GB"));
        let gpus: usize = gpus.and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{place}"));
        let (config, _) = record::config::load::<Config>(&path, &[]).unwrap();
        config.check(gpus).unwrap_or_else(|error| panic!("{place}: {error:#}"));
        let heads = KEY_HEADS
            .iter()
            .find(|(size, _)| config.model.path == format!("Qwen/Qwen2.5-{size}-Instruct"));
        let (_, heads) = heads.unwrap_or_else(|| panic!("{place}: {}", config.model.path));
        assert!(heads.is_multiple_of(config.distributed.sequence_parallel), "{place}");
        assert!(config.batch.micro_batch_tokens >= config.data.block_size, "{place}");
        assert!(outputs.insert(config.output), "{place}: another run has its output");
        count += 1;
    }
    assert_eq!(count, 11);
}

#[test]
fn every_number_says_where_it_comes_from() {
    for path in configs() {
        let text = fs::read_to_string(&path).unwrap();
        for line in text.lines().filter(|line| line.contains(" = ") && !line.starts_with('#')) {
            let is_number =
                line.split(" = ").nth(1).is_some_and(|v| v.starts_with(char::is_numeric));
            assert!(!is_number || line.contains(" # "), "{}: {line}", path.display());
        }
    }
}
