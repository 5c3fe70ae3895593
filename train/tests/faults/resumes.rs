//! What `train resume` refuses, and that nothing is changed by a refusal.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use record::publish;

use crate::miniature::{Ended, Miniature, alone};

/// A run of one epoch that left after four of its six steps, saved after the third and the fourth,
/// and what it ends with if nothing happens to it.
fn left() -> (Miniature, Vec<(String, Vec<u8>)>) {
    let mini = Miniature::new("");
    let run = "run train.toml --set schedule.epochs=1";
    mini.train(&format!("{run} --set output=whole"), &[]).check(0);
    let reference = mini.result("whole");
    mini.train(run, &[("S1_FAULT", "0 3 idle term".into())]).check(75);
    assert_eq!(mini.newest("out"), 4);
    (mini, reference)
}

/// The slices of a step's checkpoint.
fn slices(mini: &Miniature, step: &str) -> PathBuf {
    mini.path("out/checkpoints").join(step).join("slices-00000-of-00001.safetensors")
}

fn flip(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(file, bytes).unwrap();
}

#[test]
fn a_run_of_which_nothing_is_whole_does_not_begin_anew_by_itself() {
    let _alone = alone();
    let (mini, reference) = left();
    flip(&slices(&mini, "step-000003"));
    flip(&slices(&mini, "step-000004"));
    let metrics = fs::read(mini.path("out/metrics.jsonl")).unwrap();
    for _ in 0..2 {
        let ended = mini.train("resume out", &[]);
        ended.check(1);
        assert!(ended.text.contains("none of the run's checkpoints is whole (2 "), "{ended:?}");
        assert_eq!(fs::read(mini.path("out/metrics.jsonl")).unwrap(), metrics);
    }
    let table = mini.train("runs out", &[]).text;
    assert_eq!(table.matches("put aside").count(), 2, "{table}");
    assert!(mini.train("verify out", &[]).check(0).text.contains("put aside"));
    // Whoever has the bytes brings them back.
    let aside = mini.path("out/checkpoints/step-000003.damaged");
    fs::rename(aside, mini.path("out/checkpoints/step-000003")).unwrap();
    flip(&slices(&mini, "step-000003"));
    mini.train("resume out", &[]).check(0);
    mini.check_same("out", &reference, "with its bytes back");
}

#[test]
fn a_checkpoint_that_cannot_be_read_is_not_called_damaged() {
    let _alone = alone();
    let (mini, reference) = left();
    let file = slices(&mini, "step-000004");
    let away = mini.path("away");
    fs::rename(&file, &away).unwrap();
    symlink(&file, &file).unwrap();
    let ended = mini.train("resume out", &[]);
    ended.check(1);
    assert!(ended.text.contains("rank 0 on ") && ended.text.contains("step-000004"), "{ended:?}");
    fs::remove_file(&file).unwrap();
    fs::rename(&away, &file).unwrap();
    assert!(mini.train("resume out", &[]).check(0).text.contains("resumes   step 4"));
    mini.check_same("out", &reference, "readable again");
}

#[test]
fn ranks_that_see_different_folders_say_so() {
    let _alone = alone();
    let (here, _) = left();
    let (there, _) = left();
    fs::remove_dir_all(there.path("out/checkpoints/step-000004")).unwrap();
    let ranks = Miniature::start_ranks_in(&[&here, &there], "resume out");
    let start = Instant::now();
    let ended = ranks.into_iter().map(|rank| Ended::wait(rank, Duration::from_secs(60)));
    let text: String = ended.map(|ended| ended.check(1).text.clone()).collect();
    assert!(text.contains(&format!("rank 1 on {}: ", record::lock::host())), "{text}");
    assert!(text.contains("out/checkpoints/step-000004"), "{text}");
    println!("{text}said after {:.1} s", start.elapsed().as_secs_f64());
    assert!(here.newest("out") == 4 && there.newest("out") == 3);
}

#[test]
fn a_run_goes_on_only_with_what_it_was_trained_with() {
    let _alone = alone();
    let (mini, reference) = left();
    let edit = |file: &str, from: &str, to: &str| {
        let text = fs::read_to_string(mini.path(file)).unwrap();
        assert!(text.contains(from), "{from} in {text}");
        fs::write(mini.path(file), text.replace(from, to)).unwrap();
    };
    for (file, from, to, expected) in [
        ("out/run.toml", "seed = 42", "seed = 43", "seed is 43, and this run was trained with 42"),
        ("out/run.toml", "global_batch = 4", "global_batch = 3", "batch.global_batch is 3"),
        ("out/run.toml", "epochs = 1", "epochs = 2", "schedule.epochs is 2"),
        ("out/run.toml", "beta1 = 0.9\n", "beta1 = 0.8\n", "optimizer.beta1 is 0.8"),
        ("base/config.json", "\"intermediate_size\":48", "\"intermediate_size\":40", "config.json"),
    ] {
        edit(file, from, to);
        let ended = mini.train("resume out", &[]);
        ended.check(1);
        assert!(ended.text.contains(expected), "{expected} in {}", ended.text);
        edit(file, to, from);
    }
    edit("out/run.toml", "keep_last = 2", "keep_last = 3");
    mini.train("resume out", &[]).check(0);
    mini.check_same("out", &reference, "with another key that is free");
    let published = publish::verify(&mini.path("out/checkpoint")).unwrap();
    let kept = &published.manifest.config["checkpoint"]["keep_last"];
    assert_eq!(kept.as_integer(), Some(3), "the manifest says what was set last");
}

#[test]
fn a_run_that_saved_something_is_only_moved_aside() {
    let _alone = alone();
    let (mini, reference) = left();
    let run = "run train.toml --set schedule.epochs=1 --overwrite";
    let saved = |run: &str| mini.path(run).join("checkpoints/step-000004/state.toml").exists();
    for aside in ["out.replaced", "out.replaced-2"] {
        let ended = mini.train(run, &[("S1_FAULT", "0 3 idle term".into())]);
        ended.check(75);
        let says = format!("the run at step 4, which waits in {aside} until the end");
        assert!(ended.text.contains(&says) && saved(aside), "{}", ended.text);
    }
    mini.train(run, &[]).check(0);
    mini.check_same("out", &reference, "the third time");
    assert!(!mini.path("out.replaced").exists() && !mini.path("out.replaced-2").exists());
}
