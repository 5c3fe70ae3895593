//! The training step: FSDP with selective recomputation as one visible loop, no hooks.
//!
//! Forward, layer by layer: collect the layer's weights, run it, free them. Most layers keep only
//! their input; as many of the last ones as memory allows keep their graph. Then in reverse:
//! collect again, run again with a graph unless it was kept, take the vector-Jacobian product,
//! hand the gradient to its owners. The next layer's weights are always in flight during this
//! layer's work, and so is the previous layer's gradient.

use anyhow::Result;
use c10d::Reduce;
use c10d::aten::vjp;
use model::Rope;
use model::qwen2::{self, DecoderLayer};
use tch::{Kind, Tensor};

use crate::blame::{self, Inspection, Scene};
use crate::config::{Guard, Memory, Optimizer};
use crate::data::MicroBatch;
use crate::digest::Digests;
use crate::guard::SpikeGuard;
use crate::loss::{self, Gradients};
use crate::optimizer::AdamW;
use crate::plan::{self, Job};
use crate::shards::{Gathering, Mirroring, Reducing, Shards};
use crate::trace::{Stage, Trace};
use crate::ulysses;

/// Everything a training step reads and writes.
pub struct Trainer {
    /// The parameters.
    pub shards: Shards,
    /// The optimizer and its moments.
    pub adamw: AdamW,
    /// What the loss-spike guard remembers.
    pub guard: SpikeGuard,
    /// What weights and moments summed up to after the last update.
    pub digests: Digests,
    /// Per unit this rank's slice of the gradient, fp32, once there is one.
    pub grads: Vec<Option<Tensor>>,
    /// What this rank is doing.
    pub trace: Trace,
    /// What this run is to the plan's arithmetic.
    pub job: Job,
    /// Whether this rank is asked to leave; it tells the others in the next step.
    pub asked: bool,
    /// Whether the job's limit is the one that this rank's sequence group keeps to.
    agreed: bool,
    rope: Rope,
    max_grad_norm: f64,
}

/// What a step measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Mean loss of the global batch.
    pub loss: f64,
    /// Norm of the whole gradient before clipping.
    pub grad_norm: f64,
    /// Whether a first try was not finite and this is the second.
    pub recomputed: bool,
    /// Whether the update was left out as a spike.
    pub skipped: bool,
    /// Whether any rank is asked to leave.
    pub asked: bool,
}

/// What a layer leaves for its backward.
enum Saved {
    /// Its input, to run it again.
    Input(Tensor),
    /// Its graph, whose weights' memory is free until they are collected again.
    Graph { flat: Tensor, x: Tensor, y: Tensor },
}

impl Trainer {
    /// Before the first step. `positions` is the longest segment that will be seen.
    pub fn new(
        shards: Shards,
        positions: i64,
        optimizer: &Optimizer,
        memory: &Memory,
        guard: &Guard,
    ) -> Self {
        Self {
            // First: what is free is asked before the moments' memory is promised but not taken.
            job: Job::of_rank(&shards, memory, positions),
            adamw: AdamW::new(&shards, optimizer),
            guard: SpikeGuard::new(guard.loss_spike),
            digests: Digests::new(&shards, guard.digest_every),
            grads: shards.shards.iter().map(|_| None).collect(),
            trace: Trace::default(),
            asked: false,
            agreed: false,
            rope: Rope::new(&shards.config, positions, shards.placement.device),
            max_grad_norm: optimizer.max_grad_norm,
            shards,
        }
    }

    /// One optimizer step over this rank's micro-batches (as many on every rank).
    ///
    /// Loss and norm are read before the update: it costs one short wait for the device, and
    /// nothing that is not finite ever reaches the weights.
    ///
    /// # Errors
    /// Loss or gradient that are not finite twice: the text names rank and tensor, and the
    /// update was not made.
    pub fn step(&mut self, batches: &[MicroBatch], learning_rate: f64) -> Result<Measured> {
        let (mut loss, mut grad_norm, mut asked) =
            self.gradients(batches, &mut Inspection::off())?;
        let recomputed = !(loss.is_finite() && grad_norm.is_finite());
        if recomputed {
            let mut inspection = Inspection::on();
            (loss, grad_norm, asked) = self.gradients(batches, &mut inspection)?;
            if !(loss.is_finite() && grad_norm.is_finite()) {
                let numbers = format!("loss {loss} and gradient norm {grad_norm}");
                let Self { shards, adamw, digests, trace, .. } = &*self;
                let scene = Scene { shards, adamw, digests, inspection: &inspection };
                return Err(blame::find(scene, &numbers, trace.place().step)?);
            }
        }
        let skipped = self.guard.is_spike(loss, grad_norm)?;
        if !skipped {
            self.trace.note(Stage::Update, 0, 0);
            let scale = self.max_grad_norm / (grad_norm + 1e-6); // as clip_grad_norm_
            self.adamw.step(&self.shards, &self.grads, scale.min(1.0), learning_rate)?;
            self.shards.publish_masters();
            self.digests.look(&self.shards, &self.adamw, self.trace.place().step)?;
        }
        self.grads.fill_with(|| None);
        self.trace.note(Stage::Idle, 0, 0);
        Ok(Measured { loss, grad_norm, recomputed, skipped, asked })
    }

