//! TensorBoard's event files, as far as scalars need them.
//!
//! Written by hand because the crate for it panics, in a thread of its own, when a disk is full. A
//! file is a row of TFRecords, each a protobuf message `Event` (tensorflow/core/util/event.proto).

use std::path::Path;
use std::time::SystemTime;

use anyhow::Result;
use record::disk::{self, NewFile};

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
        this.append(&[double(1, now), bytes(3, b"brain.Event:2")].concat())?;
        Ok(this)
    }

    /// Adds the values of a step by their tags.
    pub fn step(&mut self, step: usize, values: &[(&str, f64)]) -> Result<()> {
        let value = |(tag, value): &(&str, f64)| {
            let simple = [vec![key(2, 5)], (*value as f32).to_le_bytes().to_vec()].concat();
            bytes(1, &[bytes(1, tag.as_bytes()), simple].concat())
        };
        let summary: Vec<u8> = values.iter().flat_map(value).collect();
        let step = [vec![key(2, 0)], varint(step)].concat();
        self.append(&[double(1, now()), step, bytes(5, &summary)].concat())
    }

    /// A TFRecord: length and data, each with its checksum.
    fn append(&mut self, event: &[u8]) -> Result<()> {
        let length = (event.len() as u64).to_le_bytes();
        let sum = |bytes: &[u8]| masked(crc32c(bytes)).to_le_bytes();
        self.file.append(&[&length[..], &sum(&length), event, &sum(event)].concat())
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

/// What stands before field `number`: 0 an integer, 1 eight bytes, 2 so many bytes, 5 four bytes.
fn key(number: u8, kind: u8) -> u8 {
    number << 3 | kind
}

fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn double(number: u8, value: f64) -> Vec<u8> {
    [vec![key(number, 1)], value.to_le_bytes().to_vec()].concat()
}

fn bytes(number: u8, value: &[u8]) -> Vec<u8> {
    [vec![key(number, 2)], varint(value.len()), value.to_vec()].concat()
}

/// Castagnoli's CRC, bit by bit: a step has a few hundred bytes.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1)))
    })
}

/// As TFRecords store it.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3720, B.4, and the catalogue's check value.
    #[test]
    fn checksums_are_castagnolis() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }
}
