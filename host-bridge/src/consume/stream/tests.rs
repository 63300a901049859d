//! What a client of an event stream is sent, and when.

use std::pin::pin;

use futures_util::StreamExt as _;
use kafka_upstream_core::expression::RecordExpression;
use tokio::time::timeout;

use super::*;
use crate::consume::connections::Connections;
use crate::consume::cursor::Cursor;
use crate::consume::feeds::{Data, Feed};
use crate::consume::fixture::{Fixture, WITHIN};
use crate::consume::selection::{Deserializer, Identity};
use crate::consume::start::{Given, Start};
use crate::limits::FEED_HELD;

const MEMORY: usize = 64 * 1024 * 1024;
const SHAPE: Shape = Shape { headers: false, metadata: true, big_as_string: false };

struct Client {
    stream: EventStream,
    shutdown: CancellationToken,
}

impl Client {
    async fn open(fixture: &Fixture, start: Given, change: impl FnOnce(&mut Feed)) -> Self {
        let reader = fixture.reader(|feed| {
            feed.encode_message_id = false;
            change(feed);
        });
        let connections = Connections::new(1, 1);
        let connection = connections.admit(&reader, &Identity::default(), Entrypoint::Sse).unwrap();
        let follower = Follower::open(reader, &start, None, WITHIN).await.unwrap();
        let shutdown = CancellationToken::new();
        let stream = EventStream::new(follower, SHAPE, shutdown.clone(), connection);
        Self { stream, shutdown }
    }

    /// The next text, which comes within a time.
    async fn text(&mut self, within: Duration) -> String {
        let next = timeout(within, self.stream.next()).await.unwrap().unwrap();
        // The topic's tag is made up by the cluster.
        let text = String::from_utf8(next.to_vec()).unwrap();
        let mut parts = text.split("orders:");
        let mut plain = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            plain.push_str("orders");
            plain.push_str(part.get(8..).unwrap_or_default());
        }
        plain
    }
}

