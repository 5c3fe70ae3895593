//! Exported checkpoints: every tensor reads back bit by bit, however many ranks and files.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use c10d::{Backend, Group, Rank};
use model::{Checkpoint, Config as ModelConfig, Layout};
use tch::{Device, Kind};
use train::config::{Distributed, Offload, ReduceDtype, SaveDtype};
use train::export::export;
use train::mesh::Mesh;
use train::shards::{Placement, Shards};
use train::slices::{Slices, Snapshot, file_name};

use crate::compare::golden;

/// Loads a golden folder onto `ranks` ranks, which save their slices, and exports these into `to`.
pub fn export_from(
    folder: &str,
    ranks: usize,
    dtype: SaveDtype,
    file_limit: Option<usize>,
    to: &Path,
) {
    let port = Rank::free_port().unwrap();
    let saved = tempfile::tempdir().unwrap();
    let one = |rank: usize| {
        let place = Rank::local(rank, ranks, port);
        let group = Group::connect(&place, Backend::Gloo, Duration::from_secs(60)).unwrap();
        let checkpoint = Checkpoint::open(&golden(folder)).unwrap();
        let flat = |unit: &model::Unit| checkpoint.read_unit(unit, Kind::Float);
        let config = checkpoint.config().clone();
        let mesh = Mesh::new(group, &Distributed::default()).unwrap();
        let placement = Placement::new(Device::Cpu, ReduceDtype::Float32, Offload::None);
        let shards = Shards::new(config, mesh, placement, flat).unwrap().shards;
        let name = |unit: &model::Unit| format!("{}.master", unit.name);
        let masters = shards.iter().map(|shard| (name(&shard.unit), shard.master.shallow_clone()));
        let file = saved.path().join(file_name(rank, ranks));
        Snapshot::copy(masters).write(&file).unwrap();
    };
    thread::scope(|scope| {
        (0..ranks).for_each(|rank| drop(scope.spawn(move || one(rank))));
    });
    let slices = Slices::open(saved.path(), ranks).unwrap();
    let weights = |unit: &model::Unit| {
        let numel = unit.numel() as usize;
        slices.read(&unit.name, "master", numel, 0..numel)
    };
    let base = golden(folder);
    export(&ModelConfig::read(&base).unwrap(), weights, dtype, &base, to, file_limit).unwrap();
}

/// Exports and reads back: every tensor is the golden one in `dtype`, in so many files.
#[track_caller]
fn check(folder: &str, ranks: usize, dtype: SaveDtype, file_limit: Option<usize>, files: usize) {
    let out = tempfile::tempdir().unwrap();
    export_from(folder, ranks, dtype, file_limit, out.path());
    let kind = match dtype {
        SaveDtype::Float32 => Kind::Float,
        SaveDtype::Bfloat16 => Kind::BFloat16,
    };
    let (ours, theirs) =
        (Checkpoint::open(out.path()).unwrap(), Checkpoint::open(&golden(folder)).unwrap());
    for param in Layout::new(theirs.config()).params() {
        let (ours, theirs) = (ours.read(&param.name).unwrap(), theirs.read(&param.name).unwrap());
        assert_eq!(ours.kind(), kind, "{}", param.name);
        assert!(ours.equal(&theirs.to_kind(kind)), "{folder}: {} changed", param.name);
    }
    let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
    let names = fs::read_dir(out.path()).unwrap().map(|entry| name(entry.unwrap()));
    let weights = names.filter(|name| name.ends_with(".safetensors")).count();
    assert_eq!(weights, files, "{folder}: files of weights");
}

#[test]
fn exports_read_back_bit_by_bit() {
    check("tiny-tied-gqa4", 1, SaveDtype::Float32, None, 1);
    check("tiny-untied-gqa1", 2, SaveDtype::Float32, None, 1);
    check("tiny-untied-gqa4", 3, SaveDtype::Float32, Some(35_000), 2);
    check("tiny-untied-gqa4-bf16", 2, SaveDtype::Bfloat16, Some(1_000), 19);
    check("tiny-tied-gqa4", 1, SaveDtype::Bfloat16, None, 1);
}
