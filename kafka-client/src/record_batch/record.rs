//! One record on the way out: its exact size and its bytes.

use bytes::BufMut;

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

/// Where a record stands relative to the header of its batch.
#[derive(Clone, Copy)]
pub(super) struct Deltas {
    pub(super) offset: i32,
    pub(super) timestamp: i64,
}

/// Bytes of the record without its leading length.
pub(super) fn body_bytes(record: &Record<'_>, deltas: Deltas) -> usize {
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
pub(super) fn put(out: &mut impl BufMut, record: &Record<'_>, deltas: Deltas, body: usize) {
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
pub(super) fn framed_bytes(body: usize) -> usize {
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
