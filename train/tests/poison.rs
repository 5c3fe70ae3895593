//! Poisoned numbers on one of two ranks: found before they spread, or counted as missed.
//!
//! `just poison` runs the long form, S1_FULL=1: more places, 10,000 clean steps, and what digests
//! cost.

mod support;

use std::env;

use c10d::Group;
use model::chat::Example;
use record::seed::{self, Rng};
use support::{ONE_RANK, OPTIMIZER, Run, gathered, on_ranks};
use tch::Tensor;
use train::blame::{Inspection, tensor_at};
use train::config::{Guard, LossSpike};
use train::data::MicroBatch;
use train::digest::Digests;
use train::shards::Shards;
use train::step::Trainer;

const RATE: f64 = 1e-3;

/// Two ranks with passes of 64 tokens.
const RUN: Run = Run { ranks: 2, micro_batch_tokens: 64, ..ONE_RANK };

/// Four examples of one to two dozen tokens.
fn examples(rng: &mut Rng) -> Vec<Example> {
    let mut one = || {
        let ids = (0..12 + rng.below(12)).map(|_| rng.below(61) as i64).collect();
        Example::new(ids, 4)
    };
    (0..4).map(|_| one()).collect()
}

fn trainer(group: Group, guard: &Guard) -> Trainer {
    RUN.trainer(&support::config(false, 2), group, guard)
}

fn is_full() -> bool {
    env::var_os("S1_FULL").is_some()
}

/// What a rank holds between steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Weight,
    FirstMoment,
    SecondMoment,
}

const STATES: [(State, &str); 3] = [
    (State::Weight, "the weight"),
    (State::FirstMoment, "the first moment of"),
    (State::SecondMoment, "the second moment of"),
];

impl State {
    fn of(self, trainer: &Trainer, unit: usize) -> Tensor {
        let (m, v) = &trainer.adamw.moments[unit];
        match self {
            Self::Weight => trainer.shards.shards[unit].master.shallow_clone(),
            Self::FirstMoment => m.shallow_clone(),
            Self::SecondMoment => v.shallow_clone(),
        }
    }
}

/// A fault: what becomes of one number.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Value(f32),
    Bit(u32),
}

impl Fault {
    fn on(self, number: f32) -> f32 {
        match self {
            Self::Value(value) => value,
            Self::Bit(bit) => f32::from_bits(number.to_bits() ^ (1 << bit)),
        }
    }
}

/// How a fault ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// An error that named the rank and the tensor, before any update.
    Named,
    /// The guard left the step out.
    Skipped,
    Missed,
}

/// Everything of a trainer that a step changes, to begin from again.
struct Snapshot {
    tensors: Vec<Tensor>,
    steps: u64,
}

impl Snapshot {
    fn tensors(trainer: &Trainer) -> Vec<Tensor> {
        let units = 0..trainer.shards.shards.len();
        units.flat_map(|unit| STATES.map(|(state, _)| state.of(trainer, unit))).collect()
    }

    fn take(trainer: &Trainer) -> Self {
        let tensors = Self::tensors(trainer).iter().map(Tensor::copy).collect();
        Self { tensors, steps: trainer.adamw.steps }
    }

    fn put_back(&self, trainer: &mut Trainer) {
        for (mut now, then) in Self::tensors(trainer).into_iter().zip(&self.tensors) {
            now.copy_(then);
        }
        trainer.adamw.steps = self.steps;
    }
}

/// Puts `fault` into a random number of `state` on a random rank, takes the next step, and puts all
/// back. Every rank draws the same.
fn trial(
    trainer: &mut Trainer,
    batches: &[MicroBatch],
    (state, says): (State, &str),
    fault: Fault,
    rng: &mut Rng,
) -> End {
    let snapshot = Snapshot::take(trainer);
    let guard = trainer.guard.clone();
    let units = trainer.shards.shards.len() as u64;
    let (rank, unit) = (rng.below(2) as usize, rng.below(units) as usize);
    let tensor = state.of(trainer, unit);
    // Behind the slice's last real number may lie padding, which no step reads.
    let part = tensor.numel() as i64;
    let real = (trainer.shards.shards[unit].unit.numel() - part * rank as i64).min(part);
    let at = rng.below(real as u64) as i64;
    let here = trainer.shards.mesh.world.rank() == rank;
    if here {
        let number = tensor.double_value(&[at]) as f32;
        let _ = tensor.narrow(0, at, 1).fill_(f64::from(fault.on(number)));
    }
    let before = trainer.shards.shards[1].master.copy();
    let end = match trainer.step(batches, RATE) {
        Ok(found) if found.skipped => End::Skipped,
        Ok(_) => End::Missed,
        Err(error) => {
            let text = format!("{error:#}");
            let tensor = tensor_at(&trainer.shards.shards[unit].unit, part * rank as i64 + at);
            let names = text.contains(&format!("rank {rank}: {says} {tensor} "));
            let other = text.contains(&format!("rank {}:", 1 - rank));
            assert!(names && !other, "{state:?} {fault:?} on rank {rank}: {text}");
            let after = &trainer.shards.shards[1].master;
            assert!(here || before == *after, "an update was made");
            End::Named
        }
    };
    snapshot.put_back(trainer);
    trainer.guard = guard;
    end
}

