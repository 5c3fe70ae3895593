//! A linear layer whose weight is packed once into panels of 16 columns, for decoding.

use std::fmt;

use anyhow::{Result, ensure};
use tch::{Device, Kind, Tensor};

use super::Isa;
use super::buffer::{Buffer, Shared, scratch, side_by_side};
use super::pool::parallel;
use super::tile::{PANEL, Tile, most_rows, shape};

/// How a packed weight is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// 16 bits an element: exact for what was bf16 before, and half the memory traffic.
    Bf16,
    /// 32 bits an element: exact for everything.
    Fp32,
}

/// `y = x W^T + b` with a frozen W.
///
/// The same row of x gives the same bits of y alone, at any place in any batch, on any number of
/// threads and with either instruction set. On a processor that has none of [`Isa`] libtorch
/// does the work in fp32, and that no longer holds.
pub struct PackedLinear {
    rows: usize,
    k: usize,
    storage: Storage,
    weight: Weight,
}

enum Weight {
    Panels { isa: Isa, panels: Buffer, bias: Option<Buffer> },
    Plain { weight: Tensor, bias: Option<Tensor> },
}

impl PackedLinear {
    /// Packs `weight` [m, k] with `bias` [m], in bf16 when every element is one, else in fp32.
    ///
    /// # Errors
    /// When the shapes do not fit, or the tensors are not on the CPU.
    pub fn pack(weight: &Tensor, bias: Option<&Tensor>) -> Result<PackedLinear> {
        let exact = if is_bf16(weight) { Storage::Bf16 } else { Storage::Fp32 };
        PackedLinear::pack_as(weight, bias, exact)
    }

    /// Packs `weight` [m, k] with `bias` [m] as `storage`, which must be exact.
    ///
    /// # Errors
    /// When the weight has elements that bf16 would round, the shapes do not fit, or the tensors
    /// are not on the CPU.
    pub fn pack_as(
        weight: &Tensor,
        bias: Option<&Tensor>,
        storage: Storage,
    ) -> Result<PackedLinear> {
        let size = weight.size();
        ensure!(size.len() == 2, "a linear layer's weight is [m, k], and this is {size:?}");
        ensure!(weight.device() == Device::Cpu, "kernels work on the CPU: move the weight there");
        ensure!(
            storage == Storage::Fp32 || is_bf16(weight),
            "the weight {size:?} has elements that bf16 would round: pack it as fp32"
        );
        if let Some(bias) = bias {
            let found = bias.size();
            ensure!(found == [size[0]], "the weight is {size:?} and its bias {found:?}");
        }
        let (rows, k) = (size[0] as usize, size[1] as usize);
        let bias = bias.map(|bias| bias.to_kind(Kind::Float).contiguous());
        let weight = match Isa::best() {
            Some(isa) => Weight::Panels {
                isa,
                panels: panels(weight, storage),
                bias: bias.map(|bias| padded(&bias)),
            },
            None => Weight::Plain { weight: weight.to_kind(Kind::Float), bias },
        };
        Ok(PackedLinear { rows, k, storage, weight })
    }

    /// The same layer computed with `isa`, for comparisons.
    ///
    /// # Panics
    /// When the processor lacks it.
    pub fn with_isa(mut self, wanted: Isa) -> PackedLinear {
        assert!(wanted.is_here(), "this processor has no {wanted:?}");
        if let Weight::Panels { isa, .. } = &mut self.weight {
            *isa = wanted;
        }
        self
    }

    /// How the weight is stored.
    pub fn storage(&self) -> Storage {
        self.storage
    }

