//! Publishing under faults: at every change on the disk the process dies, the disk fills or errs,
//! or the power goes; whatever happens, the old output or the new one is there, whole.
//!
//! In a process of their own, one at a time, since a watched disk is watched for all threads.

mod locks;
mod replay;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use record::disk::{self, Fault, NewFile, Seen};
use record::publish::{self, Manifest, OutputFolder};

/// The output that every test publishes over and over.
const OUT: &str = "out";

fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Publishes `out` in `root` anew: a text, a file of known digest, a folder in the folder.
fn publish(root: &Path, text: &str) -> Result<()> {
    let folder = OutputFolder::create(&root.join(OUT), true)?;
    let mut manifest = Manifest { tool: "test".into(), ..Manifest::default() };
    let mut large = NewFile::create(&folder.path().join("large"))?;
    large.append(&[7; 3000])?;
    large.append(text.as_bytes())?;
    manifest.files.insert("large".into(), large.finish()?);
    disk::make_folder(&folder.path().join("more"))?;
    disk::write(&folder.path().join("more/text.txt"), text.as_bytes())?;
    folder.finish(manifest)
}

/// What a checkpoint's save does: the new folder first, then the old one goes.
fn save(root: &Path, text: &str) -> Result<()> {
    publish(root, text)?;
    publish::remove(&root.join("old"))
}

/// Which of the two texts is published, after the next start has cleared up; neither is a failure.
#[track_caller]
fn survivor(root: &Path, what: &str) -> String {
    let out = root.join(OUT);
    publish::clear_leftovers(&out).unwrap();
    publish::clear_leftovers(&root.join("old")).unwrap();
    publish::verify(&out).unwrap_or_else(|error| panic!("{what}: {error:#}"));
    let left: Vec<_> = fs::read_dir(root).unwrap().map(|e| e.unwrap().file_name()).collect();
    let hidden = left.iter().filter(|name| name.to_string_lossy().starts_with('.'));
    // A dead process's lock is free, its file stays until the next one takes it.
    let rest = hidden.filter(|name| !name.to_string_lossy().ends_with(".lock")).count();
    assert_eq!(rest, 0, "{what}: leftovers {left:?}");
    fs::read_to_string(out.join("more/text.txt")).unwrap()
}

/// In memory if there is such a place: these tests flush thousands of times.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A root with `one` published as `out`, and `old`.
fn root() -> tempfile::TempDir {
    let root = folder();
    publish(root.path(), "old").unwrap();
    fs::rename(root.path().join(OUT), root.path().join("old")).unwrap();
    publish(root.path(), "one").unwrap();
    root
}

fn watched(root: &Path, fault: Option<(u64, Fault)>) -> (Result<()>, Seen) {
    disk::watch(fault.is_none(), fault);
    let result = save(root, "two");
    (result, disk::unwatch())
}

/// Runs `save` with `fault` at position 1, 2, ... until none is left; how many there were.
fn at_every_position(mut each: impl FnMut(u64) -> bool) -> u64 {
    let mut position = 1;
    while each(position) {
        position += 1;
    }
    position - 1
}

#[test]
fn whichever_change_fails_one_whole_output_is_left() {
    let _alone = alone();
    let (enospc, eio) = (28, 5);
    for fault in [
        Fault::Dead,
        Fault::Once(enospc),
        Fault::Once(eio),
        Fault::Lasting(enospc),
        Fault::Lasting(eio),
    ] {
        let positions = at_every_position(|position| {
            let root = root();
            let (result, seen) = watched(root.path(), Some((position, fault)));
            let what = format!("{fault:?} at {position}");
            let text = survivor(root.path(), &what);
            if seen.count < position {
                assert!(result.is_ok() && text == "two", "{what}: nothing was to fail");
                return false;
            }
            // Only what cannot be removed of a replaced output may fail in silence.
            assert!(result.is_err() || text == "two", "{what}: lost in silence");
            if let (Err(error), Fault::Once(_) | Fault::Lasting(_)) = (&result, fault) {
                let error = format!("{error:#}");
                assert!(error.contains("cannot") && error.contains("os error"), "{what}: {error}");
                // Not what came of it later.
                assert!(!error.contains("No such file"), "{what}: {error}");
            }
            true
        });
        println!("{fault:?}: {positions} positions");
        assert!(positions > 20);
    }
}

#[test]
fn the_way_to_an_output_is_flushed() {
    let _alone = alone();
    let root = folder();
    disk::watch(true, None);
    let result = publish(&root.path().join("a/b"), "one");
    let changes = disk::unwatch().changes;
    result.unwrap();
    for folder in ["", "a", "a/b"] {
        let flushed = disk::Change::SyncFolder(root.path().join(folder).components().collect());
        assert!(changes.contains(&flushed), "{folder:?} in {changes:?}");
    }
}

/// The process of [`a_process_killed_at_any_change_leaves_one_whole_output`].
#[test]
fn child() {
    if let Some(root) = std::env::var_os("S1_TEST_ROOT") {
        save(Path::new(&root), "two").unwrap();
    }
}

#[test]
fn a_process_killed_at_any_change_leaves_one_whole_output() {
    let _alone = alone();
    let positions = at_every_position(|position| {
        let root = root();
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "child"]).env("S1_TEST_ROOT", root.path());
        child.env("S1_DISK_FAULT", format!("kill@{position}"));
        let status = child.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        let text = survivor(root.path(), &format!("killed at {position}"));
        assert!(!status.success() || text == "two");
        !status.success()
    });
    println!("{positions} positions");
    assert!(positions > 20);
}

/// T3: what may be on the disk when the power goes, after every change of a save.
#[test]
fn whatever_order_the_disk_writes_in_one_whole_output_is_left() {
    let _alone = alone();
    let before = root();
    let after = root();
    let (result, seen) = watched(after.path(), None);
    result.unwrap();
    let states = replay::crash_states(&seen.changes, 100);
    let mut found = [0, 0];
    for (number, state) in states.iter().enumerate() {
        let root = folder();
        replay::copy(before.path(), root.path());
        state.apply(&seen.changes, after.path(), root.path());
        let text = survivor(root.path(), &format!("state {number}: {state:?}"));
        found[usize::from(text == "two")] += 1;
        // Whoever was told that it is published finds it.
        assert!(text == "two" || state.after < seen.changes.len(), "{state:?}");
    }
    println!(
        "{} changes, {} states: old {}, new {}",
        seen.changes.len(),
        states.len(),
        found[0],
        found[1]
    );
    assert!(found[0] > 100 && found[1] > 100);
}
