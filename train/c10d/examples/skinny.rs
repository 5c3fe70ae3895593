//! Times packed linear layers beside libtorch's on a model's shapes: `skinny [threads [rounds]]`.

use std::time::Instant;

use c10d::kernels::{Isa, PackedLinear};
use tch::{Device, Kind, Tensor};

/// Qwen2.5-0.5B: what, inputs, outputs.
const SHAPES: [(&str, i64, i64); 5] = [
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
    let mut time = Timespec { seconds: 0, nanoseconds: 0 };
    // SAFETY: it writes one timespec; 2 is CLOCK_PROCESS_CPUTIME_ID.
    unsafe { clock_gettime(2, &raw mut time) };
    time.seconds as f64 + time.nanoseconds as f64 * 1e-9
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse().expect("a number"));
    let threads = arguments.next().unwrap_or(1);
    let rounds = arguments.next().unwrap_or(5);
    let only = arguments.next();
    tch::set_num_threads(threads);
    let _guard = tch::no_grad_guard();
    println!(
        "GFLOP per CPU second (and GB/s of weights by the clock), {threads} threads, {:?}",
        Isa::best()
    );
    println!(
        "{:8} {:>4} {:>16} {:>16} {:>16} {:>16}",
        "layer", "n", "ours", "ours avx2", "libtorch fp32", "libtorch bf16"
    );
    for (name, k, m) in SHAPES {
        let weight = Tensor::randn([m, k], (Kind::Float, Device::Cpu)).to_kind(Kind::BFloat16);
        let wide = weight.to_kind(Kind::Float);
        let packed = PackedLinear::pack(&weight, None).unwrap();
        let avx2 = PackedLinear::pack(&weight, None).unwrap().with_isa(Isa::Avx2);
        for n in BATCHES {
            if only.is_some_and(|only| only != n as i32) {
                continue;
            }
            let x = Tensor::randn([n, k], (Kind::Float, Device::Cpu));
            let narrow = x.to_kind(Kind::BFloat16);
            let flops = 2.0 * (n * k * m) as f64;
            let repeats = (2e8 / flops).clamp(1.0, 200.0) as usize;
            let run: [&dyn Fn() -> Tensor; 4] = [
                &|| packed.apply(&x),
                &|| avx2.apply(&x),
                &|| x.linear(&wide, None::<&Tensor>),
                &|| narrow.linear(&weight, None::<&Tensor>),
            ];
            let mut times = vec![Vec::new(); 4];
            for _ in 0..rounds {
                for (way, times) in run.iter().zip(&mut times) {
                    let (cpu, clock) = (cpu_seconds(), Instant::now());
                    for _ in 0..repeats {
                        drop(way());
                    }
                    let each = repeats as f64;
                    times
                        .push(((cpu_seconds() - cpu) / each, clock.elapsed().as_secs_f64() / each));
                }
            }
            let bytes = (k * m) as f64 * 1e-9;
            let cells = times.iter().zip([2.0, 2.0, 4.0, 2.0]).map(|(times, width)| {
                let cpu = median(times.iter().map(|t| t.0).collect());
                let clock = median(times.iter().map(|t| t.1).collect());
                format!("{:7.1} ({:5.1})", flops * 1e-9 / cpu, bytes * width / clock)
            });
            println!(
                "{name:8} {n:4} {}",
                cells.map(|cell| format!("{cell:>16}")).collect::<Vec<_>>().join(" ")
            );
        }
    }
}
