//! A topic that only readers know: what is written to its logs by hand, and what becomes of them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_client::Record;
use kafka_client::fake_broker::{Dice, FakeCluster};
use kafka_client::record_batch::{BatchBuilder, BatchHeader, Stamp};
use tokio::time::sleep;

use crate::checker::Place;
use crate::scenario::Scenario;

pub(crate) const FEED: &str = "feed";

/// The ids of its records begin here, those of producers at 0.
pub(crate) const FIRST_ID: u64 = 1 << 63;

/// What was done to the topic.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    written: AtomicU64,
    /// Topic id, place, and where the log ended when it was cut off.
    pub(crate) truncations: Mutex<Vec<(u128, Place, i64)>>,
}

/// What a batch is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    OfTransaction(i64),
    Abort(i64),
    Commit(i64),
}

/// Transactions of a partition at a time, one for each of these producers.
const PRODUCERS: std::ops::Range<i64> = 5000..5003;
const MOST_PARTITIONS: i32 = 4;

impl Feed {
    /// Writes, and does what may happen to a topic; in the end all of it is well.
    pub(crate) async fn unsettle(
        &self,
        cluster: &FakeCluster,
        scenario: &Scenario,
        mut dice: Dice,
    ) {
        for _ in 0..scenario.reading.steps {
            sleep(Duration::from_millis(dice.between(1, 400))).await;
            self.step(cluster, scenario, &mut dice);
        }
        for partition in 0..cluster.partitions(FEED) {
            cluster.lead(FEED, partition, Some(broker(scenario, &mut dice)));
            for producer in PRODUCERS {
                cluster.put(FEED, partition, self.batch(Kind::Abort(producer), 1, 0));
            }
            cluster.put(FEED, partition, self.batch(Kind::Plain, 1, 0));
        }
    }

    fn step(&self, cluster: &FakeCluster, scenario: &Scenario, dice: &mut Dice) {
        let partitions = cluster.partitions(FEED);
        let partition = i32::try_from(dice.between(0, 100)).unwrap() % partitions;
        let producer = *dice.pick(&PRODUCERS.collect::<Vec<_>>()).unwrap();
        let records = dice.between(1, 4);
        let (start, batches) = cluster.batches(FEED, partition);
        let end = end_of(start, &batches);
        let within = |dice: &mut Dice| {
            let most = u64::try_from(end - start).unwrap();
            start + i64::try_from(dice.between(0, most)).unwrap()
        };
        let put = |batch| cluster.put(FEED, partition, batch);
        match dice.between(0, 24) {
            0..=7 => put(self.batch(Kind::Plain, records, 0)),
            8..=10 => put(self.batch(Kind::OfTransaction(producer), records, 0)),
            11 => put(self.batch(Kind::Commit(producer), 1, 0)),
            12..=13 => put(self.batch(Kind::Abort(producer), 1, 0)),
            // Compacted, some to nothing.
            14 => put(self.batch(Kind::Plain, records - 1, 3)),
            15..=17 => cluster.lead(FEED, partition, Some(broker(scenario, dice))),
            18 => cluster.lead(FEED, partition, None),
            19..=20 if scenario.reading.truncates => {
                cluster.truncate(FEED, partition, within(dice));
                let (start, left) = cluster.batches(FEED, partition);
                let id = cluster.topic_id(FEED).unwrap();
                let truncation = (id, (FEED.to_owned(), partition), end_of(start, &left));
                self.truncations.lock().unwrap().push(truncation);
                put(self.batch(Kind::Plain, records, 0));
            }
            21 if scenario.reading.recreates => {
                let leaders: Vec<_> = (0..partitions).map(|_| broker(scenario, dice)).collect();
                cluster.create_topic(FEED, &leaders);
            }
            22 if partitions < MOST_PARTITIONS => {
                cluster.add_partition(FEED, broker(scenario, dice));
                cluster.put(FEED, partitions, self.batch(Kind::Plain, records, 0));
            }
            23 if scenario.reading.expires => cluster.expire(FEED, partition, within(dice)),
            _ => put(self.batch(Kind::Plain, records, 0)),
        }
    }

    /// A batch of records with ids, and of so many offsets more that have none.
    fn batch(&self, kind: Kind, records: u64, gone: i32) -> Bytes {
        let mut builder = BatchBuilder::with_capacity(0);
        for _ in 0..records {
            let id = (FIRST_ID + self.written.fetch_add(1, Relaxed)).to_be_bytes();
            let (aborts, commits) = ([0, 0, 0, 0], [0, 0, 0, 1]);
            let record = match kind {
                Kind::Abort(_) => Record::new(&[0; 6]).key(&aborts),
                Kind::Commit(_) => Record::new(&[0; 6]).key(&commits),
                Kind::Plain | Kind::OfTransaction(_) => Record::new(&id),
            };
            let record = Record { timestamp_ms: 5, ..record };
            assert!(builder.push_within(&record, usize::MAX));
        }
        let mut bytes = BytesMut::from(&builder.finish(Stamp::NONE)[..]);
        let last_delta = i32::try_from(records).unwrap() + gone - 1;
        bytes[23..27].copy_from_slice(&last_delta.max(0).to_be_bytes());
        let (attributes, producer) = match kind {
            Kind::Plain => (0, -1),
            Kind::OfTransaction(producer) => (0b1_0000, producer),
            Kind::Abort(producer) | Kind::Commit(producer) => (0b11_0000, producer),
        };
        bytes[22] = attributes;
        bytes[43..51].copy_from_slice(&i64::to_be_bytes(producer));
        let checksum = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&checksum.to_be_bytes());
        bytes.freeze()
    }
}

fn broker(scenario: &Scenario, dice: &mut Dice) -> i32 {
    let most = u64::try_from(scenario.cluster.brokers).unwrap();
    i32::try_from(dice.between(1, most)).unwrap()
}

/// The log end of these batches.
pub(crate) fn end_of(start: i64, batches: &[Bytes]) -> i64 {
    let last = batches.last().map(|batch| BatchHeader::parse(batch).unwrap());
    last.map_or(start, |header| header.next_offset().unwrap())
}
