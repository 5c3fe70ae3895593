//! Rank 0 of 16 of a 32B run on one device: everything but the wire.
//!
//! Resident are the true sixteenth of weights, gradient and moments; a gathered layer is that
//! sixteenth copied sixteen times, which stands for the all-gather, and of a layer's gradient this
//! rank's sixteenth is added to what it holds, which stands for the reduce-scatter. Forward,
//! recomputation, backward, head, loss, norm and AdamW are the real calls, in the real order. What
//! it gives is a share of a 16-GPU step with its assumptions printed, never a 16-GPU measurement.

use anyhow::{Result, ensure};
use c10d::aten::{
    AdamWSlot, AdamWStep, fused_adamw, refill, release_storage, restore_storage, vjp,
};
use c10d::memory;
use model::qwen2::{self, DecoderLayer, attend_segments};
use model::{Config, Layout, Rope};
use tch::{Kind, Tensor};
use train::data::MicroBatch;
use train::{balance, loss};

use crate::pieces::random_batch;
use crate::{Machine, Row, gib, shape_of_32b};

const RANKS: i64 = 16;
/// Steps of s1's run.
const STEPS: f64 = 315.0;
/// Assumed bytes a second that a rank's collectives move when it gathers and scatters over two
/// nodes of eight with a network card of 50 GB/s a GPU.
const LINK: f64 = 361e9;

/// A unit's sixteenth: weights, gradient, moments, all fp32.
struct Sixteenth {
    numel: i64,
    slot: AdamWSlot,
}

struct Rank {
    config: Config,
    kind: Kind,
    units: Vec<Sixteenth>,
    rope: Rope,
    /// Layers whose graph is kept.
    kept: usize,
    steps: u64,
}

impl Rank {
    fn new(machine: &Machine, config: Config, positions: i64, kept: usize) -> Self {
        let sixteenth = |numel: i64| {
            let part = (numel + RANKS - 1) / RANKS;
            let zeros = || Tensor::zeros([part], (Kind::Float, machine.device));
            let param = Tensor::randn([part], (Kind::Float, machine.device)) * 0.02;
            Sixteenth { numel, slot: AdamWSlot { param, grad: zeros(), m: zeros(), v: zeros() } }
        };
        let units = Layout::new(&config).units.iter().map(|unit| sixteenth(unit.numel())).collect();
        let rope = Rope::new(&config, positions, machine.device);
        Self { config, kind: machine.kind, units, rope, kept, steps: 0 }
    }

    /// A unit as all ranks would hand it over.
    fn gather(&self, unit: usize) -> Tensor {
        let Sixteenth { numel, slot } = &self.units[unit];
        let mine = slot.param.to_kind(self.kind);
        mine.repeat([RANKS]).narrow(0, 0, *numel)
    }

    /// Takes this rank's sixteenth of a unit's gradient.
    fn scatter(&mut self, unit: usize, gradients: &[Tensor]) {
        let flat: Vec<Tensor> = gradients.iter().map(|gradient| gradient.reshape([-1])).collect();
        let flat = if flat.len() == 1 { flat[0].shallow_clone() } else { Tensor::cat(&flat, 0) };
        let grad = &mut self.units[unit].slot.grad;
        let _ = grad.g_add_(&flat.narrow(0, 0, grad.numel() as i64));
    }

    /// One step over one micro-batch; its loss.
    fn step(&mut self, batch: &MicroBatch) -> Result<f64> {
        let _guard = tch::no_grad_guard();
        let (config, last) = (self.config.clone(), self.units.len() - 1);
        let rotation = self.rope.at(&batch.positions, self.kind);
        let attend = attend_segments(&batch.cu_seqlens);
        let layer = |flat: &Tensor, x: &Tensor| {
            DecoderLayer::from_flat(&config, flat).forward(&config, x, &rotation, &attend)
        };
        let leaf = |t: &Tensor| t.detach().set_requires_grad(true);
        let with_graph = |flat: &Tensor, x: &Tensor| {
            let (flat, x) = (leaf(flat), leaf(x));
            let y = tch::with_grad(|| layer(&flat, &x));
            (flat, x, y)
        };

        let mut x = qwen2::embed(&qwen2::embedding(&config, &self.gather(0)), &batch.ids);
        let (mut inputs, mut graphs) = (Vec::new(), Vec::new());
        for n in 1..last {
            let flat = self.gather(n);
            if n + self.kept < last {
                let y = layer(&flat, &x);
                inputs.push(std::mem::replace(&mut x, y));
            } else {
                let (flat, input, y) = with_graph(&flat, &x);
                x = y.detach();
                release_storage(&flat)?;
                graphs.push((flat, input, y));
            }
        }
        let (norm, head) = qwen2::final_unit(&config, &self.gather(last));
        let head = head.expect("this shape is not tied");
        let on_gpu = x.device().is_cuda();
        let dhead = head.empty_like().to_kind(Kind::Float);
        let chunk = loss::chunk(on_gpu);
        let found = loss::head_and_loss(&config, &x, &norm, &head, &dhead, batch, chunk)?;
        drop((x, norm, head));
        self.scatter(last, &[found.norm, dhead]);
        let mut dx = found.hidden;
        for n in (1..last).rev() {
            let again = self.gather(n);
            let (flat, x, y) = match graphs.pop() {
                Some(kept) => {
                    restore_storage(&kept.0)?;
                    refill(&kept.0, &again)?;
                    kept
                }
                None => with_graph(&again, &inputs.pop().expect("an input for every other layer")),
            };
            let mut products = vjp(&[&y], &[&dx], &[&flat, &x])?;
            dx = products.pop().expect("two products");
            self.scatter(n, &products);
        }
        let rows = Tensor::embedding_dense_backward(&dx, &batch.ids, config.vocab_size, -1, false);
        self.scatter(0, &[rows]);
        self.update()?;
        Ok(found.loss.double_value(&[]))
    }

