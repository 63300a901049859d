//! Feeds as event streams, with curl as the client and a parser that others wrote.

#![expect(clippy::indexing_slicing, reason = "what is missing in an answer fails the test")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::future::ready;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
use eventsource_stream::{Event, EventStream};
use futures_util::future::try_join_all;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use harness::bridge::{Bridge, Settings};
use harness::http::Request;
use harness::kafka::{Kafka, KafkaVersion};
use harness::ports;
use harness::process::{Process, wait_until};
use kafka_upstream_tests::on_both_versions;
use kafka_upstream_tests::produce::{Plan, client};
use kafka_upstream_tests::transactions;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

/// A bridge whose feeds have cursors of plain text.
struct Feeds {
    kafka: Kafka,
    bridge: Bridge,
    port: u16,
}

/// `curl -N`, and the file that its output goes to.
pub(crate) struct Curl {
    process: Process,
    dir: tempfile::TempDir,
}

const FEEDS: &str = "\
[feeds.orders]\ntopics = ['orders']\nencode_message_id = false\nsse.heartbeat_ms = 2000\n\
[feeds.pages]\ntopics = ['orders']\nentrypoints = ['get']\n\
[feeds.strict]\ntopics = ['orders']\nauto_offset_reset = 'none'\n\
[feeds.missing]\ntopics = ['missing']\n\
[feeds.kept]\ntopics = ['orders']\nfilter = \"key == 'kept'\"\nencode_message_id = false\n\
sse.heartbeat_ms = 2000\n\
[feeds.bank]\ntopics = ['bank']\nencode_message_id = false\nsse.heartbeat_ms = 2000\n";
const SOON: Duration = Duration::from_secs(20);

impl Feeds {
    async fn start(kafka: Kafka) -> anyhow::Result<Self> {
        kafka.create_topic("orders", 3).await?;
        let (bridge, port) = bridge(&kafka).await?;
        Ok(Self { kafka, bridge, port })
    }

    async fn write(&self, partition: i32, value: impl Into<bytes::Bytes>) -> anyhow::Result<()> {
        let request = Request::post("/v1/clusters/default/topics/orders", value);
        let request = request.header("kafka-partition", partition.to_string());
        let reply = request.send(self.bridge.port()).await?;
        ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
        Ok(())
    }
}

async fn bridge(kafka: &Kafka) -> anyhow::Result<(Bridge, u16)> {
    let port = ports::free()?;
    let mut settings = Settings::to(kafka.bootstrap());
    settings.extra = format!("[feeds]\nlisten = ['127.0.0.1:{port}']\n{FEEDS}");
    Ok((Bridge::start(settings).await?, port))
}

impl Curl {
    pub(crate) fn open(port: u16, path: &str, last_event_id: Option<&str>) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let mut command = Command::new("curl");
        command.args(["-sN", "-D"]).arg(dir.path().join("head"));
        if let Some(id) = last_event_id {
            command.args(["-H", &format!("last-event-id: {id}")]);
        }
        command.arg(format!("http://127.0.0.1:{port}/v1/feeds/{path}"));
        let process = Process::spawn("curl", command, &dir.path().join("body"))?;
        Ok(Self { process, dir })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn text(&self) -> anyhow::Result<String> {
        Ok(String::from_utf8(fs::read(self.file("body"))?)?)
    }

    /// What a client has made of it so far. The last block counts once it is complete.
    fn events(&self) -> anyhow::Result<Vec<Event>> {
        let text = self.text()?;
        let complete = text.rfind("\n\n").map_or(0, |end| end + 2);
        let text = text.get(..complete).unwrap_or_default().to_owned();
        let events = EventStream::new(stream::iter([Ok::<_, Infallible>(text)]));
        let events = events.collect::<Vec<_>>().now_or_never().context("all is there")?;
        events.into_iter().map(|event| event.map_err(|error| anyhow!("{error}"))).collect()
    }

    /// Events of these names, as soon as there are so many.
    pub(crate) async fn first(&self, count: usize, names: &[&str]) -> anyhow::Result<Vec<Event>> {
        wait_until("events", SOON, async || {
            let of_name = |event: &Event| names.contains(&&*event.event);
            let found: Vec<_> = self.events()?.into_iter().filter(of_name).collect();
            ensure!(found.len() >= count, "{} of {count}", found.len());
            Ok(found)
        })
        .await
    }

