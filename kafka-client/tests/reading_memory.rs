//! Whatever batches become when they are decompressed, all readers of a client together stay within
//! a bound of memory.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test reports by panicking")]

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_client::fake_broker::{FakeCluster, FakeSettings};
use kafka_client::record_batch::{BatchBuilder, Compression, Encoder, Stamp, compress};
use kafka_client::{ClusterConfig, ConsumerConfig, ReadError, Record};
use tokio::task::JoinSet;

const MIB: usize = 1024 * 1024;
const WAIT: Duration = Duration::from_secs(60);
const READERS: usize = 16;
/// Two batches of 64 MiB, each with a buffer or window of as many bytes; what the readers keep; and
/// what the allocator does not give back.
const BOUND: usize = 2 * 2 * 64 * MIB + READERS * 2 * MIB + 32 * MIB;

/// The most memory that the process has had since the last call, bytes. zstd allocates in C, where
/// an allocator of ours counts nothing; so this test has a process of its own.
fn peak_and_reset() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    kib * 1024
}

/// A batch of 32 KiB that is 1 GiB when it is decompressed.
fn bomb() -> Bytes {
    let mut batch = BytesMut::from(&BatchBuilder::with_capacity(0).finish(Stamp::NONE)[..]);
    batch[22] = 4;
    batch.put_slice(&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 10 << 3]);
    for last in (0..8192).map(|block| u32::from(block == 8191)) {
        // One byte, 128 KiB times.
        batch.put_slice(&(last | (1 << 1) | ((128 * 1024) << 3)).to_le_bytes()[..3]);
        batch.put_u8(7);
    }
    let length = u32::try_from(batch.len() - 12).unwrap();
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    let checksum = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&checksum.to_be_bytes());
    batch.freeze()
}

/// Records of these sizes, which shrink to almost nothing.
fn zeros(count: usize, bytes: usize) -> Bytes {
    let mut builder = BatchBuilder::with_capacity(0);
    let value = vec![0; bytes];
    for _ in 0..count {
        assert!(builder.push_within(&Record::new(&value), usize::MAX));
    }
    let plain = builder.finish(Stamp::NONE);
    compress(&plain, &mut Encoder::new(Compression::Zstd(1))).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_readers_of_batches_that_grow_take_no_more_memory_than_two() {
    let cluster = FakeCluster::new(FakeSettings::default());
    for (topic, batch) in
        [("small", zeros(60 * 1024, 1000)), ("large", zeros(1, 60 * MIB)), ("bombs", bomb())]
    {
        cluster.create_topic(topic, &[1]);
        cluster.put(topic, 0, batch);
        cluster.put(topic, 0, zeros(1, 1000));
    }
    let client = cluster.client(ClusterConfig::new(&cluster.bootstrap()).unwrap().into());
    let consumer = client.consumer(&ConsumerConfig::default());
    peak_and_reset();
    let before = peak_and_reset();
    let mut readers = JoinSet::new();
    for topic in ["small", "large", "bombs"] {
        for _ in 0..READERS {
            let consumer = consumer.clone();
            readers.spawn(async move {
                let fetched = consumer.fetch(&[(topic, 0, 0)], MIB, WAIT).await.remove(0);
                match fetched {
                    Ok(fetched) if topic == "large" => {
                        assert_eq!(fetched.records[0].value.as_ref().unwrap().len(), 60 * MIB);
                        None
                    }
                    Ok(fetched) => Some(fetched.records),
                    Err(ReadError::TooLarge { next_offset, .. }) => {
                        let behind = consumer.fetch(&[(topic, 0, next_offset)], MIB, WAIT).await;
                        Some(behind.into_iter().next().unwrap().unwrap().records)
                    }
                    Err(error) => panic!("{topic}: {error}"),
                }
            });
        }
    }
    let kept: Vec<_> = readers.join_all().await.into_iter().flatten().collect();
    let took = peak_and_reset().saturating_sub(before);
    assert_eq!(kept.len(), 2 * READERS);
    assert_eq!(kept.iter().filter(|records| records.len() == 1).count(), READERS);
    println!("{} readers took {} MiB at a time", 3 * READERS, took / MIB);
    assert!(took < BOUND, "{took}");
}