const SOON: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_stream_begins_with_the_position_and_beats_until_it_is_told_to_end() {
    let fixture = Fixture::new(&[1, 1], MEMORY);
    fixture.write(0, b"old").await;
    let mut client = Client::open(&fixture, Given::From(Start::Latest), |_| {}).await;
    let first = client.text(SOON).await;
    let (retry, rest) = first.split_once("\n\n").unwrap();
    assert!(retry.starts_with("retry: "), "{first}");
    assert_eq!(rest, "id: orders@0#1,1#0;\n\n");
    let began = Instant::now();
    assert_eq!(client.text(2 * WITHIN).await, ":\n\n");
    assert_eq!(began.elapsed().as_secs(), 5);
    fixture.write(1, b"a\nb").await;
    let event = "id: orders@0#1,1#1.0;\nevent: message\ndata: a\ndata: b\n\n";
    assert_eq!(client.text(SOON).await, event);
    // It counts from the event.
    let began = Instant::now();
    assert_eq!(client.text(WITHIN).await, ":\n\n");
    assert_eq!(began.elapsed().as_secs(), 5);
    client.shutdown.cancel();
    assert_eq!(client.text(SOON).await, "event: goaway\ndata: {\"reason\":\"shutdown\"}\n\n");
    assert_eq!(client.stream.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_when_what_its_gateway_said_expires_also_if_there_is_more_to_send() {
    let fixture = Fixture::new(&[1], MEMORY);
    for _ in 0..10 {
        fixture.write(0, &[b'x'; 40_000]).await;
    }
    let mut client = Client::open(&fixture, Given::From(Start::Earliest), |_| {}).await;
    client.stream = client.stream.expiring(Some(SOON));
    client.text(SOON).await;
    assert!(client.text(SOON).await.starts_with("id: orders@0#1.0;"));
    tokio::time::sleep(SOON).await;
    let (goaway, mut left) = ("event: goaway\ndata: {\"reason\":\"auth_expired\"}\n\n", 0);
    while client.text(SOON).await != goaway {
        left += 1;
    }
    assert!(left < 4, "what had been queued is sent, and no more: {left}");
    assert_eq!(client.stream.next().await, None);
    let idle = Client::open(&fixture, Given::From(Start::Latest), |_| {}).await;
    let mut idle = Client { stream: idle.stream.expiring(Some(SOON)), ..idle };
    idle.text(SOON).await;
    assert_eq!(idle.text(2 * SOON).await, goaway);
    assert!(idle.stream.expiring(Some(Duration::MAX)).expires_at.is_none(), "it is no time");
}

#[tokio::test(start_paused = true)]
async fn what_is_left_out_behind_an_event_is_not_read_again() {
    let fixture = Fixture::new(&[1], MEMORY);
    for value in [&b"a"[..], b"b", b"-", b"-"] {
        fixture.write(0, value).await;
    }
    let filter = RecordExpression::compile("filter", "value != '-'").unwrap();
    let start = Given::From(Start::Earliest);
    let change = |feed: &mut Feed| feed.selection.filter = Some(filter);
    let mut client = Client::open(&fixture, start, change).await;
    client.text(SOON).await;
    let mut text = String::new();
    while !text.ends_with("\n\nid: orders@0#4.0;\n\n") {
        text += &client.text(SOON).await;
    }
    assert_eq!(text.matches("data: ").count(), 2, "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_told_before_the_position_behind_it() {
    let fixture = Fixture::new(&[1], MEMORY);
    for _ in 0..4 {
        fixture.write(0, b"x").await;
    }
    fixture.cluster.expire("orders", 0, 3);
    let start = Given::Cursor(Cursor::parse("orders@0#1;").unwrap());
    let mut client = Client::open(&fixture, start, |_| {}).await;
    let first = client.text(SOON).await;
    assert!(first.ends_with("\n\nid: orders@0#1;\n\n"), "{first}");
    assert_eq!(
        client.text(SOON).await,
        "id: orders@0#3;\nevent: gap\ndata: {\"from\":1,\"partition\":0,\"reason\":\"expired\",\
         \"to\":3,\"topic\":\"orders\"}\n\n"
    );
    assert_eq!(client.text(SOON).await, "id: orders@0#4.0;\nevent: message\ndata: x\n\n");
}

#[tokio::test(start_paused = true)]
async fn without_a_policy_a_position_that_is_gone_is_a_failure_with_the_ends_of_the_log() {
    let fixture = Fixture::new(&[1], MEMORY);
    fixture.write(0, b"x").await;
    let start = Given::Cursor(Cursor::parse("orders@0#9;").unwrap());
    let none = |feed: &mut Feed| feed.reset = crate::consume::feeds::Reset::None;
    let mut client = Client::open(&fixture, start, none).await;
    client.text(SOON).await;
    let text = client.text(SOON).await;
    let data = text.strip_prefix("retry: 60000\n\nevent: failure\ndata: ").unwrap();
    let body: serde_json::Value = serde_json::from_str(data).unwrap();
    assert_eq!(body["error"], "offset_out_of_range");
    assert!(body["cursors"]["latest"].as_str().unwrap().ends_with("@0#1;"), "{body}");
    assert_eq!(client.stream.next().await, None);
}

/// A record whose schema a registry would have to be asked for.
const OF_SCHEMA: &[u8] = b"\0\0\0\0\x01x";

#[tokio::test(start_paused = true)]
async fn a_registry_that_stays_away_is_told_to_who_gets_nothing_else() {
    let fixture = Fixture::new(&[1, 1], MEMORY);
    fixture.write(0, OF_SCHEMA).await;
    let decoded = |feed: &mut Feed| feed.deserializer = Deserializer::SchemaRegistry;
    let mut client = Client::open(&fixture, Given::From(Start::Earliest), decoded).await;
    client.text(SOON).await;
    // Another partition's records, which need no registry, keep the stream.
    for _ in 0..5 {
        fixture.write(1, b"no schema").await;
        while !client.text(WITHIN).await.contains("event: error-item") {}
        tokio::time::sleep(FEED_HELD * 2 / 3).await;
    }
    let (began, mut text) = (Instant::now(), String::new());
    while let Some(next) = timeout(2 * FEED_HELD, client.stream.next()).await.unwrap() {
        text.push_str(std::str::from_utf8(&next).unwrap());
    }
    assert!((10..45).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    assert!(text.starts_with(":\n\n"), "{text}");
    let failure = "event: failure\ndata: {\"error\":\"registry_unavailable\",\"message\":\"the schema \
                   registry `away` does not give the schema of a record now\"}\n\n";
    assert!(text.ends_with(failure), "{text}");
    assert!(!text.contains("retry:"), "it is worth to come again soon: {text}");
}

#[tokio::test(start_paused = true)]
async fn clients_share_an_event_and_a_large_one_is_in_memory_once() {
    let fixture = Fixture::new(&[1], MEMORY);
    let mut clients = Vec::new();
    for _ in 0..50 {
        let mut client = Client::open(&fixture, Given::From(Start::Latest), |_| {}).await;
        client.text(SOON).await;
        clients.push(client);
    }
    let value = vec![b'x'; 900_000];
    fixture.write(0, &value).await;
    let mut sent = Vec::new();
    for client in &mut clients {
        assert_eq!(client.text(SOON).await, "id: orders@0#1.0;\n");
        let event = client.stream.next().await.unwrap();
        assert_eq!(event.len(), "event: message\ndata: \n\n".len() + value.len());
        sent.push(event);
    }
    assert!(sent.iter().all(|event| event.as_ptr() == sent[0].as_ptr()));
    let used = fixture.resources.memory.used();
    assert!(used < 3 * value.len(), "{used}");
}

#[tokio::test(start_paused = true)]
async fn an_envelope_has_the_cursor_of_its_reader() {
    let fixture = Fixture::new(&[1], MEMORY);
    let envelope = |feed: &mut Feed| feed.sse.data = Data::Envelope;
    fixture.write(0, b"small").await;
    fixture.write(0, &[b'x'; 20_000]).await;
    let mut client = Client::open(&fixture, Given::From(Start::Earliest), envelope).await;
    client.text(SOON).await;
    let (mut text, mut count) = (String::new(), 0);
    while count < 2 {
        text.push_str(&client.text(SOON).await);
        count = text.matches("\n\n").count();
    }
    let events =
        eventsource_stream::EventStream::new(futures_util::stream::iter([Ok::<_, ()>(text)]));
    let mut events = pin!(events);
    for next in 1..3 {
        let event = events.next().await.unwrap().unwrap();
        assert_eq!(event.id, format!("orders@0#{next}.0;"));
        let data: serde_json::Value = serde_json::from_str(&event.data).unwrap();
        assert_eq!(data["id"], event.id);
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_slow_clients_is_bounded() {
    let fixture = Fixture::new(&[1], MEMORY);
    for _ in 0..100 {
        fixture.write(0, &[b'x'; 10_000]).await;
    }
    let mut client = Client::open(&fixture, Given::From(Start::Earliest), |_| {}).await;
    client.text(SOON).await;
    let mut bytes = 0;
    while bytes < 1_000_000 {
        let text = client.text(SOON).await;
        assert!(text.len() < FEED_QUEUE_BYTES + 11_000, "{}", text.len());
        assert!(client.stream.sending.queue.is_empty());
        bytes += text.len();
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_waits_takes_little_memory() {
    let fixture = Fixture::new(&[1], MEMORY);
    let mut client = Client::open(&fixture, Given::From(Start::Latest), |_| {}).await;
    // Its own, and that of its future, which is in memory twice while it is made.
    let bytes = size_of_val(&client.stream) + 2 * size_of_val(&client.stream.next());
    assert!(bytes < 4096, "{bytes}");
}