/// Trials of each fault in each kind of state; how many ended in each way.
fn trials(faults: &[(&str, Vec<Fault>)], each: usize, guard: &Guard) -> Vec<(String, [usize; 3])> {
    let counted = on_ranks(2, |group| {
        let mut trainer = trainer(group, guard);
        let mut rng = seed::rng(11, &["poison"]);
        for _ in 0..8 {
            let batches = RUN.micro_batches(&trainer, &examples(&mut rng));
            trainer.step(&batches, RATE).unwrap();
        }
        let batches = RUN.micro_batches(&trainer, &examples(&mut rng));
        let mut lines = Vec::new();
        for state in STATES {
            for (name, faults) in faults {
                let mut ends = [0; 3];
                for n in 0..each {
                    let fault = faults[n % faults.len()];
                    ends[trial(&mut trainer, &batches, state, fault, &mut rng) as usize] += 1;
                }
                let place = state.1.trim_end_matches(" of");
                lines.push((format!("{name} in {place}"), ends));
            }
        }
        // After all that, what was put back trains on.
        assert!(!trainer.step(&batches, RATE).unwrap().recomputed);
        lines
    });
    assert_eq!(counted[0], counted[1], "the ranks decide alike");
    counted.into_iter().next().unwrap()
}

#[test]
fn numbers_no_training_holds_are_named_with_rank_and_tensor() {
    let values = [
        ("NaN", vec![Fault::Value(f32::NAN)]),
        ("infinity", vec![Fault::Value(f32::INFINITY), Fault::Value(f32::NEG_INFINITY)]),
        ("1e30", vec![Fault::Value(1e30), Fault::Value(-1e30)]),
        ("a flipped highest exponent bit", vec![Fault::Bit(30)]),
    ];
    let each = if is_full() { 100 } else { 10 };
    for (what, [named, skipped, missed]) in trials(&values, each, &Guard::default()) {
        println!("{what}: {named} of {each} named before the update, {missed} missed");
        assert_eq!((named, skipped, missed), (each, 0, 0), "{what}");
    }
}

/// What is found without digests: told, and where a number is no longer possible, promised.
#[test]
fn recall_of_flipped_bits_without_digests() {
    let bits = |range: std::ops::Range<u32>| range.map(Fault::Bit).collect();
    let faults = [
        (PROMISED, bits(30..31)),
        ("a flipped exponent bit but the highest", bits(23..30)),
        ("a flipped sign", bits(31..32)),
        ("a flipped high fraction bit", bits(16..23)),
        ("a flipped low fraction bit", bits(0..16)),
    ];
    let each = if is_full() { 140 } else { 14 };
    let loss_spike = Some(LossSpike { window: 8, factor: 1.5 });
    let guard = Guard { loss_spike, ..Guard::default() };
    for (what, [named, skipped, missed]) in trials(&faults, each, &guard) {
        println!("{what}: {named} named, {skipped} left out as a spike, {missed} missed");
        assert!(named == each || !what.starts_with(PROMISED), "{what}: {named} of {each}");
    }
}

const PROMISED: &str = "a flipped highest exponent bit";

#[test]
fn digests_find_every_flipped_bit() {
    let bits: Vec<Fault> = (0..32).map(Fault::Bit).collect();
    let each = if is_full() { 20 * bits.len() } else { bits.len() };
    let guard = Guard { digest_every: 1, ..Guard::default() };
    for (what, [named, ..]) in trials(&[("any flipped bit", bits)], each, &guard) {
        println!("{what}: {named} of {each} named before the update");
        assert_eq!(named, each, "{what}");
    }
}

