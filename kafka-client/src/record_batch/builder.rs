//! A record to be written, and the batch that grows by it: each is serialized once, when it is added.

use std::time::SystemTime;

use bytes::{BufMut, Bytes, BytesMut};

use super::header::{BatchHeader, HEADER_BYTES, Stamp};
use super::varint::{int_bytes, long_bytes, put_int, put_long};

/// A record to be written. Missing key, value and header values are `None`, which differs from
/// empty ones; headers keep their order and may repeat (KIP-82).
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// The partition, if the caller chooses it; it must exist.
    pub partition: Option<i32>,
    /// The key, from which the partition follows if none is given.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers in order.
    pub headers: &'a [(&'a [u8], Option<&'a [u8]>)],
    /// Creation time, ms since the Unix epoch, not negative.
    pub timestamp_ms: i64,
}

/// An open batch without compression.
#[derive(Debug)]
pub struct BatchBuilder {
    bytes: BytesMut,
    records: i32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl BatchBuilder {
    /// An empty batch with room for `capacity` bytes; it grows when they are used up.
    pub fn with_capacity(capacity: usize) -> Self {
        let mut bytes = BytesMut::with_capacity(capacity.max(HEADER_BYTES));
        bytes.resize(HEADER_BYTES, 0);
        Self { bytes, records: 0, base_timestamp: 0, max_timestamp: 0 }
    }

    /// Bytes of the batch so far, header included.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Whether no record was added.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Number of records.
    pub fn records(&self) -> usize {
        usize::try_from(self.records).unwrap_or(0)
    }

    /// Exact bytes of the batch after adding `record`.
    pub fn len_with(&self, record: &Record<'_>) -> usize {
        self.len() + framed_bytes(body_bytes(record, self.deltas(record)))
    }

    /// Adds a record at the end if the batch has at most `most` bytes with it; says whether it
    /// did. An empty batch takes any record.
    pub fn push_within(&mut self, record: &Record<'_>, most: usize) -> bool {
        let deltas = self.deltas(record);
        let body = body_bytes(record, deltas);
        let framed = framed_bytes(body);
        if !self.is_empty() && self.len() + framed > most {
            return false;
        }
        if self.is_empty() {
            (self.base_timestamp, self.max_timestamp) = (record.timestamp_ms, record.timestamp_ms);
        }
        self.max_timestamp = self.max_timestamp.max(record.timestamp_ms);
        self.bytes.reserve(framed);
        put_record(&mut self.bytes, record, deltas, body);
        self.records += 1;
        true
    }

    /// Completes the header and the checksum.
    pub fn finish(mut self, stamp: Stamp) -> Bytes {
        let header = BatchHeader {
            base_offset: 0,
            length: 0,
            leader_epoch: -1,
            checksum: 0,
            attributes: 0,
            last_offset_delta: (self.records - 1).max(0),
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id: stamp.producer_id,
            producer_epoch: stamp.producer_epoch,
            base_sequence: stamp.base_sequence,
            records: self.records,
        };
        header.seal(&mut self.bytes);
        self.bytes.freeze()
    }

    fn deltas(&self, record: &Record<'_>) -> Deltas {
        let base = if self.is_empty() { record.timestamp_ms } else { self.base_timestamp };
        // Both are times the producer accepted, thus not negative: the difference cannot overflow.
        Deltas { offset: self.records, timestamp: record.timestamp_ms.wrapping_sub(base) }
    }
}

impl<'a> Record<'a> {
    /// A record with this value and the time that it is now, without a key and headers.
    #[must_use]
    pub fn new(value: &'a [u8]) -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let timestamp_ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        Self { partition: None, key: None, value: Some(value), headers: &[], timestamp_ms }
    }

    /// The same with a key.
    #[must_use]
    pub fn key(self, key: &'a [u8]) -> Self {
        Self { key: Some(key), ..self }
    }

    /// The same with these headers.
    #[must_use]
    pub fn headers(self, headers: &'a [(&'a [u8], Option<&'a [u8]>)]) -> Self {
        Self { headers, ..self }
    }
}

/// Where a record stands relative to the header of its batch.
#[derive(Clone, Copy)]
struct Deltas {
    offset: i32,
    timestamp: i64,
}

/// Bytes of the record without its leading length.
fn body_bytes(record: &Record<'_>, deltas: Deltas) -> usize {
    let headers: usize = record
        .headers
        .iter()
        .map(|(key, value)| field_bytes(Some(key)) + field_bytes(*value))
        .sum();
    1 + long_bytes(deltas.timestamp)
        + int_bytes(deltas.offset)
        + field_bytes(record.key)
        + field_bytes(record.value)
        + int_bytes(as_i32(record.headers.len()))
        + headers
}

/// Appends the record, whose body has `body` bytes.
fn put_record(out: &mut impl BufMut, record: &Record<'_>, deltas: Deltas, body: usize) {
    put_int(out, as_i32(body));
    out.put_i8(0);
    put_long(out, deltas.timestamp);
    put_int(out, deltas.offset);
    put_field(out, record.key);
    put_field(out, record.value);
    put_int(out, as_i32(record.headers.len()));
    for (key, value) in record.headers {
        put_field(out, Some(key));
        put_field(out, *value);
    }
}

/// Bytes of a record in a batch, its leading length included.
fn framed_bytes(body: usize) -> usize {
    int_bytes(as_i32(body)) + body
}

fn field_bytes(field: Option<&[u8]>) -> usize {
    field.map_or(1, |bytes| int_bytes(as_i32(bytes.len())) + bytes.len())
}

fn put_field(out: &mut impl BufMut, field: Option<&[u8]>) {
    match field {
        None => put_int(out, -1),
        Some(bytes) => {
            put_int(out, as_i32(bytes.len()));
            out.put_slice(bytes);
        }
    }
}

/// Lengths are bounded by the batch, which is far below 2³¹.
fn as_i32(len: usize) -> i32 {
    i32::try_from(len).unwrap_or(i32::MAX)
}
