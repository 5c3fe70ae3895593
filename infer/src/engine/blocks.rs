//! Which sequence has which blocks of the cache: pure bookkeeping, no tensor in sight.

/// The blocks of a cache: each is free, one sequence's, or shared by several that begin alike.
#[derive(Debug)]
pub struct Blocks {
    free: Vec<usize>,
    /// Sequences that have it, of each block.
    owners: Vec<u32>,
    block_len: usize,
}

/// A block to copy, because its sequence goes on where others that share it do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copy {
    /// What stays with the others.
    pub from: usize,
    /// What the sequence has instead.
    pub to: usize,
    /// How many of its positions, from the first.
    pub positions: usize,
}

impl Blocks {
    /// `count` free blocks of `block_len` positions.
    pub fn new(count: usize, block_len: usize) -> Self {
        Blocks { free: (0..count).rev().collect(), owners: vec![0; count], block_len }
    }

    /// All there are.
    pub fn count(&self) -> usize {
        self.owners.len()
    }

    /// Sequences that have a block.
    pub fn owners(&self, block: usize) -> u32 {
        self.owners[block]
    }

    /// Nobody's.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Blocks that so many positions take.
    pub fn needed(&self, positions: usize) -> usize {
        positions.div_ceil(self.block_len)
    }

    /// Gives the first `positions` positions of a sequence's `blocks` to another one as well.
    pub fn share(&mut self, blocks: &[usize], positions: usize) -> Vec<usize> {
        let shared = blocks[..self.needed(positions)].to_vec();
        shared.iter().for_each(|&block| self.owners[block] += 1);
        shared
    }

    /// Takes the `blocks` from a sequence that none of its first `positions` are in.
    pub fn cut(&mut self, blocks: &mut Vec<usize>, positions: usize) {
        let kept = self.needed(positions).min(blocks.len());
        self.release(&mut blocks.split_off(kept));
    }

    /// Takes all `blocks` from a sequence.
    pub fn release(&mut self, blocks: &mut Vec<usize>) {
        for block in blocks.drain(..) {
            self.owners[block] -= 1;
            if self.owners[block] == 0 {
                self.free.push(block);
            }
        }
    }

    /// Readies a sequence that has `start` positions in `blocks` for those up to `end`: adds
    /// blocks, and replaces one that it must not write to, which the caller then copies.
    /// False, and nothing is changed, if there are not enough free ones.
    pub fn reserve(
        &mut self,
        blocks: &mut Vec<usize>,
        start: usize,
        end: usize,
        copy: impl FnOnce(Copy),
    ) -> bool {
        let positions = start % self.block_len;
        let shared = positions > 0 && self.owners[blocks[start / self.block_len]] > 1;
        let added = self.needed(end) - blocks.len();
        if added + usize::from(shared) > self.free.len() {
            return false;
        }
        if shared {
            let from = std::mem::replace(&mut blocks[start / self.block_len], self.take());
            self.owners[from] -= 1;
            copy(Copy { from, to: blocks[start / self.block_len], positions });
        }
        blocks.extend((0..added).map(|_| self.take()));
        true
    }

    fn take(&mut self) -> usize {
        let block = self.free.pop().expect("the caller has counted");
        self.owners[block] = 1;
        block
    }
}
