//! Records as a receiver gets them, in memory of their own: a webhook may wait for days with them.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use kafka_client::StoredRecord;

use super::cloudevents::{BATCH, Event, ValueType};
use super::config::{Format, OnFailure, WebhookConfig};
use crate::consume::envelope::{Envelope, Raw, Record, Shape};
use crate::consume::feeds::Feed;
use crate::consume::memory::Held;
use crate::consume::select::Placed;
use crate::consume::selection::{Deserializer, Selected};
use crate::consume::topic_log::bytes_of;

/// A record.
pub(super) struct Item {
    pub(super) offset: i64,
    /// `kafka-…`.
    headers: Vec<(&'static str, String)>,
    body: Bytes,
    /// What it is as a CloudEvent, and whether it has a value then.
    event: Option<(Event, bool)>,
    /// As it is in Kafka, where it may have to go to the dead-letter topic.
    pub(super) record: Option<StoredRecord>,
    /// Of the memory of all webhooks.
    pub(super) held: Option<Held>,
}

/// A partition, as items name it.
pub(super) struct Origin {
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
    /// Begins the topic's id.
    pub(super) tag: Option<u32>,
}

impl Item {
    /// What the feed gives of a record.
    pub(super) fn new(
        config: &WebhookConfig,
        feed: &Feed,
        origin: &Origin,
        stored: &StoredRecord,
        selected: &Selected,
    ) -> Self {
        let headers: Vec<_> = stored.headers.iter().collect();
        let record = Record::of(&origin.topic, origin.partition, stored, &headers);
        let record = record.selected(selected);
        let shape = Shape { headers: false, metadata: true, big_as_string: false };
        let Raw { headers: told, body } = Raw::new(&record, feed, shape);
        let body = match config.format {
            Format::Raw | Format::CloudEvents => Bytes::copy_from_slice(body),
            Format::Envelope => {
                let (id, mut json) = (id(feed, origin, stored), Vec::new());
                let shape = Shape { headers: true, ..shape };
                Envelope::new(&id, &record, feed, shape).write(&mut json);
                json.into()
            }
        };
        let event = (config.format == Format::CloudEvents).then(|| {
            let is_tombstone = told.iter().any(|(name, _)| *name == "kafka-tombstone");
            (Event::of(stored, &config.attributes, value_type(feed)), !is_tombstone)
        });
        let is_kept = config.on_failure == OnFailure::Dlq;
        let kept = || StoredRecord::detached(std::slice::from_ref(stored)).pop();
        let (record, offset) = (is_kept.then(kept).flatten(), stored.offset);
        Self { offset, headers: told, body, event, record, held: None }
    }

    /// What it takes in memory, about.
    pub(super) fn bytes(&self) -> usize {
        let kept = self.record.as_ref().map_or(0, bytes_of);
        let event = self.event.as_ref().map_or(0, |(event, _)| event.bytes());
        self.body.len() + kept + event + OVERHEAD_BYTES
    }

    pub(super) fn placed<'a>(&'a self, origin: &'a Origin) -> Option<Placed<'a>> {
        let record = self.record.as_ref()?;
        Some(Placed { topic: &origin.topic, partition: origin.partition, record })
    }
}

/// The cursor behind the record, in its partition.
fn id(feed: &Feed, origin: &Origin, record: &StoredRecord) -> String {
    let Origin { topic, partition, tag } = origin;
    let tag = tag.map(|tag| format!(":{tag:08x}")).unwrap_or_default();
    let next = record.offset + 1;
    let epoch = Some(record.leader_epoch).filter(|epoch| *epoch >= 0);
    let epoch = epoch.map(|epoch| format!(".{epoch}")).unwrap_or_default();
    let plain = format!("{topic}{tag}@{partition}#{next}{epoch}");
    if feed.encode_message_id { BASE64_STANDARD.encode(plain) } else { plain }
}

/// The content of a request.
pub(super) struct Whole {
    pub(super) headers: Vec<(Cow<'static, str>, String)>,
    pub(super) content_type: Option<String>,
    pub(super) body: Bytes,
}

impl Whole {
    /// Of a request with these records; `id` gives one to an event that has none.
    pub(super) fn new(
        config: &WebhookConfig,
        feed: &Feed,
        items: &[&Item],
        id: impl Fn(&Item) -> String,
    ) -> Self {
        let [item] = items else { return Self::batch(config, items, id) };
        if config.batch_max > 1 {
            return Self::batch(config, items, id);
        }
        let headers = item.headers.iter().cloned();
        let mut headers: Vec<_> = headers.map(|(name, value)| (name.into(), value)).collect();
        let content_type = match (&item.event, config.format) {
            (Some((event, _)), _) => {
                let (of_event, content_type) = event.headers(&id(item));
                headers.extend(of_event.into_iter().map(|(name, value)| (name.into(), value)));
                content_type
            }
            (None, Format::Envelope) => Some(JSON.to_owned()),
            (None, _) => Some(value_type(feed).name.to_owned()),
        };
        Self { headers, content_type, body: item.body.clone() }
    }

