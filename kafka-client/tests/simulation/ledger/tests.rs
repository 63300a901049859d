//! Hand-made lives of readers: a clean one, and one for each promise that can be broken.

use kafka_client::Record;
use kafka_client::fake_broker::{FakeCluster, FakeSettings};
use kafka_client::record_batch::{BatchBuilder, Stamp};

use super::*;

fn place() -> Place {
    ("feed".to_owned(), 0)
}

/// Records 10, 11, 12 at the offsets 0 to 2, of which nothing has been cut off.
fn log() -> FinalLog {
    let cluster = FakeCluster::new(FakeSettings::default());
    cluster.create_topic("feed", &[1]);
    for id in 10..13 {
        let mut builder = BatchBuilder::with_capacity(0);
        assert!(builder.push_within(&Record::new(&u64::to_be_bytes(id)), usize::MAX));
        cluster.put("feed", 0, builder.finish(Stamp::NONE));
    }
    let (start, batches) = cluster.batches("feed", 0);
    FinalLog { topic_id: Some(7), start, batches, end: 3, was_truncated: false }
}

fn start(offset: i64) -> Event {
    Event::Start { topic_id: Some(7), offset }
}

fn given(records: &[(i64, u64)], next_offset: i64) -> Event {
    Event::Given { topic_id: Some(7), records: records.to_vec(), next_offset }
}

fn faults(log: FinalLog, truncations: &[i64], events: Vec<Event>) -> Vec<String> {
    let events = events.into_iter().map(|event| (place(), event)).collect();
    let reading = Reading { events, is_done: true, ..Reading::default() };
    let truncations = truncations.iter().map(|end| (7, place(), *end)).collect();
    let ledger =
        Ledger { readings: vec![reading], logs: BTreeMap::from([(place(), log)]), truncations };
    check(&ledger).into_iter().map(|fault| fault.what).collect()
}

#[test]
fn a_reader_that_was_told_all_there_is_has_no_fault() {
    let all = given(&[(0, 10), (1, 11), (2, 12)], 3);
    assert_eq!(faults(log(), &[], vec![start(0), all.clone()]), Vec::<String>::new());
    let cut = vec![start(0), given(&[(0, 10), (1, 99), (2, 98)], 3), Event::Truncated { to: 1 }];
    let after = given(&[(1, 11), (2, 12)], 3);
    let events = cut.into_iter().chain([after]).collect();
    assert_eq!(faults(log(), &[1], events), Vec::<String>::new());
    let other = Event::Start { topic_id: Some(6), offset: 0 };
    let events = vec![other, Event::Recreated, start(0), all];
    assert_eq!(faults(log(), &[], events), Vec::<String>::new());
    let expired = Event::OutOfRange { from: 0, log_start: 2, log_end: 3 };
    let events = vec![start(0), expired, start(2), given(&[(2, 12)], 3)];
    assert_eq!(faults(FinalLog { start: 2, ..log() }, &[], events), Vec::<String>::new());
}

#[test]
fn each_broken_promise_is_found() {
    let all = [(0, 10), (1, 11), (2, 12)];
    let cases = [
        ("never given", vec![start(0), given(&[(0, 10), (2, 12)], 3)]),
        ("never given", vec![start(0), given(&all[..2], 3)]),
        ("is not in 1..", vec![start(0), given(&all[..1], 1), given(&all, 3)]),
        ("is not in 2..", vec![start(0), given(&[(1, 11), (0, 10)], 3)]),
        ("it ends at 2", vec![start(0), given(&all[..2], 2)]),
        ("is not in the log", vec![start(0), given(&[(0, 10), (1, 99), (2, 12)], 3)]),
        ("goes back", vec![start(0), given(&all, 3), given(&[], 2)]),
        ("no truncation", vec![start(0), given(&all, 3), Event::Truncated { to: 3 }]),
        ("it begins at 1", vec![start(1), given(&all[1..], 3)]),
        (
            "another topic",
            vec![
                start(0),
                Event::Given { topic_id: Some(6), records: all.to_vec(), next_offset: 3 },
            ],
        ),
        (
            "is in 0..3",
            vec![start(0), Event::OutOfRange { from: 0, log_start: 0, log_end: 3 }, given(&all, 3)],
        ),
        ("damaged", vec![start(0), given(&all, 3), Event::Unexpected("damaged".to_owned())]),
    ];
    for (expected, events) in cases {
        let found = faults(log(), &[], events);
        assert!(found.iter().any(|what| what.contains(expected)), "{expected}: {found:?}");
    }
    assert_eq!(faults(log(), &[], Vec::new()), ["never read"]);
}
