//! A batch that grows record by record; each record is serialized once, when it is added.

use bytes::{Bytes, BytesMut};

use super::header::{BatchHeader, HEADER_BYTES, Stamp};
use super::record::{self, Deltas, Record};

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
        self.len() + record::framed_bytes(record::body_bytes(record, self.deltas(record)))
    }

    /// Adds a record at the end if the batch has at most `most` bytes with it; says whether it
    /// did. An empty batch takes any record.
    pub fn push_within(&mut self, record: &Record<'_>, most: usize) -> bool {
        let deltas = self.deltas(record);
        let body = record::body_bytes(record, deltas);
        let framed = record::framed_bytes(body);
        if !self.is_empty() && self.len() + framed > most {
            return false;
        }
        if self.is_empty() {
            (self.base_timestamp, self.max_timestamp) = (record.timestamp_ms, record.timestamp_ms);
        }
        self.max_timestamp = self.max_timestamp.max(record.timestamp_ms);
        self.bytes.reserve(framed);
        record::put(&mut self.bytes, record, deltas, body);
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
