//! Reading a model's weights from Hugging Face's safetensors files, strictly.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use tch::{Kind, Tensor};

use crate::{Config, Layout, Unit};

/// A model folder whose files are mapped and whose tensors have the names and shapes that
/// `config.json` demands, no more and no fewer.
pub struct Checkpoint {
    config: Config,
    tensors: BTreeMap<String, Stored>,
    files: Vec<Mapped>,
}

/// Where a tensor's bytes are.
#[derive(Debug, Clone)]
struct Stored {
    file: usize,
    kind: Kind,
    shape: Vec<i64>,
    bytes: std::ops::Range<usize>,
}

struct Mapped {
    path: PathBuf,
    map: Mmap,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Opens `model.safetensors`, or the files that `model.safetensors.index.json` names.
    ///
    /// # Errors
    /// A missing, damaged or truncated file; a tensor that is missing, unexpected, of another
    /// shape or of a kind other than fp32, fp16 and bf16. The text names file and tensor.
    pub fn open(folder: &Path) -> Result<Self> {
        let config = Config::read(folder)?;
        let mut checkpoint = Self { config, tensors: BTreeMap::new(), files: Vec::new() };
        let single = folder.join("model.safetensors");
        let index = folder.join("model.safetensors.index.json");
        if index.exists() {
            checkpoint.map_indexed(folder, &index)?;
        } else if single.exists() {
            checkpoint.map_file(&single)?;
        } else {
            bail!(
                "{}: neither model.safetensors nor model.safetensors.index.json is here; only \
                 safetensors are read (pickled .bin files can run code)",
                folder.display()
            );
        }
        checkpoint.check_names_and_shapes(folder)?;
        Ok(checkpoint)
    }

    /// What `config.json` says.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// A copy of one tensor, in the kind it is stored in.
    pub fn read(&self, name: &str) -> Result<Tensor> {
        let stored = self.tensors.get(name).with_context(|| format!("no tensor `{name}`"))?;
        let bytes = self.bytes(stored);
        Ok(Tensor::f_from_data_size(bytes, &stored.shape, stored.kind)?)
    }

    /// A unit's tensors in one flat buffer of `kind`, in [`Layout`]'s order.
    pub fn read_unit(&self, unit: &Unit, kind: Kind) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        let flat = Tensor::empty([unit.numel()], (kind, tch::Device::Cpu));
        for param in &unit.params {
            let values = self.read(&param.name)?.view([-1]);
            flat.narrow(0, param.offset, param.numel()).copy_(&values);
        }
        Ok(flat)
    }

    fn bytes(&self, stored: &Stored) -> &[u8] {
        &self.files[stored.file].map[stored.bytes.clone()]
    }

    fn map_indexed(&mut self, folder: &Path, index_path: &Path) -> Result<()> {
        let place = || index_path.display().to_string();
        let text = fs::read_to_string(index_path).with_context(place)?;
        let index: Index = serde_json::from_str(&text).with_context(place)?;
        let mut names: Vec<&String> = index.weight_map.values().collect();
        names.sort();
        names.dedup();
        for name in names {
            let plain = Path::new(name).components().count() == 1 && !name.starts_with('.');
            ensure!(plain, "{}: `{name}` is not a plain file name", place());
            let path = folder.join(name);
            ensure!(path.exists(), "{}: it names `{name}`, which is not in the folder", place());
            self.map_file(&path)?;
        }
        for (tensor, name) in &index.weight_map {
            let found = self.tensors.get(tensor).map(|t| &self.files[t.file].path);
            ensure!(
                found == Some(&folder.join(name)),
                "{}: it promises tensor `{tensor}` in `{name}`, which is not there",
                place()
            );
        }
        Ok(())
    }

    fn map_file(&mut self, path: &Path) -> Result<()> {
        let place = || path.display().to_string();
        let file = File::open(path).with_context(place)?;
        // SAFETY: the map is read only; a file changed under it gives wrong numbers or a signal,
        // which is why outputs are published whole and never rewritten in place.
        #[expect(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }.with_context(place)?;
        let parsed = SafeTensors::deserialize(&map).map_err(|e| {
            anyhow!("{}: not a whole safetensors file ({e}); download or export it again", place())
        })?;
        for (name, view) in parsed.tensors() {
            let kind = match view.dtype() {
                Dtype::F32 => Kind::Float,
                Dtype::F16 => Kind::Half,
                Dtype::BF16 => Kind::BFloat16,
                other => {
                    bail!("{}: tensor `{name}` is {other:?}; F32, F16, BF16 are read", place())
                }
            };
            let shape = view.shape().iter().map(|&n| n as i64).collect();
            let start = view.data().as_ptr() as usize - map.as_ptr() as usize;
            let bytes = start..start + view.data().len();
            let stored = Stored { file: self.files.len(), kind, shape, bytes };
            if let Some(earlier) = self.tensors.insert(name.clone(), stored) {
                let earlier = self.files[earlier.file].path.display();
                bail!("{}: tensor `{name}` is also in {earlier}", place());
            }
        }
        self.files.push(Mapped { path: path.to_path_buf(), map });
        Ok(())
    }

    fn check_names_and_shapes(&mut self, folder: &Path) -> Result<()> {
        let layout = Layout::new(&self.config);
        for param in layout.params() {
            let Some(stored) = self.tensors.get(&param.name) else {
                bail!(
                    "{}: no file holds tensor `{}`, which config.json demands; download or export \
                     the folder again",
                    folder.display(),
                    param.name
                );
            };
            let file = self.files[stored.file].path.display();
            ensure!(
                stored.shape == param.shape,
                "{file}: tensor `{}` has shape {:?}; config.json makes it {:?}",
                param.name,
                stored.shape,
                param.shape
            );
        }
        self.drop_copied_head(&layout)?;
        let expected: BTreeSet<&String> = layout.params().map(|param| &param.name).collect();
        for (name, stored) in &self.tensors {
            let file = self.files[stored.file].path.display();
            ensure!(expected.contains(&name), "{file}: tensor `{name}` is not part of this model");
        }
        Ok(())
    }

    /// Some writers store a tied head as well; equal bytes are welcome, others a contradiction.
    fn drop_copied_head(&mut self, layout: &Layout) -> Result<()> {
        let embed = &self.tensors[&layout.units[0].params[0].name];
        if let (true, Some(head)) =
            (self.config.tie_word_embeddings, self.tensors.get("lm_head.weight"))
        {
            ensure!(
                self.bytes(head) == self.bytes(embed),
                "{}: config.json ties the head to the embedding, but `lm_head.weight` differs from \
                 it; set tie_word_embeddings to false",
                self.files[head.file].path.display()
            );
            self.tensors.remove("lm_head.weight");
        }
        Ok(())
    }
}
