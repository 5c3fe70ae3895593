//! The shape of the repository: what stands where, who knows whom, and how large things may grow.

mod rust_source;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use rust_source::{code_only, functions, words};

const TOP_LEVEL: [&str; 10] = [
    "Cargo.lock",
    "Cargo.toml",
    "README.md",
    "configs",
    "curate",
    "data",
    "infer",
    "justfile",
    "tests",
    "train",
];

/// Which crate of the workspace may depend on which.
const GRAPH: [(&str, &[&str]); 10] = [
    ("record", &[]),
    ("grading", &[]),
    ("endpoint", &[]),
    ("page", &[]),
    ("curate", &["endpoint", "grading", "page", "record"]),
    ("c10d", &[]),
    ("model", &["c10d"]),
    ("train", &["c10d", "model", "record"]),
    ("infer", &["c10d", "endpoint", "grading", "model", "page", "record"]),
    ("tests", &["c10d", "curate", "grading", "infer", "model", "record", "train"]),
];

/// How the first line of each kind of file begins: with a sentence that says what the file is.
/// Kinds without an entry here and in `SILENT` are refused.
const FIRST_LINE: [(&str, &str); 15] = [
    ("rs", "//! "),
    ("h", "// "),
    ("cpp", "// "),
    ("css", "/* "),
    ("md", "# "),
    ("toml", "# "),
    ("lock", "# "),
    ("py", "# "),
    ("sh", "# "),
    ("sbatch", "# "),
    ("txt", "# "),
    ("yml", "# "),
    ("justfile", "# "),
    (".gitignore", "# "),
    ("run", "# "),
];
const SILENT: [&str; 8] = ["json", "jsonl", "jinja", "parquet", "safetensors", "npz", "csv", "gz"];

const FILE_LINES: usize = 500;
const FUNCTION_LINES: usize = 70;
/// What was too long when its limit came, with its length: may shrink, never grow.
const TOO_LONG: [(&str, usize); 0] = [];

/// Words in pieces, so that this file does not hold them.
const FORBIDDEN: [(&[&str], &str); 11] = [
    (&["FIX", "ME"], "do it now, or say in a comment why it is right as it is"),
    (&["TO", "DO"], "do it now, or say in a comment why it is right as it is"),
    (&["todo", "!("], "write the code, or return an error that says what is not supported"),
    (
        &["unimpl", "emented!("],
        "write the code, or return an error that says what is not supported",
    ),
    (&["/wor", "k/"], "name paths relative to the checkout"),
    (&["/tm", "p/"], "use the system's temporary folder through the standard library"),
    (&["/roo", "t/"], "name paths relative to the checkout"),
    (&["/hom", "e/"], "name paths relative to the checkout"),
    (&["pyp", "i.org"], "let pip know its index"),
    (&["pythonh", "osted"], "let pip know its index"),
    (&["crates", ".io"], "let cargo know its registry"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests stand in the repository")
}

/// Every file that git tracks or would track, relative to the root, sorted.
static FILES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let out = Command::new("git")
        .args(["-c", "safe.directory=*", "ls-files", "-co", "--exclude-standard", "-z"])
        .current_dir(root())
        .output()
        .expect("git runs");
    assert!(out.status.success(), "git ls-files: {}", String::from_utf8_lossy(&out.stderr));
    let listed = String::from_utf8(out.stdout).expect("file names are UTF-8");
    let files: BTreeSet<_> =
        listed.split('\0').filter(|name| root().join(name).is_file()).collect();
    files.into_iter().map(String::from).collect()
});

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn toml(file: &str) -> toml::Table {
    read(file).parse().unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The file's kind: its extension, or its name if it has none.
fn kind(file: &str) -> &str {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.rsplit_once('.').filter(|(stem, _)| !stem.is_empty()).map_or(name, |(_, kind)| kind)
}

/// Files made by people, not by generators: these are held to sizes and words.
fn is_prose_or_code(file: &str) -> bool {
    !SILENT.contains(&kind(file)) && !file.starts_with("data/") && file != "Cargo.lock"
}

fn rust_files() -> impl Iterator<Item = &'static String> {
    FILES.iter().filter(|file| kind(file) == "rs")
}

#[track_caller]
fn none(wrong: Vec<String>, cure: &str) {
    assert!(wrong.is_empty(), "\n  {}\n{cure}\n", wrong.join("\n  "));
}

