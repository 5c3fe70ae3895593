//! TensorBoard's event files: tensorboard-rs makes the records, and we write them.
//!
//! Its own writer panics, in a thread of its own, when a disk is full.

use std::path::Path;
use std::time::SystemTime;

use anyhow::Result;
use protobuf::Message;
use record::disk::{self, NewFile};
use tensorboard_proto::event::Event;
use tensorboard_proto::summary::Summary;
use tensorboard_rs::record_writer::RecordWriter;
use tensorboard_rs::summary::scalar;

/// An event file that is being written.
pub struct Events {
    file: NewFile,
}

impl Events {
    /// A new file in `folder`, which is made if it is not there.
    pub fn create(folder: &Path) -> Result<Self> {
        if !folder.is_dir() {
            disk::make_folder(folder)?;
        }
        let (now, host, process) = (now(), record::lock::host(), std::process::id());
        let name = format!("events.out.tfevents.{:010}.{host}.{process}.0", now as u64);
        let mut this = Self { file: NewFile::create(&folder.join(name))? };
        let mut event = Event::new();
        event.set_file_version("brain.Event:2".into());
        this.append(event)?;
        Ok(this)
    }

    /// Adds the values of a step by their tags.
    pub fn step(&mut self, step: usize, values: &[(&str, f64)]) -> Result<()> {
        let mut summary = Summary::new();
        for (tag, value) in values {
            summary.value.extend(scalar(tag, *value as f32).value);
        }
        let mut event = Event::new();
        event.set_step(step as i64);
        event.set_summary(summary);
        self.append(event)
    }

    fn append(&mut self, mut event: Event) -> Result<()> {
        event.set_wall_time(now());
        let mut bytes = Vec::new();
        RecordWriter::new(&mut bytes).write(&event.write_to_bytes()?)?;
        self.file.append(&bytes)
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}
