//! The records of a batch that was read, decoded one by one from the bytes they are in.

use std::fmt;

use bytes::Bytes;

use super::error::BatchError;
use super::header::BatchHeader;
use super::varint::{take_int, take_long};

/// A record as it is in the log. Its parts are slices of the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// Its offset in the partition.
    pub offset: i64,
    /// The leader epoch that its batch was written in; −1 if the broker gave none.
    pub leader_epoch: i32,
    /// Its time, ms since the Unix epoch: set by the producer or by the broker.
    pub timestamp_ms: i64,
    /// Whether the broker set it (`LogAppendTime`).
    pub is_log_append_time: bool,
    /// The key.
    pub key: Option<Bytes>,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Headers in order, repeated ones included.
    pub headers: Headers,
}

/// The records of one batch. A record of 7 bytes would be 15 times as large as a [`StoredRecord`],
/// so only the one at hand exists, and the others are still bytes.
#[derive(Debug, Clone)]
pub struct Records {
    header: BatchHeader,
    rest: Bytes,
    left: usize,
}

/// The headers of a stored record. They too are read whenever they are asked for: one of 2 bytes
/// would be 32 times as large in a list.
#[derive(Clone, Default)]
pub struct Headers {
    count: usize,
    /// Checked to be so many headers.
    bytes: Bytes,
}

/// Bytes of the smallest record: its length, attributes, two deltas, two missing lengths and a
/// header count.
const SMALLEST_RECORD: usize = 7;
/// Bytes of the smallest header: two lengths.
const SMALLEST_HEADER: usize = 2;

impl Records {
    /// `body` is what follows the header of a batch, decompressed.
    pub(super) fn new(header: &BatchHeader, body: Bytes) -> Result<Self, BatchError> {
        let left = counted("records", header.records, body.len(), SMALLEST_RECORD)?;
        Ok(Self { header: *header, rest: body, left })
    }

    /// Bytes of those that were not read yet, decompressed.
    pub(crate) fn bytes(&self) -> usize {
        self.rest.len()
    }
}

impl Iterator for Records {
    type Item = Result<StoredRecord, BatchError>;

    /// Exactly the records that the header counts, or an error as the last item.
    fn next(&mut self) -> Option<Self::Item> {
        let next = match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                present(&mut self.rest, "record").and_then(|body| read_one(&self.header, body))
            }
            None if self.rest.is_empty() => return None,
            None => Err(BatchError::LeftOver(self.rest.len())),
        };
        if next.is_err() {
            (self.left, self.rest) = (0, Bytes::new());
        }
        Some(next)
    }
}

impl StoredRecord {
    /// The records in memory of their own, which they share. Their parts are slices of their batches, and
    /// keep all of them.
    #[must_use]
    pub fn detached(records: &[Self]) -> Vec<Self> {
        let parts = |record: &Self| {
            let headers = Some(record.headers.bytes.clone());
            [record.key.clone(), record.value.clone(), headers].into_iter().flatten()
        };
        let bytes = records.iter().flat_map(parts).map(|part| part.len()).sum();
        let mut all = Vec::with_capacity(bytes);
        records.iter().flat_map(parts).for_each(|part| all.extend_from_slice(&part));
        let mut all = Bytes::from(all);
        let mut take = |part: &Bytes| all.split_to(part.len());
        let copy = |record: &Self| Self {
            key: record.key.as_ref().map(&mut take),
            value: record.value.as_ref().map(&mut take),
            headers: Headers { count: record.headers.count, bytes: take(&record.headers.bytes) },
            ..*record
        };
        records.iter().map(copy).collect()
    }
}

impl Headers {
    /// Number of headers.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Keys and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (Bytes, Option<Bytes>)> + use<> {
        let mut rest = self.bytes.clone();
        (0..self.count).map_while(move |_| read_header(&mut rest).ok())
    }

    /// All that `bytes` has, which must be `count` headers.
    fn check(count: usize, bytes: Bytes) -> Result<Self, BatchError> {
        let mut rest = bytes.clone();
        for _ in 0..count {
            read_header(&mut rest)?;
        }
        if rest.is_empty() {
            Ok(Self { count, bytes })
        } else {
            Err(BatchError::LeftOver(rest.len()))
        }
    }
}

impl PartialEq for Headers {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Headers {}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

fn read_one(header: &BatchHeader, mut body: Bytes) -> Result<StoredRecord, BatchError> {
    if body.is_empty() {
        return Err(BatchError::Overrun { what: "record", length: 1, bytes: 0 });
    }
    // The attributes of a record are unused so far, and readers ignore them.
    let _attributes = body.split_to(1);
    let timestamp_delta = read(&mut body, take_long)?;
    let offset_delta = read(&mut body, take_int)?;
    let key = cut(&mut body, "key")?;
    let value = cut(&mut body, "value")?;
    let count = read(&mut body, take_int)?;
    let count = counted("headers", count, body.len(), SMALLEST_HEADER)?;
    let headers = Headers::check(count, body)?;
    let offset = header.base_offset.checked_add(offset_delta.into());
    let timestamp_ms = if header.is_log_append_time() {
        Some(header.max_timestamp)
    } else {
        header.base_timestamp.checked_add(timestamp_delta)
    };
    match (offset, timestamp_ms) {
        (Some(offset), Some(timestamp_ms)) => {
            let (leader_epoch, is_log_append_time) =
                (header.leader_epoch, header.is_log_append_time());
            Ok(StoredRecord {
                offset,
                leader_epoch,
                timestamp_ms,
                is_log_append_time,
                key,
                value,
                headers,
            })
        }
        _ => Err(BatchError::Overflow),
    }
}

fn read_header(rest: &mut Bytes) -> Result<(Bytes, Option<Bytes>), BatchError> {
    Ok((present(rest, "header key")?, cut(rest, "header value")?))
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
fn cut(body: &mut Bytes, what: &'static str) -> Result<Option<Bytes>, BatchError> {
    let length = read(body, take_int)?;
    match usize::try_from(length) {
        Ok(len) if len <= body.len() => Ok(Some(body.split_to(len))),
        Err(_) if length == -1 => Ok(None),
        _ => Err(BatchError::Overrun { what, length: length.into(), bytes: body.len() }),
    }
}

/// As [`cut`], where nothing may be missing.
fn present(body: &mut Bytes, what: &'static str) -> Result<Bytes, BatchError> {
    cut(body, what)?.ok_or(BatchError::Overrun { what, length: -1, bytes: body.len() })
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
