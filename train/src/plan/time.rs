//! How long a run takes, on paper: every step's packing as it will be, and for each round a clock
//! of what computes and what travels meanwhile. A prediction from assumed rates
//! ([`super::hardware::Rates`]), never a measurement.

use model::{Layout, Unit};

use super::Job;
use super::hardware::{Device, Rates};
use super::lengths::Lengths;
use super::memory;
use crate::balance;
use crate::loss;

/// Where the time of an average rank goes, in seconds; the fields add up to what a step takes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Parts {
    /// Matrix products of the layers, forward and backward once.
    pub matmul: f64,
    /// Attention, forward and backward once.
    pub attention: f64,
    /// Norms, rotation, gating and residuals.
    pub elementwise: f64,
    /// Layers that run forward a second time.
    pub recompute: f64,
    /// The head and the loss.
    pub loss: f64,
    /// Tokens exchanged for heads and back, in a group of ranks that share a sequence.
    pub exchange: f64,
    /// Waiting for the rank with most work in each round.
    pub waiting: f64,
    /// Weights and gradients that travel while nothing computes, and what they slow down else.
    pub exposed: f64,
    /// The check that weights and moments are sound, clipping and AdamW.
    pub optimizer: f64,
    /// The host's own work.
    pub host: f64,
}

impl Parts {
    /// Each part with its name for people.
    pub fn rows(&self) -> [(&'static str, f64); 10] {
        [
            ("matrix products", self.matmul),
            ("attention", self.attention),
            ("norms, rotation, gating", self.elementwise),
            ("recomputed layers", self.recompute),
            ("head and loss", self.loss),
            ("sequence exchange", self.exchange),
            ("waiting for the busiest", self.waiting),
            ("communication not hidden", self.exposed),
            ("check, clipping and AdamW", self.optimizer),
            ("host", self.host),
        ]
    }

    /// Seconds of all parts.
    pub fn total(&self) -> f64 {
        self.rows().iter().map(|(_, seconds)| seconds).sum()
    }

    /// What a rank computes between two meetings.
    fn work(&self) -> f64 {
        self.matmul + self.attention + self.elementwise + self.recompute + self.loss + self.exchange
    }

    fn add(&mut self, other: &Self, times: f64) {
        let pairs = [
            (&mut self.matmul, other.matmul),
            (&mut self.attention, other.attention),
            (&mut self.elementwise, other.elementwise),
            (&mut self.recompute, other.recompute),
            (&mut self.loss, other.loss),
            (&mut self.exchange, other.exchange),
            (&mut self.waiting, other.waiting),
            (&mut self.exposed, other.exposed),
            (&mut self.optimizer, other.optimizer),
            (&mut self.host, other.host),
        ];
        for (sum, part) in pairs {
            *sum += part * times;
        }
    }
}

/// What a whole run takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    /// Optimizer steps.
    pub steps: usize,
    /// An average step.
    pub step: Parts,
    /// The shortest and the longest step, in seconds.
    pub range: (f64, f64),
    /// Tokens of an average step.
    pub tokens: f64,
    /// Operations that the mathematics of an average step needs, without recomputation.
    pub flops: f64,
}

impl Estimate {
    /// Of the whole run.
    pub fn seconds(&self) -> f64 {
        self.step.total() * self.steps as f64
    }
}

/// Goes through the run's steps: `batches` are the places in `lengths` that each step sees.
pub fn estimate(job: &Job, rates: &Rates, lengths: &Lengths, batches: &[Vec<usize>]) -> Estimate {
    let mut sum = Parts::default();
    let (mut steps, mut tokens, mut flops) = (0, 0.0, 0.0);
    let mut range = (f64::INFINITY, 0.0f64);
    for batch in batches {
        let found = step(job, rates, lengths, batch);
        sum.add(&found, 1.0);
        range = (range.0.min(found.total()), range.1.max(found.total()));
        steps += 1;
        tokens += batch.iter().map(|&i| lengths.tokens[i] as f64).sum::<f64>();
        let of = |&i: &usize| 3.0 * balance::flops(&job.model, lengths.tokens[i]);
        flops += batch.iter().map(of).sum::<f64>();
    }
    let mut step = Parts::default();
    step.add(&sum, 1.0 / steps as f64);
    Estimate { steps, step, range, tokens: tokens / steps as f64, flops: flops / steps as f64 }
}

