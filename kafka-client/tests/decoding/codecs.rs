//! Compressed bodies: arbitrary, cut, changed, and bombs of every codec.

use bytes::Bytes;
use kafka_client::record_batch::{BatchError, Compression, Encoder, HEADER_BYTES, compress};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::batches::{batch, read};
use crate::memory::peak;
use crate::{KIB, MIB, changed, changes};

const GZIP: i16 = 1;
const SNAPPY: i16 = 2;
const LZ4: i16 = 3;
const ZSTD: i16 = 4;

const ALL: [(i16, Compression); 4] = [
    (GZIP, Compression::Gzip(6)),
    (SNAPPY, Compression::Snappy),
    (LZ4, Compression::Lz4),
    (ZSTD, Compression::Zstd(3)),
];

/// A buffer that doubles up to its limit, the old one while it does, and what a codec holds by
/// itself: LZ4 two blocks of up to 8 MiB.
pub fn bound(limit: usize) -> usize {
    2 * limit + 17 * MIB
}

/// Decompresses `body`; fails if that takes more than its bound.
fn within_bound(codec: i16, body: &[u8], limit: usize) -> (Result<usize, BatchError>, usize) {
    let batch = batch(codec, 0, body);
    let (result, peak) = peak(|| read(&batch, limit));
    assert!(peak <= bound(limit), "codec {codec}: {peak} for a limit of {limit}");
    (result, peak)
}

/// What the codec makes of `plain`, which must shrink.
fn packed(compression: Compression, plain: &[u8]) -> Bytes {
    let packed = compress(&batch(0, 0, plain), &mut Encoder::new(compression)).unwrap();
    packed.slice(HEADER_BYTES..)
}

/// Decompression went well: there were bytes, and no records were asked for.
fn came_out(result: &Result<usize, BatchError>) -> Option<usize> {
    match result {
        Ok(0) => Some(0),
        Err(BatchError::LeftOver(bytes)) => Some(*bytes),
        _ => None,
    }
}

#[test]
fn no_bomb_takes_more_than_twice_its_limit() {
    let plain = vec![0; 9 * MIB];
    for (codec, compression) in ALL {
        let bomb = packed(compression, &plain);
        for limit in [0, 1, KIB, MIB, 7 * MIB, 8 * MIB] {
            let (result, peak) = within_bound(codec, &bomb, limit);
            assert_eq!(result, Err(BatchError::Inflated { limit }), "codec {codec}");
            assert!(peak <= 2 * limit + MIB, "codec {codec}: {peak} for a limit of {limit}");
            if limit == 8 * MIB {
                let factor = peak as f64 / limit as f64;
                println!("codec {codec}: {} bytes to the limit, peak {factor:.2}", bomb.len());
            }
        }
        let (result, _) = within_bound(codec, &bomb, 9 * MIB);
        assert_eq!(came_out(&result), Some(9 * MIB), "codec {codec}");
    }
}

#[test]
fn gzip_members_add_up_to_the_limit() {
    let member = packed(Compression::Gzip(9), &[0; 10 * KIB]);
    let bomb = member.repeat(1000);
    let error = Err(BatchError::Inflated { limit: MIB });
    assert_eq!(within_bound(GZIP, &bomb, MIB).0, error);
    let (result, _) = within_bound(GZIP, &bomb, 10_000 * KIB);
    assert_eq!(came_out(&result), Some(10_000 * KIB));
}

#[test]
fn zstd_frames_add_up_to_the_limit() {
    let bomb = packed(Compression::Zstd(3), &[0; 10 * KIB]).repeat(1000);
    let error = Err(BatchError::Inflated { limit: MIB });
    assert_eq!(within_bound(ZSTD, &bomb, MIB).0, error);
    let (result, _) = within_bound(ZSTD, &bomb, 10_000 * KIB);
    assert_eq!(came_out(&result), Some(10_000 * KIB));
}