/// The step's own words about one flipped bit, and the gaps between steps that are looked at.
#[test]
fn digests_say_when_and_which_bit() {
    for (every, first, found) in [(1, 3, true), (2, 3, false), (3, 3, true), (2, 4, true)] {
        let errors = on_ranks(2, |group| {
            let mut trainer = trainer(group, &Guard { digest_every: every, ..Guard::default() });
            let batches = RUN.micro_batches(&trainer, &examples(&mut seed::rng(3, &["digests"])));
            for step in 1..=first {
                trainer.trace.step(step);
                trainer.step(&batches, RATE).unwrap();
            }
            if trainer.shards.mesh.world.rank() == 1 {
                flip(&trainer.adamw.moments[trainer.shards.last()].1, 4, 5);
            }
            trainer.trace.step(first + 1);
            trainer.step(&batches, RATE).map_or_else(|error| format!("{error:#}"), |_| "".into())
        });
        let expected = format!(
            "rank 1: the second moment of lm_head.weight changed in memory between steps {first} \
             and {}: bit 5 of one value\n",
            first + 1
        );
        for error in errors {
            assert_eq!(error.contains(&expected), found, "every {every}: {error}");
        }
    }
}

fn flip(tensor: &Tensor, at: i64, bit: u32) {
    let number = tensor.double_value(&[at]) as f32;
    let _ = tensor.narrow(0, at, 1).fill_(f64::from(Fault::Bit(bit).on(number)));
}

#[test]
fn copies_that_differ_are_named() {
    for state in [None, Some(State::Weight), Some(State::FirstMoment), Some(State::SecondMoment)] {
        let errors = on_ranks(2, |group| {
            let rank = group.rank();
            let guard = Guard { digest_every: 3, ..Guard::default() };
            let copies = Run { replicate: 2, ..RUN };
            let mut trainer = copies.trainer(&support::config(false, 2), group, &guard);
            let batches = RUN.micro_batches(&trainer, &examples(&mut seed::rng(3, &["copies"])));
            for step in 1..=5 {
                trainer.trace.step(step);
                // Where no digest is compared afterwards.
                if let (2, 1, Some(state)) = (step, rank, state) {
                    flip(&state.of(&trainer, 2), 100, 14);
                }
                if let Err(error) = trainer.step(&batches, RATE) {
                    let text = format!("{error:#}");
                    assert!(
                        step == 3 && text.contains("no longer the same after step 3"),
                        "{text}"
                    );
                    return text;
                }
            }
            String::new()
        });
        for error in errors {
            let named = error.contains("rank 1 and rank 0: ") && error.contains(" differs");
            assert_eq!(named, state.is_some(), "{state:?}: {error}");
        }
    }
}

/// CPU seconds of this thread.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

#[test]
fn what_digests_cost() {
    if !is_full() {
        return;
    }
    tch::set_num_threads(1);
    let config = support::model((768, 2048, 12, 12, 4, 32_000, true));
    let run = Run { ranks: 1, ..RUN };
    let mut trainer = run.trainer(&config, Group::solo(), &Guard::default());
    let ids = |n: i64| (0..64).map(|i| (37 * i + n) % 32000).collect();
    let examples: Vec<Example> = (0..4).map(|n| Example::new(ids(n), 4)).collect();
    let batches = run.micro_batches(&trainer, &examples);
    let mut times = [vec![], vec![], vec![]];
    for round in 0..7 {
        for every in [0, 1] {
            trainer.digests = Digests::new(&trainer.shards, every);
            trainer.digests.look(&trainer.shards, &trainer.adamw, 0).unwrap();
            let start = cpu_seconds();
            trainer.step(&batches, RATE).unwrap();
            if round > 0 {
                times[every].push(cpu_seconds() - start);
            }
        }
        let start = cpu_seconds();
        trainer.digests.look(&trainer.shards, &trainer.adamw, 0).unwrap();
        let alarm = trainer.digests.alarm(&trainer.shards, &trainer.adamw).unwrap();
        assert_eq!(alarm.double_value(&[]), 0.0);
        times[2].push(cpu_seconds() - start);
    }
    let [without, with, alone] = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    });
    println!(
        "{} parameters, 256 tokens a step, CPU seconds (medians): {without:.3} without digests, \
         {with:.3} with; digest and check alone {alone:.3}",
        trainer.shards.config.num_parameters()
    );
    assert!(alone < without / 3.0, "{alone} of {without}");
}

