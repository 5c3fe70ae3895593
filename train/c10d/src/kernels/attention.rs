//! Attention over cached keys and values: decoding and chunks of a prefill, for many sequences at
//! once.

use std::ops::Range;

use tch::{Device, Kind, Tensor};

use super::Isa;
use super::buffer::{Shared, scratch, side_by_side};
use super::pool::parallel;
use super::softmax::{softmax, turn};
use super::tile::{PANEL, Tile, most_rows, shape};

/// A run of cached positions.
#[derive(Debug, Clone, Copy)]
pub struct Cached<'a> {
    /// `[kv_heads, capacity, D]` fp32 on the CPU; a view whose last dimension is contiguous will
    /// do.
    pub keys: &'a Tensor,
    /// As the keys.
    pub values: &'a Tensor,
    /// How many positions of the capacity are used.
    pub len: usize,
}

/// One sequence and how many of its last positions ask: one in decoding, more in a chunk of a
/// prefill, whose keys and values are in the cache already.
#[derive(Debug, Clone, Copy)]
pub struct Sequence<'a> {
    /// Its last so many positions are the queries; each sees itself and what came before.
    pub queries: usize,
    /// Its positions in order: mostly one piece, or a shared prefix and what followed it.
    pub pieces: &'a [Cached<'a>],
}

/// Causal attention of `q` [sum of queries, heads, D] fp32 over the sequences' caches, to the same
/// shape; query head i reads key and value head i / (heads / kv_heads).
///
/// A query's bits depend on its sequence's positions alone: not on the other sequences, the
/// chunks of the prefill, the cut into pieces or the threads. Where the processor has none of
/// [`Isa`], or D is not a multiple of 16, libtorch does the work, query by query.
///
/// # Panics
/// When the shapes do not fit each other.
pub fn attend(q: &Tensor, sequences: &[Sequence], scale: f32) -> Tensor {
    let (n, heads, d) = q.size3().expect("q is [queries, heads, D]");
    assert_eq!((q.kind(), q.device()), (Kind::Float, Device::Cpu), "q is fp32 on the CPU");
    let asked: usize = sequences.iter().map(|sequence| sequence.queries).sum();
    assert_eq!(n as usize, asked, "q has as many rows as the sequences have queries");
    match Isa::best() {
        Some(isa) if d % PANEL as i64 == 0 => attend_by(isa, q, sequences, scale),
        _ => plain(q, sequences, scale, heads),
    }
}

/// As [`attend`] with this instruction set, for comparisons; D is a multiple of 16.
///
/// # Panics
/// When the processor lacks it, or the shapes do not fit each other.
pub fn attend_by(isa: Isa, q: &Tensor, sequences: &[Sequence], scale: f32) -> Tensor {
    assert!(isa.is_here(), "this processor has no {isa:?}");
    let (_, heads, d) = q.size3().expect("q is [queries, heads, D]");
    let (heads, d) = (heads as usize, d as usize);
    let q = q.contiguous();
    let out = q.empty_like();
    let pieces: Vec<Vec<Piece>> = sequences
        .iter()
        .map(|sequence| sequence.pieces.iter().map(|cached| Piece::of(cached, heads, d)).collect())
        .collect();
    let mut blocks = Vec::new();
    let mut row = 0;
    for (sequence, pieces) in sequences.iter().zip(&pieces) {
        let total: usize = pieces.iter().map(|piece| piece.len).sum();
        assert!(sequence.queries <= total, "{} queries of {total} positions", sequence.queries);
        let kv_heads = pieces.first().map_or(1, |piece| piece.kv_heads);
        assert!(pieces.iter().all(|piece| piece.kv_heads == kv_heads), "pieces of one model");
        let group = heads / kv_heads;
        // As many queries together as keep their scores in the second-level cache.
        let together = (SCORES / (total.max(1) * group)).clamp(1, 32);
        for start in (0..sequence.queries).step_by(together) {
            let queries = together.min(sequence.queries - start);
            let visible = total - sequence.queries + start + 1;
            blocks.extend((0..kv_heads).map(|kv_head| {
                let first = ((row + start) * heads + kv_head * group) * d;
                Block { pieces, kv_head, group, d, heads, queries, visible, first }
            }));
        }
        row += sequence.queries;
    }
    let (from, to) = (Shared(q.data_ptr().cast()), Shared(out.data_ptr().cast()));
    // SAFETY: the shapes were checked, each block writes its own queries' heads, and the processor
    // has the instruction set.
    parallel(blocks.len(), &|block| unsafe {
        blocks[block].attend(isa, scale, from.at(0), to.at(0));
    });
    out
}