    /// Collects the gradients of all micro-batches; the global batch's loss and gradient norm, and
    /// whether any rank is asked to leave.
    pub fn gradients(
        &mut self,
        batches: &[MicroBatch],
        inspection: &mut Inspection,
    ) -> Result<(f64, f64, bool)> {
        let _guard = tch::no_grad_guard();
        self.agree()?;
        self.grads.fill_with(|| None);
        let mut loss = Tensor::zeros([], (Kind::Float, self.shards.placement.device));
        for (number, batch) in batches.iter().enumerate() {
            loss += self.accumulate(batch, number + 1 == batches.len(), inspection)?;
        }
        inspection.note_loss(&loss);
        loss += self.unsound();
        self.trace.note(Stage::Sum, 0, 0);
        let square = self.grads.iter().flatten().map(square_sum).reduce(|a, b| a + b);
        let square = square.expect("every unit has a gradient");
        let asked = Tensor::full_like(&loss, f64::from(u8::from(self.asked)));
        // Over all ranks, the copies of the model too: what follows from these numbers, every rank
        // decides alike.
        let sums = Tensor::stack(&[loss, square, asked].map(|t| t.to_kind(Kind::Double)), 0);
        let mesh = &self.shards.mesh;
        mesh.world.all_reduce(&sums, Reduce::Sum)?.wait()?;
        let found = Vec::<f64>::try_from(&sums)?;
        let copies = mesh.replicas.world_size() as f64;
        Ok((found[0], (found[1] / copies).sqrt(), found[2] > 0.0))
    }

    /// 0; NaN when a weight or a moment of this rank is not finite, too large to be squared, or by
    /// its digest not what the last update left. The loss would not tell: no token may need that
    /// weight, and an infinite second moment only keeps its weight from ever moving again.
    fn unsound(&self) -> Tensor {
        let device = self.shards.placement.device;
        let state = self.shards.shards.iter().zip(&self.adamw.moments);
        let norms = state.flat_map(|(shard, (m, v))| [&shard.master, m, v].map(Tensor::norm));
        let sum = norms.map(|norm| norm.to_device(device)).reduce(|a, b| a + b);
        let sum = sum.expect("at least one unit") * 0.0;
        match self.digests.alarm(&self.shards, &self.adamw) {
            Some(alarm) => sum + alarm.to_device(device),
            None => sum,
        }
    }

    /// Forward and backward of one micro-batch: adds its gradients to this rank's slices and
    /// returns its part of the loss. `ends` says that no other follows in this step.
    pub fn accumulate(
        &mut self,
        batch: &MicroBatch,
        ends: bool,
        inspection: &mut Inspection,
    ) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        let kept = self.kept_layers(batch);
        let (shards, trace) = (&self.shards, &self.trace);
        let (config, last) = (&shards.config, shards.last());
        let rotation = self.rope.at(&batch.positions, shards.placement.compute);
        let attend = Box::new(ulysses::attend(&shards.mesh.sequence, &batch.cu_seqlens));
        let pass = Pass { shards, trace, batch, rotation, attend };
        let mut gathered = Stream::new(shards, 0..=last)?;
        let grads = &mut self.grads;
        let mut reduced = Backlog { shards, grads, inspection, ends, flying: None, mirrored: None };

        pass.note(Stage::Forward, 0);
        let embedding = qwen2::embedding(config, &gathered.next()?);
        let x = qwen2::embed(&embedding, &batch.ids);
        let tied_head = config.tie_word_embeddings.then_some(embedding);
        let (x, saved) = pass.forward(x, kept, &mut gathered)?;

