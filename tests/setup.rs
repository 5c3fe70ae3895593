//! The set-up script, through its own tests in Python: the machine that runs it has no more.

use std::path::Path;
use std::process::Command;

#[test]
fn the_set_up_script_keeps_its_promises() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("setup.py");
    let out = Command::new("python3").arg(&script).output().expect("python3 runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}
