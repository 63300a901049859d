//! A text as a string of JSON, fast where little of it has to be escaped.

/// Bytes that are looked at together: none of most of these has to be escaped.
const CHUNK: usize = 32;

/// Writes it with its quotes, as serde_json does.
pub(super) fn write(out: &mut Vec<u8>, text: &str) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    for chunk in text.as_bytes().chunks(CHUNK) {
        // Without a way out in between, so that the compiler makes a few instructions of it.
        if !chunk.iter().fold(false, |found, byte| found | is_escaped(*byte)) {
            out.extend_from_slice(chunk);
            continue;
        }
        for byte in chunk {
            match byte {
                b'"' => out.extend_from_slice(b"\\\""),
                b'\\' => out.extend_from_slice(b"\\\\"),
                b'\n' => out.extend_from_slice(b"\\n"),
                b'\r' => out.extend_from_slice(b"\\r"),
                b'\t' => out.extend_from_slice(b"\\t"),
                0x08 => out.extend_from_slice(b"\\b"),
                0x0c => out.extend_from_slice(b"\\f"),
                byte if is_escaped(*byte) => {
                    out.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
                }
                byte => out.push(*byte),
            }
        }
    }
    out.push(b'"');
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