        // Head and loss, with their gradients, while the last layer's weights set out again.
        pass.note(Stage::Forward, last);
        let (norm, head) = qwen2::final_unit(config, &gathered.next()?);
        let ahead = pass.collect_again(last - 1, &saved)?;
        let head = head.or(tied_head).expect("a head of its own or the embedding");
        // The head's gradient grows in the flat buffer that it travels in.
        let dfinal = shards.whole_gradient(last);
        let (dnorm, dhead) = qwen2::final_unit(config, &dfinal);
        let tied = dhead.is_none().then(|| shards.whole_gradient(0));
        let dhead = dhead.or_else(|| tied.as_ref().map(|flat| qwen2::embedding(config, flat)));
        let dhead = dhead.expect("its own or the embedding's");
        let chunk = loss::chunk(shards.placement.device.is_cuda());
        let Gradients { loss, hidden: dx, norm: found } =
            loss::head_and_loss(config, &x, &norm, &head, &dhead, batch, chunk)?;
        dnorm.shallow_clone().copy_(&found);
        drop((x, norm, head, dhead, dnorm));
        reduced.push(last, dfinal)?;

        let dx = pass.backward(dx, saved, ahead, &mut reduced)?;

        // The embedding's rows join the gradient of a tied head.
        pass.note(Stage::Backward, 0);
        let rows = Tensor::embedding_dense_backward(&dx, &batch.ids, config.vocab_size, -1, false);
        let dembed = match tied {
            Some(flat) => {
                let _ = qwen2::embedding(config, &flat).g_add_(&rows);
                drop(rows);
                flat
            }
            None => shards.flatten(0, &rows),
        };
        reduced.push(0, dembed)?;
        reduced.finish()?;
        Ok(loss)
    }

    /// How many of the last layers keep their graph during this micro-batch. It changes time and
    /// memory alone. But a layer that runs again exchanges again: ranks that share a sequence
    /// reckon with the same numbers, so that they keep the same layers.
    fn kept_layers(&self, batch: &MicroBatch) -> usize {
        let (tokens, targets) = (batch.ids.size()[0], batch.most_targets);
        let accumulated = self.grads[0].is_some();
        plan::memory::kept_layers(&self.job, tokens, targets, accumulated) as usize
    }

    /// Before the first pass: ranks that share a sequence take the least of their limits.
    fn agree(&mut self) -> Result<()> {
        let sequence = &self.shards.mesh.sequence;
        if !self.agreed && sequence.world_size() > 1 {
            let limits = sequence.all_gather_i64(&[self.job.limit as i64])?;
            self.job.limit = limits.iter().flatten().min().map_or(self.job.limit, |&l| l as f64);
        }
        self.agreed = true;
        Ok(())
    }
}

/// The sum of a gradient's squares, fp64 scalar on its device.
///
/// On a CPU in pieces that stay in its cache. Not libtorch's norm there: it adds up in fp32 one
/// after the other (seen: 3e-6 low at 65,536 numbers of heavy tails, 1.5% low at 136 million).
fn square_sum(gradient: &Tensor) -> Tensor {
    if gradient.device().is_cuda() {
        return gradient.norm().to_kind(Kind::Double).square();
    }
    let pieces = gradient.split(1 << 16, 0);
    let sums: Vec<Tensor> = pieces.iter().map(|piece| piece.square().sum(Kind::Float)).collect();
    Tensor::stack(&sums, 0).sum(Kind::Double)
}

fn leaf(t: &Tensor) -> Tensor {
    t.detach().set_requires_grad(true)
}

/// One micro-batch on its way through the layers.
struct Pass<'a> {
    shards: &'a Shards,
    trace: &'a Trace,
    batch: &'a MicroBatch,
    rotation: (Tensor, Tensor),
    attend: Box<dyn Fn(Tensor, Tensor, Tensor) -> Tensor + 'a>,
}