    /// `x` [.., k] fp32 on the CPU to [.., m] fp32.
    ///
    /// # Panics
    /// When `x` is something else.
    pub fn apply(&self, x: &Tensor) -> Tensor {
        let mut size = x.size();
        let k = size.pop().expect("x has at least one dimension");
        assert_eq!(k, self.k as i64, "x is {:?} and the weight {self:?}", x.size());
        assert_eq!((x.kind(), x.device()), (Kind::Float, Device::Cpu), "x is fp32 on the CPU");
        let (isa, panels, bias) = match &self.weight {
            Weight::Panels { isa, panels, bias } => (*isa, panels, bias),
            Weight::Plain { weight, bias } => return x.linear(weight, bias.as_ref()),
        };
        let n = size.iter().product::<i64>() as usize;
        size.push(self.rows as i64);
        let out = Tensor::empty(&size, (Kind::Float, Device::Cpu));
        if n * self.rows > 0 {
            let x = x.contiguous();
            let bias = bias.as_ref().map_or(std::ptr::null(), |bias| bias.as_ptr());
            // SAFETY: contiguous fp32 tensors of n * k and n * m elements, alive for the call.
            unsafe {
                self.compute(isa, panels, bias, x.data_ptr().cast(), n, out.data_ptr().cast())
            };
        }
        out
    }

    /// Rows of the weight by int64 `ids` [..], as fp32 [.., k]: the embedding that a head is tied
    /// to.
    ///
    /// # Panics
    /// When an id is not a row.
    pub fn rows(&self, ids: &Tensor) -> Tensor {
        let mut size = ids.size();
        size.push(self.k as i64);
        let ids = ids.reshape([-1]).to_device(Device::Cpu);
        let panels = match &self.weight {
            Weight::Panels { panels, .. } => panels,
            Weight::Plain { weight, .. } => return weight.index_select(0, &ids).reshape(&size),
        };
        let ids = Vec::<i64>::try_from(&ids).expect("ids are int64");
        let mut found = Vec::with_capacity(ids.len() * self.k);
        for id in ids {
            let id = usize::try_from(id).ok().filter(|id| *id < self.rows);
            let id = id.unwrap_or_else(|| panic!("an id is beyond the {} rows", self.rows));
            let lines = self.lines();
            let panel = &panels[id / PANEL * lines * PANEL..][..lines * PANEL];
            found.extend((0..self.k).map(|i| match self.storage {
                Storage::Fp32 => panel[i * PANEL + id % PANEL],
                Storage::Bf16 => {
                    let word = panel[i / 2 * PANEL + id % PANEL].to_bits();
                    f32::from_bits(if i % 2 == 0 { word << 16 } else { word & 0xffff_0000 })
                }
            }));
        }
        Tensor::from_slice(&found).reshape(&size)
    }

    /// Lines of a panel.
    fn lines(&self) -> usize {
        lines(self.k, self.storage)
    }

    /// Puts each tile's rows of x side by side, then spreads chunks of panels x blocks of tiles
    /// over the threads.
    ///
    /// # Safety
    /// `x` is [n, k], `out` [n, m], `bias` null or padded to whole panels.
    unsafe fn compute(
        &self,
        isa: Isa,
        weight: &[f32],
        bias: *const f32,
        x: *const f32,
        n: usize,
        out: *mut f32,
    ) {
        let (k, m, bf16) = (self.k, self.rows, self.storage == Storage::Bf16);
        let (panel, panels) = (self.lines() * PANEL, m.div_ceil(PANEL));
        let tiles = n.div_ceil(most_rows(isa));
        // Nearly equal tiles: 8 rows of at most 6 are 4 + 4.
        let rows_of = |tile: usize| n * tile / tiles..n * (tile + 1) / tiles;
        let (_, wide) = shape(isa, bf16, rows_of(tiles - 1).len(), panels);
        let chunk = (CHUNK / panel).next_multiple_of(wide).max(wide);
        let (chunks, blocks) = (panels.div_ceil(chunk), tiles.div_ceil(BLOCK));
        let (x, out, bias) = (Shared(x.cast_mut()), Shared(out), Shared(bias.cast_mut()));
        let packed = Shared(scratch(n * k));
        // SAFETY: each tile has its own rows, each task its own rows and columns of the output;
        // all of them exist, and the processor has the ISA's features.
        parallel(tiles, &|tile| unsafe {
            let rows = rows_of(tile);
            let to = packed.at(rows.start * k);
            let from: Vec<_> = rows.map(|row| x.at(row * k).cast_const()).collect();
            side_by_side(&from, k, to);
        });
        parallel(chunks * blocks, &|task| {
            let (chunk_first, block) = (task / blocks * chunk, task % blocks * BLOCK);
            let chunk_end = (chunk_first + chunk).min(panels);
            for rows in (block..(block + BLOCK).min(tiles)).map(rows_of) {
                let mut first = chunk_first;
                while first < chunk_end {
                    let (run, took) = shape(isa, bf16, rows.len(), chunk_end - first);
                    let column = first * PANEL;
                    // SAFETY: as above.
                    unsafe {
                        run(&Tile {
                            x: packed.at(rows.start * k),
                            w: weight.as_ptr().add(first * panel),
                            line: PANEL,
                            panel,
                            k,
                            out: out.at(rows.start * m + column),
                            stride: m,
                            columns: m - column,
                            bias: if bias.0.is_null() { bias.0 } else { bias.at(column) },
                            carry: false,
                        });
                    }
                    first += took;
                }
            }
        });
    }
}

