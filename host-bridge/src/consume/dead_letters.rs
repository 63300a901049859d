//! Records that readers of a feed cannot get, written to its dead-letter topic before they are passed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kafka_client::{Client, Outcome, ProducerConfig, Reason, Record};
use tokio::sync::watch;

use super::feed_metrics::FeedMetrics;
use super::refusal::{Code, Refusal};
use super::select::Placed;

/// The dead-letter topic of a feed.
pub(crate) struct DeadLetters {
    topic: Arc<DeadLetterTopic>,
    written: Mutex<Written>,
}

struct DeadLetterTopic {
    feed: String,
    name: String,
    client: Client,
    metrics: Arc<FeedMetrics>,
    /// Why the last record was not written.
    fault: Mutex<Option<Reason>>,
}

/// A record that is being written, or was.
#[derive(Clone)]
pub(crate) struct Writing(watch::Receiver<Option<Result<(), Reason>>>);

/// A record's place; offsets mean nothing in a topic of another id.
type Place = (Option<u128>, String, i32, i64);

/// Records that were written or are being written, oldest first.
#[derive(Default)]
struct Written {
    by_place: BTreeMap<Place, Writing>,
    order: VecDeque<Place>,
}

impl DeadLetters {
    pub(crate) fn new(feed: &str, topic: &str, client: Client, metrics: Arc<FeedMetrics>) -> Self {
        let (feed, name) = (feed.to_owned(), topic.to_owned());
        let topic =
            Arc::new(DeadLetterTopic { feed, name, client, metrics, fault: Mutex::default() });
        Self { topic, written: Mutex::default() }
    }

    /// Writes a record, as it is and with headers that say where it comes from, once for all readers
    /// that come to it, unless it was not written before; another bridge may write another copy. Goes
    /// on when its caller has gone.
    pub(crate) fn write(
        &self,
        placed: Placed<'_>,
        topic_id: Option<u128>,
        reason: &str,
    ) -> Writing {
        let (topic, partition) = (placed.topic.to_owned(), placed.partition);
        let place = (topic_id, topic.clone(), partition, placed.record.offset);
        let mut written = lock(&self.written);
        if let Some(known) = written.by_place.get(&place).filter(|known| !known.has_failed()) {
            return known.clone();
        }
        let (done, writing) = watch::channel(None);
        let (dead_letters, record) = (Arc::clone(&self.topic), placed.record.clone());
        let reason = reason.to_owned();
        tokio::spawn(async move {
            let placed = Placed { topic: &topic, partition, record: &record };
            let outcome = dead_letters.produce(placed, &reason, (None, 1)).await;
            *lock(&dead_letters.fault) = outcome.clone().err();
            done.send_replace(Some(outcome));
        });
        let writing = Writing(writing);
        if written.by_place.insert(place.clone(), writing.clone()).is_none() {
            written.order.push_back(place);
        }
        if written.order.len() > REMEMBERED
            && let Some(oldest) = written.order.pop_front()
        {
            written.by_place.remove(&oldest);
        }
        writing
    }

    /// Writes a record that a receiver did not take: once for each that comes with it.
    ///
    /// # Errors
    /// Why it is not known to be written.
    pub(crate) async fn write_undelivered(
        &self,
        placed: Placed<'_>,
        (webhook, attempts): (&str, u32),
    ) -> Result<(), Refusal> {
        let written = self.topic.produce(placed, UNDELIVERED, (Some(webhook), attempts)).await;
        written.map_err(|reason| self.refusal(&reason.chain()))
    }

    /// Why the last record was not written, if it was not.
    pub(crate) fn fault(&self) -> Option<Refusal> {
        lock(&self.topic.fault).as_ref().map(|reason| self.refusal(&reason.chain()))
    }

    /// Why readers do not get on.
    pub(crate) fn refusal(&self, why: &str) -> Refusal {
        let name = &self.topic.name;
        Code::KafkaUnavailable.because(format!("the dead-letter topic `{name}`: {why}"))
    }
}

impl Writing {
    /// Whether the record is there now.
    pub(crate) fn is_done(&self) -> bool {
        matches!(*self.0.borrow(), Some(Ok(())))
    }

    fn has_failed(&self) -> bool {
        matches!(*self.0.borrow(), Some(Err(_)))
    }

    /// Whether the record is there in the end: else it has to be written again.
    pub(crate) async fn done(mut self) -> bool {
        let outcome = self.0.wait_for(Option::is_some).await;
        outcome.is_ok_and(|outcome| matches!(*outcome, Some(Ok(()))))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DeadLetterTopic {
    async fn produce(
        &self,
        placed: Placed<'_>,
        reason: &str,
        (webhook, attempts): (Option<&str>, u32),
    ) -> Result<(), Reason> {
        let record = placed.record;
        let [partition, offset, timestamp] =
            [i64::from(placed.partition), record.offset, record.timestamp_ms]
                .map(|number| number.to_string());
        let attempts = attempts.to_string();
        let origin: [(&str, &str); 7] = [
            ("reason", reason),
            ("topic", placed.topic),
            ("partition", &partition),
            ("offset", &offset),
            ("timestamp", &timestamp),
            ("feed", &self.feed),
            ("attempts", &attempts),
        ];
        let own: Vec<_> = record.headers.iter().collect();
        let mut headers: Vec<_> =
            own.iter().map(|(name, value)| (&**name, value.as_deref())).collect();
        let origin = origin.into_iter().chain(webhook.map(|webhook| ("webhook", webhook)));
        let origin: Vec<_> =
            origin.map(|(name, value)| (format!("kafka-upstream-dlq-{name}"), value)).collect();
        let origin = origin.iter().map(|(name, value)| (name.as_bytes(), Some(value.as_bytes())));
        headers.extend(origin);
        let dead = Record {
            partition: None,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers,
            timestamp_ms: record.timestamp_ms.max(0),
        };
        // Acknowledged by all replicas, and as its own producer: its settings are the defaults.
        let producer = self.client.producer_with(&ProducerConfig::default());
        match producer.send(&self.name, dead, WITHIN).await {
            Outcome::Written { .. } => {
                self.metrics.dead_letters.inc();
                Ok(())
            }
            Outcome::NotWritten(reason) | Outcome::Unknown(reason) => Err(reason),
        }
    }
}

/// Why a record is there that could be decoded.
const UNDELIVERED: &str = "undelivered";
/// Records that are known to be written.
const REMEMBERED: usize = 10_000;
/// How long brokers may take for one.
const WITHIN: Duration = Duration::from_secs(5);
