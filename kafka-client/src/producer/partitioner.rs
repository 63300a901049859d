//! Key to partition, and a good partition for records without a key (pure).

use crate::config::Partitioner;

impl Partitioner {
    /// The partition that a key decides, among `partitions`; `None` if it decides nothing.
    pub(crate) fn keyed(self, key: Option<&[u8]>, partitions: usize) -> Option<usize> {
        let key = key?;
        let hash = match self {
            Self::Murmur2Random => murmur2(key) & 0x7fff_ffff,
            // As in librdkafka, an empty key is no key.
            Self::ConsistentRandom if key.is_empty() => return None,
            Self::ConsistentRandom => crc32(key),
        };
        (hash as usize).checked_rem(partitions)
    }
}

/// The partition of records without a key: one for about a batch, then another.
#[derive(Debug, Default)]
pub(crate) struct Sticky {
    current: usize,
    /// Bytes until the next change.
    left: usize,
}

/// What a choice among partitions weighs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) queued_bytes: usize,
    pub(crate) has_leader: bool,
}

impl Sticky {
    /// The partition for a record of `bytes`; `loads` is asked only when it is time to change.
    pub(crate) fn pick(
        &mut self,
        bytes: usize,
        batch_bytes: usize,
        random: impl FnOnce() -> u64,
        loads: impl FnOnce() -> Vec<Load>,
    ) -> usize {
        if self.left < bytes {
            self.current = least_loaded(&loads(), random());
            self.left = batch_bytes.max(bytes);
        }
        self.left -= bytes;
        self.current
    }

    /// The partition in use may be a bad one by now: choose again for the next record.
    pub(crate) fn reconsider(&mut self) {
        self.left = 0;
    }
}

/// A random partition, likelier the less is queued for it (KIP-794); one without a leader only if
/// there is no other (KIP-480).
fn least_loaded(loads: &[Load], random: u64) -> usize {
    let led = loads.iter().any(|load| load.has_leader);
    let usable = |load: &&Load| load.has_leader || !led;
    let most = loads.iter().filter(usable).map(|load| load.queued_bytes).max().unwrap_or(0);
    let weight = |load: &Load| {
        if usable(&load) { (most - load.queued_bytes) as u64 + 1 } else { 0 }
    };
    let total: u64 = loads.iter().map(weight).sum();
    let mut left = random % total.max(1);
    for (index, load) in loads.iter().enumerate() {
        match left.checked_sub(weight(load)) {
            Some(rest) => left = rest,
            None => return index,
        }
    }
    0
}

/// MurmurHash2 as Kafka's Java client has it.
fn murmur2(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ key.len() as u32;
    let mut words = key.chunks_exact(4);
    for word in words.by_ref() {
        let mut k = word.iter().rev().fold(0, |k, byte| (k << 8) | u32::from(*byte));
        k = k.wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        hash ^= rest.iter().rev().fold(0, |k, byte| (k << 8) | u32::from(*byte));
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// CRC-32 ISO-HDLC, as in zlib.
fn crc32(key: &[u8]) -> u32 {
    !key.iter().fold(!0, |crc, byte| {
        let index = (crc ^ u32::from(*byte)) & 0xff;
        CRC32.get(index as usize).copied().unwrap_or(0) ^ (crc >> 8)
    })
}

const CRC32: [u32; 256] = crc32_table();

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, within 0..256")]
const fn crc32_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = index as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_is_that_of_java() {
        for (key, hash) in
            [("21", -973932308), ("foobar", -790332482), ("abc", 479470107), ("", 275646681)]
        {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
        assert_eq!(murmur2(b"a-little-bit-long-string").cast_signed(), -985981536);
    }

    #[test]
    fn crc32_is_that_of_librdkafka() {
        assert_eq!(crc32(b"foobar"), 2666930069);
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn an_empty_key_is_a_key_for_java_only() {
        assert_eq!(Partitioner::Murmur2Random.keyed(Some(b""), 7), Some(275646681 % 7));
        assert_eq!(Partitioner::ConsistentRandom.keyed(Some(b""), 7), None);
        assert_eq!(Partitioner::Murmur2Random.keyed(None, 7), None);
        assert_eq!(Partitioner::Murmur2Random.keyed(Some(b"k"), 0), None);
    }

    fn load(queued_bytes: usize, has_leader: bool) -> Load {
        Load { queued_bytes, has_leader }
    }

    #[test]
    fn a_record_without_a_key_stays_for_about_a_batch() {
        let mut sticky = Sticky::default();
        let loads = || vec![load(0, true); 3];
        let picks: Vec<_> = (0..8).map(|turn| sticky.pick(10, 40, || turn, loads)).collect();
        assert_eq!(picks, [0, 0, 0, 0, 1, 1, 1, 1]);
    }

    #[test]
    fn a_partition_without_a_leader_is_the_last_resort() {
        let loads = [load(0, false), load(900, true), load(0, false)];
        for random in 0..2000 {
            assert_eq!(least_loaded(&loads, random), 1);
        }
        assert!(least_loaded(&[load(0, false); 3], 5) < 3);
        assert_eq!(least_loaded(&[], 5), 0);
    }

    #[test]
    fn a_long_queue_is_chosen_rarely() {
        let loads = [load(900, true), load(0, true)];
        let long = (0..902).filter(|random| least_loaded(&loads, *random) == 0).count();
        assert_eq!(long, 1);
    }
}
