//! The plan's memory against the measured: bytes in tensors at the peak of real training steps.

mod support;

use std::process::{Child, Command, Stdio};

use c10d::Rank;
use model::chat::Example;
use tch::{Device, Kind, Tensor};
use train::config::Config;
use train::data;
use train::mesh::Mesh;
use train::plan::hardware::Hardware;
use train::plan::lengths::Lengths;
use train::plan::{Job, memory};
use train::shards::{Placement, Shards};
use train::step::Trainer;

/// A model, its examples, and how they are trained.
struct Row {
    name: &'static str,
    shape: support::Shape,
    lengths: &'static [usize],
    /// Tokens of each example that nothing is trained on.
    prompt: usize,
    ranks: usize,
    /// Config lines: `section.key = value`.
    settings: &'static [&'static str],
}

/// The setting of rows that are measured while a checkpoint is being saved.
const SAVING: &str = "checkpoint.every_steps = 1";

const ROWS: [Row; 19] = [
    Row {
        name: "long, all recomputed",
        shape: (128, 512, 5, 4, 2, 1000, false),
        lengths: &[900, 300],
        prompt: 20,
        ranks: 1,
        settings: &["memory.recompute = \"all\""],
    },
    Row {
        name: "long, none recomputed",
        shape: (128, 512, 5, 4, 2, 1000, false),
        lengths: &[900, 300],
        prompt: 20,
        ranks: 1,
        settings: &["memory.recompute = \"none\""],
    },
    Row {
        name: "long, what 72 MiB allow",
        shape: (128, 512, 5, 4, 2, 1000, false),
        lengths: &[900, 300],
        prompt: 20,
        ranks: 1,
        settings: &["memory.recompute = \"auto\"", "memory.limit_gib = 0.07"],
    },
    Row {
        name: "short, wide layers",
        shape: (512, 2048, 3, 8, 8, 1000, true),
        lengths: &[60, 40, 50],
        prompt: 20,
        ranks: 1,
        settings: &["memory.recompute = \"none\""],
    },
    Row {
        name: "large vocabulary, tied",
        shape: (64, 256, 2, 4, 2, 20_000, true),
        lengths: &[300, 150, 100],
        prompt: 20,
        ranks: 1,
        settings: &["memory.recompute = \"all\""],
    },
    Row {
        name: "large vocabulary, a head of its own",
        shape: (64, 256, 2, 4, 2, 20_000, false),
        lengths: &[800, 300, 200],
        prompt: 20,
        ranks: 1,
        settings: &["memory.recompute = \"all\""],
    },
    Row {
        name: "two ranks, long",
        shape: (128, 512, 5, 4, 2, 1000, false),
        lengths: &[600, 600],
        prompt: 20,
        ranks: 2,
        settings: &["memory.recompute = \"all\""],
    },
    Row {
        name: "two ranks, none recomputed",
        shape: (128, 512, 5, 4, 2, 1000, true),
        lengths: &[500, 250, 280],
        prompt: 20,
        ranks: 2,
        settings: &["memory.recompute = \"none\""],
    },
    Row {
        name: "two ranks, wide layers, short",
        shape: (512, 2048, 3, 8, 4, 1000, false),
        lengths: &[160, 140, 150, 170],
        prompt: 20,
        ranks: 2,
        settings: &["memory.recompute = \"all\""],
    },
    Row {
        name: "two ranks, large vocabulary",
        shape: (64, 256, 2, 4, 2, 20_000, false),
        lengths: &[250, 150],
        prompt: 20,
        ranks: 2,
        settings: &["memory.recompute = \"all\""],
    },
    Row {
        name: "two ranks share a sequence",
        shape: (128, 512, 5, 4, 2, 1000, false),
        lengths: &[1200],
        prompt: 20,
        ranks: 2,
        settings: &["memory.recompute = \"none\"", "distributed.sequence_parallel = 2"],
    },
    Row {
        name: "two copies, gradients summed in bf16",
        shape: (128, 512, 4, 4, 2, 4000, true),
        lengths: &[600, 600],
        prompt: 20,
        ranks: 2,
        settings: &["distributed.replicate = 2", "distributed.reduce_dtype = \"bfloat16\""],
    },
    Row {
        name: "two ranks, gradients summed in bf16",
        shape: (256, 1024, 4, 4, 2, 4000, true),
        lengths: &[300, 300],
        prompt: 20,
        ranks: 2,
        settings: &["distributed.reduce_dtype = \"bfloat16\"", "memory.recompute = \"all\""],
    },
    Row {
        name: "several passes a step",
        shape: (128, 512, 3, 4, 2, 4000, false),
        lengths: &[400, 350, 370, 300],
        prompt: 20,
        ranks: 1,
        settings: &["memory.recompute = \"none\"", "batch.micro_batch_tokens = 400"],
    },
    Row {
        name: "weights and moments on the host",
        shape: (512, 2048, 3, 8, 8, 1000, true),
        lengths: &[60, 40, 50],
        prompt: 20,
        ranks: 1,
        settings: &["memory.recompute = \"none\"", "memory.offload = \"optimizer\""],
    },
    Row {
        name: "a checkpoint being saved",
        shape: (512, 2048, 3, 8, 8, 1000, true),
        lengths: &[60, 40, 50],
        prompt: 20,
        ranks: 1,
        settings: &["memory.recompute = \"none\"", SAVING],
    },
    Row {
        name: "two ranks, on the host and being saved",
        shape: (512, 2048, 3, 8, 4, 1000, false),
        lengths: &[160, 140, 150, 170],
        prompt: 20,
        ranks: 2,
        settings: &["memory.recompute = \"all\"", "memory.offload = \"optimizer\"", SAVING],
    },
    Row {
        name: "two ranks, weights and moments on the host",
        shape: (512, 2048, 3, 8, 4, 1000, false),
        lengths: &[160, 140, 150, 170],
        prompt: 20,
        ranks: 2,
        settings: &["memory.recompute = \"all\"", "memory.offload = \"optimizer\""],
    },
    Row {
        name: "two ranks share, all targets on one",
        shape: (64, 256, 2, 4, 2, 20_000, false),
        lengths: &[400],
        prompt: 200,
        ranks: 2,
        settings: &["memory.recompute = \"all\"", "distributed.sequence_parallel = 2"],
    },
];