    /// The id that a client would come back with.
    pub(crate) fn last_id(&self) -> anyhow::Result<Option<String>> {
        let text = self.text()?;
        let complete = text.rfind("\n\n").unwrap_or(0);
        let lines = text.get(..complete).unwrap_or_default().lines();
        Ok(lines.filter_map(|line| line.strip_prefix("id: ")).next_back().map(str::to_owned))
    }
}

async fn a_stream(version: KafkaVersion) -> anyhow::Result<()> {
    let feeds = Feeds::start(Kafka::pooled(version).await?).await?;
    let values: [&[u8]; 6] =
        [b"one", b"two\nlines", b"", b"a\r\n\r\nevent: x\ndata: forged\n\n", b"\xff", b"nul\0"];
    for value in values {
        feeds.write(0, value).await?;
    }
    // An older cursor in the URL beside a newer header, as a browser comes back.
    let curl = Curl::open(feeds.port, "orders?cursor=orders@0%235", Some("b3JkZXJzQDAjMA=="));
    let json = curl?;
    wait_until("a page", SOON, async || holds(json.text()?.contains("items"))).await?;
    let path = "orders/events?cursor=orders@0%235,1%230,2%230";
    let curl = Curl::open(feeds.port, path, Some("b3JkZXJzQDAjMCwxIzAsMiMwOw=="))?;
    let events = curl.first(6, &["message", "binary"]).await?;
    let seen: Vec<_> = events.iter().map(|it| (&*it.event, &*it.data)).collect();
    let forged = "YQ0KDQpldmVudDogeApkYXRhOiBmb3JnZWQKCg==";
    let expected = [
        ("message", "one"),
        ("message", "two\nlines"),
        ("message", ""),
        ("binary", forged),
        ("binary", "/w=="),
        ("message", "nul\0"),
    ];
    assert_eq!(seen, expected);
    for (next, event) in (1..).zip(&events) {
        ensure!(event.id.ends_with(&format!("@0#{next}.0,1#0,2#0;")), "{event:?}");
    }
    let text = curl.text()?;
    ensure!(text.starts_with("retry: ") && text.contains("\n\nid: orders:"), "{text}");
    let head = fs::read_to_string(curl.file("head"))?.to_lowercase();
    for line in ["200 ok", "content-type: text/event-stream", "x-accel-buffering: no"] {
        ensure!(head.contains(line), "{head}");
    }
    ensure!(head.contains("cache-control: no-cache, no-transform"), "{head}");
    let beats = || anyhow::Ok(curl.text()?.matches("\n:\n\n").count());
    let (before, began) = (beats()?, Instant::now());
    wait_until("heartbeats", SOON, async || holds(beats()? >= before + 2)).await?;
    ensure!(began.elapsed() < Duration::from_secs(7), "{:?}", began.elapsed());
    // A client that is cut before its first event comes back to where it was.
    let latest = Curl::open(feeds.port, "orders/events", None)?;
    wait_until("a position", SOON, async || latest.last_id()?.map(drop).context("no id")).await?;
    let id = latest.last_id()?;
    drop(latest);
    feeds.write(2, "meanwhile").await?;
    let again = Curl::open(feeds.port, "orders/events", id.as_deref())?;
    assert_eq!(again.first(1, &["message"]).await?[0].data, "meanwhile");
    Ok(())
}

async fn refusals(version: KafkaVersion) -> anyhow::Result<()> {
    let feeds = Feeds::start(Kafka::pooled(version).await?).await?;
    for (path, expected) in [
        ("strict/events", (400, "position_required")),
        ("nothing/events", (404, "feed_not_found")),
        ("pages/events", (404, "feed_not_found")),
        ("missing/events", (404, "topic_not_found")),
        ("orders/events?topics=secret", (403, "topic_not_allowed")),
        ("orders/events?cursor=orders@0", (400, "cursor_malformed")),
        ("orders/events?cursor=orders@0%231,0%232", (400, "cursor_duplicate")),
        ("orders/events?cursor=orders@0%23-1", (400, "cursor_malformed")),
        ("orders/events?cursor=orders@0%239223372036854775808", (400, "cursor_malformed")),
        ("orders/events?cursor=orders@99%230", (400, "cursor_unknown_partition")),
        ("orders/events?cursor=orders@0%231&from=latest", (400, "invalid_parameter")),
        ("pages?accept", (406, "not_acceptable")),
    ] {
        let request = Request::get(&format!("/v1/feeds/{path}"));
        let reply = request.header("accept", "text/event-stream").send(feeds.port).await?;
        let body = reply.json()?;
        let code = body.get("error").and_then(Value::as_str).unwrap_or_default();
        assert_eq!((reply.status, code), expected, "{path}");
    }
    let wrong = Request::post("/v1/feeds/orders/events", "x").send(feeds.port).await?;
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("GET")));
    // Without a policy a position that is gone says so in the stream.
    let gone = "strict/events?cursor=orders@0%2399,1%230,2%230;";
    let curl = Curl::open(feeds.port, gone, None)?;
    let failure = curl.first(1, &["failure"]).await?.remove(0);
    let body: Value = serde_json::from_str(&failure.data)?;
    assert_eq!(body["error"], "offset_out_of_range");
    ensure!(body["cursors"]["earliest"].is_string(), "{body}");
    ensure!(curl.text()?.contains("retry: 60000\n\n"), "{}", curl.text()?);
    // With one it is a gap.
    let beyond = "orders/events?cursor=orders@0%2399,1%230,2%230;";
    let curl = Curl::open(feeds.port, beyond, None)?;
    let gap = curl.first(1, &["gap"]).await?.remove(0);
    ensure!(gap.id.ends_with("@0#0,1#0,2#0;"), "{gap:?}");
    ensure!(gap.data.contains("beyond_end"), "{gap:?}");
    Ok(())
}

