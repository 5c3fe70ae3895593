//! Compiles the C++ shim against the libtorch that torch-sys found, with NCCL where it has CUDA.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    println!("cargo:rerun-if-changed=src/shim");
    let lib = env::var("DEP_TCH_LIBTORCH_LIB").map(PathBuf::from).expect(
        "torch-sys names no libtorch: run `just setup`, or set LIBTORCH to a libtorch 2.11.0",
    );
    // `just setup cuda` links the CUDA headers that torch's wheels leave out beside `lib`.
    let prepared = lib.parent().map(|folder| folder.join("headers")).unwrap_or_default();
    let lib = fs::canonicalize(&lib).unwrap_or(lib);
    let torch = lib.parent().expect("libtorch's lib folder has a parent").to_path_buf();
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++17")
        .pic(true)
        .warnings(false)
        .opt_level(1)
        .files(["groups", "aten", "fused", "memory"].map(|topic| format!("src/shim/{topic}.cpp")))
        .include("src/shim")
        .include(torch.join("include"))
        .include(torch.join("include/torch/csrc/api/include"))
        .define("USE_C10D_GLOO", None);
    if lib.join("libtorch_cuda.so").exists() {
        match nccl_includes(&torch, &prepared) {
            Some(folders) => {
                build.includes(folders).define("USE_C10D_NCCL", None).define("USE_CUDA", None);
                println!("cargo:rustc-link-lib=torch_cuda");
                println!("cargo:rustc-link-lib=c10_cuda");
            }
            None => println!(
                "cargo:warning=libtorch has CUDA, but NCCL's or CUDA's headers were not found: \
                 building without NCCL. `just setup cuda` prepares a libtorch that has them"
            ),
        }
    }
    // libtorch runs its parallel loops, and so ours, on the threads of OpenMP.
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        build.flag("-fopenmp");
        println!("cargo:rustc-link-lib=gomp");
    }
    let x86 = env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("x86_64");
    if x86 {
        build.define("S1_KERNELS_X86", None);
        kernels("avx512", &["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"]);
        kernels("avx2", &["-mavx2", "-mfma"]);
    }
    kernels("plain", &[]);
    build.compile("s1_c10d");
    println!("cargo:rustc-link-search=native={}", lib.display());
}

/// Compiles the CPU kernels for one kind of processor, which is chosen when the program runs.
fn kernels(processor: &str, flags: &[&str]) {
    let name = format!("kernels_{processor}");
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").pic(true).opt_level(3).file("src/shim/kernels.cpp");
    build.define("S1_KERNELS", name.as_str());
    for flag in ["-fopenmp-simd", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"] {
        build.flag_if_supported(flag);
    }
    for flag in flags {
        build.flag(flag);
    }
    if processor == "avx512" {
        build.flag_if_supported("-mprefer-vector-width=512");
    }
    build.compile(&format!("s1_{name}"));
}

/// Where pip's wheels put the CUDA and NCCL headers beside torch, or the CUDA toolkit's own.
fn nccl_includes(torch: &Path, prepared: &Path) -> Option<Vec<PathBuf>> {
    let wheels = torch.parent()?.join("nvidia");
    let toolkit = env::var_os("CUDA_HOME").map_or("/usr/local/cuda".into(), PathBuf::from);
    let candidates = [
        wheels.join("cu13/include"),
        wheels.join("cu13/include/cccl"),
        wheels.join("nccl/include"),
        prepared.to_path_buf(),
        prepared.join("cccl"),
        toolkit.join("include"),
        toolkit.join("include/cccl"),
        PathBuf::from("/usr/include"),
    ];
    let has = |name: &str| candidates.iter().any(|folder| folder.join(name).exists());
    if !["nccl.h", "cuda_runtime_api.h", "crt/host_defines.h"].into_iter().all(has) {
        return None;
    }
    Some(candidates.into_iter().filter(|folder| folder.exists()).collect())
}
