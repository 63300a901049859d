//! Readers that share a hub, on a cluster in memory and a paused clock.

use crate::limits::FEED_GRACE;
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use kafka_client::fake_broker::{FETCH, LIST_OFFSETS, METADATA};

use super::*;
use crate::consume::cursor::Cursor;
use crate::consume::feeds::Reset;
use crate::consume::fixture::{Fixture, WITHIN};
use crate::consume::start::{GapReason, Start};
use crate::consume::topics::{Topics, TopicsPattern};
use crate::limits::FEED_LISTED;

const MEMORY: usize = 64 * 1024 * 1024;
const MINUTE: Duration = Duration::from_secs(60);

/// Fetches of a minute in which so many readers wait, and a record comes.
async fn fetches_of_waiting_readers(count: usize) -> u64 {
    let fixture = Fixture::new(&[1, 1, 1], MEMORY);
    let opened = (0..count).map(|_| fixture.follower(Start::Latest));
    let mut followers = join_all(opened).await;
    let waiting = followers.iter_mut().map(|follower| follower.next_records(MINUTE));
    let writing = async {
        tokio::time::sleep(MINUTE / 2).await;
        fixture.write(1, b"x").await;
        tokio::time::Instant::now()
    };
    let (read, written_at) = tokio::join!(join_all(waiting), writing);
    assert!(read.iter().all(|records| *records == [(1, 0, 1)]), "{read:?}");
    assert!(written_at.elapsed() < Duration::from_secs(1), "{:?}", written_at.elapsed());
    assert!(fixture.cluster.requests(LIST_OFFSETS) <= 2, "one question, and one for the others");
    assert!(fixture.cluster.requests(METADATA) <= 10);
    fixture.cluster.requests(FETCH)
}

#[tokio::test(start_paused = true)]
async fn a_thousand_readers_that_wait_fetch_as_much_as_one() {
    let one = fetches_of_waiting_readers(1).await;
    let all = fetches_of_waiting_readers(1000).await;
    assert!(all <= one + 2, "{all} fetches, {one} of one reader");
    // Each waits half a second.
    assert!((60..90).contains(&one), "{one}");
}

#[tokio::test(start_paused = true)]
async fn readers_of_old_records_share_what_is_read() {
    let read_all = async |count: usize| {
        let fixture = Fixture::new(&[1, 2], MEMORY);
        for number in 0..40 {
            fixture.write(number % 2, &[b'x'; 50_000]).await;
        }
        let reading = (0..count).map(async |_| {
            let mut follower = fixture.follower(Start::Earliest).await;
            let mut records = Vec::new();
            while records.len() < 40 {
                records.extend(follower.next_records(MINUTE).await);
            }
            for partition in 0..2 {
                let offsets: Vec<_> =
                    records.iter().filter(|it| it.0 == partition).map(|it| it.1).collect();
                assert_eq!(offsets, Vec::from_iter(0..20));
            }
        });
        join_all(reading).await;
        fixture.cluster.requests(FETCH)
    };
    let one = read_all(1).await;
    let all = read_all(100).await;
    assert!(all <= 2 * one, "{all} fetches, {one} of one reader");
}

