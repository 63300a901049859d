//! The codecs of a record batch, by the number in its attributes.

use std::io::Read;

use anyhow::{Context, bail, ensure};
use bytes::{Buf, Bytes};

/// What snappy-java writes in front of its blocks; a version and the oldest compatible one follow.
const XERIAL: &[u8] = b"\x82SNAPPY\0";
const XERIAL_HEADER_BYTES: usize = 16;

pub(super) fn decompress(codec: i16, bytes: &Bytes) -> anyhow::Result<Bytes> {
    match codec {
        0 => Ok(bytes.clone()),
        1 => read(flate2::read::MultiGzDecoder::new(&bytes[..])).context("gzip"),
        2 => snappy(bytes.clone()).context("snappy"),
        3 => read(lz4_flex::frame::FrameDecoder::new(&bytes[..])).context("lz4"),
        4 => read(zstd::stream::read::Decoder::new(&bytes[..])?).context("zstd"),
        other => bail!("no codec has the number {other}"),
    }
}

fn read(mut from: impl Read) -> anyhow::Result<Bytes> {
    let mut plain = Vec::new();
    from.read_to_end(&mut plain)?;
    Ok(plain.into())
}

/// Blocks with their lengths behind a header, as snappy-java writes them, or one bare block.
fn snappy(mut bytes: Bytes) -> anyhow::Result<Bytes> {
    let mut decoder = snap::raw::Decoder::new();
    if !bytes.starts_with(XERIAL) {
        return Ok(decoder.decompress_vec(&bytes)?.into());
    }
    ensure!(bytes.len() >= XERIAL_HEADER_BYTES, "its header is cut short");
    bytes.advance(XERIAL_HEADER_BYTES);
    let mut plain = Vec::new();
    while bytes.has_remaining() {
        let length = usize::try_from(bytes.try_get_u32()?)?;
        ensure!(length <= bytes.len(), "a block of {length} bytes in {}", bytes.len());
        plain.extend(decoder.decompress_vec(&bytes.split_to(length))?);
    }
    Ok(plain.into())
}
