//! T2, T4: every change on the disk that a run makes dies or fails once.

use crate::miniature::{Ended, Miniature, alone, count};

/// Runs with `fault` at change 1, 1 + stride, ... until none is left, and resumes each to its end;
/// how many there were. `check` looks at how the run ended.
#[track_caller]
fn at_every_change(ranks: usize, fault: &str, check: impl Fn(&Ended, &str)) -> usize {
    let mini = Miniature::new("");
    let run = format!("run train.toml --ranks {ranks} --overwrite --set schedule.epochs=1");
    mini.train(&format!("{run} --set output=whole"), &[]).check(0);
    let reference = mini.result("whole");
    let stride = count(6, 1);
    let (mut at, mut tried) = (1, 0);
    loop {
        let what = format!("{fault}, change {at}, {ranks} ranks");
        let place = fault.replace('@', &format!("@{at}"));
        let ended = mini.train(&run, &[("S1_DISK_FAULT", place)]);
        let struck = ended.code != Some(0) || ended.text.contains("cannot");
        if !struck && at > 20 {
            println!("{fault}, {ranks} ranks: {tried} positions up to change {at}");
            return tried;
        }
        check(&ended, &what);
        mini.newest("out");
        if mini.path("out/run.toml").exists() {
            let resumed = mini.train(&format!("resume out --ranks {ranks}"), &[]);
            assert_eq!(resumed.code, Some(0), "{what}: {}\nthen {}", ended.text, resumed.text);
            mini.check_same("out", &reference, &what);
            let left = std::fs::read_dir(mini.path("out/checkpoints")).unwrap();
            let hidden =
                left.filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with('.'));
            assert_eq!(hidden.count(), 0, "{what}: something is left over");
        }
        at += stride;
        tried += 1;
    }
}

#[test]
fn a_run_killed_at_any_change_on_the_disk_goes_on() {
    let _alone = alone();
    for ranks in [1, 2] {
        at_every_change(ranks, "kill@", |_, _| ());
    }
}

#[test]
fn a_disk_that_fails_once_costs_no_checkpoint() {
    let _alone = alone();
    for fault in ["enospc@", "eio@"] {
        at_every_change(1, fault, |ended, what| {
            assert!(ended.text.contains("os error"), "{what}: lost in silence: {}", ended.text);
            assert!(matches!(ended.code, Some(0 | 1)), "{what}: {ended:?}");
        });
    }
}

#[test]
fn a_disk_that_stays_full_is_said_and_costs_no_checkpoint() {
    let _alone = alone();
    at_every_change(2, "enospc@+", |ended, what| {
        assert!(ended.text.contains("No space left"), "{what}: {}", ended.text);
        assert_eq!(ended.code, Some(1), "{what}");
    });
}

/// A log that cannot be written costs neither the training nor, in the end, a line.
#[test]
fn a_log_that_cannot_be_written_costs_no_training() {
    let _alone = alone();
    let mini = Miniature::new("");
    let run = "run train.toml --set schedule.epochs=1";
    mini.train(&format!("{run} --set output=whole"), &[]).check(0);
    let reference = mini.result("whole");
    let mut told = [0, 0];
    // Odd ones: the last step's line is the 59th change.
    for at in (1..80).step_by(count(2, 1)) {
        let fault = [("S1_DISK_FAULT", format!("enospc@{at}"))];
        let ended = mini.train(&format!("{run} --overwrite"), &fault);
        let logs = ["metrics.jsonl", "tensorboard/"];
        let is_log = |line: &&str| line.contains("; training goes on");
        let Some(line) = ended.text.lines().find(is_log) else { continue };
        ended.check(0);
        let which = logs.iter().position(|log| line.contains(log));
        told[usize::from(which == Some(1))] += 1;
        mini.check_same("out", &reference, &format!("{line}, change {at}"));
    }
    assert!(told.iter().all(|times| *times > 2), "{told:?}");
}
