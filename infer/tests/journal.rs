//! What is finished survives: kills at any moment, damaged entries, several processes; and what a
//! kept journal answers for.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use infer::budget::{Ending, Outcome, Spec};
use infer::config::{self, Budget};
use infer::engine::{Completion, Generate, Request, Sampling};
use infer::journal::{ANSWERS, Journal};
use model::Tokenizer;
use support::run::write_run;
use support::{answers, request, write_checkpoint};

/// Answers with the prompt's ids, and counts.
struct Echo<'a>(&'a mut usize);

impl Generate for Echo<'_> {
    fn generate(
        &mut self,
        requests: &[Request],
        each: &mut dyn FnMut(usize, Completion) -> Result<()>,
    ) -> Result<()> {
        for (n, request) in requests.iter().enumerate() {
            *self.0 += 1;
            each(n, echo(request))?;
        }
        Ok(())
    }

    fn summary(&self) -> String {
        String::new()
    }
}

fn echo(request: &Request) -> Completion {
    let ids = request.prompt.to_vec();
    let outcome = Outcome {
        thinking: 0..0,
        answer: 0..ids.len(),
        thinking_ending: None,
        ending: Ending::Stop,
        tries: 1,
        forced: vec![],
        ids,
    };
    Completion {
        text: format!("{:?} \u{2028}\n", request.prompt),
        outcome,
        logprobs: vec![],
        prompt_logprobs: vec![],
    }
}

fn spec() -> Spec {
    Spec {
        thinking_start: vec![1],
        thinking_end: vec![2],
        thinking: None,
        until: vec![3],
        max_gen_toks: 8,
        min_gen_toks: 0,
        max_model_len: 64,
    }
}

/// How many of the requests are not answered from the journal.
fn asked(folder: &Path, who: &str, requests: &[Request]) -> usize {
    let mut asked = 0;
    let mut journal = Journal::open(folder, 0, who.into(), true).unwrap();
    let answers = journal.answer(requests, || Ok(Box::new(Echo(&mut asked)))).unwrap();
    assert_eq!(answers, requests.iter().map(echo).collect::<Vec<_>>());
    asked
}

#[test]
fn a_journal_answers_for_what_it_was_asked_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let drawn = || Request {
        sampling: Sampling { temperature: 1.0, ..Sampling::GREEDY },
        seed: 5,
        stop: vec!["x".into()],
        ..request(&spec(), &[7, 8])
    };
    let greedy = || Request { sampling: Sampling::GREEDY, ..drawn() };
    assert_eq!(asked(folder.path(), "A", &[drawn(), greedy(), drawn(), greedy()]), 2, "equal ones");
    let with_spec = |change: fn(&mut Spec)| {
        let mut spec = spec();
        change(&mut spec);
        Arc::new(spec)
    };
    let hits: [(&str, Request); 3] = [
        ("the name", Request { name: "another".into(), ..drawn() }),
        ("the spec's place", Request { spec: Arc::new(spec()), ..drawn() }),
        ("the seed at temperature 0", Request { seed: 6, ..greedy() }),
    ];
    for (what, request) in hits {
        assert_eq!(asked(folder.path(), "A", &[request]), 0, "{what} does not matter");
    }
    let sampling = drawn().sampling;
    let misses: [(&str, Request); 10] = [
        ("prompt", Request { prompt: [7, 9].as_slice().into(), ..drawn() }),
        ("seed", Request { seed: 6, ..drawn() }),
        ("stops", Request { stop: vec![], ..drawn() }),
        ("log-probabilities", Request { logprobs: Some(1), ..drawn() }),
        ("temperature", Request { sampling: Sampling { temperature: 1.1, ..sampling }, ..drawn() }),
        ("top_p", Request { sampling: Sampling { top_p: 0.9, ..sampling }, ..drawn() }),
        ("max_gen_toks", Request { spec: with_spec(|s| s.max_gen_toks = 9), ..drawn() }),
        ("max_model_len", Request { spec: with_spec(|s| s.max_model_len = 65), ..drawn() }),
        ("until", Request { spec: with_spec(|s| s.until = vec![4]), ..drawn() }),
        ("thinking_end", Request { spec: with_spec(|s| s.thinking_end = vec![4]), ..drawn() }),
    ];
    for (what, request) in misses {
        assert_eq!(asked(folder.path(), "A", std::slice::from_ref(&request)), 1, "{what} matters");
        assert_eq!(asked(folder.path(), "A", &[request]), 0, "{what}, again");
    }
    assert_eq!(asked(folder.path(), "B", &[drawn()]), 1, "who answers matters");
}

