//! Batches of records (magic 2) to bytes and back, one batch per encode.
//!
//! The layout is that of Kafka's `DefaultRecordBatch`: a header of 61 bytes, then records made of
//! zig-zag varints. Decoded keys, values and headers are slices of the bytes they came in, or of
//! what these were decompressed to.

mod builder;
mod compression;
mod error;
mod header;
mod stored;
mod varint;

pub use builder::{BatchBuilder, Record};
pub use compression::{Compression, Encoder};
pub use error::BatchError;
pub use header::{BatchHeader, HEADER_BYTES, Stamp, sequence_after};
pub use stored::{Headers, Records, StoredRecord};

use bytes::{Bytes, BytesMut};

use crate::limits::INFLATED_BATCH_BYTES;

/// Cuts `bytes` into whole batches. The last one may be incomplete, as Fetch allows: it is left
/// out, and so is everything behind a length that cannot be.
///
/// # Errors
/// [`BatchError::Length`] if a length field is impossible; the batches before it are returned by
/// earlier calls of the iterator.
pub fn batches(bytes: Bytes) -> impl Iterator<Item = Result<Bytes, BatchError>> {
    let mut rest = bytes;
    std::iter::from_fn(move || match header::batch_bytes(&rest) {
        Ok(Some(len)) if len <= rest.len() => Some(Ok(rest.split_to(len))),
        Ok(_) => None,
        Err(error) => {
            rest.clear();
            Some(Err(error))
        }
    })
}

/// Opens one whole batch after checking its checksum; its records are read as they are asked for.
/// Decompressed, they may take up to 64 MiB.
///
/// # Errors
/// Every [`BatchError`]; nothing in `batch` can make this panic.
pub fn decode(batch: &Bytes) -> Result<(BatchHeader, Records), BatchError> {
    decode_within(batch, INFLATED_BATCH_BYTES)
}

/// As [`decode`], for records of up to `limit` bytes: decompression stops at the first byte beyond.
///
/// # Errors
/// As [`decode`]; [`BatchError::Inflated`] names the limit.
pub fn decode_within(batch: &Bytes, limit: usize) -> Result<(BatchHeader, Records), BatchError> {
    let header = check(batch)?;
    Ok((header, records(&header, batch, limit)?))
}

/// The records of a batch with this header, which was checked.
pub(crate) fn records(
    header: &BatchHeader,
    batch: &Bytes,
    limit: usize,
) -> Result<Records, BatchError> {
    let body = batch.slice(HEADER_BYTES..header.total_bytes());
    Records::new(header, compression::decode(header.codec(), &body, limit)?)
}

/// The header of one whole batch whose checksum fits, without its records.
///
/// # Errors
/// As [`BatchHeader::parse`], and [`BatchError::Checksum`].
pub fn check(batch: &Bytes) -> Result<BatchHeader, BatchError> {
    let header = BatchHeader::parse(batch)?;
    header.verify(batch)?;
    Ok(header)
}

/// As [`decode`], with all records in a list. For bytes of our own: a peer could make the list 15
/// times as large as its batch.
///
/// # Errors
/// As [`decode`].
pub fn decode_all(batch: &Bytes) -> Result<(BatchHeader, Vec<StoredRecord>), BatchError> {
    let (header, records) = decode(batch)?;
    Ok((header, records.collect::<Result<_, _>>()?))
}

/// A finished batch with its records compressed; `None` if it is compressed already, or would not
/// become smaller.
pub fn compress(batch: &Bytes, encoder: &mut Encoder) -> Option<Bytes> {
    let mut header = BatchHeader::parse(batch).ok().filter(|header| header.codec() == 0)?;
    let (bits, records) = encoder.encode(batch.get(HEADER_BYTES..header.total_bytes())?)?;
    let mut bytes = BytesMut::with_capacity(HEADER_BYTES + records.len());
    bytes.resize(HEADER_BYTES, 0);
    bytes.extend_from_slice(records);
    header.attributes |= bits;
    header.seal(&mut bytes);
    Some(bytes.freeze())
}

#[cfg(test)]
mod tests;
