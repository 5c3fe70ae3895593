//! A run small enough to be killed a hundred times: folder, config, processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use record::publish;
use record::seed::{self, Rng};
use serde_json::{Value, json};
use train::checkpoints::Checkpoints;
use train::trace::{self, Note};

/// `few` of something, or `full` under `S1_FULL=1`.
pub fn count(few: usize, full: usize) -> usize {
    if std::env::var_os("S1_FULL").is_some() { full } else { few }
}

/// The seed of a test's moments, printed so that a failure can be repeated (`S1_SEED`).
pub fn dice(test: &str) -> Rng {
    let seed = std::env::var("S1_SEED").map_or(7, |text| text.parse().expect("a number"));
    println!("{test}: S1_SEED={seed}");
    seed::rng(seed, &[test])
}

/// One test at a time: they measure time, and two cores are all there may be.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A folder with a model's shape, examples and `train.toml`.
pub struct Miniature {
    folder: tempfile::TempDir,
}

impl Miniature {
    /// 24 short examples in 5 epochs of 6 steps, saved every third step; `more` is added to the
    /// config.
    pub fn new(more: &str) -> Self {
        // In memory if there is such a place: these tests flush thousands of times.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/demo/model");
        let base = folder.path().join("base");
        fs::create_dir(&base).unwrap();
        for file in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
            fs::copy(demo.join(file), base.join(file)).unwrap();
        }
        let text = fs::read_to_string(demo.join("config.json")).unwrap();
        let mut config: Value = serde_json::from_str(&text).unwrap();
        for (key, value) in [
            ("hidden_size", 32),
            ("intermediate_size", 48),
            ("num_hidden_layers", 2),
            ("num_attention_heads", 4),
            ("num_key_value_heads", 2),
        ] {
            config[key] = value.into();
        }
        fs::write(base.join("config.json"), config.to_string()).unwrap();
        let this = Self { folder };
        this.examples(24, |n| (format!("{n} and one."), (n + 1).to_string()));
        let config = format!(
            "seed = 42\noutput = \"out\"\n\
             [data]\nexamples = \"examples.jsonl\"\nblock_size = 128\nover_long = \"error\"\n\
             [model]\npath = \"base\"\ninit = \"random\"\n\
             [optimizer]\nlearning_rate = 1e-2\nbeta1 = 0.9\nbeta2 = 0.95\neps = 1e-8\n\
             weight_decay = 1e-4\nmax_grad_norm = 1.0\n\
             [batch]\nglobal_batch = 4\nmicro_batch_tokens = 64\n\
             [schedule]\nepochs = 5\nwarmup_ratio = 0.1\n\
             [checkpoint]\nevery_steps = 3\n{more}"
        );
        fs::write(this.path("train.toml"), config).unwrap();
        this
    }

    /// Writes the examples anew: reasoning and answer of each.
    pub fn examples(&self, rows: usize, text: impl Fn(usize) -> (String, String)) {
        let row = |n: usize| {
            let (thinking, attempt) = text(n);
            json!({
                "question": format!("What follows {n}?"), "cot_type": "math", "source_type": "t",
                "metadata": "", "thinking_trajectories": [thinking], "attempt": attempt,
            })
        };
        let rows: Vec<String> = (0..rows).map(|n| row(n).to_string()).collect();
        fs::write(self.path("examples.jsonl"), rows.join("\n")).unwrap();
    }

    /// Of something in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `train` with arguments separated by spaces, and environment variables.
    pub fn command(&self, arguments: &str, variables: &[(&str, String)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_train"));
        command.current_dir(self.folder.path()).args(arguments.split_whitespace());
        for name in ["RANK", "S1_FAULT", "S1_DISK_FAULT", "S1_HOST"] {
            command.env_remove(name);
        }
        command.env("OMP_NUM_THREADS", "1");
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::null());
        command
    }

    /// Runs `train` to its end.
    pub fn train(&self, arguments: &str, variables: &[(&str, String)]) -> Ended {
        Ended::new(self.command(arguments, variables).output().unwrap())
    }

    /// Starts `train`.
    pub fn start(&self, arguments: &str, variables: &[(&str, String)]) -> Child {
        self.command(arguments, variables).spawn().unwrap()
    }

    /// Starts the ranks one by one, as torchrun does, with `variables`, in which a `%` is the rank.
    pub fn start_ranks(
        &self,
        arguments: &str,
        n: usize,
        variables: &[(&str, String)],
    ) -> Vec<Child> {
        let port = c10d::Rank::free_port().unwrap();
        let rank = |rank| {
            let mut place = c10d::Rank::local(rank, n, port).to_env().to_vec();
            let of_rank = |text: &String| text.replace('%', &rank.to_string());
            place.extend(variables.iter().map(|(name, value)| (*name, of_rank(value))));
            self.start(arguments, &place)
        };
        (0..n).map(rank).collect()
    }

    /// Starts one rank in each of `folders`, as on machines whose folders differ.
    pub fn start_ranks_in(folders: &[&Self], arguments: &str) -> Vec<Child> {
        let port = c10d::Rank::free_port().unwrap();
        let place = |rank| c10d::Rank::local(rank, folders.len(), port).to_env();
        let start = |(rank, folder): (usize, &&Self)| folder.start(arguments, &place(rank));
        folders.iter().enumerate().map(start).collect()
    }

    /// The last notes of a run's ranks.
    pub fn notes(&self, run: &str) -> Vec<Note> {
        trace::read(&self.path(run).join("ranks"))
    }

    /// Lines of a run's metrics.
    pub fn steps(&self, run: &str) -> usize {
        let text = fs::read_to_string(self.path(run).join("metrics.jsonl")).unwrap_or_default();
        text.lines().count()
    }

    /// The step of a run's newest checkpoint, which must be whole; 0 if there is none.
    #[track_caller]
    pub fn newest(&self, run: &str) -> usize {
        let Some(newest) = Checkpoints::of(&self.path(run)).list().unwrap().pop() else {
            return 0;
        };
        publish::verify(&newest.path).unwrap_or_else(|error| panic!("{error:#}"));
        newest.step
    }

    /// What a run must end with to the bit: metrics, last slices and state, model.
    #[track_caller]
    pub fn result(&self, run: &str) -> Vec<(String, Vec<u8>)> {
        let run = self.path(run);
        let last = Checkpoints::of(&run).list().unwrap().pop().expect("the run is saved").path;
        publish::verify(&last).unwrap();
        publish::verify(&run.join("checkpoint")).unwrap();
        let mut files = vec![run.join("metrics.jsonl")];
        for folder in [last, run.join("checkpoint")] {
            files.extend(fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
        }
        // The manifest holds the command line and the output's name.
        files.retain(|file| !file.ends_with("manifest.json"));
        files.sort();
        let name = |file: &Path| file.strip_prefix(&run).unwrap().display().to_string();
        files.iter().map(|file| (name(file), fs::read(file).unwrap())).collect()
    }

    /// That `run` ended as `reference` did.
    #[track_caller]
    pub fn check_same(&self, run: &str, reference: &[(String, Vec<u8>)], what: &str) {
        let result = self.result(run);
        let names = |files: &[(String, Vec<u8>)]| -> Vec<String> {
            files.iter().map(|(name, _)| name.clone()).collect()
        };
        assert_eq!(names(&result), names(reference), "{what}");
        for ((name, found), (_, expected)) in result.iter().zip(reference) {
            assert!(found == expected, "{what}: {name} differs from the unbroken run's");
        }
    }
}