/// Every cut and every flipped byte of an entry makes it count for nothing, and no other.
#[test]
fn damaged_entries_are_asked_again() {
    let folder = tempfile::tempdir().unwrap();
    let requests: Vec<Request> = (0..3).map(|n| request(&spec(), &[n])).collect();
    assert_eq!(asked(folder.path(), "A", &requests), 3);
    let file = folder.path().join("0.log");
    let whole = fs::read(&file).unwrap();
    let second = whole.iter().position(|b| *b == b'\n').unwrap() + 1;
    let third = second + whole[second..].iter().position(|b| *b == b'\n').unwrap() + 1;
    // An entry that lacks nothing but its line's end is whole.
    for cut in [third + 1, third + 64, whole.len() - 3, whole.len() - 2] {
        fs::write(&file, &whole[..cut]).unwrap();
        assert_eq!(asked(folder.path(), "A", &requests), 1, "cut at {cut}");
        assert_eq!(asked(folder.path(), "A", &requests), 0, "cut at {cut}, again");
    }
    for at in (second..third - 1).step_by(7) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        fs::write(&file, flipped).unwrap();
        assert_eq!(asked(folder.path(), "A", &requests), 1, "byte {at}");
    }
}

/// An entry of another version's shape is asked again.
#[test]
fn entries_of_another_shape_are_asked_again() {
    let folder = tempfile::tempdir().unwrap();
    let requests = [request(&spec(), &[5])];
    assert_eq!(asked(folder.path(), "A", &requests), 1);
    let file = folder.path().join("0.log");
    let text = fs::read_to_string(&file).unwrap();
    let (key, rest) = text.trim_end().split_once(' ').unwrap();
    let json = rest.split_once(' ').unwrap().1.replace("\"tries\"", "\"attempts\"");
    let digest = blake3::hash(format!("{key} {json}").as_bytes()).to_hex();
    fs::write(&file, format!("{key} {digest} {json}\n")).unwrap();
    assert_eq!(asked(folder.path(), "A", &requests), 1);
    assert_eq!(asked(folder.path(), "A", &requests), 0);
}

#[test]
fn one_run_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let _first = Journal::open(folder.path(), 0, "A".into(), true).unwrap();
    let second = Journal::open(folder.path(), 0, "A".into(), true).err().unwrap();
    assert!(format!("{second:#}").contains("is writing"), "{second:#}");
    Journal::open(folder.path(), 1, "A".into(), false).unwrap(); // a share of the first
}

/// Different requests of the run below: questions, budgets, repeats.
const REQUESTS: usize = 12 * 4 * 2;

fn set_up(folder: &Path) -> PathBuf {
    write_run(folder, 12, |text| {
        let kept = folder.join("kept").display().to_string();
        format!("cache = {kept:?}\nrepeats = 2\n{text}\n[engine]\nslots = 3\n")
            .replace("max_model_len = 160", "max_model_len = 256")
            .replace("max_gen_toks = 12", "max_gen_toks = 60")
            .replace("temperature = 0.0", "temperature = 1.0")
    })
}

fn start(config: &Path, ranks: usize, errors: Stdio) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_infer"));
    command.arg("eval").arg(config).args(["--ranks", &ranks.to_string()]);
    command.env("SOURCE_DATE_EPOCH", "1740787200").stdout(Stdio::null()).stderr(errors);
    command.spawn().unwrap()
}

