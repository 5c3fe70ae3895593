//! The selection: its count, its phases, its law of lengths, and an independent oracle.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};

use curate::config::{After, Algorithm, Benchmark, Seeded, Selection};
use curate::selection::{Candidate, Phase, select};
use record::seed::{Rng, rng};
use serde_json::{Value, json};

/// Like s1's rules, with the given sizes.
fn rules(algorithm: Algorithm, target: usize, uniform_until: usize) -> Selection {
    let seeded = |source_type: &str, longer_than| Seeded {
        source_type: source_type.to_string(),
        longer_than,
    };
    Selection {
        algorithm,
        after: After::default(),
        target: Some(target),
        allow_fewer: false,
        uniform_until: Some(uniform_until),
        seeded: vec![seeded("gpqa", None), seeded("aime", None), seeded("math/", Some(5600))],
        benchmark: Some(Benchmark {
            aime: "aime".to_string(),
            gpqa: "gpqa".to_string(),
            gpqa_to_aime: 0.5,
        }),
    }
}

/// A candidate that owns its texts.
#[derive(Debug, Clone)]
struct Made {
    id: u64,
    domain: String,
    source_type: String,
    length: i64,
    correct: bool,
}

fn borrow(rows: &[Made]) -> Vec<Candidate<'_>> {
    rows.iter()
        .map(|row| Candidate {
            id: row.id,
            domain: Some(&row.domain),
            source_type: &row.source_type,
            length: Some(row.length),
            correct: row.correct,
        })
        .collect()
}

/// Ids of the picked rows, with what each was picked for and when.
fn drawn(rows: &[Made], rules: &Selection, seed: u64) -> BTreeMap<u64, (Phase, usize)> {
    let picks = select(&borrow(rows), rules, &mut rng(seed, &["selection"])).unwrap();
    let picked = std::iter::zip(rows, &picks.picked);
    picked.filter_map(|(row, picked)| Some((row.id, (*picked)?))).collect()
}

/// Ids of the picked rows, with what each was picked for.
fn picked(rows: &[Made], rules: &Selection, seed: u64) -> BTreeMap<u64, Phase> {
    drawn(rows, rules, seed).into_iter().map(|(id, (phase, _))| (id, phase)).collect()
}

/// Random candidates in `domains` domains: a few per cent each of AIME and GPQA, many of MATH.
fn made(count: usize, domains: u64, rng: &mut Rng) -> Vec<Made> {
    let row = |number: usize| {
        let source_type = match rng.below(20) {
            0 => "gpqa",
            1 => "aime",
            2..10 => "math/algebra",
            _ => "other",
        };
        // The square makes domains unequal, and the hundred lengths make ties.
        let domain = (rng.uniform().powi(2) * domains as f64) as u64;
        Made {
            id: number as u64,
            domain: format!("domain {domain}"),
            source_type: source_type.to_string(),
            length: 100 * rng.below(100) as i64,
            correct: rng.below(2) == 0,
        }
    };
    (0..count).map(row).collect()
}

#[test]
fn exact_count_whole_phase_1_and_no_order_dependence() {
    for seed in 0..30 {
        let mut random = rng(seed, &["test"]);
        let mut rows = made(400, 12, &mut random);
        let rules = rules(Algorithm::ReleasedCode, 150, 110);
        let picks = picked(&rows, &rules, seed);
        assert_eq!(picks.len(), 150, "seed {seed}");

        let seeded = |row: &&Made| {
            let long_math = row.source_type == "math/algebra" && row.length > 5600;
            row.correct && (row.source_type == "gpqa" || row.source_type == "aime" || long_math)
        };
        let by_definition: BTreeSet<u64> = rows.iter().filter(seeded).map(|row| row.id).collect();
        let in_phase = |phase| {
            let of_phase = |(&id, of): (&u64, &Phase)| (*of == phase).then_some(id);
            picks.iter().filter_map(of_phase).collect::<BTreeSet<u64>>()
        };
        assert_eq!(in_phase(Phase::Seeded), by_definition, "seed {seed}");
        assert_eq!(in_phase(Phase::Uniform).len(), 110 - in_phase(Phase::Seeded).len());
        assert_eq!(in_phase(Phase::Benchmark).len(), 40);

        random.shuffle(&mut rows);
        assert_eq!(picked(&rows, &rules, seed), picks, "seed {seed}, shuffled rows");
        assert_ne!(picked(&rows, &rules, seed + 1000), picks, "another seed, other rows");
    }
}

#[test]
fn paper_draws_uniformly_to_the_end() {
    let rows = made(400, 12, &mut rng(1, &["test"]));
    let picks = picked(&rows, &rules(Algorithm::PaperText, 150, 110), 1);
    let to_the_end = picked(&rows, &rules(Algorithm::ReleasedCode, 150, 150), 1);
    assert_eq!(picks, to_the_end);
    assert!(picks.values().all(|phase| *phase != Phase::Benchmark));
}

