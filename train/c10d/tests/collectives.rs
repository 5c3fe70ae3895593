//! Every collective over Gloo with 1, 2 and 4 ranks, as threads and as real processes, against
//! sums worked out on one rank; and what a lost or silent peer looks like.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Result;
use c10d::{Backend, Group, Rank, Reduce};
use tch::{Kind, Tensor};

const TIMEOUT: Duration = Duration::from_secs(30);

/// What rank `rank` brings: small integers, exact in bf16 and in any order of summation.
fn contribution(rank: usize, numel: i64) -> Tensor {
    Tensor::arange(numel, (Kind::Float, tch::Device::Cpu)).remainder(5.0) + rank as f64
}

/// Runs every collective and compares with the result worked out locally.
fn exercise(group: &Group) -> Result<()> {
    let (rank, world) = (group.rank(), group.world_size());
    let n = 6;
    for kind in [Kind::Float, Kind::BFloat16] {
        let all: Vec<Tensor> = (0..world).map(|r| contribution(r, n * world as i64)).collect();
        let sum = all.iter().fold(Tensor::zeros_like(&all[0]), |a, b| a + b);

        let output = Tensor::zeros([n * world as i64], (kind, tch::Device::Cpu));
        group.all_gather_into(&output, &contribution(rank, n).to_kind(kind))?.wait()?;
        let expected = Tensor::cat(&(0..world).map(|r| contribution(r, n)).collect::<Vec<_>>(), 0);
        assert_eq!(output.to_kind(Kind::Float), expected, "all_gather_into {kind:?}");

        let output = Tensor::zeros([n * world as i64], (kind, tch::Device::Cpu));
        group.all_to_all(&output, &all[rank].to_kind(kind))?.wait()?;
        let mine: Vec<Tensor> = all.iter().map(|t| t.narrow(0, n * rank as i64, n)).collect();
        assert_eq!(output.to_kind(Kind::Float), Tensor::cat(&mine, 0), "all_to_all {kind:?}");

        let share = Tensor::zeros([n], (kind, tch::Device::Cpu));
        group.reduce_scatter(&share, &all[rank].to_kind(kind).copy())?.wait()?;
        let expected = sum.narrow(0, n * rank as i64, n);
        assert_eq!(share.to_kind(Kind::Float), expected, "reduce_scatter {kind:?}");

        let tensor = all[rank].to_kind(kind).copy();
        group.all_reduce(&tensor, Reduce::Sum)?.wait()?;
        assert_eq!(tensor.to_kind(Kind::Float), sum, "all_reduce sum {kind:?}");

        let tensor = all[rank].to_kind(kind).copy();
        group.all_reduce(&tensor, Reduce::Max)?.wait()?;
        assert_eq!(tensor.to_kind(Kind::Float), all[world - 1], "all_reduce max {kind:?}");

        let tensor = all[rank].to_kind(kind).copy();
        group.broadcast(&tensor, world - 1)?.wait()?;
        assert_eq!(tensor.to_kind(Kind::Float), all[world - 1], "broadcast {kind:?}");
    }
    // Two in flight at once, waited on in the other order.
    let (a, b) = (contribution(rank, 4), contribution(rank, 4));
    let (first, second) = (group.all_reduce(&a, Reduce::Sum)?, group.all_reduce(&b, Reduce::Max)?);
    second.wait()?;
    first.wait()?;
    assert_eq!(b, contribution(world - 1, 4));
    group.barrier()?.wait()
}

#[test]
fn a_communicator_of_one_rank() {
    let group = Group::communicator_of_one(Backend::Gloo, TIMEOUT).unwrap();
    exercise(&group).unwrap();
    // Only a group without a backend hands back what it was given.
    let x = contribution(0, 4);
    let exchanged = group.exchange(&x).unwrap();
    assert_eq!(exchanged, x);
    assert_ne!(exchanged.data_ptr(), x.data_ptr(), "nothing went through the backend");
}

