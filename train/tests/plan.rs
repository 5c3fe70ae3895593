//! What `train plan` says: hardware in words, shapes, verdicts and cures, time, and its refusals.

use train::balance::Spread;
use train::config::Config;
use train::plan::hardware::{Device, Hardware};
use train::plan::lengths::Lengths;
use train::plan::{Job, Plan, memory, report, shapes};
use train::words::GIB;

/// s1-32B's run file with some values replaced, as `section.key = value`.
fn config(settings: &[&str]) -> Config {
    let mut table: toml::Table = r#"
        seed = 42
        output = "none"
        [data]
        examples = "none"
        block_size = 32768
        over_long = "truncate"
        [model]
        path = "none"
        init = "checkpoint"
        [batch]
        global_batch = 16
        micro_batch_tokens = 32768
        [optimizer]
        learning_rate = 1e-5
        beta1 = 0.9
        beta2 = 0.95
        eps = 1e-8
        weight_decay = 1e-4
        max_grad_norm = 1.0
        [schedule]
        epochs = 1
        warmup_ratio = 0.05
        "#
    .parse()
    .unwrap();
    for setting in settings {
        let (path, value) = setting.split_once(" = ").unwrap();
        let (section, key) = path.split_once('.').unwrap();
        let value: toml::Table = format!("value = {value}").parse().unwrap();
        let section = table.entry(section).or_insert(toml::Table::new().into());
        section.as_table_mut().unwrap().insert(key.into(), value["value"].clone());
    }
    table.try_into().unwrap()
}

fn plan(name: &str, gpus: &str, settings: &[&str]) -> Plan {
    let hardware = Hardware::parse(gpus, None).unwrap();
    let lengths = Lengths::modelled(Spread::S1K, None, 1000, 32_768);
    Plan::new(&config(settings), shapes::published(name).unwrap(), hardware, lengths).unwrap()
}

#[test]
fn hardware_in_words() {
    let rows = [
        ("16x80GB", (2, 8, 80.0)),
        ("2x8x80GB", (2, 8, 80.0)),
        ("4x80gib", (1, 4, 80.0)),
        ("1x141GB", (1, 1, 141.0)),
        ("3x4x96GB", (3, 4, 96.0)),
    ];
    for (text, expected) in rows {
        let found = Hardware::parse(text, None).unwrap();
        assert_eq!(found.device, Device::Cuda, "{text}");
        assert_eq!((found.nodes, found.ranks_per_node, found.memory / GIB), expected, "{text}");
    }
    let found = Hardware::parse("cpu:24GB", Some(2)).unwrap();
    assert_eq!((found.device, found.ranks(), found.memory / GIB), (Device::Cpu, 2, 12.0));
    for (text, ranks, says) in [
        ("12x80GB", None, "3x4x80GB"),
        ("16x80", None, "memory size"),
        ("0x80GB", None, "16x80GB"),
        ("tpu", None, "cpu or cpu:24GB"),
        ("cpu:lots", None, "memory size"),
        ("cpux", None, "cpu or cpu:24GB"),
        ("2x80GB", Some(2), "--ranks goes with --gpus cpu"),
    ] {
        let error = format!("{:#}", Hardware::parse(text, ranks).unwrap_err());
        assert!(error.contains(says), "{text}: {error}");
    }
}

#[test]
fn published_shapes_have_the_published_parameters() {
    // Parameters as the models' own pages state them, in billions.
    let rows = [
        ("Qwen/Qwen2.5-0.5B-Instruct", 0.494),
        ("Qwen/Qwen2.5-1.5B", 1.544),
        ("Qwen/Qwen2.5-Coder-3B-Instruct", 3.086),
        ("Qwen/Qwen2.5-7B-Instruct@main", 7.616),
        ("Qwen/Qwen2.5-14B-Instruct", 14.770),
        ("simplescaling/s1.1-32B", 32.764),
        ("Qwen/Qwen2.5-72B-Instruct", 72.706),
    ];
    for (name, billions) in rows {
        let found = shapes::published(name).unwrap().num_parameters() as f64 / 1e9;
        assert!((found - billions).abs() < 0.001, "{name}: {found}");
    }
    assert!(shapes::published("meta-llama/Llama-3-8B").is_none());
    assert!(shapes::published("Qwen/Qwen2.5-Math").is_none());
}

/// Whether a plan fits, and the change that makes it fit if not.
#[track_caller]
fn check(name: &str, gpus: &str, settings: &[&str], expected: Option<&str>) {
    let plan = plan(name, gpus, settings);
    let text = report::table(&plan, "run.toml", 2.5, true);
    let cured_by = plan.cures.last().map(|cure| cure.change.as_str());
    assert_eq!(plan.fits().then_some("fits").or(cured_by), expected.or(Some("fits")), "{text}");
    assert_eq!(text.starts_with("fits"), expected.is_none(), "{text}");
    assert!(plan.cures.last().is_none_or(|cure| cure.fits), "{text}");
    let parts: f64 = plan.peak.parts.iter().sum();
    assert!((parts - plan.peak.bytes()).abs() < 1.0 && parts > 0.0, "{text}");
    for part in plan.peak.parts {
        assert!(part >= -1.0, "a part below nothing: {text}");
    }
}

