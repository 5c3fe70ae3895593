//! The finished model as a Hugging Face folder, one file of it in memory at a time.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use model::{Config, Layout, Unit};
use safetensors::tensor::{Dtype, View};
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use crate::config::SaveDtype;

/// No file is larger than this (a single tensor may be), as transformers writes them.
const FILE_LIMIT: usize = 5_000_000_000;

/// Files of the base model's folder that belong to its tokenizer and its use.
const COMPANIONS: [&str; 8] = [
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
];

/// A tensor's bytes on their way into a file.
struct Saved {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl View for Saved {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Writes weights, `config.json` and the base's tokenizer files into `folder`. `weights` gives a
/// unit's flat buffer in fp32; one unit, and one file, is in memory at a time.
pub fn export(
    config: &Config,
    weights: impl Fn(&Unit) -> Result<Tensor>,
    dtype: SaveDtype,
    base: &Path,
    folder: &Path,
    file_limit: Option<usize>,
) -> Result<()> {
    let limit = file_limit.unwrap_or(FILE_LIMIT);
    let kind = match dtype {
        SaveDtype::Float32 => Kind::Float,
        SaveDtype::Bfloat16 => Kind::BFloat16,
    };
    let layout = Layout::new(config);
    let plan = plan_files(&layout, kind.elt_size_in_bytes(), limit);
    write_companions(base, folder, dtype)?;
    let mut pending: BTreeMap<String, Saved> = BTreeMap::new();
    for unit in &layout.units {
        let flat = weights(unit)?.to_kind(kind);
        for param in &unit.params {
            let values = flat.narrow(0, param.offset, param.numel());
            pending.insert(param.name.clone(), saved(&values, &param.shape, dtype));
            let file = &plan.file_of[&param.name];
            if plan.last_in_file[file] == param.name {
                write_file(&folder.join(file), std::mem::take(&mut pending))?;
            }
        }
    }
    write_index(folder, &plan)
}

/// Which tensor goes into which file.
struct Plan {
    file_of: BTreeMap<String, String>,
    last_in_file: BTreeMap<String, String>,
    total_bytes: usize,
}

fn plan_files(layout: &Layout, element: usize, limit: usize) -> Plan {
    let (mut files, mut filled): (Vec<Vec<&str>>, usize) = (vec![Vec::new()], 0);
    let mut total_bytes = 0;
    for param in layout.params() {
        let bytes = param.numel() as usize * element;
        if filled + bytes > limit && filled > 0 {
            files.push(Vec::new());
            filled = 0;
        }
        files.last_mut().expect("at least one file").push(&param.name);
        filled += bytes;
        total_bytes += bytes;
    }
    let count = files.len();
    let mut plan = Plan { file_of: BTreeMap::new(), last_in_file: BTreeMap::new(), total_bytes };
    for (number, names) in files.iter().enumerate() {
        let file = match count {
            1 => "model.safetensors".to_string(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
        };
        plan.file_of.extend(names.iter().map(|name| (name.to_string(), file.clone())));
        let last = names.last().expect("no file is empty");
        plan.last_in_file.insert(file, last.to_string());
    }
    plan
}

fn saved(values: &Tensor, shape: &[i64], dtype: SaveDtype) -> Saved {
    let numel = values.numel();
    let mut bytes = vec![0; numel * values.kind().elt_size_in_bytes()];
    values.contiguous().copy_data_u8(&mut bytes, numel);
    let dtype = match dtype {
        SaveDtype::Float32 => Dtype::F32,
        SaveDtype::Bfloat16 => Dtype::BF16,
    };
    Saved { dtype, shape: shape.iter().map(|&n| n as usize).collect(), bytes }
}

fn write_file(path: &Path, tensors: BTreeMap<String, Saved>) -> Result<()> {
    let format = [("format".to_string(), "pt".to_string())].into();
    let place = || format!("writing {}", path.display());
    safetensors::serialize_to_file(tensors, Some(format), path).with_context(place)?;
    // The crate writes through a private temporary file; a checkpoint is for others to read too.
    let usual = fs::metadata(path.with_file_name("config.json")).map(|file| file.permissions());
    usual.map_or(Ok(()), |usual| fs::set_permissions(path, usual)).with_context(place)
}

fn write_index(folder: &Path, plan: &Plan) -> Result<()> {
    if plan.last_in_file.len() > 1 {
        let index = json!({
            "metadata": {"total_size": plan.total_bytes},
            "weight_map": plan.file_of,
        });
        write_json(&folder.join("model.safetensors.index.json"), &index)?;
    }
    Ok(())
}

fn write_companions(base: &Path, folder: &Path, dtype: SaveDtype) -> Result<()> {
    let path = base.join("config.json");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let mut config: Value = serde_json::from_str(&text)?;
    config["architectures"] = json!(["Qwen2ForCausalLM"]);
    // transformers 5 writes `dtype`, 4 wrote and both read `torch_dtype`: leave one of them.
    config.as_object_mut().map(|config| config.shift_remove("dtype"));
    config["torch_dtype"] = match dtype {
        SaveDtype::Float32 => json!("float32"),
        SaveDtype::Bfloat16 => json!("bfloat16"),
    };
    write_json(&folder.join("config.json"), &config)?;
    for name in COMPANIONS {
        let from = base.join(name);
        if from.exists() {
            fs::copy(&from, folder.join(name))
                .with_context(|| format!("copying {} to {}", from.display(), folder.display()))?;
        }
    }
    Ok(())
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value)? + "\n";
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