/// What is not for readers moves the position without an event.
async fn not_for_readers(version: KafkaVersion) -> anyhow::Result<()> {
    let feeds = Feeds::start(Kafka::start(version, 1).await?).await?;
    transactions::write(&feeds.kafka).await?;
    let curl = Curl::open(feeds.port, "bank/events?from=earliest", None)?;
    let events = curl.first(3, &["message"]).await?;
    let values: Vec<_> = events.iter().map(|event| &*event.data).collect();
    assert_eq!(values, ["committed-1", "committed-2", "committed-3"]);
    // The markers behind the last record are passed, too.
    let passed = |curl: &Curl| {
        let id = curl.last_id()?.unwrap_or_default();
        ensure!(id.ends_with("@0#11.0;"), "{id}");
        anyhow::Ok(())
    };
    wait_until("the position", SOON, async || passed(&curl)).await?;
    let behind = Curl::open(feeds.port, "bank/events?cursor=bank@0%2310;", None)?;
    wait_until("a heartbeat with the position", SOON, async || {
        passed(&behind)?;
        holds(behind.text()?.contains(":\nid: bank:"))
    })
    .await?;
    assert_eq!(behind.events()?, []);
    let page = Request::get("/v1/feeds/bank/messages?from=earliest&timeout=0").send(feeds.port);
    let page = page.await?;
    assert_eq!(page.json()?["items"].as_array().map(Vec::len), Some(3));
    ensure!(
        page.header("kafka-next-cursor").is_some_and(|it| it.ends_with("@0#11.0;")),
        "{page:?}"
    );
    Ok(())
}

/// Kills the leader of all partitions, or has it end gracefully, and starts it again.
async fn bounce(mut kafka: Kafka, times: usize) -> anyhow::Result<Kafka> {
    for turn in 0..times {
        tokio::time::sleep(Duration::from_secs(2)).await;
        match turn % 2 {
            0 => kafka.kill_broker(1)?,
            _ => kafka.stop_broker(1).await?,
        }
        kafka.start_broker(1).await?;
    }
    Ok(kafka)
}