impl Row {
    fn config(&self) -> Config {
        let mut table: toml::Table = toml::from_str(&format!(
            r#"seed = 1
            output = "none"
            [data]
            examples = "none"
            block_size = 4096
            over_long = "error"
            [model]
            path = "none"
            init = "random"
            [batch]
            global_batch = {}
            micro_batch_tokens = 4096
            [optimizer]
            learning_rate = 1e-3
            beta1 = 0.9
            beta2 = 0.95
            eps = 1e-8
            weight_decay = 0.1
            max_grad_norm = 1.0
            [schedule]
            epochs = 1
            warmup_ratio = 0.0"#,
            self.lengths.len()
        ))
        .unwrap();
        for setting in self.settings {
            let (path, value) = setting.split_once(" = ").unwrap();
            let (section, key) = path.split_once('.').unwrap();
            let value: toml::Table = format!("value = {value}").parse().unwrap();
            let section = table.entry(section).or_insert(toml::Table::new().into());
            section.as_table_mut().unwrap().insert(key.into(), value["value"].clone());
        }
        table.try_into().unwrap()
    }

    /// A step on this rank; its peak in bytes.
    fn measure(&self, rank: &Rank) -> usize {
        c10d::memory::count_cpu();
        tch::set_num_threads(1);
        let (config, model) = (self.config(), support::model(self.shape));
        let mesh = Mesh::new(support::connect(rank), &config.distributed).unwrap();
        let placement =
            Placement::new(Device::Cpu, config.distributed.reduce_dtype, config.memory.offload);
        let zeros =
            |unit: &model::Unit| Ok(Tensor::full([unit.numel()], 0.01, (Kind::Float, Device::Cpu)));
        let shards = Shards::new(model, mesh, placement, zeros).unwrap();
        let mut trainer =
            Trainer::new(shards, 4096, &config.optimizer, &config.memory, &config.guard);
        assert_eq!(trainer.job.ranks_per_node, 1);
        if config.memory.limit_gib.is_none() {
            // Nine tenths: nobody shares this rank's machine.
            assert!(trainer.job.limit > 0.6 * c10d::memory::available(Device::Cpu) as f64);
        }
        let ids = |length: usize| (0..length as i64).map(|i| i % 997).collect();
        let example = |&length: &usize| Example::new(ids(length), self.prompt);
        let examples: Vec<Example> = self.lengths.iter().map(example).collect();
        let batch: Vec<&Example> = examples.iter().collect();
        let _saving = self.is_saving().then(|| train::state::snapshot(&trainer));
        {
            let (model, mesh) = (&trainer.shards.config, &trainer.shards.mesh);
            let parts = data::micro_batches(&batch, &config.batch, model, mesh, Device::Cpu);
            trainer.step(&parts, 1e-3).unwrap();
        }
        c10d::memory::peak(Device::Cpu)
    }

