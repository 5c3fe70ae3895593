//! Sub-groups, and the exchange as an operation of autograd, over Gloo with several ranks as
//! threads.

use std::time::Duration;

use c10d::aten::vjp;
use c10d::{Backend, Group, Rank, Reduce};
use tch::{Device, Kind, Tensor};

/// Runs `body` on every rank of a group of `world_size`.
#[track_caller]
fn over(world_size: usize, body: impl Fn(Group) + Sync) {
    let port = Rank::free_port().unwrap();
    std::thread::scope(|scope| {
        for rank in 0..world_size {
            let (place, body) = (Rank::local(rank, world_size, port), &body);
            scope.spawn(move || {
                let timeout = Duration::from_secs(30);
                body(Group::connect(&place, Backend::Gloo, timeout).unwrap());
            });
        }
    });
}

/// Splits four ranks into `lists`; every sub-group sums its members' ranks in the parent.
#[track_caller]
fn check_split(lists: &[&[usize]]) {
    over(4, |group| {
        let here = group.rank();
        let members = *lists.iter().find(|list| list.contains(&here)).unwrap();
        let part = group.split("part", members).unwrap();
        drop(group);
        assert_eq!(members[part.rank()], here);
        assert_eq!(part.world_size(), members.len());
        let sum = Tensor::from_slice(&[here as i64]);
        part.all_reduce(&sum, Reduce::Sum).unwrap().wait().unwrap();
        assert_eq!(sum.int64_value(&[0]) as usize, members.iter().sum::<usize>(), "{members:?}");
    });
}

#[test]
fn a_group_splits_into_groups_of_its_ranks() {
    check_split(&[&[0, 1], &[2, 3]]);
    check_split(&[&[0, 2], &[3, 1]]);
    check_split(&[&[3, 2, 1, 0]]);
    check_split(&[&[0, 1, 3], &[2]]);
}

#[test]
fn the_ranks_of_a_mesh_meet_along_both_of_its_sides() {
    over(4, |group| {
        let (row, column) = (group.rank() / 2, group.rank() % 2);
        let along_row = group.split("row", &[2 * row, 2 * row + 1]).unwrap();
        let along_column = group.split("column", &[column, 2 + column]).unwrap();
        // A part of a part, under a name that its parent used.
        let alone = along_row.split("row", &[column]).unwrap();
        let values = Tensor::from_slice(&[1i64 << group.rank()]);
        let sum = |part: &Group| {
            let sum = values.copy();
            part.all_reduce(&sum, Reduce::Sum).unwrap().wait().unwrap();
            sum.int64_value(&[0])
        };
        assert_eq!(sum(&along_row), [0b0011, 0b1100][row]);
        assert_eq!(sum(&along_column), [0b0101, 0b1010][column]);
        assert_eq!(sum(&alone), 1 << group.rank());
        assert_eq!(sum(&group), 0b1111);
    });
}

#[test]
fn a_wrong_split_is_an_error_that_says_why() {
    let group = Group::solo();
    group.split("twice", &[0]).unwrap();
    let rows: [(&str, &[usize], &str); 4] = [
        ("a", &[0, 1], "split a [0, 1] on rank 0 of 1: members are different ranks of the group"),
        ("b", &[0, 0], "split b [0, 0] on rank 0 of 1: members are different ranks of the group"),
        ("c", &[], "only members split"),
        ("twice", &[0], "were split off before"),
    ];
    for (name, members, expected) in rows {
        let text = format!("{:#}", group.split(name, members).map(drop).unwrap_err());
        assert!(text.contains(expected), "{text:?} lacks {expected:?}");
    }
}

/// Numbers that tell rank, row and column apart, exact in bf16: `[2 * world, 3]`.
fn numbered(rank: usize, world: usize, kind: Kind) -> Tensor {
    let n = 2 * world as i64 * 3;
    (Tensor::arange(n, (kind, Device::Cpu)) + 32.0 * rank as f64).view([-1, 3])
}

/// What rank `to` holds after the exchange of `sent`, by cutting and joining.
fn arrived(to: usize, sent: &[Tensor]) -> Tensor {
    Tensor::cat(&sent.iter().map(|x| x.narrow(0, 2 * to as i64, 2)).collect::<Vec<_>>(), 0)
}

