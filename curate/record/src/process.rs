//! Which process something belongs to, and whether it is still there.

use std::fmt;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// A process, told apart from those of other machines and from a later one of the same number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub id: u32,
    /// Its machine's name, for messages: machines made from one image may share it.
    pub host: String,
    /// Its machine: what the kernel drew at its start, and the numbering of processes that it is in
    /// (a container has one of its own).
    pub machine: String,
    /// When it began, in the kernel's ticks; 0 where that is not known.
    pub started: u64,
}

/// What a process looks like from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It runs, or is on another machine.
    Running,
    /// It is stopped (SIGSTOP, a debugger).
    Stopped,
    /// There is no such process.
    Gone,
}

impl Process {
    /// This one.
    pub fn this() -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let numbering = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        let machine = format!("{} {}", boot.trim(), numbering.display());
        let started = look(std::process::id()).map_or(0, |(_, started)| started);
        Self { id: std::process::id(), host: host(), machine, started }
    }

    /// Whether both are on one machine, where each can look the other up.
    pub fn is_beside(&self, other: &Process) -> bool {
        (&self.host, &self.machine) == (&other.host, &other.machine)
    }

    /// How it is, seen from `here`, a process that runs on this machine.
    pub fn health(&self, here: &Process) -> Health {
        if !self.is_beside(here) || !Path::new("/proc/self/stat").exists() {
            return Health::Running;
        }
        match look(self.id) {
            None | Some(('Z' | 'X', _)) => Health::Gone,
            Some((_, started)) if started != self.started => Health::Gone,
            Some(('T' | 't', _)) => Health::Stopped,
            Some(_) => Health::Running,
        }
    }
}

/// State and beginning of the process `id` of this machine, from /proc.
fn look(id: u32) -> Option<(char, u64)> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The fields from the third on are behind the program's name, which is in brackets.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    Some((fields.next()?.chars().next()?, fields.nth(18)?.parse().ok()?))
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on {}", self.id, self.host)
    }
}

/// This machine's name.
pub fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => std::env::var("HOSTNAME").unwrap_or_else(|_| "this host".into()),
        name => name.to_owned(),
    }
}
