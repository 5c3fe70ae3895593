//! The training step: FSDP with activation recomputation as one visible loop, no hooks.
//!
//! Forward, layer by layer: collect the layer's weights, run it without a graph, keep its input.
//! Then in reverse: collect again, run again with a graph, take the vector-Jacobian product, hand
//! the gradient to its owners. The next layer's weights are always in flight during this layer's
//! work, and so is the previous layer's gradient.

use anyhow::Result;
use c10d::Reduce;
use c10d::aten::vjp;
use model::Rope;
use model::qwen2::{self, DecoderLayer, attend_segments};
use tch::{Kind, Tensor};

use crate::config::Optimizer;
use crate::data::MicroBatch;
use crate::loss::{self, Gradients};
use crate::optimizer::AdamW;
use crate::shards::{Gathering, Reducing, Shards};

/// Everything a training step reads and writes.
pub struct Trainer {
    /// The parameters.
    pub shards: Shards,
    /// The optimizer and its moments.
    pub adamw: AdamW,
    rope: Rope,
    max_grad_norm: f64,
}

/// What a step measured, still on the device: read it when the next step is under way.
#[derive(Debug)]
pub struct Measured {
    /// Mean loss of the global batch's examples, scalar.
    pub loss: Tensor,
    /// Norm of the whole gradient before clipping, scalar.
    pub grad_norm: Tensor,
}

impl Trainer {
    /// `positions` is the longest segment that will be seen.
    pub fn new(shards: Shards, optimizer: &Optimizer, positions: i64) -> Self {
        let rope = Rope::new(&shards.config, positions, shards.device);
        let adamw = AdamW::new(&shards, optimizer);
        Self { shards, adamw, rope, max_grad_norm: optimizer.max_grad_norm }
    }

    /// One optimizer step over this rank's micro-batches (as many on every rank).
    pub fn step(&mut self, batches: &[MicroBatch], learning_rate: f64) -> Result<Measured> {
        let _guard = tch::no_grad_guard();
        let mut loss = Tensor::zeros([], (Kind::Float, self.shards.device));
        for batch in batches {
            loss += self.accumulate(batch)?;
        }
        let (loss, grad_norm) = self.clip(loss)?;
        self.adamw.step(&self.shards, learning_rate)?;
        Ok(Measured { loss, grad_norm })
    }

    /// Forward and backward of one micro-batch: adds its gradients to the shards and returns its
    /// part of the loss on this rank.
    pub fn accumulate(&self, batch: &MicroBatch) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        let (shards, config) = (&self.shards, &self.shards.config);
        let last = shards.last();
        let rotation = self.rope.at(&batch.positions, shards.compute);
        let attend = attend_segments(&batch.cu_seqlens);
        let layer = |flat: &Tensor, x: &Tensor| {
            DecoderLayer::from_flat(config, flat).forward(config, x, &rotation, &attend)
        };
        let mut gathered = Stream::new(shards, (0..=last).chain((1..last).rev()))?;
        let mut reduced = Backlog { shards, in_flight: None };

        // Forward: no graph, keep each layer's input.
        let embedding = qwen2::embedding(config, &gathered.next()?);
        let mut x = qwen2::embed(&embedding, &batch.ids);
        let tied_head = config.tie_word_embeddings.then_some(embedding);
        let mut inputs = Vec::with_capacity(last - 1);
        for _ in 1..last {
            let y = layer(&gathered.next()?, &x);
            inputs.push(std::mem::replace(&mut x, y));
        }

        // Head and loss, with their gradients.
        let (norm, head) = qwen2::final_unit(config, &gathered.next()?);
        let head = head.or(tied_head).expect("a head of its own or the embedding");
        let Gradients { loss, hidden: mut dx, norm: dnorm, head: dhead } =
            loss::head_and_loss(config, &x, &norm, &head, batch, loss::CHUNK)?;
        drop((x, norm, head));
        let (dfinal, tied) = match config.tie_word_embeddings {
            true => (vec![dnorm], Some(dhead)),
            false => (vec![dnorm, dhead], None),
        };
        reduced.push(last, shards.flatten(last, &dfinal))?;

        // Backward: run each layer again with a graph, product with the gradient from above.
        for n in (1..last).rev() {
            let flat = gathered.next()?.detach().set_requires_grad(true);
            let x = inputs.pop().expect("an input for every layer").set_requires_grad(true);
            let y = tch::with_grad(|| layer(&flat, &x));
            let products = vjp(&[&y], &[&dx], &[&flat, &x])?;
            let [dflat, dinput] = products.try_into().expect("a product for each input");
            reduced.push(n, dflat)?;
            dx = dinput;
        }

        // The embedding's rows; a tied head's gradient joins them.
        let rows = Tensor::embedding_dense_backward(&dx, &batch.ids, config.vocab_size, -1, false);
        let dembed = match tied {
            Some(dhead) => dhead + rows,
            None => rows,
        };
        reduced.push(0, shards.flatten(0, &[dembed]))?;
        reduced.finish()?;
        Ok(loss)
    }

    /// Sums loss and squared gradient over the ranks, scales the gradient down to the largest
    /// norm allowed, and returns both without reading them.
    fn clip(&self, loss: Tensor) -> Result<(Tensor, Tensor)> {
        let squares = self.shards.shards.iter().map(|shard| shard.grad.square().sum(Kind::Float));
        let square = squares.reduce(|a, b| a + b).expect("at least one unit");
        let both = Tensor::stack(&[loss, square], 0);
        self.shards.group.all_reduce(&both, Reduce::Sum)?.wait()?;
        let (loss, norm) = (both.get(0), both.get(1).sqrt());
        let scale = (self.max_grad_norm / (&norm + 1e-6)).clamp_max(1.0); // as clip_grad_norm_
        for shard in &self.shards.shards {
            let _ = shard.grad.shallow_clone().g_mul_(&scale);
        }
        Ok((loss, norm))
    }
}

/// Units in the order that a pass needs them, the next always in flight.
struct Stream<'a, I> {
    shards: &'a Shards,
    order: I,
    in_flight: Option<Gathering>,
}

impl<'a, I: Iterator<Item = usize>> Stream<'a, I> {
    fn new(shards: &'a Shards, mut order: I) -> Result<Self> {
        let in_flight = order.next().map(|unit| shards.gather(unit)).transpose()?;
        Ok(Self { shards, order, in_flight })
    }

    /// The next unit's flat buffer; the one after it sets out first.
    fn next(&mut self) -> Result<Tensor> {
        let after = self.order.next().map(|unit| self.shards.gather(unit)).transpose()?;
        let now = std::mem::replace(&mut self.in_flight, after);
        now.expect("the order covers the pass").wait()
    }
}

/// Gradients on their way to their owners, one at a time behind the computation.
struct Backlog<'a> {
    shards: &'a Shards,
    in_flight: Option<Reducing>,
}

impl Backlog<'_> {
    /// Sends a unit's whole gradient off; the one before it is collected.
    fn push(&mut self, unit: usize, gradient: Tensor) -> Result<()> {
        let now = self.shards.reduce(unit, gradient)?;
        let before = self.in_flight.replace(now);
        before.map_or(Ok(()), |reducing| self.shards.collect(reducing))
    }

    fn finish(self) -> Result<()> {
        self.in_flight.map_or(Ok(()), |reducing| self.shards.collect(reducing))
    }
}