#[test]
fn verdicts_and_cures() {
    check("s1-32B", "16x80GB", &["distributed.sequence_parallel = 4"], None);
    check("s1-32B", "16x80GB", &[], None);
    check("s1-32B", "8x80GB", &["distributed.sequence_parallel = 8"], None);
    check("s1-32B", "4x80GB", &[], Some("memory.offload = \"optimizer\""));
    check("Qwen2.5-7B", "1x141GB", &[], None);
    check("Qwen2.5-7B", "1x80GB", &[], Some("memory.offload = \"optimizer\""));
    let none = ["memory.recompute = \"none\""];
    check("s1-32B", "16x80GB", &none, Some("memory.recompute = \"all\""));
    check("s1-32B", "1x80GB", &[], Some("4 GPUs"));
    let tight = ["memory.limit_gib = 38.5", "memory.recompute = \"all\""];
    check("s1-32B", "16x80GB", &tight, Some("distributed.sequence_parallel = 2"));
}

#[test]
fn what_is_longest_fits_and_a_bit_more_does_not() {
    for settings in [&["memory.recompute = \"all\""][..], &["memory.recompute = \"auto\""]] {
        let plan = plan("s1-32B", "16x80GB", settings);
        let peak = |tokens: usize| {
            let tokens = tokens as i64;
            memory::peak(&plan.job, tokens, tokens, false).bytes()
        };
        let longest = plan.longest;
        assert!(peak(longest) <= plan.job.limit && peak(longest + longest / 50) > plan.job.limit);
        assert!(longest > 32_768, "a whole block fits on 16 GPUs, not only {longest} tokens");
    }
}

#[test]
fn what_is_kept_grows_with_the_limit_and_shrinks_with_tokens() {
    let job = |limit| Job { limit, ..plan("s1-32B", "16x80GB", &[]).job };
    let kept = |tokens, gib: f64| memory::kept_layers(&job(gib * GIB), tokens, tokens, false);
    assert_eq!((kept(5500, 30.0), kept(5500, 1000.0)), (0, 64));
    let by_limit: Vec<i64> = (30..90).step_by(5).map(|gib| kept(5500, gib as f64)).collect();
    assert!(by_limit.is_sorted() && by_limit[4] < by_limit[11], "{by_limit:?}");
    let by_tokens: Vec<i64> = (1..20).map(|thousands| -kept(1000 * thousands, 75.0)).collect();
    assert!(by_tokens.is_sorted() && by_tokens[0] < by_tokens[18], "{by_tokens:?}");
}

#[test]
fn on_paper_the_26_minutes_are_the_longest_of_sixteen() {
    let by_itself =
        plan("s1-32B", "16x80GB", &["schedule.epochs = 5", "memory.recompute = \"all\""]);
    let shared = ["schedule.epochs = 5", "distributed.sequence_parallel = 4"];
    let shared = plan("s1-32B", "16x80GB", &shared);
    let theirs = &shared.as_s1_ran;
    let minutes = [theirs, &by_itself.estimate, &shared.estimate].map(|e| e.seconds() / 60.0);
    let [theirs_minutes, alone, four] = minutes;
    eprintln!(
        "on 16 H100s, on paper: s1's way {theirs_minutes:.1} minutes, ours with a rank for itself \
         {alone:.1}, with four sharing {four:.1}"
    );
    assert_eq!(theirs.steps, 315);
    // 26 minutes are reported; the rates are assumptions.
    assert!((20.0..32.0).contains(&theirs_minutes), "{minutes:?}");
    assert!(theirs.step.waiting / theirs.step.total() > 0.3, "{:?}", theirs.step);
    assert!(shared.estimate.step.waiting / shared.estimate.step.total() < 0.03);
    assert!(four < 0.6 * theirs_minutes, "{minutes:?}");
}

/// A plan of the 32B with some rates replaced.
fn with_rates(gpus: &str, settings: &[&str], rates: &[&str]) -> Plan {
    let mut hardware = Hardware::parse(gpus, None).unwrap();
    hardware.set_rates(&rates.iter().map(|rate| rate.to_string()).collect::<Vec<_>>()).unwrap();
    let lengths = Lengths::modelled(Spread::S1K, None, 32, 32_768);
    Plan::new(&config(settings), shapes::published("s1-32B").unwrap(), hardware, lengths).unwrap()
}

