//! Packed linear layers against float64, and their bits against themselves in other batches.

use c10d::kernels::{Cached, Isa, PackedLinear, Sequence, Storage, attend, attend_by};
use tch::{Device, Kind, Tensor};

const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

/// A weight whose elements are bf16 values, in fp32.
fn bf16_values(m: i64, k: i64) -> Tensor {
    Tensor::randn([m, k], CPU).to_kind(Kind::BFloat16).to_kind(Kind::Float)
}

fn bits(t: &Tensor) -> Vec<i32> {
    Vec::try_from(t.contiguous().view_dtype(Kind::Int).reshape([-1])).unwrap()
}

/// The largest error against float64, relative to what the sum's terms add up to without signs.
fn relative_error(y: &Tensor, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> f64 {
    let double = |t: &Tensor| t.to_kind(Kind::Double);
    let exact = double(x).linear(&double(weight), bias.map(double).as_ref());
    let size =
        double(x).abs().linear(&double(weight).abs(), bias.map(|b| double(b).abs()).as_ref());
    let error = (double(y) - exact).abs() / size.clamp_min(1e-300);
    error.max().double_value(&[])
}

/// [n, k] x [m, k]: exact storage is found, errors are those of fp32, and the bits are the same
/// with every instruction set, alone and in the batch.
#[track_caller]
fn check(n: i64, k: i64, m: i64, bf16: bool, biased: bool) {
    let weight = if bf16 { bf16_values(m, k) } else { Tensor::randn([m, k], CPU) };
    let bias = biased.then(|| Tensor::randn([m], CPU));
    let x = Tensor::randn([n, k], CPU);
    let pack = || PackedLinear::pack(&weight, bias.as_ref()).unwrap();
    let packed = pack();
    assert_eq!(packed.storage(), if bf16 { Storage::Bf16 } else { Storage::Fp32 });
    let y = packed.apply(&x);
    assert_eq!(y.size(), [n, m]);
    // Half a unit in the last place for each of k roundings would be the bound; chance keeps it
    // near the square root.
    let error = relative_error(&y, &x, &weight, bias.as_ref());
    let bound = 2.0 * f64::powi(2.0, -24) * (2.0 + (k as f64).sqrt());
    assert!(error <= bound, "[{n}, {k}] x [{m}, {k}]: error {error:e} above {bound:e}");
    for isa in [Isa::Avx512, Isa::Avx2].into_iter().filter(|isa| isa.is_here()) {
        let there = pack().with_isa(isa).apply(&x);
        assert_eq!(bits(&y), bits(&there), "[{n}, {k}] x [{m}, {k}] by {isa:?}");
    }
    for row in [0, n / 2, n - 1] {
        let alone = packed.apply(&x.narrow(0, row, 1));
        assert_eq!(bits(&alone), bits(&y.narrow(0, row, 1)), "row {row} of {n}, k {k}, m {m}");
    }
}

#[test]
fn errors_are_those_of_fp32() {
    tch::manual_seed(1);
    for (n, k, m) in [(1, 1, 1), (2, 3, 15), (3, 2, 16), (5, 17, 17), (7, 64, 33), (13, 129, 100)] {
        for (bf16, biased) in [(true, true), (true, false), (false, true), (false, false)] {
            check(n, k, m, bf16, biased);
        }
    }
    for n in [1, 6, 8, 12, 16, 64, 100] {
        check(n, 896, 1152, true, true);
        check(n, 4864, 130, true, false);
        check(n, 700, 300, false, false);
    }
}

#[test]
fn a_row_is_the_same_in_every_batch() {
    tch::manual_seed(3);
    for (k, m, bf16) in [(896, 130, true), (301, 77, true), (301, 77, false)] {
        let weight = if bf16 { bf16_values(m, k) } else { Tensor::randn([m, k], CPU) };
        let packed = PackedLinear::pack(&weight, None).unwrap();
        let x = Tensor::randn([33, k], CPU);
        let alone: Vec<_> = (0..33).map(|row| bits(&packed.apply(&x.narrow(0, row, 1)))).collect();
        for n in 1..=33 {
            for first in [0, 33 - n] {
                let rows = alone[first as usize..(first + n) as usize].concat();
                let together = bits(&packed.apply(&x.narrow(0, first, n)));
                assert_eq!(together, rows, "{n} rows from {first} of [{m}, {k}]");
            }
        }
        for threads in [1, 2, 3] {
            tch::set_num_threads(threads);
            assert_eq!(bits(&packed.apply(&x)), alone.concat(), "{threads} threads");
        }
    }
}

#[test]
fn storage_is_exact_or_refused() {
    let weight = Tensor::randn([20, 30], CPU);
    let refused = PackedLinear::pack_as(&weight, None, Storage::Bf16).err().unwrap().to_string();
    assert!(refused.contains("[20, 30]") && refused.contains("round"), "{refused}");
    let bias = Tensor::zeros([19], CPU);
    let refused = PackedLinear::pack(&weight, Some(&bias)).err().unwrap().to_string();
    assert!(refused.contains("[20, 30]") && refused.contains("[19]"), "{refused}");
    let narrow = weight.to_kind(Kind::BFloat16);
    let ids = Tensor::from_slice(&[[3_i64, 0], [19, 3]].concat()).reshape([2, 2]);
    for (weight, storage) in [(&weight, Storage::Fp32), (&narrow, Storage::Bf16)] {
        let packed = PackedLinear::pack(weight, None).unwrap();
        assert_eq!(packed.storage(), storage);
        let rows = weight.to_kind(Kind::Float).index_select(0, &ids.reshape([-1]));
        assert_eq!(packed.rows(&ids), rows.reshape([2, 2, 30]));
    }
}

/// One sequence's cache with more room than it needs, and its queries for all positions.
struct Case {
    keys: Tensor,
    values: Tensor,
    q: Tensor,
    len: usize,
}

const HEADS: i64 = 14;
const KV_HEADS: i64 = 2;

impl Case {
    fn new(len: usize, d: i64) -> Case {
        let cache = || Tensor::randn([KV_HEADS, len as i64 + 5, d], CPU);
        Case { keys: cache(), values: cache(), q: Tensor::randn([len as i64, HEADS, d], CPU), len }
    }

    fn cached(&self, from: usize, to: usize) -> [Tensor; 2] {
        [&self.keys, &self.values].map(|t| t.narrow(1, from as i64, (to - from) as i64))
    }

    /// The queries `from..to` over pieces that end at `cuts` and at `to`.
    fn attend(&self, from: usize, to: usize, cuts: &[usize]) -> Tensor {
        let mut ends: Vec<_> = cuts.iter().copied().filter(|cut| *cut < to).collect();
        ends.push(to);
        let starts = [0].into_iter().chain(ends.clone());
        let parts: Vec<_> = starts.zip(&ends).map(|(a, b)| (self.cached(a, *b), b - a)).collect();
        let pieces: Vec<_> =
            parts.iter().map(|([keys, values], len)| Cached { keys, values, len: *len }).collect();
        let q = self.q.narrow(0, from as i64, (to - from) as i64);
        attend(&q, &[Sequence { queries: to - from, pieces: &pieces }], self.scale())
    }

    fn scale(&self) -> f32 {
        1.0 / (self.q.size()[2] as f32).sqrt()
    }

    /// The same in float64, by definition.
    fn exact(&self) -> Tensor {
        let double = |t: &Tensor| t.narrow(1, 0, self.len as i64).to_kind(Kind::Double);
        let wide = |t: Tensor| t.repeat_interleave_self_int(HEADS / KV_HEADS, 0, None);
        let (keys, values) = (wide(double(&self.keys)), wide(double(&self.values)));
        let q = self.q.to_kind(Kind::Double).transpose(0, 1);
        let hidden = Tensor::ones([self.len as i64; 2], (Kind::Bool, Device::Cpu)).triu(1);
        let scores = q.matmul(&keys.transpose(1, 2)) * f64::from(self.scale());
        let scores = scores.masked_fill(&hidden, f64::NEG_INFINITY);
        scores.softmax(-1, Kind::Double).matmul(&values).transpose(0, 1)
    }
}

/// Attention is float64's up to fp32, and its bits are the same in any chunks, pieces and batch.
#[track_caller]
fn check_attention(len: usize, d: i64) {
    let case = Case::new(len, d);
    let whole = case.attend(0, len, &[]);
    let error = (whole.to_kind(Kind::Double) - case.exact()).abs().max().double_value(&[]);
    // Values reach 4, and scores of D terms 40: a few units in the last place.
    assert!(error < 4e-6, "{len} positions of {d}: error {error:e}");
    for cuts in [vec![], vec![1], vec![len / 3, len / 2], vec![16, 17, 40]] {
        for (from, to) in [(0, len), (len / 2, len), (len - 1, len), (0, len.div_ceil(2))] {
            let part = case.attend(from, to, &cuts);
            let same = whole.narrow(0, from as i64, (to - from) as i64);
            assert_eq!(bits(&part), bits(&same), "{len} of {d}: {from}..{to}, cut at {cuts:?}");
        }
    }
    let other = Case::new(37, d);
    let q = Tensor::cat(&[other.q.narrow(0, 30, 7), case.q.narrow(0, len as i64 - 1, 1)], 0);
    let caches = [&other, &case]
        .map(|case| [Cached { keys: &case.keys, values: &case.values, len: case.len }]);
    let sequences =
        [7, 1].into_iter().zip(&caches).map(|(queries, pieces)| Sequence { queries, pieces });
    let sequences: Vec<_> = sequences.collect();
    let both = attend(&q, &sequences, case.scale());
    assert_eq!(bits(&both.narrow(0, 7, 1)), bits(&whole.narrow(0, len as i64 - 1, 1)));
    let ours = |isa: &Isa| isa.is_here() && d % 16 == 0; // other widths are libtorch's
    for isa in [Isa::Avx512, Isa::Avx2].into_iter().filter(ours) {
        let there = attend_by(isa, &q, &sequences, case.scale());
        assert_eq!(bits(&there), bits(&both), "{len} of {d} by {isa:?}");
    }
}

#[test]
fn attention_is_softmax_over_the_past() {
    tch::manual_seed(2);
    for (len, d) in [(1, 64), (2, 16), (24, 8), (15, 64), (16, 48), (50, 64), (130, 128), (700, 64)]
    {
        check_attention(len, d);
    }
}