#[tokio::test(start_paused = true)]
async fn without_readers_the_hub_stops_fetching() {
    let fixture = Fixture::new(&[1, 2], MEMORY);
    let mut follower = fixture.follower(Start::Latest).await;
    assert_eq!(follower.next_records(MINUTE).await, []);
    drop(follower);
    tokio::time::sleep(MINUTE).await;
    let fetches = fixture.cluster.requests(FETCH);
    tokio::time::sleep(10 * MINUTE).await;
    assert_eq!(fixture.cluster.requests(FETCH), fetches);
    fixture.write(0, b"later").await;
    let mut follower = fixture.follower(Start::Earliest).await;
    assert_eq!(follower.next_records(MINUTE).await, [(0, 0, 5)]);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_pauses_is_behind_the_tail_and_misses_nothing() {
    let fixture = Fixture::new(&[1], MEMORY);
    let mut slow = fixture.follower(Start::Latest).await;
    let mut fast = fixture.follower(Start::Latest).await;
    assert_eq!(slow.next_records(Duration::from_secs(1)).await, []);
    let value = vec![b'x'; 500_000];
    // Twice what the tail keeps.
    for offset in 0..70 {
        fixture.write(0, &value).await;
        assert_eq!(fast.next_records(MINUTE).await, [(0, offset, value.len())]);
    }
    let used = fixture.resources.memory.used();
    assert!(used < 20 * 1024 * 1024, "{used} bytes for one topic");
    let mut next = 0;
    while next < 70 {
        for (_, offset, _) in slow.next_records(MINUTE).await {
            assert_eq!(offset, next);
            next += 1;
        }
    }
    assert_eq!((slow.next_records(Duration::from_secs(1)).await, slow.lag()), (vec![], 0));
    assert_eq!(slow.id(), fast.id());
}

#[tokio::test(start_paused = true)]
async fn where_memory_is_spent_caches_shrink_and_reads_wait() {
    let fixture = Fixture::new(&[1, 1], 2 * 1024 * 1024);
    for number in 0..100 {
        fixture.write(number % 2, &[b'x'; 50_000]).await;
    }
    let others = fixture.resources.memory.hold(1024 * 1024 * 3 / 2);
    let mut follower = fixture.follower(Start::Earliest).await;
    let mut count = 0;
    while count < 100 {
        count += follower.next_records(MINUTE).await.len();
        let used = fixture.resources.memory.used();
        assert!(used <= 5 * 1024 * 1024 / 2, "{used}");
    }
    let rest = fixture.resources.memory.hold(1024 * 1024);
    assert!(fixture.resources.is_spent());
    let mut waits = fixture.follower(Start::Earliest).await;
    assert_eq!(waits.next_records(MINUTE).await, []);
    drop((others, rest));
    assert!(!waits.next_records(MINUTE).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_partition_without_leader_holds_back_no_other_and_is_read_once_it_has_one() {
    let fixture = Fixture::new(&[1, 2], MEMORY);
    fixture.write(1, b"first").await;
    fixture.cluster.lead("orders", 1, None);
    let mut follower = fixture.follower(Start::Latest).await;
    assert!(follower.id().is_ascii());
    for offset in 0..20 {
        fixture.write(0, b"x").await;
        let began = Instant::now();
        assert_eq!(follower.next_records(MINUTE).await, [(0, offset, 1)]);
        assert!(began.elapsed() < Duration::from_secs(1), "{:?} at {offset}", began.elapsed());
    }
    fixture.cluster.lead("orders", 1, Some(2));
    // By time: what was written before it opened is not of its.
    assert_eq!(follower.next_records(MINUTE).await, []);
    fixture.write(1, b"second").await;
    assert_eq!(follower.next_records(MINUTE).await, [(1, 1, 6)]);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_moves_is_followed() {
    let fixture = Fixture::new(&[1, 2], MEMORY);
    let mut follower = fixture.follower(Start::Latest).await;
    assert_eq!(follower.next_records(Duration::from_secs(1)).await, []);
    for (offset, leader) in (0..).zip([2, 1, 2]) {
        fixture.cluster.lead("orders", 0, Some(leader));
        fixture.write(0, b"x").await;
        assert_eq!(follower.next_records(MINUTE).await, [(0, offset, 1)]);
    }
}

#[tokio::test(start_paused = true)]
async fn records_that_are_gone_are_told_with_the_cursor_behind_them() {
    let fixture = Fixture::new(&[1], MEMORY);
    for _ in 0..10 {
        fixture.write(0, b"x").await;
    }
    fixture.cluster.expire("orders", 0, 5);
    let cursor = Given::Cursor(Cursor::parse("orders@0#2;").unwrap());
    let mut follower = Follower::open(fixture.reader(|_| {}), &cursor, None, WITHIN).await.unwrap();
    assert_eq!(follower.next_records(MINUTE).await, []);
    let gaps = follower.take_gaps();
    assert_eq!((gaps[0].from, gaps[0].to, gaps[0].reason), (Some(2), Some(5), GapReason::Expired));
    assert_eq!(gaps.len(), 1);
    let offsets: Vec<_> = follower.next_records(MINUTE).await.iter().map(|it| it.1).collect();
    assert_eq!(offsets, [5, 6, 7, 8, 9]);
    let strict = fixture.reader(|feed| feed.reset = Reset::None);
    let mut strict = Follower::open(strict, &cursor, None, WITHIN).await.unwrap();
    let refusal = strict.more(Instant::now() + MINUTE, Duration::ZERO).await.err().unwrap();
    assert_eq!(refusal.code, Code::OffsetOutOfRange);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_was_truncated_is_told_to_who_waits_and_to_who_comes_back() {
    let fixture = Fixture::new(&[1], MEMORY);
    for _ in 0..4 {
        fixture.write(0, b"x").await;
    }
    let mut waiting = fixture.follower(Start::Earliest).await;
    assert_eq!(waiting.next_records(MINUTE).await.len(), 4);
    assert_eq!(waiting.id(), "b3JkZXJzOjAwMDAwMDAwQDAjNC4wOw==", "orders:00000000@0#4.0;");
    let cursor = Given::Cursor(Cursor::parse(waiting.id()).unwrap());
    assert_eq!(waiting.next_records(Duration::from_secs(1)).await, []);
    fixture.cluster.truncate("orders", 0, 2);
    for _ in 0..4 {
        fixture.write(0, b"other").await;
    }
    let others = [(0, 2, 5), (0, 3, 5), (0, 4, 5), (0, 5, 5)];
    let back = Follower::open(fixture.reader(|_| {}), &cursor, None, WITHIN).await.unwrap();
    for mut follower in [waiting, back] {
        assert_eq!(follower.next_records(MINUTE).await, []);
        let gap = follower.take_gaps().remove(0);
        assert_eq!((gap.from, gap.to, gap.reason), (Some(4), Some(2), GapReason::Truncated));
        let mut records = Vec::new();
        while records.len() < 4 {
            records.extend(follower.next_records(MINUTE).await);
        }
        assert_eq!(records, others);
        assert_eq!(follower.take_gaps(), []);
    }
    let strict = fixture.reader(|feed| feed.reset = Reset::None);
    let mut strict = Follower::open(strict, &cursor, None, WITHIN).await.unwrap();
    let refusal = strict.more(Instant::now() + MINUTE, Duration::ZERO).await.err().unwrap();
    assert_eq!(refusal.code, Code::OffsetOutOfRange);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_wait_gets_what_was_written_before_it_asked() {
    let fixture = Fixture::new(&[1, 2], MEMORY);
    for offset in 0..20 {
        // A tail of others is there already, and may not have it yet.
        fixture.write(0, b"x").await;
        let cursor = format!("orders@0#{offset},1#0;");
        let cursor = Given::Cursor(Cursor::parse(&cursor).unwrap());
        let reader = fixture.reader(|_| {});
        let mut follower = Follower::open(reader, &cursor, None, WITHIN).await.unwrap();
        follower.doubt_tail();
        let portions = follower.more(Instant::now(), FEED_GRACE).await.unwrap();
        assert_eq!(portions.len(), 1, "{offset}");
    }
}

#[tokio::test(start_paused = true)]
async fn readers_that_are_left_alone_in_the_middle_of_a_read_hold_up_no_other() {
    let fixture = Fixture::new(&[1], MEMORY);
    for _ in 0..100 {
        fixture.write(0, b"x").await;
    }
    let mut left = Vec::new();
    for offset in 0..100 {
        let cursor = Given::Cursor(Cursor::parse(&format!("orders@0#{offset};")).unwrap());
        let reader = fixture.reader(|_| {});
        let mut follower = Follower::open(reader, &cursor, None, WITHIN).await.unwrap();
        let polled_once = follower.next_records(MINUTE).now_or_never();
        assert_eq!(polled_once, None, "{offset}");
        left.push(follower);
    }
    let began = Instant::now();
    let mut follower = fixture.follower(Start::Earliest).await;
    assert_eq!(follower.next_records(MINUTE).await.len(), 100);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(left[99].next_records(MINUTE).await, [(0, 99, 1)]);
}

/// A feed of all topics whose names begin so. Its readers start at the log end.
fn by_pattern(fixture: &Fixture) -> Arc<FeedReader> {
    fixture.reader(|feed| {
        feed.topics = Topics::Pattern(TopicsPattern::new("orders.*").unwrap());
        feed.reset = Reset::Latest;
    })
}

async fn from_cursor(reader: &Arc<FeedReader>, cursor: &str) -> Follower {
    let cursor = Given::Cursor(Cursor::parse(cursor).unwrap());
    Follower::open(Arc::clone(reader), &cursor, None, WITHIN).await.unwrap()
}

/// Topic, partition and offset of the next records, within a time.
async fn places(follower: &mut Follower, within: Duration) -> Vec<(String, i32, i64)> {
    let portions = follower.more(Instant::now() + within, Duration::ZERO).await.unwrap();
    let mut places = Vec::new();
    let taken = follower.take(portions, |taken| {
        let offset = taken.segment.records[taken.index].record.offset;
        places.push((taken.topic.to_string(), taken.partition, offset));
        false
    });
    taken.unwrap();
    places
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_created_is_read_from_its_first_offset_by_who_follows_and_who_comes_back() {
    let fixture = Fixture::new(&[1, 2], MEMORY);
    fixture.cluster.create_topic("others", &[1]);
    fixture.write(0, b"before").await;
    let reader = by_pattern(&fixture);
    let mut waiting =
        Follower::open(Arc::clone(&reader), &Given::Nothing, None, WITHIN).await.unwrap();
    let before = waiting.id().to_owned();
    assert_eq!(waiting.next_records(Duration::from_secs(1)).await, []);
    fixture.cluster.add_partition("orders", 1);
    fixture.cluster.create_topic("orders-eu", &[2, 1]);
    // Some are gone already.
    for _ in 0..3 {
        fixture.write_to("orders-eu", 1, b"x").await;
    }
    fixture.cluster.expire("orders-eu", 1, 1);
    fixture.write_to("others", 0, b"of no reader").await;
    fixture.write(2, b"x").await;
    let expected = [("orders", 2, 0), ("orders-eu", 1, 1), ("orders-eu", 1, 2)];
    let expected = expected.map(|(topic, partition, at)| (topic.to_owned(), partition, at));
    tokio::time::sleep(FEED_LOOK_AGAIN).await;
    for mut follower in [waiting, from_cursor(&reader, &before).await] {
        let mut records = Vec::new();
        while records.len() < 3 {
            records.extend(places(&mut follower, MINUTE).await);
        }
        records.sort();
        assert_eq!(records, expected);
        assert_eq!((follower.take_gaps(), follower.lag()), (vec![], 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_deleted_is_told_and_holds_back_no_other() {
    let fixture = Fixture::new(&[1], MEMORY);
    fixture.cluster.create_topic("orders-eu", &[2]);
    fixture.write_to("orders-eu", 0, b"x").await;
    let reader = by_pattern(&fixture);
    let mut waiting =
        Follower::open(Arc::clone(&reader), &Given::Nothing, None, WITHIN).await.unwrap();
    assert_eq!(waiting.next_records(Duration::from_secs(1)).await, []);
    let before = waiting.id().to_owned();
    fixture.cluster.delete_topic("orders-eu");
    let mut back = from_cursor(&reader, &before).await;
    for follower in [&mut waiting, &mut back] {
        let (until, mut gaps) = (Instant::now() + MINUTE, Vec::new());
        while gaps.is_empty() && Instant::now() < until {
            assert_eq!(follower.next_records(Duration::from_secs(1)).await, []);
            gaps = follower.take_gaps();
        }
        let gap = &gaps[0];
        assert_eq!((&*gap.topic, gap.from, gap.to), ("orders-eu", Some(1), None));
        assert_eq!((gaps.len(), gap.reason), (1, GapReason::Deleted));
    }
    fixture.write(0, b"x").await;
    assert_eq!(waiting.id(), back.id());
    for follower in [&mut waiting, &mut back] {
        assert_eq!(follower.next_records(MINUTE).await, [(0, 0, 1)]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_listed_topic_that_is_deleted_ends_who_reads_it() {
    let fixture = Fixture::new(&[1, 2], MEMORY);
    fixture.write(0, b"x").await;
    let mut waiting = fixture.follower(Start::Latest).await;
    assert_eq!(waiting.next_records(Duration::from_secs(1)).await, []);
    fixture.cluster.delete_topic("orders");
    let until = Instant::now() + MINUTE;
    let ended = waiting.more(until, Duration::ZERO).await.err().unwrap();
    assert_eq!(ended.code, Code::TopicNotFound);
    assert!(until - Instant::now() > MINUTE / 2, "soon");
}

/// Requests to brokers from when a topic is deleted until all of its readers have ended.
async fn requests_of_readers_of_a_deleted_topic(count: usize) -> u64 {
    let fixture = Fixture::new(&[1, 2, 1], MEMORY);
    let opened = (0..count).map(|_| fixture.follower(Start::Latest));
    let mut followers = join_all(opened).await;
    let waiting = followers.iter_mut().map(|it| it.next_records(Duration::from_secs(1)));
    assert!(join_all(waiting).await.iter().all(Vec::is_empty));
    let requests = || fixture.cluster.requests(FETCH) + fixture.cluster.requests(METADATA);
    let before = requests();
    fixture.cluster.delete_topic("orders");
    let until = Instant::now() + MINUTE;
    let ending = followers.iter_mut().map(|it| it.more(until, Duration::ZERO));
    for ended in join_all(ending).await {
        assert_eq!(ended.err().unwrap().code, Code::TopicNotFound);
    }
    assert!(until - Instant::now() > MINUTE / 2, "soon");
    requests() - before
}

#[tokio::test(start_paused = true)]
async fn a_thousand_readers_of_a_deleted_topic_ask_hardly_more_than_one() {
    let one = requests_of_readers_of_a_deleted_topic(1).await;
    let all = requests_of_readers_of_a_deleted_topic(1000).await;
    assert!(all <= 2 * one, "{all} requests, {one} of one reader");
}

#[tokio::test(start_paused = true)]
async fn without_a_topic_that_matches_a_reader_waits_for_one() {
    let fixture = Fixture::new(&[1], MEMORY);
    fixture.cluster.delete_topic("orders");
    let mut follower =
        Follower::open(by_pattern(&fixture), &Given::Nothing, None, WITHIN).await.unwrap();
    assert_eq!(follower.id(), "Ow==", "`;`");
    assert_eq!(follower.next_records(Duration::from_secs(1)).await, []);
    fixture.cluster.create_topic("orders-eu", &[1]);
    fixture.write_to("orders-eu", 0, b"x").await;
    assert_eq!(follower.next_records(MINUTE).await, [(0, 0, 1)]);
}

#[tokio::test(start_paused = true)]
async fn too_many_topics_for_a_cursor_are_refused_and_end_who_reads() {
    let fixture = Fixture::new(&[1], MEMORY);
    let mut follower =
        Follower::open(by_pattern(&fixture), &Given::Nothing, None, WITHIN).await.unwrap();
    for number in 0..600 {
        fixture.cluster.create_topic(&format!("orders-{number:03}"), &[1]);
    }
    tokio::time::sleep(FEED_LISTED).await;
    let opened = Follower::open(by_pattern(&fixture), &Given::Nothing, None, WITHIN).await;
    let ended = async {
        loop {
            if let Err(refusal) = follower.more(Instant::now() + MINUTE, Duration::ZERO).await {
                return refusal;
            }
        }
    };
    let asked = fixture.cluster.requests(METADATA);
    for refusal in [opened.err().unwrap(), ended.await] {
        assert_eq!(refusal.code, Code::FeedTooWide, "{refusal}");
    }
    assert!(fixture.cluster.requests(METADATA) < asked + 100, "one question about all");
    let few = ["orders-007".to_owned()];
    let narrowed = Follower::open(by_pattern(&fixture), &Given::Nothing, Some(&few), WITHIN).await;
    assert!(narrowed.is_ok());
}
