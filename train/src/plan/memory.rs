//! A rank's memory, by going through the step's allocations in the step's order: what
//! `step.rs`, `loss.rs` and `shards.rs` hold, byte for byte where that is known, so that the peak
//! and what it consists of come out by themselves. To be read beside `step.rs`.
//!
//! Letters: H hidden, Q and K the widths of queries and of keys, I intermediate, V vocabulary, T
//! tokens of this rank, N of them trained, e bytes of an element that layers compute with.

use super::Job;
use super::hardware::Device;
use super::lengths::Lengths;
use crate::balance;
use crate::config::Recompute;
use crate::loss;

/// The share of the limit that recomputing less may fill: a plan is right to a few percent.
const FILLED: f64 = 0.95;

/// Bytes of a parameter's state, in memory and in a checkpoint: weight and moments, fp32.
pub const STATE: f64 = 12.0;

/// What memory is held for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// This rank's slices of the weights, fp32, or in the compute kind where these are on the host.
    Weights,
    /// AdamW's two moments of these slices, fp32.
    Moments,
    /// This rank's slices of the gradient, fp32.
    Gradients,
    /// Whole layers: the one in use and the one that is on its way.
    Gathered,
    /// Whole gradients of layers, and those on their way to their owners.
    Whole,
    /// The whole embedding and the whole head, and their gradients.
    Embedding,
    /// Each layer's input.
    Inputs,
    /// Graphs of layers that are not recomputed.
    Kept,
    /// What the layer at work holds.
    Layer,
    /// Logits of a chunk, and what else the loss holds for each trained token.
    Logits,
    /// Positions, ids, slices on their way.
    Buffers,
    /// A copy of the slices while it is saved, where this memory is the host's.
    Snapshot,
}

/// Each part with its name for people.
pub const PARTS: [(Part, &str); 12] = [
    (Part::Weights, "weights, this rank's slices"),
    (Part::Moments, "AdamW's moments"),
    (Part::Gradients, "gradient, this rank's slices"),
    (Part::Gathered, "gathered layers"),
    (Part::Whole, "layers' whole gradients"),
    (Part::Embedding, "embedding and head, their gradients"),
    (Part::Inputs, "layers' inputs"),
    (Part::Kept, "kept activations"),
    (Part::Layer, "the layer at work"),
    (Part::Logits, "logits of a chunk"),
    (Part::Buffers, "buffers"),
    (Part::Snapshot, "checkpoint being saved"),
];

/// Bytes by part.
pub type Bytes = [f64; PARTS.len()];

/// The most that one pass holds.
#[derive(Debug, Clone)]
pub struct Peak {
    /// What it consists of.
    pub parts: Bytes,
    /// Where in the step it is.
    pub place: &'static str,
    /// Tokens of the pass on this rank.
    pub tokens: i64,
    /// Layers whose graph is kept.
    pub kept: i64,
}

impl Peak {
    /// All parts.
    pub fn bytes(&self) -> f64 {
        self.parts.iter().sum()
    }
}

/// The pass with the highest peak over all steps; a step of several rounds holds its gradient from
/// the first to the last.
pub fn largest(job: &Job, lengths: &Lengths, batches: &[Vec<usize>]) -> Peak {
    let mut largest: Option<Peak> = None;
    for batch in batches {
        let tokens: Vec<usize> = batch.iter().map(|&i| lengths.tokens[i]).collect();
        let shares = balance::share(&tokens, &job.model, job.groups(), job.micro_batch_tokens);
        for rounds in &shares {
            for (round, places) in rounds.iter().enumerate() {
                let count = |of: &[usize]| -> usize { places.iter().map(|&p| of[batch[p]]).sum() };
                let (tokens, targets) = job.part(count(&lengths.tokens), count(&lengths.trained));
                let found = peak(job, tokens, targets, round > 0);
                if largest.as_ref().is_none_or(|most| most.bytes() < found.bytes()) {
                    largest = Some(found);
                }
            }
        }
    }
    largest.expect("a run has steps")
}

/// The longest example that fits in a pass of its own, in tokens, all of them trained, beside the
/// gradient of an earlier pass if a step can have one; 0 if none does.
pub fn longest(job: &Job) -> usize {
    let fits = |length: usize| {
        let (tokens, targets) = job.part(length, length);
        peak(job, tokens, targets, job.several_passes()).bytes() <= job.limit
    };
    let (mut fitting, mut too_long) = (0, 1 << 22);
    while too_long - fitting > fitting / 256 + 1 {
        let middle = (fitting + too_long) / 2;
        *(if fits(middle) { &mut fitting } else { &mut too_long }) = middle;
    }
    fitting
}