/// Words of weight in a task: they stay in the second-level cache while all its rows pass.
const CHUNK: usize = 64 << 10;
/// Tiles of rows in a task.
const BLOCK: usize = 8;

/// Lines of a panel: one for each step of k, or one for two in bf16.
fn lines(k: usize, storage: Storage) -> usize {
    match storage {
        Storage::Bf16 => k.div_ceil(2),
        Storage::Fp32 => k,
    }
}

/// Whether bf16 holds every element exactly.
fn is_bf16(weight: &Tensor) -> bool {
    if weight.kind() == Kind::BFloat16 {
        return true;
    }
    if weight.kind() != Kind::Float {
        return false;
    }
    let low = weight.contiguous().view_dtype(Kind::Int).bitwise_and(0xffff);
    low.count_nonzero(None).int64_value(&[]) == 0
}

/// The panels of `weight` [m, k], zero beyond its last row.
fn panels(weight: &Tensor, storage: Storage) -> Buffer {
    let (m, k) = weight.size2().expect("checked: two dimensions");
    let panel = lines(k as usize, storage) * PANEL;
    let mut buffer = Buffer::new((m as usize).div_ceil(PANEL) * panel);
    // In slabs, so that a second copy of the whole is never there.
    let slab = 256 * PANEL;
    for (weight, to) in weight.split(slab as i64, 0).iter().zip(buffer.chunks_mut(256 * panel)) {
        let weight = weight.to_kind(Kind::Float).contiguous();
        let (rows, k) = (weight.size()[0] as usize, k as usize);
        let (from, to) = (Shared(weight.data_ptr().cast()), Shared(to.as_mut_ptr()));
        parallel(rows.div_ceil(PANEL), &|index| {
            let row = index * PANEL;
            // SAFETY: rows that exist, and each task's own panel.
            let (from, to) = unsafe {
                let rows = PANEL.min(rows - row);
                (
                    std::slice::from_raw_parts(from.at(row * k), rows * k),
                    std::slice::from_raw_parts_mut(to.at(index * panel), panel),
                )
            };
            pack_panel(from, k, storage, to);
        });
    }
    buffer
}

/// One panel, zero before, from up to 16 rows.
fn pack_panel(rows: &[f32], k: usize, storage: Storage, panel: &mut [f32]) {
    for (row, values) in rows.chunks_exact(k).enumerate() {
        for (i, value) in values.iter().enumerate() {
            match storage {
                Storage::Fp32 => panel[i * PANEL + row] = *value,
                Storage::Bf16 => {
                    let word = &mut panel[i / 2 * PANEL + row];
                    let half = value.to_bits() >> 16 << (i % 2 * 16);
                    *word = f32::from_bits(word.to_bits() | half);
                }
            }
        }
    }
}

/// A bias with zeros up to whole panels.
fn padded(bias: &Tensor) -> Buffer {
    let values = Vec::<f32>::try_from(bias).expect("a contiguous fp32 vector");
    let mut buffer = Buffer::new(values.len().next_multiple_of(PANEL));
    buffer[..values.len()].copy_from_slice(&values);
    buffer
}

impl fmt::Debug for PackedLinear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {}] as {:?}", self.rows, self.k, self.storage)
    }
}
