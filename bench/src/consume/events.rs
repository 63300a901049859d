//! Events at a fixed rate, whatever becomes of those before: each has a number, and when Kafka
//! acknowledged it is kept.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{anyhow, bail};
use kafka_client::{Client, Config, Outcome, Producer, Record, Ticket, Topic};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::clock;

/// The first number: all have nine digits, and JSON has no zero before them.
pub(super) const FIRST: u32 = 100_000_000;

/// Bytes of an event's value.
pub(super) const VALUE_BYTES: usize = 1024;

const PATIENCE: Duration = Duration::from_secs(30);

/// Writes events to a topic.
pub(super) struct Writer {
    producer: Producer,
    topic: Topic,
    next: u32,
}

/// When an event was acknowledged, by its number.
pub(super) type Start = (u32, u64);

impl Writer {
    pub(super) async fn new(bootstrap: &str, topic: &str) -> anyhow::Result<Self> {
        let config = Config::from_properties([("bootstrap.servers", bootstrap)])?;
        let producer = Client::new(config).producer();
        let topic = producer.topic(topic, Instant::now() + PATIENCE).await;
        let topic = topic.map_err(|reason| anyhow!("{reason}"))?;
        Ok(Self { producer, topic, next: FIRST })
    }

    /// Writes so many events at a rate; says when each was acknowledged.
    pub(super) async fn write(&mut self, count: u32, rate: f64) -> anyhow::Result<Vec<Start>> {
        self.write_keyed(count, rate, |_| None).await
    }

    /// The same with the key of each number.
    pub(super) async fn write_keyed(
        &mut self,
        count: u32,
        rate: f64,
        key: impl Fn(u32) -> Option<String>,
    ) -> anyhow::Result<Vec<Start>> {
        let mut ticks = interval(Duration::from_secs_f64(1.0 / rate));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut under_way = JoinSet::new();
        for _ in 0..count {
            ticks.tick().await;
            let number = self.next;
            let ticket = self.put(VALUE_BYTES, key(number)).await?;
            under_way.spawn(async move {
                written(ticket).await?;
                Ok((number, clock::now_us()))
            });
        }
        under_way.join_all().await.into_iter().collect()
    }

    async fn put(&mut self, bytes: usize, key: Option<String>) -> anyhow::Result<Ticket> {
        let value = value(self.next, bytes);
        self.next += 1;
        let record = Record {
            partition: None,
            key: key.as_ref().map(String::as_bytes),
            value: Some(&value),
            headers: &[],
            timestamp_ms: now_ms()?,
        };
        let put = self.producer.put(&self.topic, record, Instant::now() + PATIENCE).await;
        put.map_err(|reason| anyhow!("{reason}"))
    }

    /// As many as there are, as fast as they go.
    pub(super) async fn fill(&mut self, count: u32, bytes: usize) -> anyhow::Result<()> {
        let mut tickets = VecDeque::new();
        for _ in 0..count {
            tickets.push_back(self.put(bytes, None).await?);
            if tickets.len() > UNDER_WAY
                && let Some(oldest) = tickets.pop_front()
            {
                written(oldest).await?;
            }
        }
        for ticket in tickets {
            written(ticket).await?;
        }
        Ok(())
    }
}

async fn written(ticket: Ticket) -> anyhow::Result<()> {
    match ticket.outcome().await {
        Outcome::Written { .. } => Ok(()),
        other => bail!("{other:?}"),
    }
}

/// Records whose outcome is not waited for before more are written.
const UNDER_WAY: usize = 50_000;

/// A JSON object that begins with its number, with letters behind it that do not shrink.
pub(super) fn value(number: u32, bytes: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(u64::from(number));
    let mut text = format!("{{\"n\":{number},\"kind\":{},\"pad\":\"", number % 100);
    while text.len() + 2 < bytes {
        text.push(random.alphanumeric());
    }
    text.push_str("\"}");
    text.into_bytes()
}

fn now_ms() -> anyhow::Result<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?)
}