/// Scores of a block.
const SCORES: usize = 128 << 10;

/// A [`Cached`] by its addresses.
struct Piece {
    keys: Shared,
    values: Shared,
    kv_heads: usize,
    /// Between heads, and between positions: of the keys, of the values.
    strides: [(usize, usize); 2],
    len: usize,
}

impl Piece {
    fn of(cached: &Cached, heads: usize, d: usize) -> Piece {
        let parts = [cached.keys, cached.values];
        for part in parts {
            let size = part.size();
            let fits = size.len() == 3
                && heads.is_multiple_of(size[0].max(1) as usize)
                && size[1] as usize >= cached.len
                && size[2] as usize == d
                && part.stride()[2] == 1;
            assert!(fits, "a cache is {size:?} for {heads} heads of {d}, {} used", cached.len);
            assert_eq!((part.kind(), part.device()), (Kind::Float, Device::Cpu), "cache in fp32");
        }
        let [keys, values] = parts.map(|part| Shared(part.data_ptr().cast()));
        let strides = parts.map(|part| (part.stride()[0] as usize, part.stride()[1] as usize));
        Piece { keys, values, kv_heads: parts[0].size()[0] as usize, strides, len: cached.len }
    }
}

/// Consecutive queries of one sequence with the query heads that share one key and value head:
/// `queries * group` rows.
struct Block<'a> {
    pieces: &'a [Piece],
    kv_head: usize,
    group: usize,
    d: usize,
    heads: usize,
    queries: usize,
    /// How many positions the first of the queries sees.
    visible: usize,
    /// The first element of the first row, in the queries and in the output.
    first: usize,
}

