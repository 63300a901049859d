//! kafka-client at its highest rate: records are put without waiting, outcomes heard by another task.

use std::time::SystemTime;

use anyhow::{anyhow, bail};
use kafka_client::{Client, Config, Outcome, Record, Ticket};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Options, Payloads};

/// Tickets that go to the other task together.
const TICKETS: usize = 256;

pub(super) async fn produce(options: &Options, mut payloads: Payloads<'_>) -> anyhow::Result<u64> {
    let properties = options.producer_props.iter().map(|(name, value)| (&**name, &**value));
    let config = Config::from_properties(properties)?;
    let patience = config.delivery_timeout();
    let client = Client::new(config);
    let producer = client.producer();
    let topic = producer.topic(&options.topic, Instant::now() + patience).await;
    let topic = topic.map_err(|reason| anyhow!("{reason}"))?;
    let (heard, tickets) = mpsc::unbounded_channel();
    let hearing = tokio::spawn(hear(tickets));
    let mut waiting = Vec::with_capacity(TICKETS);
    for _ in 0..options.num_records {
        let record = Record {
            partition: None,
            key: None,
            value: Some(payloads.next()),
            headers: &[],
            timestamp_ms: now_ms()?,
        };
        let put = producer.put(&topic, record, Instant::now() + patience).await;
        waiting.push(put.map_err(|reason| anyhow!("not enqueued: {reason}"))?);
        if waiting.len() == TICKETS {
            heard.send(std::mem::replace(&mut waiting, Vec::with_capacity(TICKETS)))?;
        }
    }
    heard.send(waiting)?;
    drop(heard);
    let written = hearing.await?;
    eprintln!("{:#?}", client.stats());
    client.close(Instant::now() + patience).await;
    written
}

/// How many records were written; `buffer.memory` bounds the tickets under way.
async fn hear(mut tickets: mpsc::UnboundedReceiver<Vec<Ticket>>) -> anyhow::Result<u64> {
    let mut written = 0;
    while let Some(tickets) = tickets.recv().await {
        for ticket in tickets {
            match ticket.outcome().await {
                Outcome::Written { .. } => written += 1,
                other => bail!("{other:?}"),
            }
        }
    }
    Ok(written)
}

fn now_ms() -> anyhow::Result<i64> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    Ok(i64::try_from(since.as_millis())?)
}