#[test]
fn the_top_level_is_the_picture() {
    let found: BTreeSet<_> =
        FILES.iter().map(|file| file.split('/').next().unwrap_or(file)).collect();
    let visible: Vec<_> = found.into_iter().filter(|name| !name.starts_with('.')).collect();
    assert_eq!(
        visible, TOP_LEVEL,
        "put new things into the stage that needs them first; the top level stays as it is"
    );
}

#[test]
fn crates_know_only_whom_they_may() {
    let mut wrong = Vec::new();
    let allowed: BTreeMap<_, _> = GRAPH.into_iter().collect();
    let manifests = FILES.iter().filter(|file| file.ends_with("/Cargo.toml"));
    for manifest in manifests {
        let table = toml(manifest);
        let name = table["package"]["name"].as_str().expect("a crate has a name");
        let Some(allowed) = allowed.get(name) else {
            wrong.push(format!("{manifest}: the crate {name} is not in the table"));
            continue;
        };
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(dependencies) = table.get(section).and_then(toml::Value::as_table) else {
                continue;
            };
            for (other, _) in GRAPH {
                if dependencies.contains_key(other) && !allowed.contains(&other) {
                    wrong.push(format!("{manifest}: {name} must not know {other}"));
                }
            }
        }
    }
    none(wrong, "stages meet in files and leaves know nobody: move the shared code, or the caller");
}

#[test]
fn curate_needs_no_libtorch() {
    let lock = toml("Cargo.lock");
    let packages = lock["package"].as_array().expect("Cargo.lock lists packages");
    let text = |value: &toml::Value| value.as_str().unwrap_or_default().to_owned();
    let mut needs = BTreeMap::<String, BTreeSet<String>>::new();
    for package in packages {
        let dependencies = package.get("dependencies").and_then(toml::Value::as_array);
        for dependency in dependencies.into_iter().flatten().map(text) {
            let name = dependency.split(' ').next().unwrap_or_default().to_owned();
            needs.entry(text(&package["name"])).or_default().insert(name);
        }
    }
    assert!(needs["train"].contains("tch"), "train needs tch, or this test looks at nothing");
    let mut reached = BTreeSet::from(["curate".to_owned()]);
    let mut open: Vec<String> = vec!["curate".to_owned()];
    while let Some(name) = open.pop() {
        for next in needs.get(&name).into_iter().flatten() {
            if reached.insert(next.clone()) {
                open.push(next.clone());
            }
        }
    }
    let torch = reached.into_iter().filter(|name| name.contains("tch") || name.contains("torch"));
    let torch = torch.map(|name| format!("curate depends on {name}")).collect();
    none(torch, "curation runs where there is no libtorch: move what needs it to train or infer");
}

#[test]
fn dependencies_come_from_the_registry() {
    let index = ["registry+https://github.com/rust-lang/crates", ".io-index"].concat();
    let lock = toml("Cargo.lock");
    let packages = lock["package"].as_array().expect("Cargo.lock lists packages");
    let sources = packages.iter().filter_map(|package| package.get("source")?.as_str());
    let wrong = sources.filter(|source| *source != index).map(String::from).collect();
    none(
        wrong,
        "Cargo.lock must name the public index alone: remove local mirrors, `cargo update -w`",
    );
}

/// The tree in README.md: visible top-level entries, and the folders in them that are not a
/// crate's own `src` or `tests`.
#[test]
fn the_readme_draws_the_tree() {
    let mut expected = BTreeSet::new();
    for file in FILES.iter().filter(|file| !file.starts_with('.')) {
        let parts: Vec<_> = file.split('/').collect();
        expected.insert(if parts.len() == 1 { file.clone() } else { format!("{}/", parts[0]) });
        if parts.len() > 2 && !["src", "tests"].contains(&parts[1]) {
            expected.insert(format!("{}/{}/", parts[0], parts[1]));
        }
    }
    let readme = read("README.md");
    let tree = readme.split("```tree\n").nth(1).and_then(|rest| rest.split("```").next());
    let tree = tree.expect("README.md has a block that begins with ```tree");
    let (mut drawn, mut folder, mut wrong) = (BTreeSet::new(), String::new(), Vec::new());
    for line in tree.lines() {
        let (name, phrase) = line.trim_start().split_once(' ').unwrap_or((line, ""));
        if phrase.trim().is_empty() {
            wrong.push(format!("{name} has no phrase that says what it is"));
        }
        let nested = line.starts_with(' ');
        if !nested {
            folder = name.to_owned();
        }
        drawn.insert(if nested { format!("{folder}{name}") } else { name.to_owned() });
    }
    wrong.extend(expected.difference(&drawn).map(|path| format!("{path} is missing in README.md")));
    wrong.extend(drawn.difference(&expected).map(|path| format!("{path} is only in README.md")));
    none(wrong, "make README.md's tree equal to the repository, a phrase for each line");
}

