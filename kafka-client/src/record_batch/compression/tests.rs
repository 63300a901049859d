//! Stories about codecs: Kafka's batches are read, ours come back, and no input can hurt.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::record_batch::{BatchBuilder, Record, compress};

const MIB: usize = 1024 * 1024;

const ALL: [Compression; 8] = [
    Compression::Gzip(1),
    Compression::Gzip(6),
    Compression::Gzip(9),
    Compression::Snappy,
    Compression::Lz4,
    Compression::Zstd(-131_072),
    Compression::Zstd(3),
    Compression::Zstd(22),
];
const CODECS: [i16; 4] = [gzip::BITS, snappy::BITS, lz4::BITS, zstd::BITS];

/// What `encoder` makes of `plain`, shorter or not.
fn compressed(encoder: &mut Encoder, plain: &[u8]) -> Bytes {
    let _smaller = encoder.encode(plain);
    Bytes::copy_from_slice(&encoder.buffer)
}

fn once(compression: Compression, plain: &[u8]) -> Bytes {
    compressed(&mut Encoder::new(compression), plain)
}

/// Bytes that shrink somewhat: `seeds` repeated, with a change in each repetition.
fn texture(seeds: &[u8], len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = seeds.iter().copied().cycle().take(len).collect();
    for (at, byte) in bytes.iter_mut().enumerate().step_by(97) {
        *byte = byte.wrapping_add((at / 97) as u8);
    }
    bytes
}

proptest! {
    // The codecs in C are slow without optimization.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_codec_gives_back_what_it_took(
        inputs in vec((vec(any::<u8>(), 1..200), 0usize..150_000), 1..4),
        which in 0..ALL.len(),
    ) {
        let mut encoder = Encoder::new(ALL[which]);
        for (seeds, len) in inputs {
            let plain = texture(&seeds, len);
            let packed = compressed(&mut encoder, &plain);
            let back = decode(ALL[which].bits(), &packed, plain.len()).unwrap();
            prop_assert_eq!(&back[..], &plain[..]);
            if let Some(less) = plain.len().checked_sub(1) {
                let error = BatchError::Inflated { limit: less };
                prop_assert_eq!(decode(ALL[which].bits(), &packed, less), Err(error));
            }
        }
    }

    #[test]
    fn random_bytes_do_not_shrink_and_come_back(plain in vec(any::<u8>(), 0..5000)) {
        for compression in ALL {
            let packed = once(compression, &plain);
            prop_assert_eq!(&decode(compression.bits(), &packed, 5000).unwrap()[..], &plain[..]);
        }
    }

    #[test]
    fn arbitrary_input_never_panics(bytes in vec(any::<u8>(), 0..300), bits in 0i16..8) {
        let _ = decode(bits, &Bytes::from(bytes), 10_000).map(|plain| assert!(plain.len() <= 10_000));
    }

    #[test]
    fn a_changed_or_cut_input_never_panics_nor_exceeds_the_limit(
        seeds in vec(any::<u8>(), 1..50), which in 0..ALL.len(), cut: prop::sample::Index,
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let plain = texture(&seeds, 70_000);
        let mut packed = once(ALL[which], &plain).to_vec();
        for (at, byte) in changes {
            let at = at.index(packed.len());
            packed[at] = byte;
        }
        let bits = ALL[which].bits();
        let short = Bytes::copy_from_slice(&packed[..cut.index(packed.len())]);
        for bytes in [Bytes::from(packed), short] {
            if let Ok(plain) = decode(bits, &bytes, 70_000) {
                prop_assert!(plain.len() <= 70_000);
            }
        }
    }
}

#[test]
fn a_bomb_is_cut() {
    let plain = vec![0; 65 * MIB];
    for compression in [Compression::Gzip(1), Compression::Lz4, Compression::Snappy] {
        let bomb = once(compression, &plain);
        for limit in [1000, MIB, 64 * MIB] {
            let error = BatchError::Inflated { limit };
            assert_eq!(decode(compression.bits(), &bomb, limit), Err(error), "{compression:?}");
        }
    }
    let bomb = once(Compression::Zstd(1), &plain);
    assert!(bomb.len() < 10_000, "{}", bomb.len());
    let error = BatchError::Inflated { limit: 64 * MIB };
    assert_eq!(decode(zstd::BITS, &bomb, 64 * MIB), Err(error));
}

