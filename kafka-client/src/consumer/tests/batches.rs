//! Batches that producers do not write: compacted, empty, of transactions, markers.

use bytes::{BufMut, Bytes, BytesMut};

use crate::record_batch::{Compression, Encoder, HEADER_BYTES, compress};

/// A batch in the making.
#[derive(Debug, Clone)]
pub(super) struct TestBatch {
    base_offset: i64,
    attributes: i16,
    producer_id: i64,
    last_offset_delta: i32,
    time: i64,
    records: i32,
    body: BytesMut,
}

/// Bytes in front of the checksum, and with it.
const CHECKSUM: std::ops::Range<usize> = 17..21;

impl TestBatch {
    /// Records of these offset deltas and nothing else; each has its delta as its value.
    pub(super) fn of(deltas: &[i32]) -> Self {
        let (mut body, records) = (BytesMut::new(), i32::try_from(deltas.len()).unwrap());
        for delta in deltas {
            put_record(&mut body, *delta, &[], &[u8::try_from(*delta).unwrap()]);
        }
        let last_offset_delta = deltas.last().copied().unwrap_or(0);
        Self {
            base_offset: 0,
            attributes: 0,
            producer_id: -1,
            last_offset_delta,
            time: 5,
            records,
            body,
        }
    }

    /// The marker that ends a transaction.
    pub(super) fn marker(producer_id: i64, is_commit: bool) -> Self {
        let mut batch = Self { attributes: 0b11_0000, producer_id, ..Self::of(&[]) };
        put_record(&mut batch.body, 0, &[0, 0, 0, u8::from(is_commit)], &[0; 6]);
        batch.records = 1;
        batch
    }

    /// Up to this delta, of which compaction has removed the last records.
    pub(super) fn until(self, last_offset_delta: i32) -> Self {
        Self { last_offset_delta, ..self }
    }

    pub(super) fn at(self, base_offset: i64) -> Self {
        Self { base_offset, ..self }
    }

    /// All records are of this time.
    pub(super) fn of_time(self, time: i64) -> Self {
        Self { time, ..self }
    }

    /// In a transaction of this producer.
    pub(super) fn in_transaction(self, producer_id: i64) -> Self {
        Self { attributes: 0b1_0000, producer_id, ..self }
    }

    /// A record whose value is so many zeros.
    pub(super) fn of_zeros(bytes: usize) -> Self {
        let mut batch = Self::of(&[]);
        put_record(&mut batch.body, 0, &[], &vec![0; bytes]);
        batch.records = 1;
        batch
    }

    pub(super) fn bytes(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(HEADER_BYTES + self.body.len());
        bytes.put_i64(self.base_offset);
        bytes.put_i32(i32::try_from(HEADER_BYTES - 12 + self.body.len()).unwrap());
        bytes.put_slice(&[0, 0, 0, 0, 2, 0, 0, 0, 0]);
        bytes.put_i16(self.attributes);
        bytes.put_i32(self.last_offset_delta);
        bytes.put_i64(self.time);
        bytes.put_i64(self.time);
        bytes.put_i64(self.producer_id);
        bytes.put_slice(&[0; 2]);
        bytes.put_i32(-1);
        bytes.put_i32(self.records);
        bytes.put_slice(&self.body);
        let checksum = crc32c::crc32c(&bytes[CHECKSUM.end..]);
        bytes[CHECKSUM].copy_from_slice(&checksum.to_be_bytes());
        bytes.freeze()
    }

    pub(super) fn compressed(&self, compression: Compression) -> Bytes {
        compress(&self.bytes(), &mut Encoder::new(compression)).unwrap()
    }
}

fn put_record(body: &mut BytesMut, delta: i32, key: &[u8], value: &[u8]) {
    let mut record = BytesMut::from(&[0, 0][..]);
    put_varint(&mut record, i64::from(delta));
    if key.is_empty() {
        put_varint(&mut record, -1);
    } else {
        put_varint(&mut record, key.len() as i64);
        record.put_slice(key);
    }
    put_varint(&mut record, value.len() as i64);
    record.put_slice(value);
    put_varint(&mut record, 0);
    put_varint(body, record.len() as i64);
    body.put_slice(&record);
}

fn put_varint(out: &mut BytesMut, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.put_u8((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}