impl Block<'_> {
    /// Where a row stands in the queries and in the output.
    fn row(&self, row: usize) -> usize {
        self.first + (row / self.group * self.heads + row % self.group) * self.d
    }

    /// The pieces up to the last query's position: which, the first position, how many.
    fn runs(&self) -> impl Iterator<Item = (&Piece, usize, usize)> {
        let total = self.visible + self.queries - 1;
        let runs = self.pieces.iter().scan(0, move |base, piece| {
            let first = *base;
            *base += piece.len;
            Some((piece, first, piece.len.min(total.saturating_sub(first))))
        });
        runs.filter(|(_, _, count)| *count > 0)
    }

    /// # Safety
    /// The addresses hold what the shapes say; the processor has the instruction set.
    unsafe fn attend(&self, isa: Isa, scale: f32, q: *const f32, out: *mut f32) {
        let rows = self.queries * self.group;
        let width = (self.visible + self.queries - 1).next_multiple_of(PANEL);
        let tiles = rows.div_ceil(most_rows(isa));
        let most = rows.div_ceil(tiles);
        let turned = 4 * PANEL * self.d;
        let sizes = [rows * width, width.max(self.d) * most.max(1), turned, rows * self.d];
        let scores = scratch(sizes.iter().sum::<usize>() + rows * self.d);
        // SAFETY: four parts of the scratch, and what the caller promises.
        unsafe {
            let packed = scores.add(sizes[0]);
            let turned = packed.add(sizes[1]);
            let asked = turned.add(sizes[2]);
            let result = asked.add(sizes[3]);
            let tiles = || (0..tiles).map(|tile| rows * tile / tiles..rows * (tile + 1) / tiles);
            for tile in tiles() {
                let from: Vec<_> = tile.clone().map(|row| q.add(self.row(row))).collect();
                side_by_side(&from, self.d, asked.add(tile.start * self.d));
            }
            self.score(isa, tiles(), asked, turned, scores, width);
            let scores = std::slice::from_raw_parts_mut(scores, rows * width);
            let mut parts = Vec::with_capacity(rows);
            for (row, scores) in scores.chunks_exact_mut(width).enumerate() {
                parts.push(softmax(isa, scores, self.visible + row / self.group, scale));
            }
            for tile in tiles() {
                let from: Vec<_> = tile.clone().map(|row| scores[row * width..].as_ptr()).collect();
                side_by_side(&from, width, packed);
                self.mix(isa, tile.len(), packed, result.add(tile.start * self.d));
            }
            for (row, part) in parts.into_iter().enumerate() {
                for i in 0..self.d {
                    *out.add(self.row(row) + i) = *result.add(row * self.d + i) * part;
                }
            }
        }
    }

    /// Every row times every key: `scores` [rows, width] from `asked` [rows, D], turned tile by
    /// tile.
    ///
    /// # Safety
    /// As for [`Block::attend`]; `turned` holds 4 panels of D lines.
    unsafe fn score(
        &self,
        isa: Isa,
        tiles: impl Iterator<Item = Range<usize>> + Clone,
        asked: *const f32,
        turned: *mut f32,
        scores: *mut f32,
        width: usize,
    ) {
        let panel = PANEL * self.d;
        for (piece, base, count) in self.runs() {
            let (by_head, by_position) = piece.strides[0];
            for start in (0..count).step_by(4 * PANEL) {
                let panels = (count - start).div_ceil(PANEL).min(4);
                for p in 0..panels {
                    let position = start + p * PANEL;
                    // SAFETY: positions below the piece's length.
                    unsafe {
                        let keys = piece.keys.at(self.kv_head * by_head + position * by_position);
                        let positions = PANEL.min(count - position);
                        turn(keys, by_position, positions, self.d, turned.add(p * panel));
                    }
                }
                for tile in tiles.clone() {
                    let mut first = 0;
                    while first < panels {
                        let (run, took) = shape(isa, false, tile.len(), panels - first);
                        let position = start + first * PANEL;
                        // SAFETY: rows and positions of the scores; turned keys.
                        unsafe {
                            run(&Tile {
                                x: asked.add(tile.start * self.d),
                                w: turned.add(first * panel),
                                line: PANEL,
                                panel,
                                k: self.d,
                                out: scores.add(tile.start * width + base + position),
                                stride: width,
                                columns: count - position,
                                bias: std::ptr::null(),
                                carry: false,
                            });
                        }
                        first += took;
                    }
                }
            }
        }
    }

    /// A tile's weighted sums of the values: `out` [rows, D] from `packed` [positions, rows].
    ///
    /// # Safety
    /// As for [`Block::attend`].
    unsafe fn mix(&self, isa: Isa, rows: usize, packed: *const f32, out: *mut f32) {
        for (piece, base, count) in self.runs() {
            let (by_head, by_position) = piece.strides[1];
            let mut column = 0;
            while column < self.d {
                let (run, took) = shape(isa, false, rows, (self.d - column) / PANEL);
                // SAFETY: positions below the piece's length, columns below D.
                unsafe {
                    run(&Tile {
                        x: packed.add(base * rows),
                        w: piece.values.at(self.kv_head * by_head + column),
                        line: by_position,
                        panel: PANEL,
                        k: count,
                        out: out.add(column),
                        stride: self.d,
                        columns: self.d - column,
                        bias: std::ptr::null(),
                        carry: base > 0,
                    });
                }
                column += took * PANEL;
            }
        }
    }
}

/// The same by libtorch's operations, each query by itself, so that its bits do not depend on the
/// others either.
fn plain(q: &Tensor, sequences: &[Sequence], scale: f32, heads: i64) -> Tensor {
    let mut rows = Vec::new();
    for Sequence { queries, pieces } in sequences {
        let all = |pick: fn(&Cached<'_>) -> Tensor| {
            let parts: Vec<_> = pieces.iter().map(pick).collect();
            let all = Tensor::cat(&parts, 1); // [kv_heads, positions, D]
            let group = heads / all.size()[0];
            all.repeat_interleave_self_int(group, 0, None)
        };
        let keys = all(|piece| piece.keys.narrow(1, 0, piece.len as i64));
        let values = all(|piece| piece.values.narrow(1, 0, piece.len as i64));
        for query in 0..*queries as i64 {
            let asked = q.narrow(0, rows.len() as i64, 1).transpose(0, 1); // [heads, 1, D]
            let visible = keys.size()[1] - *queries as i64 + query + 1;
            let scores = asked.matmul(&keys.narrow(1, 0, visible).transpose(1, 2));
            let shares = (scores * f64::from(scale)).softmax(-1, Kind::Float);
            rows.push(shares.matmul(&values.narrow(1, 0, visible)).transpose(0, 1));
        }
    }
    Tensor::cat(&rows, 0)
}
