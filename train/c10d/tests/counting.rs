//! What the count of the CPU's tensors says of tensors of known sizes: exact figures, so that one
//! test at a time has the process to itself.

use std::sync::{Mutex, MutexGuard};

use c10d::aten::{release_storage, restore_storage};
use c10d::memory::{allocated, available, count_cpu, peak, reset_peak};
use tch::{Device, Kind, Tensor};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Alone, counting, and with the figures at this moment taken off.
fn alone() -> (MutexGuard<'static, ()>, impl Fn() -> (usize, usize)) {
    let guard = ONE_AT_A_TIME.lock().unwrap();
    count_cpu();
    reset_peak(Device::Cpu);
    let start = allocated(Device::Cpu);
    (guard, move || (allocated(Device::Cpu) - start, peak(Device::Cpu) - start))
}

fn zeros(size: &[i64], kind: Kind) -> Tensor {
    Tensor::zeros(size, (kind, Device::Cpu))
}

#[test]
fn tensors_count_with_the_bytes_of_their_storage() {
    let (_alone, now) = alone();
    let rows: [(&[i64], Kind, usize); 6] = [
        (&[1000], Kind::Float, 4000),
        (&[3, 5], Kind::BFloat16, 30),
        (&[7], Kind::Int64, 56),
        (&[1], Kind::Bool, 1),
        (&[0, 9], Kind::Float, 0),
        (&[1 << 20], Kind::Double, 8 << 20),
    ];
    for (size, kind, bytes) in rows {
        let before = now().0;
        let tensor = zeros(size, kind);
        assert_eq!(now().0 - before, bytes, "{size:?} {kind:?}");
        let view = tensor.view([-1]).detach();
        assert_eq!(now().0 - before, bytes, "a view of {size:?} {kind:?}");
        drop(tensor);
        assert_eq!(now().0 - before, bytes, "the view alone of {size:?} {kind:?}");
        drop(view);
        assert_eq!(now().0 - before, 0, "nothing of {size:?} {kind:?}");
    }
}

#[test]
fn the_peak_stays_until_it_is_reset() {
    let (_alone, now) = alone();
    let small = zeros(&[100], Kind::Float);
    drop(zeros(&[1000], Kind::Float));
    assert_eq!(now(), (400, 4400));
    drop(zeros(&[500], Kind::Float));
    assert_eq!(now(), (400, 4400));
    reset_peak(Device::Cpu);
    assert_eq!(now(), (400, 400));
    drop(small);
    assert_eq!(now(), (0, 400));
}

#[test]
fn released_storage_is_free_until_restored() {
    let (_alone, now) = alone();
    let flat = zeros(&[1000], Kind::Float);
    let graph = tch::with_grad(|| flat.detach().set_requires_grad(true).view([10, 100]).tanh());
    assert_eq!(now().0, 8000);
    for _ in 0..2 {
        release_storage(&flat).unwrap();
        release_storage(&flat).unwrap();
        assert_eq!(now().0, 4000, "the graph's own result stays");
        restore_storage(&flat).unwrap();
        restore_storage(&flat).unwrap();
        assert_eq!(now(), (8000, 8000));
    }
    drop((flat, graph));
    assert_eq!(now(), (0, 8000));
}

#[test]
fn what_threads_take_and_give_back_adds_up() {
    let (_alone, now) = alone();
    let kept: Vec<Tensor> = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=8)
            .map(|n| {
                scope.spawn(move || {
                    for size in 1..500 {
                        drop(zeros(&[size], Kind::Float));
                    }
                    zeros(&[n], Kind::Float)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(now().0, 4 * (1..=8).sum::<usize>());
    drop(kept);
    assert_eq!(now().0, 0);
}

#[test]
fn a_device_that_is_not_there_has_nothing() {
    let (_alone, _) = alone();
    // The tests load no CUDA.
    let device = Device::Cuda(0);
    reset_peak(device);
    assert_eq!((allocated(device), peak(device), available(device)), (0, 0, 0));
    assert!(available(Device::Cpu) > 1 << 20);
}