#[test]
fn snappys_own_word_on_its_length_takes_no_memory() {
    // A varint of 60 MiB in front of nothing: within the limit, and impossible.
    let lie = Bytes::from_static(&[0x80, 0x80, 0x80, 0x1e, 0]);
    assert!(matches!(decode(snappy::BITS, &lie, 64 * MIB), Err(BatchError::Compressed { .. })));
}

#[test]
fn raw_snappy_from_librdkafka_is_read() {
    let plain = b"raw ".repeat(1000);
    let raw = snap::raw::Encoder::new().compress_vec(&plain).unwrap();
    assert_eq!(&decode(snappy::BITS, &raw.into(), MIB).unwrap()[..], &plain[..]);
}

#[test]
fn gzip_of_several_members_is_read() {
    let mut members = once(Compression::Gzip(6), b"one ").to_vec();
    members.extend_from_slice(&once(Compression::Gzip(6), b"two"));
    assert_eq!(&decode(gzip::BITS, &members.into(), 10).unwrap()[..], b"one two");
}

#[test]
fn a_codec_that_nobody_knows_is_named() {
    for bits in [5, 6, 7] {
        assert_eq!(decode(bits, &Bytes::from_static(b"x"), 10), Err(BatchError::Codec(bits)));
    }
}

#[test]
fn frames_are_those_that_java_reads() {
    let plain = texture(b"frame", 150_000);
    let lz4 = once(Compression::Lz4, &plain);
    // Magic, version 1 with independent blocks, 64 KiB, and the checksum of these two.
    assert_eq!(lz4[..7], [0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82]);
    let snappy = once(Compression::Snappy, &plain);
    assert_eq!(snappy[..16], *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01");
    let first = u32::from_be_bytes(snappy[16..20].try_into().unwrap()) as usize;
    assert_eq!(snap::raw::decompress_len(&snappy[20..20 + first]), Ok(32 * 1024));
}

fn batch_of(values: &[&[u8]]) -> Bytes {
    let mut builder = BatchBuilder::with_capacity(0);
    for value in values {
        let value = Some(*value);
        let record = Record { partition: None, key: None, value, headers: &[], timestamp_ms: 5 };
        assert!(builder.push_within(&record, usize::MAX));
    }
    builder.finish(crate::record_batch::Stamp::NONE)
}

#[test]
fn a_batch_that_does_not_shrink_is_not_compressed_and_none_is_compressed_twice() {
    let value = b"shrinks ".repeat(100);
    for compression in ALL.into_iter().filter(|c| *c != Compression::Zstd(-131_072)) {
        let mut encoder = Encoder::new(compression);
        assert_eq!(compress(&batch_of(&[b"x"]), &mut encoder), None);
        let plain = batch_of(&[&value, &value]);
        let packed = compress(&plain, &mut encoder).unwrap();
        assert!(packed.len() < plain.len() / 2, "{compression:?}");
        assert_eq!(compress(&packed, &mut encoder), None);
        let (header, records) = crate::record_batch::decode_all(&packed).unwrap();
        assert_eq!(header.codec(), compression.bits());
        assert_eq!(records, crate::record_batch::decode_all(&plain).unwrap().1);
    }
    assert_eq!(compress(&batch_of(&[&value]), &mut Encoder::new(Compression::None)), None);
}

macro_rules! golden {
    ($name:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/", $name, ".bin"))
    };
}

#[test]
fn no_cut_of_another_clients_batch_is_read_as_whole() {
    for (golden, bits) in [
        (&golden!("gzip")[..], gzip::BITS),
        (golden!("snappy"), snappy::BITS),
        (golden!("lz4"), lz4::BITS),
        (golden!("zstd"), zstd::BITS),
        (golden!("librdkafka-snappy"), snappy::BITS),
        (golden!("librdkafka-lz4"), lz4::BITS),
    ] {
        let body = Bytes::from_static(&golden[61..]);
        let whole = decode(bits, &body, MIB).unwrap();
        for cut in (0..body.len()).step_by(53) {
            if let Ok(part) = decode(bits, &body.slice(..cut), MIB) {
                assert!(part.len() < whole.len(), "codec {bits} cut at {cut}");
            }
        }
    }
}

#[test]
fn an_empty_body_is_empty_or_refused() {
    for bits in CODECS {
        if let Ok(plain) = decode(bits, &Bytes::new(), 10) {
            assert!(plain.is_empty());
        }
    }
}
