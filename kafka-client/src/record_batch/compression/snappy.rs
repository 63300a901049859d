//! Snappy: compressed into the frame of xerial's snappy-java, decompressed from it or raw.
//!
//! The frame is a header of 16 bytes, then blocks of up to 32 KiB, each behind its compressed
//! length as a big-endian i32.

use std::io;

use bytes::{Buf, BufMut, Bytes};
use snap::raw;

use super::codec::{Encode, unreadable};
use crate::record_batch::error::BatchError;

pub(super) const BITS: i16 = 2;

/// Magic, version 1, compatible with version 1.
const HEADER: &[u8; 16] = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
/// Bytes of it by which the frame is recognised; versions may differ.
const MAGIC_BYTES: usize = 8;
const BLOCK_BYTES: usize = 32 * 1024;
/// An element of 3 bytes makes 64 at most, so more than this is a lie about the length.
const MOST_EXPANSION: usize = 22;

pub(super) struct Encoder(raw::Encoder);

impl Encoder {
    pub(super) fn new() -> Self {
        Self(raw::Encoder::new())
    }
}

impl Encode for Encoder {
    fn encode(&mut self, plain: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        out.put_slice(HEADER);
        for block in plain.chunks(BLOCK_BYTES) {
            let (length_at, from) = (out.len(), out.len() + size_of::<i32>());
            out.resize(from + raw::max_compress_len(block.len()), 0);
            let room = out.get_mut(from..).unwrap_or_default();
            let bytes = self.0.compress(block, room)?;
            out.truncate(from + bytes);
            let length = i32::try_from(bytes).map_err(io::Error::other)?;
            out.get_mut(length_at..from).unwrap_or_default().put_i32(length);
        }
        Ok(())
    }
}

pub(super) fn decode(compressed: &Bytes, limit: usize) -> Result<Bytes, BatchError> {
    let mut plain = Vec::new();
    let magic = HEADER.get(..MAGIC_BYTES).unwrap_or_default();
    if !compressed.starts_with(magic) {
        append(compressed, &mut plain, limit)?;
        return Ok(plain.into());
    }
    let mut blocks = compressed.get(HEADER.len()..).ok_or_else(|| cut("its header"))?;
    while !blocks.is_empty() {
        let length = blocks.try_get_i32().map_err(|_| cut("a block's length"))?;
        let length = usize::try_from(length).map_err(|_| cut("a block of negative length"))?;
        let (block, rest) = blocks.split_at_checked(length).ok_or_else(|| cut("a block"))?;
        append(block, &mut plain, limit)?;
        blocks = rest;
    }
    Ok(plain.into())
}

/// Decompresses a raw block to the end of `plain`, after a look at the length that it declares.
fn append(block: &[u8], plain: &mut Vec<u8>, limit: usize) -> Result<(), BatchError> {
    let bytes = raw::decompress_len(block).map_err(|e| unreadable("snappy", &e))?;
    let from = plain.len();
    if bytes > limit.saturating_sub(from) {
        return Err(BatchError::Inflated { limit });
    }
    if bytes > block.len().saturating_mul(MOST_EXPANSION) {
        return Err(unreadable("snappy", &format!("{} bytes declare {bytes}", block.len())));
    }
    if plain.capacity() - from < bytes {
        plain.reserve_exact(from.min(limit - from).max(bytes));
    }
    plain.resize(from + bytes, 0);
    let room = plain.get_mut(from..).unwrap_or_default();
    raw::Decoder::new().decompress(block, room).map_err(|e| unreadable("snappy", &e))?;
    Ok(())
}

fn cut(what: &str) -> BatchError {
    unreadable("snappy", &format!("cut within {what}"))
}
