//! Stories about batches: what goes in comes out, and nothing on the wire can hurt.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

mod golden;
mod pitfalls;

type Field = Option<Vec<u8>>;
type Parts = (Field, Field, Vec<(Vec<u8>, Field)>, i64);

fn field(most: usize) -> impl Strategy<Value = Field> {
    option::of(vec(any::<u8>(), 0..most))
}

fn parts() -> impl Strategy<Value = Vec<Parts>> {
    let headers = vec((vec(any::<u8>(), 0..9), field(9)), 0..4);
    vec((field(40), field(200), headers, 0..=i64::MAX), 1..30)
}

fn build(parts: &[Parts]) -> (Bytes, usize) {
    let mut builder = BatchBuilder::with_capacity(0);
    let mut foreseen = 0;
    for (key, value, headers, timestamp_ms) in parts {
        let headers: Vec<_> = headers.iter().map(|(k, v)| (&k[..], v.as_deref())).collect();
        let record = Record {
            partition: None,
            key: key.as_deref(),
            value: value.as_deref(),
            headers: &headers,
            timestamp_ms: *timestamp_ms,
        };
        foreseen = builder.len_with(&record);
        assert!(builder.push_within(&record, usize::MAX));
    }
    (builder.finish(Stamp::NONE), foreseen)
}

fn record(value: &[u8]) -> Record<'_> {
    Record { partition: None, key: None, value: Some(value), headers: &[], timestamp_ms: 5 }
}

fn resealed(batch: &Bytes, change: impl FnOnce(&mut [u8])) -> Bytes {
    let mut bytes = batch.to_vec();
    change(&mut bytes);
    let checksum = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&checksum.to_be_bytes());
    bytes.into()
}

