//! zstd (RFC 8878), by its reference implementation.

use std::io::{self, Cursor};

use bytes::Bytes;
use zstd::bulk::Compressor;
use zstd::stream::read::Decoder;
use zstd::zstd_safe::compress_bound;

use super::codec::{Encode, read_within, unreadable};
use crate::record_batch::error::BatchError;

pub(super) const BITS: i16 = 4;

pub(super) struct Encoder(Compressor<'static>);

impl Encoder {
    pub(super) fn new(level: i32) -> io::Result<Self> {
        Compressor::new(level).map(Self)
    }
}

impl Encode for Encoder {
    fn encode(&mut self, plain: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        out.reserve(compress_bound(plain.len()));
        let mut end = Cursor::new(out);
        end.set_position(end.get_ref().len() as u64);
        self.0.compress_to_buffer(plain, &mut end)?;
        Ok(())
    }
}

/// A frame may ask for a window of up to 128 MiB, as Java's at level 22 do whatever their length;
/// of that address space only what is decoded becomes memory.
pub(super) fn decode(compressed: &Bytes, limit: usize) -> Result<Bytes, BatchError> {
    let decoder = Decoder::with_buffer(&compressed[..]).map_err(|e| unreadable("zstd", &e))?;
    read_within("zstd", decoder, limit)
}
