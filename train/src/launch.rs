//! Local ranks as processes of this program.

use std::io::Read;
use std::net::TcpListener;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use c10d::Rank;

/// Set in the processes that [`launch`] starts.
const LAUNCHED: &str = "S1_LAUNCHED";

/// Whether [`launch`] started this process.
pub fn is_launched() -> bool {
    std::env::var_os(LAUNCHED).is_some()
}

/// In a launched process: ends it when the launching one ends, however that ends. The launcher
/// holds the other end of our standard input and never writes.
pub fn follow_launcher() {
    thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        c10d::aten::exit_at_once(1);
    });
}

/// Starts this program again once for each of `ranks` ranks, with the same arguments and
/// torchrun's variables, and waits for all. When one fails, the others are stopped; when this
/// process is killed, all end.
///
/// # Errors
/// Names the rank that failed first; its own message stands above.
pub fn launch(ranks: usize) -> Result<()> {
    let program = std::env::current_exe().context("finding this program's file")?;
    // The port is free now; the moment until rank 0 binds it is the price of not handing a
    // socket from parent to child.
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let threads = thread::available_parallelism().map_or(1, usize::from) / ranks;
    let mut children = Children(Vec::new());
    for rank in 0..ranks {
        let mut command = Command::new(&program);
        command.args(std::env::args_os().skip(1)).envs(Rank::local(rank, ranks, port).to_env());
        command.env(LAUNCHED, "1").stdin(Stdio::piped());
        if std::env::var_os("OMP_NUM_THREADS").is_none() {
            command.env("OMP_NUM_THREADS", threads.max(1).to_string());
        }
        if std::env::var_os("TORCH_CPP_LOG_LEVEL").is_none() {
            // What fails is our error to report; libtorch's log adds pages of C++ frames.
            command.env("TORCH_CPP_LOG_LEVEL", "FATAL");
        }
        children.0.push(command.spawn().with_context(|| format!("starting rank {rank}"))?);
    }
    wait_for_all(&mut children.0)
}

/// The ranks' processes; none outlives it.
struct Children(Vec<Child>);

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn wait_for_all(children: &mut [Child]) -> Result<()> {
    let mut running: Vec<usize> = (0..children.len()).collect();
    while !running.is_empty() {
        for rank in running.clone() {
            if let Some(status) = children[rank].try_wait()? {
                running.retain(|other| *other != rank);
                check(rank, status)?;
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn check(rank: usize, status: ExitStatus) -> Result<()> {
    ensure!(status.success(), "rank {rank} ended with {status}; the others were stopped");
    Ok(())
}
