//! Output folders: whole or not at all, and nobody's folder lost.

use std::fs;
use std::path::Path;
use std::process::id;

use record::publish::{Manifest, OutputFolder, command, input, verify};

use crate::error_text;

fn manifest() -> Manifest {
    Manifest {
        tool: "curate".into(),
        version: "0.0.0".into(),
        command: vec!["curate".into(), "run".into()],
        config: "output = 'out'\n[select]\nn = 1000\n".parse().unwrap(),
        seeds: [("select".to_owned(), 42)].into(),
        ..Manifest::default()
    }
}

/// Publishes a folder with one file.
fn publish(dest: &Path, overwrite: bool, text: &str) -> anyhow::Result<()> {
    let folder = OutputFolder::create(dest, overwrite)?;
    fs::write(folder.path().join("summary.txt"), text)?;
    folder.finish(manifest())
}

/// Names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_manifest_says_what_was_made() {
    let folder = tempfile::tempdir().unwrap();
    let dest = folder.path().join("runs/out");
    let output = OutputFolder::create(&dest, false).unwrap();
    assert!(!dest.exists());
    fs::create_dir_all(output.path().join("a/b")).unwrap();
    fs::write(output.path().join("a/b/c.txt"), "abc").unwrap();
    fs::write(output.path().join("summary.txt"), "").unwrap();
    output.finish(manifest()).unwrap();

    assert_eq!(names(&folder.path().join("runs")), ["out"]);
    assert_eq!(names(&dest), ["a", "manifest.json", "summary.txt"]);
    // Digests as b3sum prints them for `abc` and for nothing.
    let expected = r#"{
  "tool": "curate",
  "version": "0.0.0",
  "command": [
    "curate",
    "run"
  ],
  "config": {
    "output": "out",
    "select": {
      "n": 1000
    }
  },
  "inputs": [],
  "seeds": {
    "select": 42
  },
  "files": {
    "a/b/c.txt": {
      "bytes": 3,
      "blake3": "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"
    },
    "summary.txt": {
      "bytes": 0,
      "blake3": "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    }
  },
  "digest": ""#;
    let digest = blake3::hash(expected.as_bytes()).to_hex();
    let text = fs::read_to_string(dest.join("manifest.json")).unwrap();
    assert_eq!(text, format!("{expected}{digest}\"\n}}\n"));
    let published = verify(&dest).unwrap();
    assert_eq!((published.digest, published.manifest.seeds["select"]), (digest.to_string(), 42));
}

#[test]
fn an_output_folder_is_replaced_only_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let dest = folder.path().join("out");
    publish(&dest, false, "one").unwrap();
    assert_eq!(
        error_text(publish(&dest, false, "two"), folder.path()),
        "out exists; pass --overwrite to replace it when the new run is complete, or choose \
         another `output`"
    );
    assert_eq!(fs::read_to_string(dest.join("summary.txt")).unwrap(), "one");
    publish(&dest, true, "two").unwrap();
    assert_eq!(fs::read_to_string(dest.join("summary.txt")).unwrap(), "two");
    assert_eq!(names(folder.path()), ["out"]);
}

/// Whatever stands at the destination and is not ours stays, `overwrite` or not.
#[test]
fn a_strangers_folder_is_never_touched() {
    let folder = tempfile::tempdir().unwrap();
    let dest = folder.path().join("thesis");
    let refusal = "thesis exists and is no output folder of this program (it has no manifest.json \
                   of ours), so it is left alone; choose another `output`, or move it away \
                   yourself";
    let check = |what: &str| {
        for overwrite in [false, true] {
            let error = error_text(publish(&dest, overwrite, "new"), folder.path());
            assert_eq!(error, refusal, "{what}");
        }
    };
    fs::write(&dest, "a file").unwrap();
    check("a file");
    fs::remove_file(&dest).unwrap();
    fs::create_dir(&dest).unwrap();
    check("an empty folder");
    fs::write(dest.join("chapter.txt"), "text").unwrap();
    check("a folder");
    fs::write(dest.join("manifest.json"), "{\"name\": \"a web app\"}").unwrap();
    check("a folder with another program's manifest");
    assert_eq!(names(&dest), ["chapter.txt", "manifest.json"]);
    assert_eq!(names(folder.path()), ["thesis"]);

    let error = |dest: &str| error_text(publish(Path::new(dest), true, ""), folder.path());
    assert_eq!(error("/"), "output `/`: give the folder a name, such as runs/first");
    assert_eq!(error(".."), "output `..`: give the folder a name, such as runs/first");
}

#[test]
fn a_failed_run_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let dest = folder.path().join("out");
    publish(&dest, false, "one").unwrap();
    let output = OutputFolder::create(&dest, true).unwrap();
    fs::write(output.path().join("summary.txt"), "half").unwrap();
    drop(output);
    assert_eq!(names(folder.path()), ["out"]);
    assert_eq!(fs::read_to_string(dest.join("summary.txt")).unwrap(), "one");
    // Nor the parents that it made; those that were there stay.
    drop(OutputFolder::create(&folder.path().join("a/b/out"), false).unwrap());
    assert_eq!(names(folder.path()), ["out"]);
    fs::create_dir(folder.path().join("a")).unwrap();
    drop(OutputFolder::create(&folder.path().join("a/b/out"), false).unwrap());
    assert_eq!(names(&folder.path().join("a")), [""; 0]);
}