/// How many of the last layers keep their graph in a pass of this rank over `tokens` tokens,
/// `targets` of them trained: all or none as the config says, or as many as the limit allows.
pub fn kept_layers(job: &Job, tokens: i64, targets: i64, accumulated: bool) -> i64 {
    let layers = job.model.num_hidden_layers;
    match job.recompute {
        Recompute::All => return 0,
        Recompute::None => return layers,
        Recompute::Auto => {}
    }
    let fits = |kept: i64| {
        Walk::new(job, tokens, targets, kept, accumulated).peak().bytes() <= FILLED * job.limit
    };
    let (mut fitting, mut too_many) = (0, layers + 1);
    while too_many - fitting > 1 {
        let middle = (fitting + too_many) / 2;
        *(if fits(middle) { &mut fitting } else { &mut too_many }) = middle;
    }
    fitting
}

/// The most that a pass of this rank holds. `accumulated` says that an earlier pass of the step has
/// left its gradients.
pub fn peak(job: &Job, tokens: i64, targets: i64, accumulated: bool) -> Peak {
    let kept = kept_layers(job, tokens, targets, accumulated);
    Walk::new(job, tokens, targets, kept, accumulated).peak()
}

/// Bytes that a rank needs in its GPU's host: offloaded weights and moments with the gradient of
/// the unit that is updated, and the copy of the slices that is being saved.
pub fn on_host(job: &Job) -> (f64, f64) {
    let largest = job.units.iter().copied().fold(0.0, f64::max);
    let state = STATE * job.units.iter().sum::<f64>() / job.shards() as f64;
    match (job.device, job.offload) {
        (Device::Cpu, _) => (0.0, 0.0),
        (Device::Cuda, true) => (state + 4.0 * largest / job.shards() as f64, state),
        (Device::Cuda, false) => (0.0, state),
    }
}

/// What one token takes in a layer, in elements.
struct Token {
    /// Held by a layer's graph beyond its input.
    graph: f64,
    /// Held at the end of a forward with graph, beyond that.
    forward: f64,
    /// Held at the peak of a forward without graph.
    bare: f64,
    /// In addition to the graph while the gradient of gate and up is formed.
    gating: f64,
    /// Held while attention's gradient is formed.
    attention: f64,
}

impl Token {
    fn new(job: &Job) -> Self {
        let model = &job.model;
        let (h, i) = (model.hidden_size as f64, model.intermediate_size as f64);
        let q = (model.num_attention_heads * model.head_dim()) as f64;
        let k = (model.num_key_value_heads * model.head_dim()) as f64;
        // Two normed inputs and the sum between them; queries, keys, values; attention's output by
        // segment and in one piece; gate and up.
        let fused = 3.0 * h + (q + 2.0 * k) + 2.0 * q + 2.0 * i;
        // libtorch's own operations keep the values as a part of q, k and v, and need more passes.
        let (graph, gating) = match job.device {
            Device::Cpu => (fused, h + 3.0 * i),
            Device::Cuda => (fused + q + k, h + 6.0 * i),
        };
        Self {
            graph,
            forward: 3.0 * h + q + 2.0 * k,
            bare: 6.0 * h + 2.0 * q + 2.0 * k + 3.0 * i,
            gating,
            attention: 4.0 * h + 5.0 * q + 6.0 * k,
        }
    }
}

/// A pass through the step, as it allocates and frees.
struct Walk<'a> {
    job: &'a Job,
    token: Token,
    tokens: f64,
    targets: f64,
    kept: usize,
    accumulated: bool,
    now: Bytes,
    total: f64,
    most: Bytes,
    most_total: f64,
    place: &'static str,
    most_at: &'static str,
    flying: Option<(usize, f64)>,
    /// Bytes that the gather on its way needs beside its result.
    travelling: f64,
}

impl<'a> Walk<'a> {
    fn new(job: &'a Job, tokens: i64, targets: i64, kept: i64, accumulated: bool) -> Self {
        Self {
            job,
            token: Token::new(job),
            tokens: tokens as f64,
            targets: targets as f64,
            kept: kept as usize,
            accumulated,
            now: Bytes::default(),
            total: 0.0,
            most: Bytes::default(),
            most_total: 0.0,
            place: "at rest",
            most_at: "at rest",
            flying: None,
            travelling: 0.0,
        }
    }

    fn peak(mut self) -> Peak {
        self.rest();
        self.forward();
        self.loss();
        self.backward();
        let (tokens, kept) = (self.tokens as i64, self.kept as i64);
        Peak { parts: self.most, place: self.most_at, tokens, kept }
    }

    fn take(&mut self, part: Part, bytes: f64) {
        self.now[part as usize] += bytes;
        self.total += bytes;
        if self.total > self.most_total {
            (self.most, self.most_total, self.most_at) = (self.now, self.total, self.place);
        }
    }

