//! A rank's slices on the disk: one safetensors file per rank of a shard group, which ranks of
//! another number can read too.
//!
//! Each unit's flat buffer is cut into equal slices in rank order, so any range of it is a few
//! byte ranges of neighbouring files.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use record::disk::NewFile;
use record::publish::Digest;
use serde::Deserialize;
use serde_json::json;
use tch::{Device, Kind, Tensor};

/// What is kept of every element, by the names of torch's optimizer state.
pub const PARTS: [&str; 3] = ["master", "exp_avg", "exp_avg_sq"];

/// Slices are a multiple of so many elements: aligned for every kernel and collective.
const ALIGNMENT: usize = 8;

/// Elements of each of `ranks` equal slices of a buffer of `numel`, its padding included.
pub fn slice_length(numel: usize, ranks: usize) -> usize {
    numel.next_multiple_of(ranks * ALIGNMENT) / ranks
}

const ELEMENT: usize = size_of::<f32>();

/// Copies of a rank's slices in the host's memory, in the order of the file.
pub struct Snapshot {
    slices: Vec<(String, Tensor)>,
}

impl Snapshot {
    /// Copies `slices`, each fp32 and one-dimensional, named `unit.part`.
    pub fn copy(slices: impl Iterator<Item = (String, Tensor)>) -> Self {
        let host =
            |t: Tensor| if t.device().is_cuda() { t.to_device(Device::Cpu) } else { t.copy() };
        Self { slices: slices.map(|(name, t)| (name, host(t.detach()))).collect() }
    }

    /// Writes them as the new file `path`.
    pub fn write(&self, path: &Path) -> Result<Digest> {
        let (mut header, mut end) = (serde_json::Map::new(), 0);
        for (name, slice) in &self.slices {
            let (start, numel) = (end, slice.numel());
            end += numel * ELEMENT;
            let entry = json!({"dtype": "F32", "shape": [numel], "data_offsets": [start, end]});
            header.insert(name.clone(), entry);
        }
        let mut header = serde_json::to_string(&header)?;
        header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
        let mut file = NewFile::create(path)?;
        file.append(&(header.len() as u64).to_le_bytes())?;
        file.append(header.as_bytes())?;
        for (_, slice) in &self.slices {
            let mut bytes = vec![0; slice.numel() * ELEMENT];
            slice.copy_data_u8(&mut bytes, slice.numel());
            file.append(&bytes)?;
        }
        file.finish()
    }
}

/// The name of slice file `slice` of `slices`.
pub fn file_name(slice: usize, slices: usize) -> String {
    format!("slices-{slice:05}-of-{slices:05}.safetensors")
}

/// All slice files of a checkpoint, open for reading.
pub struct Slices {
    files: Vec<SliceFile>,
}

struct SliceFile {
    path: PathBuf,
    file: File,
    /// Where the data begins.
    start: u64,
    tensors: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

impl Slices {
    /// Opens the `slices` files of `folder`.
    pub fn open(folder: &Path, slices: usize) -> Result<Self> {
        let open = |slice| SliceFile::open(folder.join(file_name(slice, slices)));
        Ok(Self { files: (0..slices).map(open).collect::<Result<_>>()? })
    }

    /// Unit, part and elements of every flat buffer, padding included.
    pub fn contents(&self) -> Result<Vec<(String, String, usize)>> {
        let first = &self.files[0];
        let entry = |name: &String| {
            let (unit, part) = name.rsplit_once('.')?;
            Some((unit.to_owned(), part.to_owned(), first.length(name).ok()? * self.files.len()))
        };
        let entries = first.tensors.keys().map(entry).collect::<Option<Vec<_>>>();
        entries.with_context(|| format!("{} is no file of slices", first.path.display()))
    }

    /// The elements `range` of the whole flat buffer `unit.part`, which has `numel` of them;
    /// what lies behind those is 0.
    pub fn read(
        &self,
        unit: &str,
        part: &str,
        numel: usize,
        range: Range<usize>,
    ) -> Result<Tensor> {
        let name = format!("{unit}.{part}");
        let mut bytes = vec![0; range.len() * ELEMENT];
        let end = range.end.min(numel);
        let (mut at, slice) = (range.start, self.files[0].length(&name)?);
        ensure!(
            slice == slice_length(numel, self.files.len()),
            "{}: {name} has {} slices of {slice} elements, which is no buffer of {numel}",
            self.files[0].path.display(),
            self.files.len()
        );
        while at < end {
            let file = self.files.get(at / slice).with_context(|| {
                format!("{}: {name} ends before element {at}", self.files[0].path.display())
            })?;
            ensure!(
                file.length(&name)? == slice,
                "{}: {name} is not as long as in the other files",
                file.path.display()
            );
            let within = at % slice..slice.min(at % slice + end - at);
            let to = (at - range.start) * ELEMENT;
            let length = within.len() * ELEMENT;
            file.read(&name, within.start, &mut bytes[to..to + length])?;
            at += within.len();
        }
        Ok(Tensor::from_data_size(&bytes, &[range.len() as i64], Kind::Float))
    }
}

impl SliceFile {
    fn open(path: PathBuf) -> Result<Self> {
        let place = || format!("reading {}", path.display());
        let file = File::open(&path).with_context(place)?;
        let mut length = [0; 8];
        file.read_exact_at(&mut length, 0).with_context(place)?;
        let length = u64::from_le_bytes(length);
        ensure!(length <= 100_000_000, "{}: it is no safetensors file", path.display());
        let mut header = vec![0; length as usize];
        file.read_exact_at(&mut header, 8).with_context(place)?;
        let tensors = serde_json::from_slice(&header).with_context(place)?;
        Ok(Self { file, start: 8 + length, tensors, path })
    }

    fn entry(&self, name: &str) -> Result<&Entry> {
        let entry = self.tensors.get(name);
        entry.with_context(|| format!("{} has no {name}", self.path.display()))
    }

    fn length(&self, name: &str) -> Result<usize> {
        let Entry { shape, .. } = self.entry(name)?;
        ensure!(
            shape.len() == 1 && shape[0] > 0,
            "{}: {name} has the shape {shape:?}",
            self.path.display()
        );
        Ok(shape[0])
    }

    /// Fills `bytes` from element `start` of a tensor on.
    fn read(&self, name: &str, start: usize, bytes: &mut [u8]) -> Result<()> {
        let at = self.start + self.entry(name)?.data_offsets.0 + (start * ELEMENT) as u64;
        self.file
            .read_exact_at(bytes, at)
            .with_context(|| format!("reading {name} of {}", self.path.display()))
    }
}
