//! The Proxy-Wasm ABI's numbers and its form of a header map.

/// A header by name and value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// Statuses that a host call returns.
pub mod status {
    /// Done.
    pub const OK: u32 = 0;
    /// There is no such thing.
    pub const NOT_FOUND: u32 = 1;
    /// An argument, or the moment of the call, is wrong.
    pub const BAD_ARGUMENT: u32 = 2;
    /// A queue has no item.
    pub const EMPTY: u32 = 7;
    /// The host cannot do it now.
    pub const INTERNAL_FAILURE: u32 = 10;
    /// The host does not have the function.
    pub const UNIMPLEMENTED: u32 = 12;
}

/// Header maps.
pub mod map {
    /// The request's headers.
    pub const REQUEST: u32 = 0;
    /// The request's trailers.
    pub const REQUEST_TRAILERS: u32 = 1;
    /// The headers of the response.
    pub const RESPONSE: u32 = 2;
    /// The headers of a callout's reply.
    pub const CALLOUT_REPLY: u32 = 6;
}

/// Buffers.
pub mod buffer {
    /// The request's body.
    pub const REQUEST_BODY: u32 = 0;
    /// The body of a callout's reply.
    pub const CALLOUT_REPLY: u32 = 4;
    /// The VM's configuration.
    pub const VM_CONFIGURATION: u32 = 6;
    /// The plugin's configuration.
    pub const PLUGIN_CONFIGURATION: u32 = 7;
}

/// What a callback on a stream returns.
pub const PAUSE: u32 = 1;

/// A header map as the ABI serializes it: a count, pairs of lengths, and NUL-terminated strings.
#[must_use]
pub fn encode(pairs: &[Pair]) -> Vec<u8> {
    let number = |n: usize| u32::try_from(n).unwrap().to_le_bytes();
    let mut bytes = number(pairs.len()).to_vec();
    for (name, value) in pairs {
        bytes.extend(number(name.len()));
        bytes.extend(number(value.len()));
    }
    for (name, value) in pairs {
        bytes.extend(name);
        bytes.push(0);
        bytes.extend(value);
        bytes.push(0);
    }
    bytes
}

/// The reverse of `encode`; none when the lengths do not fit.
#[must_use]
pub fn decode(bytes: &[u8]) -> Option<Vec<Pair>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let number = |at: usize| -> Option<usize> {
        Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize)
    };
    let count = number(0)?;
    let mut at = 4 + count.checked_mul(8)?;
    let mut pairs = Vec::new();
    for pair in 0..count {
        let mut take = |length: usize| {
            let part = bytes.get(at..at.checked_add(length)?)?.to_vec();
            at += length + 1;
            Some(part)
        };
        let name = take(number(4 + pair * 8)?)?;
        let value = take(number(8 + pair * 8)?)?;
        pairs.push((name, value));
    }
    Some(pairs)
}

/// The first value of a header, whatever its name's case.
#[must_use]
pub fn header<'a>(pairs: &'a [Pair], name: &str) -> Option<&'a [u8]> {
    let found = pairs.iter().find(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes()));
    found.map(|(_, value)| value.as_slice())
}

/// Pairs of text as pairs of bytes.
#[must_use]
pub fn pairs(text: &[(&str, &str)]) -> Vec<Pair> {
    text.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}