/// One row a length, all in one domain, none of phase 1.
fn lengths(lengths: &[i64]) -> Vec<Made> {
    let row = |(number, &length): (usize, &i64)| Made {
        id: number as u64,
        domain: "domain".to_string(),
        source_type: "other".to_string(),
        length,
        correct: true,
    };
    lengths.iter().enumerate().map(row).collect()
}

/// Checks how often each length is drawn first, over 40,000 seeds, against its probability:
/// within five standard errors, which a right program leaves once in two million frequencies.
#[track_caller]
fn check_law(of_lengths: &[i64], probabilities: &[f64]) {
    let (rows, rules) = (lengths(of_lengths), rules(Algorithm::PaperText, 1, 0));
    let draws = 40_000;
    let mut drawn = vec![0u32; rows.len()];
    for seed in 0..draws {
        let picks = select(&borrow(&rows), &rules, &mut rng(seed, &["law"])).unwrap();
        drawn[picks.picked.iter().position(Option::is_some).unwrap()] += 1;
    }
    for (index, &p) in probabilities.iter().enumerate() {
        let frequency = f64::from(drawn[index]) / draws as f64;
        let tolerance = 5.0 * (p * (1.0 - p) / draws as f64).sqrt();
        assert!(
            (frequency - p).abs() <= tolerance,
            "length {}: drawn {frequency:.4} of the time, expected {p:.4} +- {tolerance:.4}",
            of_lengths[index]
        );
    }
}

#[test]
fn longer_traces_are_drawn_by_powers_of_two() {
    check_law(&[10, 30, 20], &[1.0 / 7.0, 4.0 / 7.0, 2.0 / 7.0]);
    check_law(&[5], &[1.0]);
    // Equal lengths: the smaller hash counts as longer.
    check_law(&[8, 8], &[2.0 / 3.0, 1.0 / 3.0]);
    let many: Vec<i64> = (1..=100).rev().collect();
    check_law(&many, &[0.5, 0.25, 0.125, 0.0625, 0.03125]);
}

/// Rows written as `source_type domain`, the first the longest; those with a `!` are solved.
/// Checks how often each domain gives the one row picked after phase 1, over 20,000 seeds, against
/// its probability: within five standard errors.
#[track_caller]
fn check_domains(places: &str, rules: &Selection, probabilities: &[(&str, f64)]) {
    let places: Vec<&str> = places.split(',').collect();
    let mut rows = lengths(&(1..=places.len() as i64).rev().collect::<Vec<_>>());
    for (row, place) in rows.iter_mut().zip(&places) {
        let (source_type, domain) = place.split_once(' ').unwrap();
        (row.source_type, row.domain) = (source_type.to_string(), domain.to_string());
        row.correct = row.domain.ends_with('!');
        row.domain.truncate(1);
    }
    let (draws, mut drawn) = (20_000, BTreeMap::new());
    for seed in 0..draws {
        let picks = picked(&rows, rules, seed);
        let is_drawn = |row: &&Made| picks.get(&row.id).is_some_and(|of| *of != Phase::Seeded);
        let domain = rows.iter().find(is_drawn).unwrap().domain.clone();
        *drawn.entry(domain).or_insert(0.0) += 1.0 / draws as f64;
    }
    assert_eq!(drawn.len(), probabilities.len(), "{drawn:?}");
    for &(domain, p) in probabilities {
        let tolerance = 5.0 * (p * (1.0 - p) / draws as f64).sqrt();
        assert!((drawn[domain] - p).abs() <= tolerance, "{domain}: {p} expected of {drawn:?}");
    }
}

#[test]
fn domains_are_drawn_by_their_phase() {
    // Phase 3 counts rows whether solved or not: 3 of AIME in A, 1 in B; 5 of GPQA in B, 2 in C.
    // GPQA counts half as much as AIME, 2 rows for its 7: B has 5 * 2/7 cut to 1, C none.
    let both = "aime A,aime A,aime A,aime B,gpqa B,gpqa B,gpqa B,gpqa B,gpqa B,gpqa C,gpqa C,x D";
    let phase_3 = rules(Algorithm::ReleasedCode, 1, 0);
    check_domains(both, &phase_3, &[("A", 0.6), ("B", 0.4)]);
    let paper = rules(Algorithm::PaperText, 1, 0);
    check_domains(both, &paper, &[("A", 0.25), ("B", 0.25), ("C", 0.25), ("D", 0.25)]);
    // The row of phase 1 stays in its pool, where drawing it is a draw lost to its domain: A wins
    // with 1/2 * 1/3, and B with 1/2, until 1/2 * 2/3 of the time A's row of phase 1 is used up;
    // then both are equal. So A has 1/6 + 1/3 * 1/2.
    let two = rules(Algorithm::PaperText, 2, 0);
    check_domains("gpqa A!,x A,x B,x B", &two, &[("A", 1.0 / 3.0), ("B", 2.0 / 3.0)]);
}

