//! A plan in words: the verdict first, then memory by parts, then time and cost.

use std::fmt::Write;

use super::hardware::{Device, Rates};
use super::memory::{PARTS, Peak};
use super::{Cure, Job, Plan};
use crate::words::{count, counted, duration, size};

/// Peak bf16 rate of an H100, TFLOP/s: what MFU is a share of.
const H100_PEAK_TFLOPS: f64 = 989.0;

/// From this share of what a rank may use on, a plan that fits is called tight.
const TIGHT: f64 = 0.97;

/// The run's published figures: 26 minutes on 16 H100s (arXiv 2501.19393, appendix D).
const S1_MINUTES: f64 = 26.0;

/// The whole table. `price` is of a GPU-hour, in dollars; `explain` adds where the time goes and
/// what was assumed.
pub fn table(plan: &Plan, name: &str, price: f64, explain: bool) -> String {
    let mut text = verdict(plan, name);
    text.push_str("\n\n");
    text.push_str(&subject(plan));
    text.push_str(&memory(plan));
    text.push_str(&time(plan, price));
    if explain && plan.fits() {
        text.push_str(&explanation(plan));
    }
    text
}

/// What `train run` says first, on one line: the pass of all its steps that needs most memory.
pub fn planned(job: &Job, peak: &Peak) -> String {
    format!(
        "{} of {} planned for a rank, in {} of {} tokens with {} of {} layers kept",
        size(peak.bytes()),
        size(job.limit),
        peak.place,
        count(peak.tokens as usize),
        peak.kept,
        job.model.num_hidden_layers
    )
}

/// What `train run` says instead of a first step that would not fit.
pub fn refused(job: &Job, peak: &Peak, cures: &[Cure]) -> String {
    let verdict = |cure: &Cure| if cure.fits { ", fits" } else { ", still too much" };
    let cures: Vec<String> = cures
        .iter()
        .map(|cure| format!("{} ({}{})", cure.change, size(cure.peak), verdict(cure)))
        .collect();
    let cures = match cures[..] {
        [] => "take a smaller model or larger devices".to_string(),
        _ => format!("set {}", cures.join(", or on top of that ")),
    };
    format!("the run does not fit: memory {}; {cures}", planned(job, peak))
}

/// What to tell a person whose run is out of memory at `place` (such as `layers.31 (backward) at
/// 32768 tokens`) of a pass over `tokens` tokens of this rank.
pub fn out_of_memory(job: &Job, rank: usize, place: &str, tokens: i64) -> String {
    let needed = super::memory::peak(job, tokens, tokens, false);
    let mut cures = super::cures_of_pass(job, tokens);
    cures.retain(|cure| cure.peak < needed.bytes());
    let cures: Vec<String> =
        cures.iter().map(|cure| format!("{} ({})", cure.change, size(cure.peak))).collect();
    format!(
        "rank {rank}: out of memory in {place}: the plan says {} with {} of {} layers kept; set \
         {}, or memory.limit_gib to what other programs leave",
        size(needed.bytes()),
        needed.kept,
        job.model.num_hidden_layers,
        cures.join(", or on top of that ")
    )
}

fn verdict(plan: &Plan, name: &str) -> String {
    let (peak, limit) = (plan.peak.bytes(), plan.job.limit);
    let on = plan.hardware.name();
    if plan.fits() {
        let hours = match plan.job.device {
            Device::Cuda => format!(", {:.1} GPU-hours", hours(plan)),
            Device::Cpu => String::new(),
        };
        let tight = if peak > TIGHT * limit { ", but it is tight" } else { "" };
        return format!(
            "fits{tight}: {name} on {on}: {} of {} at the peak, about {}{hours}",
            size(peak),
            size(limit),
            duration(plan.estimate.seconds()),
        );
    }
    let mut text =
        format!("does not fit: {name} on {on}: {} of {} at the peak", size(peak), size(limit));
    text.push_str("\n\nwhat to set, one on top of the other:\n");
    let width = plan.cures.iter().map(|cure| cure.change.len()).max().unwrap_or(0);
    for cure in &plan.cures {
        let verdict = if cure.fits { "fits" } else { "still too much" };
        let _ = writeln!(text, "  {:width$}  {:>10}  {verdict}", cure.change, size(cure.peak));
    }
    if !plan.cures.iter().any(|cure| cure.fits) {
        text.push_str("  nothing of this is enough: take a smaller model or larger devices\n");
    }
    text.trim_end().to_string()
}

