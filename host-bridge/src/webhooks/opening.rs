//! Where a webhook begins in a partition: at what its group has committed, or where it began to read.

use std::ops::Range;

use kafka_client::{At, Committed, Reason};
use tokio::time::sleep;

use super::config::Qos;
use super::halt::{Halt, Why};
use super::position::{Note, ranges};
use super::webhook::Webhook;
use crate::clock::now_ms;
use crate::consume::cursor::is_same_topic;
use crate::consume::feeds::Reset;
use crate::consume::hub::{Topic, is_unknown_topic};
use crate::limits::{FEED_KNOWN, FEED_PATIENCE, FEED_RETRY};

/// Where it begins.
pub(super) struct Opened {
    pub(super) next: i64,
    pub(super) epoch: Option<i32>,
    pub(super) note: Note,
    /// Behind that, these were delivered before.
    pub(super) settled: Vec<Range<i64>>,
    /// Whether Kafka does not have that position yet.
    pub(super) is_new: bool,
}

/// Asks until brokers answer; `told` hears what is in the way.
pub(super) async fn open(
    webhook: &Webhook,
    topic: &Topic,
    partition: i32,
    told: impl Fn(String),
) -> Opened {
    loop {
        match opened(webhook, topic, partition).await {
            Ok(opened) => return opened,
            Err(why) => told(why),
        }
        sleep(FEED_RETRY).await;
    }
}

async fn opened(webhook: &Webhook, topic: &Topic, partition: i32) -> Result<Opened, String> {
    let hub = &webhook.reader.hub;
    let name = &*topic.log.name;
    let why = |reason: Reason| format!("{name}-{partition}: {}", reason.chain());
    let known = hub.known(topic, FEED_KNOWN, FEED_PATIENCE).await.map_err(why)?;
    if webhook.config.qos == Qos::None {
        return first(webhook, topic, partition, &[], known.tag).await.map_err(why);
    }
    let own = committed(webhook, &[(name, partition)]).await?.pop().flatten();
    let Some(Committed { offset, epoch, metadata, .. }) = own else {
        let of_others = of_group(webhook).await?;
        return first(webhook, topic, partition, &of_others, known.tag).await.map_err(why);
    };
    let note = Note::decode(&metadata);
    let (is_foreign, note) = (note.is_none(), note.unwrap_or_default());
    let anchor = if is_foreign { now_ms() } else { note.anchor };
    if !is_same_topic(note.tag, known.tag) {
        webhook.gap(name, partition, "recreated", offset);
        let next = offset_at(webhook, topic, partition, At::Earliest).await.map_err(why)?;
        let note = Note { anchor, tag: known.tag, settled: Vec::new(), ..note };
        return Ok(Opened { next, epoch: None, note, settled: Vec::new(), is_new: true });
    }
    let settled = ranges(offset, &note.settled);
    let note = Note { anchor, tag: known.tag, ..note };
    Ok(Opened { next: offset, epoch, note, settled, is_new: is_foreign })
}

/// Where the group has nothing of the partition. Where it has of others the partition was added since, or
/// its offset has expired: then it begins when the group began.
async fn first(
    webhook: &Webhook,
    topic: &Topic,
    partition: i32,
    of_others: &[Option<Committed>],
    tag: Option<u32>,
) -> Result<Opened, Reason> {
    let notes: Vec<_> = of_others.iter().flatten().map(|it| Note::decode(&it.metadata)).collect();
    let anchor = notes.iter().flatten().map(|note| note.anchor).min();
    let mut halt = notes.iter().flatten().find_map(|note| note.halt.clone());
    let at = match (anchor, webhook.reader.feed.reset) {
        (Some(ms), _) => At::Time(ms),
        (None, Reset::Latest) if notes.is_empty() => At::Latest,
        (None, Reset::None) if notes.is_empty() => {
            let reason = "the group has no position, and auto_offset_reset is `none`: \
                resuming begins at the log start";
            halt = Some(Halt::new(Why::Stopped, reason));
            At::Earliest
        }
        _ => At::Earliest,
    };
    let next = offset_at(webhook, topic, partition, at).await?;
    if anchor.is_some() {
        webhook.gap(&topic.log.name, partition, "uncommitted", next);
    }
    let anchor = anchor.unwrap_or_else(now_ms);
    let note = Note { anchor, tag, halt, settled: Vec::new() };
    Ok(Opened { next, epoch: None, note, settled: Vec::new(), is_new: true })
}

/// What the group has committed of all its topics.
async fn of_group(webhook: &Webhook) -> Result<Vec<Option<Committed>>, String> {
    let (hub, topics) = (&webhook.reader.hub, webhook.topics());
    let mut all = Vec::new();
    for name in &topics {
        match hub.known(&hub.topic(name), FEED_KNOWN, FEED_PATIENCE).await {
            Ok(known) => all.extend((0..known.partitions).map(|partition| (&**name, partition))),
            // It was deleted since.
            Err(reason) if is_unknown_topic(&reason) => {}
            Err(reason) => return Err(format!("{name}: {}", reason.chain())),
        }
    }
    committed(webhook, &all).await
}

async fn committed(
    webhook: &Webhook,
    partitions: &[(&str, i32)],
) -> Result<Vec<Option<Committed>>, String> {
    let all = webhook.group.committed(partitions, FEED_PATIENCE).await;
    let all: Result<Vec<_>, _> = all.into_iter().collect();
    all.map_err(|error| format!("the group `{}`: {error}", webhook.group.id()))
}

pub(super) async fn offset_at(
    webhook: &Webhook,
    topic: &Topic,
    partition: i32,
    at: At,
) -> Result<i64, Reason> {
    let found = webhook.reader.hub.offsets(topic, &[partition], at, FEED_PATIENCE).await;
    found.into_iter().next().unwrap_or(Err(Reason::DeadlineExceeded { last: None }))
}
