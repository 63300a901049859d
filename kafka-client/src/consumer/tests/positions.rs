//! What a position yields and where it moves: compaction, transactions, markers, damage, codecs.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::calls::fetch::Aborted;
use crate::record_batch::{BatchError, Compression};

#[tokio::test(start_paused = true)]
async fn a_position_in_the_middle_of_a_batch_gets_nothing_before_it() {
    let cluster = with_batches(&[TestBatch::of(&[0, 1, 2, 3]), TestBatch::of(&[0, 1])]);
    let consumer = consumer(&cluster);
    assert_eq!(read(&consumer, 2).await, (vec![2, 3, 4, 5], 6));
    assert_eq!(read(&consumer, 5).await, (vec![5], 6));
    assert_eq!(read(&consumer, 6).await, (vec![], 6));
}

#[tokio::test(start_paused = true)]
async fn a_position_moves_over_what_compaction_has_emptied() {
    let gaps = TestBatch::of(&[1, 4]).until(9);
    let cluster = with_batches(&[gaps, TestBatch::of(&[]).until(4), TestBatch::of(&[0])]);
    let consumer = consumer(&cluster);
    assert_eq!(read(&consumer, 0).await, (vec![1, 4, 15], 16));
    assert_eq!(read(&consumer, 2).await, (vec![4, 15], 16));
    assert_eq!(read(&consumer, 7).await, (vec![15], 16), "behind the last record of a batch");
    let cluster = with_batches(&[TestBatch::of(&[0]), TestBatch::of(&[]).until(4)]);
    let consumer = self::consumer(&cluster);
    assert_eq!(read(&consumer, 1).await, (vec![], 6), "an empty batch at the end");
}