fn subject(plan: &Plan) -> String {
    let (job, lengths) = (&plan.job, &plan.lengths);
    let kind = if job.device == Device::Cuda { "bfloat16" } else { "float32" };
    let mut text = format!(
        "model      {} parameters, in slices over {}, computed in {kind}\n",
        count(job.model.num_parameters() as usize),
        counted(job.shards(), "rank"),
    );
    let _ = writeln!(
        text,
        "examples   {}, mean {} tokens, longest {}: {}",
        count(lengths.tokens.len()),
        count(lengths.mean() as usize),
        count(lengths.longest()),
        lengths.source
    );
    let groups = match job.sequence_parallel {
        1 => "each rank packs its own".into(),
        ranks => format!("{ranks} ranks share each pass"),
    };
    let _ = writeln!(
        text,
        "steps      {} of {} tokens on average; {groups}, at most {} tokens a pass",
        count(plan.estimate.steps),
        count(plan.estimate.tokens as usize),
        count(job.micro_batch_tokens)
    );
    text
}

fn memory(plan: &Plan) -> String {
    let (job, peak) = (&plan.job, &plan.peak);
    let mut text = format!(
        "\nmemory of one rank at its peak: {}, {} tokens, {} of {} layers kept\n",
        peak.place,
        count(peak.tokens as usize),
        peak.kept,
        job.model.num_hidden_layers
    );
    for (part, name) in PARTS {
        let bytes = peak.parts[part as usize];
        if bytes > 0.0 {
            let _ = writeln!(text, "  {name:<38}{:>10}", size(bytes));
        }
    }
    let (device, usable) = (&plan.hardware, plan.hardware.usable());
    let card = match job.device {
        Device::Cuda => format!("{} usable of the card's {}", size(usable), size(device.memory)),
        Device::Cpu => size(usable),
    };
    let kept_back = match job.device {
        _ if job.limit < device.memory - device.reserve() => "what memory.limit_gib leaves",
        Device::Cuda => "context, NCCL and gaps",
        Device::Cpu => "libtorch and gaps",
    };
    let _ = writeln!(
        text,
        "  {:<38}{:>10}  of {}: {card}, less {} for {kept_back}",
        "together",
        size(peak.bytes()),
        size(job.limit),
        size(usable - job.limit),
    );
    text.push_str(&elsewhere(plan));
    let positions = job.model.max_position_embeddings as usize;
    let beyond = match plan.longest {
        longest if longest >= positions => {
            format!(" (the model's positions end at {})", count(positions))
        }
        _ => String::new(),
    };
    let _ = match plan.longest {
        0 => writeln!(text, "  no example fits, however short"),
        longest => {
            writeln!(text, "  longest example that fits: {} tokens{beyond}", count(longest))
        }
    };
    text
}

/// What the run needs beside its devices' memory.
fn elsewhere(plan: &Plan) -> String {
    let mut text = String::new();
    let (offloaded, saved) = super::memory::on_host(&plan.job);
    if offloaded + saved > 0.0 {
        let node = (offloaded + saved) * plan.job.ranks_per_node as f64;
        let parts = match offloaded > 0.0 {
            true => format!("{} offloaded and {} being saved", size(offloaded), size(saved)),
            false => "being saved".into(),
        };
        let all = size(offloaded + saved);
        let _ = writeln!(text, "  on the host{all:>37}  a rank: {parts}; {} a node", size(node));
    }
    let disk = size(plan.on_disk);
    let _ =
        writeln!(text, "  on the disk{disk:>37}  checkpoints, the one in the making, the export");
    text
}