#[test]
fn threads() {
    for world_size in [1, 2, 4] {
        let port = Rank::free_port().unwrap();
        std::thread::scope(|scope| {
            for rank in 0..world_size {
                scope.spawn(move || {
                    let rank = Rank::local(rank, world_size, port);
                    exercise(&Group::connect(&rank, Backend::Gloo, TIMEOUT).unwrap()).unwrap();
                });
            }
        });
    }
}

/// Libtorch notes every group's first collective in one map of the process; many groups that start
/// at once must not corrupt it.
#[test]
fn many_groups_may_start_at_once_in_one_process() {
    for _ in 0..12 {
        let ports: Vec<u16> = (0..3).map(|_| Rank::free_port().unwrap()).collect();
        std::thread::scope(|scope| {
            for (rank, port) in (0..2).flat_map(|rank| ports.iter().map(move |port| (rank, *port)))
            {
                scope.spawn(move || {
                    let place = Rank::local(rank, 2, port);
                    let group = Group::connect(&place, Backend::Gloo, TIMEOUT).unwrap();
                    let tensor = contribution(rank, 4);
                    group.all_reduce(&tensor, Reduce::Max).unwrap().wait().unwrap();
                    assert_eq!(tensor, contribution(1, 4));
                });
            }
        });
    }
}

/// Starts this test binary again, as the `child` test below, in `role`.
fn spawn(role: &str, rank: &Rank) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env("C10D_TEST_ROLE", role)
        .envs(rank.to_env())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Not a test of its own: the body of the processes that `processes` starts.
#[test]
fn child() {
    if std::env::var("C10D_TEST_ROLE").as_deref() == Ok("collectives") {
        let rank = Rank::from_env().unwrap();
        exercise(&Group::connect(&rank, Backend::Gloo, TIMEOUT).unwrap()).unwrap();
    }
}

#[test]
fn processes() {
    for world_size in [1, 2, 4] {
        let port = Rank::free_port().unwrap();
        let children: Vec<_> = (0..world_size)
            .map(|rank| spawn("collectives", &Rank::local(rank, world_size, port)))
            .collect();
        for (rank, child) in children.into_iter().enumerate() {
            let output = child.wait_with_output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "rank {rank} of {world_size}: {stderr}");
            // A filter that fits no test is a success too.
            let stdout = String::from_utf8_lossy(&output.stdout);
            assert!(stdout.contains("1 passed"), "rank {rank} of {world_size}: {stdout}");
        }
    }
}

/// Rank 1 joins and then leaves or stays silent; rank 0's all_reduce must say what failed.
#[track_caller]
fn check_lost_peer(silent: bool, timeout: Duration) {
    let port = Rank::free_port().unwrap();
    let (done, stay) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let group = Group::connect(&Rank::local(1, 2, port), Backend::Gloo, timeout).unwrap();
            group.barrier().unwrap().wait().unwrap();
            if silent {
                stay.recv().ok();
            }
        });
        let group = Group::connect(&Rank::local(0, 2, port), Backend::Gloo, timeout).unwrap();
        group.barrier().unwrap().wait().unwrap();
        let (start, tensor) = (Instant::now(), contribution(0, 8));
        let error = group.all_reduce(&tensor, Reduce::Sum).and_then(c10d::Work::wait).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("all_reduce [(Float, [8])"), "{text}");
        assert!(text.contains("on rank 0 of 2"), "{text}");
        let waited = start.elapsed();
        assert!(waited < timeout + Duration::from_secs(5), "took {waited:?}");
        drop(done);
    });
}

#[test]
fn a_dead_peer_is_an_error_at_once() {
    check_lost_peer(false, Duration::from_secs(20));
}

#[test]
fn a_silent_peer_is_an_error_after_the_timeout() {
    check_lost_peer(true, Duration::from_secs(2));
}

