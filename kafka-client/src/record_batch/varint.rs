//! Zig-zag varints of 32 and 64 bits, as in Protocol Buffers.

use bytes::BufMut;

use super::error::BatchError;

/// Writes `value` in 1–5 bytes.
pub(super) fn put_int(out: &mut impl BufMut, value: i32) {
    put_unsigned(out, u64::from(zigzag_int(value)));
}

/// Writes `value` in 1–10 bytes.
pub(super) fn put_long(out: &mut impl BufMut, value: i64) {
    put_unsigned(out, zigzag_long(value));
}

/// Bytes that [`put_int`] takes.
pub(super) fn int_bytes(value: i32) -> usize {
    unsigned_bytes(u64::from(zigzag_int(value)))
}

/// Bytes that [`put_long`] takes.
pub(super) fn long_bytes(value: i64) -> usize {
    unsigned_bytes(zigzag_long(value))
}

/// Reads a 32-bit varint from the front of `bytes`.
pub(super) fn take_int(bytes: &mut &[u8]) -> Result<i32, BatchError> {
    let raw = u32::try_from(take_unsigned(bytes, 5)?).map_err(|_| BatchError::Varint)?;
    Ok((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed())
}

/// Reads a 64-bit varint from the front of `bytes`.
pub(super) fn take_long(bytes: &mut &[u8]) -> Result<i64, BatchError> {
    let raw = take_unsigned(bytes, 10)?;
    Ok((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed())
}

fn zigzag_int(value: i32) -> u32 {
    ((value << 1) ^ (value >> 31)).cast_unsigned()
}

fn zigzag_long(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn put_unsigned(out: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn unsigned_bytes(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

fn take_unsigned(bytes: &mut &[u8], most: u32) -> Result<u64, BatchError> {
    let mut value = 0u64;
    for index in 0..most {
        let Some((byte, rest)) = bytes.split_first() else {
            return Err(BatchError::Overrun { what: "varint", length: 1, bytes: 0 });
        };
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        // The tenth byte has room for one bit only.
        if index == 9 && bits > 1 {
            return Err(BatchError::Varint);
        }
        value |= bits << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(BatchError::Varint)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_values_take_the_known_bytes() {
        for (value, bytes) in [(0, &[0][..]), (-1, &[1]), (1, &[2]), (63, &[126]), (64, &[128, 1])]
        {
            let mut out = Vec::new();
            put_int(&mut out, value);
            assert_eq!(out, bytes);
        }
    }

    #[test]
    fn bits_beyond_the_type_are_refused() {
        let mut five = &[0xff, 0xff, 0xff, 0xff, 0x7f][..];
        assert_eq!(take_int(&mut five), Err(BatchError::Varint));
        let mut ten = &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02][..];
        assert_eq!(take_long(&mut ten), Err(BatchError::Varint));
        let mut endless = &[0x80; 20][..];
        assert_eq!(take_long(&mut endless), Err(BatchError::Varint));
    }

    proptest! {
        #[test]
        fn ints_come_back(value: i32) {
            let mut out = Vec::new();
            put_int(&mut out, value);
            prop_assert_eq!(out.len(), int_bytes(value));
            prop_assert_eq!(take_int(&mut &out[..]), Ok(value));
        }

        #[test]
        fn longs_come_back(value: i64) {
            let mut out = Vec::new();
            put_long(&mut out, value);
            prop_assert_eq!(out.len(), long_bytes(value));
            prop_assert_eq!(take_long(&mut &out[..]), Ok(value));
        }
    }
}
