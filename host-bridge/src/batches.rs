//! Sends the records of a batch, and gathers their outcomes in the batch's order.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::pin::pin;

use futures_util::FutureExt as _;
use futures_util::future::{join, join_all};
use kafka_client::{Permit, Producer, Reason, Ticket, Topic, record_size};
use kafka_upstream_core::outcome::Outcome;
use kafka_upstream_core::record::Record;
use kafka_upstream_core::wire::Delivery;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::encoding::Encoded;
use crate::failing::Topics;
use crate::limits::{PROBE_AFTER, SLOW_BATCH};
use crate::metrics::Metrics;
use crate::outcomes;
use crate::pipeline::{Limits, Pipeline};

/// The records of a batch, at their positions: enqueued, refused at once, or not enqueued before
/// the brokers have been asked about their topic or partition.
pub(crate) struct Enqueued {
    ended: Vec<Ended>,
    asked: Vec<Asked>,
    /// Which records these are, where others did not fit their schemas.
    encoded: Option<Encoded>,
}

type Ended = (usize, Result<Ticket, Reason>);

/// Records of one topic that the brokers are asked about, in order.
struct Asked {
    producer: Producer,
    name: String,
    /// The topic, if only a partition is in doubt.
    topic: Option<Topic>,
    records: Vec<(usize, Kept)>,
    /// Until when the answer may come.
    asked_until: Instant,
    limits: Limits,
    room: Option<SemaphorePermit<'static>>,
}

