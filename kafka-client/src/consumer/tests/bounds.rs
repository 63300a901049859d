//! Where logs begin and end, and how much one fetch takes.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_offset_out_of_range_is_told_both_ends_and_the_ends_are_not() {
    let cluster = with_batches(&[TestBatch::of(&[0, 1, 2]), TestBatch::of(&[0, 1])]);
    let consumer = consumer(&cluster);
    cluster.expire("orders", 0, 3);
    for offset in [0, 2, 6, i64::MAX] {
        let started = Instant::now();
        let error = consumer.fetch_one(offset, WAIT).await.unwrap_err();
        assert_eq!(error, ReadError::OutOfRange { log_start: 3, log_end: 5 }, "{offset}");
        assert!(started.elapsed() < Duration::from_secs(1));
    }
    let fetched = consumer.fetch_one(3, WAIT).await.unwrap();
    assert_eq!((fetched.offsets(), fetched.log_start), (vec![3, 4], Some(3)));
    assert_eq!(read(&consumer, 5).await, (vec![], 5));
    assert_eq!(consumer.offset_of(At::Earliest).await, Ok(3));
    cluster.truncate("orders", 0, 0);
    let error = consumer.fetch_one(5, WAIT).await.unwrap_err();
    assert_eq!(error, ReadError::OutOfRange { log_start: 3, log_end: 3 });
}

#[tokio::test(start_paused = true)]
async fn a_topic_without_records_begins_and_ends_at_0() {
    let cluster = cluster(1);
    let consumer = consumer(&cluster);
    for at in [At::Earliest, At::Latest, At::Time(0), At::Time(i64::MAX), At::Time(-7)] {
        assert_eq!(consumer.offset_of(at).await, Ok(0), "{at:?}");
    }
    let started = Instant::now();
    let fetched = consumer.fetch_one(0, WAIT).await.unwrap();
    assert_eq!((fetched.offsets(), fetched.next_offset, fetched.log_end), (vec![], 0, 0));
    assert!((WAIT..WAIT + FETCH_PATIENCE).contains(&started.elapsed()));
}

#[tokio::test(start_paused = true)]
async fn a_time_is_the_first_record_since_and_after_the_last_one_the_log_end() {
    let cluster = with_batches(&[
        TestBatch::of(&[0, 1]).of_time(100),
        TestBatch::of(&[0]).of_time(200),
        TestBatch::of(&[0]).of_time(300).in_transaction(7),
        TestBatch::of(&[0]).of_time(400),
    ]);
    let (all, stable) = (consumer(&cluster), committed(&cluster));
    for (time, at, committed_at) in
        [(-5, 0, 0), (100, 0, 0), (101, 2, 2), (250, 3, 3), (400, 4, 3), (401, 5, 3)]
    {
        assert_eq!(all.offset_of(At::Time(time)).await, Ok(at), "{time}");
        assert_eq!(stable.offset_of(At::Time(time)).await, Ok(committed_at), "{time}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_does_not_exist_or_is_forbidden_is_refused_partition_by_partition() {
    use crate::fake_broker::{FETCH, Fault, LIST_OFFSETS, Trace, When};
    let cluster = with_batches(&[TestBatch::of(&[0])]);
    let consumer = consumer(&cluster);
    let asked = [("orders", 0), ("orders", 1), ("orders", -1), ("nothing", 0), ("orders", 0)];
    let offsets = consumer.offsets(&asked, At::Latest, WAIT).await;
    let missing = |partition| Reason::NoSuchPartition { partition, count: 1 };
    let unknown = Err(Reason::UnknownTopic);
    assert_eq!(offsets, [Ok(1), Err(missing(1)), Err(missing(-1)), unknown, Ok(1)]);
    let asked = asked.map(|(topic, partition)| (topic, partition, 0));
    let fetched = consumer.fetch(&asked, MIB, WAIT).await;
    let told: Vec<_> = fetched.into_iter().map(|it| it.map(|it| it.offsets())).collect();
    let refused = |reason| Err(ReadError::Refused(reason));
    let unknown = refused(Reason::UnknownTopic);
    let missing = [refused(missing(1)), refused(missing(-1))];
    assert_eq!(told[0], Ok(vec![0]));
    assert_eq!(told[1..3], missing);
    assert_eq!((&told[3], &told[4]), (&unknown, &Ok(vec![0])), "one partition twice");

    let refusal = Fault::Refuse { code: 29, trace: Trace::Nothing };
    cluster.arm(FETCH, When::Nth(1), refusal.clone());
    cluster.arm(LIST_OFFSETS, When::Nth(1), refusal);
    let reason = Reason::of_code(29);
    assert_eq!(consumer.offset_of(At::Latest).await, Err(reason.clone()));
    assert_eq!(consumer.fetch_one(0, WAIT).await, Err(ReadError::Refused(reason)));
}

#[tokio::test(start_paused = true)]
async fn a_fetch_stops_within_its_bytes_and_gives_one_record_at_least() {
    let many: Vec<i32> = (0..100).collect();
    let cluster = with_batches(&[TestBatch::of(&many), TestBatch::of(&many)]);
    let consumer = consumer(&cluster);
    let fetch = async |from, bytes| {
        let fetched = consumer.fetch(&[("orders", 0, from)], bytes, WAIT).await.remove(0);
        let fetched = fetched.unwrap();
        assert_eq!(fetched.offsets(), (from..fetched.next_offset).collect::<Vec<_>>());
        fetched.next_offset
    };
    assert_eq!(fetch(0, 0).await, 1);
    assert_eq!(fetch(7, 1).await, 8);
    let mut position = 0;
    let mut fetches = 0;
    while position < 200 {
        let next = fetch(position, 10 * (1 + crate::limits::RECORD_OVERHEAD_BYTES)).await;
        assert_eq!(next, position + 10, "each record counts with what is around it");
        (position, fetches) = (next, fetches + 1);
    }
    assert_eq!(fetches, 20);
}

#[tokio::test(start_paused = true)]
async fn partitions_take_turns_when_bytes_are_scarce() {
    let cluster = FakeCluster::new(FakeSettings::default());
    cluster.create_topic("wide", &[1, 1, 1]);
    (0..3).for_each(|partition| cluster.put("wide", partition, TestBatch::of(&[0]).bytes()));
    let consumer = consumer(&cluster);
    let all = [("wide", 0, 0), ("wide", 1, 0), ("wide", 2, 0)];
    let mut given = [0; 3];
    for _ in 0..3 {
        let fetched = consumer.fetch(&all, 1, WAIT).await;
        for (count, fetched) in given.iter_mut().zip(fetched) {
            *count += fetched.unwrap().records.len();
        }
    }
    assert_eq!(given, [1, 1, 1]);
}
