//! T8: SIGTERM or SIGUSR1 to one rank at a random moment: all save and leave, and go on later.

use std::time::{Duration, Instant};

use crate::miniature::{Ended, Miniature, alone, children, count, dice, signal, sleep_up_to};

/// What `train` documents: all is saved, run me again.
const AGAIN: i32 = 75;

#[test]
fn a_rank_that_is_asked_to_leave_takes_all_with_it() {
    let _alone = alone();
    let mini = Miniature::new("");
    let start = Instant::now();
    mini.train("run train.toml --ranks 2 --set output=whole", &[]).check(0);
    let unbroken = start.elapsed();
    let reference = mini.result("whole");
    let mut dice = dice("leaving");
    let (mut asked, mut moments) = (0, Vec::new());
    while asked < count(12, 100) {
        let mut command = "run train.toml --ranks 2 --overwrite";
        loop {
            let launcher = mini.start(command, &[]);
            let moment = sleep_up_to(unbroken.mul_f64(1.1), &mut dice);
            let mut targets = children(launcher.id());
            if !targets.is_empty() {
                // Before that, it is the program of nobody yet.
                targets.push(launcher.id());
            }
            let name = ["TERM", "USR1"][dice.below(2) as usize];
            if !targets.is_empty() {
                signal(targets[dice.below(targets.len() as u64) as usize], name);
            }
            let ended = Ended::wait(launcher, Duration::from_secs(60));
            let what = format!("{name} {asked}, after {moment:?}: {}", ended.text);
            if ended.code == Some(0) {
                break;
            }
            asked += 1;
            assert_eq!(ended.code, Some(AGAIN), "{what}");
            if mini.path("out/run.toml").exists() {
                // Whatever was trained is saved: the current step, not the last regular save.
                assert_eq!(mini.newest("out"), mini.steps("out"), "{what}");
                command = "resume out";
            }
            moments.push(mini.steps("out"));
        }
        mini.check_same("out", &reference, "after its preemptions");
    }
    println!("{asked} preemptions, after steps {moments:?}");
}

/// Of a run that ends so early only its folder can say how many ranks it had.
#[test]
fn a_run_that_ends_before_its_first_note_goes_on_on_as_many_ranks() {
    let _alone = alone();
    let mini = Miniature::new("");
    let run = "run train.toml --ranks 2 --set schedule.epochs=1";
    mini.train(&format!("{run} --set output=whole"), &[]).check(0);
    let reference = mini.result("whole");
    for (how, code) in [("term", AGAIN), ("kill", 1)] {
        let fault = [("S1_FAULT", format!("0 0 folder {how}"))];
        mini.train(&format!("{run} --overwrite"), &fault).check(code);
        assert!(mini.path("out/run.toml").exists() && mini.notes("out").is_empty(), "{how}");
        mini.train("resume out", &[]).check(0);
        mini.check_same("out", &reference, how);
    }
}

/// Without our launcher: the ranks agree by themselves, each with the same code.
#[test]
fn ranks_leave_together_without_a_launcher() {
    let _alone = alone();
    let mini = Miniature::new("");
    for place in ["0 0 prepare", "1 0 prepare", "0 0 folder"] {
        let fault = [("S1_FAULT", format!("{place} term"))];
        for rank in mini.start_ranks("run train.toml --overwrite", 2, &fault) {
            Ended::wait(rank, Duration::from_secs(60)).check(AGAIN);
        }
    }
    // At a save the next one follows a step later: one's end and the other's beginning meet.
    for place in ["1 5 forward", "0 6 save", "1 9 save", "0 12 save", "1 30 export"] {
        let fault = [("S1_FAULT", format!("{place} term"))];
        for rank in mini.start_ranks("run train.toml --overwrite", 2, &fault) {
            let ended = Ended::wait(rank, Duration::from_secs(60));
            let late = place.ends_with("export") && ended.code == Some(0);
            assert!(late || ended.code == Some(AGAIN), "{place}: {ended:?}");
        }
        for rank in mini.start_ranks("resume out", 2, &[]) {
            Ended::wait(rank, Duration::from_secs(60)).check(0);
        }
    }
}

/// Nothing but a run has anything to save.
#[test]
fn other_commands_end_at_a_signal() {
    let _alone = alone();
    let mini = Miniature::new("");
    let made = std::process::Command::new("mkfifo").arg(mini.path("pipe.toml")).status().unwrap();
    assert!(made.success());
    for command in ["show pipe.toml", "plan pipe.toml --gpus cpu"] {
        for name in ["TERM", "USR1"] {
            // It waits for a config that nobody writes.
            let child = mini.start(command, &[]);
            std::thread::sleep(Duration::from_millis(500));
            signal(child.id(), name);
            let ended = Ended::wait(child, Duration::from_secs(10));
            assert_eq!(ended.code, None, "{command}: {}", ended.text);
        }
    }
}
