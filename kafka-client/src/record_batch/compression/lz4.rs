//! LZ4 in its frame format, with independent blocks of 64 KiB, which are all that Java reads.

use std::io;

use bytes::{BufMut, Bytes};
use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};
use lz4_flex::frame::FrameDecoder;

use super::codec::{Encode, read_within};
use crate::record_batch::error::BatchError;

pub(super) const BITS: i16 = 3;

/// Magic, version 1 with independent blocks and no checksums, blocks of up to 64 KiB, and the
/// header's own checksum.
const HEADER: &[u8; 7] = b"\x04\x22\x4d\x18\x60\x40\x82";
const BLOCK_BYTES: usize = 64 * 1024;
/// Marks a length: the block that follows is not compressed.
const PLAIN: u32 = 1 << 31;
const END: u32 = 0;

pub(super) struct Encoder(CompressTable);

impl Encoder {
    pub(super) fn new() -> Self {
        Self(CompressTable::large())
    }
}

/// Blocks are compressed into place: the frame encoder of `lz4_flex` copies them twice.
impl Encode for Encoder {
    fn encode(&mut self, plain: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        out.put_slice(HEADER);
        for block in plain.chunks(BLOCK_BYTES) {
            let (length_at, from) = (out.len(), out.len() + size_of::<u32>());
            out.resize(from + get_maximum_output_size(block.len()), 0);
            let room = out.get_mut(from..).unwrap_or_default();
            let packed = compress_into_with_table(block, room, &mut self.0);
            let bytes = packed.map_err(io::Error::other)?;
            out.truncate(from + bytes);
            let mut length = u32::try_from(bytes).map_err(io::Error::other)?;
            if bytes >= block.len() {
                out.truncate(from);
                out.put_slice(block);
                length = u32::try_from(block.len()).map_err(io::Error::other)? | PLAIN;
            }
            out.get_mut(length_at..from).unwrap_or_default().put_u32_le(length);
        }
        out.put_u32_le(END);
        Ok(())
    }
}

pub(super) fn decode(compressed: &Bytes, limit: usize) -> Result<Bytes, BatchError> {
    read_within("lz4", FrameDecoder::new(&compressed[..]), limit)
}