/// A fault that lasts: in what one rank computes, not in what it holds.
#[test]
fn a_poisoned_gradient_stops_the_step_and_names_the_rank() {
    for (value, rank) in [(f64::NAN, 0), (f64::INFINITY, 1), (f64::NEG_INFINITY, 0)] {
        let errors = on_ranks(2, |group| {
            let mut trainer = trainer(group, &Guard::default());
            let batches = RUN.micro_batches(&trainer, &examples(&mut seed::rng(3, &["gradient"])));
            trainer.step(&batches, RATE).unwrap();
            if trainer.shards.mesh.world.rank() == rank {
                let _ = batches[0].weights.narrow(0, 2, 1).fill_(value);
            }
            let before = Snapshot::take(&trainer);
            let error = trainer.step(&batches, RATE).unwrap_err();
            assert_eq!(Snapshot::tensors(&trainer), before.tensors, "an update was made");
            format!("{error:#}")
        });
        for error in errors {
            let names = error.contains(&format!("rank {rank}: the gradient of "));
            assert!(names && !error.contains(&format!("rank {}:", 1 - rank)), "{value}: {error}");
        }
    }
}

/// A fault of a moment: the second try is clean, and the step is as if nothing had happened.
#[test]
fn a_passing_fault_is_recomputed_and_leaves_no_trace() {
    let run = |faulty: bool| {
        on_ranks(2, |group| {
            let mut trainer = trainer(group, &Guard::default());
            let batches = RUN.micro_batches(&trainer, &examples(&mut seed::rng(3, &["passing"])));
            trainer.step(&batches, RATE).unwrap();
            // Rank 1 does by hand what a step does, and what it computes first is wrong.
            if faulty && trainer.shards.mesh.world.rank() == 1 {
                let mut weight = batches[0].weights.narrow(0, 0, 1);
                let right = weight.copy();
                let _ = weight.fill_(f64::NAN);
                let first = trainer.gradients(&batches, &mut Inspection::off()).unwrap();
                assert!(first.1.is_nan());
                weight.copy_(&right);
                let (_, norm, _) = trainer.gradients(&batches, &mut Inspection::on()).unwrap();
                let scale = (OPTIMIZER.max_grad_norm / (norm + 1e-6)).min(1.0);
                let _guard = tch::no_grad_guard();
                let Trainer { adamw, shards, grads, .. } = &mut trainer;
                adamw.step(shards, grads, scale, RATE).unwrap();
            } else {
                assert_eq!(trainer.step(&batches, RATE).unwrap().recomputed, faulty);
            }
            let Shards { mesh, shards, .. } = &trainer.shards;
            shards.iter().map(|shard| gathered(mesh, &shard.master)).collect::<Vec<_>>()
        })
    };
    assert_eq!(run(true), run(false));
}

#[test]
fn clean_steps_raise_no_alarm() {
    let steps = if is_full() { 10_000 } else { 100 };
    let loss_spike = Some(LossSpike { window: 64, factor: 3.0 });
    let guard = Guard { loss_spike, digest_every: 1 };
    let losses = on_ranks(2, |group| {
        let mut trainer = trainer(group, &guard);
        let mut rng = seed::rng(5, &["clean"]);
        let mut losses = Vec::new();
        for step in 0..steps {
            // New ones every time: examples that are learned by heart end in real spikes. Small
            // ids are the more frequent, so that there is something to learn.
            let mut one = || {
                let ids = (0..12 + rng.below(12)).map(|_| {
                    let below = 1 + rng.below(61);
                    rng.below(below) as i64
                });
                Example::new(ids.collect(), 4)
            };
            let batches = RUN.micro_batches(&trainer, &[one(), one()]);
            let found = trainer.step(&batches, RATE).unwrap();
            assert!(!found.recomputed && !found.skipped, "step {step}: {found:?}");
            losses.push(found.loss);
        }
        losses
    });
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    let (first, last) = (mean(&losses[0][..20]), mean(&losses[0][steps - 20..]));
    println!("{steps} steps on 2 ranks without an alarm, loss {first:.3} to {last:.3}");
    assert!(last < first);
}
