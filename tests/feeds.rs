//! Readers by HTTP: cursors that go on where a page ended, on any bridge, and what cannot be read.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures_util::future::try_join_all;
use harness::bridge::{Bridge, Settings};
use harness::http::{Request, Response};
use harness::kafka::{Kafka, KafkaVersion};
use harness::ports;
use serde_json::Value;

/// A bridge with feeds of the topic `orders`, which has three partitions.
struct Feeds {
    kafka: Kafka,
    bridge: Bridge,
    port: u16,
}

/// An item of a page.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Item {
    partition: i64,
    offset: i64,
    content: String,
}

/// A page of JSON.
#[derive(Debug)]
struct Page {
    items: Vec<Item>,
    next: String,
    body: Value,
}

/// Feeds that differ in where a reader without a position starts.
const FEEDS: &str = "\
[feeds.orders]\ntopics = ['orders']\nauto_offset_reset = 'earliest'\n\
[feeds.new]\ntopics = ['orders']\n\
[feeds.plain]\ntopics = ['orders', 'other']\nencode_message_id = false\n\
auto_offset_reset = 'earliest'\n\
[feeds.strict]\ntopics = ['orders']\nauto_offset_reset = 'none'\n\
[feeds.missing]\ntopics = ['missing']\n";

impl Feeds {
    async fn start(version: KafkaVersion) -> anyhow::Result<Self> {
        let kafka = Kafka::pooled(version).await?;
        kafka.create_topic("orders", 3).await?;
        kafka.create_topic("other", 1).await?;
        let (bridge, port) = bridge(&kafka).await?;
        Ok(Self { kafka, bridge, port })
    }

    async fn write(&self, partition: i32, value: &str) -> anyhow::Result<()> {
        let request = Request::post("/v1/clusters/default/topics/orders", value.to_owned());
        let request = request.header("kafka-partition", partition.to_string());
        let reply = request.send(self.bridge.port()).await?;
        ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
        Ok(())
    }

    async fn get(&self, feed: &str, query: &str) -> anyhow::Result<Response> {
        get(self.port, feed, query).await
    }

    async fn page(&self, feed: &str, query: &str) -> anyhow::Result<Page> {
        Page::of(&self.get(feed, query).await?)
    }

    /// Status and code of a refusal.
    async fn refusal(&self, feed: &str, query: &str) -> anyhow::Result<(u16, String)> {
        let reply = self.get(feed, query).await?;
        let body = reply.json()?;
        let code = body.get("error").and_then(Value::as_str).unwrap_or_default();
        Ok((reply.status, code.to_owned()))
    }
}

async fn bridge(kafka: &Kafka) -> anyhow::Result<(Bridge, u16)> {
    let port = ports::free()?;
    let mut settings = Settings::to(kafka.bootstrap());
    settings.extra = format!("[feeds]\nlisten = ['127.0.0.1:{port}']\n{FEEDS}");
    Ok((Bridge::start(settings).await?, port))
}

async fn get(port: u16, feed: &str, query: &str) -> anyhow::Result<Response> {
    Request::get(&format!("/v1/feeds/{feed}/messages?{query}")).send(port).await
}

impl Page {
    fn of(reply: &Response) -> anyhow::Result<Self> {
        ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
        let body = reply.json()?;
        let item = |item: &Value| {
            Some(Item {
                partition: item.pointer("/metadata/partition")?.as_i64()?,
                offset: item.pointer("/metadata/offset")?.as_i64()?,
                content: item.get("content")?.as_str()?.to_owned(),
            })
        };
        let items = body.get("items").and_then(Value::as_array).context("items")?;
        let items: Option<Vec<_>> = items.iter().map(item).collect();
        let next = body.pointer("/pagination/nextCursor").and_then(Value::as_str);
        let next = next.context("nextCursor")?.to_owned();
        ensure!(reply.header("kafka-next-cursor") == Some(&next), "{reply:?}");
        Ok(Self { items: items.context("an item")?, next, body })
    }
}

