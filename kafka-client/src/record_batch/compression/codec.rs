//! What all codecs have in common: a context to compress with, and a limit in bytes to decompress to.

use std::fmt;
use std::io::{self, Read};

use bytes::Bytes;

use crate::limits::INFLATED_FIRST_BYTES;
use crate::record_batch::error::BatchError;

/// One codec's compressor.
pub(super) trait Encode: Send {
    /// Appends the whole of `plain` to `out`, compressed, and is ready for the next.
    fn encode(&mut self, plain: &[u8], out: &mut Vec<u8>) -> io::Result<()>;
}

/// Reads all there is, and stops at the first byte beyond `limit`. Memory grows with the bytes
/// that come: it doubles, but never beyond the limit.
pub(super) fn read_within(
    codec: &'static str,
    plain: impl Read,
    limit: usize,
) -> Result<Bytes, BatchError> {
    let mut bytes = Vec::new();
    let most = limit.saturating_add(1);
    let mut plain = plain.take(most as u64);
    loop {
        let room = bytes.len().max(INFLATED_FIRST_BYTES).min(most - bytes.len());
        bytes.reserve_exact(room);
        let read = plain.by_ref().take(room as u64).read_to_end(&mut bytes);
        if read.map_err(|error| unreadable(codec, &error))? < room || bytes.len() == most {
            break;
        }
    }
    if bytes.len() > limit {
        return Err(BatchError::Inflated { limit });
    }
    Ok(bytes.into())
}

pub(super) fn unreadable(codec: &'static str, error: &dyn fmt::Display) -> BatchError {
    BatchError::Compressed { codec, what: error.to_string() }
}
