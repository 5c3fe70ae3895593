//! Which ranks do what together: shard the parameters, mirror a shard, share a sequence.

use anyhow::Result;
use c10d::Group;

use crate::config::Distributed;

/// The groups that a rank belongs to. With W ranks, R copies and sequence groups of G, rank r
/// shards with its W / R neighbours, mirrors every (W / R)-th rank, and shares sequences with its
/// G neighbours.
pub struct Mesh {
    /// All ranks.
    pub world: Group,
    /// The ranks that hold one copy of the parameters together.
    pub shard: Group,
    /// The ranks that hold the same slices in other copies.
    pub replicas: Group,
    /// The ranks that share each packed micro-batch.
    pub sequence: Group,
}

impl Mesh {
    /// Cuts `world` as the config says (it was checked against the world size).
    pub fn new(world: Group, distributed: &Distributed) -> Result<Self> {
        let (rank, size) = (world.rank(), world.world_size());
        let copy = size / distributed.replicate;
        let first = rank / copy * copy;
        let shard: Vec<usize> = (first..first + copy).collect();
        let replicas: Vec<usize> = (rank % copy..size).step_by(copy).collect();
        let first = rank / distributed.sequence_parallel * distributed.sequence_parallel;
        let sequence: Vec<usize> = (first..first + distributed.sequence_parallel).collect();
        Ok(Self {
            shard: world.split(&format!("shard{}", shard[0]), &shard)?,
            replicas: world.split(&format!("replicas{}", replicas[0]), &replicas)?,
            sequence: world.split(&format!("sequence{}", sequence[0]), &sequence)?,
            world,
        })
    }

    /// A process on its own.
    pub fn solo() -> Self {
        let alone = Group::solo;
        Self { world: alone(), shard: alone(), replicas: alone(), sequence: alone() }
    }

    /// Groups that work on micro-batches of their own.
    pub fn data_groups(&self) -> usize {
        self.world.world_size() / self.sequence.world_size()
    }

    /// Which of these groups this rank is in.
    pub fn data_group(&self) -> usize {
        self.world.rank() / self.sequence.world_size()
    }
}
