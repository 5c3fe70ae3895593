//! Memory of reading does not grow with a file: alone in its process, to measure its peak.
#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use record::table::stream_rows;

/// Bytes of all questions of a file, read row by row.
fn question_bytes(file: &Path) -> usize {
    stream_rows(file).unwrap().map(|row| row.unwrap().question.len()).sum()
}

/// One row group with `rows` different questions of 1 MB, each stored (a few KB in all).
fn write_plain(file: &Path, rows: usize) {
    let text = "long ".repeat(200_000);
    let properties = WriterProperties::builder()
        .set_dictionary_enabled(false)
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).unwrap()));
    let batch = |start: usize| {
        let texts = (start..start + 16).map(|row| format!("{row:08}{text}"));
        let texts = Arc::new(StringArray::from_iter_values(texts));
        RecordBatch::try_from_iter([("question", texts as _)]).unwrap()
    };
    let file = File::create(file).unwrap();
    let properties = Some(properties.build());
    let mut writer = ArrowWriter::try_new(file, batch(0).schema(), properties).unwrap();
    for start in (0..rows).step_by(16) {
        writer.write(&batch(start)).unwrap();
    }
    assert_eq!(writer.close().unwrap().num_row_groups(), 1);
}

#[test]
fn gigabytes_of_text_pass_through_little_memory() {
    // 2,200 rows that share one value of 1 MB (tests/oracle/parquet_fixtures.py): a reader that
    // copies them into one column fails beyond 2 GiB.
    let repeated = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/repeated.parquet");
    assert_eq!(question_bytes(&repeated), 2_200_000_000);

    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("plain.parquet");
    write_plain(&plain, 320);
    assert_eq!(question_bytes(&plain), 320 * 1_000_008);

    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kilobytes: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    eprintln!("peak memory {kilobytes} kB");
    assert!(kilobytes < 200_000, "peak memory {kilobytes} kB");
}