/// A program that ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; none after a signal.
    pub code: Option<i32>,
    /// Everything it printed.
    pub text: String,
}

impl Ended {
    /// Of a program's output.
    pub fn new(output: Output) -> Self {
        let text = [output.stderr, output.stdout].concat();
        Self { code: output.status.code(), text: String::from_utf8_lossy(&text).into_owned() }
    }

    /// Waits for `child`, at most `limit`.
    #[track_caller]
    pub fn wait(child: Child, limit: Duration) -> Self {
        // Read all the while: a pipe that is full would hold the child.
        let (process, start) = (child.id(), Instant::now());
        let output = thread::spawn(|| child.wait_with_output().unwrap());
        while !output.is_finished() {
            if start.elapsed() > limit {
                signal(process, "KILL");
                let text = Self::new(output.join().unwrap()).text;
                panic!("still running after {limit:?}: {text}");
            }
            thread::sleep(Duration::from_millis(5));
        }
        Self::new(output.join().unwrap())
    }

    /// That it ended with `code`.
    #[track_caller]
    pub fn check(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{}", self.text);
        self
    }
}

/// Sends a signal, as `kill -NAME`; a process that is gone is none of our business.
pub fn signal(process: u32, name: &str) {
    let mut kill = Command::new("sh");
    kill.args(["-c", &format!("kill -{name} {process}")]).stderr(Stdio::null()).status().unwrap();
}

/// The processes that `launcher` started, the first is rank 0.
pub fn children(launcher: u32) -> Vec<u32> {
    let path = format!("/proc/{launcher}/task/{launcher}/children");
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// Whether a process is there and no zombie.
pub fn lives(process: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.contains(") ") && !stat.contains(") Z ")
}

/// A moment up to `most` from now.
pub fn sleep_up_to(most: Duration, dice: &mut Rng) -> Duration {
    let moment = most.mul_f64(dice.uniform());
    thread::sleep(moment);
    moment
}