/// The entries of all writers, whole lines alone.
fn entries(kept: &Path) -> Vec<String> {
    let files = fs::read_dir(kept).into_iter().flatten().map(|entry| entry.unwrap().path());
    let texts = files.map(|file| fs::read_to_string(file).unwrap());
    let lines = texts.flat_map(|text| {
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        text[..whole].lines().map(String::from).collect::<Vec<_>>()
    });
    lines.filter(|line| !line.is_empty()).collect()
}

/// Every file but the manifest, whose command line differs.
fn published(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let paths = fs::read_dir(folder.join("out")).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_string();
    let mut files: Vec<_> = paths.map(|path| (name(&path), fs::read(&path).unwrap())).collect();
    files.retain(|(name, _)| name != "manifest.json");
    files.sort();
    files
}

/// Ctrl-C is answered with what there is, and with how it goes on.
#[test]
fn a_run_that_is_stopped_says_what_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let config = set_up(folder.path());
    for ranks in [1, 2] {
        let (mut child, mut said) = (start(&config, ranks, Stdio::piped()), String::new());
        let before = entries(&folder.path().join("kept")).len();
        while entries(&folder.path().join("kept")).len() == before {
            assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        }
        let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
        assert!(kill.unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(130));
        child.stderr.unwrap().read_to_string(&mut said).unwrap();
        let told = said.lines().find_map(|line| line.strip_prefix("stopped: ")).expect(&said);
        let numbers: Vec<usize> = told.split(' ').filter_map(|word| word.parse().ok()).collect();
        let most = REQUESTS - before;
        assert!(numbers[0] <= most && (most - 2..=most).contains(&numbers[1]), "{told}");
        assert!(told.contains("the same command goes on"), "{told}");
        std::thread::sleep(Duration::from_millis(300));
    }
    assert!(start(&config, 1, Stdio::null()).wait().unwrap().success());
}

/// The version of what is answered, and a digest of what is: completions of a fixed model under
/// every kind of budget, greedy and drawn.
const GOLDEN: (u32, &str) = (1, "5d7bc1c1acd15606");

/// A journal may be kept for good, so what it holds must be what would be answered today.
#[test]
fn completions_change_only_with_their_version() {
    if c10d::kernels::Isa::best().is_none() {
        return eprintln!("skipped: libtorch computes here, and promises no bits");
    }
    let folder = tempfile::tempdir().unwrap();
    write_checkpoint(folder.path());
    let config = support::client::config(folder.path(), "");
    let tokenizer = Tokenizer::read(folder.path()).unwrap();
    let budget = |most: Option<i64>| Budget {
        max_tokens_thinking: most.map(toml::Value::Integer),
        ..Budget::default()
    };
    let wait = Some("Wait".to_string());
    let budgets = [
        budget(None),
        budget(Some(0)),
        budget(Some(12)),
        Budget { thinking_n_ignore: Some(2), thinking_n_ignore_str: wait, ..budget(Some(30)) },
        Budget { min_tokens_thinking: Some(9), ..budget(Some(20)) },
        Budget { rejection_tries: Some(3), ..budget(Some(30)) },
    ];
    let specs = config::specs(&config.generation, &budgets, 250, &tokenizer).unwrap();
    let drawn = Sampling { temperature: 1.1, top_k: 40, ..Sampling::GREEDY };
    let narrow = Sampling { top_p: 0.9, min_p: 0.01, repetition_penalty: 1.2, ..drawn };
    let mut requests = Vec::new();
    for (n, spec) in specs.iter().enumerate() {
        for sampling in [Sampling::GREEDY, drawn, narrow] {
            let prompt = tokenizer.encode_text("What is 2+2?").unwrap();
            let stop = vec!["zz".to_string()];
            let seed = n as u64;
            requests.push(Request { sampling, seed, stop, ..request(spec, &prompt) });
        }
    }
    let answers = answers(&mut support::client::local_engine(&config), &requests);
    let text: String =
        answers.iter().map(|done| format!("{:?} {}\n", done.outcome, done.text)).collect();
    let digest = blake3::hash(text.as_bytes()).to_hex();
    assert_eq!(
        (ANSWERS, &digest[..16]),
        GOLDEN,
        "the engine answers otherwise than before: count ANSWERS up in src/journal.rs, so that what \
         journals hold counts for nothing, and note both here"
    );
}

