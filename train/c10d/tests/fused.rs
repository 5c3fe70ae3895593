//! The fused operations and their gradients against the same mathematics composed in fp64.

use c10d::aten::vjp;
use c10d::fused;
use tch::{Device, Kind, Tensor};

const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

fn random(size: &[i64], scale: f64) -> Tensor {
    Tensor::randn(size, FLOAT) * scale
}

/// The outputs of `operation` and the gradients of their sum weighted by `cotangents`, all fp64.
fn run(
    operation: &dyn Fn(&[Tensor]) -> Vec<Tensor>,
    inputs: &[Tensor],
    cotangents: &[Tensor],
    kind: Kind,
) -> Vec<Tensor> {
    let leaf = |t: &Tensor| t.to_kind(kind).detach().copy().set_requires_grad(true);
    let inputs: Vec<Tensor> = inputs.iter().map(leaf).collect();
    let outputs = operation(&inputs);
    let cotangents: Vec<Tensor> = cotangents.iter().map(|t| t.to_kind(kind)).collect();
    let all: Vec<&Tensor> = outputs.iter().collect();
    let gradients =
        vjp(&all, &cotangents.iter().collect::<Vec<_>>(), &inputs.iter().collect::<Vec<_>>());
    let detached = outputs.iter().map(Tensor::detach).chain(gradients.unwrap());
    detached.map(|t| t.to_kind(Kind::Double)).collect()
}

/// The largest error of any output or gradient, relative to that tensor's largest value.
fn worst(found: &[Tensor], expected: &[Tensor]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let error = |(found, expected): (&Tensor, &Tensor)| {
        assert_eq!(found.size(), expected.size());
        let scale = expected.abs().max().double_value(&[]).max(1e-30);
        let error = (found - expected).abs().max().double_value(&[]) / scale;
        assert!(error.is_finite(), "not a number");
        error
    };
    found.iter().zip(expected).map(error).fold(0.0, f64::max)
}

#[track_caller]
fn check(
    name: &str,
    ours: &dyn Fn(&[Tensor]) -> Vec<Tensor>,
    composed: &dyn Fn(&[Tensor]) -> Vec<Tensor>,
    inputs: &[Tensor],
    tolerance: f64,
) {
    let shapes: Vec<Vec<i64>> = tch::no_grad(|| ours(inputs)).iter().map(|t| t.size()).collect();
    let cotangents: Vec<Tensor> = shapes.iter().map(|size| random(size, 1.0)).collect();
    let expected = run(composed, inputs, &cotangents, Kind::Double);
    let found = run(ours, inputs, &cotangents, Kind::Float);
    let without_graph = tch::no_grad(|| ours(inputs));
    for (a, b) in without_graph.iter().zip(&found) {
        assert_eq!(a.to_kind(Kind::Double), *b, "{name}: another value without a graph");
    }
    let error = worst(&found, &expected);
    let bfloat16 = worst(&run(ours, inputs, &cotangents, Kind::BFloat16), &expected);
    let sizes: Vec<Vec<i64>> = inputs.iter().map(Tensor::size).collect();
    println!("{name} {sizes:?}: {error:.1e} (composed in bf16 {bfloat16:.1e})");
    assert!(error < tolerance, "{name} {sizes:?}: {error:e}");
    assert!(bfloat16 < 0.05, "{name} {sizes:?}, bf16: {bfloat16:e}");
}

fn composed_norm(x: &Tensor, weight: &Tensor) -> Tensor {
    let mean_square = x.square().mean_dim(-1, true, None::<Kind>);
    weight * (x * (mean_square + 1e-6).rsqrt())
}

#[test]
fn rms_norm_alone_and_of_a_sum() {
    tch::manual_seed(1);
    for (rows, hidden, scale) in [
        (1, 7, 1.0),
        (3, 24, 1e-3),
        (65, 100, 1.0),
        (200, 512, 1e4),
        (129, 1023, 1.0),
        (2, 5120, 1.0),
    ] {
        let (x, weight) = (random(&[rows, hidden], scale), random(&[hidden], 1.0));
        let residual = random(&[rows, hidden], scale);
        check(
            "rms_norm",
            &|t| vec![fused::rms_norm(&t[0], &t[1], 1e-6)],
            &|t| vec![composed_norm(&t[0], &t[1])],
            &[x.shallow_clone(), weight.shallow_clone()],
            1e-6,
        );
        check(
            "add_rms_norm",
            &|t| {
                let (sum, y) = fused::add_rms_norm(&t[0], &t[1], &t[2], 1e-6);
                vec![sum, y]
            },
            &|t| {
                let sum = &t[0] + &t[1];
                let y = composed_norm(&sum, &t[2]);
                vec![sum, y]
            },
            &[x, residual, weight],
            1e-6,
        );
    }
}

