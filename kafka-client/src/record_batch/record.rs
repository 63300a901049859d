//! One record: its exact size, its bytes, and the way back.

use bytes::{BufMut, Bytes};

use super::varint::{int_bytes, long_bytes, put_int, put_long, take_int, take_long};
use super::{BatchError, BatchHeader};

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

/// A record as it is in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// Its offset in the partition.
    pub offset: i64,
    /// Its time, ms since the Unix epoch: set by the producer, or by the broker (`LogAppendTime`).
    pub timestamp_ms: i64,
    /// The key.
    pub key: Option<Bytes>,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Headers in order, repeated ones included.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// Bytes of the smallest record: its length, attributes, two deltas, two missing lengths and a
/// header count.
const SMALLEST_RECORD: usize = 7;
/// Bytes of the smallest header: two lengths.
const SMALLEST_HEADER: usize = 2;

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

/// Reads exactly the records that the header counts.
pub(super) fn decode_all(
    header: &BatchHeader,
    mut body: Bytes,
) -> Result<Vec<StoredRecord>, BatchError> {
    let count = counted("records", header.records, body.len(), SMALLEST_RECORD)?;
    let mut records = Vec::with_capacity(count);
    for _ in 0..count {
        let record = cut(&mut body, "record", take_int)?.ok_or(BatchError::Overrun {
            what: "record",
            length: -1,
            bytes: body.len(),
        })?;
        records.push(decode_one(header, record)?);
    }
    if body.is_empty() { Ok(records) } else { Err(BatchError::LeftOver(body.len())) }
}

fn decode_one(header: &BatchHeader, mut body: Bytes) -> Result<StoredRecord, BatchError> {
    if body.is_empty() {
        return Err(BatchError::Overrun { what: "record", length: 1, bytes: 0 });
    }
    // The attributes of a record are unused so far, and readers ignore them.
    let _attributes = body.split_to(1);
    let timestamp_delta = read(&mut body, take_long)?;
    let offset_delta = read(&mut body, take_int)?;
    let key = cut(&mut body, "key", take_int)?;
    let value = cut(&mut body, "value", take_int)?;
    let count = read(&mut body, take_int)?;
    let count = counted("headers", count, body.len(), SMALLEST_HEADER)?;
    let mut headers = Vec::with_capacity(count);
    for _ in 0..count {
        let key = cut(&mut body, "header key", take_int)?.ok_or(BatchError::Overrun {
            what: "header key",
            length: -1,
            bytes: body.len(),
        })?;
        headers.push((key, cut(&mut body, "header value", take_int)?));
    }
    if !body.is_empty() {
        return Err(BatchError::LeftOver(body.len()));
    }
    let offset = header.base_offset.checked_add(offset_delta.into());
    let timestamp_ms = if header.is_log_append_time() {
        Some(header.max_timestamp)
    } else {
        header.base_timestamp.checked_add(timestamp_delta)
    };
    match (offset, timestamp_ms) {
        (Some(offset), Some(timestamp_ms)) => {
            Ok(StoredRecord { offset, timestamp_ms, key, value, headers })
        }
        _ => Err(BatchError::Overflow),
    }
}

type Take<T> = fn(&mut &[u8]) -> Result<T, BatchError>;

fn read<T>(body: &mut Bytes, take: Take<T>) -> Result<T, BatchError> {
    let mut rest = &body[..];
    let value = take(&mut rest)?;
    let used = body.len() - rest.len();
    let _varint = body.split_to(used);
    Ok(value)
}

/// A length and as many bytes, or `None` for the length −1.
fn cut(body: &mut Bytes, what: &'static str, take: Take<i32>) -> Result<Option<Bytes>, BatchError> {
    let length = read(body, take)?;
    match usize::try_from(length) {
        Ok(len) if len <= body.len() => Ok(Some(body.split_to(len))),
        Err(_) if length == -1 => Ok(None),
        _ => Err(BatchError::Overrun { what, length: length.into(), bytes: body.len() }),
    }
}

fn counted(
    what: &'static str,
    count: i32,
    bytes: usize,
    smallest: usize,
) -> Result<usize, BatchError> {
    usize::try_from(count)
        .ok()
        .filter(|count| *count <= bytes / smallest)
        .ok_or(BatchError::Count { what, count: count.into(), bytes })
}
