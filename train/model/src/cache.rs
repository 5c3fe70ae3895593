//! Keys and values of the tokens seen so far, in blocks of positions that sequences own or share.

use c10d::kernels::Cached;
use tch::{Device, Kind, Tensor};

use crate::{Config, Segment};

/// All the memory for keys and values, allocated once. Position `p` of a sequence with the blocks
/// `b` lies in block `b[p / block_len]`; which sequence has which blocks is the caller's matter.
#[derive(Debug)]
pub struct Cache {
    /// A layer each: `[blocks, keys and values, kv heads, block_len, D]`.
    pools: Vec<Tensor>,
    /// Of each layer and block its keys and values, `[kv heads, block_len, D]`: views of the pools.
    views: Vec<Vec<[Tensor; 2]>>,
    block_len: usize,
}

/// Where the keys and the values of a pass's new tokens go, as rows of D numbers of a layer's pool.
#[derive(Debug)]
pub(crate) struct Places {
    keys: Tensor,
    values: Tensor,
}

impl Cache {
    /// A cache of `blocks` blocks, each of `block_len` positions, for `kv` key and value heads.
    pub fn new(
        config: &Config,
        kv: i64,
        blocks: usize,
        block_len: usize,
        (kind, device): (Kind, Device),
    ) -> Self {
        let d = config.head_dim();
        let shape = [blocks as i64, 2, kv, block_len as i64, d];
        let pools: Vec<Tensor> =
            (0..config.num_hidden_layers).map(|_| Tensor::empty(shape, (kind, device))).collect();
        let view = |pool: &Tensor, block: usize| {
            let block = pool.get(block as i64);
            [block.get(0), block.get(1)]
        };
        let views = pools.iter().map(|pool| (0..blocks).map(|b| view(pool, b)).collect()).collect();
        Self { pools, views, block_len }
    }

    /// The bytes of one block.
    pub fn block_bytes(config: &Config, kv: i64, block_len: usize, kind: Kind) -> usize {
        let row = 2 * kv * config.head_dim() * config.num_hidden_layers;
        row as usize * block_len * kind.elt_size_in_bytes()
    }

    /// Positions of a block.
    pub fn block_len(&self) -> usize {
        self.block_len
    }

    /// Copies the first `positions` positions of one block to another.
    pub fn copy(&mut self, from: usize, to: usize, positions: usize) {
        let _guard = tch::no_grad_guard();
        for views in &self.views {
            for part in [0, 1] {
                let rows = |block: usize| views[block][part].narrow(1, 0, positions as i64);
                rows(to).copy_(&rows(from));
            }
        }
    }

    /// The rows for tokens that stand at `positions` (block, offset).
    pub(crate) fn places(&self, positions: &[(usize, usize)]) -> Places {
        let (kv, device) = (self.pools[0].size()[2], self.pools[0].device());
        let rows = |part: i64| {
            let row = |&(block, offset): &(usize, usize)| {
                (0..kv).map(move |head| {
                    ((block as i64 * 2 + part) * kv + head) * self.block_len as i64 + offset as i64
                })
            };
            let rows: Vec<i64> = positions.iter().flat_map(row).collect();
            Tensor::from_slice(&rows).to_device(device)
        };
        Places { keys: rows(0), values: rows(1) }
    }

    /// Stores a layer's new keys and values, `[T, kv heads, D]` each.
    pub(crate) fn write(&self, layer: usize, places: &Places, keys: &Tensor, values: &Tensor) {
        let d = keys.size()[2];
        let mut rows = self.pools[layer].view([-1, d]);
        let _ = rows.index_copy_(0, &places.keys, &keys.reshape([-1, d]));
        let _ = rows.index_copy_(0, &places.values, &values.reshape([-1, d]));
    }

    /// A layer's keys and values of all of a segment's sequence, its new tokens included.
    pub(crate) fn pieces(&self, layer: usize, segment: &Segment) -> Vec<Cached<'_>> {
        let len = segment.start + segment.ids.len();
        let starts = (0..len).step_by(self.block_len);
        let piece = |(start, &block): (usize, &usize)| {
            let [keys, values] = &self.views[layer][block];
            Cached { keys, values, len: self.block_len.min(len - start) }
        };
        starts.zip(segment.blocks).map(piece).collect()
    }
}
