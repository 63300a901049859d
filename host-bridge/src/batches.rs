//! Sends the records of a batch, and gathers their outcomes in the batch's order.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use kafka_client::{Producer, Reason, Ticket, Topic, record_size};
use kafka_upstream_core::outcome::Outcome;
use kafka_upstream_core::record::Record;
use tokio::time::Instant;

use crate::outcomes;

/// The records of a batch after they were enqueued: each has a ticket, or was refused at once.
pub(crate) struct Enqueued(Vec<Result<Ticket, Reason>>);

/// Enqueues records in order. Dropped before it is done, it has enqueued nothing.
pub(crate) async fn enqueue(
    producer: &Producer,
    records: &[Record<'_>],
    deadline: Instant,
) -> Enqueued {
    let names: BTreeSet<&str> = records.iter().map(|record| record.topic).collect();
    // All at once: one that is unknown takes seconds.
    let found = names.iter().map(async |name| (*name, producer.topic(name, deadline).await));
    let topics: BTreeMap<&str, Result<Topic, Reason>> = join_all(found).await.into_iter().collect();
    let bytes = records.iter().map(|record| record_size(&kafka_record(record))).sum();
    let mut permit = match producer.reserve(bytes, deadline).await {
        Ok(permit) => permit,
        Err(reason) => return Enqueued(records.iter().map(|_| Err(reason.clone())).collect()),
    };
    let mut enqueue = |record: &Record<'_>| {
        let topic = topics.get(record.topic).cloned().unwrap_or(Err(Reason::UnknownTopic))?;
        producer.enqueue(&mut permit, &topic, kafka_record(record), deadline)
    };
    Enqueued(records.iter().map(&mut enqueue).collect())
}

impl Enqueued {
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