/// Writes numbers as long as `more` says so.
async fn write_numbers(port: u16, more: impl Fn() -> bool) -> anyhow::Result<()> {
    let mut number = 0;
    while more() {
        let request = Request::post("/v1/clusters/default/topics/orders", number.to_string());
        let request = request.header("kafka-partition", (number % 3).to_string());
        // While the broker is down it is not written, or not known to be.
        let written = request.send(port).await?.status == 200;
        ensure!(written || number > 0, "the first is written");
        number += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// What a client that was killed has got, each record once and in the order of its partition.
fn add_events(
    events: Vec<Event>,
    last: &mut [i64; 3],
    seen: &mut BTreeMap<(usize, i64), String>,
) -> anyhow::Result<()> {
    for event in events {
        ensure!(event.event == "message", "{event:?}");
        let offsets = offsets(&event.id)?;
        let moved: Vec<_> = (0..3).filter(|at| offsets[*at] != last[*at]).collect();
        ensure!(moved.len() == 1, "{event:?} after {last:?}");
        let partition = moved[0];
        ensure!(offsets[partition] > last[partition], "{event:?} after {last:?}");
        *last = offsets;
        let place = (partition, offsets[partition] - 1);
        ensure!(seen.insert(place, event.data).is_none(), "{place:?} came twice");
    }
    Ok(())
}

async fn killed_clients(version: KafkaVersion) -> anyhow::Result<()> {
    const BOUNCES: usize = 5;
    let Feeds { kafka, bridge, port } = Feeds::start(Kafka::start(version, 1).await?).await?;
    let bouncing = tokio::spawn(bounce(kafka, BOUNCES));
    let bounced = bouncing.abort_handle();
    let writing = tokio::spawn(write_numbers(bridge.port(), move || !bounced.is_finished()));
    let mut position: Option<String> = None;
    let mut seen: BTreeMap<(usize, i64), String> = BTreeMap::new();
    let (mut last, mut resumes) = ([0_i64; 3], 0);
    while resumes < 100 || !writing.is_finished() || lag(port, position.as_deref()).await? > 0 {
        let mut curl = Curl::open(port, "orders/events?from=earliest", position.as_deref())?;
        tokio::time::sleep(Duration::from_millis(30 + (resumes * 37) % 150)).await;
        resumes += 1;
        curl.process.kill9()?;
        add_events(curl.events()?, &mut last, &mut seen)?;
        position = curl.last_id()?.or(position);
        if let Some(id) = &position {
            last = offsets_or(id, last)?;
        }
    }
    writing.await??;
    let _kafka = bouncing.await??;
    let page = "/v1/feeds/pages/messages?from=earliest&limit=10000&min=10000&timeout=2000";
    let page = Request::get(page).send(port).await?.json()?;
    let items = page["items"].as_array().context("items")?;
    let mut written: Vec<_> = items.iter().filter_map(|item| item["content"].as_str()).collect();
    let mut read: Vec<_> = seen.values().map(String::as_str).collect();
    written.sort_unstable();
    read.sort_unstable();
    assert_eq!(read, written);
    println!("{version}: {} records, {resumes} kills, {BOUNCES} bounces", read.len());
    ensure!(read.len() > 200, "{} records", read.len());
    Ok(())
}

/// A client that gets nothing moves on all the same, and nothing is read again for it.
async fn filtered(version: KafkaVersion) -> anyhow::Result<()> {
    const RECORDS: u64 = 10_000;
    let mut feeds = Feeds::start(Kafka::pooled(version).await?).await?;
    let client = client(&feeds.kafka.bootstrap(), &[])?;
    let patience = |_| Duration::from_secs(60);
    let plan = Plan { topic: "orders".to_owned(), partition: None, records: RECORDS, patience };
    plan.start(&client).finish().await?;
    let is_behind = |id: Option<String>| {
        let id = id.context("no id")?;
        let read: i64 = offsets(&id)?.iter().sum();
        ensure!(read == i64::try_from(RECORDS)?, "{id}");
        anyhow::Ok(id)
    };
    let curl = Curl::open(feeds.port, "kept/events?from=earliest", None)?;
    let id = wait_until("its id", SOON, async || is_behind(curl.last_id()?)).await?;
    assert_eq!(curl.events()?, []);
    drop(curl);
    let page = "/v1/feeds/kept/messages?from=earliest&timeout=5000";
    let page = Request::get(page).send(feeds.port).await?;
    is_behind(page.header("kafka-next-cursor").map(str::to_owned))?;
    // Nothing of it is in the memory of a bridge that has just begun.
    feeds.bridge.restart().await?;
    let curl = Curl::open(feeds.port, "kept/events", Some(&id))?;
    wait_until("its id", SOON, async || is_behind(curl.last_id()?)).await?;
    let request = Request::post("/v1/clusters/default/topics/orders", "kept");
    let reply = request.header("kafka-key", "kept").send(feeds.bridge.port()).await?;
    ensure!(reply.status == 200, "{reply:?}");
    assert_eq!(curl.first(1, &["message"]).await?[0].data, "kept");
    for (name, most) in [("records_read_total", 1.0), ("fetch_bytes_total", 200.0)] {
        let read = feeds.bridge.metric(&format!("host_bridge_kafka_{name}"), "default").await?;
        ensure!((1.0..=most).contains(&read), "{name} {read}");
    }
    Ok(())
}

fn holds(is: bool) -> anyhow::Result<()> {
    ensure!(is, "not yet");
    Ok(())
}

async fn lag(port: u16, position: Option<&str>) -> anyhow::Result<i64> {
    let mut request = Request::get("/v1/feeds/orders/messages?from=earliest&timeout=0&limit=1");
    if let Some(position) = position {
        request = request.header("last-event-id", position);
    }
    let reply = request.send(port).await?;
    let items = reply.json()?["items"].as_array().map_or(1, Vec::len);
    Ok(i64::try_from(items)?)
}

/// The offsets of three partitions in a plain cursor.
fn offsets(id: &str) -> anyhow::Result<[i64; 3]> {
    let (_, pairs) = id.trim_end_matches(';').split_once('@').context("a cursor")?;
    let offsets = pairs.split(',').map(|pair| {
        let (_, position) = pair.split_once('#').context("a pair")?;
        // Behind it may be a leader epoch.
        let offset = position.split('.').next().unwrap_or_default();
        Ok(offset.parse()?)
    });
    let offsets: Vec<i64> = offsets.collect::<anyhow::Result<_>>()?;
    offsets.try_into().map_err(|other| anyhow::anyhow!("{other:?}"))
}

/// A partition without a leader has a time in the place of its offset.
fn offsets_or(id: &str, last: [i64; 3]) -> anyhow::Result<[i64; 3]> {
    if id.contains("#t") { Ok(last) } else { offsets(id) }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_end_of_the_bridge_streams_say_so_and_another_bridge_goes_on() -> anyhow::Result<()>
{
    let mut feeds = Feeds::start(Kafka::pooled(KafkaVersion::V4_3).await?).await?;
    let (other, other_port) = bridge(&feeds.kafka).await?;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(Curl::open(feeds.port, "orders/events?from=earliest", None)?);
    }
    feeds.write(1, "before").await?;
    for client in &clients {
        client.first(1, &["message"]).await?;
    }
    let began = Instant::now();
    feeds.bridge.stop().await?;
    ensure!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let mut ids = Vec::new();
    for client in &mut clients {
        let goaway = client.first(1, &["goaway"]).await?.remove(0);
        assert_eq!(goaway.data, "{\"reason\":\"shutdown\"}");
        wait_until("curl's end", SOON, || {
            let status = client.process.exit_status();
            ready(status.filter(|it| it.success()).context("it runs, or has failed"))
        })
        .await?;
        ids.push(client.last_id()?);
    }
    let path = "/v1/clusters/default/topics/orders";
    let written = Request::post(path, "after").send(other.port()).await?;
    ensure!(written.status == 200, "{written:?}");
    for id in ids {
        let again = Curl::open(other_port, "orders/events", id.as_deref())?;
        let events = again.first(1, &["message"]).await?;
        let values: Vec<_> = events.iter().map(|event| &*event.data).collect();
        assert_eq!(values, ["after"]);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_never_read_are_closed_and_slow_nobody() -> anyhow::Result<()> {
    const STALLED: usize = 50;
    let feeds = Feeds::start(Kafka::pooled(KafkaVersion::V4_3).await?).await?;
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(4096)?;
        let mut stream: TcpStream = socket.connect(([127, 0, 0, 1], feeds.port).into()).await?;
        let request = b"GET /v1/feeds/orders/events?from=earliest HTTP/1.1\r\nhost: a\r\n\r\n";
        stream.write_all(request).await?;
        stalled.push(stream);
    }
    let reader = Curl::open(feeds.port, "orders/events?from=earliest", None)?;
    let before = feeds.bridge.process().rss_bytes()?;
    // More than the sockets of a client that does not read can take.
    let (value, count) = (vec![b'x'; 100_000], 120);
    for number in 0..count {
        feeds.write(number % 3, value.clone()).await?;
    }
    let began = Instant::now();
    reader.first(usize::try_from(count)?, &["message"]).await?;
    ensure!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let grown = feeds.bridge.process().rss_bytes()?.saturating_sub(before);
    ensure!(grown < 128 * 1024 * 1024, "{} MiB for {STALLED} clients", grown >> 20);
    let closed = async |stream: TcpStream| {
        // Closed: what is sent is refused in the end, whatever is still to be read.
        wait_until("the end of a connection", Duration::from_secs(60), async || {
            stream.writable().await?;
            let written = stream.try_write(b"\r\n");
            let is_open = !written.is_err_and(|it| it.kind() != ErrorKind::WouldBlock);
            holds(!is_open)
        })
        .await
    };
    let began = Instant::now();
    try_join_all(stalled.into_iter().map(closed)).await?;
    ensure!(began.elapsed() < Duration::from_secs(45), "{:?}", began.elapsed());
    Ok(())
}

on_both_versions! {
    events_are_what_records_are: super::a_stream;
    what_cannot_be_streamed_is_refused: super::refusals;
    what_is_not_for_readers_moves_the_position: super::not_for_readers;
    a_client_that_is_killed_again_and_again_gets_each_record_once: super::killed_clients;
    what_a_filter_leaves_out_is_not_read_again: super::filtered;
}
