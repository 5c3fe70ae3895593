//! The miniature's world: its tables hold what they promise, the same on every run.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use record::question::question_hash;
use record::table;
use serde_json::Value;

fn make(folder: &Path) {
    let target = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_path_buf();
    let program = target.join("examples/miniature");
    assert!(program.exists(), "`cargo test -p curate` builds {}", program.display());
    let status = Command::new(program).arg(folder).status().unwrap();
    assert!(status.success());
}

#[test]
fn the_world_has_a_pool_with_flaws_and_questions_apart_from_it() {
    let [one, two] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    [&one, &two].iter().for_each(|folder| make(folder.path()));
    for name in ["pool.parquet", "eval.jsonl", "lessons.jsonl", "model/tokenizer.json"] {
        let [a, b] = [&one, &two].map(|folder| fs::read(folder.path().join(name)).unwrap());
        assert!(a == b, "{name} is another one the second time");
    }
    let pool = table::read_rows(&one.path().join("pool.parquet")).unwrap();
    assert_eq!(pool.len(), 59_029);
    let domains: BTreeSet<_> = pool.iter().filter_map(|row| row.domain.as_deref()).collect();
    assert_eq!(domains.len(), 12);
    let texts: BTreeSet<_> = pool.iter().map(|row| question_hash(&row.question)).collect();
    assert_eq!(pool.len() - texts.len(), 780, "duplicates");

    // A third of the long held-out questions stands in the pool word for word, the others nowhere.
    let eval = fs::read_to_string(one.path().join("eval.jsonl")).unwrap();
    let eval: Vec<Value> = eval.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let leaked = eval.iter().filter(|row| texts.contains(row["id"].as_str().unwrap()));
    let long = eval.iter().filter(|row| row["steps"].as_u64() > Some(8)).count();
    assert_eq!((eval.len(), leaked.count()), (288, long / 3));

    // Hasty and misreading teachers come to wrong answers, but to more right ones.
    let right = pool.iter().filter(|row| {
        let solution = row.solution.as_ref().map(|name| format!("Final Answer: {name}"));
        solution.is_some() && solution == row.attempt
    });
    let share = right.count() as f64 / pool.len() as f64;
    println!("{:.1}% of the teachers' answers are right", 100.0 * share);
    assert!((0.5..0.9).contains(&share), "{share}");
}