    fn update(&mut self) -> Result<()> {
        let squares = self.units.iter().map(|unit| unit.slot.grad.square().sum(Kind::Float));
        let norm = squares.reduce(|a, b| a + b).expect("at least one unit").sqrt();
        let scale = (1.0 / (norm.double_value(&[]) + 1e-6)).min(1.0);
        self.steps += 1;
        let (step, learning_rate, eps) = (self.steps, 1e-5, 1e-8);
        let numbers =
            AdamWStep { step, learning_rate, beta1: 0.9, beta2: 0.95, weight_decay: 1e-4, eps };
        for unit in &mut self.units {
            let _ = unit.slot.grad.g_mul_scalar_(scale);
            fused_adamw(std::slice::from_ref(&unit.slot), numbers)?;
            let _ = unit.slot.grad.zero_();
        }
        Ok(())
    }
}

/// The balanced share of 5.5K tokens, and the longest sequence there is.
pub fn steps(machine: &Machine) -> Result<Vec<Row>> {
    let (layers, vocabulary) = machine.pick((64, 152_064), (4, 1024));
    let config = shape_of_32b(machine, layers, vocabulary);
    let numbers: i64 = Layout::new(&config).units.iter().map(|unit| unit.numel()).sum();
    let mut rows = Vec::new();
    // Kept graphs: what 33 GB hold of 5.5K tokens.
    let sizes = machine.pick(
        [(5504, 25, "2.25 s"), (5504, 0, ""), (32_768, 0, "76 GB")],
        [(344, 2, ""), (344, 0, ""), (2048, 0, "")],
    );
    for (tokens, kept, aim) in sizes {
        let mut rank = Rank::new(machine, config.clone(), tokens, kept);
        let batch = random_batch(tokens, vocabulary, machine.device);
        memory::reset_peak(machine.device);
        let mut loss = 0.0;
        let times = machine.pick(3, 1);
        let seconds = machine.seconds(times, || loss = rank.step(&batch).expect("a step"));
        ensure!(loss.is_finite(), "the loss of {tokens} tokens is not finite");
        let peak = memory::peak(machine.device) as f64;
        let flops = 3.0 * balance::flops(&config, tokens as usize);
        let h = config.hidden_size;
        let what =
            format!("rank 0 of 16, {layers} layers {h}, {kept} of them kept, {tokens} tokens");
        let share = machine.of_matmul(flops, seconds);
        let measured = format!("{seconds:.2} s a step, {share}, peak {}", gib(peak));
        rows.push(Row::new("G3b", &what, measured, aim));
        rows.push(projection(what, seconds, numbers as f64));
    }
    Ok(rows)
}

/// What 315 such steps take with the network free and with all of it waited for.
fn projection(what: String, seconds: f64, numbers: f64) -> Row {
    // Gathered twice in bf16, the gradient scattered in fp32, fifteen sixteenths from elsewhere.
    let bytes = numbers * (2.0 + 2.0 + 4.0) * 15.0 / 16.0;
    let wire = bytes / LINK;
    let minutes = |step: f64| STEPS * step / 60.0;
    let text = format!(
        "{:.2} GB a step at {:.0} GB/s are {wire:.2} s; 315 steps take {:.1} min with all of it \
         hidden, {:.1} with none",
        bytes / 1e9,
        LINK / 1e9,
        minutes(seconds),
        minutes(seconds + wire)
    );
    Row::new("G3b", what + ", projected, no 16-GPU measurement", text, "s1: 26 min")
}
