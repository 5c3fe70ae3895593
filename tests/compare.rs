//! Golden tensors, and how ours are held against them: every largest difference is printed.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use tch::{Kind, Tensor};

/// Tensors of a file by name.
pub type Tensors = BTreeMap<String, Tensor>;

/// A file or folder of `tests/golden`, which `tests/golden/make_golden.py` writes.
pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

/// The path in an environment variable, or `default`; a relative one starts at the checkout's root,
/// wherever the test runs.
pub fn path_from_env(name: &str, default: &str) -> PathBuf {
    let path = env::var_os(name).unwrap_or_else(|| default.into());
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// All tensors of a safetensors file.
pub fn read_tensors(path: &Path) -> Tensors {
    let bytes = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let tensor = |(name, view): (&str, safetensors::tensor::TensorView)| {
        let kind = match view.dtype() {
            Dtype::F32 => Kind::Float,
            Dtype::F64 => Kind::Double,
            Dtype::F16 => Kind::Half,
            Dtype::BF16 => Kind::BFloat16,
            Dtype::I64 => Kind::Int64,
            other => panic!("{}: {name} is {other:?}", path.display()),
        };
        let shape: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
        (name.to_string(), Tensor::from_data_size(view.data(), &shape, kind))
    };
    file.iter().map(tensor).collect()
}

/// The values of an int64 tensor.
pub fn integers(tensor: &Tensor) -> Vec<i64> {
    Vec::try_from(tensor).expect("a one-dimensional int64 tensor")
}

/// Differences between ours and theirs, one line a tensor.
pub struct Comparison {
    lines: Vec<String>,
    over: usize,
}

impl Comparison {
    pub fn new(title: &str) -> Self {
        Self { lines: vec![format!("{title}: largest difference, relative, bound")], over: 0 }
    }

    /// Holds `ours` against `theirs`: the largest difference may be `bound` times the largest
    /// value of `theirs`.
    pub fn add(&mut self, name: &str, ours: &Tensor, theirs: &Tensor, bound: f64) {
        let line = if ours.size() == theirs.size() {
            let theirs = theirs.to_kind(Kind::Double);
            let difference = largest(&(ours.to_kind(Kind::Double) - &theirs));
            let relative = difference / largest(&theirs);
            let within = relative <= bound; // false for NaN
            self.over += usize::from(!within);
            let verdict = if within { "" } else { "  <- over the bound" };
            format!("{difference:9.2e} {relative:9.2e} {bound:9.0e}  {name}{verdict}")
        } else {
            self.over += 1;
            format!("{name}: shape {:?}, expected {:?}", ours.size(), theirs.size())
        };
        self.lines.push(line);
    }

    /// How many lines are over their bound.
    pub fn over(&self) -> usize {
        self.over
    }

    /// Prints the table, and fails the test if any line was over its bound.
    #[track_caller]
    pub fn finish(self) {
        let table = self.lines.join("\n  ");
        println!("{table}");
        assert_eq!(self.over, 0, "{table}");
    }
}

/// The largest absolute value.
pub fn largest(tensor: &Tensor) -> f64 {
    tensor.abs().max().double_value(&[])
}