proptest! {
    #[test]
    fn what_goes_in_comes_out(parts in parts()) {
        let (batch, foreseen) = build(&parts);
        prop_assert_eq!(batch.len(), foreseen);
        let (header, records) = decode_all(&batch).unwrap();
        prop_assert_eq!(header.next_offset().unwrap(), parts.len() as i64);
        prop_assert_eq!(header.max_timestamp, parts.iter().map(|p| p.3).max().unwrap());
        prop_assert_eq!(records.len(), parts.len());
        for (index, (record, part)) in records.iter().zip(&parts).enumerate() {
            prop_assert_eq!(record.offset, index as i64);
            prop_assert_eq!(record.timestamp_ms, part.3);
            prop_assert_eq!(record.key.as_deref(), part.0.as_deref());
            prop_assert_eq!(record.value.as_deref(), part.1.as_deref());
            let headers: Vec<_> = record.headers.iter()
                .map(|(k, v)| (k.to_vec(), v.map(|v| v.to_vec()))).collect();
            prop_assert_eq!(&headers, &part.2);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        let bytes = Bytes::from(bytes);
        let _ = decode_all(&bytes);
        for batch in batches(bytes).take(400) {
            let _ = batch.map(|batch| decode_all(&batch));
        }
    }

    #[test]
    fn damage_behind_a_valid_checksum_never_panics(
        parts in parts(), at in 21usize..400, byte: u8, count: i32,
    ) {
        let (batch, _) = build(&parts);
        let at = at.min(batch.len() - 1);
        let _ = decode_all(&resealed(&batch, |bytes| bytes[at] = byte));
        let recounted = resealed(&batch, |b| b[57..61].copy_from_slice(&count.to_be_bytes()));
        let agrees = usize::try_from(count).is_ok_and(|count| count == parts.len());
        prop_assert_eq!(decode_all(&recounted).is_ok(), agrees);
    }

    #[test]
    fn a_cut_batch_is_left_out(parts in parts(), cut in 0usize..10_000) {
        let (batch, _) = build(&parts);
        let cut = cut % batch.len();
        prop_assert!(decode_all(&batch.slice(..cut)).is_err());
        let mut twice = batch.to_vec();
        twice.extend_from_slice(&batch[..cut]);
        let whole: Vec<_> = batches(twice.into()).collect();
        prop_assert_eq!(whole, vec![Ok(batch)]);
    }
}

#[test]
fn decoded_values_are_slices_of_the_frame() {
    let mut builder = BatchBuilder::with_capacity(0);
    assert!(builder.push_within(&record(b"a value"), usize::MAX));
    let batch = builder.finish(Stamp::NONE);
    let (_, records) = decode_all(&batch).unwrap();
    let value = records[0].value.as_ref().unwrap();
    assert!(batch.as_ptr_range().contains(&value.as_ptr()));
}

#[test]
fn a_full_batch_takes_no_more_but_an_empty_one_takes_any_record() {
    let mut builder = BatchBuilder::with_capacity(0);
    assert!(builder.push_within(&record(&[7; 500]), 100));
    assert!(!builder.push_within(&record(b""), 100));
    assert_eq!(builder.records(), 1);
}

#[test]
fn a_flipped_bit_fails_the_checksum() {
    let mut builder = BatchBuilder::with_capacity(0);
    assert!(builder.push_within(&record(b"value"), usize::MAX));
    let mut bytes = builder.finish(Stamp::NONE).to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    assert!(matches!(decode_all(&bytes.into()), Err(BatchError::Checksum { .. })));
}

#[test]
fn log_append_time_is_the_time_of_every_record() {
    let mut builder = BatchBuilder::with_capacity(0);
    assert!(builder.push_within(&record(b"value"), usize::MAX));
    let stamped = resealed(&builder.finish(Stamp::NONE), |bytes| {
        bytes[22] |= 0b1000;
        bytes[35..43].copy_from_slice(&77i64.to_be_bytes());
    });
    assert_eq!(decode_all(&stamped).unwrap().1[0].timestamp_ms, 77);
}

#[test]
fn an_empty_compacted_batch_still_tells_the_next_offset() {
    let mut builder = BatchBuilder::with_capacity(0);
    assert!(builder.push_within(&record(b"value"), usize::MAX));
    let emptied = resealed(&builder.finish(Stamp::NONE).slice(..HEADER_BYTES), |bytes| {
        bytes[0..8].copy_from_slice(&100i64.to_be_bytes());
        bytes[8..12].copy_from_slice(&49i32.to_be_bytes());
        bytes[23..27].copy_from_slice(&9i32.to_be_bytes());
        bytes[57..61].copy_from_slice(&0i32.to_be_bytes());
    });
    let (header, records) = decode_all(&emptied).unwrap();
    assert_eq!((header.next_offset(), records.len()), (Ok(110), 0));
}

#[test]
fn an_old_message_format_can_be_stepped_over() {
    let mut bytes = vec![0; 40];
    bytes[7] = 42;
    bytes[11] = 28;
    bytes[16] = 1;
    let error = BatchError::UnsupportedMagic { magic: 1, offset: 42, next_offset: 43 };
    let messages: Vec<_> = batches(bytes.into()).collect();
    assert_eq!(decode_all(messages[0].as_ref().unwrap()), Err(error));
}

#[test]
fn a_wrong_codec_is_told() {
    let mut builder = BatchBuilder::with_capacity(0);
    assert!(builder.push_within(&record(b"value"), usize::MAX));
    let batch = builder.finish(Stamp::NONE);
    for (codec, name) in [(1, "gzip"), (2, "snappy"), (3, "lz4"), (4, "zstd")] {
        let error = decode_all(&resealed(&batch, |bytes| bytes[22] |= codec)).unwrap_err();
        let expected = |codec| codec == name;
        assert!(
            matches!(error, BatchError::Compressed { codec, .. } if expected(codec)),
            "{error}"
        );
    }
    assert_eq!(decode_all(&resealed(&batch, |bytes| bytes[22] |= 5)), Err(BatchError::Codec(5)));
}
