//! What can be on a disk after a power cut: of the changes that no flush covers yet, any subset,
//! each write whole, half or as zeros.

use std::fs;
use std::path::Path;

use record::disk::Change;
use record::seed::{self, Rng};

/// One thing that can be found after the power is back.
#[derive(Debug, Clone)]
pub struct State {
    /// How many changes had been made.
    pub after: usize,
    /// What became of each of them.
    fates: Vec<Fate>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Done,
    Lost,
    Half,
    Zeros,
}

/// For the power cut after each change: everything done, nothing done that may be lost, and
/// `random` draws between.
pub fn crash_states(changes: &[Change], random: u64) -> Vec<State> {
    let mut states = Vec::new();
    for after in 0..=changes.len() {
        let free: Vec<bool> = (0..after).map(|n| !is_flushed(changes, n, after)).collect();
        let fates = |draw: &mut dyn FnMut() -> Fate| {
            free.iter().map(|free| if *free { draw() } else { Fate::Done }).collect()
        };
        states.push(State { after, fates: fates(&mut || Fate::Done) });
        states.push(State { after, fates: fates(&mut || Fate::Lost) });
        for n in 0..random {
            let mut rng = seed::rng(n, &["crash", &after.to_string()]);
            states.push(State { after, fates: fates(&mut || draw(&mut rng)) });
        }
    }
    states
}

fn draw(rng: &mut Rng) -> Fate {
    match rng.uniform() {
        x if x < 0.4 => Fate::Done,
        x if x < 0.8 => Fate::Lost,
        x if x < 0.9 => Fate::Half,
        _ => Fate::Zeros,
    }
}

/// Whether a flush among the first `after` changes covers change `n`.
fn is_flushed(changes: &[Change], n: usize, after: usize) -> bool {
    let flush = match &changes[n] {
        Change::Append(path, _) => Change::SyncFile(path.clone()),
        Change::MakeFolder(path)
        | Change::MakeFile(path)
        | Change::Remove(path)
        | Change::Rename(path, _) => {
            Change::SyncFolder(path.parent().expect("not the root").to_path_buf())
        }
        Change::SyncFile(_) | Change::SyncFolder(_) => return true,
    };
    changes[n..after].contains(&flush)
}

impl State {
    /// Makes in `to` the changes that were made in `from`, as far as they came. One that needs
    /// another that was lost is lost too.
    pub fn apply(&self, changes: &[Change], from: &Path, to: &Path) {
        let at = |path: &Path| to.join(path.strip_prefix(from).expect("inside"));
        for (change, fate) in changes.iter().zip(&self.fates) {
            let _ = match (change, fate) {
                (_, Fate::Lost) | (Change::SyncFile(_) | Change::SyncFolder(_), _) => Ok(()),
                (Change::MakeFolder(path), _) => fs::create_dir(at(path)),
                (Change::MakeFile(path), _) => fs::File::create(at(path)).map(drop),
                (Change::Append(path, bytes), fate) => append(&at(path), bytes, *fate),
                (Change::Rename(a, b), _) => fs::rename(at(a), at(b)),
                (Change::Remove(path), _) if at(path).is_dir() => fs::remove_dir(at(path)),
                (Change::Remove(path), _) => fs::remove_file(at(path)),
            };
        }
    }
}

fn append(path: &Path, bytes: &[u8], fate: Fate) -> std::io::Result<()> {
    let mut whole = fs::read(path)?;
    match fate {
        Fate::Half => whole.extend(&bytes[..bytes.len() / 2]),
        Fate::Zeros => whole.resize(whole.len() + bytes.len(), 0),
        _ => whole.extend(bytes),
    }
    fs::write(path, whole)
}

/// Copies a folder's files and folders.
pub fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            fs::create_dir(&to).unwrap();
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).unwrap();
        }
    }
}