#[test]
fn finished_work_is_kept_when_the_place_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let dest = folder.path().join("out");
    let output = OutputFolder::create(&dest, false).unwrap();
    fs::write(output.path().join("summary.txt"), "hours of work").unwrap();
    fs::create_dir(&dest).unwrap();
    let kept = format!("out.unpublished-{}", id());
    assert_eq!(
        error_text(output.finish(manifest()), folder.path()),
        format!(
            "cannot publish out; the finished output is kept as {kept}: out exists and is no \
             output folder of this program (it has no manifest.json of ours), so it is left \
             alone; choose another `output`, or move it away yourself"
        )
    );
    assert_eq!(names(folder.path()), ["out", &kept]);
    assert_eq!(names(&folder.path().join(&kept)), ["manifest.json", "summary.txt"]);
}

#[test]
fn leftovers_of_dead_runs_are_cleared() {
    let folder = tempfile::tempdir().unwrap();
    let leave = |name: &str| {
        fs::create_dir(folder.path().join(name)).unwrap();
        fs::write(folder.path().join(name).join("half"), "").unwrap();
    };
    leave(".out.partial");
    leave(".other.partial");
    fs::write(folder.path().join(".out.lock"), "process 1 on mars").unwrap();
    publish(&folder.path().join("out"), false, "one").unwrap();
    assert_eq!(names(folder.path()), [".other.partial", "out"]);
}

/// Killed between the two renames of an overwrite, a run leaves the old folder aside.
#[test]
fn a_folder_moved_aside_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let dest = folder.path().join("out");
    publish(&dest, false, "one").unwrap();
    fs::rename(&dest, folder.path().join(".out.replaced")).unwrap();
    assert!(publish(&dest, false, "two").is_err());
    assert_eq!(fs::read_to_string(dest.join("summary.txt")).unwrap(), "one");
    assert_eq!(names(folder.path()), ["out"]);
}

/// T13: a change of any one byte in any file of a folder is found.
#[test]
fn damage_is_found() {
    // In memory if there is such a place: it is written thousands of times.
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let dest = folder.path().join("out");
    publish(&dest, false, &"weights ".repeat(100)).unwrap();
    let files = ["manifest.json", "summary.txt"].map(|name| dest.join(name));
    let mut rng = record::seed::rng(7, &["flips"]);
    for n in 0..1000 {
        let file = &files[n % 2];
        let whole = fs::read(file).unwrap();
        let mut damaged = whole.clone();
        let at = (rng.uniform() * whole.len() as f64) as usize;
        damaged[at] ^= 1 << (n / 2 % 8);
        fs::write(file, &damaged).unwrap();
        let error = error_text(verify(&dest), folder.path());
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(error.contains(name), "byte {at} of {name}: {error}");
        fs::write(file, &whole).unwrap();
    }
    let check = |change: &dyn Fn(&Path), expected: &str| {
        let before = fs::read(dest.join("summary.txt")).unwrap();
        change(&dest);
        assert_eq!(error_text(verify(&dest), folder.path()), expected);
        fs::write(dest.join("summary.txt"), before).unwrap();
    };
    check(
        &|dest| fs::remove_file(dest.join("summary.txt")).unwrap(),
        "out/summary.txt: the file is missing",
    );
    check(
        &|dest| fs::write(dest.join("summary.txt"), "weights ").unwrap(),
        "out/summary.txt: 8 bytes, and it was written with 800",
    );
    verify(&dest).unwrap();
    fs::write(dest.join("more.txt"), "").unwrap();
    check(&|_| (), "out/more.txt: manifest.json does not list it");
}

#[test]
fn digests_of_inputs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pool.jsonl");
    fs::write(&file, "abc").unwrap();
    let of_file = input(&file, Some(3)).unwrap();
    assert_eq!(of_file.path, file.display().to_string());
    assert_eq!(of_file.rows, Some(3));
    assert_eq!(of_file.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    // (cd model && sha256sum a/c.txt b.txt) | sha256sum, both files holding `abc`.
    let model = folder.path().join("model");
    fs::create_dir_all(model.join("a")).unwrap();
    fs::write(model.join("b.txt"), "abc").unwrap();
    fs::write(model.join("a/c.txt"), "abc").unwrap();
    let of_folder = input(&model, None).unwrap();
    assert_eq!(
        of_folder.sha256,
        "dc11f1d4f7f06cbba754f902979b518b37459877967bc93169b5cce1faf438b3"
    );
    let missing = error_text(input(&folder.path().join("no"), None), folder.path());
    assert_eq!(missing, "cannot read no: No such file or directory (os error 2)");
}

#[test]
fn the_command_line_names_no_folder() {
    assert!(!command()[0].contains('/'), "{:?}", command());
}

#[test]
fn a_relative_output_makes_its_parents() {
    let dest = Path::new("made-by-a-test/inner/out");
    let output = OutputFolder::create(dest, false).unwrap();
    assert!(dest.parent().unwrap().is_dir());
    drop(output);
    assert!(!Path::new("made-by-a-test").exists(), "nothing is left of what was given up");
}