#[test]
fn swiglu_at_all_magnitudes() {
    tch::manual_seed(2);
    let composed = |t: &[Tensor]| {
        let halves = t[0].chunk(2, -1);
        vec![(halves[0].silu() * &halves[1]).matmul(&t[1].tr())]
    };
    for (rows, inner, scale) in
        [(1, 1, 1.0), (3, 7, 1.0), (64, 100, 10.0), (33, 2816, 1.0), (5, 300, 200.0)]
    {
        let gate_up = random(&[rows, 2 * inner], scale);
        let weight = random(&[5, inner], 1.0);
        let ours = |t: &[Tensor]| vec![fused::swiglu_linear(&t[0], &t[1])];
        check("swiglu_linear", &ours, &composed, &[gate_up, weight], 1e-6);
    }
    // Each value by itself: e^x from where it vanishes to where it overflows.
    let gate = Tensor::linspace(-87.0, 87.0, 1_000_001, FLOAT).unsqueeze(1);
    let gate_up = Tensor::cat(&[&gate, &gate.ones_like()], 1);
    let ours = fused::swiglu_linear(&gate_up, &Tensor::ones([1, 1], FLOAT)).to_kind(Kind::Double);
    let expected = gate.to_kind(Kind::Double).silu();
    let relative = ((&ours - &expected) / &expected).abs().nan_to_num(0.0, None, None);
    let ulp = relative.max().double_value(&[]) / f64::from(f32::EPSILON);
    println!("silu: largest error of a single value {ulp:.2} x 2^-23");
    assert!(ulp < 2.5);
}

#[test]
fn rope_turns_forth_and_back() {
    tch::manual_seed(3);
    for (tokens, heads, kv, dim) in
        [(1, 1, 1, 2), (1, 14, 2, 64), (5, 4, 4, 6), (77, 8, 2, 64), (9, 40, 8, 128)]
    {
        let table = |t: Tensor| t.view([tokens, 1, dim]);
        // Halves that differ, so that no use of the wrong half goes unseen.
        let angles = random(&[tokens, dim], 3.0);
        let (cos, sin) = (table(angles.cos()), table(angles.sin()));
        let tables = |kind: Kind| (cos.to_kind(kind).contiguous(), sin.to_kind(kind).contiguous());
        let composed = |t: &[Tensor]| {
            let (cos, sin) = tables(t[0].kind());
            let parts = t[0].view([tokens, -1, dim]).split_with_sizes([heads, kv, kv], 1);
            let turned = |x: &Tensor| {
                let halves = x.chunk(2, -1);
                x * &cos + Tensor::cat(&[&-&halves[1], &halves[0]], -1) * &sin
            };
            vec![turned(&parts[0]), turned(&parts[1]), parts[2].shallow_clone()]
        };
        let ours = |t: &[Tensor]| {
            let (q, k, v) = fused::rope(&t[0], &tables(t[0].kind()), heads, kv);
            vec![q, k, v]
        };
        let qkv = random(&[tokens, (heads + 2 * kv) * dim], 1.0);
        check("rope", &ours, &composed, &[qkv], 3e-7);
    }
}

#[test]
fn cross_entropy_and_its_gradient() {
    tch::manual_seed(4);
    for (rows, vocab, scale) in [
        (1, 1, 1.0),
        (1, 7, 1.0),
        (3, 61, 1.0),
        (50, 8192, 3.0),
        (3, 151_936, 1.0),
        (5, 1000, 100.0),
        (4, 333, 1e4),
    ] {
        let logits = random(&[rows, vocab], scale);
        let targets = Tensor::randint(vocab, [rows], (Kind::Int64, Device::Cpu));
        let weights = Tensor::rand([rows], FLOAT) / rows as f64;
        let composed = |t: &[Tensor]| {
            let log_p = t[0].log_softmax(-1, None::<Kind>).gather(1, &targets.unsqueeze(1), false);
            vec![-(log_p.squeeze_dim(1) * &weights).sum(None::<Kind>)]
        };
        let one = Tensor::ones([] as [i64; 0], FLOAT);
        let expected = run(&composed, &[logits.copy()], &[one.shallow_clone()], Kind::Double);
        let libtorch = run(&composed, &[logits.copy()], &[one], Kind::Float);
        let mut gradient = logits.copy();
        let loss = fused::cross_entropy_(&mut gradient, &targets, &weights);
        let found = [loss.to_kind(Kind::Double), gradient.to_kind(Kind::Double)];
        // Strided logits take the composed way.
        let mut strided = logits.tr().contiguous().tr();
        let loss = fused::cross_entropy_(&mut strided, &targets, &weights);
        let fallback = [loss.to_kind(Kind::Double), strided.to_kind(Kind::Double)];
        let (ours, composed, theirs) =
            (worst(&found, &expected), worst(&fallback, &expected), worst(&libtorch, &expected));
        println!(
            "cross_entropy [{rows}, {vocab}] x {scale}: {ours:.1e}, composed {composed:.1e}, \
             log_softmax in fp32 {theirs:.1e}"
        );
        assert!(ours < 1e-6, "{ours:e}");
        // libtorch's own logsumexp in fp32; how far it is off depends on its vectors' width.
        assert!(composed < 1e-4, "composed: {composed:e}");
    }
}

