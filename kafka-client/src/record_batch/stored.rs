//! The records of a batch that was read, decoded one by one from the bytes they are in.

use std::fmt;

use bytes::{Buf as _, Bytes};

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

impl Records {
    fn read_one(&mut self) -> Result<StoredRecord, BatchError> {
        let mut rest = &self.rest[..];
        let body = present(&mut rest, "record")?;
        let behind = self.rest.len() - rest.len();
        let record = read_one(&self.header, &self.rest, body)?;
        self.rest.advance(behind);
        Ok(record)
    }
}

impl Iterator for Records {
    type Item = Result<StoredRecord, BatchError>;

    /// Exactly the records that the header counts, or an error as the last item.
    fn next(&mut self) -> Option<Self::Item> {
        let next = match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                self.read_one()
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
        fn parts(record: &StoredRecord) -> impl Iterator<Item = &Bytes> {
            let headers = Some(&record.headers.bytes);
            [record.key.as_ref(), record.value.as_ref(), headers].into_iter().flatten()
        }
        let bytes = records.iter().flat_map(parts).map(Bytes::len).sum();
        let mut all = Vec::with_capacity(bytes);
        records.iter().flat_map(parts).for_each(|part| all.extend_from_slice(part));
        let (all, mut at) = (Bytes::from(all), 0);
        let mut take = |part: &Bytes| {
            let start = at;
            at += part.len();
            all.slice(start..at)
        };
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
        let (all, mut at) = (self.bytes.clone(), 0);
        (0..self.count).map_while(move |_| {
            let mut rest = all.get(at..)?;
            let (key, value) = read_header(&mut rest).ok()?;
            at = all.len() - rest.len();
            Some((all.slice_ref(key), value.map(|value| all.slice_ref(value))))
        })
    }

    /// All that `body` has, a part of `bytes`, which must be `count` headers.
    fn check(count: usize, bytes: &Bytes, body: &[u8]) -> Result<Self, BatchError> {
        let mut rest = body;
        for _ in 0..count {
            read_header(&mut rest)?;
        }
        if rest.is_empty() {
            Ok(Self { count, bytes: bytes.slice_ref(body) })
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

/// `body` is a part of `bytes`, and so is what is given.
fn read_one(header: &BatchHeader, bytes: &Bytes, body: &[u8]) -> Result<StoredRecord, BatchError> {
    // The attributes of a record are unused so far, and readers ignore them.
    let Some((_attributes, mut body)) = body.split_first() else {
        return Err(BatchError::Overrun { what: "record", length: 1, bytes: 0 });
    };
    let timestamp_delta = take_long(&mut body)?;
    let offset_delta = take_int(&mut body)?;
    let key = cut(&mut body, "key")?.map(|key| bytes.slice_ref(key));
    let value = cut(&mut body, "value")?.map(|value| bytes.slice_ref(value));
    let count = take_int(&mut body)?;
    let count = counted("headers", count, body.len(), SMALLEST_HEADER)?;
    let headers = Headers::check(count, bytes, body)?;
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

type Header<'a> = (&'a [u8], Option<&'a [u8]>);

fn read_header<'a>(rest: &mut &'a [u8]) -> Result<Header<'a>, BatchError> {
    Ok((present(rest, "header key")?, cut(rest, "header value")?))
}

/// A length and as many bytes, or `None` for the length −1.
fn cut<'a>(body: &mut &'a [u8], what: &'static str) -> Result<Option<&'a [u8]>, BatchError> {
    let length = take_int(body)?;
    let part = usize::try_from(length).ok().and_then(|length| body.split_at_checked(length));
    match part {
        Some((part, behind)) => {
            *body = behind;
            Ok(Some(part))
        }
        None if length == -1 => Ok(None),
        None => Err(BatchError::Overrun { what, length: length.into(), bytes: body.len() }),
    }
}

/// As [`cut`], where nothing may be missing.
fn present<'a>(body: &mut &'a [u8], what: &'static str) -> Result<&'a [u8], BatchError> {
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
