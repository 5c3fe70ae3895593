//! T10: every decision of a step is in its state: a run resumed anywhere decides as the whole did.

use std::fs;
use std::path::Path;

use record::seed;
use train::checkpoints::Checkpoints;

use crate::miniature::{Miniature, alone, count};

const STEPS: usize = 40;
/// From 0: the step that is to look like a spike.
const SPIKE: usize = 20;

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).unwrap();
        }
    }
}

#[test]
fn a_resumed_run_leaves_out_the_same_steps() {
    let _alone = alone();
    let mini = Miniature::new("[guard]\nloss_spike = { window = 8, factor = 1.6 }\n");
    let config = fs::read_to_string(mini.path("train.toml")).unwrap();
    let config = config
        .replace("epochs = 5", "epochs = 1")
        .replace("every_steps = 3", "every_steps = 1\nkeep_last = 99");
    fs::write(mini.path("train.toml"), config).unwrap();
    // Nonsense where step SPIKE looks.
    let mut order: Vec<usize> = (0..4 * STEPS).collect();
    seed::rng(42, &["order", "0"]).shuffle(&mut order);
    let odd = &order[4 * SPIKE..4 * (SPIKE + 1)];
    mini.examples(4 * STEPS, |n| match odd.contains(&n) {
        true => ("# Z ~ Q ; X ] W } K { J".into(), "? V < Y > P".into()),
        false => (format!("{n} and one."), (n + 1).to_string()),
    });
    mini.train("run train.toml --set output=whole", &[]).check(0);
    let text = fs::read_to_string(mini.path("whole/metrics.jsonl")).unwrap();
    let skipped: Vec<usize> = text
        .lines()
        .enumerate()
        .filter(|(_, line)| line.contains("\"skipped\":true"))
        .map(|(step, _)| step)
        .collect();
    assert!(skipped.contains(&SPIKE), "{skipped:?}: {text}");
    let reference = mini.result("whole");
    let mut resumed = 0;
    for from in (1..STEPS).step_by(count(7, 1)) {
        let _ = fs::remove_dir_all(mini.path("out"));
        copy(&mini.path("whole"), &mini.path("out"));
        fs::remove_file(mini.path("out/summary.txt")).unwrap();
        for checkpoint in Checkpoints::of(&mini.path("out")).list().unwrap() {
            if checkpoint.step > from {
                fs::remove_dir_all(checkpoint.path).unwrap();
            }
        }
        let ended = mini.train("resume out", &[]);
        ended.check(0);
        assert!(ended.text.contains(&format!("resumes   step {from}, example {}", 4 * from)));
        mini.check_same("out", &reference, &format!("resumed from step {from}"));
        resumed += 1;
    }
    println!("steps left out: {skipped:?}; the same after {resumed} resumes");
}
