//! An engine over weights on this machine.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use model::{Cache, Decoder, Segment, Tokenizer};
use tch::Kind;

use super::blocks::Copy;
use super::{Engine, Model, Settings};
use crate::config::{self, Device, Dtype};

/// Positions of a block: few enough that little is unused, enough that a kernel runs over each.
const BLOCK_LEN: usize = 256;

const GIB: f64 = (1u64 << 30) as f64;

/// A Qwen2 model with its cache.
pub struct Local {
    decoder: Decoder,
    cache: Cache,
}

impl Model for Local {
    fn pass(&mut self, segments: &[Segment], logits: &mut Vec<f32>) -> Result<()> {
        let rows = self.decoder.pass(&mut self.cache, segments); // [wanted, V]
        logits.resize(rows.numel(), 0.0);
        rows.f_copy_data(logits, rows.numel())?;
        Ok(())
    }

    fn copy(&mut self, copy: Copy) {
        self.cache.copy(copy.from, copy.to, copy.positions);
    }
}

/// Loads the weights in `folder` and makes an engine of them, as large as the config says.
///
/// # Errors
/// A GPU that is not there, a broken folder, a cache that does not hold one sequence.
pub fn load(
    folder: &Path,
    tokenizer: Arc<Tokenizer>,
    model: &config::Model,
    engine: &config::Engine,
) -> Result<Engine<Local>> {
    let device = device(model.device)?;
    let threads = model.threads.map_or_else(std::thread::available_parallelism, |threads| {
        threads.try_into().map_err(std::io::Error::other)
    })?;
    if device == tch::Device::Cpu {
        tch::set_num_threads(threads.get() as i32);
    }
    let kind = match model.dtype {
        Dtype::Float32 => Kind::Float,
        Dtype::BFloat16 => Kind::BFloat16,
    };
    let decoder = Decoder::load(folder, device, kind)
        .with_context(|| format!("model.path {:?}", model.path))?;
    let settings = settings(&decoder, model.max_model_len, engine)?;
    let cache = decoder.new_cache(settings.blocks, settings.block_len);
    Ok(Engine::new(Local { decoder, cache }, tokenizer, settings))
}

/// As many blocks as the memory holds, but no more than all slots can use.
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
    // One more for each slot, for when a sequence parts.
    let blocks = affordable.min(engine.slots * (one + 1));
    let (slots, prefill_chunk) = (engine.slots, engine.prefill_chunk);
    Ok(Settings { slots, blocks, block_len: BLOCK_LEN, prefill_chunk })
}

/// libtorch's device. Its CUDA half must be loaded by hand: linkers leave out what no symbol needs.
fn device(asked: Device) -> Result<tch::Device> {
    if asked == Device::Cpu {
        return Ok(tch::Device::Cpu);
    }
    ensure!(
        c10d::aten::load_cuda() && tch::Cuda::is_available(),
        "model.device is cuda, but this libtorch sees no GPU; use cpu, or `just setup cuda`"
    );
    Ok(tch::Device::Cuda(0))
}
