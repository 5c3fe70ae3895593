//! Who holds which part of the parameters: every rank an equal slice of every unit's flat buffer.

use anyhow::{Result, ensure};
use c10d::{Group, Work};
use model::{Config, Layout, Unit};
use tch::{Device, Kind, Tensor};

/// A unit's slice on this rank: fp32 master weights and the gradient collected so far.
#[derive(Debug)]
pub struct Shard {
    /// Which tensors, and where they lie.
    pub unit: Unit,
    /// Elements of the whole flat buffer, a multiple of the world size.
    padded: i64,
    /// `[padded / world_size]` fp32.
    pub master: Tensor,
    /// `[padded / world_size]` fp32.
    pub grad: Tensor,
}

/// The sharded parameters of a model.
pub struct Shards {
    /// The model's shape.
    pub config: Config,
    /// The ranks that hold the other slices.
    pub group: Group,
    /// Where this rank's slices are and its layers compute.
    pub device: Device,
    /// The kind that layers compute in, and that gathers and reductions travel in.
    pub compute: Kind,
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

impl Shards {
    /// Cuts this rank's slices out of `flat(unit)`, each unit's whole fp32 buffer on the CPU. One
    /// unit is in memory at a time.
    pub fn new(
        config: Config,
        group: Group,
        device: Device,
        mut flat: impl FnMut(&Unit) -> Result<Tensor>,
    ) -> Result<Self> {
        let compute = if device.is_cuda() { Kind::BFloat16 } else { Kind::Float };
        let world = group.world_size() as i64;
        let mut shards = Vec::new();
        for unit in Layout::new(&config).units {
            let padded = (unit.numel() + world - 1) / world * world;
            let whole = flat(&unit)?;
            ensure!(whole.numel() as i64 == unit.numel(), "unit {} has another size", unit.name);
            let part = padded / world;
            // The last ranks' slices may reach into the padding, or lie in it.
            let start = (part * group.rank() as i64).min(unit.numel());
            let filled = part.min(unit.numel() - start);
            let mine = Tensor::zeros([part], (Kind::Float, Device::Cpu));
            mine.narrow(0, 0, filled).copy_(&whole.narrow(0, start, filled));
            let master = mine.to_device(device);
            let grad = master.zeros_like();
            shards.push(Shard { unit, padded, master, grad });
        }
        Ok(Self { config, group, device, compute, shards })
    }

    /// The index of the final unit; the layers stand between the embedding (0) and it.
    pub fn last(&self) -> usize {
        self.shards.len() - 1
    }

    /// Begins to collect unit `unit` in the compute kind.
    pub fn gather(&self, unit: usize) -> Result<Gathering> {
        self.gather_as(unit, self.compute)
    }

    /// Begins to collect unit `unit` as `kind`.
    pub fn gather_as(&self, unit: usize, kind: Kind) -> Result<Gathering> {
        let shard = &self.shards[unit];
        let mine = shard.master.to_kind(kind);
        if self.group.world_size() == 1 {
            return Ok(Gathering { flat: mine, work: None });
        }
        let flat = Tensor::empty([shard.padded], (kind, self.device));
        let work = self.group.all_gather_into(&flat, &mine)?;
        Ok(Gathering { flat, work: Some(work) })
    }

    /// Begins to sum a unit's whole gradient over the ranks and to hand each rank its slice.
    pub fn reduce(&self, unit: usize, gradient: Tensor) -> Result<Reducing> {
        if self.group.world_size() == 1 {
            return Ok(Reducing { unit, part: gradient, work: None });
        }
        let part = Tensor::empty(self.shards[unit].grad.size(), (gradient.kind(), self.device));
        let work = self.group.reduce_scatter(&part, &gradient)?;
        Ok(Reducing { unit, part, work: Some(work) })
    }

    /// Waits for a reduction and adds this rank's slice to its gradient.
    pub fn collect(&self, reducing: Reducing) -> Result<()> {
        let Reducing { unit, part, work } = reducing;
        work.map_or(Ok(()), Work::wait)?;
        let _ = self.shards[unit].grad.shallow_clone().g_add_(&part);
        Ok(())
    }

    /// Lays gradients of a unit's leading tensors behind one another, padded to the flat buffer.
    pub fn flatten(&self, unit: usize, gradients: &[Tensor]) -> Tensor {
        let mut rows: Vec<Tensor> =
            gradients.iter().map(|gradient| gradient.reshape([-1])).collect();
        let padding = self.shards[unit].padded - self.shards[unit].unit.numel();
        if padding > 0 {
            rows.push(Tensor::zeros([padding], (rows[0].kind(), self.device)));
        }
        match &rows[..] {
            [one] => one.shallow_clone(),
            several => Tensor::cat(several, 0),
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
