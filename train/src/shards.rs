//! Who holds which part of the parameters: every rank of a shard group an equal slice of every
//! unit's flat buffer.

use anyhow::{Result, ensure};
use c10d::aten::{release_storage, restore_storage};
use c10d::{Reduce, Work};
use model::{Config, Layout, Unit};
use tch::{Device, Kind, Tensor};

use crate::config::{Offload, ReduceDtype};
use crate::mesh::Mesh;
use crate::slices::slice_length;

/// A unit's slice on this rank.
#[derive(Debug)]
pub struct Shard {
    /// Which tensors, and where they lie.
    pub unit: Unit,
    /// Elements of the whole flat buffer, padding included.
    padded: i64,
    /// `[padded / ranks]` fp32: the weights that the optimizer updates.
    pub master: Tensor,
    /// The same on the device in the compute kind, when the master lives in the host's memory.
    resident: Option<Tensor>,
}

/// Where parameters live and how they travel.
#[derive(Debug, Clone, Copy)]
pub struct Placement {
    /// Where layers compute.
    pub device: Device,
    /// The kind that layers compute in and weights are gathered in.
    pub compute: Kind,
    /// The kind that gradients are summed over ranks in.
    pub reduce: Kind,
    /// Whether master weights and moments stay on the host.
    pub offload: bool,
}

impl Placement {
    /// What a run uses on `device`: bf16 on GPUs, fp32 on CPUs.
    pub fn new(device: Device, reduce: ReduceDtype, offload: Offload) -> Self {
        let compute = if device.is_cuda() { Kind::BFloat16 } else { Kind::Float };
        let reduce = match reduce {
            ReduceDtype::Float32 => Kind::Float,
            ReduceDtype::Bfloat16 => Kind::BFloat16,
        };
        Self { device, compute, reduce, offload: offload == Offload::Optimizer }
    }

    /// Where master weights and moments live.
    pub fn home(&self) -> Device {
        if self.offload { Device::Cpu } else { self.device }
    }
}

/// The sharded parameters of a model.
pub struct Shards {
    /// The model's shape.
    pub config: Config,
    /// The ranks that hold the other slices.
    pub mesh: Mesh,
    /// Where and in which kinds.
    pub placement: Placement,
    /// In the order of [`Layout`]'s units.
    pub shards: Vec<Shard>,
}

/// A unit on its way from all ranks.
pub struct Gathering {
    flat: Tensor,
    work: Option<Work>,
}

/// A gradient on its way to its owners.
pub struct Reducing {
    unit: usize,
    part: Tensor,
    work: Option<Work>,
}

/// A slice of a gradient on its way between the copies of the model.
pub struct Mirroring {
    unit: usize,
    sum: Tensor,
    work: Work,
}

impl Shards {
    /// Cuts this rank's slices out of `flat(unit)`, each unit's whole fp32 buffer on the CPU. One
    /// unit is in memory at a time.
    pub fn new(
        config: Config,
        mesh: Mesh,
        placement: Placement,
        mut flat: impl FnMut(&Unit) -> Result<Tensor>,
    ) -> Result<Self> {
        let ranks = mesh.shard.world_size() as i64;
        let mut shards = Vec::new();
        for unit in Layout::new(&config).units {
            let whole = flat(&unit)?;
            ensure!(whole.numel() as i64 == unit.numel(), "unit {} has another size", unit.name);
            let part = slice_length(unit.numel() as usize, ranks as usize) as i64;
            let padded = part * ranks;
            // The last ranks' slices may reach into the padding, or lie in it.
            let start = (part * mesh.shard.rank() as i64).min(unit.numel());
            let filled = part.min(unit.numel() - start);
            let mine = Tensor::zeros([part], (Kind::Float, Device::Cpu));
            mine.narrow(0, 0, filled).copy_(&whole.narrow(0, start, filled));
            let master = mine.to_device(placement.home());
            let mut shard = Shard { unit, padded, master, resident: None };
            if placement.offload {
                let empty = Tensor::empty([part], (placement.compute, placement.device));
                shard.resident = Some(empty);
            }
            shards.push(shard);
        }
        let found = Self { config, mesh, placement, shards };
        found.publish_masters();
        Ok(found)
    }

    /// The index of the final unit; the layers stand between the embedding (0) and it.
    pub fn last(&self) -> usize {
        self.shards.len() - 1
    }

    /// After an update: copies offloaded master weights to the device.
    pub fn publish_masters(&self) {
        for shard in &self.shards {
            if let Some(resident) = &shard.resident {
                resident.shallow_clone().copy_(&shard.master);
            }
        }
    }

