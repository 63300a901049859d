//! The message index: which message of its file a payload is, as a path of positions, in zigzag
//! variable-length integers behind their number. The path `[0]` is the single byte 0.

use crate::limits::DEPTH_MAX;

/// The index of the first message.
pub(super) const FIRST: [u8; 1] = [0];

/// The path in front of `bytes`, and what follows it.
pub(super) fn read(bytes: &[u8]) -> Result<(Vec<usize>, &[u8]), &'static str> {
    let (count, mut rest) = position(bytes)?;
    if count == 0 {
        return Ok((vec![0], rest));
    }
    if count > DEPTH_MAX {
        return Err("too long");
    }
    let mut path = Vec::with_capacity(count);
    for _ in 0..count {
        let (at, behind) = position(rest)?;
        path.push(at);
        rest = behind;
    }
    Ok((path, rest))
}

fn position(bytes: &[u8]) -> Result<(usize, &[u8]), &'static str> {
    let (value, rest) = varint(bytes).ok_or("cut off, or no number")?;
    // Zigzag: the lowest bit is the sign.
    if value & 1 == 1 {
        return Err("negative");
    }
    let value = usize::try_from(value >> 1).map_err(|_| "too large")?;
    Ok((value, rest))
}

/// The variable-length integer in front of `bytes`, and what follows it.
pub(super) fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (at, &byte) in bytes.iter().enumerate().take(10) {
        let bits = u64::from(byte & 0x7f);
        // The tenth byte has room for one bit.
        if at == 9 && bits > 1 {
            return None;
        }
        value |= bits << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(at + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_read() {
        assert_eq!(read(&[0, 9]), Ok((vec![0], &[9][..])));
        assert_eq!(read(&[2, 0]), Ok((vec![0], &[][..])));
        assert_eq!(read(&[4, 2, 0, 9]), Ok((vec![1, 0], &[9][..])));
        assert_eq!(read(&[2, 0xac, 0x02]), Ok((vec![150], &[][..])));
    }

    #[test]
    fn a_malformed_index_is_refused() {
        for (bytes, why) in [
            (&[][..], "cut off, or no number"),
            (&[2], "cut off, or no number"),
            (&[1], "negative"),
            (&[2, 1], "negative"),
            (&[0x82, 0x01], "too long"),
            (&[0xff; 12], "cut off, or no number"),
            (&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], "too long"),
        ] {
            assert_eq!(read(bytes), Err(why), "{bytes:?}");
        }
    }
}