#[test]
fn every_file_says_what_it_is() {
    let mut wrong = Vec::new();
    for file in FILES.iter().filter(|file| !SILENT.contains(&kind(file))) {
        let Some((_, begin)) = FIRST_LINE.iter().find(|(of, _)| *of == kind(file)) else {
            wrong.push(format!("{file}: files of this kind are not in the table"));
            continue;
        };
        let text = read(file);
        let first = text.lines().find(|line| !line.starts_with("#!")).unwrap_or_default();
        let docstring = kind(file) == "py" && first.starts_with("\"\"\"");
        if !(first.starts_with(begin) || docstring) || first.len() < begin.len() + 8 {
            wrong.push(format!("{file}: its first line must be {begin:?} and what it is"));
        }
    }
    none(wrong, "a reader who opens a file should know at once what it is for");
}

#[test]
fn nothing_is_too_long() {
    let mut sizes = BTreeMap::new();
    for file in FILES.iter().filter(|file| ["rs", "py", "cpp", "h"].contains(&kind(file))) {
        sizes.insert(file.clone(), (read(file).lines().count(), FILE_LINES));
    }
    for file in rust_files() {
        for (name, lines) in functions(&code_only(&read(file))) {
            sizes.insert(format!("{file} fn {name}"), (lines, FUNCTION_LINES));
        }
    }
    let ratchet: BTreeMap<_, _> = TOO_LONG.into_iter().collect();
    let mut wrong = Vec::new();
    for (place, (lines, limit)) in &sizes {
        let limit = *ratchet.get(place.as_str()).unwrap_or(limit);
        if *lines > limit {
            wrong.push(format!("{place}: {lines} lines, and {limit} are allowed"));
        }
    }
    for (place, lines) in TOO_LONG {
        if sizes.get(place).is_none_or(|(now, _)| *now < lines) {
            wrong.push(format!("{place} is shorter than TOO_LONG says: lower its number there"));
        }
    }
    none(wrong, "cut at a joint that has a name; do not raise the limits");
}

#[test]
fn no_forbidden_words() {
    let mut wrong = Vec::new();
    for file in FILES.iter().filter(|file| is_prose_or_code(file)) {
        for (number, line) in read(file).lines().enumerate() {
            for (pieces, cure) in FORBIDDEN {
                if line.contains(&pieces.concat()) {
                    wrong.push(format!("{file}:{}: {}: {cure}", number + 1, pieces.concat()));
                }
            }
        }
    }
    none(wrong, "these words never stand in the repository");
}

/// `train/c10d` wraps C++ and holds the CPU kernels; `train/model` maps its weights into memory at one place.
#[test]
fn unsafe_stays_where_it_belongs() {
    let mut places = Vec::new();
    for file in rust_files().filter(|file| !file.starts_with("train/c10d/")) {
        let code = code_only(&read(file));
        let found = words(&code).filter(|(word, _)| *word == ["un", "safe"].concat());
        places.extend(found.map(|(_, line)| format!("{file}:{line}")));
    }
    if places.len() == 1 && places[0].starts_with("train/model/") {
        return;
    }
    none(places, "unsafe code stands in train/c10d, and once in train/model for the memory map");
}

#[test]
fn the_scanner_reads_rust() {
    let source = concat!(
        "fn one() { let s = \"} fn no() {\"; // } fn no() {\n",
        "    let c = '}'; let r = r#\"} \" fn no()\"#; /* } /* { */ */\n",
        "    let life: &'static str = \"\\\"}\";\n",
        "}\n",
        "trait T { fn declared(&self) -> [u8; 2];\n",
        "    fn two<F: Fn(u8) -> u8>(f: F) where F: Copy {\n",
        "    }\n",
        "}\n",
    );
    let found: Vec<_> = functions(&code_only(source)).collect();
    assert_eq!(found, [("one".to_owned(), 4), ("two".to_owned(), 2)]);
}
