//! Packed linear layers against float64, and their bits against themselves in other batches.

use c10d::kernels::{Isa, PackedLinear, Storage};
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
    let size = double(x).abs().linear(&double(weight).abs(), bias.map(|b| double(b).abs()).as_ref());
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