    /// An array.
    fn batch(config: &WebhookConfig, items: &[&Item], id: impl Fn(&Item) -> String) -> Self {
        let mut body = vec![b'['];
        for (index, item) in items.iter().enumerate() {
            body.extend_from_slice(if index == 0 { b"" } else { b"," });
            match &item.event {
                None => body.extend_from_slice(&item.body),
                Some((event, has_value)) => {
                    let value = has_value.then_some(&*item.body);
                    body.extend_from_slice(&event.json(&id(item), value).unwrap_or_default());
                }
            }
        }
        body.push(b']');
        let first = items.first().map(|item| item.headers.as_slice()).unwrap_or_default();
        // The rest is each record's own.
        let of_all = first.iter().filter(|(name, _)| BATCH_HEADERS.contains(name)).cloned();
        let headers = of_all.map(|(name, value)| (name.into(), value)).collect();
        let content_type = if config.format == Format::CloudEvents { BATCH } else { JSON };
        Self { headers, content_type: Some(content_type.to_owned()), body: body.into() }
    }
}

/// The type of a value.
fn value_type(feed: &Feed) -> ValueType {
    let (name, is_decoded) = match feed.deserializer {
        Deserializer::Json => (JSON, false),
        Deserializer::SchemaRegistry => (JSON, true),
        Deserializer::Noop => ("application/octet-stream", false),
    };
    ValueType { name, is_decoded }
}

const JSON: &str = "application/json";
/// Headers of a request with several records: offset and partition of the first.
const BATCH_HEADERS: [&str; 3] = ["kafka-topic", "kafka-partition", "kafka-offset"];
/// What an item takes beside its bytes.
const OVERHEAD_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use kafka_client::fake_broker::{FakeCluster, FakeSettings};
    use kafka_client::{ClusterConfig, Record as Written};

    use super::*;

    #[tokio::test]
    async fn headers_count_where_they_are_kept() {
        let cluster = FakeCluster::new(FakeSettings::default());
        cluster.create_topic("orders", &[1]);
        let client = cluster.client(ClusterConfig::new(&cluster.bootstrap()).unwrap().into());
        let large = [b'x'; 100_000];
        let headers = [(&b"ce_large"[..], Some(&large[..]))];
        let headers = [&headers[..], &REQUIRED.map(|name| (name, Some(&b"1"[..])))].concat();
        let record = Written { headers: &headers, ..Written::new(b"a") };
        client.producer().send("orders", record, std::time::Duration::from_secs(5)).await;
        let stored = cluster.log("orders", 0).remove(0);
        let origin = Origin { topic: "orders".into(), partition: 0, tag: None };
        let bytes = |format, on_failure| {
            let config = WebhookConfig { format, on_failure, ..WebhookConfig::of_url("http://a") };
            let feed = Feed::of_topics(&["orders"]);
            Item::new(&config, &feed, &origin, &stored, &Selected::Whole).bytes()
        };
        assert!(bytes(Format::Raw, OnFailure::Stop) < 1000);
        for (format, on_failure, times) in [
            (Format::Raw, OnFailure::Dlq, 1),
            (Format::CloudEvents, OnFailure::Stop, 1),
            (Format::CloudEvents, OnFailure::Dlq, 2),
            (Format::Envelope, OnFailure::Dlq, 2),
        ] {
            let counted = bytes(format, on_failure) / large.len();
            assert_eq!(counted, times, "{format:?} {on_failure:?}");
        }
    }

    const REQUIRED: [&[u8]; 4] = [b"ce_id", b"ce_source", b"ce_type", b"ce_specversion"];
}