/// Pages follow one another without a gap or a repetition, also on another bridge.
async fn every_record_is_read_once(version: KafkaVersion) -> anyhow::Result<()> {
    let feeds = Feeds::start(version).await?;
    for number in 0..30 {
        feeds.write(number % 3, &number.to_string()).await?;
    }
    let (second, second_port) = bridge(&feeds.kafka).await?;
    let (mut seen, mut cursor, mut turn) = (BTreeSet::new(), "from=earliest".to_owned(), 0);
    loop {
        let port = if turn % 2 == 0 { feeds.port } else { second_port };
        let reply = get(port, "orders", &format!("{cursor}&limit=7&timeout=0")).await?;
        let page = Page::of(&reply)?;
        let mut last = [-1; 3];
        for item in &page.items {
            let last = last.get_mut(usize::try_from(item.partition)?).context("a partition")?;
            ensure!(item.offset > *last, "{page:?}");
            *last = item.offset;
            ensure!(seen.insert(item.clone()), "{item:?} is read twice");
        }
        cursor = format!("cursor={}", page.next);
        turn += 1;
        if page.items.is_empty() {
            let again = feeds.page("orders", &format!("{cursor}&timeout=0")).await?;
            assert_eq!((again.items.len(), again.next), (0, page.next));
            assert_eq!(reply.header("kafka-lag"), Some("0"));
            break;
        }
    }
    assert_eq!(seen.len(), 30);
    assert!(turn >= 5, "{turn} pages of 7");
    drop(second);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_of_kafka_3_9_is_read_once() -> anyhow::Result<()> {
    every_record_is_read_once(KafkaVersion::V3_9).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_of_kafka_4_3_is_read_once() -> anyhow::Result<()> {
    every_record_is_read_once(KafkaVersion::V4_3).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_waits_for_what_is_asked_and_no_longer() -> anyhow::Result<()> {
    let feeds = Feeds::start(KafkaVersion::V4_3).await?;
    let start = Instant::now();
    let empty = feeds.page("new", "timeout=1000").await?;
    let took = start.elapsed();
    assert_eq!(empty.items, []);
    assert!((900..3000).contains(&took.as_millis()), "{took:?}");
    // What is written later is read from the cursor, in partitions that were never read, too.
    for partition in 0..3 {
        feeds.write(partition, "later").await?;
    }
    let later = feeds.page("new", &format!("cursor={}&min=3&timeout=10000", empty.next)).await?;
    assert_eq!(later.items.len(), 3, "{later:?}");
    let query = format!("cursor={}&timeout=20000", later.next);
    let waiting = feeds.page("new", &query);
    let writing = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        feeds.write(1, "awaited").await
    };
    let start = Instant::now();
    let (page, written) = tokio::join!(waiting, writing);
    written?;
    assert_eq!(page?.items.len(), 1);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    let few = feeds.page("orders", "from=earliest&min=50&limit=50&timeout=2000").await?;
    assert_eq!(few.items.len(), 4, "what there is at the timeout");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_polls_wait_at_a_time_and_all_get_what_comes() -> anyhow::Result<()> {
    let feeds = Feeds::start(KafkaVersion::V4_3).await?;
    let cursor = feeds.page("new", "timeout=0").await?.next;
    let query = format!("cursor={cursor}&min=3&timeout=25000");
    let polls = (0..1000).map(|_| feeds.page("new", &query));
    let writing = async {
        // They wait by then: as many new ones are answered meanwhile.
        for _ in 0..20 {
            feeds.page("new", "timeout=100").await?;
        }
        for partition in 0..3 {
            feeds.write(partition, "awaited").await?;
        }
        anyhow::Ok(Instant::now())
    };
    let (pages, written) = tokio::join!(try_join_all(polls), writing);
    let took = written?.elapsed();
    ensure!(took < Duration::from_secs(10), "{took:?}");
    for page in pages? {
        assert_eq!(page.items.len(), 3);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_is_read_in_each_spelling_and_a_wrong_one_says_what_is_wrong() -> anyhow::Result<()>
{
    let feeds = Feeds::start(KafkaVersion::V4_3).await?;
    for number in 0..6 {
        feeds.write(number % 3, &number.to_string()).await?;
    }
    let plain = feeds.page("plain", "from=latest&timeout=0").await?.next;
    assert!(plain.starts_with("orders:") && plain.contains("@0#2,1#2,2#2;other:"), "{plain}");
    for cursor in
        ["orders@0%231,1%231,2%231;other@0%230;", "b3JkZXJzQDAjMSwxIzEsMiMxO290aGVyQDAjMDs"]
    {
        let page = feeds.page("plain", &format!("cursor={cursor}&timeout=0")).await?;
        let offsets: Vec<_> = page.items.iter().map(|item| item.offset).collect();
        assert_eq!(offsets, [1, 1, 1], "{cursor}");
    }
    for (query, code) in [
        ("cursor=orders@0", (400, "cursor_malformed")),
        ("cursor=orders@0%231,0%232", (400, "cursor_duplicate")),
        ("cursor=orders@0%23-1", (400, "cursor_malformed")),
        ("cursor=orders@0%239223372036854775808", (400, "cursor_malformed")),
        ("cursor=orders@99%230", (400, "cursor_unknown_partition")),
        ("cursor=secret@0%230", (403, "topic_not_allowed")),
        ("topics=secret", (403, "topic_not_allowed")),
        ("limit=0", (400, "invalid_parameter")),
        ("limit=abc", (400, "invalid_parameter")),
        ("timeout=-1", (400, "invalid_parameter")),
        ("cursor=orders@0%231&from=latest", (400, "invalid_parameter")),
        ("min=9&limit=3", (400, "invalid_parameter")),
    ] {
        let (status, name) = feeds.refusal("plain", query).await?;
        assert_eq!((status, &*name), code, "{query}");
    }
    for (feed, query, code) in [
        ("strict", "", (400, "position_required")),
        ("strict", "cursor=orders@0%230", (400, "cursor_incomplete")),
        ("missing", "", (404, "topic_not_found")),
        ("nothing", "", (404, "feed_not_found")),
    ] {
        let (status, name) = feeds.refusal(feed, query).await?;
        assert_eq!((status, &*name), code, "{feed} {query}");
    }
    let clamped = feeds.page("orders", "limit=1000000000&from=latest&timeout=0").await?;
    assert_eq!(clamped.body["pagination"]["limit"], 10_000);
    let wrong = Request::post("/v1/feeds/orders/messages", "x").send(feeds.port).await?;
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("GET")));
    let head = Request::new("HEAD", "/v1/feeds/orders").send(feeds.port).await?;
    assert_eq!((head.status, head.header("allow")), (405, Some("GET")));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_is_not_in_the_log_is_told_never_skipped() -> anyhow::Result<()> {
    let feeds = Feeds::start(KafkaVersion::V4_3).await?;
    for partition in [0, 0, 1] {
        feeds.write(partition, "x").await?;
    }
    let beyond = "cursor=orders@0%2399,1%230,2%230;&timeout=0";
    let page = feeds.page("orders", beyond).await?;
    let gap = &page.body["gaps"][0];
    assert_eq!((&gap["partition"], &gap["from"], &gap["to"]), (&0.into(), &99.into(), &0.into()));
    assert_eq!(gap["reason"], "beyond_end");
    let all = feeds.page("orders", &format!("cursor={}&timeout=0", page.next)).await?;
    assert_eq!(page.items.len() + all.items.len(), 3, "{page:?} {all:?}");
    let gone = feeds.get("strict", beyond).await?;
    assert_eq!(gone.status, 410, "{}", gone.text());
    let body = gone.json()?;
    assert_eq!(body["error"], "offset_out_of_range");
    for (end, left) in [("earliest", 3), ("latest", 0)] {
        let cursor = body["cursors"][end].as_str().context("a cursor")?;
        let page = feeds.page("strict", &format!("cursor={cursor}&timeout=0")).await?;
        assert_eq!(page.items.len(), left, "{end}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_created_again_is_told_once_and_read_from_its_start() -> anyhow::Result<()>
{
    let feeds = Feeds::start(KafkaVersion::V4_3).await?;
    for partition in [0, 0, 1] {
        feeds.write(partition, "old").await?;
    }
    let before = feeds.page("orders", "timeout=0").await?;
    assert_eq!(before.items.len(), 3);
    feeds.kafka.delete_topic("orders").await?;
    feeds.kafka.create_topic("orders", 3).await?;
    for partition in [0, 0, 0, 2] {
        feeds.write(partition, "new").await?;
    }
    let (mut cursor, mut items, mut reasons) = (before.next, Vec::new(), Vec::new());
    for _ in 0..4 {
        let page = feeds.page("orders", &format!("cursor={cursor}&timeout=500")).await?;
        let gaps = page.body["gaps"].as_array().context("gaps")?;
        reasons.extend(gaps.iter().map(|gap| gap["reason"].clone()));
        items.extend(page.items);
        cursor = page.next;
    }
    let read: BTreeSet<_> = items.iter().collect();
    assert_eq!((items.len(), read.len()), (4, 4), "{items:?}");
    assert!(items.iter().all(|item| item.content == "new"), "{items:?}");
    assert!(!reasons.is_empty(), "no gap");
    assert!(reasons.iter().all(|reason| reason == "recreated"), "{reasons:?}");
    assert!(reasons.len() <= 3, "{reasons:?}: once a partition");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_many_mib_arrives_whole() -> anyhow::Result<()> {
    let feeds = Feeds::start(KafkaVersion::V4_3).await?;
    // In JSON a control character takes six bytes.
    let value = "\u{1}".repeat(900_000);
    for partition in [0, 0, 0, 0] {
        feeds.write(partition, &value).await?;
    }
    let page = feeds.page("orders", "from=earliest&min=4&timeout=10000").await?;
    assert_eq!(page.items.len(), 4);
    assert!(page.items.iter().all(|item| item.content == value));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_has_the_media_type_that_is_asked_for() -> anyhow::Result<()> {
    let feeds = Feeds::start(KafkaVersion::V4_3).await?;
    feeds.write(0, "one\nline").await?;
    feeds.write(0, "two").await?;
    for (accept, status, kind, text) in [
        ("*/*", 200, "application/json", "{\"items\":[{\"id\":"),
        ("application/x-ndjson", 200, "application/x-ndjson", "{\"id\":"),
        ("text/plain", 200, "text/plain", "items\n\nitem\nid: "),
        ("application/octet-stream", 200, "application/octet-stream", "one\nline"),
        ("application/xml", 406, "application/json", "{\"error\":\"not_acceptable\""),
    ] {
        let request = Request::get("/v1/feeds/orders?from=earliest&timeout=0");
        let reply = request.header("accept", accept).send(feeds.port).await?;
        assert_eq!(reply.status, status, "{accept}: {}", reply.text());
        assert_eq!(reply.header("content-type"), Some(kind), "{accept}");
        assert!(reply.text().starts_with(text), "{accept}: {}", reply.text());
    }
    let at = Request::get("/v1/feeds/orders/cursor?at=earliest").send(feeds.port).await?;
    let cursor = at.json()?["cursor"].as_str().context("a cursor")?.to_owned();
    let page = feeds.page("orders", &format!("cursor={cursor}&timeout=0")).await?;
    assert_eq!(page.items.len(), 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_kafka_a_reader_is_told_so_and_at_the_end_of_the_bridge_it_has_its_page()
-> anyhow::Result<()> {
    let mut kafka = Kafka::start(KafkaVersion::V4_3, 1).await?;
    kafka.create_topic("orders", 3).await?;
    kafka.create_topic("other", 1).await?;
    let (mut bridge, port) = bridge(&kafka).await?;
    let cursor = Page::of(&get(port, "orders", "from=latest&timeout=0").await?)?.next;
    let waiting = tokio::spawn(async move {
        Page::of(&get(port, "orders", &format!("cursor={cursor}&timeout=60000")).await?)
    });
    // A whole other poll passes meanwhile: the first is under way.
    get(port, "orders", "from=latest&timeout=500").await?;
    let start = Instant::now();
    bridge.stop().await?;
    assert_eq!(waiting.await??.items, []);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    bridge.restart().await?;
    kafka.kill_broker(1)?;
    let reply = get(port, "orders", "from=latest&timeout=1000").await?;
    assert_eq!(reply.status, 503, "{}", reply.text());
    assert_eq!(reply.json()?["error"], "kafka_unavailable");
    assert_eq!(reply.header("retry-after"), Some("1"));
    Ok(())
}