impl Pass<'_> {
    fn note(&self, stage: Stage, unit: usize) {
        self.trace.note(stage, unit, self.batch.ids.size()[0]);
    }

    fn layer(&self, flat: &Tensor, x: &Tensor) -> Tensor {
        let config = &self.shards.config;
        DecoderLayer::from_flat(config, flat).forward(config, x, &self.rotation, &self.attend)
    }

    /// All layers, from the embedded tokens to the residual stream at the end. The last `kept` of
    /// them run with a graph, whose weights' memory is freed.
    fn forward(
        &self,
        mut x: Tensor,
        kept: usize,
        gathered: &mut Stream<'_, impl Iterator<Item = usize>>,
    ) -> Result<(Tensor, Vec<Saved>)> {
        let last = self.shards.last();
        let mut saved = Vec::with_capacity(last - 1);
        for n in 1..last {
            self.note(Stage::Forward, n);
            let flat = gathered.next()?;
            if n + kept < last {
                let y = self.layer(&flat, &x);
                saved.push(Saved::Input(std::mem::replace(&mut x, y)));
            } else {
                let (flat, input) = (leaf(&flat), leaf(&x));
                let y = tch::with_grad(|| self.layer(&flat, &input));
                self.shards.release(&flat)?;
                x = y.detach();
                saved.push(Saved::Graph { flat, x: input, y });
            }
        }
        Ok((x, saved))
    }

    /// All layers in reverse: the product of each one's graph, kept or made anew, with the
    /// gradient from above. `ahead` is the last layer's weights.
    fn backward(
        &self,
        mut dx: Tensor,
        mut saved: Vec<Saved>,
        ahead: Gathering,
        reduced: &mut Backlog,
    ) -> Result<Tensor> {
        let mut ahead = Some(ahead);
        for n in (1..self.shards.last()).rev() {
            self.note(Stage::Backward, n);
            let now = ahead.take().expect("the one before set it out");
            ahead = (n > 1).then(|| self.collect_again(n - 1, &saved)).transpose()?;
            let flat = now.wait()?;
            let (flat, x, y) = match saved.pop().expect("something for every layer") {
                Saved::Graph { flat, x, y } => (flat, x, y),
                Saved::Input(x) => {
                    let (flat, x) = (leaf(&flat), leaf(&x));
                    let y = tch::with_grad(|| self.layer(&flat, &x));
                    (flat, x, y)
                }
            };
            let products = vjp(&[&y], &[&dx], &[&flat, &x])?;
            let [dflat, dinput] = products.try_into().expect("a product for each input");
            reduced.push(n, dflat)?;
            dx = dinput;
        }
        Ok(dx)
    }

    /// Begins to collect a layer's weights for its backward, into its graph if that was kept.
    fn collect_again(&self, n: usize, saved: &[Saved]) -> Result<Gathering> {
        match &saved[n - 1] {
            Saved::Graph { flat, .. } => self.shards.regather(n, flat),
            Saved::Input(_) => self.shards.gather(n),
        }
    }
}

/// Units in the order that a pass needs them, the next always in flight.
struct Stream<'a, I> {
    shards: &'a Shards,
    order: I,
    ahead: Option<Gathering>,
}

impl<'a, I: Iterator<Item = usize>> Stream<'a, I> {
    fn new(shards: &'a Shards, mut order: I) -> Result<Self> {
        let ahead = order.next().map(|unit| shards.gather(unit)).transpose()?;
        Ok(Self { shards, order, ahead })
    }

    /// The next unit's flat buffer; the one after it sets out first.
    fn next(&mut self) -> Result<Tensor> {
        let after = self.order.next().map(|unit| self.shards.gather(unit)).transpose()?;
        let now = std::mem::replace(&mut self.ahead, after);
        now.expect("the order covers the pass").wait()
    }
}

/// Gradients on their way to their owners, one at a time behind the computation.
struct Backlog<'a> {
    shards: &'a Shards,
    grads: &'a mut [Option<Tensor>],
    inspection: &'a mut Inspection,
    ends: bool,
    flying: Option<Reducing>,
    mirrored: Option<Mirroring>,
}

impl Backlog<'_> {
    /// Sends a unit's whole gradient off; the one before it is collected.
    fn push(&mut self, unit: usize, gradient: Tensor) -> Result<()> {
        self.inspection.note_gradient(unit, &gradient);
        let now = self.shards.reduce(unit, gradient)?;
        let before = self.flying.replace(now);
        before.map_or(Ok(()), |reducing| self.collect(reducing))
    }

    /// Adds a slice to this rank's gradient, which after the step's last pass sets out to the
    /// other copies of the model.
    fn collect(&mut self, reducing: Reducing) -> Result<()> {
        let (unit, part) = reducing.wait()?;
        let sum = match self.grads[unit].take() {
            Some(mut sum) => sum.g_add_(&part),
            None => part,
        };
        if self.ends && self.shards.mesh.replicas.world_size() > 1 {
            let now = self.shards.mirror(unit, sum)?;
            let before = self.mirrored.replace(now);
            return before.map_or(Ok(()), |mirroring| self.keep(mirroring));
        }
        self.grads[unit] = Some(sum);
        Ok(())
    }

    fn keep(&mut self, mirroring: Mirroring) -> Result<()> {
        let (unit, sum) = mirroring.wait()?;
        self.grads[unit] = Some(sum);
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        let last = self.flying.take();
        last.map_or(Ok(()), |reducing| self.collect(reducing))?;
        let last = self.mirrored.take();
        last.map_or(Ok(()), |mirroring| self.keep(mirroring))
    }
}
