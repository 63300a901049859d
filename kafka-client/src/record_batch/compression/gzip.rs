//! gzip (RFC 1952), by flate2 on zlib-rs.

use std::io;

use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use flate2::{Compress, Compression, FlushCompress, Status};

use super::codec::{Encode, read_within};
use crate::record_batch::error::BatchError;

pub(super) const BITS: i16 = 1;

/// The largest window, 32 KiB.
const WINDOW_BITS: u8 = 15;
/// Room for header and trailer; what does not shrink takes some more in another round.
const OVERHEAD_BYTES: usize = 64;

pub(super) struct Encoder(Compress);

impl Encoder {
    pub(super) fn new(level: u32) -> Self {
        Self(Compress::new_gzip(Compression::new(level), WINDOW_BITS))
    }
}

impl Encode for Encoder {
    fn encode(&mut self, plain: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        self.0.reset();
        loop {
            let done = usize::try_from(self.0.total_in()).map_err(io::Error::other)?;
            let rest = plain.get(done..).unwrap_or_default();
            out.reserve(rest.len() + OVERHEAD_BYTES);
            if self.0.compress_vec(rest, out, FlushCompress::Finish)? == Status::StreamEnd {
                return Ok(());
            }
        }
    }
}

pub(super) fn decode(compressed: &Bytes, limit: usize) -> Result<Bytes, BatchError> {
    read_within("gzip", MultiGzDecoder::new(&compressed[..]), limit)
}
