//! What a rank needs before its first step: its device, its groups, its slices of the weights.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use c10d::{Backend, Group, Rank};
use model::{Checkpoint, Config as ModelConfig, Unit};
use tch::{Device, Kind, Tensor};

use crate::config::{Config, Init};
use crate::init::random_unit;
use crate::launch::is_launched;
use crate::mesh::Mesh;
use crate::shards::{Placement, Shards};

/// Joins the other ranks.
pub fn connect(config: &Config, rank: &Rank) -> Result<(Device, Mesh)> {
    let (device, backend) = choose_device(rank)?;
    let timeout = Duration::from_secs(config.distributed.timeout_seconds);
    let mut world = Group::connect(rank, backend, timeout)?;
    world.set_device(device)?;
    Ok((device, Mesh::new(world, &config.distributed)?))
}

/// The model that the config names, if its shape can do what the config asks.
///
/// # Errors
/// A block size beyond the model's positions, or heads that sequence parallelism cannot divide.
pub fn read_model(config: &Config, base: &Path) -> Result<ModelConfig> {
    let model = ModelConfig::read(base)?;
    let longest = model.max_position_embeddings;
    ensure!(
        config.data.block_size as i64 <= longest,
        "data.block_size {} is more than the model's max_position_embeddings {longest}",
        config.data.block_size
    );
    let (heads, kv) = (model.num_attention_heads, model.num_key_value_heads);
    let ranks = config.distributed.sequence_parallel as i64;
    ensure!(
        heads % ranks == 0 && kv % ranks == 0,
        "distributed.sequence_parallel = {ranks} must divide the model's {heads} heads and {kv} \
         key/value heads"
    );
    Ok(model)
}

/// This rank's slices of the weights that training starts from.
pub fn load_shards(
    config: &Config,
    model: ModelConfig,
    base: &Path,
    mesh: Mesh,
    device: Device,
) -> Result<Shards> {
    let placement = Placement::new(device, config.distributed.reduce_dtype, config.memory.offload);
    match config.model.init {
        Init::Random => {
            let (seed, shape) = (config.seed, model.clone());
            Shards::new(model, mesh, placement, |unit| Ok(random_unit(&shape, unit, seed)))
        }
        Init::Checkpoint => {
            let checkpoint = Checkpoint::open(base)?;
            let flat = |unit: &Unit| -> Result<Tensor> { checkpoint.read_unit(unit, Kind::Float) };
            Shards::new(model, mesh, placement, flat)
        }
    }
}

/// Slices of zeros, for a checkpoint to fill.
pub fn empty_shards(
    config: &Config,
    model: ModelConfig,
    mesh: Mesh,
    device: Device,
) -> Result<Shards> {
    let placement = Placement::new(device, config.distributed.reduce_dtype, config.memory.offload);
    let zeros = |unit: &Unit| Ok(Tensor::zeros([unit.numel()], (Kind::Float, Device::Cpu)));
    Shards::new(model, mesh, placement, zeros)
}

/// CUDA when libtorch has it and a device is there, one a local rank; else the CPU.
///
/// # Errors
/// Fewer devices than local ranks (a launcher that shows each rank one device is fine).
fn choose_device(rank: &Rank) -> Result<(Device, Backend)> {
    if !c10d::aten::load_cuda() || !tch::Cuda::is_available() {
        return Ok((Device::Cpu, Backend::Gloo));
    }
    let devices = tch::Cuda::device_count() as usize;
    // Slurm may show each rank its own device alone; our own launcher shows all to all.
    let device = if devices == 1 && !is_launched() { 0 } else { rank.local_rank };
    ensure!(
        device < devices,
        "local rank {} has no GPU of its own: {devices} are visible; start as many ranks, or set \
         CUDA_VISIBLE_DEVICES= to train on the CPU",
        rank.local_rank
    );
    Ok((Device::Cuda(device), Backend::Nccl))
}
