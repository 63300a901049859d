//! Batches of records (magic 2) to bytes and back, one batch per encode.
//!
//! The layout is that of Kafka's `DefaultRecordBatch`: a header of 61 bytes, then records made of
//! zig-zag varints. Decoded keys, values and headers are slices of the bytes they came in, or of
//! what these were decompressed to.

mod builder;
mod compression;
mod header;
mod record;
mod stamp;
mod stored;
mod varint;

pub use builder::BatchBuilder;
pub use compression::{Compression, Encoder};
pub use header::{BatchHeader, HEADER_BYTES};
pub use record::Record;
pub use stamp::{Stamp, sequence_after};
pub use stored::{Headers, Records, StoredRecord};

use bytes::{Bytes, BytesMut};

use crate::limits::INFLATED_BATCH_BYTES;

/// Why bytes are not a batch we can read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than the header, or than the length it declares.
    #[error("a batch of {need} bytes was cut to {have}")]
    Truncated {
        /// Bytes that the batch has by its own account.
        need: usize,
        /// Bytes there are.
        have: usize,
    },
    /// A batch in a format older (or newer) than magic 2, which can be stepped over.
    #[error("a batch at offset {offset} has the unsupported magic {magic}")]
    UnsupportedMagic {
        /// The magic byte.
        magic: i8,
        /// The offset it starts at.
        offset: i64,
        /// The first offset behind it.
        next_offset: i64,
    },
    /// The length field is smaller than a header.
    #[error("a batch declares the impossible length {0}")]
    Length(i32),
    /// The checksum does not fit the content.
    #[error("a batch's checksum is {computed:#010x}, its header says {stored:#010x}")]
    Checksum {
        /// From the header.
        stored: u32,
        /// From the content.
        computed: u32,
    },
    /// The records are compressed by a codec we do not read.
    #[error("a batch is compressed with the unsupported codec {0}")]
    Codec(i16),
    /// The records are not what their codec makes.
    #[error("a batch's {codec} data cannot be read: {what}")]
    Compressed {
        /// The codec.
        codec: &'static str,
        /// What the codec says.
        what: String,
    },
    /// The records take more bytes than allowed once they are decompressed.
    #[error("a batch's records are more than {limit} bytes")]
    Inflated {
        /// Bytes allowed.
        limit: usize,
    },
    /// A negative count, or one that cannot fit into the bytes there are.
    #[error("{count} {what} cannot fit into {bytes} bytes")]
    Count {
        /// What was to be counted.
        what: &'static str,
        /// The count from the wire.
        count: i64,
        /// The bytes left.
        bytes: usize,
    },
    /// A length that reaches beyond its record, or is negative where nothing may be missing.
    #[error("a {what} of {length} bytes does not fit into {bytes}")]
    Overrun {
        /// What was to be read.
        what: &'static str,
        /// The length from the wire.
        length: i64,
        /// The bytes left.
        bytes: usize,
    },
    /// A varint of more than 5 or 10 bytes, or with bits beyond its type.
    #[error("a varint is too long")]
    Varint,
    /// Bytes behind the last field of a record, or behind the last record.
    #[error("{0} bytes are left over")]
    LeftOver(usize),
    /// Offsets or timestamps that leave their type when a delta is added.
    #[error("an offset or timestamp is out of range")]
    Overflow,
}

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
    let header = BatchHeader::parse(batch)?;
    header.verify(batch)?;
    let body = batch.slice(HEADER_BYTES..header.total_bytes());
    let body = compression::decode(header.codec(), &body, limit)?;
    Ok((header, Records::new(&header, body)?))
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
