//! Readers under whom topics, partitions and records come and go.

#![expect(clippy::indexing_slicing, reason = "what is missing in an answer fails the test")]

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use harness::bridge::{Bridge, Settings};
use harness::http::{Request, Response};
use harness::kafka::{Kafka, KafkaVersion};
use harness::ports;
use harness::process::wait_until;
use kafka_upstream_tests::on_both_versions;
use serde_json::Value;

use crate::event_streams::Curl;

/// A bridge whose feeds have cursors of plain text.
struct Feeds {
    kafka: Kafka,
    bridge: Bridge,
    port: u16,
}

const FEEDS: &str = "\
[feeds.pattern]\ntopics_pattern = 'orders.*'\nencode_message_id = false\nsse.data = 'envelope'\n\
[feeds.earliest]\ntopics = ['orders']\nencode_message_id = false\nauto_offset_reset = 'earliest'\n\
[feeds.latest]\ntopics = ['orders']\nencode_message_id = false\n\
[feeds.none]\ntopics = ['orders']\nencode_message_id = false\nauto_offset_reset = 'none'\n";
const SOON: Duration = Duration::from_secs(60);

impl Feeds {
    async fn start(version: KafkaVersion) -> anyhow::Result<Self> {
        let kafka = Kafka::pooled(version).await?;
        kafka.create_topic("orders", 3).await?;
        kafka.create_topic("other", 1).await?;
        let port = ports::free()?;
        let mut settings = Settings::to(kafka.bootstrap());
        settings.extra = format!("[feeds]\nlisten = ['127.0.0.1:{port}']\n{FEEDS}");
        Ok(Self { bridge: Bridge::start(settings).await?, kafka, port })
    }

    async fn write(&self, topic: &str, partition: i32, value: &str) -> anyhow::Result<()> {
        let path = format!("/v1/clusters/default/topics/{topic}");
        let request = Request::post(&path, value.to_owned());
        let request = request.header("kafka-partition", partition.to_string());
        let reply = request.send(self.bridge.port()).await?;
        ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
        Ok(())
    }

    async fn get(&self, feed: &str, query: &str) -> anyhow::Result<Response> {
        Request::get(&format!("/v1/feeds/{feed}?{query}")).send(self.port).await
    }

    /// A page from a cursor on.
    async fn page(&self, feed: &str, cursor: &str) -> anyhow::Result<Value> {
        let cursor = cursor.replace('#', "%23");
        let reply = self.get(feed, &format!("cursor={cursor}&timeout=500")).await?;
        ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
        reply.json()
    }
}

/// Topic, partition, offset and value.
type Read = (String, i64, i64, String);

fn read(item: &Value) -> Option<Read> {
    let metadata = &item["metadata"];
    let topic = metadata["topic"].as_str()?.to_owned();
    let (partition, offset) = (metadata["partition"].as_i64()?, metadata["offset"].as_i64()?);
    Some((topic, partition, offset, item["content"].as_str()?.to_owned()))
}

fn cursor_of(page: &Value) -> anyhow::Result<String> {
    Ok(page["pagination"]["nextCursor"].as_str().context("a cursor")?.to_owned())
}

/// What was created between two polls, and under a stream, is read from its first offset by both.
async fn what_is_created(version: KafkaVersion) -> anyhow::Result<()> {
    let feeds = Feeds::start(version).await?;
    feeds.write("orders", 0, "before").await?;
    let opened = feeds.get("pattern", "timeout=0").await?.json()?;
    ensure!(opened["items"] == Value::Array(Vec::new()), "{opened}");
    let mut cursor = cursor_of(&opened)?;
    let stream = Curl::open(feeds.port, "pattern/events", None)?;
    wait_until("a position", SOON, async || stream.last_id()?.map(drop).context("no id")).await?;
    feeds.kafka.add_partitions(&["orders"], 4).await?;
    feeds.kafka.create_topic("orders-eu", 2).await?;
    let mut expected = BTreeSet::new();
    for (topic, partition) in [("orders", 3), ("orders-eu", 0), ("orders-eu", 1), ("orders", 0)] {
        for number in 0..3 {
            let first = if (topic, partition) == ("orders", 0) { 1 } else { 0 };
            feeds.write(topic, partition, &number.to_string()).await?;
            let (partition, offset) = (i64::from(partition), first + number);
            expected.insert((topic.to_owned(), partition, offset, number.to_string()));
        }
    }
    feeds.write("other", 0, "of no reader").await?;
    let (mut polled, mut pages) = (Vec::new(), 0);
    while polled.len() < expected.len() && pages < 60 {
        let page = feeds.page("pattern", &cursor).await?;
        polled.extend(page["items"].as_array().context("items")?.iter().filter_map(read));
        ensure!(page["gaps"] == Value::Array(Vec::new()), "{page}");
        cursor = cursor_of(&page)?;
        pages += 1;
    }
    assert_eq!((polled.len(), polled.iter().cloned().collect()), (12, expected.clone()));
    let events = stream.first(12, &["message"]).await?;
    let envelopes = events.iter().map(|event| serde_json::from_str(&event.data));
    let envelopes: Vec<Value> = envelopes.collect::<Result<_, _>>()?;
    assert_eq!(envelopes.iter().filter_map(read).collect::<BTreeSet<_>>(), expected);
    ensure!(stream.first(0, &["gap", "failure"]).await?.is_empty(), "{}", stream.text()?);
    // A topic that is deleted is told, once, and the others are read on.
    feeds.kafka.delete_topic("orders-eu").await?;
    feeds.write("orders", 1, "after").await?;
    let gaps = stream.first(2, &["gap"]).await?;
    let mut told = Vec::new();
    for gap in &gaps {
        let gap: Value = serde_json::from_str(&gap.data)?;
        told.push(format!("{} {} {} {}", gap["topic"], gap["partition"], gap["from"], gap["to"]));
        assert_eq!(gap["reason"], "deleted");
    }
    assert_eq!(told, ["\"orders-eu\" 0 3 null", "\"orders-eu\" 1 3 null"]);
    assert_eq!(stream.first(13, &["message"]).await?.len(), 13);
    let cursor_before = cursor.replace('#', "%23");
    let page = feeds.get("pattern", &format!("cursor={cursor_before}&timeout=8000")).await?;
    let page = page.json()?;
    assert_eq!(page["gaps"].as_array().map(Vec::len), Some(2), "{page}");
    assert_eq!(page["items"].as_array().map(Vec::len), Some(1), "{page}");
    ensure!(!cursor_of(&page)?.contains("orders-eu"), "{page}");
    Ok(())
}

