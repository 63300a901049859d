//! The codecs of a batch: levels of compression, and a limit in bytes of what is decompressed.
//!
//! Framing is Kafka's: gzip with one or several members, Snappy in xerial's frame (or raw, as
//! librdkafka writes it), LZ4 frames of independent blocks, zstd frames.

mod codec;
mod gzip;
mod lz4;
mod snappy;
mod zstd;

use std::fmt;
use std::io;

use bytes::Bytes;

use super::error::BatchError;
use crate::limits::{COMPRESSED_INLINE_BYTES, ENCODER_BUFFER_BYTES, ZSTD_INLINE_LEVEL};
use codec::Encode;

/// How batches are compressed: `compression.type`, with the codec's level (KIP-390).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// Level 1 (fast) to 9 (small).
    Gzip(u32),
    /// In xerial's frame, as Java writes it.
    Snappy,
    /// The fast compressor only.
    Lz4,
    /// Level −131,072 (fast) to 22 (small). Brokers before 2.1 do not read it.
    Zstd(i32),
}

impl Compression {
    /// Whether compressing as many bytes would hold up an IO task for too long.
    pub(crate) fn takes_long(self, bytes: usize) -> bool {
        let is_slow = match self {
            Self::Gzip(_) => true,
            Self::Zstd(level) => level > ZSTD_INLINE_LEVEL,
            Self::None | Self::Snappy | Self::Lz4 => false,
        };
        is_slow && bytes > COMPRESSED_INLINE_BYTES
    }

    /// The codec's bits in a batch's attributes.
    fn bits(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip(_) => gzip::BITS,
            Self::Snappy => snappy::BITS,
            Self::Lz4 => lz4::BITS,
            Self::Zstd(_) => zstd::BITS,
        }
    }

    fn context(self) -> Option<io::Result<Context>> {
        match self {
            Self::None => None,
            Self::Gzip(level) => Some(Ok(Box::new(gzip::Encoder::new(level)))),
            Self::Snappy => Some(Ok(Box::new(snappy::Encoder::new()))),
            Self::Lz4 => Some(Ok(Box::new(lz4::Encoder::new()))),
            Self::Zstd(level) => Some(zstd::Encoder::new(level).map(|e| Box::new(e) as Context)),
        }
    }
}

/// What one codec keeps from batch to batch.
type Context = Box<dyn Encode>;

/// Compresses batch after batch with the same contexts and buffers, which are made at its first
/// use.
pub struct Encoder {
    compression: Compression,
    context: Option<Context>,
    buffer: Vec<u8>,
}

impl Encoder {
    /// An encoder that has allocated nothing yet.
    pub fn new(compression: Compression) -> Self {
        Self { compression, context: None, buffer: Vec::new() }
    }

    /// The codec's bits and the compressed bytes; `None` unless there are fewer than in `plain`.
    pub(super) fn encode(&mut self, plain: &[u8]) -> Option<(i16, &[u8])> {
        if self.context.is_none() {
            self.context = self.compression.context()?.map_err(not_compressed).ok();
        }
        let context = self.context.as_mut()?;
        self.buffer.clear();
        self.buffer.shrink_to(ENCODER_BUFFER_BYTES);
        if let Err(error) = context.encode(plain, &mut self.buffer) {
            not_compressed(error);
            // Nobody knows what it holds now.
            self.context = None;
            return None;
        }
        let compressed = self.buffer.as_slice();
        (compressed.len() < plain.len()).then_some((self.compression.bits(), compressed))
    }
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").field("compression", &self.compression).finish_non_exhaustive()
    }
}

/// A codec fails to compress only for want of memory; the batch can still leave as it is.
fn not_compressed(error: io::Error) {
    tracing::warn!(%error, "sent_without_compression");
}

/// Decompresses the records of a batch to at most `limit` bytes.
pub(super) fn decode(bits: i16, compressed: &Bytes, limit: usize) -> Result<Bytes, BatchError> {
    match bits {
        0 if compressed.len() > limit => Err(BatchError::Inflated { limit }),
        0 => Ok(compressed.clone()),
        gzip::BITS => gzip::decode(compressed, limit),
        snappy::BITS => snappy::decode(compressed, limit),
        lz4::BITS => lz4::decode(compressed, limit),
        zstd::BITS => zstd::decode(compressed, limit),
        other => Err(BatchError::Codec(other)),
    }
}

#[cfg(test)]
mod tests;
