//! T21: a long run takes no more memory and no more files than a short one; and what saving costs.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use model::Layout;
use train::trace::{Stage, Trace};

use crate::miniature::{Miniature, alone, count};

/// Resident bytes and open files of a process.
fn takes(process: u32) -> Option<(f64, usize)> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some((kib * 1024.0, fs::read_dir(format!("/proc/{process}/fd")).ok()?.count()))
}

#[test]
fn a_long_run_grows_neither_in_memory_nor_in_files() {
    let _alone = alone();
    let mini = Miniature::new("");
    let steps = count(1500, 50_000);
    let run = format!(
        "run train.toml --ranks 1 --set schedule.epochs={} --set checkpoint.every_steps=50",
        steps / 6
    );
    let mut child = mini.start(&run, &[]);
    let mut seen: Vec<(f64, f64, usize)> = Vec::new();
    let warm = steps / 3;
    while child.try_wait().unwrap().is_none() {
        let at = mini.steps("out");
        if let (true, Some((bytes, files))) = (at > warm, takes(child.id())) {
            seen.push((at as f64, bytes, files));
        }
        thread::sleep(Duration::from_millis(count(20, 1000) as u64));
    }
    assert!(child.wait().unwrap().success());
    let n = seen.len() as f64;
    let mean = |pick: fn(&(f64, f64, usize)) -> f64| seen.iter().map(pick).sum::<f64>() / n;
    let (x, y) = (mean(|s| s.0), mean(|s| s.1));
    let slope = seen.iter().map(|s| (s.0 - x) * (s.1 - y)).sum::<f64>()
        / seen.iter().map(|s| (s.0 - x).powi(2)).sum::<f64>();
    let least = |half: &[(f64, f64, usize)]| half.iter().map(|s| s.2).min();
    let (early, late) = seen.split_at(seen.len() / 2);
    println!("{steps} steps: {slope:.0} bytes a step, {:?} open files, {n} looks", least(late));
    assert!(slope < 1024.0, "{slope} bytes a step");
    // Between saves, which have a few files open for a moment.
    assert!(least(late) <= least(early), "{:?}, then {:?} open files", least(early), least(late));
}

/// CPU seconds of this thread.
fn cpu_seconds() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

/// A rank notes its place some times a layer; that must cost nothing beside the layer's work.
#[test]
fn a_note_takes_microseconds() {
    let _alone = alone();
    let mini = Miniature::new("");
    let layout = Layout::new(&model::Config::read(&mini.path("base")).unwrap());
    fs::create_dir(mini.path("ranks")).unwrap();
    let mut trace = Trace::default();
    trace.open(&mini.path("ranks"), 0, &layout).unwrap();
    let (notes, start) = (20_000, cpu_seconds());
    for n in 0..notes {
        trace.note(Stage::Forward, n % layout.units.len(), 128);
    }
    let micros = (cpu_seconds() - start) / notes as f64 * 1e6;
    println!("a note takes {micros:.1} microseconds of CPU time");
    assert_eq!(train::trace::read(&mini.path("ranks"))[0].notes, notes as u64);
    assert!(micros < 100.0);
}

/// Seconds from step 10 to step 119 of a larger miniature: with neither start-up nor the last save
/// and the export, which every run has.
fn seconds(mini: &Miniature, every_steps: usize) -> f64 {
    let run = format!(
        "run train.toml --overwrite --ranks 2 --set checkpoint.every_steps={every_steps} --set \
         schedule.epochs=20"
    );
    let mut child = mini.start(&run, &[]);
    let mut reach = |step: usize| {
        // `--overwrite` leaves the finished run before it in its place until this one begins.
        while !(step..120).contains(&mini.steps("out")) {
            assert!(child.try_wait().unwrap().is_none(), "it ended before step {step} was seen");
            thread::sleep(Duration::from_millis(2));
        }
        Instant::now()
    };
    let begin = reach(10);
    let seconds = (reach(119) - begin).as_secs_f64();
    assert!(child.wait().unwrap().success());
    seconds
}

/// What saving every 20 steps adds to a step, by turns. On a CPU the saving thread takes its time
/// from the training threads, so this is its whole work; a GPU's step would not see it.
#[test]
fn saving_costs_a_step_little() {
    let _alone = alone();
    if std::env::var_os("S1_FULL").is_none() {
        return;
    }
    let mini = Miniature::new("");
    let path = mini.path("base/config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for (key, value) in [("hidden_size", 256), ("intermediate_size", 768), ("num_hidden_layers", 6)]
    {
        config[key] = value.into();
    }
    fs::write(&path, config.to_string()).unwrap();
    let start = Instant::now();
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..7 {
        without.push(seconds(&mini, 100_000));
        with.push(seconds(&mini, 20));
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let (with, without) = (median(&mut with), median(&mut without));
    let overhead = with / without - 1.0;
    println!(
        "109 steps: {without:.2} s, with a save every 20 steps {with:.2} s: {:.1}% ({:.0} s in all)",
        100.0 * overhead,
        start.elapsed().as_secs_f64()
    );
    assert!(overhead < 0.05);
}
