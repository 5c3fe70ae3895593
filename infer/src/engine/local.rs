//! An engine over weights on this machine.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use c10d::Group;
use model::{Cache, Decoder, Segment, Tokenizer};
use tch::Kind;

use super::blocks::Copy;
use super::parallel::{self, Order, Ranks, Started};
use super::{Engine, Model, Settings};
use crate::config::{self, Device, Dtype};

/// Positions of a block: few enough that little is unused, enough that a kernel runs over each.
const BLOCK_LEN: usize = 256;

/// Four million positions: a tiny model's blocks would take more for their description.
const MOST_BLOCKS: usize = 1 << 14;

const GIB: f64 = (1u64 << 30) as f64;

/// A Qwen2 model with its cache, or one rank's part of both.
pub struct Local {
    decoder: Decoder,
    cache: Cache,
    /// The other ranks' processes, where this one has started them.
    started: Started,
}

impl Local {
    /// A decoder with an empty cache.
    pub fn new(decoder: Decoder, settings: &Settings) -> Self {
        let cache = decoder.new_cache(settings.blocks, settings.block_len);
        Local { decoder, cache, started: Started::default() }
    }

    /// The ranks that share the model.
    pub fn ranks(&self) -> &Group {
        self.decoder.ranks()
    }

    /// Where it computes.
    pub fn device(&self) -> tch::Device {
        self.decoder.device()
    }

    /// This rank's part of a pass.
    pub fn compute(&mut self, segments: &[Segment]) -> Result<tch::Tensor> {
        self.decoder.pass(&mut self.cache, segments)
    }

    /// This rank's part of a copy.
    pub fn copy_here(&mut self, copy: Copy) {
        self.cache.copy(copy.from, copy.to, copy.positions);
    }

    fn tell(&self, order: impl FnOnce() -> Order) -> Result<()> {
        match self.ranks().world_size() {
            1 => Ok(()),
            _ => order().tell(self.ranks(), self.device()),
        }
    }
}

impl Model for Local {
    fn pass(&mut self, segments: &[Segment], logits: &mut Vec<f32>) -> Result<()> {
        let rows = self.tell(|| Order::pass(segments)).and_then(|()| self.compute(segments));
        let rows = rows.map_err(|error| self.started.blame(error))?; // [wanted, V]
        logits.resize(rows.numel(), 0.0);
        rows.f_copy_data(logits, rows.numel())?;
        Ok(())
    }

    fn copy(&mut self, copy: Copy) {
        // A rank that is gone is the next pass's error.
        let _ = self.tell(|| Order::Copy(copy));
        self.copy_here(copy);
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.started.let_go();
        if self.ranks().rank() == 0 {
            // A rank that is gone needs not be told.
            let _ = self.tell(|| Order::Stop);
        }
    }
}

/// Loads the weights in `folder` and makes an engine of them, as large as the config says.
///
/// # Errors
/// A GPU that is not there, ranks that do not come, and as [`open`].
pub fn load(
    folder: &Path,
    tokenizer: Arc<Tokenizer>,
    model: &config::Model,
    engine: &config::Engine,
) -> Result<Engine<Local>> {
    let (local, settings) = open(parallel::join(model)?, folder, model, engine)?;
    Ok(Engine::new(local, tokenizer, settings))
}

/// This rank's part of the model, and how large its engine is.
///
/// # Errors
/// A broken folder, a cache that does not hold one sequence.
pub fn open(
    ranks: Ranks,
    folder: &Path,
    model: &config::Model,
    engine: &config::Engine,
) -> Result<(Local, Settings)> {
    let Ranks { rank, group, device, started } = ranks;
    if device == tch::Device::Cpu {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = model.threads.unwrap_or((cores / rank.local_world_size).max(1));
        tch::set_num_threads(threads as i32);
    }
    let kind = match model.dtype {
        Dtype::Float32 => Kind::Float,
        Dtype::BFloat16 => Kind::BFloat16,
    };
    let decoder = Decoder::load_part(folder, device, kind, group)
        .with_context(|| format!("model.path {:?}", model.path))?;
    let settings = settings(&decoder, model.max_model_len, engine)?;
    let mut local = Local::new(decoder, &settings);
    local.started = started;
    Ok((local, settings))
}

/// As many blocks as the memory holds: beside what runs, those have some who wait, since they share
/// a beginning with it.
fn settings(decoder: &Decoder, longest: usize, engine: &config::Engine) -> Result<Settings> {
    let block_bytes = decoder.block_bytes(BLOCK_LEN);
    let one = longest.div_ceil(BLOCK_LEN);
    let affordable = match engine.cache_gib {
        Some(gib) => (gib * GIB) as usize / block_bytes,
        None => one.max((4.0 * GIB) as usize / block_bytes),
    };
    ensure!(
        affordable >= one,
        "engine.cache_gib is {}, but one sequence of model.max_model_len ({longest}) takes {:.3}; \
         raise the one or lower the other",
        engine.cache_gib.unwrap_or_default(),
        (one * block_bytes) as f64 / GIB
    );
    let blocks = affordable.min(one.max(MOST_BLOCKS));
    let (slots, prefill_chunk) = (engine.slots, engine.prefill_chunk);
    Ok(Settings { slots, blocks, block_len: BLOCK_LEN, prefill_chunk })
}

/// libtorch's device. Its CUDA half must be loaded by hand: linkers leave out what no symbol needs.
pub(super) fn device(asked: Device, local_rank: usize) -> Result<tch::Device> {
    if asked == Device::Cpu {
        return Ok(tch::Device::Cpu);
    }
    ensure!(
        c10d::aten::load_cuda() && tch::Cuda::is_available(),
        "model.device is cuda, but this libtorch sees no GPU; use cpu, or `just setup cuda`"
    );
    Ok(tch::Device::Cuda(local_rank))
}