#[track_caller]
fn check_exchange(world: usize, kind: Kind) {
    over(world, |group| {
        let xs: Vec<Tensor> = (0..world).map(|rank| numbered(rank, world, kind)).collect();
        // Of a sum of y * y * weight the gradient depends on what arrived and from where.
        let weights: Vec<Tensor> = xs.iter().map(|x| x.remainder(5.0) + 1.0).collect();
        let ys: Vec<Tensor> = (0..world).map(|rank| arrived(rank, &xs)).collect();
        let dys: Vec<Tensor> = ys.iter().zip(&weights).map(|(y, w)| y * w * 2.0).collect();

        let rank = group.rank();
        let _outside = tch::no_grad_guard();
        assert_eq!(group.exchange(&xs[rank]).unwrap(), ys[rank]);
        let strided = xs[rank].transpose(0, 1).contiguous().transpose(0, 1);
        assert_eq!(group.exchange(&strided).unwrap(), ys[rank], "not contiguous");

        let x = xs[rank].copy().set_requires_grad(true);
        let (y, loss) = tch::with_grad(|| {
            let y = group.exchange(&x).unwrap();
            let loss = (&y * &y * &weights[rank]).sum(kind);
            (y, loss)
        });
        assert_eq!(y.detach(), ys[rank]);
        let one = Tensor::ones([], (kind, Device::Cpu));
        let dx = vjp(&[&loss], &[&one], &[&x]).unwrap();
        assert_eq!(dx[0], arrived(rank, &dys), "gradient on rank {rank} of {world}, {kind:?}");
    });
}

#[test]
fn an_exchange_carries_the_gradient_back_to_where_the_parts_came_from() {
    for world in [1, 2, 4] {
        check_exchange(world, Kind::Float);
        check_exchange(world, Kind::BFloat16);
    }
}

#[test]
fn an_exchange_needs_equal_parts_and_its_peers() {
    over(2, |group| {
        let x = Tensor::zeros([3, 2], (Kind::Float, Device::Cpu));
        let text = format!("{:#}", group.exchange(&x).unwrap_err());
        assert!(text.contains("[3, 2] has no 2 equal parts along dim 0"), "{text}");
        if group.rank() == 0 {
            let x = Tensor::zeros([4, 2], (Kind::Float, Device::Cpu));
            let text = format!("{:#}", group.exchange(&x).unwrap_err());
            assert!(text.contains("exchange Float [4, 2] on rank 0 of 2: "), "{text}");
        }
    });
}

#[test]
fn small_values_of_every_rank_come_in_rank_order() {
    for world in [1, 2, 4] {
        over(world, |group| {
            let rank = group.rank() as i64;
            let of = |rank: i64| vec![rank - 1, i64::MAX - rank, i64::MIN + rank];
            let expected: Vec<_> = (0..world as i64).map(of).collect();
            assert_eq!(group.all_gather_i64(&of(rank)).unwrap(), expected);
            assert_eq!(group.all_gather_i64(&[]).unwrap(), vec![Vec::<i64>::new(); world]);
        });
    }
}

#[test]
fn ranks_leave_notes_for_one_another() {
    for world in [1, 3] {
        over(world, |group| {
            let (rank, notes) = (group.rank(), group.store("notes").unwrap());
            assert_eq!(notes.get("nobody's").unwrap(), None);
            notes.set(&format!("error/{rank}"), &format!("rank {rank}: no space left\0")).unwrap();
            group.barrier().unwrap().wait().unwrap();
            for other in 0..world {
                let found = notes.get(&format!("error/{other}")).unwrap();
                assert_eq!(found, Some(format!("rank {other}: no space left\0")));
            }
            let alone = group.split("alone", &[rank]).unwrap();
            for apart in [alone.store("notes").unwrap(), group.store("others").unwrap()] {
                assert_eq!(apart.get(&format!("error/{rank}")).unwrap(), None);
            }
            let own = format!("own/{rank}");
            for text in ["first", "", "\0ÿ\u{7}"] {
                notes.set(&own, text).unwrap();
                assert_eq!(notes.get(&own).unwrap().as_deref(), Some(text));
            }
            group.barrier().unwrap().wait().unwrap();
        });
    }
}

/// A note reaches a rank although its writer is gone and their collective failed.
#[test]
fn a_note_says_why_a_rank_is_gone() {
    over(2, |group| {
        let notes = group.store("notes").unwrap();
        if group.rank() == 1 {
            notes.set("why", "cannot read").unwrap();
            group.abandon();
            return;
        }
        let values = Tensor::from_slice(&[1i64]);
        let error = group.all_reduce(&values, Reduce::Sum).and_then(c10d::Work::wait);
        assert!(error.is_err());
        assert_eq!(notes.get("why").unwrap().unwrap(), "cannot read");
    });
}
