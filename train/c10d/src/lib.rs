//! torch.distributed's own process groups (Gloo, and NCCL where libtorch has CUDA) in safe Rust,
//! the few ATen calls that tch lacks, and a transformer's small operations fused.
//!
//! Deliberately not here: any idea of a model, a layer or an optimizer, and any collective of our
//! own. This is the crate where `unsafe` lives.
//!
//! Reading order: [`rank`] (who am I), [`group`] (collectives and their handles), [`store`] (notes
//! between ranks), [`children`] (ranks that this process starts), [`aten`] (vector-Jacobian products, storage release, CUDA loading), [`fused`]
//! (norms, SwiGLU, rotations and cross-entropy in one pass each), [`memory`] (what tensors take),
//! [`kernels`] (our own, for decoding on CPUs), `native` (the C++ objects behind a group), `ffi`
//! (the C border).

pub mod rank;

pub mod group;

pub mod store;

pub mod children;

pub mod aten;

pub mod fused;

pub mod kernels;

pub mod memory;

mod native;

mod ffi;

pub use children::Children;
pub use group::{Backend, Group, Reduce, Work};
pub use rank::Rank;
pub use store::Store;
