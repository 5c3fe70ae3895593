//! Sharing out a global batch: the counts of operations, the packing's promises, and how even the
//! work of 16 ranks is over 1,000 batch draws.

use std::path::Path;

use model::Config;
use record::seed;
use train::balance::{Spread, flops, modelled_lengths, share};

/// Qwen2.5-32B's shape.
fn qwen_32b() -> Config {
    let text = r#"{"model_type": "qwen2", "vocab_size": 152064, "hidden_size": 5120,
        "intermediate_size": 27648, "num_hidden_layers": 64, "num_attention_heads": 40,
        "num_key_value_heads": 8, "max_position_embeddings": 32768, "rms_norm_eps": 1e-6}"#;
    Config::parse(text).unwrap()
}

#[test]
fn training_takes_the_operations_that_the_shape_says() {
    // 6 x 31.984e9 matmul parameters and 3 x 2 x 64 layers x 5120 x length of causal attention.
    for (length, giga) in [(0, 191.9), (4700, 201.1), (5500, 202.7), (8192, 208.0), (32768, 256.3)]
    {
        let length = length.max(1);
        let found = 3.0 * flops(&qwen_32b(), length) / length as f64 / 1e9;
        assert!((found - giga).abs() < 0.05, "{length} tokens: {found} G a token, not {giga}");
    }
}

/// The promises that every packing keeps.
#[track_caller]
fn check(lengths: &[usize], groups: usize, budget: usize) -> Vec<Vec<Vec<usize>>> {
    let case = format!("{lengths:?} over {groups} groups, {budget} tokens");
    let shares = share(lengths, &qwen_32b(), groups, budget);
    assert_eq!(shares, share(lengths, &qwen_32b(), groups, budget), "{case}: twice the same");
    assert_eq!(shares.len(), groups, "{case}");
    let mut seen: Vec<usize> = shares.iter().flatten().flatten().copied().collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>(), "{case}: every example once");
    for rounds in &shares {
        assert_eq!(rounds.len(), shares[0].len(), "{case}: as many rounds in every group");
        for held in rounds {
            let tokens: usize = held.iter().map(|&example| lengths[example]).sum();
            assert!(held.len() <= 1 || tokens <= budget, "{case}: {tokens} tokens in one pass");
        }
    }
    for round in 0..shares[0].len() {
        let busy = shares.iter().any(|rounds| !rounds[round].is_empty());
        assert!(busy || lengths.is_empty(), "{case}: nobody works in round {round}");
    }
    shares
}

#[test]
fn every_packing_keeps_its_promises() {
    let mut rng = seed::rng(1, &["packings"]);
    for _ in 0..300 {
        let examples = rng.below(40) as usize;
        let longest = 1 << (1 + rng.below(14));
        let lengths: Vec<usize> = (0..examples).map(|_| 1 + rng.below(longest) as usize).collect();
        check(&lengths, 1 + rng.below(9) as usize, 1 + rng.below(20_000) as usize);
    }
}

#[test]
fn rounds_are_as_few_as_the_budget_allows_and_even() {
    // (lengths, groups, budget) -> the work of each group's rounds in tokens
    type Row<'a> = (&'a [usize], usize, usize, &'a [&'a [usize]]);
    let rows: &[Row] = &[
        (&[100, 100, 100, 100], 2, 200, &[&[200], &[200]]),
        (&[100, 100, 100, 100], 2, 100, &[&[100, 100], &[100, 100]]),
        (&[400, 100, 100, 100, 100], 2, 400, &[&[400], &[400]]),
        // An example above the budget stands alone.
        (&[900, 100, 100], 2, 400, &[&[900], &[200]]),
        (&[900], 2, 400, &[&[900], &[0]]),
        // A long and short ones: the short fill the round of the long one.
        (&[300, 100, 100, 100, 100, 100, 100], 2, 300, &[&[300, 200], &[300, 100]]),
        // The last round is shared too.
        (&[10, 10, 10], 3, 300, &[&[10], &[10], &[10]]),
    ];
    for &(lengths, groups, budget, expected) in rows {
        let shares = check(lengths, groups, budget);
        let tokens = |held: &Vec<usize>| held.iter().map(|&i| lengths[i]).sum::<usize>();
        let found: Vec<Vec<usize>> =
            shares.iter().map(|rounds| rounds.iter().map(tokens).collect()).collect();
        assert_eq!(found, expected, "{lengths:?} over {groups} groups, {budget} tokens");
    }
}

