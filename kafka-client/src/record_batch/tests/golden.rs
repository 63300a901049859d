//! Batches that other clients wrote are read, and ours are those that Java would write.

use bytes::Bytes;

use crate::record_batch::{
    BatchBuilder, BatchHeader, Record, Stamp, StoredRecord, batches, decode_all, sequence_after,
};

pub(super) const GZIP: i16 = 1;
pub(super) const SNAPPY: i16 = 2;
pub(super) const LZ4: i16 = 3;
pub(super) const ZSTD: i16 = 4;

macro_rules! golden {
    ($name:literal) => {
        Bytes::from_static(include_bytes!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/golden/",
            $name,
            ".bin"
        )))
    };
}

pub(super) use golden;

/// A record with its headers in a list.
type Listed = (i64, i64, Option<Bytes>, Option<Bytes>, Vec<(Bytes, Option<Bytes>)>);

fn listed(record: StoredRecord) -> Listed {
    let StoredRecord { offset, timestamp_ms, key, value, headers, .. } = record;
    (offset, timestamp_ms, key, value, headers.iter().collect())
}

/// The records that `tests/golden/Generate.java` and `bench/examples/librdkafka_batches.rs` write.
fn golden_record(number: i64) -> Listed {
    let tag = || Bytes::from_static(b"tag");
    let key = (number % 3 != 0).then(|| format!("key-{number}").into());
    let value = format!("record {number}, ").repeat(usize::try_from(number % 80).unwrap());
    let value = (number % 7 != 3).then(|| value.into());
    let headers = vec![(tag(), Some(Bytes::from_static(b"one"))), (tag(), None)];
    let headers = if number % 5 == 0 { headers } else { Vec::new() };
    (number, 1_700_000_000_000 + number * 7, key, value, headers)
}

/// The header and records of the only batch there is.
pub(super) fn read(golden: &Bytes) -> (BatchHeader, Vec<Listed>) {
    let found: Vec<_> = batches(golden.clone()).collect();
    assert_eq!(found, [Ok(golden.clone())]);
    let (header, stored) = decode_all(golden).unwrap();
    (header, stored.into_iter().map(listed).collect())
}

fn is_read(golden: &Bytes, codec: i16, records: i64) {
    let (header, stored) = read(golden);
    assert_eq!(header.codec(), codec);
    assert!(stored == (0..records).map(golden_record).collect::<Vec<_>>());
}

#[test]
fn batches_of_kafkas_java_client_are_read() {
    is_read(&golden!("none"), 0, 3);
    is_read(&golden!("gzip"), GZIP, 300);
    is_read(&golden!("gzip-9"), GZIP, 300);
    is_read(&golden!("lz4"), LZ4, 300);
    is_read(&golden!("lz4-17"), LZ4, 300);
    is_read(&golden!("zstd"), ZSTD, 300);
    is_read(&golden!("zstd-22"), ZSTD, 300);
}

#[test]
fn xerial_snappy_from_java() {
    is_read(&golden!("snappy"), SNAPPY, 300);
}

#[test]
fn batches_of_librdkafka_are_read() {
    is_read(&golden!("librdkafka-none"), 0, 3);
    is_read(&golden!("librdkafka-gzip"), GZIP, 300);
    is_read(&golden!("librdkafka-lz4"), LZ4, 300);
    is_read(&golden!("librdkafka-zstd"), ZSTD, 300);
}

#[test]
fn raw_snappy_from_librdkafka() {
    is_read(&golden!("librdkafka-snappy"), SNAPPY, 300);
}

/// What we write of the same records.
fn rewritten(records: &[Listed], stamp: Stamp) -> Bytes {
    let mut builder = BatchBuilder::with_capacity(0);
    for (_, timestamp_ms, key, value, headers) in records {
        let headers: Vec<_> = headers.iter().map(|(k, v)| (&k[..], v.as_deref())).collect();
        let (key, value, timestamp_ms) = (key.as_deref(), value.as_deref(), *timestamp_ms);
        let record = Record { partition: None, key, value, headers: &headers, timestamp_ms };
        assert!(builder.push_within(&record, usize::MAX));
    }
    builder.finish(stamp)
}

#[test]
fn our_bytes_are_those_of_java() {
    for golden in [golden!("none"), golden!("wrap")] {
        let (header, records) = read(&golden);
        assert_eq!(rewritten(&records, header.stamp()), golden);
    }
}

#[test]
fn missing_empty_and_binary_fields_of_java_differ() {
    let (header, records) = read(&golden!("wrap"));
    let all: Bytes = (0..=255).collect::<Vec<u8>>().into();
    let text = |text: &'static str| Bytes::from_static(text.as_bytes());
    let headers = vec![
        (text("twice"), Some(text("one"))),
        (text(""), Some(all.clone())),
        (text("twice"), None),
        (text("twice"), Some(text(""))),
        (text("schlüssel"), Some(text("ü"))),
    ];
    let expected = [
        (0, 5, None, None, Vec::new()),
        (1, 4, Some(text("")), Some(text("")), Vec::new()),
        (2, 6, Some(all.clone()), Some(all), headers),
        (3, 5, None, Some(text("last")), Vec::new()),
    ];
    assert_eq!(records, expected);
    assert_eq!(header.max_timestamp, 6);
    assert_eq!(header.stamp().base_sequence, i32::MAX - 1);
    assert_eq!(sequence_after(header.base_sequence, records.len() - 1), 1);
}

#[test]
fn a_control_batch_of_java_is_told_by_its_bits() {
    const TRANSACTIONAL: i16 = 0x10;
    const CONTROL: i16 = 0x20;
    let (header, records) = read(&golden!("control"));
    assert_eq!(header.attributes, TRANSACTIONAL | CONTROL);
    assert_eq!((header.next_offset(), header.producer_id), (Ok(111), 7));
    // Version 0, type 1: a commit.
    assert_eq!(records[0].2, Some(Bytes::from_static(&[0, 0, 0, 1])));
}
