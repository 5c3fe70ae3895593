//! Times the kernels beside libtorch's on the shapes of Qwen2.5-0.5B:
//! `skinny [threads [rounds [layer]]]`; the layers are qkv, o, gate+up, down, head, attention, and
//! model: all the linear layers of the model in order, as a step of decoding reads them.
//!
//! The ways alternate in every round; figures are medians over the rounds of CPU time, which
//! others on the machine disturb less than the clock.

use std::time::Instant;

use c10d::kernels::{Cached, Isa, PackedLinear, Sequence, attend};
use tch::{Device, Kind, Tensor};

const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

/// What, inputs, outputs.
const LAYERS: [(&str, i64, i64); 5] = [
    ("qkv", 896, 1152),
    ("o", 896, 896),
    ("gate+up", 896, 9728),
    ("down", 4864, 896),
    ("head", 896, 151_936),
];
const BATCHES: [i64; 10] = [1, 2, 4, 6, 8, 12, 16, 32, 64, 256];

/// CPU seconds of this process, all its threads together.
fn cpu_seconds() -> f64 {
    #[repr(C)]
    struct Timespec {
        seconds: i64,
        nanoseconds: i64,
    }
    unsafe extern "C" {
        fn clock_gettime(clock: i32, out: *mut Timespec) -> i32;
    }
    const PROCESS_CPU_TIME: i32 = 2;
    let mut time = Timespec { seconds: 0, nanoseconds: 0 };
    // SAFETY: it writes one timespec.
    unsafe { clock_gettime(PROCESS_CPU_TIME, &raw mut time) };
    time.seconds as f64 + time.nanoseconds as f64 * 1e-9
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// CPU seconds and seconds by the clock of each way, so many times in a row in every round.
fn time(ways: &[&dyn Fn() -> Tensor], rounds: usize, repeats: usize) -> Vec<(f64, f64)> {
    let mut times = vec![Vec::new(); ways.len()];
    for _ in 0..rounds {
        for (way, times) in ways.iter().zip(&mut times) {
            let (cpu, clock) = (cpu_seconds(), Instant::now());
            for _ in 0..repeats {
                drop(way());
            }
            let each = repeats as f64;
            times.push(((cpu_seconds() - cpu) / each, clock.elapsed().as_secs_f64() / each));
        }
    }
    let medians = |times: &Vec<(f64, f64)>| {
        (median(times.iter().map(|time| time.0)), median(times.iter().map(|time| time.1)))
    };
    times.iter().map(medians).collect()
}

fn print(name: &str, n: i64, cells: impl Iterator<Item = String>) {
    println!("{name:9} {n:5} {}", cells.map(|cell| format!("{cell:>16}")).collect::<String>());
}

fn linear(name: &str, k: i64, m: i64, rounds: usize) {
    let weight = Tensor::randn([m, k], CPU).to_kind(Kind::BFloat16);
    let wide = weight.to_kind(Kind::Float);
    let pack = || PackedLinear::pack(&weight, None).expect("bf16");
    let ours = pack();
    let avx2 = if Isa::Avx2.is_here() { pack().with_isa(Isa::Avx2) } else { pack() };
    for n in BATCHES {
        let x = Tensor::randn([n, k], CPU);
        let narrow = x.to_kind(Kind::BFloat16);
        let ways: [&dyn Fn() -> Tensor; 4] =
            [&|| ours.apply(&x), &|| avx2.apply(&x), &|| x.linear(&wide, None::<&Tensor>), &|| {
                narrow.linear(&weight, None::<&Tensor>)
            }];
        let flops = 2.0 * (n * k * m) as f64;
        let repeats = (2e8 / flops).clamp(1.0, 100.0) as usize;
        let cells = time(&ways, rounds, repeats).into_iter().zip([2.0, 2.0, 4.0, 2.0]).map(
            |((cpu, clock), width)| {
                let bytes = (k * m) as f64 * width;
                format!("{:.1} ({:.1})", flops * 1e-9 / cpu, bytes * 1e-9 / clock)
            },
        );
        print(name, n, cells);
    }
}

/// Tokens per CPU second through every linear layer; 3 GB of weights.
fn model(rounds: usize) {
    println!("tokens per CPU second (and by the clock) through all 97 linear layers");
    let shapes = (0..24).flat_map(|_| LAYERS[..4].iter()).chain(&LAYERS[4..]);
    let weights: Vec<_> = shapes
        .map(|(_, k, m)| {
            let weight = Tensor::randn([*m, *k], CPU).to_kind(Kind::BFloat16);
            let packed = PackedLinear::pack(&weight, None).expect("bf16");
            (packed, weight.to_kind(Kind::Float))
        })
        .collect();
    for n in BATCHES {
        let inputs = [896, 4864].map(|k| Tensor::randn([n, k], CPU));
        let input = |k| &inputs[usize::from(k != 896)];
        let plain = |w: &Tensor| input(w.size()[1]).linear(w, None::<&Tensor>);
        let last = |_, y| y;
        let ways: [&dyn Fn() -> Tensor; 2] = [
            &|| weights.iter().map(|(w, of)| w.apply(input(of.size()[1]))).reduce(last).unwrap(),
            &|| weights.iter().map(|(_, w)| plain(w)).reduce(last).unwrap(),
        ];
        let cells = time(&ways, rounds, 1).into_iter();
        let cells =
            cells.map(|(cpu, clock)| format!("{:.1} ({:.1})", n as f64 / cpu, n as f64 / clock));
        print("model", n, cells);
    }
}

/// 14 query heads on 2 key and value heads of 64: microseconds of CPU for one layer.
fn attention(rounds: usize) {
    println!("CPU microseconds for a layer's attention: ours, libtorch (one sequence at a time)");
    for (queries, len) in [(1, 256), (1, 1024), (1, 4096), (128, 1024), (512, 4096)] {
        let [keys, values] = [(); 2].map(|()| Tensor::randn([2, len, 64], CPU));
        let q = Tensor::randn([queries, 14, 64], CPU);
        let pieces = [Cached { keys: &keys, values: &values, len: len as usize }];
        let sequences = [Sequence { queries: queries as usize, pieces: &pieces }];
        let wide = |t: &Tensor| t.repeat_interleave_self_int(7, 0, None).unsqueeze(0);
        let past = len - queries;
        let hidden = Tensor::ones([queries, len], (Kind::Bool, Device::Cpu)).triu(past + 1);
        let mask = Tensor::zeros([queries, len], CPU).masked_fill(&hidden, f64::NEG_INFINITY);
        let (keys, values) = (wide(&keys), wide(&values));
        let ways: [&dyn Fn() -> Tensor; 2] = [&|| attend(&q, &sequences, 0.125), &|| {
            let q = q.transpose(0, 1).unsqueeze(0);
            let mask = Some(&mask);
            Tensor::scaled_dot_product_attention(&q, &keys, &values, mask, 0.0, false, 0.125, false)
        }];
        let cells = time(&ways, rounds, 3).into_iter().map(|(cpu, _)| format!("{:.0}", cpu * 1e6));
        print(&format!("{queries}"), len, cells);
    }
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let number = |at: usize, default| {
        arguments.get(at).map_or(default, |text| text.parse().expect("a number"))
    };
    let (threads, rounds) = (number(0, 1), number(1, 5));
    let only = arguments.get(2);
    tch::set_num_threads(threads as i32);
    let _guard = tch::no_grad_guard();
    println!("GFLOP per CPU second (and GB/s of weights by the clock), {threads} threads");
    let ways = ["ours", "ours by AVX2", "libtorch fp32", "libtorch bf16"];
    print("layer", 0, ways.into_iter().map(String::from));
    for (name, k, m) in LAYERS {
        if only.is_none_or(|only| only == name) {
            linear(name, k, m, rounds);
        }
    }
    if only.is_none_or(|only| only == "attention") {
        attention(rounds);
    }
    if only.is_some_and(|only| only == "model") {
        model(rounds);
    }
}
