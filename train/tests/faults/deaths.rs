//! T5, T6, T7: ranks that die, stop or are slow, and what the others say.

use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use crate::miniature::{Ended, Miniature, alone, count, lives, signal};

const LONG: Duration = Duration::from_secs(120);

/// Waits until the rank that is struck is gone or stopped; when that was.
fn struck(child: &Child, how: &str) -> Instant {
    let stopped = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.contains(") T")
    };
    let start = Instant::now();
    loop {
        let there = if how == "stop" { stopped(child.id()) } else { !lives(child.id()) };
        if there {
            return Instant::now();
        }
        assert!(start.elapsed() < LONG, "nobody was struck");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Strikes rank `victim` of `ranks` in `stage` of step 5; the others must end within `limit` and
/// name it. `apart`: each rank counts as on a machine of its own.
fn check_struck(
    mini: &Miniature,
    (ranks, apart): (usize, bool),
    (victim, stage, how): (usize, &str, &str),
    limit: Duration,
) -> f64 {
    let what = format!("rank {victim} of {ranks} in {stage}: {how}, apart: {apart}");
    let timeout = "run train.toml --overwrite --set distributed.timeout_seconds=3";
    let (step, seen) = match stage {
        // In a thread of its own, while training goes on.
        "write" => (6, "last seen in step ".into()),
        "save" => (6, "last seen in step 6".to_owned()),
        "export" => (30, "last seen in step 30, the export".into()),
        _ => (5, "last seen in step 5".into()),
    };
    let mut variables = vec![("S1_FAULT", format!("{victim} {step} {stage} {how}"))];
    if apart {
        variables.push(("S1_HOST", "machine%".into()));
    }
    let mut ranks = mini.start_ranks(timeout, ranks, &variables);
    let moment = struck(&ranks[victim], how);
    let mut victim_process = ranks.remove(victim);
    let wait = |rank| Ended::wait(rank, limit + Duration::from_secs(20));
    let survivors: Vec<Ended> = ranks.into_iter().map(wait).collect();
    let seconds = moment.elapsed().as_secs_f64();
    victim_process.kill().unwrap();
    victim_process.wait().unwrap();
    let state = match how {
        _ if apart => "no word from it",
        "stop" => "it is stopped",
        _ => "it is gone",
    };
    for Ended { code, text } in survivors {
        assert_eq!(code, Some(1), "{what}: {text}");
        for part in [format!("rank {victim} (process"), seen.clone(), state.into()] {
            assert!(text.contains(&part), "{what}: {part:?} is missing in {text}");
        }
        let error = text.split_once("error: ").map_or("", |(_, error)| error);
        assert!(!error.contains("frame #"), "{what}: {text}");
        let collective = ["all_gather", "reduce_scatter", "all_reduce", "all_to_all"];
        let is_named = collective.iter().any(|name| text.contains(name));
        assert!(is_named || !["forward", "backward", "sum"].contains(&stage), "{what}: {text}");
        assert_eq!(text.matches(" (process").count(), 1, "{what}: it alone is named: {text}");
    }
    assert!(seconds < limit.as_secs_f64(), "{what}: {seconds:.1} s");
    seconds
}

#[test]
fn a_dead_rank_is_named_within_five_seconds() {
    let _alone = alone();
    let mini = Miniature::new("");
    let (mut worst, mut times) = (0.0f64, 0);
    for _ in 0..count(1, 10) {
        for stage in ["forward", "backward", "sum", "update", "save", "write", "export"] {
            for victim in [0, 1] {
                let limit = Duration::from_secs(5);
                let fault = (victim, stage, "kill");
                worst = worst.max(check_struck(&mini, (2, false), fault, limit));
                times += 1;
            }
        }
    }
    println!("{times} dead ranks, each named; the slowest after {worst:.2} s");
}

#[test]
fn a_stuck_rank_is_named_within_the_timeout_and_two_seconds() {
    let _alone = alone();
    let mini = Miniature::new("");
    let (mut worst, mut times) = (0.0f64, 0);
    for n in 0..count(4, 20) {
        let stage = ["backward", "export", "sum", "forward", "update"][n / 2 % 5];
        let fault = (n % 2, stage, "stop");
        worst = worst.max(check_struck(&mini, (2, false), fault, Duration::from_secs(5)));
        times += 1;
    }
    println!("{times} stuck ranks, each named; the slowest after {worst:.2} s at a timeout of 3 s");
}

/// Of a rank on another machine nobody sees whether it lives; but it does not say where it is.
#[test]
fn a_rank_on_another_machine_is_named() {
    let _alone = alone();
    let mini = Miniature::new("");
    let mut worst = 0.0f64;
    for (ranks, victim, stage, how) in [
        (2, 1, "backward", "stop"),
        (2, 0, "forward", "stop"),
        (2, 1, "sum", "kill"),
        (2, 0, "update", "kill"),
        (3, 2, "backward", "stop"),
        (2, 1, "export", "stop"),
        (2, 0, "export", "kill"),
    ] {
        let fault = (victim, stage, how);
        worst = worst.max(check_struck(&mini, (ranks, true), fault, Duration::from_secs(5)));
    }
    println!("ranks on other machines, each named; the slowest after {worst:.2} s");
}

/// Its process runs, but not on to where the others wait.
#[test]
fn a_busy_rank_is_named() {
    let _alone = alone();
    let mini = Miniature::new("");
    let run = "run train.toml --overwrite --set distributed.timeout_seconds=3";
    for stage in ["forward", "backward", "sum"] {
        let fault = format!("1 5 {stage} 20000");
        let mut ranks = mini.start_ranks(run, 2, &[("S1_FAULT", fault.clone())]);
        let arrived = |note: &train::trace::Note| {
            note.rank == 1 && note.step == 5 && note.stage.name() == stage
        };
        let start = Instant::now();
        while !mini.notes("out").iter().any(arrived) {
            assert!(start.elapsed() < LONG, "{fault}: it never came there");
            thread::sleep(Duration::from_millis(2));
        }
        let moment = Instant::now();
        let Ended { code, text } = Ended::wait(ranks.remove(0), LONG);
        let seconds = moment.elapsed().as_secs_f64();
        ranks[0].kill().unwrap();
        ranks[0].wait().unwrap();
        assert_eq!(code, Some(1), "{fault}: {text}");
        assert!(text.contains("error: rank 1 (process"), "{fault}: {text}");
        assert!(text.contains("last seen in step 5"), "{fault}: {text}");
        assert!(seconds < 5.0, "{fault}: {seconds:.1} s");
    }
}

/// A rank that fails for a reason of its own: all say which and why, with and without a launcher.
#[test]
fn a_rank_that_fails_by_itself_is_heard() {
    let _alone = alone();
    let mini = Miniature::new("");
    for (n, fault, place) in [
        (2, "1 5 forward fail", "rank 1, in "),
        (2, "0 5 backward fail", "rank 0, in "),
        (3, "2 5 sum fail", "rank 2, in "),
        (2, "1 30 export fail", "a bug in train"),
    ] {
        let victim = &fault[..1];
        let variables = [("S1_FAULT", fault.to_string())];
        let start = Instant::now();
        let ranks = mini.start_ranks("run train.toml --overwrite", n, &variables);
        let mut texts: Vec<String> = Vec::new();
        for rank in ranks {
            let ended = Ended::wait(rank, LONG);
            ended.check(1);
            texts.push(ended.text);
        }
        println!("{fault}: {:.1} s", start.elapsed().as_secs_f64());
        let launched = mini.train(&format!("run train.toml --overwrite --ranks {n}"), &variables);
        texts.push(launched.check(1).text.clone());
        for text in texts {
            for part in [place, "struck, as S1_FAULT says", &format!("rank {victim}")] {
                assert!(text.contains(part), "{fault}: {part:?} is missing in {text}");
            }
            for other in (0..n).map(|rank| rank.to_string()).filter(|rank| rank != victim) {
                assert!(!text.contains(&format!("rank {other} (process")), "{fault}: {text}");
            }
        }
    }
}

/// Under our own launcher nothing is left behind, and the launcher names the rank.
#[test]
fn the_launcher_names_a_rank_and_leaves_no_process() {
    let _alone = alone();
    let mini = Miniature::new("");
    for (fault, expected) in [
        ("1 5 backward kill", "last seen in step 5, layers.1 (backward)"),
        ("0 5 sum stop", "last seen in step 5, the sum of loss and norm: it is stopped"),
    ] {
        let command = "run train.toml --overwrite --ranks 2 --set distributed.timeout_seconds=3";
        let ended = mini.train(command, &[("S1_FAULT", fault.into())]);
        ended.check(1);
        assert!(ended.text.contains(expected), "{fault}: {}", ended.text);
        for note in mini.notes("out") {
            assert!(!lives(note.process.id), "{fault}: {note:?} still runs");
        }
    }
}

/// T7: long work on one rank, before the first step and at the end, is under no timeout.
#[test]
fn a_slow_rank_is_waited_for() {
    let _alone = alone();
    let mini = Miniature::new("");
    let command = "run train.toml --overwrite --ranks 2 --set distributed.timeout_seconds=1";
    for _ in 0..count(1, 10) {
        for place in ["0 0 prepare", "1 0 prepare", "0 30 export", "1 30 export"] {
            let start = Instant::now();
            mini.train(command, &[("S1_FAULT", format!("{place} 3000"))]).check(0);
            assert!(start.elapsed() > Duration::from_secs(3), "{place}: nobody was slow");
        }
    }
}

/// A rank that is stopped and goes on in time is no fault.
#[test]
fn a_pause_is_no_fault() {
    let _alone = alone();
    let mini = Miniature::new("");
    let fault = [("S1_FAULT", "1 5 backward stop".to_string())];
    let mut ranks = mini.start_ranks("run train.toml", 2, &fault);
    struck(&ranks[1], "stop");
    thread::sleep(Duration::from_millis(500));
    signal(ranks[1].id(), "CONT");
    for rank in ranks.drain(..) {
        Ended::wait(rank, LONG).check(0);
    }
}
