//! T10: every decision of a step is in its state: a run resumed anywhere decides as the whole did.

use std::fs;
use std::ops::Range;
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

/// A run of STEPS steps, saved at each, in which the steps `odd` look at nonsense.
fn mini(odd: Range<usize>) -> Miniature {
    let mini = Miniature::new("[guard]\nloss_spike = { window = 8, factor = 1.6 }\n");
    let config = fs::read_to_string(mini.path("train.toml")).unwrap();
    let config = config
        .replace("epochs = 5", "epochs = 1")
        .replace("every_steps = 3", "every_steps = 1\nkeep_last = 99");
    fs::write(mini.path("train.toml"), config).unwrap();
    let mut order: Vec<usize> = (0..4 * STEPS).collect();
    seed::rng(42, &["order", "0"]).shuffle(&mut order);
    let odd = &order[4 * odd.start..4 * odd.end];
    mini.examples(4 * STEPS, |n| match odd.contains(&n) {
        true => ("# Z ~ Q ; X ] W } K { J".into(), "? V < Y > P".into()),
        false => (format!("{n} and one."), (n + 1).to_string()),
    });
    mini
}

/// Makes `out` what `whole` was when it had done `from` steps.
fn go_back(mini: &Miniature, from: usize) {
    let _ = fs::remove_dir_all(mini.path("out"));
    copy(&mini.path("whole"), &mini.path("out"));
    let _ = fs::remove_file(mini.path("out/summary.txt"));
    for checkpoint in Checkpoints::of(&mini.path("out")).list().unwrap() {
        if checkpoint.step > from {
            fs::remove_dir_all(checkpoint.path).unwrap();
        }
    }
}

#[test]
fn a_lasting_rise_stops_the_run_at_the_same_step_resumed_or_not() {
    let _alone = alone();
    let mini = mini(SPIKE..STEPS);
    let whole = mini.train("run train.toml --set output=whole", &[]);
    whole.check(1);
    let lines = |text: &str| -> Vec<String> {
        let error = text.lines().skip_while(|line| !line.starts_with("error: "));
        error.map(str::to_owned).collect()
    };
    let expected = lines(&whole.text);
    let says = "4 steps in a row were left out as spikes: the ";
    assert!(expected[0].contains(says), "{}", whole.text);
    assert!(!mini.path("whole/summary.txt").exists(), "it is no finished run");
    assert!(Checkpoints::of(&mini.path("whole")).list().unwrap().len() > SPIKE);
    for from in [SPIKE - 3, SPIKE + 1] {
        go_back(&mini, from);
        let ended = mini.train("resume out", &[]);
        ended.check(1);
        assert_eq!(lines(&ended.text), expected, "resumed from step {from}: {}", ended.text);
    }
    // Who takes the new level says so, and the run goes on from where it stopped.
    let config = fs::read_to_string(mini.path("whole/run.toml")).unwrap();
    fs::write(mini.path("whole/run.toml"), config.replace("factor = 1.6", "factor = 16.0"))
        .unwrap();
    let ended = mini.train("resume whole", &[]);
    ended.check(0);
    assert!(ended.text.contains("steps left out as spikes, 0 computed again"), "{}", ended.text);
}

#[test]
fn a_resumed_run_leaves_out_the_same_steps() {
    let _alone = alone();
    let mini = mini(SPIKE..SPIKE + 1);
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
        go_back(&mini, from);
        let ended = mini.train("resume out", &[]);
        ended.check(0);
        assert!(ended.text.contains(&format!("resumes   step {from}, example {}", 4 * from)));
        mini.check_same("out", &reference, &format!("resumed from step {from}"));
        resumed += 1;
    }
    println!("steps left out: {skipped:?}; the same after {resumed} resumes");
}
