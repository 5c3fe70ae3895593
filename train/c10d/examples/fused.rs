//! Times each fused operation, forward and backward, beside libtorch's operations composed.
//!
//! CPU time of the process for one element of the operation's input, median of the rounds; A and B
//! alternate. Arguments: threads (1), rounds (9), tokens (2000).

use std::time::Instant;

use c10d::aten::vjp;
use c10d::fused;
use tch::{Device, Kind, Tensor};

/// Passes in a row, so that a round is long beside the clock's ticks.
const PASSES: usize = 4;
const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

unsafe extern "C" {
    safe fn clock() -> i64;
}

/// CPU time of all threads in nanoseconds, as C's `clock` counts it (in microseconds on Unix).
fn cpu_time() -> f64 {
    clock() as f64 * 1e3
}

/// Forward, and the product of its outputs' gradients.
fn pass(operation: &dyn Fn(&[Tensor]) -> Vec<Tensor>, inputs: &[Tensor], cotangents: &[Tensor]) {
    let outputs = operation(inputs);
    let refs = |list: &[Tensor]| list.iter().map(Tensor::shallow_clone).collect::<Vec<_>>();
    let (outputs, cotangents, inputs) = (refs(&outputs), refs(cotangents), refs(inputs));
    vjp(
        &outputs.iter().collect::<Vec<_>>(),
        &cotangents.iter().collect::<Vec<_>>(),
        &inputs.iter().collect::<Vec<_>>(),
    )
    .expect("a gradient");
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

type Operation<'a> = &'a dyn Fn(&[Tensor]) -> Vec<Tensor>;

fn compare(name: &str, rounds: usize, inputs: &[Tensor], ours: Operation, composed: Operation) {
    let leaves: Vec<Tensor> = inputs.iter().map(|t| t.detach().set_requires_grad(true)).collect();
    let shapes: Vec<Vec<i64>> = ours(&leaves).iter().map(Tensor::size).collect();
    let cotangents: Vec<Tensor> = shapes.iter().map(|s| Tensor::randn(s, FLOAT)).collect();
    let mut times = [vec![], vec![], vec![], vec![]];
    for round in 0..=rounds {
        for (which, operation) in [ours, composed].into_iter().enumerate() {
            let (wall, cpu) = (Instant::now(), cpu_time());
            for _ in 0..PASSES {
                pass(operation, &leaves, &cotangents);
            }
            if round > 0 {
                times[which].push(cpu_time() - cpu);
                times[2 + which].push(wall.elapsed().as_nanos() as f64);
            }
        }
    }
    let elements = (inputs[0].numel() * PASSES) as f64;
    let [a, b, wall_a, wall_b] = times.map(|t| median(t) / elements);
    println!(
        "{name:24} {:?}: {a:6.3} ns, composed {b:6.3} ns, {:5.2}x; wall {wall_a:6.3} and \
         {wall_b:6.3} ns, {:5.2}x",
        inputs[0].size(),
        b / a,
        wall_b / wall_a
    );
}

fn norm(x: &Tensor, weight: &Tensor) -> Tensor {
    let mean_square = x.square().mean_dim(-1, true, Kind::Float);
    weight * (x * (mean_square + 1e-6).rsqrt())
}

fn main() {
    let number =
        |n, default| std::env::args().nth(n).map_or(default, |a| a.parse().expect("a number"));
    let (threads, rounds, tokens) = (number(1, 1), number(2, 9), number(3, 2000));
    tch::set_num_threads(threads as i32);
    let rounds = rounds as usize;
    let random = |size: &[i64]| Tensor::randn(size, FLOAT);
    let (x, residual, weight) = (random(&[tokens, 512]), random(&[tokens, 512]), random(&[512]));
    compare(
        "rms_norm",
        rounds,
        &[x.copy(), weight.copy()],
        &|t| vec![fused::rms_norm(&t[0], &t[1], 1e-6)],
        &|t| vec![norm(&t[0], &t[1])],
    );
    compare(
        "add_rms_norm",
        rounds,
        &[x, residual, weight],
        &|t| fused::add_rms_norm(&t[0], &t[1], &t[2], 1e-6).into_list(),
        &|t| {
            let sum = &t[0] + &t[1];
            let y = norm(&sum, &t[2]);
            vec![sum, y]
        },
    );
    // A projection to one number, so that what is timed is not its product.
    compare(
        "swiglu_linear",
        rounds,
        &[random(&[tokens, 2 * 2816]), random(&[1, 2816])],
        &|t| vec![fused::swiglu_linear(&t[0], &t[1])],
        &|t| {
            let halves = t[0].chunk(2, -1);
            vec![(halves[0].silu() * &halves[1]).linear(&t[1], None::<Tensor>)]
        },
    );
    let tables = (random(&[tokens, 1, 64]), random(&[tokens, 1, 64]));
    compare(
        "rope",
        rounds,
        &[random(&[tokens, 12 * 64])],
        &|t| {
            let (q, k, v) = fused::rope(&t[0], &tables, 8, 2);
            vec![q, k, v]
        },
        &|t| {
            let parts = t[0].view([tokens, 12, 64]).split_with_sizes([8, 2, 2], 1);
            let turned = |x: &Tensor| {
                let halves = x.split(32, -1);
                x * &tables.0 + Tensor::cat(&[&halves[1].neg(), &halves[0]], -1) * &tables.1
            };
            vec![turned(&parts[0]), turned(&parts[1]), parts[2].shallow_clone()]
        },
    );
    for (rows, vocab) in [(tokens, 8192), (tokens / 8, 151_936)] {
        let targets = Tensor::randint(vocab, [rows], (Kind::Int64, Device::Cpu));
        let weights = Tensor::ones([rows], FLOAT);
        compare_losses(rounds, &random(&[rows, vocab]), &targets, &weights);
    }
}

/// Both make the loss and the gradient of the logits; ours overwrites them.
fn compare_losses(rounds: usize, logits: &Tensor, targets: &Tensor, weights: &Tensor) {
    let mut ours = logits.copy();
    let logits = logits.detach().set_requires_grad(true);
    let mut times = [vec![], vec![]];
    for _ in 0..rounds {
        ours.detach().copy_(&logits.detach());
        let start = cpu_time();
        let _ = fused::cross_entropy_(&mut ours, targets, weights);
        times[0].push(cpu_time() - start);
        let start = cpu_time();
        let log_p = logits.log_softmax(-1, Kind::Float).gather(1, &targets.unsqueeze(1), false);
        let loss = -(log_p.squeeze_dim(1) * weights).sum(Kind::Float);
        vjp(&[&loss], &[&loss.ones_like()], &[&logits]).expect("a gradient");
        times[1].push(cpu_time() - start);
    }
    let [a, b] = times.map(|t| median(t) / logits.numel() as f64);
    println!(
        "{:24} {:?}: {a:6.3} ns, composed {b:6.3} ns, {:5.2}x",
        "cross_entropy_",
        logits.size(),
        b / a
    );
}

trait IntoList {
    fn into_list(self) -> Vec<Tensor>;
}

impl IntoList for (Tensor, Tensor) {
    fn into_list(self) -> Vec<Tensor> {
        vec![self.0, self.1]
    }
}