#[test]
fn a_steps_end_counts_all_that_it_moves() {
    // (settings, memory's rate and its GB/s, bytes a parameter that go over it)
    let rows: [(&[&str], &str, f64); 4] = [
        // Looked at: weight and two moments; norm; scaling; AdamW reads four and writes three.
        (&[], "memory_tb_s", 12.0 + 4.0 + 8.0 + 28.0),
        (&["memory.offload = \"optimizer\""], "memory_tb_s", 4.0 + 8.0),
        // There: the gradient comes, all but norm and scaling, the weight is cast and sent.
        (
            &["memory.offload = \"optimizer\""],
            "host_memory_gb_s",
            4.0 + 12.0 + 28.0 + (4.0 + 2.0) + 2.0,
        ),
        (&["memory.offload = \"optimizer\""], "host_link_gb_s", 4.0 + 2.0),
    ];
    for (settings, rate, expected) in rows {
        let end = |rates: &[&str]| with_rates("8x80GB", settings, rates).estimate.step.optimizer;
        let unit = if rate == "memory_tb_s" { 1e12 } else { 1e9 };
        // A rate of 1 against a rate of 2 leaves half of what goes over it.
        let half = end(&[&format!("{rate}=1.0")]) - end(&[&format!("{rate}=2.0")]);
        let parameters = shapes::published("s1-32B").unwrap().num_parameters() as f64 / 8.0;
        let found = 2.0 * half * unit / parameters;
        assert!((found - expected).abs() < 1e-3, "{settings:?}, {rate}: {found}");
    }
}

#[test]
fn copies_in_one_node_meet_inside_it() {
    let seconds = |gpus: &str, rates: &[&str]| {
        let settings = ["distributed.replicate = 2", "memory.recompute = \"all\""];
        with_rates(gpus, &settings, rates).estimate.step.total()
    };
    let slow = ["network_gb_s=0.5"];
    assert_eq!(seconds("8x80GB", &slow), seconds("8x80GB", &[]));
    assert!(seconds("8x80GB", &["node_gb_s=1.0"]) > 2.0 * seconds("8x80GB", &[]));
    assert!(seconds("16x80GB", &slow) > 2.0 * seconds("16x80GB", &[]));
}

#[test]
fn one_rank_of_a_group_may_hold_all_targets() {
    let job = plan("s1-32B", "8x80GB", &["distributed.sequence_parallel = 4"]).job;
    // (tokens and targets of the pass, most of both on one rank)
    let rows = [
        ((8000, 1000), (2000, 1000)),
        ((8000, 7800), (2000, 2000)),
        ((8001, 1), (2001, 1)),
        ((0, 0), (1, 1)),
    ];
    for ((tokens, targets), expected) in rows {
        assert_eq!(job.part(tokens, targets), expected, "{tokens} tokens, {targets} targets");
    }
}

#[test]
fn out_of_memory_names_what_helps() {
    let job = plan("s1-32B", "16x80GB", &[]).job;
    let text = report::out_of_memory(&job, 5, "layers.31 (backward) at 32768 tokens", 32_768);
    for part in [
        "rank 5: out of memory in layers.31 (backward) at 32768 tokens",
        "GiB",
        "distributed.sequence_parallel = 2",
        "memory.limit_gib",
    ] {
        assert!(text.contains(part), "{part}: {text}");
        eprintln!("{text}");
    }
}

#[test]
fn a_smaller_micro_batch_is_tried_before_anything_dear() {
    let hardware = Hardware::parse("cpu:22GB", None).unwrap();
    let lengths = Lengths::modelled(Spread::S11, Some(5500), 1000, 20_000);
    let set = ["data.block_size = 20000", "batch.micro_batch_tokens = 65536"];
    let model = shapes::published("s1.1-0.5B").unwrap();
    let plan = Plan::new(&config(&set), model, hardware, lengths).unwrap();
    let text = report::table(&plan, "run.toml", 2.5, false);
    assert!(!plan.fits(), "{text}");
    let cures: Vec<&str> = plan.cures.iter().map(|cure| cure.change.as_str()).collect();
    assert_eq!(cures, ["batch.micro_batch_tokens = 15360"], "{text}");
    assert!(text.contains("with the settings above up to batch.micro"), "{text}");
}

#[test]
fn figures_that_make_no_sense_are_refused() {
    for rate in ["memory_tb_s=0", "matmul_tflops=nan", "latency_us=-1", "host_ms=inf"] {
        let mut hardware = Hardware::parse("8x80GB", None).unwrap();
        assert!(hardware.set_rates(&[rate.to_string()]).is_err(), "{rate}");
    }
    assert!(Hardware::parse("1xnanGB", None).is_err());
    let usable = |gpus: &str| Hardware::parse(gpus, None).unwrap().usable() / GIB;
    assert!((usable("1x80GB") - 79.6).abs() < 0.05 && (usable("1x141GB") - 140.4).abs() < 0.05);
}
