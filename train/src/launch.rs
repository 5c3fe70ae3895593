//! Local ranks as processes of this program.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use c10d::aten::exit_at_once;
use c10d::{Children, Rank};

use crate::run::Ending;
use crate::signals::{self, AGAIN};
use crate::trace;

/// Set in the processes that [`launch`] starts.
const LAUNCHED: &str = "S1_LAUNCHED";

/// Whether [`launch`] started this process.
pub fn is_launched() -> bool {
    std::env::var_os(LAUNCHED).is_some()
}

/// In a launched process: ends it when the launching one ends, however that ends, and does what it
/// says meanwhile. It holds the other end of our standard input.
pub fn follow_launcher() {
    thread::spawn(|| {
        for line in std::io::stdin().lines().map_while(std::io::Result::ok) {
            match line.as_str() {
                LEAVE => signals::ask(),
                // Nobody is there any more to leave with.
                LEFT => exit_at_once(AGAIN.into()),
                _ => {}
            }
        }
        exit_at_once(1);
    });
}

/// What the launcher says: please leave; others have left.
const LEAVE: &str = "leave";
const LEFT: &str = "left";

/// Starts this program again once for each of `ranks` ranks, with the same arguments and
/// torchrun's variables, and waits for all. When one fails, the others are stopped; when this
/// process is killed, all end; when it is asked to leave, it asks them. `notes` is where they note
/// what they do.
///
/// # Errors
/// Names the rank that failed first; its own message stands above.
pub fn launch(ranks: usize, notes: &Path) -> Result<Ending> {
    let program = std::env::current_exe().context("finding this program's file")?;
    // The port is free now; the moment until rank 0 binds it is the price of not handing a
    // socket from parent to child.
    let port = Rank::free_port()?;
    let threads = thread::available_parallelism().map_or(1, usize::from) / ranks;
    let mut children = Children::default();
    for rank in 0..ranks {
        let mut command = Command::new(&program);
        command.args(std::env::args_os().skip(1)).envs(Rank::local(rank, ranks, port).to_env());
        command.env(LAUNCHED, "1").stdin(Stdio::piped());
        if std::env::var_os("OMP_NUM_THREADS").is_none() {
            command.env("OMP_NUM_THREADS", threads.max(1).to_string());
        }
        children.0.push(command.spawn().with_context(|| format!("starting rank {rank}"))?);
    }
    wait(&mut children, notes)
}

fn wait(children: &mut Children, notes: &Path) -> Result<Ending> {
    let (mut asked, mut ending) = (false, Ending::Finished);
    loop {
        if signals::asked() && !asked {
            asked = true;
            say(children, LEAVE);
        }
        let ended = children.ended()?;
        if ending == Ending::Finished && ended.iter().any(|(_, status)| has_left(*status)) {
            ending = Ending::Left;
            say(children, LEFT);
        }
        let failed = |(_, status): &&(usize, ExitStatus)| !status.success() && !has_left(*status);
        if let Some((rank, status)) = ended.iter().find(failed) {
            let what = describe(children, *rank, *status, notes);
            let_speak(children);
            bail!("{what}; the others were stopped");
        }
        if ended.len() == children.0.len() {
            return Ok(ending);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Whom its last words accuse may not be who ended first.
fn describe(children: &Children, rank: usize, status: ExitStatus, notes: &Path) -> String {
    let mut notes = trace::read(notes);
    // Those of an earlier run may still lie there.
    notes.retain(|note| children.0.iter().any(|child| child.id() == note.process.id));
    if let Some(failed) = notes.iter().find(|note| note.failed.is_some()) {
        return format!("{}: it failed", failed.describe());
    }
    match notes.iter().find(|note| note.rank == rank) {
        Some(note) if status.signal().is_some() => {
            format!("{}, ended with {status}", note.describe())
        }
        _ => format!("rank {rank} ended with {status}"),
    }
}

fn let_speak(children: &mut Children) {
    let start = Instant::now();
    let are_all_gone =
        |children: &mut Children| children.ended().is_ok_and(|e| e.len() == children.0.len());
    while start.elapsed() < LAST_WORDS && !are_all_gone(children) {
        thread::sleep(Duration::from_millis(20));
    }
}

fn say(children: &mut Children, word: &str) {
    for child in &mut children.0 {
        if let Some(pipe) = &mut child.stdin {
            // Who has ended hears nothing.
            let _ = writeln!(pipe, "{word}");
        }
    }
}

/// How long ranks may take to say why they end when one has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Whether a rank ended as it was asked to, perhaps before it could listen to signals.
fn has_left(status: ExitStatus) -> bool {
    status.code() == Some(AGAIN.into())
        || status.signal().is_some_and(|signal| signals::SIGNALS.contains(&signal))
}