/// A record in memory of its own, as it is produced.
struct Kept {
    partition: Option<i32>,
    timestamp_ms: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// Enqueues records in order, those of known topics at once: nothing waits for a topic that must be
/// asked for, or for one that is missing. Dropped before it is done, it has enqueued nothing.
pub(crate) async fn enqueue(
    pipeline: &Pipeline,
    records: &[Record<'_>],
    limits: Limits,
) -> Enqueued {
    let Some(encoder) = pipeline.encoder() else {
        return enqueue_encoded(pipeline, records, limits).await;
    };
    let encoded = encoder.encode(records, limits.waiting).await;
    let enqueued = enqueue_encoded(pipeline, &encoded.records(records), limits).await;
    Enqueued { encoded: Some(encoded.verdicts()), ..enqueued }
}

/// Produces records whose sender waits until `deadline` for what becomes of them.
pub(crate) async fn write(
    metrics: &Metrics,
    pipeline: &Pipeline,
    records: &[Record<'_>],
    deadline: Instant,
) -> Vec<Outcome> {
    let limits = pipeline.limits(Delivery::Acked, deadline);
    let enqueued = enqueue(pipeline, records, limits).await;
    enqueued.settle(metrics, pipeline, Delivery::Acked, &Topics::of(records)).await
}

/// Enqueues records as they are.
pub(crate) async fn enqueue_encoded(
    pipeline: &Pipeline,
    records: &[Record<'_>],
    limits: Limits,
) -> Enqueued {
    let producer = pipeline.producer();
    let (now, deadline) = (Instant::now(), limits.waiting);
    let mut topics: BTreeMap<&str, Option<Result<Topic, Reason>>> = BTreeMap::new();
    for record in records {
        if let Entry::Vacant(entry) = topics.entry(record.topic) {
            entry.insert(producer.topic(record.topic, deadline).now_or_never());
        }
    }
    // One reply tells of all: what is unknown leaves the others a third of the time, and of the
    // default of 10 s enough to say that it is unknown.
    let left = deadline.duration_since(now);
    let asked_until = if topics.len() > 1 { now + left * 2 / 3 } else { deadline };
    let is_known = |record: &&Record<'_>| matches!(topics.get(record.topic), Some(Some(_)));
    let known = records.iter().filter(is_known);
    let bytes = known.map(|record| record_size(&kafka_record(record))).sum();
    let mut permit = match room(producer, bytes, deadline).await {
        Ok(permit) => permit,
        Err(reason) => {
            let refused = (0..records.len()).map(|position| (position, Err(reason.clone())));
            return Enqueued { ended: refused.collect(), asked: Vec::new(), encoded: None };
        }
    };
    let (mut ended, mut asked) = (Vec::with_capacity(records.len()), BTreeMap::new());
    for (position, record) in records.iter().enumerate() {
        let mut topic = topics.get_mut(record.topic).and_then(Option::as_mut);
        let produced = kafka_record(record);
        let enqueue = |topic| put(producer, &mut permit, topic, produced, limits.delivery);
        let end = topic.as_deref_mut().map(enqueue);
        let end = match end {
            Some(Err(Reason::NoSuchPartition { .. })) | None => {
                let asked = asked.entry(record.topic).or_insert_with(|| Asked {
                    producer: producer.clone(),
                    name: record.topic.to_owned(),
                    topic: topic.and_then(|topic| topic.clone().ok()),
                    records: Vec::new(),
                    asked_until,
                    limits,
                    room: None,
                });
                match asked.keep(position, &produced) {
                    Ok(()) => continue,
                    Err(full) => Err(full),
                }
            }
            Some(end) => end,
        };
        ended.push((position, end));
    }
    Enqueued { ended, asked: asked.into_values().collect(), encoded: None }
}

/// Memory for a whole batch. One that is larger than all the memory there is gets none: each record
/// takes what is free, and only one that can never fit is too large.
async fn room(producer: &Producer, bytes: usize, deadline: Instant) -> Result<Permit, Reason> {
    match producer.reserve(bytes, deadline).await {
        Err(Reason::TooLarge) => producer.reserve(0, deadline).await,
        other => other,
    }
}

fn put(
    producer: &Producer,
    permit: &mut Permit,
    topic: &mut Result<Topic, Reason>,
    record: kafka_client::Record<'_>,
    delivery: Instant,
) -> Result<Ticket, Reason> {
    let found = topic.clone()?;
    let enqueued = producer.enqueue(permit, &found, record, delivery);
    if let Err(Reason::BufferFull) = enqueued {
        // A smaller record might find room, and overtake this one.
        *topic = Err(Reason::BufferFull);
    }
    enqueued
}

impl Enqueued {
    /// Waits until each record has its outcome, counts it, and says which topics fail or are slow.
    pub(crate) async fn settle(
        self,
        metrics: &Metrics,
        pipeline: &Pipeline,
        delivery: Delivery,
        topics: &Topics,
    ) -> Vec<Outcome> {
        let cluster = pipeline.cluster();
        let mut outcomes = pin!(self.outcomes());
        let mut patience = PROBE_AFTER;
        let outcomes = loop {
            match tokio::time::timeout(patience, &mut outcomes).await {
                Ok(outcomes) => break outcomes,
                Err(_) if patience == PROBE_AFTER => pipeline.client().ask_soon(),
                Err(_) => metrics.failing.slow(cluster, topics),
            }
            patience = SLOW_BATCH;
        };
        metrics.batch_settled(cluster, delivery, topics, &outcomes);
        outcomes
    }

    /// Waits until each record has its outcome.
    pub(crate) async fn outcomes(self) -> Vec<Outcome> {
        let asked = join_all(self.asked.into_iter().map(Asked::outcomes));
        let (mut all, asked) = join(settled(self.ended), asked).await;
        if !asked.is_empty() {
            all.extend(asked.into_iter().flatten());
            all.sort_by_key(|(position, _)| *position);
        }
        let outcomes = all.into_iter().map(|(_, outcome)| outcome).collect();
        match self.encoded {
            Some(encoded) => encoded.outcomes(outcomes),
            None => outcomes,
        }
    }
}

async fn settled(ended: Vec<Ended>) -> Vec<(usize, Outcome)> {
    let mut settled = Vec::with_capacity(ended.len());
    for (position, end) in ended {
        let outcome = match end {
            Ok(ticket) => outcomes::translate(ticket.outcome().await),
            Err(reason) => Outcome::NotWritten(outcomes::reason(&reason)),
        };
        settled.push((position, outcome));
    }
    settled
}

impl Asked {
    fn keep(&mut self, position: usize, record: &kafka_client::Record<'_>) -> Result<(), Reason> {
        let bytes = record_size(record);
        let bytes = u32::try_from(bytes).map_err(|_| Reason::TooLarge)?;
        let room = ASKED_ROOM.try_acquire_many(bytes).map_err(|_| Reason::BufferFull)?;
        match &mut self.room {
            Some(all) => all.merge(room),
            None => self.room = Some(room),
        }
        self.records.push((position, Kept::of(record)));
        Ok(())
    }

    async fn outcomes(self) -> Vec<(usize, Outcome)> {
        let (asked_until, limits) = (self.asked_until, self.limits);
        let found = match self.topic {
            Some(topic) => self.producer.recount(&topic, asked_until).await.map(|()| topic),
            None => self.producer.topic(&self.name, asked_until).await,
        };
        let records = || {
            let records = self.records.iter();
            records.map(|(position, kept)| (*position, kept.record(&self.name)))
        };
        let bytes = records().map(|(_, record)| record_size(&kafka_record(&record))).sum();
        let reserved = match &found {
            Ok(_) => room(&self.producer, bytes, limits.waiting).await,
            Err(reason) => Err(reason.clone()),
        };
        let (mut topic, mut ended) = (found, Vec::with_capacity(self.records.len()));
        match reserved {
            Ok(mut permit) => ended.extend(records().map(|(position, record)| {
                let record = kafka_record(&record);
                (position, put(&self.producer, &mut permit, &mut topic, record, limits.delivery))
            })),
            Err(reason) => {
                ended.extend(records().map(|(position, _)| (position, Err(reason.clone()))));
            }
        }
        settled(ended).await
    }
}

impl Kept {
    fn of(record: &kafka_client::Record<'_>) -> Self {
        let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        let header = |(key, value): &(&[u8], Option<&[u8]>)| (key.to_vec(), owned(*value));
        Self {
            partition: record.partition,
            timestamp_ms: record.timestamp_ms,
            key: owned(record.key),
            value: owned(record.value),
            headers: record.headers.iter().map(header).collect(),
        }
    }

    fn record<'a>(&'a self, topic: &'a str) -> Record<'a> {
        Record {
            topic,
            partition: self.partition,
            timestamp_ms: self.timestamp_ms,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: self.headers.iter().map(|(k, v)| (&k[..], v.as_deref())).collect(),
        }
    }
}

/// Room for the records that brokers are asked about: they are copies, which may outlive their
/// request.
static ASKED_ROOM: Semaphore = Semaphore::const_new(ASKED_BYTES);
/// A quarter of what request bodies may take.
const ASKED_BYTES: usize = 64 * 1024 * 1024;

fn kafka_record<'a>(record: &'a Record<'a>) -> kafka_client::Record<'a> {
    let Record { partition, timestamp_ms, key, value, headers, .. } = record;
    kafka_client::Record {
        partition: *partition,
        key: *key,
        value: *value,
        headers,
        timestamp_ms: *timestamp_ms,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kafka_client::Config;
    use kafka_client::fake_broker::{FakeCluster, FakeSettings};
    use kafka_upstream_core::outcome::Code;

    use super::*;

    fn record(topic: &str) -> Record<'_> {
        let (value, headers) = (Some(&b"0123456789"[..]), Vec::new());
        Record { topic, partition: None, timestamp_ms: 5, key: None, value, headers }
    }

    fn pipeline(cluster: &FakeCluster, properties: &[(&str, &str)]) -> Pipeline {
        let bootstrap = cluster.bootstrap();
        let properties = [&[("bootstrap.servers", &*bootstrap)], properties].concat();
        let config = Config::from_properties(properties).unwrap();
        let producer = config.producer.clone();
        Pipeline::new("default", cluster.client(config), &producer, None)
    }

    fn until(end: Instant) -> Limits {
        Limits { waiting: end, delivery: end }
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_topic_leaves_the_others_their_time() {
        let cluster = FakeCluster::new(FakeSettings::default());
        cluster.create_topic("orders", &[1]);
        let pipeline = pipeline(&cluster, &[]);
        let deadline = Instant::now() + Duration::from_secs(3);
        let records = [record("orders"), record("nowhere")];
        let enqueued = enqueue(&pipeline, &records, until(deadline)).await;
        let outcomes = enqueued.outcomes().await;
        assert!(matches!(outcomes[0], Outcome::Written { .. }), "{outcomes:?}");
        assert!(matches!(outcomes[1], Outcome::NotWritten(_)), "{outcomes:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn known_topics_do_not_wait_for_one_that_is_missing() {
        let cluster = FakeCluster::new(FakeSettings::default());
        cluster.create_topic("orders", &[1]);
        let pipeline = pipeline(&cluster, &[]);
        let started = Instant::now();
        let deadline = started + Duration::from_secs(10);
        pipeline.producer().topic("orders", deadline).await.unwrap();
        let records = [record("nowhere"), record("orders"), record("nowhere"), record("orders")];
        let first = enqueue(&pipeline, &records, until(deadline)).await;
        let second = enqueue(&pipeline, &[record("orders")], until(deadline)).await;
        let outcomes = second.outcomes().await;
        assert!(matches!(outcomes[..], [Outcome::Written { .. }]), "{outcomes:?}");
        assert_eq!(cluster.log("orders", 0).len(), 3, "those of the first batch are there too");
        assert!(started.elapsed() < Duration::from_millis(100), "{:?}", started.elapsed());
        let outcomes = first.outcomes().await;
        let is_written = outcomes.iter().map(|outcome| matches!(outcome, Outcome::Written { .. }));
        assert_eq!(is_written.collect::<Vec<_>>(), [false, true, false, true], "{outcomes:?}");
        let is_missing = |outcome: &Outcome| match outcome {
            Outcome::NotWritten(reason) => reason.code == Code::UnknownTopic,
            _ => false,
        };
        assert!(is_missing(&outcomes[0]) && is_missing(&outcomes[2]), "{outcomes:?}");
        let ten = Duration::from_secs(10);
        // For as long as such records keep coming, the brokers are asked once a second.
        for _ in 0..30 {
            let started = Instant::now();
            let outcomes = enqueue(&pipeline, &records, until(started + ten)).await;
            assert!(is_missing(&outcomes.outcomes().await[0]));
            assert!(started.elapsed() < Duration::from_millis(100), "{:?}", started.elapsed());
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        cluster.create_topic("nowhere", &[1]);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let deadline = Instant::now() + ten;
        let outcomes = enqueue(&pipeline, &records, until(deadline)).await;
        let outcomes = outcomes.outcomes().await;
        let is_written = |outcome: &Outcome| matches!(outcome, Outcome::Written { .. });
        assert!(outcomes.iter().all(is_written), "{outcomes:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_partition_is_refused_only_when_the_brokers_say_that_it_is_missing() {
        let cluster = FakeCluster::new(FakeSettings::default());
        cluster.create_topic("orders", &[1]);
        let pipeline = pipeline(&cluster, &[]);
        let deadline = || Instant::now() + Duration::from_secs(10);
        pipeline.producer().topic("orders", deadline()).await.unwrap();
        cluster.create_topic("orders", &[1, 1]);
        let at = |partition| Record { partition: Some(partition), ..record("orders") };
        let records = [at(1), at(0), at(1), at(2)];
        let outcomes = enqueue(&pipeline, &records, until(deadline())).await.outcomes().await;
        let is_written = outcomes.iter().map(|outcome| matches!(outcome, Outcome::Written { .. }));
        assert_eq!(is_written.collect::<Vec<_>>(), [true, true, true, false], "{outcomes:?}");
        let Outcome::NotWritten(reason) = &outcomes[3] else { panic!("{outcomes:?}") };
        assert!(reason.code.is_permanent(), "{reason:?}");
        cluster.kill(1);
        let outcomes = enqueue(&pipeline, &[at(2)], until(deadline())).await.outcomes().await;
        let Outcome::NotWritten(reason) = &outcomes[0] else { panic!("{outcomes:?}") };
        assert!(!reason.code.is_permanent(), "nobody has said so: {reason:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_larger_than_the_memory_is_taken_as_far_as_it_fits() {
        let cluster = FakeCluster::new(FakeSettings::default());
        cluster.create_topic("orders", &[1]);
        let small = [("batch.size", "60000"), ("max.request.size", "65536")];
        let pipeline = pipeline(&cluster, &[&small[..], &[("buffer.memory", "65536")]].concat());
        let deadline = Instant::now() + Duration::from_secs(10);
        let enqueued = enqueue(&pipeline, &vec![record("orders"); 1000], until(deadline)).await;
        let outcomes = enqueued.outcomes().await;
        let is_written = |outcome: &&Outcome| matches!(outcome, Outcome::Written { .. });
        let written = outcomes.iter().filter(is_written).count();
        assert!(written > 100, "{written} of 1000");
        let is_full = |outcome: &&Outcome| match outcome {
            Outcome::NotWritten(reason) => reason.code == Code::QueueFull,
            _ => false,
        };
        assert_eq!(outcomes.iter().filter(is_full).count(), 1000 - written);
    }

    #[tokio::test(start_paused = true)]
    async fn a_small_record_does_not_overtake_a_large_one_that_found_no_room() {
        let cluster = FakeCluster::new(FakeSettings::default());
        cluster.create_topic("orders", &[1]);
        let small = [("batch.size", "100000"), ("max.request.size", "200000")];
        let pipeline = pipeline(&cluster, &[&small[..], &[("buffer.memory", "400000")]].concat());
        let deadline = Instant::now() + Duration::from_secs(10);
        let large = vec![0; 60_000];
        let large = Record { value: Some(&large), ..record("orders") };
        // A partition holds a quarter of the memory.
        let records = [large.clone(), large, record("orders")];
        let enqueued = enqueue(&pipeline, &records, until(deadline)).await;
        let outcomes = enqueued.outcomes().await;
        assert!(matches!(outcomes[0], Outcome::Written { .. }), "{outcomes:?}");
        assert!(matches!(outcomes[1], Outcome::NotWritten(_)), "{outcomes:?}");
        assert!(matches!(outcomes[2], Outcome::NotWritten(_)), "{outcomes:?}");
    }
}