/// Where positions go that are older than the log, by each policy.
async fn what_has_expired(version: KafkaVersion) -> anyhow::Result<()> {
    let feeds = Feeds::start(version).await?;
    for number in 0..10 {
        feeds.write("orders", 0, &number.to_string()).await?;
    }
    feeds.kafka.delete_records("orders", 0, 5).await?;
    let old = "orders@0#2,1#0,2#0;";
    for (feed, to, left) in [("earliest", 5, 5), ("latest", 10, 0)] {
        let (mut cursor, mut gaps, mut offsets) = (old.to_owned(), Vec::new(), Vec::new());
        for _ in 0..3 {
            let page = feeds.page(feed, &cursor).await?;
            gaps.extend(page["gaps"].as_array().context("gaps")?.clone());
            let items = page["items"].as_array().context("items")?;
            offsets.extend(items.iter().filter_map(read).map(|(_, _, offset, _)| offset));
            cursor = cursor_of(&page)?;
        }
        let gap = serde_json::json!([
            {"topic": "orders", "partition": 0, "from": 2, "to": to, "reason": "expired"}
        ]);
        assert_eq!(Value::Array(gaps), gap, "{feed}");
        assert_eq!(offsets, Vec::from_iter(10 - left..10), "{feed}");
        let path = format!("{feed}/events?cursor={}", old.replace('#', "%23"));
        let stream = Curl::open(feeds.port, &path, None)?;
        let told = stream.first(1, &["gap"]).await?;
        assert_eq!(serde_json::from_str::<Value>(&told[0].data)?, gap[0], "{feed}");
        ensure!(told[0].id.contains(&format!("@0#{to}")), "{told:?}");
        let count = usize::try_from(left)?;
        let values: Vec<_> = (10 - left..10).map(|number| number.to_string()).collect();
        let events = stream.first(count, &["message"]).await?;
        assert_eq!(events.into_iter().map(|it| it.data).collect::<Vec<_>>(), values, "{feed}");
    }
    let cursor = old.replace('#', "%23");
    let gone = feeds.get("none", &format!("cursor={cursor}&timeout=500")).await?;
    assert_eq!(gone.status, 410, "{}", gone.text());
    let stream = Curl::open(feeds.port, &format!("none/events?cursor={cursor}"), None)?;
    let failure = stream.first(1, &["failure"]).await?.remove(0);
    ensure!(stream.text()?.contains("\nretry: 60000\n"), "{}", stream.text()?);
    for refusal in [gone.json()?, serde_json::from_str(&failure.data)?] {
        assert_eq!(refusal["error"], "offset_out_of_range");
        for (end, count) in [("earliest", 5), ("latest", 0)] {
            let cursor = refusal["cursors"][end].as_str().context("a cursor")?;
            let page = feeds.page("none", cursor).await?;
            assert_eq!(page["items"].as_array().map(Vec::len), Some(count), "{end}");
        }
    }
    let lines = [
        "host_bridge_feed_gaps_total{feed=\"earliest\",reason=\"expired\"} 2",
        "host_bridge_feed_gaps_total{feed=\"latest\",reason=\"expired\"} 2",
        "host_bridge_feed_gaps_total{feed=\"none\",reason=\"expired\"} 0",
        "host_bridge_feed_records_total{feed=\"earliest\",entrypoint=\"get\"} 5",
        "host_bridge_feed_records_total{feed=\"earliest\",entrypoint=\"sse\"} 5",
        "host_bridge_feed_records_total{feed=\"latest\",entrypoint=\"sse\"} 0",
        "host_bridge_feed_lag{feed=\"earliest\"} 0",
    ];
    wait_until("metrics", SOON, async || {
        let scrape = Request::get("/metrics").send(feeds.bridge.port()).await?.text();
        let missing = lines.iter().find(|line| !scrape.lines().any(|it| it == **line));
        ensure!(missing.is_none(), "{missing:?} is not in {scrape}");
        Ok(())
    })
    .await
}

on_both_versions! {
    what_is_created_is_read_from_its_first_offset: super::what_is_created;
    a_position_before_the_log_goes_where_the_policy_says: super::what_has_expired;
}
