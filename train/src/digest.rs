//! Digests of what a rank holds between updates: they find bits that flipped in memory, and copies
//! of the model that are no longer the same.
//!
//! A digest is the wrapping sum of a tensor's 64-bit words: whatever the order of the sum, every
//! single flipped bit changes it, and only flips that cancel one another do not.

use anyhow::{Result, bail};
use tch::{Kind, Tensor};

use crate::blame;
use crate::optimizer::AdamW;
use crate::shards::Shards;

/// Elements in a 64-bit word.
const WORD: i64 = 2;

/// What is digested as one: a tensor's part in this rank's slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    unit: usize,
    /// Master weights, first, second moment.
    part: usize,
    /// In the slice.
    start: i64,
    length: i64,
}

/// Digests of a rank's slices.
#[derive(Debug)]
pub struct Digests {
    every: usize,
    pieces: Vec<Piece>,
    /// The step whose update was the last, and the sums after it.
    seen: Option<(usize, Tensor)>,
}

/// Words that are not what they were after the last update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The unit.
    pub unit: usize,
    /// Master weights, first, second moment.
    pub part: usize,
    /// An element of the unit's flat buffer in the tensor that changed.
    pub at: i64,
    /// The difference of the sums.
    pub difference: i64,
    /// The step after whose update all was well.
    pub since: usize,
}

impl Digests {
    /// Digests after every `every`-th step; 0: never.
    pub fn new(shards: &Shards, every: usize) -> Self {
        let units = 0..if every > 0 { shards.shards.len() } else { 0 };
        let pieces = units.flat_map(|unit| pieces(shards, unit)).collect();
        Self { every, pieces, seen: None }
    }

    /// What is held was changed by right: nothing is compared before the next digest.
    pub fn forget(&mut self) {
        self.seen = None;
    }

    /// After the update of step `step`: digests if it is the step's turn, and compares the copies
    /// of the model. All ranks call it.
    ///
    /// # Errors
    /// Copies differ, on every rank the same error.
    pub fn look(&mut self, shards: &Shards, adamw: &AdamW, step: usize) -> Result<()> {
        self.seen = None;
        if self.every == 0 || !step.is_multiple_of(self.every) {
            return Ok(());
        }
        let sums = self.sums(shards, adamw);
        if shards.mesh.replicas.world_size() > 1 {
            self.compare_copies(shards, &Vec::try_from(&sums)?, step)?;
        }
        self.seen = Some((step, sums));
        Ok(())
    }

    /// 0; NaN if what this rank holds is not what it was after the last update. None if that was
    /// not digested. Waits for nothing.
    pub fn alarm(&self, shards: &Shards, adamw: &AdamW) -> Option<Tensor> {
        let (_, before) = self.seen.as_ref()?;
        let changed = self.sums(shards, adamw).ne_tensor(before).any();
        Some(Tensor::where_scalar(&changed, f64::NAN, 0.0).to_kind(Kind::Float))
    }

    /// The first change that [`Self::alarm`] is about.
    pub fn change(&self, shards: &Shards, adamw: &AdamW) -> Result<Option<Change>> {
        let Some((since, before)) = &self.seen else { return Ok(None) };
        let differences = Vec::<i64>::try_from(self.sums(shards, adamw) - before)?;
        let found = self.pieces.iter().zip(differences).find(|(_, difference)| *difference != 0);
        Ok(found.map(|(piece, difference)| {
            let Piece { unit, part, .. } = *piece;
            Change { unit, part, at: piece.place(shards), difference, since: *since }
        }))
    }

    /// One sum for each piece.
    fn sums(&self, shards: &Shards, adamw: &AdamW) -> Tensor {
        let sum = |piece: &Piece| {
            let (m, v) = &adamw.moments[piece.unit];
            let tensor = [&shards.shards[piece.unit].master, m, v][piece.part];
            let words = tensor.narrow(0, piece.start, piece.length).view_dtype(Kind::Int64);
            words.sum(Kind::Int64)
        };
        Tensor::stack(&self.pieces.iter().map(sum).collect::<Vec<_>>(), 0)
    }

    /// Each rank compares itself to the first copy, and all learn what each found.
    fn compare_copies(&self, shards: &Shards, sums: &[i64], step: usize) -> Result<()> {
        let mesh = &shards.mesh;
        let first = &mesh.replicas.all_gather_i64(sums)?[0];
        let differs = sums.iter().zip(first).position(|(mine, first)| mine != first);
        let mine = differs.map_or([-1, 0, 0], |at| {
            let piece = &self.pieces[at];
            [piece.unit as i64, piece.part as i64, piece.place(shards)]
        });
        let copy = mesh.shard.world_size();
        let all = mesh.world.all_gather_i64(&mine)?;
        let lines =
            all.iter().enumerate().filter(|(_, found)| found[0] >= 0).map(|(rank, found)| {
                let tensor = blame::tensor_at(&shards.shards[found[0] as usize].unit, found[2]);
                let part = blame::STATE[found[1] as usize];
                format!("rank {rank} and rank {}: {part} {tensor} differs", rank % copy)
            });
        let lines: Vec<String> = lines.collect();
        if lines.is_empty() {
            return Ok(());
        }
        bail!(
            "the copies of the model are no longer the same after step {step}\n{}\nmemory or a \
             device is failing on one of each two: `train resume` goes on from the last \
             checkpoint; leave that machine out if it happens again",
            lines.join("\n")
        );
    }
}

/// A unit's slice, cut where tensors begin. A tensor that begins inside a word begins one element
/// early here; padding belongs to the last one.
fn pieces(shards: &Shards, unit: usize) -> Vec<Piece> {
    let shard = &shards.shards[unit];
    let length = shard.master.numel() as i64;
    let begin = length * shards.mesh.shard.rank() as i64;
    let start = |offset: i64| (offset - begin).clamp(0, length) / WORD * WORD;
    let mut cuts: Vec<i64> = shard.unit.params.iter().map(|param| start(param.offset)).collect();
    cuts.extend([0, length]);
    cuts.sort();
    cuts.dedup();
    let piece = |part, cut: &[i64]| Piece { unit, part, start: cut[0], length: cut[1] - cut[0] };
    (0..3).flat_map(|part| cuts.windows(2).map(move |cut| piece(part, cut))).collect()
}

impl Piece {
    /// Its last element's place in the unit's flat buffer, which is surely in the tensor.
    fn place(&self, shards: &Shards) -> i64 {
        let shard = &shards.shards[self.unit];
        let begin = shard.master.numel() as i64 * shards.mesh.shard.rank() as i64;
        (begin + self.start + self.length).min(shard.unit.numel()) - 1
    }
}