    /// A process for each rank, as if on a machine of its own; the highest of their peaks.
    fn measured(&self, number: usize) -> f64 {
        let port = c10d::Rank::free_port().unwrap();
        let start = |rank: usize| -> Child {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "a_rank_of_a_row", "--nocapture"])
                .envs(Rank { local_world_size: 1, ..Rank::local(rank, self.ranks, port) }.to_env())
                .env("S1_PLAN_ROW", number.to_string())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        };
        let ranks: Vec<Child> = (0..self.ranks).map(start).collect();
        let peak = |child: Child| {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}: a rank failed", self.name);
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let peak = text.lines().find_map(|line| line.split_once("peak of ")?.1.parse().ok());
            peak.unwrap_or_else(|| panic!("{}: no peak in {text}", self.name))
        };
        ranks.into_iter().map(peak).fold(0.0, f64::max)
    }

    /// Whether a copy of the slices is in memory while the step runs.
    fn is_saving(&self) -> bool {
        self.settings.contains(&SAVING)
    }

    fn planned(&self) -> memory::Peak {
        let (model, hardware) = (support::model(self.shape), Hardware::cpu(1e12, self.ranks));
        // A save after the first step runs while the second does.
        let job = Job::new(&self.config(), model, &hardware, 2).unwrap();
        let trained = self.lengths.iter().map(|length| length - self.prompt).collect();
        let lengths = Lengths { tokens: self.lengths.to_vec(), trained, source: String::new() };
        memory::largest(&job, &lengths, &[(0..self.lengths.len()).collect()])
    }
}

/// In a process that the other test starts: one rank of a row. Alone it does nothing.
#[test]
fn a_rank_of_a_row() {
    if let Ok(number) = std::env::var("S1_PLAN_ROW") {
        let row = &ROWS[number.parse::<usize>().unwrap()];
        println!("\npeak of {}", row.measure(&Rank::from_env().unwrap()));
    }
}

#[test]
fn planned_memory_is_the_measured() {
    let mib = 1024.0 * 1024.0;
    let mut worst = 0.0f64;
    for (number, row) in ROWS.iter().enumerate() {
        let (measured, planned) = (row.measured(number), row.planned());
        let error = planned.bytes() / measured - 1.0;
        worst = worst.max(error.abs());
        eprintln!(
            "{:38} measured {:6.1} MiB, planned {:6.1} ({:+.1}%), {} of {} layers kept, in {}",
            row.name,
            measured / mib,
            planned.bytes() / mib,
            100.0 * error,
            planned.kept,
            row.shape.2,
            planned.place
        );
    }
    assert!(worst < 0.1, "a plan is off by {:.1}%", 100.0 * worst);
}
