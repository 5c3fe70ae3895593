//! Which rank and which tensor brought numbers that are not finite.

use anyhow::Result;
use model::Unit;
use tch::{Kind, Tensor};

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

/// The kinds of faults, as they travel between ranks.
const KINDS: [&str; 5] =
    ["the loss", "the gradient of", "the weight", "the first moment of", "the second moment of"];

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

/// Asks all ranks and says, a line each, what each found: `rank 1: the gradient of
/// model.layers.0.mlp.up_proj.weight has 3 values that are not finite or too large`. All ranks call it.
pub fn find(shards: &Shards, adamw: &AdamW, inspection: &Inspection) -> Result<String> {
    let mut faults: Vec<[i64; 4]> = Vec::new();
    let part = |unit: usize| shards.shards[unit].master.numel() as i64;
    let start = |unit: usize| part(unit) * shards.mesh.shard.rank() as i64;
    for (unit, (shard, (m, v))) in shards.shards.iter().zip(&adamw.moments).enumerate() {
        for (kind, tensor) in [(2, &shard.master), (3, m), (4, v)] {
            let fault = first_fault(tensor);
            faults.extend(fault.map(|(at, n)| [kind, unit as i64, start(unit) + at, n]));
        }
    }
    faults.extend(inspection.gradient.map(|(unit, at, count)| [1, unit as i64, at, count]));
    if inspection.loss {
        faults.push([0, 0, 0, 1]);
    }
    // Each rank's first fault; state comes before what was computed from it.
    let mine = faults.first().copied().unwrap_or([-1, 0, 0, 0]);
    let all = shards.mesh.world.all_gather_i64(&mine)?;
    let broken_state = all.iter().any(|fault| fault[0] >= 2);
    let tells = |fault: &[i64]| fault[0] >= if broken_state { 2 } else { 0 };
    let lines = all.iter().enumerate().filter(|(_, fault)| tells(fault)).map(|(rank, fault)| {
        let (kind, unit) = (KINDS[fault[0] as usize], &shards.shards[fault[1] as usize].unit);
        match fault[0] {
            0 => format!("rank {rank}: {kind} is not finite although all gradients are"),
            _ => format!(
                "rank {rank}: {kind} {} has {} values that are not finite or too large",
                tensor_at(unit, fault[2]),
                fault[3]
            ),
        }
    });
    let lines: Vec<String> = lines.collect();
    Ok(match &lines[..] {
        [] => "no single rank's gradient is to blame: the sum over ranks overflowed".into(),
        lines => lines.join("\n"),
    })
}

/// The first element that is not finite or too large to be squared, and how many there are.
fn first_fault(t: &Tensor) -> Option<(i64, i64)> {
    let bad = t.reshape([-1]).square().isfinite().logical_not();
    let count = bad.sum(Kind::Int64).int64_value(&[]);
    (count > 0).then(|| (bad.to_kind(Kind::Int8).argmax(0, false).int64_value(&[]), count))
}

/// The tensor that element `at` of a unit's flat buffer belongs to.
fn tensor_at(unit: &Unit, at: i64) -> &str {
    let holds = |param: &&model::layout::Param| at < param.offset + param.numel();
    unit.params.iter().find(holds).map_or(unit.name.as_str(), |param| &param.name)
}