    fn free(&mut self, part: Part, bytes: f64) {
        self.now[part as usize] -= bytes;
        self.total -= bytes;
    }

    /// Takes what is freed at once: a passing peak.
    fn pass(&mut self, part: Part, bytes: f64) {
        self.take(part, bytes);
        self.free(part, bytes);
    }

    fn last(&self) -> usize {
        self.job.units.len() - 1
    }

    /// Bytes of `n` elements for each token in the compute kind.
    fn per_token(&self, n: f64) -> f64 {
        self.tokens * n * self.job.element()
    }

    fn slice(&self, unit: usize) -> f64 {
        self.job.units[unit] / self.job.shards() as f64
    }

    /// What is there between steps.
    fn rest(&mut self) {
        let slices = self.job.units.iter().sum::<f64>() / self.job.shards() as f64;
        if self.job.offload {
            self.take(Part::Weights, slices * self.job.element());
        }
        // A CPU is its own host.
        if !self.job.offload || self.job.device == Device::Cpu {
            self.take(Part::Weights, slices * 4.0);
            self.take(Part::Moments, slices * 8.0);
        }
        if self.job.snapshot {
            self.take(Part::Snapshot, slices * STATE);
        }
        if self.accumulated {
            self.take(Part::Gradients, slices * 4.0);
        }
        let dim = self.job.model.head_dim() as f64;
        let tables = 2.0 * self.job.block_size as f64 * dim * 4.0;
        let ids = self.tokens * 16.0 + self.targets * 20.0;
        self.take(Part::Buffers, tables + ids + self.per_token(2.0 * dim));
    }

    /// A unit with the part that its memory counts to.
    fn part(&self, unit: usize, inner: Part) -> Part {
        if unit == 0 || unit == self.last() { Part::Embedding } else { inner }
    }

    /// Bytes of a gathered unit: none where the slice is the unit.
    fn gathered(&self, unit: usize) -> f64 {
        let in_place = self.job.shards() == 1 && (self.job.element() == 4.0 || self.job.offload);
        if in_place { 0.0 } else { self.job.units[unit] * self.job.element() }
    }

    fn gather(&mut self, unit: usize) {
        // The slice goes out in the compute kind; Gloo collects in a buffer of its own.
        let cast = self.job.element() != 4.0 && !self.job.offload && self.job.shards() > 1;
        let sent = if cast { self.slice(unit) * self.job.element() } else { 0.0 };
        let gloo = self.job.device == Device::Cpu && self.job.shards() > 1;
        self.free(Part::Buffers, self.travelling);
        self.travelling = sent + if gloo { self.gathered(unit) } else { 0.0 };
        self.take(Part::Buffers, self.travelling);
        self.take(self.part(unit, Part::Gathered), self.gathered(unit));
    }

    fn drop_gathered(&mut self, unit: usize) {
        self.free(self.part(unit, Part::Gathered), self.gathered(unit));
    }

    fn forward(&mut self) {
        self.place = "the forward pass";
        let (last, hidden) = (self.last(), self.job.model.hidden_size as f64);
        self.gather(0);
        self.gather(1);
        self.take(Part::Inputs, self.per_token(hidden));
        if !self.job.model.tie_word_embeddings {
            self.drop_gathered(0);
        }
        for unit in 1..last {
            self.gather(unit + 1);
            if unit + self.kept < last {
                self.take(Part::Inputs, self.per_token(hidden));
                self.pass(Part::Layer, self.per_token(self.token.bare - hidden));
            } else {
                self.take(Part::Kept, self.per_token(self.token.graph));
                self.take(Part::Inputs, self.per_token(hidden));
                self.pass(Part::Layer, self.per_token(self.token.forward - hidden));
            }
            self.drop_gathered(unit);
        }
    }

    fn loss(&mut self) {
        self.place = "head and loss";
        let model = &self.job.model;
        let (last, e) = (self.last(), self.job.element());
        let (h, v) = (model.hidden_size as f64, model.vocab_size as f64);
        let tied = model.tie_word_embeddings;
        self.gather(last - 1);
        // Rows that predict, their norm and its gradient; a chunk of logits; the head's gradient.
        let rows = self.targets * h * e;
        let chunk = self.targets.min(loss::chunk(self.job.device == Device::Cuda) as f64) * v;
        self.take(Part::Logits, 3.0 * rows + chunk * 4.0);
        // An untied head's has the norm's in the same piece.
        self.take(Part::Embedding, (v + if tied { 0.0 } else { 1.0 }) * h * 4.0);
        if e != 4.0 {
            // The products in the compute kind before they are summed, and the logits' gradient.
            self.pass(Part::Logits, chunk * 4.0);
            self.take(Part::Logits, chunk * e);
            self.pass(Part::Embedding, h * v * e);
            self.free(Part::Logits, chunk * e);
        }
        self.take(Part::Layer, self.per_token(h));
        self.pass(Part::Logits, rows);
        self.free(Part::Logits, 3.0 * rows + chunk * 4.0);
        self.free(Part::Layer, self.per_token(h));
        self.free(Part::Inputs, self.per_token(h)); // the last layer's output
        self.take(Part::Layer, self.per_token(h)); // its gradient
        self.drop_gathered(last);
        if tied {
            // The head is the embedding; its gradient waits for the rows'.
            self.drop_gathered(0);
            self.take(Part::Embedding, h * 4.0);
        }
        self.push(last, 4.0);
    }

