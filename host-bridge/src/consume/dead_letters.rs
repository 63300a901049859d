//! Records that readers of a feed cannot get, written to its dead-letter topic before they are passed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kafka_client::{Client, Outcome, ProducerConfig, Reason, Record};
use tokio::sync::OnceCell;

use super::feed_metrics::FeedMetrics;
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
}

/// A record's place; offsets mean nothing in a topic of another id.
type Place = (Option<u128>, String, i32, i64);

/// Records that were written or are being written, oldest first.
#[derive(Default)]
struct Written {
    by_place: BTreeMap<Place, Arc<OnceCell<()>>>,
    order: VecDeque<Place>,
}

impl DeadLetters {
    pub(crate) fn new(feed: &str, topic: &str, client: Client, metrics: Arc<FeedMetrics>) -> Self {
        let (feed, name) = (feed.to_owned(), topic.to_owned());
        let topic = Arc::new(DeadLetterTopic { feed, name, client, metrics });
        Self { topic, written: Mutex::default() }
    }

    /// Writes a record, as it is and with headers that say where it comes from, once for all readers
    /// that come to it. It is there when this returns; another bridge may write another copy. Goes on
    /// when its caller has gone.
    ///
    /// # Errors
    /// It is not known to be there: it has to be written again.
    pub(crate) async fn write(
        &self,
        placed: Placed<'_>,
        topic_id: Option<u128>,
        reason: &'static str,
    ) -> Result<(), Reason> {
        let (topic, partition) = (placed.topic.to_owned(), placed.partition);
        let written = self.at((topic_id, topic.clone(), partition, placed.record.offset));
        if written.initialized() {
            return Ok(());
        }
        let (dead_letters, record) = (Arc::clone(&self.topic), placed.record.clone());
        let writing = tokio::spawn(async move {
            let placed = Placed { topic: &topic, partition, record: &record };
            written.get_or_try_init(|| dead_letters.produce(placed, reason)).await.copied()
        });
        writing.await.unwrap_or(Err(Reason::Closed))
    }

    fn at(&self, place: Place) -> Arc<OnceCell<()>> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = written.by_place.get(&place) {
            return Arc::clone(known);
        }
        if written.order.len() == REMEMBERED
            && let Some(oldest) = written.order.pop_front()
        {
            written.by_place.remove(&oldest);
        }
        let cell = Arc::new(OnceCell::new());
        written.by_place.insert(place.clone(), Arc::clone(&cell));
        written.order.push_back(place);
        cell
    }
}

impl DeadLetterTopic {
    async fn produce(&self, placed: Placed<'_>, reason: &str) -> Result<(), Reason> {
        let record = placed.record;
        let [partition, offset, timestamp] =
            [i64::from(placed.partition), record.offset, record.timestamp_ms]
                .map(|number| number.to_string());
        let origin: [(&str, &str); 7] = [
            ("reason", reason),
            ("topic", placed.topic),
            ("partition", &partition),
            ("offset", &offset),
            ("timestamp", &timestamp),
            ("feed", &self.feed),
            ("attempts", "1"),
        ];
        let own: Vec<_> = record.headers.iter().collect();
        let mut headers: Vec<_> =
            own.iter().map(|(name, value)| (&**name, value.as_deref())).collect();
        let names = origin.map(|(name, _)| format!("kafka-upstream-dlq-{name}"));
        let origin = names.iter().zip(&origin);
        headers.extend(origin.map(|(name, (_, value))| (name.as_bytes(), Some(value.as_bytes()))));
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

/// Records that are known to be written.
const REMEMBERED: usize = 10_000;
/// How long brokers may take for one.
const WITHIN: Duration = Duration::from_secs(5);