#[test]
fn snappy_blocks_add_up_to_the_limit_and_lengths_are_not_believed() {
    let bomb = packed(Compression::Snappy, &[0; MIB]);
    let blocks = [&bomb[..], &bomb[16..].repeat(9)].concat();
    let error = Err(BatchError::Inflated { limit: 5 * MIB });
    assert_eq!(within_bound(SNAPPY, &blocks, 5 * MIB).0, error);
    let (result, _) = within_bound(SNAPPY, &blocks, 10 * MIB);
    assert_eq!(came_out(&result), Some(10 * MIB));
    // Raw, and as a block in xerial's frame: 60 MiB declared, 1 byte there.
    let lie = [0x80, 0x80, 0x80, 0x1e, 0];
    let framed = [&bomb[..16], &[0, 0, 0, 5], &lie].concat();
    let endless = [&bomb[..16], &[0x7f, 0xff, 0xff, 0xff], &lie].concat();
    for body in [&lie[..], &framed, &endless] {
        let (result, peak) = within_bound(SNAPPY, body, 64 * MIB);
        assert!(matches!(result, Err(BatchError::Compressed { .. })), "{result:?}");
        assert!(peak < KIB, "{peak}");
    }
}

#[test]
fn an_lz4_frame_of_the_largest_blocks_takes_its_buffers_and_no_more() {
    let plain = packed(Compression::Lz4, &[0; KIB]);
    assert_eq!(plain[4..6], [0x60, 0x40]);
    // Linked blocks of 4 MiB; the header's checksum is the second byte of its xxHash.
    for (flags, size) in [(0x60, 0x70), (0x40, 0x70)] {
        for checksum in 0..=255 {
            let mut body = plain.to_vec();
            body[4..7].copy_from_slice(&[flags, size, checksum]);
            let _ = within_bound(LZ4, &body, MIB);
        }
    }
    // The old format, whose blocks are 8 MiB.
    let old = [0x02, 0x21, 0x4c, 0x18, 1, 0, 0, 0, 0];
    let _ = within_bound(LZ4, &old, MIB);
}

#[test]
fn a_zstd_frame_with_a_huge_window_is_refused_or_takes_what_it_holds() {
    // Magic, no content size, then the window: from 1 KiB to 1.9 TiB; one empty last block.
    for window in 0..=255 {
        let body = [0x28, 0xb5, 0x2f, 0xfd, 0x00, window, 0x01, 0x00, 0x00];
        let (result, peak) = within_bound(ZSTD, &body, MIB);
        // 128 MiB is the most.
        assert_eq!(came_out(&result), (window <= 17 << 3).then_some(0), "{window}: {result:?}");
        assert!(peak < 256 * KIB, "{peak}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_bodies_are_read_or_refused(bytes in vec(any::<u8>(), 0..500)) {
        for (codec, _) in ALL {
            let (result, _) = within_bound(codec, &bytes, 10 * KIB);
            prop_assert!(came_out(&result).is_none_or(|bytes| bytes <= 10 * KIB));
        }
    }

    #[test]
    fn changed_bodies_are_read_or_refused(
        seed in vec(any::<u8>(), 1..40), changes in changes(), len in KIB..80 * KIB,
    ) {
        let plain: Vec<u8> = seed.iter().copied().cycle().take(len).collect();
        for (codec, compression) in ALL {
            let body = changed(&packed(compression, &plain), &changes);
            let (result, _) = within_bound(codec, &body, len);
            prop_assert!(came_out(&result).is_none_or(|bytes| bytes <= len));
        }
    }
}

#[test]
fn no_cut_of_a_body_is_as_long_as_the_whole() {
    let plain = b"some text that shrinks; ".repeat(100);
    for (codec, compression) in ALL {
        let body = packed(compression, &plain);
        let (result, _) = within_bound(codec, &body, MIB);
        assert_eq!(came_out(&result), Some(plain.len()), "codec {codec}");
        for cut in 0..body.len() {
            let (result, _) = within_bound(codec, &body[..cut], MIB);
            // The last bytes are a checksum or an end mark, which some readers do without.
            let short = came_out(&result).is_none_or(|bytes| bytes < plain.len());
            assert!(short || cut + 12 > body.len(), "codec {codec} cut at {cut}");
        }
    }
}