#[test]
fn what_is_not_a_number_stays_so() {
    let of = |bad: f32| {
        let mut logits = Tensor::zeros([2, 100], FLOAT);
        let _ = logits.get(1).get(37).fill_(f64::from(bad));
        let loss = fused::cross_entropy_(
            &mut logits,
            &Tensor::from_slice(&[1_i64, 2]),
            &Tensor::from_slice(&[1_f32, 1.0]),
        );
        (loss.double_value(&[]), logits.get(1).sum(Kind::Float).double_value(&[]))
    };
    assert!(of(f32::NAN).0.is_nan() && of(f32::NAN).1.is_nan());
    assert!(of(f32::INFINITY).0.is_nan() && of(f32::INFINITY).1.is_nan());
    let (masked, gradient) = of(f32::NEG_INFINITY);
    assert!((masked - (100_f64.ln() + 99_f64.ln())).abs() < 1e-5 && gradient.abs() < 1e-6);

    let x = Tensor::from_slice(&[f32::NAN, 1.0]).view([1, 2]);
    assert!(
        fused::rms_norm(&x, &Tensor::ones([2], FLOAT), 1e-6).isnan().all().int64_value(&[]) == 1
    );
    assert!(fused::swiglu_linear(&x, &Tensor::ones([1, 1], FLOAT)).double_value(&[0, 0]).is_nan());
}

#[test]
fn threads_change_no_bit() {
    // Drawn once: libtorch's generator is one for all tests of this process.
    let tables = (random(&[700, 1, 64], 1.0), random(&[700, 1, 64], 1.0));
    let inputs = [
        random(&[700, 512], 1.0),
        random(&[700, 512], 1.0),
        random(&[512], 1.0),
        random(&[256, 256], 1.0),
    ];
    let shapes: [&[i64]; 5] =
        [&[700, 512], &[700, 256], &[700, 4, 64], &[700, 2, 64], &[700, 2, 64]];
    let cotangents = shapes.map(|size| random(size, 1.0));
    let scores = random(&[40, 5000], 2.0);
    let everything = |threads| {
        tch::set_num_threads(threads);
        let operations = |t: &[Tensor]| {
            let (sum, y) = fused::add_rms_norm(&t[0], &t[1], &t[2], 1e-6);
            let (q, k, v) = fused::rope(&sum, &tables, 4, 2);
            vec![y.shallow_clone(), fused::swiglu_linear(&y, &t[3]), q, k, v]
        };
        let mut all = run(&operations, &inputs, &cotangents, Kind::Float);
        let mut logits = scores.copy();
        let targets = Tensor::arange(40, (Kind::Int64, Device::Cpu));
        all.push(fused::cross_entropy_(&mut logits, &targets, &Tensor::ones([40], FLOAT)));
        all.push(logits);
        all
    };
    assert_eq!(everything(1), everything(2));
    tch::set_num_threads(1);
}

/// A row's bits do not depend on the rows that it stands among.
#[test]
fn rows_are_alike_alone_and_in_company() {
    for (hidden, inner) in [(24, 36), (32, 48), (512, 1408), (7, 5)] {
        let x = random(&[29, hidden], 1.0);
        let weight = random(&[hidden], 1.0);
        let gate_up = random(&[29, 2 * inner], 3.0);
        let (cos, sin) = (random(&[29, 1, 8], 1.0), random(&[29, 1, 8], 1.0));
        let qkv = random(&[29, 8 * 8], 1.0);
        let all = |rows: std::ops::Range<i64>| {
            let cut = |t: &Tensor| t.narrow(0, rows.start, rows.end - rows.start);
            let (sum, normed) = fused::add_rms_norm(&cut(&x), &cut(&x), &weight, 1e-6);
            let (q, k, v) = fused::rope(&cut(&qkv), &(cut(&cos), cut(&sin)), 4, 2);
            let norm = fused::rms_norm(&cut(&x), &weight, 1e-6);
            [sum, normed, norm, fused::swiglu(&cut(&gate_up)), q, k, v]
        };
        let together = all(0..29);
        for row in [0, 13, 28] {
            for (n, (alone, among)) in all(row..row + 1).iter().zip(&together).enumerate() {
                assert_eq!(*alone, among.narrow(0, row, 1), "result {n}, row {row} of {hidden}");
            }
        }
    }
}
