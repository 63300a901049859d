//! Sends the records of a batch, and gathers their outcomes in the batch's order.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;

use futures_util::future::join_all;
use kafka_client::{Permit, Producer, Reason, Ticket, Topic, record_size};
use kafka_upstream_core::limits::TOPIC_BYTES_MAX;
use kafka_upstream_core::outcome::Outcome;
use kafka_upstream_core::record::Record;
use kafka_upstream_core::wire::Delivery;
use tokio::time::Instant;

use crate::Bridge;
use crate::clusters::Shared;
use crate::limits::SLOW_BATCH;
use crate::outcomes;

/// The records of a batch after they were enqueued: each has a ticket, or was refused at once.
pub(crate) struct Enqueued(Vec<Result<Ticket, Reason>>);

/// The topics of a batch's records in their order, with the number of neighbours that share one.
pub(crate) struct Topics(Vec<(String, usize)>);

impl Topics {
    pub(crate) fn of(records: &[Record<'_>]) -> Self {
        let runs = records.chunk_by(|one, next| one.topic == next.topic);
        let named = |run: &[Record<'_>]| {
            let topic = run.first().map_or("", |record| record.topic);
            (shown(topic).to_owned(), run.len())
        };
        Self(runs.map(named).collect())
    }

    pub(crate) fn runs(&self) -> &[(String, usize)] {
        &self.0
    }
}

/// What is shown of a name, which may be any text of a client's.
pub(crate) fn shown(topic: &str) -> &str {
    topic.get(..topic.floor_char_boundary(TOPIC_BYTES_MAX)).unwrap_or_default()
}

/// Enqueues records in order: their topics and the memory for them are waited for until `deadline`,
/// and the producer has them until `delivery`. Dropped before it is done, it has enqueued nothing.
pub(crate) async fn enqueue(
    producer: &Producer,
    records: &[Record<'_>],
    deadline: Instant,
    delivery: Instant,
) -> Enqueued {
    let names: BTreeSet<&str> = records.iter().map(|record| record.topic).collect();
    // All at once: one that is unknown takes 5 s. It leaves the others a third of the time, and of
    // the default of 10 s enough to say that it is unknown.
    let now = Instant::now();
    let asked = if names.len() > 1 { now + deadline.duration_since(now) * 2 / 3 } else { deadline };
    let found = names.iter().map(async |name| (*name, producer.topic(name, asked).await));
    let mut topics: BTreeMap<&str, Result<Topic, Reason>> =
        join_all(found).await.into_iter().collect();
    let bytes = records.iter().map(|record| record_size(&kafka_record(record))).sum();
    let mut permit = match room(producer, bytes, deadline).await {
        Ok(permit) => permit,
        Err(reason) => return Enqueued(records.iter().map(|_| Err(reason.clone())).collect()),
    };
    let mut enqueue = |record: &Record<'_>| {
        let topic = topics.get_mut(record.topic).ok_or(Reason::UnknownTopic)?;
        let found = topic.clone()?;
        let enqueued = producer.enqueue(&mut permit, &found, kafka_record(record), delivery);
        if let Err(Reason::BufferFull) = enqueued {
            // A smaller record might find room, and overtake this one.
            *topic = Err(Reason::BufferFull);
        }
        enqueued
    };
    Enqueued(records.iter().map(&mut enqueue).collect())
}

/// Memory for a whole batch. One that is larger than all the memory there is gets none: each record
/// takes what is free, and only one that can never fit is too large.
async fn room(producer: &Producer, bytes: usize, deadline: Instant) -> Result<Permit, Reason> {
    match producer.reserve(bytes, deadline).await {
        Err(Reason::TooLarge) => producer.reserve(0, deadline).await,
        other => other,
    }
}

impl Enqueued {
    /// Waits until each record has its outcome, counts it, and says which topics fail or are slow.
    pub(crate) async fn settle(
        self,
        bridge: &Bridge,
        shared: &Shared,
        delivery: Delivery,
        topics: &Topics,
    ) -> Vec<Outcome> {
        let cluster = shared.cluster();
        let mut outcomes = pin!(self.outcomes());
        let outcomes = loop {
            match tokio::time::timeout(SLOW_BATCH, &mut outcomes).await {
                Ok(outcomes) => break outcomes,
                Err(_) => bridge.failing.slow(cluster, topics),
            }
        };
        bridge.metrics.batch_settled(&outcomes);
        bridge.failing.settled(cluster, delivery, topics, &outcomes);
        outcomes
    }

    /// Waits until each record has its outcome.
    pub(crate) async fn outcomes(self) -> Vec<Outcome> {
        let mut settled = Vec::with_capacity(self.0.len());
        for ticket in self.0 {
            settled.push(match ticket {
                Ok(ticket) => outcomes::translate(ticket.outcome().await),
                Err(reason) => Outcome::NotWritten(outcomes::reason(&reason)),
            });
        }
        settled
    }
}

fn kafka_record<'a>(record: &'a Record<'a>) -> kafka_client::Record<'a> {
    kafka_client::Record {
        partition: record.partition,
        key: record.key,
        value: record.value,
        headers: &record.headers,
        timestamp_ms: record.timestamp_ms,
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

    #[tokio::test(start_paused = true)]
    async fn an_unknown_topic_leaves_the_others_their_time() {
        let cluster = FakeCluster::new(FakeSettings::default());
        cluster.create_topic("orders", &[1]);
        let bootstrap = cluster.bootstrap();
        let properties = [("bootstrap.servers", &*bootstrap)];
        let client = cluster.client(Config::from_properties(properties).unwrap());
        let deadline = Instant::now() + Duration::from_secs(3);
        let records = [record("orders"), record("nowhere")];
        let enqueued = enqueue(&client.producer(), &records, deadline, deadline).await;
        let outcomes = enqueued.outcomes().await;
        assert!(matches!(outcomes[0], Outcome::Written { .. }), "{outcomes:?}");
        assert!(matches!(outcomes[1], Outcome::NotWritten(_)), "{outcomes:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_larger_than_the_memory_is_taken_as_far_as_it_fits() {
        let cluster = FakeCluster::new(FakeSettings::default());
        cluster.create_topic("orders", &[1]);
        let bootstrap = cluster.bootstrap();
        let small = [("batch.size", "60000"), ("max.request.size", "65536")];
        let memory = [("bootstrap.servers", &*bootstrap), ("buffer.memory", "65536")];
        let client = cluster.client(Config::from_properties([small, memory].concat()).unwrap());
        let deadline = Instant::now() + Duration::from_secs(10);
        let enqueued =
            enqueue(&client.producer(), &vec![record("orders"); 1000], deadline, deadline).await;
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
        let bootstrap = cluster.bootstrap();
        let small = [("batch.size", "100000"), ("max.request.size", "200000")];
        let memory = [("bootstrap.servers", &*bootstrap), ("buffer.memory", "400000")];
        let client = cluster.client(Config::from_properties([small, memory].concat()).unwrap());
        let deadline = Instant::now() + Duration::from_secs(10);
        let large = vec![0; 60_000];
        let large = Record { value: Some(&large), ..record("orders") };
        // A partition holds a quarter of the memory.
        let records = [large.clone(), large, record("orders")];
        let enqueued = enqueue(&client.producer(), &records, deadline, deadline).await;
        let outcomes = enqueued.outcomes().await;
        assert!(matches!(outcomes[0], Outcome::Written { .. }), "{outcomes:?}");
        assert!(matches!(outcomes[1], Outcome::NotWritten(_)), "{outcomes:?}");
        assert!(matches!(outcomes[2], Outcome::NotWritten(_)), "{outcomes:?}");
    }
}
