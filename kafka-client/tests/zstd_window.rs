//! A zstd frame's window is address space, of which only what is decoded becomes memory.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test reports by panicking")]

use bytes::{BufMut, BytesMut};
use kafka_client::record_batch::{
    BatchBuilder, BatchError, Compression, Encoder, Stamp, compress, decode_within,
};

const MIB: usize = 1024 * 1024;

/// The most memory that the process has had since the last call, bytes. zstd allocates in C, where
/// an allocator of ours counts nothing; so this test has a process of its own.
fn peak_and_reset() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    kib * 1024
}

fn sealed(head: &[u8], body: &[u8]) -> bytes::Bytes {
    let mut batch = BytesMut::from(head);
    batch.put_slice(body);
    let length = u32::try_from(batch.len() - 12).unwrap();
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    let checksum = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&checksum.to_be_bytes());
    batch.freeze()
}

#[test]
fn a_window_of_128_mib_takes_what_is_decoded_and_a_bomb_twice_its_limit() {
    let plain = BatchBuilder::with_capacity(0).finish(Stamp::NONE);
    let mut head = plain.to_vec();
    head[22] = 4;
    // A window of 128 MiB, then 65 blocks that repeat one byte 128 KiB times: 8 MiB and more.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 17 << 3];
    for last in (0..65).map(|block| u32::from(block == 64)) {
        frame.extend_from_slice(&(last | (1 << 1) | ((128 * 1024) << 3)).to_le_bytes()[..3]);
        frame.push(7);
    }
    let batch = sealed(&head, &frame);
    let before = peak_and_reset();
    let result = decode_within(&batch, 8 * MIB).map(drop);
    let took = peak_and_reset().saturating_sub(before);
    assert_eq!(result, Err(BatchError::Inflated { limit: 8 * MIB }));
    println!("{} bytes with a window of 128 MiB took {took} bytes", frame.len());
    assert!(took < 3 * 8 * MIB + MIB, "{took}");

    let plain = sealed(&plain, &vec![0; 65 * MIB]);
    let bomb = compress(&plain, &mut Encoder::new(Compression::Zstd(1))).unwrap();
    drop(plain);
    peak_and_reset();
    let before = peak_and_reset();
    let result = decode_within(&bomb, 64 * MIB).map(drop);
    let took = peak_and_reset().saturating_sub(before);
    assert_eq!(result, Err(BatchError::Inflated { limit: 64 * MIB }));
    println!("{} bytes of zstd took {took} bytes up to the limit of 64 MiB", bomb.len());
    assert!(took < 2 * 64 * MIB + 8 * MIB, "{took}");
}