#[tokio::test(start_paused = true)]
async fn markers_are_never_given_and_aborted_records_only_to_who_reads_uncommitted() {
    let cluster = with_batches(&[
        TestBatch::of(&[0]).in_transaction(7),
        TestBatch::of(&[0]).in_transaction(8),
        TestBatch::of(&[0]),
        TestBatch::of(&[0]).in_transaction(7),
        TestBatch::marker(7, false),
        TestBatch::marker(8, true),
        // The same producer again, and this time it commits.
        TestBatch::of(&[0]).in_transaction(7),
        TestBatch::marker(7, true),
        TestBatch::of(&[0, 1]).in_transaction(7),
        TestBatch::marker(7, false),
    ]);
    let uncommitted = read(&consumer(&cluster), 0).await;
    assert_eq!(uncommitted, (vec![0, 1, 2, 3, 6, 8, 9], 11));
    let consumer = committed(&cluster);
    assert_eq!(read(&consumer, 0).await, (vec![1, 2, 6], 11));
    for (from, left) in [(1, vec![1, 2, 6]), (3, vec![6]), (4, vec![6]), (7, vec![]), (9, vec![])] {
        assert_eq!(read(&consumer, from).await, (left, 11), "from {from}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_transaction_ends_what_is_committed_and_what_the_log_end_is() {
    let open = [TestBatch::of(&[0, 1]), TestBatch::of(&[0]).in_transaction(7), TestBatch::of(&[0])];
    let cluster = with_batches(&open);
    let (all, stable) = (consumer(&cluster), committed(&cluster));
    assert_eq!(read(&all, 0).await, (vec![0, 1, 2, 3], 4));
    let fetched = stable.fetch_one(0, WAIT).await.unwrap();
    assert_eq!((fetched.offsets(), fetched.next_offset, fetched.log_end), (vec![0, 1], 2, 2));
    let ends = (all.offset_of(At::Latest).await, stable.offset_of(At::Latest).await);
    assert_eq!(ends, (Ok(4), Ok(2)));
    assert_eq!(read(&stable, 2).await, (vec![], 2));
    let ending = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        cluster.put("orders", 0, TestBatch::marker(7, true).bytes());
    };
    let (fetched, ()) = tokio::join!(stable.fetch_one(2, WAIT), ending);
    let fetched = fetched.unwrap();
    assert_eq!((fetched.offsets(), fetched.next_offset), (vec![2, 3], 5));
}

#[tokio::test(start_paused = true)]
async fn nothing_but_markers_and_aborted_records_is_waited_over() {
    let aborted = [TestBatch::of(&[0]).in_transaction(7), TestBatch::marker(7, false)];
    let cluster = with_batches(&aborted);
    let consumer = committed(&cluster);
    let started = Instant::now();
    let fetched = consumer.fetch_one(0, WAIT).await.unwrap();
    assert_eq!((fetched.offsets(), fetched.next_offset, fetched.log_end), (vec![], 2, 2));
    assert!(started.elapsed() >= WAIT, "no answer before there is something to say");
    assert!(cluster.requests(crate::fake_broker::FETCH) < 30, "it waits at the broker");
}

#[tokio::test(start_paused = true)]
async fn every_codec_is_read() {
    let codecs =
        [Compression::Gzip(6), Compression::Snappy, Compression::Lz4, Compression::Zstd(3)];
    let cluster = cluster(1);
    let batch = TestBatch::of_zeros(200_000);
    codecs.iter().for_each(|codec| cluster.put("orders", 0, batch.compressed(*codec)));
    cluster.put("orders", 0, batch.bytes());
    let fetched = consumer(&cluster).fetch_one(0, WAIT).await.unwrap();
    assert_eq!((fetched.offsets(), fetched.next_offset), (vec![0, 1, 2, 3, 4], 5));
    assert!(values(&fetched).iter().all(|value| value.len() == 200_000));
}

#[tokio::test(start_paused = true)]
async fn a_batch_beyond_the_limit_is_an_error_behind_what_came_before_it() {
    let cluster = with_batches(&[TestBatch::of(&[0, 1])]);
    let bomb = TestBatch::of_zeros(65 * MIB).until(9).compressed(Compression::Zstd(1));
    cluster.put("orders", 0, bomb);
    cluster.put("orders", 0, TestBatch::of(&[0]).bytes());
    let consumer = consumer(&cluster);
    assert_eq!(read(&consumer, 0).await, (vec![0, 1], 2));
    for offset in [2, 5] {
        let error = consumer.fetch_one(offset, WAIT).await.unwrap_err();
        assert_eq!(error, ReadError::TooLarge { offset, next_offset: 12, limit: 64 * MIB });
    }
    assert_eq!(read(&consumer, 12).await, (vec![12], 13));
}

#[tokio::test(start_paused = true)]
async fn a_damaged_batch_is_an_error_and_never_moves_the_position() {
    let cluster = with_batches(&[TestBatch::of(&[0])]);
    let mut damaged = TestBatch::of(&[0, 1]).bytes().to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    cluster.put("orders", 0, damaged.into());
    let consumer = consumer(&cluster);
    assert_eq!(read(&consumer, 0).await, (vec![0], 1));
    let error = consumer.fetch_one(1, WAIT).await.unwrap_err();
    let ReadError::Unreadable { offset: 1, next_offset: None, error } = error else {
        panic!("{error:?}")
    };
    assert!(matches!(error, BatchError::Checksum { .. }), "{error}");
}

#[test]
fn a_damaged_header_moves_no_position() {
    let mut damaged = TestBatch::of(&[]).until(4).bytes().to_vec();
    // The last offset delta: by its own account the batch ends at a million.
    damaged[24] = 0x0f;
    let given = cursor::read(damaged.into(), 0, None, &mut cursor::ReadBudget(MIB), 64 * MIB);
    assert_eq!(given.next_offset, 0);
    assert!(matches!(given.error, Some(ReadError::Unreadable { next_offset: None, .. })));
}

#[test]
fn a_batch_that_is_cut_short_at_the_end_is_left_for_the_next_fetch() {
    let batches = [TestBatch::of(&[0, 1]), TestBatch::of(&[0]).at(2)].map(|it| it.bytes());
    let whole = batches.concat();
    for cut in batches[0].len()..whole.len() {
        let mut budget = cursor::ReadBudget(MIB);
        let bytes = Bytes::copy_from_slice(&whole[..cut]);
        let given = cursor::read(bytes, 0, None, &mut budget, 64 * MIB);
        assert_eq!((given.records.len(), given.next_offset, given.error), (2, 2, None));
    }
}

proptest! {
    /// Whatever a broker sends: no panic, no step back, and records in order at or behind the offset.
    #[test]
    fn no_bytes_move_a_position_back(
        shapes in vec((vec(0..9i32, 0..4), 0..12i32, 0..4u8, 0..3i64), 0..6),
        aborted in vec((0..3i64, 0..40i64), 0..4),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        offset in 0..40i64,
        budget in 0..2000usize,
    ) {
        let mut bytes = Vec::new();
        let mut base = 0;
        for (mut deltas, more, kind, id) in shapes {
            deltas.sort_unstable();
            deltas.dedup();
            let last = deltas.last().copied().unwrap_or(0) + more;
            let batch = match kind {
                0 => TestBatch::marker(id, false),
                1 => TestBatch::marker(id, true),
                2 => TestBatch::of(&deltas).until(last).in_transaction(id),
                _ => TestBatch::of(&deltas).until(last),
            };
            bytes.extend_from_slice(&batch.at(base).bytes());
            base += i64::from(last) + 1;
        }
        let isolation = || {
            let aborted = aborted.iter();
            let aborted = aborted.map(|(id, first)| Aborted { producer_id: *id, first_offset: *first });
            Some(isolation::Isolation::new(aborted.collect()))
        };
        let read = |bytes: &[u8], isolation| {
            let bytes = Bytes::copy_from_slice(bytes);
            cursor::read(bytes, offset, isolation, &mut cursor::ReadBudget(budget), 64 * MIB)
        };
        for level in [None, isolation()] {
            let given = read(&bytes, level);
            prop_assert_eq!(given.error, None);
            prop_assert!(given.next_offset >= offset);
            let offsets: Vec<_> = given.records.iter().map(|record| record.offset).collect();
            prop_assert!(offsets.is_sorted_by(|one, next| one < next));
            prop_assert!(offsets.iter().all(|it| (offset..given.next_offset).contains(it)));
        }
        for (at, byte) in &changes {
            if let len @ 1.. = bytes.len() {
                bytes[at.index(len)] = *byte;
            }
        }
        prop_assert!(read(&bytes, isolation()).next_offset >= offset);
    }
}

#[test]
fn old_formats_can_be_stepped_over() {
    let mut old = TestBatch::of(&[0]).at(4).bytes().to_vec();
    old[16] = 1;
    let read = |offset| {
        let batch = Bytes::copy_from_slice(&old);
        cursor::read(batch, offset, None, &mut cursor::ReadBudget(MIB), 64 * MIB)
    };
    let error = BatchError::UnsupportedMagic { magic: 1, offset: 4, next_offset: 5 };
    let error = ReadError::Unreadable { offset: 3, next_offset: Some(5), error };
    assert_eq!(read(3).error, Some(error));
    assert_eq!((read(5).error, read(5).next_offset), (None, 5));
}

#[test]
fn records_are_slices_of_their_batch() {
    let batch = TestBatch::of(&[0, 1]).bytes();
    let range = batch.as_ptr_range();
    let given = cursor::read(batch.clone(), 0, None, &mut cursor::ReadBudget(MIB), 64 * MIB);
    for record in given.records {
        assert!(range.contains(&record.value.unwrap().as_ptr()));
    }
}
