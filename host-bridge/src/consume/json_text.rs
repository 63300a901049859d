//! Texts and numbers of JSON, fast where little of a text has to be escaped.

use std::io::Write as _;

/// Bytes that are looked at together: none of most of these has to be escaped.
const CHUNK: usize = 128;
/// Bytes that are written one by one where some of them have.
const FEW: usize = 32;

/// Writes it with its quotes, as serde_json does.
pub(super) fn write(out: &mut Vec<u8>, text: &str) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        // Without a way out in a chunk, so that the compiler makes a few instructions of it.
        let is_plain = |chunk: &&[u8]| !chunk.iter().fold(false, |it, byte| it | is_escaped(*byte));
        let plain = rest.chunks(CHUNK).take_while(is_plain).map(<[u8]>::len).sum();
        let (plain, behind) = rest.split_at(plain);
        out.extend_from_slice(plain);
        let (chunk, behind) = behind.split_at(behind.len().min(CHUNK));
        for few in chunk.chunks(FEW) {
            match is_plain(&few) {
                true => out.extend_from_slice(few),
                false => few.iter().for_each(|byte| write_byte(out, *byte)),
            }
        }
        rest = behind;
    }
    out.push(b'"');
}

pub(super) fn write_number(out: &mut Vec<u8>, number: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn write_byte(out: &mut Vec<u8>, byte: u8) {
    match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        0x08 => out.extend_from_slice(b"\\b"),
        0x0c => out.extend_from_slice(b"\\f"),
        byte if is_escaped(byte) => {
            let _infallible = write!(out, "\\u{byte:04x}");
        }
        byte => out.push(byte),
    }
}

fn is_escaped(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_what_serde_json_writes(text in "[ -~\u{0}-\u{1f}äß€😀\u{7f}]{0,100}") {
            let mut out = Vec::new();
            write(&mut out, &text);
            prop_assert_eq!(String::from_utf8(out).unwrap(), serde_json::to_string(&text).unwrap());
        }
    }
}