/// One optimizer step.
fn step(job: &Job, rates: &Rates, lengths: &Lengths, batch: &[usize]) -> Parts {
    let tokens: Vec<usize> = batch.iter().map(|&i| lengths.tokens[i]).collect();
    let shares = balance::share(&tokens, &job.model, job.groups(), job.micro_batch_tokens);
    let clock = Clock::new(job, rates);
    let mut found = Parts { host: rates.host_ms / 1e3, ..Parts::default() };
    let rounds = shares[0].len();
    for round in 0..rounds {
        let passes: Vec<Pass> = shares
            .iter()
            .map(|rounds| {
                let segments: Vec<(usize, usize)> = rounds[round]
                    .iter()
                    .map(|&at| (tokens[at], lengths.trained[batch[at]]))
                    .collect();
                Pass::new(job, rates, &segments, round > 0)
            })
            .collect();
        let busiest = passes.iter().max_by(|a, b| a.work().total_cmp(&b.work()));
        let busiest = busiest.expect("at least one group");
        for pass in &passes {
            found.add(&pass.parts(), 1.0 / passes.len() as f64);
            found.waiting += (busiest.work() - pass.work()) / passes.len() as f64;
        }
        let slowed = if job.shards() > 1 { rates.collective_share * busiest.work() } else { 0.0 };
        found.exposed += clock.round(busiest, round + 1 == rounds) - busiest.work() + slowed;
    }
    found.optimizer = optimizer(job, rates);
    found
}

/// Bytes that the norm reads of the gradient and its scaling moves, a parameter of the slices.
const NORM_AND_SCALING: f64 = 4.0 + 8.0;

/// What ends a step on this rank's slices: the look whether all are sound, norm, clipping, update.
/// The gradient is scaled in every step.
fn optimizer(job: &Job, rates: &Rates) -> f64 {
    let slices = job.model.num_parameters() as f64 / job.shards() as f64;
    let (device, element) = (rates.memory_tb_s * 1e12, job.element());
    if !job.offload || job.device == Device::Cpu {
        // Where host and device are one, offloaded weights are copied to their other place.
        let copied = if job.offload { 2.0 * element } else { 0.0 };
        return slices * (rates.optimizer_bytes + copied) / device;
    }
    // Norm and scaling are the device's. The gradient arrives on the host; the new weights are
    // cast there and read once more to be sent.
    let on_host = rates.optimizer_bytes - NORM_AND_SCALING + 4.0 + (4.0 + element) + element;
    let travelling = (4.0 + element) / (rates.host_link_gb_s * 1e9);
    let updating = NORM_AND_SCALING / device + on_host / (rates.host_memory_gb_s * 1e9);
    slices * (travelling + updating)
}

/// One rank's computing in one micro-batch.
struct Pass {
    /// One layer forward.
    forward: Parts,
    layers: f64,
    kept: f64,
    loss: f64,
    /// Attention backward over forward.
    attention_ratio: f64,
}

impl Pass {
    /// Over `segments` of so many tokens, so many of them trained; `accumulated` says that it is
    /// not the step's first.
    fn new(job: &Job, rates: &Rates, segments: &[(usize, usize)], accumulated: bool) -> Self {
        let (m, group) = (&job.model, job.sequence_parallel as f64);
        let count = |pick: fn(&(usize, usize)) -> usize| segments.iter().map(pick).sum::<usize>();
        // The group goes on together: it waits for the rank with most targets.
        let part = job.part(count(|s| s.0), count(|s| s.1));
        let (tokens, targets) = (part.0 as f64, part.1 as f64);
        let squares: f64 = segments.iter().map(|s| (s.0 * s.0) as f64).sum();
        let (h, inner) = (m.hidden_size as f64, m.intermediate_size as f64);
        let kv = (m.num_key_value_heads * m.head_dim()) as f64;
        let (tera, moved) = (1e12, rates.memory_tb_s * 1e12);
        let weights = 2.0 * h * h + 2.0 * h * kv + 3.0 * h * inner;
        let rows = 8.0 * h + 2.0 * (h + kv) + 3.0 * inner;
        let exchanged = 2.0 * (h + kv) * job.element() * tokens * (group - 1.0) / group;
        let forward = Parts {
            matmul: 2.0 * weights * tokens / (rates.matmul_tflops * tera),
            attention: 2.0 * h * squares / group / (rates.attention_forward_tflops * tera),
            elementwise: rows * job.element() * tokens * rates.elementwise_passes / moved,
            exchange: exchanged / (rates.node_gb_s * 1e9),
            ..Parts::default()
        };
        let head = 6.0 * (m.vocab_size as f64) * h * targets / (rates.matmul_tflops * tera);
        let chunks = (targets / loss::chunk(job.device == Device::Cuda) as f64).ceil();
        let logits = targets * rates.logit_bytes + chunks * h * rates.head_sum_bytes;
        let logits = logits * m.vocab_size as f64 / moved;
        let kept = memory::kept_layers(job, part.0, part.1, accumulated);
        Self {
            forward,
            layers: m.num_hidden_layers as f64,
            kept: kept as f64,
            loss: head + logits,
            attention_ratio: 2.5 * rates.attention_forward_tflops / rates.attention_backward_tflops,
        }
    }

    /// One layer's backward from its graph.
    fn backward(&self) -> f64 {
        let one = &self.forward;
        2.0 * one.matmul
            + self.attention_ratio * one.attention
            + 2.0 * one.elementwise
            + one.exchange
    }

    /// All layers and the loss.
    fn parts(&self) -> Parts {
        let (one, layers) = (&self.forward, self.layers);
        Parts {
            matmul: 3.0 * layers * one.matmul,
            attention: (1.0 + self.attention_ratio) * layers * one.attention,
            elementwise: 3.0 * layers * one.elementwise,
            recompute: (layers - self.kept) * one.total(),
            loss: self.loss,
            exchange: 2.0 * layers * one.exchange,
            ..Parts::default()
        }
    }

