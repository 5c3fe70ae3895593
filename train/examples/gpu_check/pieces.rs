//! The pieces of a step by themselves: collectives, head and loss, AdamW.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use c10d::aten::{AdamWSlot, AdamWStep, fused_adamw};
use c10d::{Backend, Group, Rank, Reduce, memory};
use tch::{Device, Kind, Tensor};
use train::data::MicroBatch;
use train::loss;

use crate::{Machine, Row, gib, shape_of_32b};

/// Every collective once, begun and then waited for, with the values that must come out; then a
/// rank that does not come.
pub fn collectives(machine: &Machine) -> Result<Vec<Row>> {
    let gpus = if machine.is_gpu() { tch::Cuda::device_count() as usize } else { 0 };
    let (backend, ranks) = if gpus >= 2 { (Backend::Nccl, gpus) } else { (Backend::Gloo, 2) };
    let device = |rank| if gpus >= 2 { Device::Cuda(rank) } else { Device::Cpu };
    let port = Rank::free_port()?;
    let one = |rank: usize| -> Result<String> {
        let place = Rank::local(rank, ranks, port);
        let group = Group::connect(&place, backend, Duration::from_secs(5))?;
        check_collectives(&group, device(rank))?;
        group.barrier()?.wait()?;
        if rank != 0 {
            thread::sleep(Duration::from_secs(7)); // this rank is late
            return Ok(String::new());
        }
        let alone = Tensor::zeros([8], (Kind::Float, device(rank)));
        let waited = group.all_reduce(&alone, Reduce::Sum).and_then(c10d::Work::wait);
        Ok(waited.err().map_or("no error".into(), |error| format!("{error:#}")))
    };
    let errors: Result<Vec<String>> = thread::scope(|scope| {
        let one = &one;
        let ranks: Vec<_> = (0..ranks).map(|rank| scope.spawn(move || one(rank))).collect();
        ranks.into_iter().map(|rank| rank.join().expect("a rank panicked")).collect()
    });
    let error = errors?.swap_remove(0);
    ensure!(error.contains("rank 0"), "a late rank: {error}");
    let name = if gpus >= 2 { "NCCL" } else { "Gloo" };
    let all = "gather, reduce-scatter, all-reduce, broadcast, all-to-all, barrier are right";
    let what = format!("{name}, {ranks} ranks as threads");
    let mut rows = vec![
        Row::new("G2", &what, all, "right"),
        Row::new("G2", what, "a rank that is late: an error that names collective and rank", ""),
    ];
    if gpus < 2 {
        // Kernels, streams and sizes of a communicator that has nobody to send to.
        let (backend, name) = match gpus {
            1 => (Backend::Nccl, "NCCL"),
            _ => (Backend::Gloo, "Gloo"),
        };
        let group = Group::communicator_of_one(backend, Duration::from_secs(60))?;
        check_collectives(&group, machine.device)?;
        rows.push(Row::new("G2", format!("{name}, a communicator of one rank"), all, "right"));
        rows.push(Row::skipped("G2", "NCCL between ranks", "it takes two GPUs"));
    }
    Ok(rows)
}

fn check_collectives(group: &Group, device: Device) -> Result<()> {
    let (rank, ranks) = (group.rank() as i64, group.world_size() as i64);
    let float = (Kind::Float, device);
    let mine = Tensor::arange(4, float) + 10 * rank;
    let all = Tensor::empty([4 * ranks], float);
    let gathering = group.all_gather_into(&all, &mine)?;
    gathering.wait()?;
    let expected = (0..ranks).map(|r| Tensor::arange(4, float) + 10 * r).collect::<Vec<_>>();
    ensure!(all == Tensor::cat(&expected, 0), "all_gather: {all:?}");
    let part = Tensor::empty([4], float);
    group.reduce_scatter(&part, &all)?.wait()?;
    ensure!(part == &mine * ranks, "reduce_scatter: {part:?}");
    let sum = Tensor::ones([3], float) * (rank + 1);
    group.all_reduce(&sum, Reduce::Sum)?.wait()?;
    ensure!(sum.double_value(&[0]) == (ranks * (ranks + 1) / 2) as f64, "all_reduce: {sum:?}");
    let (told, source) = (Tensor::ones([3], float) * rank, ranks - 1);
    group.broadcast(&told, source as usize)?.wait()?;
    ensure!(told.double_value(&[2]) == source as f64, "broadcast: {told:?}");
    let given = Tensor::arange(ranks, float) + 100 * rank;
    let taken = given.zeros_like();
    group.all_to_all(&taken, &given)?.wait()?;
    ensure!(taken == Tensor::arange(ranks, float) * 100 + rank, "all_to_all: {taken:?}");
    let back = group.exchange(&taken)?;
    ensure!(back == given, "exchange: {back:?}");
    group.barrier()?.wait()
}

