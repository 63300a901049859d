//! Record batches: arbitrary, cut, changed, and full of the smallest records and headers.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_client::Record;
use kafka_client::record_batch::{
    BatchBuilder, BatchError, BatchHeader, Compression, Encoder, HEADER_BYTES, Stamp, batches,
    compress, decode, decode_within,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::memory::peak;
use crate::{KIB, MIB, changed, changes};

/// Records are slices of their batch, so that reading them takes next to nothing.
const BOUND: usize = 4 * KIB;

/// A batch around `body`, whose checksum fits.
pub fn batch(codec: i16, records: i32, body: &[u8]) -> Bytes {
    let mut bytes = BytesMut::from(&[0; 8][..]);
    bytes.put_i32(i32::try_from(HEADER_BYTES - 12 + body.len()).unwrap());
    bytes.put_slice(&[0, 0, 0, 0, 2, 0, 0, 0, 0]);
    bytes.put_i16(codec);
    bytes.put_bytes(0, 34);
    bytes.put_i32(records);
    bytes.put_slice(body);
    let checksum = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&checksum.to_be_bytes());
    bytes.freeze()
}

/// Reads all records of a batch, one after another; how many there were.
pub fn read(batch: &Bytes, limit: usize) -> Result<usize, BatchError> {
    let (_, records) = decode_within(batch, limit)?;
    let mut count = 0;
    for record in records {
        record?;
        count += 1;
    }
    Ok(count)
}

type Field = Option<Vec<u8>>;
/// Key, value and headers.
type Parts = (Field, Field, Vec<(Vec<u8>, Field)>);

fn sound() -> impl Strategy<Value = Bytes> {
    let field = || option::of(vec(any::<u8>(), 0..30));
    let headers = vec((vec(any::<u8>(), 0..9), field()), 0..4);
    vec((field(), field(), headers), 1..20).prop_map(|records| built(&records))
}

fn built(records: &[Parts]) -> Bytes {
    let mut builder = BatchBuilder::with_capacity(0);
    for (key, value, headers) in records {
        let headers: Vec<_> = headers.iter().map(|(k, v)| (&k[..], v.as_deref())).collect();
        let (key, value) = (key.as_deref(), value.as_deref());
        let record = Record { partition: None, key, value, headers: &headers, timestamp_ms: 5 };
        assert!(builder.push_within(&record, usize::MAX));
    }
    builder.finish(Stamp::NONE)
}

fn within_bound(bytes: &Bytes) -> Result<usize, BatchError> {
    let (result, peak) = peak(|| {
        for batch in batches(bytes.clone()) {
            let _ = batch.and_then(|batch| read(&batch, MIB));
        }
        let _ = BatchHeader::parse(bytes);
        read(bytes, MIB)
    });
    // A codec may have been named by a changed byte.
    let codec = BatchHeader::parse(bytes).map_or(0, |header| header.codec());
    let bound = if codec == 0 { BOUND } else { crate::codecs::bound(MIB) };
    assert!(peak <= bound, "{peak}: {bytes:?}");
    result
}

proptest! {
    #[test]
    fn arbitrary_batches_are_read_or_refused(bytes in vec(any::<u8>(), 0..300), records: i32) {
        let _ = within_bound(&bytes.clone().into());
        let _ = within_bound(&batch(0, records % 50, &bytes));
    }

    #[test]
    fn no_cut_of_a_batch_is_read(batch in sound()) {
        for cut in 0..batch.len() {
            prop_assert!(within_bound(&batch.slice(..cut)).is_err(), "{}", cut);
        }
    }

    /// With a checksum that fits, so that the records are looked at.
    #[test]
    fn a_changed_batch_is_read_or_refused(bytes in sound(), changes in changes(), cut: prop::sample::Index) {
        let count = BatchHeader::parse(&bytes).unwrap().records;
        let body = &bytes[HEADER_BYTES..];
        let _ = within_bound(&changed(&bytes, &changes).into());
        let _ = within_bound(&batch(0, count, &changed(body, &changes)));
        let cut = &body[..cut.index(body.len())];
        prop_assert!(within_bound(&batch(0, count, cut)).is_err());
    }
}

/// Length, attributes, both deltas, no key, no value, no headers.
const SMALLEST: [u8; 7] = [12, 0, 0, 0, 1, 1, 0];

#[test]
fn nine_million_tiny_records_take_no_memory() {
    let count = 9_000_000;
    let body = SMALLEST.repeat(count);
    let plain = batch(0, i32::try_from(count).unwrap(), &body);
    let (got, peak_plain) = peak(|| read(&plain, 64 * MIB));
    assert_eq!(got, Ok(count));
    assert!(peak_plain <= BOUND, "{peak_plain}");

    let bomb = compress(&plain, &mut Encoder::new(Compression::Zstd(1))).unwrap();
    assert!(bomb.len() < 20 * KIB, "{}", bomb.len());
    let (got, peak) = peak(|| read(&bomb, 64 * MIB));
    assert_eq!(got, Ok(count));
    println!(
        "{count} records of 7 bytes: peak {peak_plain}, from {} bytes of zstd {peak}",
        bomb.len()
    );
    assert!(peak <= crate::codecs::bound(64 * MIB), "{peak}");
}

#[test]
fn a_record_of_millions_of_headers_takes_no_memory() {
    let headers = 5_000_000;
    let mut record = BytesMut::from(&[0, 0, 0, 1, 1][..]);
    put_varint(&mut record, headers);
    record.put_bytes(0, 2 * headers);
    let mut body = BytesMut::new();
    put_varint(&mut body, record.len());
    body.extend_from_slice(&record);
    let batch = batch(0, 1, &body);
    let (counted, peak) = peak(|| {
        let (_, records) = decode(&batch).unwrap();
        records.map(|record| record.unwrap().headers.iter().count()).sum::<usize>()
    });
    assert_eq!(counted, headers);
    assert!(peak <= BOUND, "{peak}");
}

#[test]
fn huge_counts_and_lengths_take_no_memory() {
    let huge = [0xfe, 0xff, 0xff, 0xff, 0x0f];
    let mut tried = 0;
    for at in 0..SMALLEST.len() {
        let mut body = SMALLEST.to_vec();
        body.splice(at..=at, huge);
        body[0] = if at == 0 { body[0] } else { 20 };
        let batch = batch(0, 1, &body);
        // Timestamps and offsets may be any number.
        assert_eq!(within_bound(&batch).is_err(), !(1..=3).contains(&at) || at == 1, "{at}");
        tried += 1;
    }
    assert_eq!(tried, 7);
    assert!(within_bound(&batch(0, i32::MAX, &SMALLEST)).is_err());
    assert!(within_bound(&batch(0, -1, &SMALLEST)).is_err());
}

/// A zig-zag varint of a length.
fn put_varint(out: &mut BytesMut, length: usize) {
    let mut value = length * 2;
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}
