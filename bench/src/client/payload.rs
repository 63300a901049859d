//! The records that every client sends: JSON with a part that no codec shrinks.

use std::fmt::Write as _;

/// Bytes of all payloads of a file together: enough that a batch rarely has the same one twice.
const POOL_BYTES: usize = 4 * 1024 * 1024;

/// The same payloads in every run.
const SEED: u64 = 17;

/// Characters of a signature; one carries 6 bits.
const SIGNATURE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Lines of exactly `bytes` each, in the form that ProducerPerformance reads.
pub(super) fn pool(bytes: usize) -> String {
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut lines = String::with_capacity(POOL_BYTES + POOL_BYTES / bytes.max(1) + bytes);
    while lines.len() < POOL_BYTES {
        let line = payload(bytes, &mut random);
        lines.push_str(&line);
        lines.push('\n');
    }
    lines.pop();
    lines
}

/// An event of `bytes`: three quarters are fields as services log them, the rest is a signature.
fn payload(bytes: usize, random: &mut fastrand::Rng) -> String {
    let mut text = format!(r#"{{"user":{},"status":200"#, random.u32(..1_000_000));
    let mut add = |field: String| {
        if text.len() + field.len() <= bytes * 3 / 4 {
            text.push_str(&field);
        }
    };
    add(format!(r#","path":"/v1/orders/{}""#, random.u32(..100_000)));
    for number in 0..bytes / 90 {
        let (sku, count) = (random.u32(..100_000), random.u8(1..9));
        let (price, id) = (random.u32(100..100_000), random.u32(..));
        let mut item = format!(r#","item-{number}":{{"sku":"a-{sku}","count":{count},"#);
        // Writing to a string cannot fail.
        let _written = write!(item, r#""price":{price},"currency":"EUR","id":"{id:08x}"}}"#);
        add(item);
    }
    text.push_str(r#","sig":""#);
    while text.len() + 2 < bytes {
        let letter = random.choice(SIGNATURE).copied().unwrap_or(b'-');
        text.push(char::from(letter));
    }
    text.push_str("\"}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_payload_is_json_of_the_wanted_size() {
        for bytes in [100, 1024] {
            let pool = pool(bytes);
            assert!(pool.len() > POOL_BYTES / 2);
            for line in pool.lines() {
                assert_eq!(line.len(), bytes);
                assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
            }
        }
    }

    #[test]
    fn the_same_payloads_come_every_time() {
        assert_eq!(pool(100), pool(100));
    }
}
