//! T1: kill -9 of a random process at a random moment, and resume.

use std::time::{Duration, Instant};

use crate::miniature::{Ended, Miniature, alone, children, count, dice, signal, sleep_up_to};

const LONG: Duration = Duration::from_secs(120);

#[test]
fn a_run_killed_at_any_moment_ends_with_the_same_bytes() {
    let _alone = alone();
    let mini = Miniature::new("");
    let start = Instant::now();
    mini.train("run train.toml --ranks 2 --set output=whole", &[]).check(0);
    let unbroken = start.elapsed();
    let reference = mini.result("whole");
    let mut dice = dice("kills");
    let (mut kills, mut runs, mut lost) = (0, 0, Vec::new());
    while kills < count(12, 100) {
        runs += 1;
        let mut command = "run train.toml --ranks 2 --overwrite";
        loop {
            let launcher = mini.start(command, &[]);
            let moment = sleep_up_to(unbroken.mul_f64(1.2), &mut dice);
            let mut targets = children(launcher.id());
            targets.push(launcher.id());
            let target = targets[dice.below(targets.len() as u64) as usize];
            let before = mini.steps("out");
            signal(target, "KILL");
            let ended = Ended::wait(launcher, LONG);
            let what = format!("kill {kills}, after {moment:?}, in step {before}");
            if ended.code == Some(0) {
                break;
            }
            kills += 1;
            let saved = mini.newest("out");
            if mini.path("out/run.toml").exists() {
                lost.push(mini.steps("out").saturating_sub(saved));
                command = "resume out --ranks 2";
            }
            assert!(ended.code.is_none() || ended.code == Some(1), "{what}: {}", ended.text);
        }
        mini.check_same("out", &reference, "after its kills");
    }
    let most = lost.iter().max().copied().unwrap_or(0);
    println!(
        "{kills} kills in {runs} runs, all ended with the unbroken run's bytes; steps lost: mean \
         {:.1}, most {most}",
        lost.iter().sum::<usize>() as f64 / lost.len() as f64
    );
    // At most what lies between two saves, and the save that was under way.
    assert!(most <= 2 * 3, "{lost:?}");
}
