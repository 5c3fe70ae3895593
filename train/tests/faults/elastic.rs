//! T9, T12: another number of ranks, and the same number again and again.

use std::fs;

use serde_json::Value;

use crate::miniature::{Miniature, alone, count};

/// Losses and tokens of all steps.
fn metrics(mini: &Miniature, run: &str) -> Vec<(f64, u64)> {
    let text = fs::read_to_string(mini.path(run).join("metrics.jsonl")).unwrap();
    let line = |line: &str| {
        let value: Value = serde_json::from_str(line).unwrap();
        (value["loss"].as_f64().unwrap(), value["tokens"].as_u64().unwrap())
    };
    text.lines().map(line).collect()
}

/// A run that begins on `worlds[0]` ranks and goes on on the others, ten steps on each.
fn over(mini: &Miniature, worlds: [usize; 3]) -> Vec<(f64, u64)> {
    let leave = |step: usize| [("S1_FAULT", format!("0 {step} idle term"))];
    let [first, second, third] = worlds;
    let run = format!("run train.toml --overwrite --ranks {first}");
    mini.train(&run, &leave(9)).check(75);
    assert_eq!(mini.newest("out"), 10);
    mini.train(&format!("resume out --ranks {second}"), &leave(19)).check(75);
    assert_eq!(mini.newest("out"), 20);
    mini.train(&format!("resume out --ranks {third}"), &[]).check(0);
    metrics(mini, "out")
}

/// The same examples in the same steps, and losses as near as sums in another order can be.
#[test]
fn a_run_goes_on_on_another_number_of_ranks() {
    let _alone = alone();
    let mini = Miniature::new("[distributed]\ntimeout_seconds = 60\n");
    let config = fs::read_to_string(mini.path("train.toml")).unwrap();
    let config = config.replace("global_batch = 4", "global_batch = 12");
    let config = config.replace("epochs = 5", "epochs = 15").replace("1e-2", "1e-3");
    fs::write(mini.path("train.toml"), config).unwrap();
    mini.train("run train.toml --set output=one", &[]).check(0);
    let reference = metrics(&mini, "one");
    let few = [[4, 2, 1], [1, 4, 2], [2, 2, 2]];
    let all = [[4, 2, 1], [1, 4, 2], [2, 2, 2], [2, 1, 4], [4, 1, 4], [1, 2, 4], [4, 4, 4]];
    let mut worst = 0.0f64;
    for worlds in all.into_iter().take(count(few.len(), all.len())) {
        let found = over(&mini, worlds);
        assert_eq!(found.len(), reference.len(), "{worlds:?}");
        if let [n, m, l] = worlds
            && n == m
            && m == l
        {
            mini.train(&format!("run train.toml --set output=same{n} --ranks {n}"), &[]).check(0);
            assert_eq!(found, metrics(&mini, &format!("same{n}")), "{worlds:?}: not to the bit");
        }
        for (step, (a, b)) in found.iter().zip(&reference).enumerate() {
            assert_eq!(a.1, b.1, "{worlds:?}: other examples in step {step}");
            worst = worst.max((a.0 / b.0 - 1.0).abs());
        }
    }
    println!("largest relative difference of a loss: {worst:.1e}");
    assert!(worst < 1e-5);
}

/// T12: the same config gives the same files, whatever the threads; with two ranks as well.
#[test]
fn the_same_run_gives_the_same_files() {
    let _alone = alone();
    let mini = Miniature::new("");
    for (ranks, threads) in [(1, ["1", "2"]), (2, ["1", "2"])] {
        let mut reference = None;
        for n in 0..count(2, 5) {
            for threads in threads {
                let command = format!("run train.toml --overwrite --ranks {ranks}");
                let variables = [("OMP_NUM_THREADS", threads.to_string())];
                mini.train(&command, &variables).check(0);
                let what = format!("{ranks} ranks, {threads} threads, run {n}");
                match &reference {
                    None => reference = Some(mini.result("out")),
                    Some(reference) => mini.check_same("out", reference, &what),
                }
            }
        }
    }
}
