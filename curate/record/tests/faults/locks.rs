//! T20: of two processes with the same output one is refused and told who the other is, with the
//! system's locks and on file systems that have none.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use record::lock::{Lock, holder, host};
use record::process::{Health, Process};

use crate::{OUT, alone, folder, publish, survivor};

/// A process that takes the lock of `out` in `root` until its input ends.
struct Taker {
    child: Child,
    /// What became of it: `held`, or why not.
    word: String,
    lines: BufReader<std::process::ChildStdout>,
}

/// What locks do: the system's, or `S1_NO_LOCKS`.
fn start(root: &Path, locks: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "locks::taker", "--nocapture"]).env("S1_TEST_TAKE", root.join(OUT));
    if !locks.is_empty() {
        command.env("S1_NO_LOCKS", locks);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

impl Taker {
    fn new(mut child: Child) -> Self {
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut word = String::new();
        while !word.starts_with("taker: ") {
            word.clear();
            assert!(lines.read_line(&mut word).unwrap() > 0, "it ended");
        }
        Self { child, word: word["taker: ".len()..].trim().to_owned(), lines }
    }

    fn holds(&self) -> bool {
        self.word == "held"
    }

    /// Lets it go, and returns what it printed to standard error.
    fn end(mut self) -> String {
        drop(self.child.stdin.take());
        drop(self.lines);
        let output = self.child.wait_with_output().unwrap();
        String::from_utf8(output.stderr).unwrap()
    }
}

/// The process of the tests below.
#[test]
fn taker() {
    let Some(out) = std::env::var_os("S1_TEST_TAKE") else { return };
    let lock = Lock::take(Path::new(&out));
    match &lock {
        Ok(_) => println!("\ntaker: held"),
        Err(error) => println!("\ntaker: {error:#}"),
    }
    let _ = std::io::stdin().read_line(&mut String::new());
}

fn file(root: &Path) -> PathBuf {
    root.join(format!(".{OUT}.lock"))
}

/// A lock's text as `process` writes it.
fn text(process: &Process, word: u64) -> String {
    format!("{process}\n{}\n{word:020}\n", serde_json::to_string(process).unwrap())
}

/// ENOLCK, ENOSYS and EOPNOTSUPP, the first with more time than the tests need.
const KINDS: [&str; 4] = ["", "37 6000", "38 300", "95 300"];

#[test]
fn the_second_process_is_refused_and_a_dead_one_is_not_in_the_way() {
    let _alone = alone();
    for n in 0..24 {
        let locks = KINDS[n % KINDS.len()];
        let root = folder();
        let first = Taker::new(start(root.path(), locks));
        assert!(first.holds(), "{locks}: {}", first.word);
        let second = Taker::new(start(root.path(), locks));
        let owner = format!("process {} on {}", first.child.id(), host());
        assert!(second.word.starts_with(&format!("{owner} is writing ")), "{}", second.word);
        let warned = second.end().matches("warning: the file system of").count();
        assert_eq!(warned, usize::from(!locks.is_empty()), "{locks}");
        assert!(file(root.path()).exists(), "{locks}: the refused one must leave the file alone");
        match n % 8 < 4 {
            true => {
                first.end();
                assert!(!file(root.path()).exists(), "{locks}: it tidies up");
            }
            false => {
                let Taker { mut child, .. } = first;
                child.kill().unwrap();
                child.wait().unwrap();
            }
        }
        let third = Taker::new(start(root.path(), locks));
        assert!(third.holds(), "{locks}: the other one is dead now: {}", third.word);
        third.end();
        publish(root.path(), "mine").unwrap();
        assert_eq!(survivor(root.path(), locks), "mine");
    }
}

#[test]
fn of_two_at_the_same_moment_one_has_it() {
    let _alone = alone();
    for locks in ["", "37 6000", "37 6000", "37 6000"] {
        let root = folder();
        let started = [start(root.path(), locks), start(root.path(), locks)];
        let takers = started.map(Taker::new);
        let holding = takers.iter().filter(|taker| taker.holds()).count();
        assert_eq!(holding, 1, "{locks}: {:?}", takers.each_ref().map(|taker| &taker.word));
        takers.into_iter().for_each(|taker| drop(taker.end()));
    }
}

/// Without locks, an old text may name a number that another process has now, or one of another
/// machine of the same name, which is heard or not.
#[test]
fn an_owner_is_looked_up_at_home_and_listened_for_elsewhere() {
    let _alone = alone();
    let this = Process::this();
    let earlier = Process { started: this.started - 1, ..this.clone() };
    let elsewhere = Process { machine: "another".into(), ..this.clone() };
    for (owner, speaks, locks, free) in [
        (&this, false, "37 300", false),
        (&earlier, false, "37 60000", true),
        (&elsewhere, false, "37 300", true),
        (&elsewhere, true, "37 60000", false),
    ] {
        let root = folder();
        fs::write(file(root.path()), text(owner, 0)).unwrap();
        let child = start(root.path(), locks);
        if speaks {
            thread::sleep(Duration::from_millis(300));
            fs::write(file(root.path()), text(owner, 1)).unwrap();
        }
        let begin = Instant::now();
        let taker = Taker::new(child);
        assert_eq!(taker.holds(), free, "{owner:?} {speaks}: {}", taker.word);
        assert!(begin.elapsed() < Duration::from_secs(10), "{owner:?}");
        taker.end();
    }
}

/// It speaks while it holds the lock; whoever took it meanwhile keeps it.
#[test]
fn an_owner_without_locks_speaks_and_notices_another() {
    let _alone = alone();
    let root = folder();
    let taker = Taker::new(start(root.path(), "37 300"));
    let first = fs::read_to_string(file(root.path())).unwrap();
    let begin = Instant::now();
    while fs::read_to_string(file(root.path())).unwrap() == first {
        assert!(begin.elapsed() < Duration::from_secs(5), "it is silent");
        thread::sleep(Duration::from_millis(10));
    }
    let mut other = Process::this();
    other.host = "mars".into();
    fs::write(file(root.path()), text(&other, 0)).unwrap();
    thread::sleep(Duration::from_millis(300));
    let told = taker.end();
    assert!(told.contains(&format!("error: {other} is writing ")), "{told}");
    assert_eq!(fs::read_to_string(file(root.path())).unwrap(), text(&other, 0));
}

#[test]
fn who_holds_it_can_be_asked_without_being_in_the_way() {
    let _alone = alone();
    let root = folder();
    let out = root.path().join(OUT);
    assert_eq!(holder(&out).unwrap(), None);
    let taker = Taker::new(start(root.path(), ""));
    let owner = format!("process {} on {}", taker.child.id(), host());
    assert_eq!(holder(&out).unwrap(), Some(owner));
    taker.end();
    fs::write(file(root.path()), "").unwrap();
    assert_eq!(holder(&out).unwrap(), None, "a dead one's");
    // Who asks holds the file for a moment.
    let asked = fs::File::open(file(root.path())).unwrap();
    asked.lock_shared().unwrap();
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(15));
        drop(asked);
    });
    drop(Lock::take(&out).unwrap());
}

#[test]
fn a_process_is_known_by_machine_number_and_beginning() {
    let this = Process::this();
    assert!(this.started > 0 && this.machine.len() > 40, "{this:?}");
    let with = |change: fn(&mut Process)| {
        let mut other = this.clone();
        change(&mut other);
        other.health(&this)
    };
    assert_eq!(with(|_| {}), Health::Running);
    assert_eq!(with(|it| it.started += 1), Health::Gone, "the number is another's now");
    assert_eq!(with(|it| it.id = u32::MAX), Health::Gone);
    for elsewhere in [
        with(|it| (it.id, it.host) = (u32::MAX, "mars".into())),
        with(|it| (it.id, it.machine) = (u32::MAX, "its twin".into())),
    ] {
        assert_eq!(elsewhere, Health::Running, "it cannot be looked up here");
    }
}