    /// Sends off a unit's whole gradient, which is counted already in elements of `e` bytes; the
    /// one before has arrived.
    fn push(&mut self, unit: usize, e: f64) {
        let whole = self.part(unit, Part::Whole);
        if self.job.shards() > 1 {
            let reduce = self.job.reduce_element;
            // In the kind that travels, beside what it was made from until it is on its way.
            if reduce != e {
                self.take(whole, self.job.units[unit] * reduce);
            }
            self.take(Part::Buffers, self.slice(unit) * reduce);
            self.take(whole, self.job.units[unit] * self.scratch());
            if reduce != e {
                self.free(whole, self.job.units[unit] * e);
            }
        }
        if let Some(before) = self.flying.replace((unit, e)) {
            self.collect(before);
        }
    }

    /// What Gloo keeps beside each element that it reduces.
    fn scratch(&self) -> f64 {
        if self.job.device == Device::Cpu { self.job.reduce_element } else { 0.0 }
    }

    fn collect(&mut self, (unit, e): (usize, f64)) {
        let whole = self.part(unit, Part::Whole);
        let (slice, reduce) = (self.slice(unit), self.job.reduce_element);
        if self.job.shards() > 1 {
            if reduce != 4.0 {
                self.take(Part::Buffers, slice * 4.0);
                self.free(Part::Buffers, slice * reduce);
            }
            self.free(Part::Buffers, slice * 4.0);
            self.free(whole, self.job.units[unit] * (reduce + self.scratch()));
        } else {
            if e != 4.0 {
                self.take(whole, slice * 4.0);
                self.free(whole, slice * e);
            }
            self.free(whole, slice * 4.0);
        }
        if !self.accumulated {
            self.take(Part::Gradients, slice * 4.0);
        }
    }

    fn backward(&mut self) {
        self.place = "the backward pass";
        let (last, hidden) = (self.last(), self.job.model.hidden_size as f64);
        for unit in (1..last).rev() {
            if unit > 1 {
                self.gather(unit - 1);
            }
            let graph = self.per_token(self.token.graph);
            if unit + self.kept < last {
                self.take(Part::Layer, graph);
                self.pass(Part::Layer, self.per_token(self.token.forward));
            } else {
                self.free(Part::Kept, graph);
                self.take(Part::Layer, graph);
            }
            self.products(unit, graph);
            self.push(unit, self.job.element());
            self.free(Part::Inputs, self.per_token(hidden));
            self.drop_gathered(unit);
        }
        let (v, e) = (self.job.model.vocab_size as f64, self.job.element());
        self.take(Part::Embedding, v * hidden * e);
        if self.job.model.tie_word_embeddings {
            self.free(Part::Embedding, v * hidden * e);
        }
        self.free(Part::Layer, self.per_token(hidden));
        self.free(Part::Buffers, self.travelling);
        self.push(0, if self.job.model.tie_word_embeddings { 4.0 } else { e });
        if let Some(before) = self.flying.take() {
            self.collect(before);
        }
    }

    /// The vector-Jacobian product of one layer, whose graph holds `graph` bytes.
    fn products(&mut self, unit: usize, graph: f64) {
        let model = &self.job.model;
        let (h, i, e) =
            (model.hidden_size as f64, model.intermediate_size as f64, self.job.element());
        let all = self.job.units[unit] * e;
        // Each product's gradient of its weights stays until all are laid behind one another.
        self.take(Part::Whole, h * i * e);
        self.pass(Part::Layer, self.per_token(self.token.gating));
        self.take(Part::Whole, 2.0 * h * i * e);
        self.free(Part::Layer, graph);
        self.pass(Part::Layer, self.per_token(self.token.attention));
        self.take(Part::Whole, all - 3.0 * h * i * e);
        self.take(Part::Layer, self.per_token(3.0 * h));
        self.pass(Part::Whole, all);
        self.free(Part::Layer, self.per_token(3.0 * h));
    }
}