    fn work(&self) -> f64 {
        self.parts().work()
    }
}

/// What a round's gathers and reductions take.
struct Clock {
    /// Per unit, in forward order.
    gather: Vec<f64>,
    reduce: Vec<f64>,
    /// To sum a unit's slices over the copies of the model.
    mirror: Vec<f64>,
}

impl Clock {
    fn new(job: &Job, rates: &Rates) -> Self {
        let (shards, copies) = (job.shards() as f64, job.replicate as f64);
        let within = job.shards() <= job.ranks_per_node;
        let bus =
            if within { rates.node_gb_s } else { rates.node_gb_s.min(rates.network_gb_s) } * 1e9;
        let latency = rates.latency_us / 1e6;
        let travel = |unit: &Unit, element: f64| match job.shards() {
            1 => 0.0,
            _ => unit.numel() as f64 * element * (shards - 1.0) / shards / bus + latency,
        };
        // Between nodes every slice of a node's ranks has a ring of its own.
        let rings = job.shards().min(job.ranks_per_node) as f64;
        let link = match job.ranks <= job.ranks_per_node {
            true => rates.node_gb_s,
            false => rates.node_gb_s.min(rates.network_gb_s / rings),
        };
        let mirror = |unit: &Unit| {
            let slice = unit.numel() as f64 * job.reduce_element / shards;
            slice * 2.0 * (copies - 1.0) / copies / (link * 1e9)
        };
        // The slice is cast on the way out, unless it was when it came from the host.
        let casts = job.element() < 4.0 && !job.offload;
        let cast = |unit: &Unit| {
            unit.numel() as f64 / shards * (4.0 + job.element()) / (rates.memory_tb_s * 1e12)
        };
        let units = Layout::new(&job.model).units;
        let gather =
            |unit: &Unit| travel(unit, job.element()) + if casts { cast(unit) } else { 0.0 };
        Self {
            gather: units.iter().map(gather).collect(),
            reduce: units.iter().map(|unit| travel(unit, job.reduce_element)).collect(),
            mirror: units.iter().map(mirror).collect(),
        }
    }

    /// Seconds of a round in which this rank has `pass` to do: the order of events is the step's.
    /// A gather sets out when the computation before its own begins; a reduction when its
    /// gradient is there, and the next but one gradient waits for it.
    fn round(&self, pass: &Pass, last_round: bool) -> f64 {
        let last = self.gather.len() - 1;
        let forward = pass.forward.total();
        let first_kept = last as f64 - pass.kept;
        let mut link = Link(0.0);
        let (mut now, mut ready) = (0.0f64, link.send(0.0, self.gather[0]));
        for unit in 0..=last {
            let start = now.max(ready);
            let next = if unit == last { last - 1 } else { unit + 1 };
            ready = link.send(start, self.gather[next]);
            now = start
                + match unit {
                    0 => 0.0,
                    unit if unit == last => pass.loss,
                    _ => forward,
                };
        }
        let reduce =
            |unit: usize| self.reduce[unit] + if last_round { self.mirror[unit] } else { 0.0 };
        let mut flying = link.send(now, reduce(last));
        for unit in (1..last).rev() {
            let start = now.max(ready);
            if unit > 1 {
                ready = link.send(start, self.gather[unit - 1]);
            }
            let again = if (unit as f64) < first_kept { forward } else { 0.0 };
            now = start + again + pass.backward();
            let reduced = link.send(now, reduce(unit));
            now = now.max(std::mem::replace(&mut flying, reduced));
        }
        now.max(flying).max(link.send(now, reduce(0)))
    }
}

/// One thing travels at a time, in the order of asking.
struct Link(f64);

impl Link {
    /// When what is ready at `ready` and takes `seconds` has arrived.
    fn send(&mut self, ready: f64, seconds: f64) -> f64 {
        self.0 = self.0.max(ready) + seconds;
        self.0
    }
}

/// s1's own way to run the same recipe: one example a GPU, every layer recomputed, PyTorch's
/// attention (FlashAttention 2), separate kernels, full logits in fp32, AdamW in several passes.
pub fn as_s1_ran(job: &Job, rates: &Rates) -> (Job, Rates) {
    let job = Job {
        sequence_parallel: 1,
        replicate: 1,
        recompute: crate::config::Recompute::All,
        offload: false,
        reduce_element: 2.0,
        // Less than any example: each passes alone.
        micro_batch_tokens: 1,
        ..job.clone()
    };
    let rates = Rates {
        attention_forward_tflops: rates.attention_forward_tflops.min(370.0),
        attention_backward_tflops: rates.attention_backward_tflops.min(300.0),
        elementwise_passes: rates.elementwise_passes.max(2.0),
        logit_bytes: rates.logit_bytes.max(50.0),
        head_sum_bytes: 0.0,
        optimizer_bytes: rates.optimizer_bytes.max(90.0),
        ..*rates
    };
    (job, rates)
}
