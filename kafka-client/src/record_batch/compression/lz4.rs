//! LZ4 in its frame format, with independent blocks of 64 KiB, which are all that Java reads.

use std::io::{self, Write};

use bytes::Bytes;
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

use super::{Encode, read_within};
use crate::record_batch::BatchError;

pub(super) const BITS: i16 = 3;

pub(super) struct Encoder(FrameEncoder<Vec<u8>>);

impl Encoder {
    pub(super) fn new() -> Self {
        let frame = FrameInfo::new()
            .block_size(BlockSize::Max64KB)
            .block_mode(BlockMode::Independent)
            .block_checksums(false)
            .content_checksum(false);
        Self(FrameEncoder::with_frame_info(frame, Vec::new()))
    }
}

impl Encode for Encoder {
    fn encode(&mut self, plain: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        std::mem::swap(self.0.get_mut(), out);
        let written = self.0.write_all(plain).and_then(|()| Ok(self.0.try_finish()?));
        std::mem::swap(self.0.get_mut(), out);
        written
    }
}

pub(super) fn decode(compressed: &Bytes, limit: usize) -> Result<Bytes, BatchError> {
    read_within("lz4", FrameDecoder::new(&compressed[..]), limit)
}