#[test]
fn misuse_is_an_error_that_names_the_sizes() {
    let group = Group::solo();
    let (six, four) = (contribution(0, 6), contribution(0, 4));
    let rows = [
        (group.all_gather_into(&six, &four), "all_gather_into on rank 0 of 1"),
        (group.reduce_scatter(&six, &four), "must have 1 times the part's elements"),
        (group.broadcast(&six, 3), "broadcast from rank 3 in a world of 1"),
        (group.all_to_all(&six, &four), "must be of the same shape and kind"),
    ];
    for (result, expected) in rows {
        let text = format!("{:#}", result.map(drop).unwrap_err());
        assert!(text.contains(expected), "{text:?} lacks {expected:?}");
    }
    let nobody = Rank::local(1, 2, Rank::free_port().unwrap());
    let error = Group::connect(&nobody, Backend::Gloo, Duration::from_secs(1)).map(drop);
    let text = format!("{:#}", error.unwrap_err());
    assert!(text.contains("rank 1 of 2 could not join the gloo group at 127.0.0.1"), "{text}");
}

#[test]
fn ranks_from_the_launchers_variables() {
    let torchrun = "RANK=3 LOCAL_RANK=1 WORLD_SIZE=4 MASTER_ADDR=node0 MASTER_PORT=29500";
    let slurm = "SLURM_PROCID=9 SLURM_LOCALID=1 SLURM_STEP_NUM_TASKS=16 SLURM_JOB_ID=4100007 \
                 SLURM_LAUNCH_NODE_IPADDR=10.0.0.7";
    let (torchrun_on_2, slurm_on_2) =
        (format!("{torchrun} LOCAL_WORLD_SIZE=2"), format!("{slurm} SLURM_NTASKS_PER_NODE=8"));
    type Place<'a> = (usize, usize, usize, usize, &'a str, u16);
    let rows: [(&str, Result<Place, &str>); 9] = [
        ("", Ok((0, 0, 1, 1, "127.0.0.1", 0))),
        (torchrun, Ok((3, 1, 4, 4, "node0", 29500))),
        (&torchrun_on_2, Ok((3, 1, 2, 4, "node0", 29500))),
        (slurm, Ok((9, 1, 16, 16, "10.0.0.7", 20_007))),
        (&slurm_on_2, Ok((9, 1, 8, 16, "10.0.0.7", 20_007))),
        ("SLURM_PROCID=0 SLURM_NTASKS=16", Ok((0, 0, 1, 1, "127.0.0.1", 0))),
        ("RANK=0 WORLD_SIZE=2", Err("LOCAL_RANK is not set")),
        ("RANK=x LOCAL_RANK=0 WORLD_SIZE=2", Err("RANK=x is not a whole number")),
        (
            "RANK=4 LOCAL_RANK=0 WORLD_SIZE=4 MASTER_ADDR=a MASTER_PORT=1",
            Err("rank 4 is not below the world size 4"),
        ),
    ];
    for (variables, expected) in rows {
        let found = Rank::from_vars(|name| {
            let mut pairs = variables.split_whitespace().filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name).map(|(_, value)| value.to_string())
        });
        match (found, expected) {
            (Ok(r), Ok(expected)) => {
                let (address, port) = (r.master_addr.as_str(), r.master_port);
                let sizes = (r.local_world_size, r.world_size);
                let found = (r.rank, r.local_rank, sizes.0, sizes.1, address, port);
                assert_eq!(found, expected, "{variables:?}");
            }
            (Err(error), Err(expected)) => {
                assert!(format!("{error:#}").contains(expected), "{variables:?}: {error:#}");
            }
            (found, expected) => panic!("{variables:?}: {found:?}, expected {expected:?}"),
        }
    }
}

#[test]
fn vjp_of_a_product() {
    let x = Tensor::from_slice(&[1f32, 2.0, 3.0]).set_requires_grad(true);
    let w = Tensor::from_slice(&[4f32, 5.0, 6.0]).set_requires_grad(true);
    let y = &x * &w;
    let grads = c10d::aten::vjp(&[&y], &[&Tensor::from_slice(&[1f32, 10.0, 100.0])], &[&x, &w]);
    let grads = grads.unwrap();
    assert_eq!(grads[0], Tensor::from_slice(&[4f32, 50.0, 600.0]));
    assert_eq!(grads[1], Tensor::from_slice(&[1f32, 20.0, 300.0]));
    let unrelated = Tensor::from_slice(&[1f32]).set_requires_grad(true);
    let y = &x * 2.0;
    assert!(c10d::aten::vjp(&[&y], &[&x.detach()], &[&unrelated]).is_err());
}