/// On a terminal, two processes show one bar: that of all answers, whoever writes them.
#[test]
fn ranks_show_one_progress() {
    if Command::new("script").arg("--version").output().is_err() {
        return eprintln!("skipped: there is no `script`, which has a terminal");
    }
    let folder = tempfile::tempdir().unwrap();
    let config = set_up(folder.path());
    let infer = format!("{} eval {} --ranks 2", env!("CARGO_BIN_EXE_infer"), config.display());
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", &infer, "/dev/null"]).stdin(Stdio::null());
    let out = command.output().unwrap();
    let shown = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{shown}");
    let wholes = shown.split(" answers, ").filter_map(|before| before.rsplit(' ').next());
    let wholes: Vec<usize> = wholes.filter_map(|count| count.parse().ok()).collect();
    assert!(wholes.len() > 1 && wholes.iter().all(|&whole| whole == REQUESTS), "{wholes:?}");
    for rank in 0..2 {
        assert!(shown.contains(&format!("rank {rank}: 48 requests")), "each has its say: {shown}");
    }
}

/// A run that is killed again and again, over changing numbers of processes, asks for nothing twice
/// and publishes the bytes of an unbroken one. `just faults-infer`: as often as there are answers to
/// wait for.
#[test]
fn killed_at_random_moments() {
    let folder = tempfile::tempdir().unwrap();
    let config = set_up(folder.path());
    assert!(start(&config, 1, Stdio::null()).wait().unwrap().success());
    let expected = published(folder.path());
    assert!(
        expected.len() >= 6,
        "results, summary, samples, attempts, lm-eval's two: {expected:?}"
    );
    let (kept, out) = (folder.path().join("kept"), folder.path().join("out"));
    assert_eq!(entries(&kept).len(), REQUESTS);
    fs::remove_dir_all(&kept).unwrap();
    fs::remove_dir_all(&out).unwrap();

    let mut random = record::seed::rng(7, &["kills"]);
    let full = std::env::var_os("S1_FULL").is_some();
    let mut kills = 0;
    loop {
        let before = entries(&kept).len();
        let mut child = start(&config, 1 + kills % 2, Stdio::null());
        // After so many more answers, and then some milliseconds.
        let more = match (full, kills) {
            (true, _) => 1 + random.below(6) as usize,
            (false, 0..3) => 1 + random.below(30) as usize,
            (false, _) => REQUESTS,
        };
        let limit = Instant::now() + Duration::from_secs(60);
        while entries(&kept).len() < before + more && child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < limit, "no answers for a minute");
            std::thread::sleep(Duration::from_millis(2));
        }
        std::thread::sleep(Duration::from_millis(random.below(10)));
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        // What a kill in the middle of a write leaves.
        let mut file = fs::OpenOptions::new().append(true).open(kept.join("1.log")).unwrap();
        file.write_all(b"0123456789abcdef cut").unwrap();
        // Processes that it had started end too, perhaps with an answer more.
        std::thread::sleep(Duration::from_millis(300));
    }
    let entries = entries(&kept);
    let keys: BTreeSet<&str> = entries.iter().filter_map(|entry| entry.split(' ').next()).collect();
    let torn = entries.iter().filter(|entry| entry.starts_with("0123")).count();
    assert_eq!(entries.len() - torn, REQUESTS, "after {kills} kills");
    assert_eq!(keys.len(), REQUESTS + usize::from(torn > 0), "after {kills} kills");
    assert!(kills >= 2, "only {kills} kills");
    assert_eq!(published(folder.path()), expected, "after {kills} kills");
    println!("{REQUESTS} requests, {kills} kills: {} answers, none twice", entries.len() - torn);
}