fn time(plan: &Plan, price: f64) -> String {
    let Some(job) = plan.timed() else { return String::new() };
    let found = &plan.estimate;
    let mut text = String::from("\ntime, predicted from assumed rates (--explain shows them)\n");
    if let Some(cure) = plan.cures.iter().find(|cure| cure.fits) {
        let _ = writeln!(text, "  with the settings above up to {}", cure.change);
    }
    let step = found.step.total();
    let (low, high) = found.range;
    let _ =
        writeln!(text, "  a step     {} ({} to {})", seconds(step), seconds(low), seconds(high));
    let _ = writeln!(text, "  the run    {}, {} steps", duration(found.seconds()), found.steps);
    let rate = found.flops / found.step.total() / job.ranks as f64;
    match job.device {
        Device::Cuda => {
            let _ = writeln!(
                text,
                "  a GPU      {:.0} TFLOP/s of the model's own work, {:.0}% of {H100_PEAK_TFLOPS}",
                rate / 1e12,
                rate / 1e10 / H100_PEAK_TFLOPS
            );
            let hours = hours(plan);
            let cost = hours * price;
            let _ =
                writeln!(text, "  cost       {hours:.1} GPU-hours, ${cost:.0} at ${price:.2} each");
        }
        Device::Cpu => {
            let _ =
                writeln!(text, "  a rank     {:.0} GFLOP/s of the model's own work", rate / 1e9);
        }
    }
    text
}

/// Where a step's time goes, beside the same data and devices in s1's own way.
fn explanation(plan: &Plan) -> String {
    let (ours, theirs) = (&plan.estimate, &plan.as_s1_ran);
    let minutes = |seconds: f64, steps: usize| seconds * steps as f64 / 60.0;
    let mut text = String::from(
        "\nwhere an average rank's time goes, in minutes of the run (on paper)\n\
         \x20                             as s1 ran    this config\n",
    );
    for ((name, theirs_part), (_, ours_part)) in theirs.step.rows().iter().zip(ours.step.rows()) {
        let _ = writeln!(
            text,
            "  {name:<26}{:>11.2}{:>15.2}",
            minutes(*theirs_part, theirs.steps),
            minutes(ours_part, ours.steps)
        );
    }
    let both = [theirs, ours].map(|estimate| estimate.seconds() / 60.0);
    let _ = writeln!(text, "  {:<26}{:>11.2}{:>15.2}", "together", both[0], both[1]);
    if is_s1s_run(plan) {
        let missed = S1_MINUTES - both[0];
        let more = if missed < 0.0 { "less" } else { "more" };
        let _ = writeln!(
            text,
            "  s1 reports {S1_MINUTES:.0} minutes, {:.1} {more} than these rates and {} lengths give",
            missed.abs(),
            if plan.lengths.source.starts_with("modelled") { "modelled" } else { "the data's" }
        );
    }
    text.push_str(
        "  as s1 ran: an example a GPU, all layers recomputed, FlashAttention 2, separate\n\
         \x20 kernels, full logits in fp32, gradients summed in bf16, AdamW in several passes\n",
    );
    text.push_str("\nassumed, each replaced by --rate NAME=VALUE\n");
    text.push_str(&rates(&plan.hardware.rates));
    text
}

/// Whether it is the run whose minutes are published: the 32B in 315 steps on 16 GPUs.
fn is_s1s_run(plan: &Plan) -> bool {
    let (job, model) = (&plan.job, &plan.job.model);
    let is_32b = (model.hidden_size, model.num_hidden_layers) == (5120, 64);
    is_32b && plan.estimate.steps == 315 && job.ranks == 16 && job.device == Device::Cuda
}

fn rates(rates: &Rates) -> String {
    let table = toml::Table::try_from(rates).expect("rates are numbers");
    let line = |(name, value): (&String, &toml::Value)| format!("  {name} = {value}\n");
    table.iter().map(line).collect()
}

fn hours(plan: &Plan) -> f64 {
    let ranks = plan.timed().map_or(0, |job| job.ranks);
    plan.estimate.seconds() * ranks as f64 / 3600.0
}

fn seconds(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 0.1 => format!("{:.1} ms", seconds * 1e3),
        seconds if seconds < 90.0 => format!("{seconds:.2} s"),
        seconds => duration(seconds),
    }
}