#[track_caller]
fn check_notes(rows: &[Made], rules: &Selection, expected: &[&str]) {
    let notes = select(&borrow(rows), rules, &mut rng(0, &["notes"])).unwrap().notes;
    assert_eq!(notes, expected);
}

#[test]
fn says_when_it_could_not_keep_to_the_rules() {
    let plain = lengths(&[1, 2, 3, 4, 5, 6]);
    check_notes(&plain, &rules(Algorithm::ReleasedCode, 4, 4), &[]);
    check_notes(&plain, &rules(Algorithm::PaperText, 4, 2), &[]);
    let no_shape = |uniform: u32, phase_3: u32| {
        format!(
            "Phase 3 drew the domain of {uniform} of its {phase_3} picks uniformly: no rows like \
             aime and gpqa were left to give it a shape."
        )
    };
    check_notes(&plain, &rules(Algorithm::ReleasedCode, 4, 1), &[&no_shape(3, 3)]);
    let fewer = Selection { allow_fewer: true, ..rules(Algorithm::ReleasedCode, 9, 4) };
    let only = "Only 6 rows were left for a target of 9.";
    check_notes(&plain, &fewer, &[only, &no_shape(2, 2)]);
    // One AIME row, unsolved, alone in its domain: phase 3 draws it, then has no shape left.
    let mut with_aime = plain;
    with_aime[0] = Made {
        domain: "benchmark".to_string(),
        source_type: "aime".to_string(),
        correct: false,
        ..with_aime[0].clone()
    };
    check_notes(&with_aime, &rules(Algorithm::ReleasedCode, 3, 0), &[&no_shape(2, 3)]);
}

#[track_caller]
fn check_error(rows: &[Made], rules: &Selection, expected: &str) {
    let error = select(&borrow(rows), rules, &mut rng(0, &["error"])).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn a_target_out_of_reach_is_an_error() {
    let rows = lengths(&[1, 2, 3]);
    check_error(&rows, &rules(Algorithm::PaperText, 4, 4), "3 rows are left to select 4 from");
    let mut seeded = rows;
    seeded.iter_mut().for_each(|row| row.source_type = "gpqa".to_string());
    check_error(&seeded, &rules(Algorithm::PaperText, 2, 2), "phase 1 alone takes 3 rows");
}

/// How often each row is picked over many seeds, against `oracle/selection.py`, a NumPy version of
/// the original's notebook: every row within five standard errors of the difference.
#[test]
fn frequencies_equal_the_oracle_in_python() {
    if std::env::var("S1_ORACLE").as_deref() != Ok("1") {
        eprintln!("skipped: set S1_ORACLE=1 (and S1_ORACLE_PYTHON) to compare with NumPy");
        return;
    }
    let (seeds, rules) = (2000, rules(Algorithm::ReleasedCode, 60, 40));
    let rows = made(150, 6, &mut rng(7, &["oracle"]));
    let mut ours = BTreeMap::new();
    for seed in 0..seeds {
        for hash in picked(&rows, &rules, seed).into_keys() {
            *ours.entry(format!("{hash:04}")).or_insert(0.0) += 1.0 / seeds as f64;
        }
    }
    let theirs = oracle(&rows, &rules, seeds);
    let mut largest = 0.0f64;
    for Made { id, .. } in &rows {
        let hash = format!("{id:04}");
        let (p, q) = (ours.get(&hash).copied().unwrap_or(0.0), theirs[&hash].as_f64().unwrap());
        let mean = (p + q) / 2.0;
        let error = (mean * (1.0 - mean) * 2.0 / seeds as f64).sqrt();
        assert!((p - q).abs() <= 5.0 * error + 1e-9, "row {hash}: {p} here, {q} in Python");
        largest = largest.max((p - q).abs());
    }
    eprintln!("{} rows, {seeds} seeds each: largest difference {largest:.4}", rows.len());
}

fn oracle(rows: &[Made], rules: &Selection, seeds: u64) -> Value {
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "hash": format!("{:04}", row.id), "domain": row.domain,
                "source_type": row.source_type, "length": row.length, "correct": row.correct
            })
        })
        .collect();
    let job = json!({"rows": rows, "seeds": seeds, "target": rules.target,
                     "uniform_until": rules.uniform_until});
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let python = std::env::var("S1_ORACLE_PYTHON").unwrap_or(format!("{root}/.venv/bin/python"));
    let mut child = Command::new(&python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oracle/selection.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{python}: {error}; set S1_ORACLE_PYTHON"));
    child.stdin.take().unwrap().write_all(job.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "the oracle failed: {}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}
