//! Records that are sent once more because an operator says so; positions stay what they are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use kafka_client::At;
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::item::{Item, Origin};
use super::opening::offset_at;
use super::progress::Progress;
use super::receiver::random;
use super::retry::Verdict;
use super::source::{Portion, Source, Trouble};
use super::webhook::Webhook;
use crate::consume::cursor::{Cursor, Position};
use crate::limits::{FEED_KNOWN, FEED_PATIENCE, FEED_RETRY};

/// What an operator asks for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wish {
    /// A cursor.
    from: String,
    /// Another one; what is behind it is not sent.
    to: String,
    /// Whether requests have other ids than before: receivers drop those that they know.
    #[serde(default)]
    new_id: bool,
}

/// Partitions with their first offset, and the one behind the last.
pub(super) type Ranges = BTreeMap<(String, i32), (i64, i64)>;

impl Wish {
    /// # Errors
    /// What is wrong with it.
    pub(super) fn ranges(&self, webhook: &Webhook) -> Result<Ranges, String> {
        let cursor = |name: &str, text| {
            Cursor::parse(text).map_err(|refusal| format!("{name}: {}", refusal.message))
        };
        let (from, to) = (cursor("from", &self.from)?, cursor("to", &self.to)?);
        let offset = |position: &Position| match position {
            Position::Offset { next, .. } => Some(*next),
            Position::Time(_) => None,
        };
        let mut ranges = Ranges::new();
        for (topic, positions) in &from.topics {
            if !webhook.reader.feed.topics.has(topic) {
                return Err(format!("from: the topic `{topic}` is not in the feed"));
            }
            for (partition, position) in &positions.partitions {
                let end = to.topics.get(topic).and_then(|it| it.partitions.get(partition));
                let (Some(begin), Some(end)) = (offset(position), end.and_then(offset)) else {
                    return Err(format!("to: has no offset of {topic}-{partition}"));
                };
                if begin < end {
                    ranges.insert((topic.clone(), *partition), (begin, end));
                }
            }
        }
        let mut offsets = ranges.values().map(|(begin, end)| end - begin);
        match offsets.try_fold(0, i64::checked_add) {
            Some(0) => Err("there is nothing between `from` and `to`".to_owned()),
            Some(_) => Ok(ranges),
            None => Err("there are too many offsets between `from` and `to`".to_owned()),
        }
    }

    /// Sends all of it, the records of each partition in order. Retries are those of the webhook, for a
    /// day at most.
    pub(super) async fn run(self, webhook: Arc<Webhook>, ranges: Ranges, progress: Arc<Progress>) {
        let salt = self.new_id.then(random);
        let sending = ranges.iter().map(async |((topic, partition), range)| {
            let left = range.1 - range.0;
            let sent = send(&webhook, (topic, *partition), *range, salt, &progress).await;
            progress.pass(left - sent);
        });
        join_all(sending).await;
        tracing::info!(webhook = &*webhook.name, progress = %progress.json(), "webhook_redelivered");
    }
}

/// Counts what is to be sent.
pub(super) fn begin(ranges: &Ranges) -> Arc<Progress> {
    let left = ranges.values().map(|(begin, end)| end - begin).sum();
    Arc::new(Progress::new(left))
}

/// Says how many offsets were passed: fewer than there are where the partition cannot be read.
async fn send(
    webhook: &Webhook,
    (topic, partition): (&str, i32),
    (begin, end): (i64, i64),
    salt: Option<u64>,
    progress: &Progress,
) -> i64 {
    let hub = &webhook.reader.hub;
    let topic = hub.topic(topic);
    let Ok(known) = hub.known(&topic, FEED_KNOWN, FEED_PATIENCE).await else { return 0 };
    let Ok(log_end) = offset_at(webhook, &topic, partition, At::Latest).await else { return 0 };
    let end = end.min(log_end);
    let name = Arc::clone(&topic.log.name);
    let origin = Origin { topic: name, partition, tag: known.tag };
    let source = Source::new(Arc::clone(&webhook.reader), topic, partition, known.tag);
    let (mut next, until) = (begin, Instant::now() + LONGEST);
    while next < end && Instant::now() < until {
        let portion = match source.clone().next(next, None).await {
            Ok(portion) => portion,
            Err(Trouble::Passing(_)) => {
                sleep(FEED_RETRY).await;
                continue;
            }
            Err(Trouble::Position(error)) => {
                let webhook = &*webhook.name;
                tracing::warn!(webhook, partition, %error, "webhook_not_redelivered");
                break;
            }
        };
        let Portion { segment, at, end: decided } = &portion;
        for stored in segment.records.get(*at..*decided).unwrap_or_default() {
            let record = &stored.record;
            if record.offset >= end {
                progress.pass(end - next);
                return end - begin;
            }
            let selected = webhook.reader.select(&origin.topic, partition, stored);
            if selected.is_given() {
                let (config, feed) = (&webhook.config, &webhook.reader.feed);
                let item = Item::new(config, feed, &origin, record, &selected);
                let message = webhook.message(&origin, segment.topic_id, &[&item], salt);
                progress.sent(deliver(webhook, &message, until).await);
            }
            progress.pass(record.offset + 1 - next);
            next = record.offset + 1;
        }
        let passed = if *decided == segment.records.len() { segment.next.min(end) } else { next };
        progress.pass(passed - next);
        next = passed;
    }
    next - begin
}

async fn deliver(webhook: &Webhook, message: &super::message::Message, until: Instant) -> bool {
    let (retry, began) = (&webhook.config.retry, Instant::now());
    for attempt in 1.. {
        let answered = {
            let _turn = webhook.requests.acquire().await;
            webhook.receiver.send(&webhook.config, message, attempt).await
        };
        let Verdict::Again { after, .. } = answered.verdict else {
            return answered.verdict == Verdict::Delivered;
        };
        if retry.is_spent(attempt, began.elapsed()) || Instant::now() >= until {
            return false;
        }
        sleep(retry.pause(attempt, after, random())).await;
    }
    false
}

const LONGEST: Duration = Duration::from_secs(86_400);
