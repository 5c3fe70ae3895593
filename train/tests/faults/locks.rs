//! T20: a second process on the same run folder is refused, and a dead one is not in the way.

use std::thread;
use std::time::Duration;

use crate::miniature::{Miniature, alone, count, signal};

#[test]
fn the_second_run_is_refused() {
    let _alone = alone();
    let mini = Miniature::new("");
    for n in 0..count(3, 50) {
        let ranks = 1 + n % 2;
        let out = format!("out{n}");
        let long = "--set schedule.epochs=5000 --set checkpoint.every_steps=1000";
        let run = format!("run train.toml --ranks {ranks} --set output={out} {long}");
        let mut first = mini.start(&run, &[]);
        while mini.steps(&out) == 0 {
            assert!(first.try_wait().unwrap().is_none(), "it ended");
            thread::sleep(Duration::from_millis(20));
        }
        let owner = mini.notes(&out)[0].process.id;
        let expected = format!("process {owner} on {} is writing {out}", record::lock::host());
        for command in ["run train.toml --overwrite", "run train.toml", "resume"] {
            let command = match command {
                "resume" => format!("resume {out} --ranks 2"),
                run => format!("{run} --set output={out}"),
            };
            let second = mini.train(&command, &[]);
            second.check(1);
            assert!(second.text.contains(&expected), "{command}: {}", second.text);
        }
        let table = mini.train(&format!("runs {out}"), &[]).text;
        assert!(table.contains("running: "), "{table}");
        signal(first.id(), "KILL");
        first.wait().unwrap();
        while mini.notes(&out).iter().any(|note| crate::miniature::lives(note.process.id)) {
            thread::sleep(Duration::from_millis(20));
        }
        let table = mini.train("runs .", &[]).text;
        assert!(table.contains("stopped; `train resume`"), "{table}");
        let fault = [("S1_FAULT", "0 0 prepare term".to_string())];
        mini.train(&format!("resume {out}"), &fault).check(75);
    }
}
