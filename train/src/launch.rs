//! Local ranks as processes of this program.

use std::net::TcpListener;
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use c10d::Rank;

/// Starts this program again once for each of `ranks` ranks, with the same arguments and
/// torchrun's variables, and waits for all. When one fails, the others are stopped.
///
/// # Errors
/// Names the rank that failed first; its own message stands above.
pub fn launch(ranks: usize) -> Result<()> {
    ensure!(ranks > 0, "--ranks 0: at least one rank is needed");
    let program = std::env::current_exe().context("finding this program's file")?;
    // The port is free now; the moment until rank 0 binds it is the price of not handing a
    // socket from parent to child.
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let threads = thread::available_parallelism().map_or(1, usize::from) / ranks;
    let mut children = Vec::new();
    for rank in 0..ranks {
        let mut command = Command::new(&program);
        command.args(std::env::args_os().skip(1)).envs(Rank::local(rank, ranks, port).to_env());
        if std::env::var_os("OMP_NUM_THREADS").is_none() {
            command.env("OMP_NUM_THREADS", threads.max(1).to_string());
        }
        children.push(command.spawn().with_context(|| format!("starting rank {rank}"))?);
    }
    let outcome = wait_for_all(&mut children);
    for child in &mut children {
        let _ = child.kill();
        let _ = child.wait();
    }
    outcome
}

fn wait_for_all(children: &mut [Child]) -> Result<()> {
    let mut running: Vec<usize> = (0..children.len()).collect();
    while !running.is_empty() {
        for rank in running.clone() {
            if let Some(status) = children[rank].try_wait()? {
                running.retain(|other| *other != rank);
                check(rank, status, running.len())?;
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn check(rank: usize, status: ExitStatus, others: usize) -> Result<()> {
    if !status.success() {
        bail!("rank {rank} failed ({status}); the other {others} ranks were stopped");
    }
    Ok(())
}
