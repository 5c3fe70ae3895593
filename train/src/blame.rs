//! Which rank and which tensor brought numbers that are not finite, or changed in memory.

use anyhow::{Error, Result, anyhow};
use model::Unit;
use tch::{Kind, Tensor};

use crate::digest::{Change, Digests};
use crate::optimizer::AdamW;
use crate::shards::Shards;

/// What this rank saw during a pass: the first loss and gradient that were not finite.
#[derive(Debug)]
pub struct Inspection {
    on: bool,
    loss: bool,
    /// Unit, first element that is not finite, how many there are.
    gradient: Option<(usize, i64, i64)>,
}

/// What a rank holds of each unit between steps.
pub const STATE: [&str; 3] = ["the weight", "the first moment of", "the second moment of"];

/// The kinds of faults, as they travel between ranks; then those of [`STATE`] that are no numbers,
/// then those that changed.
const LOSS: i64 = 0;
const GRADIENT: i64 = 1;
const HELD: i64 = 2;
const CHANGED: i64 = 5;

impl Inspection {
    /// Looks at nothing: an ordinary pass.
    pub fn off() -> Self {
        Self { on: false, loss: false, gradient: None }
    }

    /// Looks at every gradient before it leaves this rank; waits for the device each time.
    pub fn on() -> Self {
        Self { on: true, ..Self::off() }
    }

    /// This rank's part of the loss.
    pub fn note_loss(&mut self, loss: &Tensor) {
        self.loss = self.on && first_fault(loss).is_some();
    }

    /// A unit's whole gradient on this rank, before it is summed over the ranks.
    pub fn note_gradient(&mut self, unit: usize, gradient: &Tensor) {
        if self.on && self.gradient.is_none() {
            self.gradient = first_fault(gradient).map(|(at, count)| (unit, at, count));
        }
    }
}

/// What is wrong before an update: who held or computed what on which rank.
#[derive(Clone, Copy)]
pub struct Scene<'a> {
    /// The weights.
    pub shards: &'a Shards,
    /// The moments.
    pub adamw: &'a AdamW,
    /// Their digests after the last update.
    pub digests: &'a Digests,
    /// What this rank saw in the pass.
    pub inspection: &'a Inspection,
}

/// Asks all ranks and says, a line each, what each found: `rank 1: the gradient of
/// model.layers.0.mlp.up_proj.weight has 3 values that are not finite or too large`. All ranks
/// call it. `numbers` says what loss and norm are.
pub fn find(scene: Scene, numbers: &str, step: usize) -> Result<Error> {
    let Scene { shards, adamw, digests, inspection } = scene;
    let mut faults: Vec<[i64; 5]> = Vec::new();
    if let Some(change) = digests.change(shards, adamw)? {
        let Change { unit, part, at, difference, since } = change;
        faults.push([CHANGED + part as i64, unit as i64, at, difference, since as i64]);
    }
    let part = |unit: usize| shards.shards[unit].master.numel() as i64;
    let start = |unit: usize| part(unit) * shards.mesh.shard.rank() as i64;
    for (unit, (shard, (m, v))) in shards.shards.iter().zip(&adamw.moments).enumerate() {
        for (kind, tensor) in (HELD..).zip([&shard.master, m, v]) {
            let fault = first_fault(tensor);
            faults.extend(fault.map(|(at, n)| [kind, unit as i64, start(unit) + at, n, 0]));
        }
    }
    let gradient = inspection.gradient;
    faults.extend(gradient.map(|(unit, at, count)| [GRADIENT, unit as i64, at, count, 0]));
    if inspection.loss {
        faults.push([LOSS, 0, 0, 1, 0]);
    }
    // Each rank's first fault; state comes before what was computed from it.
    let mine = faults.first().copied().unwrap_or([-1, 0, 0, 0, 0]);
    let all = shards.mesh.world.all_gather_i64(&mine)?;
    let broken_state = all.iter().any(|fault| fault[0] >= HELD);
    let tells = |fault: &[i64]| fault[0] >= if broken_state { HELD } else { LOSS };
    let lines = all.iter().enumerate().filter(|(_, fault)| tells(fault));
    let lines = lines.map(|(rank, fault)| format!("rank {rank}: {}", told(shards, fault, step)));
    let lines: Vec<String> = lines.collect();
    let lines = match &lines[..] {
        [] => "no single rank's gradient is to blame: the sum over ranks overflowed".into(),
        lines => lines.join("\n"),
    };
    Ok(match all.iter().any(|fault| fault[0] >= CHANGED) {
        true => anyhow!(
            "what the optimizer holds was changed by something else; no update was made on it\n\
             {lines}\nmemory or a device is failing there: `train resume` goes on from the last \
             checkpoint; leave that machine out if it happens again"
        ),
        false => anyhow!(
            "{numbers} are not finite, twice; the update was not made\n{lines}\nlower \
             optimizer.learning_rate, or look at the examples of this step"
        ),
    })
}

/// A fault in words.
fn told(shards: &Shards, fault: &[i64], step: usize) -> String {
    let [kind, unit, at, count, since] = *fault else { unreachable!("as they were sent") };
    let tensor = tensor_at(&shards.shards[unit as usize].unit, at);
    match kind {
        LOSS => "the loss is not finite although all gradients are".into(),
        GRADIENT => {
            format!("the gradient of {tensor} has {count} values that are not finite or too large")
        }
        HELD..CHANGED => {
            let state = STATE[(kind - HELD) as usize];
            format!("{state} {tensor} has {count} values that are not finite or too large")
        }
        _ => {
            let state = STATE[(kind - CHANGED) as usize];
            let bit = match count.unsigned_abs() {
                // One flipped bit adds or takes a power of two; a word is two values.
                word if word.is_power_of_two() => {
                    format!(": bit {} of one value", word.trailing_zeros() % 32)
                }
                _ => String::new(),
            };
            format!("{state} {tensor} changed in memory between steps {since} and {step}{bit}")
        }
    }
}

/// The first element that is not finite or too large to be squared, and how many there are.
fn first_fault(t: &Tensor) -> Option<(i64, i64)> {
    let bad = t.reshape([-1]).square().isfinite().logical_not();
    let count = bad.sum(Kind::Int64).int64_value(&[]);
    (count > 0).then(|| (bad.to_kind(Kind::Int8).argmax(0, false).int64_value(&[]), count))
}

/// The tensor that element `at` of a unit's flat buffer belongs to.
pub fn tensor_at(unit: &Unit, at: i64) -> &str {
    let holds = |param: &&model::layout::Param| at < param.offset + param.numel();
    unit.params.iter().find(holds).map_or(unit.name.as_str(), |param| &param.name)
}
