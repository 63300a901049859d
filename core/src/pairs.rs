//! Header maps as Proxy-Wasm passes them: a count, the lengths, then names and values, each with a
//! NUL behind it (Proxy-Wasm ABI 0.2.1, serialized map).

/// A name and a value, as bytes.
pub type Pair = (Vec<u8>, Vec<u8>);

/// Takes a host's map apart; none when its lengths do not fit its bytes.
#[must_use]
pub fn decode(map: &[u8]) -> Option<Vec<Pair>> {
    if map.is_empty() {
        return Some(Vec::new());
    }
    let count = word(map, 0)?;
    // Each pair has two lengths and two NULs: no count can promise more than the bytes hold.
    if count > map.len() / (2 * WORD + 2) {
        return None;
    }
    let mut data = WORD + count * 2 * WORD;
    let mut pairs = Vec::with_capacity(count);
    for pair in 0..count {
        let lengths = WORD + pair * 2 * WORD;
        let mut next = |length: usize| {
            let end = data.checked_add(length)?;
            let text = map.get(data..end)?.to_vec();
            data = end + 1;
            Some(text)
        };
        let name = next(word(map, lengths)?)?;
        let value = next(word(map, lengths + WORD)?)?;
        pairs.push((name, value));
    }
    Some(pairs)
}

/// Puts a map together for the host.
#[must_use]
pub fn encode(pairs: &[(&str, &str)]) -> Vec<u8> {
    let size: usize = pairs.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    let mut map = Vec::with_capacity(WORD + pairs.len() * 2 * WORD + size);
    let mut put = |number: usize| map.extend_from_slice(&(number as u32).to_le_bytes());
    put(pairs.len());
    for (name, value) in pairs {
        put(name.len());
        put(value.len());
    }
    for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
        map.extend_from_slice(text.as_bytes());
        map.push(0);
    }
    map
}

fn word(map: &[u8], at: usize) -> Option<usize> {
    let bytes = map.get(at..at.checked_add(WORD)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
}

const WORD: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_map_whose_lengths_lie_is_refused() {
        assert_eq!(decode(&[]), Some(vec![]));
        assert_eq!(decode(&[0xff, 0xff, 0xff, 0xff]), None);
        let mut map = encode(&[("a", "b")]);
        map[4] = 200;
        assert_eq!(decode(&map), None);
        map[4..8].fill(0xff);
        assert_eq!(decode(&map), None);
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            pairs in prop::collection::vec(("[a-z]{0,9}", ".{0,9}"), 0..9)
        ) {
            let texts: Vec<_> = pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            let bytes: Vec<Pair> =
                pairs.iter().map(|(n, v)| (n.clone().into(), v.clone().into())).collect();
            prop_assert_eq!(decode(&encode(&texts)).unwrap(), bytes);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode(&bytes);
        }
    }
}
