//! Memory that is released under a live autograd graph and comes back for its backward.

use std::time::Duration;

use c10d::aten::{
    attend_segments_flash, is_released, refill, release_storage, restore_storage, vjp,
};
use c10d::{Backend, Group, Rank, Work};
use tch::{Device, Kind, Tensor};

const IN: i64 = 16;
const OUT: i64 = 24;

/// A small layer over views of one flat buffer, with its gradients' bytes.
fn forward(flat: &Tensor, x: &Tensor) -> Tensor {
    let parts = flat.split_with_sizes([IN * OUT, OUT, OUT * IN], 0);
    let (up, scale, down) = (parts[0].view([OUT, IN]), &parts[1], parts[2].view([IN, OUT]));
    (x.matmul(&up.tr()).silu() * scale).matmul(&down.tr())
}

/// Numbers in [-1, 1] that look like noise.
fn noise(size: &[i64], kind: Kind) -> Tensor {
    let n = size.iter().product::<i64>();
    (Tensor::arange(n, (Kind::Float, Device::Cpu)) * 1.37).sin().view(size).to_kind(kind)
}

/// Backward of a graph whose buffer is released after forward and refilled by `fill`, and that of
/// an untouched one: the same gradients to the bit.
#[track_caller]
fn check(kind: Kind, fill: impl Fn(&Tensor, &Tensor)) {
    let (weights, input) = (noise(&[IN * OUT + OUT + OUT * IN], kind), noise(&[5, IN], kind));
    let dy = noise(&[5, IN], kind) * 0.5;
    let gradients = |release: bool| {
        let _outside = tch::no_grad_guard();
        let buffer = weights.copy();
        let flat = buffer.detach().set_requires_grad(true);
        let x = input.copy().set_requires_grad(true);
        let y = tch::with_grad(|| forward(&flat, &x));
        if release {
            release_storage(&buffer).unwrap();
            assert!(is_released(&flat) && is_released(&buffer) && !is_released(&x));
            restore_storage(&buffer).unwrap();
            assert!(!is_released(&flat));
            assert!(flat.data().fill_(f64::NAN).isnan().all().int64_value(&[]) == 1);
            let version = flat.internal_version();
            fill(&buffer, &weights);
            assert_eq!(flat.internal_version(), version, "the fill must not count as a change");
        }
        vjp(&[&y], &[&dy], &[&flat, &x]).unwrap()
    };
    assert_eq!(gradients(true), gradients(false), "{kind:?}");
}

#[test]
fn a_graph_survives_the_release_of_what_it_refers_to() {
    for kind in [Kind::Float, Kind::BFloat16] {
        check(kind, |buffer, weights| refill(buffer, weights).unwrap());
        // Master weights of another kind.
        check(kind, |buffer, weights| refill(buffer, &weights.to_kind(Kind::Double)).unwrap());
        check(kind, |buffer, weights| {
            Group::solo().all_gather_into(buffer, weights).and_then(Work::wait).unwrap();
        });
    }
}

#[test]
fn a_gather_refills_what_was_released() {
    let port = Rank::free_port().unwrap();
    std::thread::scope(|scope| {
        for rank in 0..2 {
            scope.spawn(move || {
                let (place, timeout) = (Rank::local(rank, 2, port), Duration::from_secs(30));
                let group = Group::connect(&place, Backend::Gloo, timeout).unwrap();
                for kind in [Kind::Float, Kind::BFloat16] {
                    check(kind, |buffer, weights| {
                        let half = &weights.chunk(2, 0)[rank];
                        group.all_gather_into(buffer, half).and_then(Work::wait).unwrap();
                    });
                }
            });
        }
    });
}

#[test]
fn misuse_is_an_error() {
    let buffer = noise(&[4], Kind::Float);
    let x = buffer.detach().set_requires_grad(true);
    let y = tch::with_grad(|| &x * &x);
    release_storage(&buffer).unwrap();
    let released =
        |text: String| assert!(text.contains("restore_storage must come first"), "{text}");
    released(format!("{:#}", refill(&x, &noise(&[4], Kind::Float)).unwrap_err()));
    let gathered = Group::solo().all_gather_into(&buffer, &noise(&[4], Kind::Float));
    released(format!("{:#}", gathered.map(drop).unwrap_err()));
    restore_storage(&buffer).unwrap();
    let text = format!("{:#}", refill(&x, &noise(&[5], Kind::Float)).unwrap_err());
    assert!(text.contains("the shapes must be the same"), "{text}");
    // The plain copy that refill is there to avoid.
    tch::no_grad(|| x.detach().copy_(&noise(&[4], Kind::Float)));
    let text = format!("{:#}", vjp(&[&y], &[&noise(&[4], Kind::Float)], &[&x]).unwrap_err());
    assert!(text.contains("modified by an inplace operation"), "{text}");

    let lent = [0f32; 4];
    // SAFETY: the tensor does not outlive the array.
    let lent =
        unsafe { Tensor::from_blob(lent.as_ptr().cast(), &[4], &[], Kind::Float, Device::Cpu) };
    assert!(release_storage(&lent).is_err());
}

#[test]
fn flash_attention_says_what_it_needs() {
    let (q, ends) = (noise(&[4, 2, 8], Kind::BFloat16), Tensor::from_slice(&[0i32, 4]));
    let text = format!("{:#}", attend_segments_flash(&q, &q, &q, &ends, 4).unwrap_err());
    assert!(text.contains("in bf16 on a CUDA device, not [4, 2, 8] BFloat16 on Cpu"), "{text}");
}
