//! The run files that come with the repository: each loads, and fits the machine it names.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use train::balance::Spread;
use train::config::Config;
use train::plan::hardware::Hardware;
use train::plan::lengths::Lengths;
use train::plan::{Plan, memory, report, shapes};
use train::words::size;

fn configs() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/train");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|e| e == "toml")).collect();
    found.sort();
    found
}

/// The header's words in one line, and the hardware it names: `# s1-32B on 16x80GB: …`.
fn header(text: &str) -> (String, String) {
    let lines: Vec<&str> = text.lines().map_while(|line| line.strip_prefix('#')).collect();
    let words: Vec<&str> = lines.iter().flat_map(|line| line.split_whitespace()).collect();
    let gpus = words.iter().map(|word| word.trim_end_matches([':', ',', '.']));
    let gpus = gpus.clone().find(|word| word.ends_with("x80GB")).expect("it names its hardware");
    (words.join(" "), gpus.to_string())
}

/// Heads for keys of the published Qwen2.5 models, which bound sequence parallelism.
const KEY_HEADS: [(&str, usize); 6] =
    [("0.5B", 2), ("1.5B", 2), ("3B", 2), ("7B", 4), ("14B", 8), ("32B", 8)];

#[test]
fn every_run_loads_and_divides_its_machine() {
    let (mut outputs, mut count) = (BTreeSet::new(), 0);
    for path in configs() {
        let place = path.display();
        let text = fs::read_to_string(&path).unwrap();
        let gpus = Hardware::parse(&header(&text).1, None).unwrap().ranks();
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

/// What `train plan` with the data's modelled lengths says first: memory at the peak, time, GPU-hours.
fn planned(path: &Path, sets: &[&str]) -> String {
    let place = path.display();
    let (_, gpus) = header(&fs::read_to_string(path).unwrap());
    let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
    let (config, _) = record::config::load::<Config>(path, &sets).unwrap();
    let spread = Spread::of(&config.data.examples);
    let lengths = Lengths::modelled(spread, None, 1000, config.data.block_size);
    let model = shapes::published(&config.model.path).unwrap();
    let plan = Plan::new(&config, model, Hardware::parse(&gpus, None).unwrap(), lengths).unwrap();
    let text = report::table(&plan, "the run", 2.5, false);
    assert!(plan.fits(), "{place}: {text}");
    // Whatever the data's lengths are: a pass filled to the brim.
    let most = config.batch.micro_batch_tokens.max(config.data.block_size);
    let (tokens, targets) = plan.job.part(most, most);
    let full = memory::peak(&plan.job, tokens, targets, false).bytes();
    assert!(full <= plan.job.limit, "{place}: {} in a full pass", size(full));
    let first = text.lines().next().expect("a verdict");
    first.rsplit(": ").next().expect("after the hardware").to_string()
}

#[test]
fn every_run_fits_on_its_machine_as_its_header_says() {
    for path in configs() {
        let place = path.display();
        let (header, _) = header(&fs::read_to_string(&path).unwrap());
        let found = planned(&path, &[]);
        eprintln!("{}: {found}", path.file_name().unwrap().display());
        assert!(header.contains(&found), "{place}: the plan says `{found}`, the header another");
        if let Some((_, fallback)) = header.split_once("--set ") {
            let set = fallback.split_whitespace().next().expect("what to set").replace('\'', "");
            let found = planned(&path, &[&set]);
            eprintln!("  with {set}: {found}");
            assert!(fallback.contains(&found), "{place} with {set}: the plan says `{found}`");
        }
    }
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