/// Busiest over mean work of 16 ranks, in groups of `ranks`: the mean over 1,000 draws of 16
/// examples, epoch by epoch a fresh permutation as in a run's order.
fn unevenness(lengths: &[usize], ranks: usize) -> f64 {
    const DRAWS: usize = 1000;
    let config = qwen_32b();
    let mut sum = 0.0;
    let mut order: Vec<usize> = Vec::new();
    for draw in 0..DRAWS {
        if order.len() < 16 {
            order = (0..lengths.len()).collect();
            seed::rng(42, &["order", &draw.to_string()]).shuffle(&mut order);
        }
        let batch: Vec<usize> = order.drain(..16).map(|i| lengths[i]).collect();
        let work = |held: &Vec<usize>| held.iter().map(|&i| flops(&config, batch[i])).sum::<f64>();
        let shares = share(&batch, &config, 16 / ranks, usize::MAX);
        let loads: Vec<f64> = shares.iter().map(|rounds| work(&rounds[0])).collect();
        let busiest = loads.iter().copied().fold(0.0, f64::max);
        sum += busiest / (loads.iter().sum::<f64>() / loads.len() as f64);
    }
    sum / DRAWS as f64
}

/// Prints and returns the unevenness in groups of 1 (an example a rank, as in the original), 2, 4
/// and 8.
fn print(what: &str, lengths: &[usize]) -> [f64; 4] {
    let found = [1, 2, 4, 8].map(|ranks| unevenness(lengths, ranks));
    let [alone, two, four, eight] = found;
    eprintln!(
        "{what}: busiest/mean work {alone:.3} with one example a rank, groups of 2 {two:.3}, of 4 \
         {four:.3}, of 8 {eight:.3}"
    );
    found
}

#[test]
fn modelled_lengths_have_the_published_quantiles() {
    // (set, mean, shares of the examples that are at most as long, the longest)
    type Row<'a> = (Spread, f64, &'a [(f64, usize)], usize);
    let rows: [Row; 2] = [
        (Spread::S1K, 5500.0, &[(0.26, 4096), (0.9, 7600)], 9109),
        (Spread::S11, 10_120.0, &[(0.5, 10_000), (0.95, 17_700), (0.993, 20_800)], 26_800),
    ];
    for (spread, mean, shares, longest) in rows {
        let lengths = modelled_lengths(spread, None, 1000);
        let found = lengths.iter().sum::<usize>() as f64 / 1000.0;
        assert!((found / mean - 1.0).abs() < 0.005, "{spread:?}: a mean of {found}");
        for &(share, tokens) in shares {
            let found = lengths.iter().filter(|&&length| length <= tokens).count() as f64 / 1000.0;
            assert!((found - share).abs() < 0.002, "{spread:?}: {found} up to {tokens}");
        }
        assert_eq!(lengths.iter().max(), Some(&longest), "{spread:?}");
        let scaled = modelled_lengths(spread, Some(700), 50);
        assert_eq!((scaled.iter().sum::<usize>() as f64 / 50.0).round(), 700.0, "{spread:?}");
    }
}

#[test]
fn sixteen_ranks_have_even_work() {
    // As they are modelled from published quantiles: not the real lengths.
    for spread in [Spread::S1K, Spread::S11] {
        let lengths = modelled_lengths(spread, None, 1000);
        let cut: Vec<usize> = lengths.iter().map(|&length| length.min(20_000)).collect();
        let [_, two, four, eight] = print(&format!("modelled {}", spread.name()), &cut);
        if spread == Spread::S1K {
            assert!(two <= 1.13 && four <= 1.04 && eight <= 1.01, "{two} {four} {eight}");
        }
    }
    // Real traces of another model, much more uneven: one may hold a third of a batch's work.
    let shared = std::env::var("S1_SHARED").unwrap_or_else(|_| "../shared".into());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let path = root.join(shared).join("data/traces/skyt1_32b_long_cot.jsonl");
    let Ok(text) = std::fs::read_to_string(path) else {
        eprintln!("not run: no optional folder of real data (S1_SHARED, default ../shared)");
        return;
    };
    let length = |line: &str| -> usize {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        row["thinking_tokens"].as_u64().unwrap() as usize
    };
    print("real traces of a Sky-T1", &text.lines().map(length).collect::<Vec<_>>());
}