    /// Begins to collect unit `unit` in the compute kind.
    pub fn gather(&self, unit: usize) -> Result<Gathering> {
        let mine = self.mine(unit);
        if self.mesh.shard.world_size() == 1 {
            return Ok(Gathering { flat: mine, work: None });
        }
        let size = [self.shards[unit].padded];
        self.collect(Tensor::empty(size, (mine.kind(), mine.device())), mine)
    }

    /// This rank's slice where layers compute and in their kind.
    fn mine(&self, unit: usize) -> Tensor {
        let shard = &self.shards[unit];
        match &shard.resident {
            Some(resident) => resident.shallow_clone(),
            None => shard.master.to_kind(self.placement.compute),
        }
    }

    fn collect(&self, flat: Tensor, mine: Tensor) -> Result<Gathering> {
        let work = self.mesh.shard.all_gather_into(&flat, &mine)?;
        Ok(Gathering { flat, work: Some(work) })
    }

    /// Whether a gathered buffer is the slice itself: one rank that computes in fp32.
    fn gathers_in_place(&self) -> bool {
        self.mesh.shard.world_size() == 1
            && (self.placement.offload || self.placement.compute == Kind::Float)
    }

    /// Frees a gathered buffer's memory while graphs that saved views of it stay.
    pub fn release(&self, flat: &Tensor) -> Result<()> {
        if self.gathers_in_place() { Ok(()) } else { release_storage(flat) }
    }

    /// Begins to collect unit `unit` again, into the buffer of `flat` that was released.
    pub fn regather(&self, unit: usize, flat: &Tensor) -> Result<Gathering> {
        let flat = flat.shallow_clone();
        if self.gathers_in_place() {
            return Ok(Gathering { flat, work: None });
        }
        restore_storage(&flat)?;
        self.collect(flat, self.mine(unit))
    }

    /// Begins to sum a unit's whole gradient over the shard group and to hand each rank its slice.
    pub fn reduce(&self, unit: usize, gradient: Tensor) -> Result<Reducing> {
        if self.mesh.shard.world_size() == 1 {
            return Ok(Reducing { unit, part: gradient, work: None });
        }
        let gradient = gradient.to_kind(self.placement.reduce);
        let size = self.shards[unit].master.size();
        let part = Tensor::empty(size, (gradient.kind(), self.placement.device));
        let work = self.mesh.shard.reduce_scatter(&part, &gradient)?;
        Ok(Reducing { unit, part, work: Some(work) })
    }

    /// Begins to sum a finished slice of a gradient over the copies of the model.
    pub fn mirror(&self, unit: usize, gradient: Tensor) -> Result<Mirroring> {
        let sum = gradient.to_kind(self.placement.reduce);
        let work = self.mesh.replicas.all_reduce(&sum, Reduce::Sum)?;
        Ok(Mirroring { unit, sum, work })
    }

    /// Room for a unit's whole gradient in fp32, of any content but for the padding's zeros.
    pub fn whole_gradient(&self, unit: usize) -> Tensor {
        let shard = &self.shards[unit];
        let flat = Tensor::empty([shard.padded], (Kind::Float, self.placement.device));
        let numel = shard.unit.numel();
        let _ = flat.narrow(0, numel, shard.padded - numel).zero_();
        flat
    }

    /// The whole gradient of a unit that is one tensor, padded to the flat buffer.
    pub fn flatten(&self, unit: usize, gradient: &Tensor) -> Tensor {
        let flat = gradient.reshape([-1]);
        match self.shards[unit].padded - self.shards[unit].unit.numel() {
            0 => flat,
            padding => flat.constant_pad_nd([0, padding]),
        }
    }
}

impl Gathering {
    /// The whole flat buffer, padding included.
    pub fn wait(self) -> Result<Tensor> {
        self.work.map_or(Ok(()), Work::wait)?;
        Ok(self.flat)
    }
}

impl Reducing {
    /// The unit, and this rank's slice of its gradient in fp32.
    pub fn wait(self) -> Result<(usize, Tensor)> {
        self.work.map_or(Ok(()), Work::wait)?;
        Ok((self.unit, self.part.to_kind(Kind::Float)))
    }
}

impl Mirroring {
    /// The unit, and this rank's slice of its gradient over all copies, in fp32.
    pub fn wait(self) -> Result<(usize, Tensor)> {
        self.work.wait()?;
        Ok((self.unit, self.sum.to_kind(Kind::Float)))
    }
}