/// The real vocabulary on a GPU: time, and memory beyond hidden states, weights and gradients.
pub fn head_and_loss(machine: &Machine) -> Result<Vec<Row>> {
    let (tokens, vocabulary) = machine.pick((32_768, 152_064), (1_024, 8_192));
    let config = shape_of_32b(machine, 1, vocabulary);
    let h = config.hidden_size;
    let of = |size: &[i64], scale: f64| Tensor::randn(size, (machine.kind, machine.device)) * scale;
    let (hidden, norm, head) = (of(&[tokens, h], 1.0), of(&[h], 1.0), of(&[vocabulary, h], 0.02));
    let batch = random_batch(tokens, vocabulary, machine.device);
    let _guard = tch::no_grad_guard();
    memory::reset_peak(machine.device);
    let before = memory::allocated(machine.device);
    let chunk = loss::chunk(machine.device.is_cuda());
    let dhead = head.empty_like().to_kind(Kind::Float);
    let run = || loss::head_and_loss(&config, &hidden, &norm, &head, &dhead, &batch, chunk);
    let gradients = run().context("head and loss")?;
    machine.settle();
    let element = machine.kind.elt_size_in_bytes() as f64;
    let returned = (tokens * h) as f64 * element + (vocabulary * h * 4) as f64;
    let peak = (memory::peak(machine.device) - before) as f64 - returned;
    ensure!(gradients.loss.double_value(&[]).is_finite(), "the loss is not finite");
    drop(gradients);
    let seconds = machine.seconds(3, || drop(run().expect("it ran before")));
    let flops = 6.0 * (tokens * vocabulary * h) as f64;
    let what = format!("head and loss, {tokens} tokens x {vocabulary} x {h}");
    Ok(vec![
        Row::new("G4", &what, machine.of_matmul(flops, seconds), "0.6"),
        Row::new("G4", what + ", peak beyond weights and gradients", gib(peak), "3 GiB"),
    ])
}

/// One segment, every token but the first a target.
pub fn random_batch(tokens: i64, vocabulary: i64, device: Device) -> MicroBatch {
    let whole = (Kind::Int64, device);
    let targets = tokens - 1;
    MicroBatch {
        ids: Tensor::randint(vocabulary, [tokens], whole),
        positions: Tensor::arange(tokens, whole),
        cu_seqlens: vec![0, tokens],
        predicts: Tensor::arange(targets, whole),
        targets: Tensor::randint(vocabulary, [targets], whole),
        weights: Tensor::full([targets], 1.0 / targets as f64, (Kind::Float, device)),
        most_targets: tokens,
    }
}

/// Sharded fp32 state: weights, gradient and two moments read, all but the gradient written.
pub fn adamw(machine: &Machine) -> Result<Vec<Row>> {
    let numel = machine.pick(1_000_000_000, 16_000_000);
    let random = || Tensor::randn([numel], (Kind::Float, machine.device));
    let slot = AdamWSlot { param: random(), grad: random(), m: random(), v: random().square() };
    let numbers = AdamWStep {
        step: 3,
        learning_rate: 1e-5,
        beta1: 0.9,
        beta2: 0.95,
        weight_decay: 1e-4,
        eps: 1e-8,
    };
    let slots = [slot];
    let _guard = tch::no_grad_guard();
    let run = || fused_adamw(&slots, numbers).expect("shapes fit");
    let seconds = machine.seconds(5, run);
    let rate = 28.0 * numel as f64 / seconds;
    let measured = format!("{:.2} of copy ({:.1} GB/s)", rate / machine.copy, rate / 1e9);
    Ok(vec![Row::new("G5", format!("AdamW, {numel} numbers in fp32"), measured, "0.85")])
}
