//! Conversations over a cluster in memory.

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::tungstenite::{Bytes, Message};

use super::asked::{JSON, RAW};
use super::*;
use crate::consume::feeds::{Feed, Reset};
use crate::consume::selection::Deserializer;
use crate::consume::served::Served;
use crate::limits::FEED_STEPS_BYTES;

mod acks;
mod groups;
mod writing;

const SOCKET: &str = "/v1/feeds/orders/socket";

async fn served(change: impl FnOnce(&mut Feed)) -> Served {
    Served::start(|feed| {
        feed.entrypoints = [Entrypoint::Get, Entrypoint::Websocket].into();
        feed.encode_message_id = false;
        change(feed);
    })
    .await
}

struct Client(WebSocketStream<UnixStream>);

impl Client {
    async fn open(served: &Served, query: &str) -> Self {
        Self::of(served, query, "").await.unwrap()
    }

    /// Or the status, and the code of the refusal.
    async fn of(
        served: &Served,
        query: &str,
        protocols: &'static str,
    ) -> Result<Self, (u16, String)> {
        match served.connect(&format!("{SOCKET}?{query}"), protocols).await {
            Ok((client, response)) => {
                let chosen = response.headers().get("sec-websocket-protocol");
                assert_eq!(chosen.is_some(), !protocols.is_empty());
                Ok(Self(client))
            }
            Err(Error::Http(response)) => {
                let body = response.body().as_deref().unwrap_or_default();
                let body: Value = serde_json::from_slice(body).unwrap();
                let code = body["error"].as_str().unwrap().to_owned();
                Err((response.status().as_u16(), code))
            }
            Err(error) => panic!("{error}"),
        }
    }

    async fn say(&mut self, frame: Value) {
        self.0.send(Message::text(frame.to_string())).await.unwrap();
    }

    async fn next(&mut self) -> Message {
        loop {
            match self.0.next().await.unwrap().unwrap() {
                Message::Ping(_) | Message::Pong(_) => {}
                message => return message,
            }
        }
    }

    /// The next frame of JSON, without the topic's id, which is always the same.
    async fn hear(&mut self) -> Value {
        match self.next().await {
            Message::Text(text) => serde_json::from_str(&text.replace(":00000000@", "@")).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Of this type.
    async fn hear_of(&mut self, kind: &str) -> Value {
        let frame = self.hear().await;
        assert_eq!(frame["type"], kind, "{frame}");
        frame
    }

    /// Contents of the next messages, which come one by one.
    async fn contents(&mut self, count: usize) -> Vec<String> {
        let mut contents = Vec::new();
        for _ in 0..count {
            let message = self.hear_of("message").await;
            contents.push(message["content"].as_str().unwrap().to_owned());
        }
        contents
    }

    /// That nothing comes before the answer to this.
    async fn hears_nothing(&mut self) {
        // What is on its way has time to come.
        tokio::time::sleep(Duration::from_millis(300)).await;
        self.say(json!({ "type": "ping", "state": "nothing" })).await;
        assert_eq!(self.hear().await, json!({ "type": "pong", "state": "nothing" }));
    }

    async fn error(&mut self) -> String {
        self.hear_of("error").await["error"].as_str().unwrap().to_owned()
    }

    async fn close_code(&mut self) -> u16 {
        match self.next().await {
            Message::Close(Some(frame)) => frame.code.into(),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn records_come_with_cursors_from_which_another_connection_goes_on() {
    let served = served(|_| {}).await;
    for value in ["a", "b"] {
        served.fixture.write(0, value.as_bytes()).await;
    }
    let mut client = Client::open(&served, "").await;
    let welcome = json!({ "type": "welcome", "cursor": "orders@0#0,1#0;", "maxUnacked": null,
        "maxUnackedBytes": null, "batch": 1 });
    assert_eq!(client.hear().await, welcome);
    let message = |value: &str, offset: i64, id: &str| {
        json!({ "type": "message", "id": id, "content": value, "metadata": { "topic": "orders",
            "partition": 0, "offset": offset, "timestamp": 1000, "timestampType": "CreateTime",
            "key": null } })
    };
    assert_eq!(client.hear().await, message("a", 0, "orders@0#1.0,1#0;"));
    assert_eq!(client.hear().await, message("b", 1, "orders@0#2.0,1#0;"));
    served.fixture.write(0, b"c").await;
    assert_eq!(client.hear().await, message("c", 2, "orders@0#3.0,1#0;"));
    let mut other =
        Client::open(&served, "cursor=orders@0%231,1%230;&metadata=false&headers=true").await;
    assert_eq!(other.hear_of("welcome").await["cursor"], "orders@0#1,1#0;");
    let bare = json!({ "type": "message", "id": "orders@0#2.0,1#0;", "content": "b",
        "headers": {} });
    assert_eq!(other.hear().await, bare);
    let mut latest = Client::of(&served, "from=latest&big=string", JSON).await.unwrap();
    latest.hear_of("welcome").await;
    served.fixture.write(1, b"d").await;
    assert_eq!(latest.hear_of("message").await["metadata"]["offset"], "0");
}

#[tokio::test(start_paused = true)]
async fn the_type_of_a_frame_comes_first() {
    let served = served(|feed| feed.reset = Reset::Latest).await;
    let mut client = Client::open(&served, "").await;
    let text = client.next().await.into_text().unwrap();
    assert!(text.starts_with(r#"{"type":"welcome","#), "{text}");
    served.fixture.write(0, b"a").await;
    let text = client.next().await.into_text().unwrap();
    assert!(text.starts_with(r#"{"type":"message","id":"#), "{text}");
}

#[tokio::test(start_paused = true)]
async fn several_records_come_in_a_message_where_there_are_several() {
    let served = served(|_| {}).await;
    for number in 0..25 {
        served.fixture.write(0, number.to_string().as_bytes()).await;
    }
    let mut client = Client::open(&served, "batch=10").await;
    assert_eq!(client.hear_of("welcome").await["batch"], 10);
    let (mut read, mut sizes) = (Vec::new(), Vec::new());
    while read.len() < 25 {
        let messages = client.hear_of("messages").await;
        let items = messages["items"].as_array().unwrap();
        assert_eq!(messages["id"], items.last().unwrap()["id"]);
        sizes.push(items.len());
        read.extend(items.iter().map(|item| item["content"].as_str().unwrap().to_owned()));
    }
    assert_eq!(read, (0..25).map(|number: i32| number.to_string()).collect::<Vec<_>>());
    assert!(sizes.iter().all(|size| (1..=10).contains(size)) && sizes.len() < 10, "{sizes:?}");
    // One by itself is an item, too; and what is long is no reason to wait for more.
    served.fixture.write(0, &[b'x'; 100_000]).await;
    assert_eq!(client.hear_of("messages").await["items"].as_array().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_left_out_moves_the_position() {
    let keep = |feed: &mut Feed| feed.selection.allow_client_filter = true;
    let served = served(keep).await;
    for value in ["a", "b", "c"] {
        served.fixture.write(0, value.as_bytes()).await;
    }
    let mut client = Client::open(&served, "filter=value+==+'b'").await;
    client.hear_of("welcome").await;
    assert_eq!(client.hear_of("message").await["id"], "orders@0#2.0,1#0;");
    assert_eq!(client.hear().await, json!({ "type": "position", "id": "orders@0#3.0,1#0;" }));
    served.fixture.write(1, b"b").await;
    assert_eq!(client.hear_of("message").await["id"], "orders@0#3.0,1#1.0;");
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_told_with_the_position_behind_it() {
    let served = served(|feed| feed.reset = Reset::Earliest).await;
    for value in ["a", "b", "c"] {
        served.fixture.write(0, value.as_bytes()).await;
    }
    served.fixture.cluster.expire("orders", 0, 2);
    let mut client = Client::open(&served, "cursor=orders@0%231,1%230;").await;
    client.hear_of("welcome").await;
    let gap = json!({ "type": "gap", "topic": "orders", "partition": 0, "from": 1, "to": 2,
        "reason": "expired", "id": "orders@0#2,1#0;" });
    assert_eq!(client.hear().await, gap);
    assert_eq!(client.contents(1).await, ["c"]);
}

#[tokio::test(start_paused = true)]
async fn without_a_reset_the_client_is_told_where_the_log_begins_and_ends() {
    let served = served(|feed| feed.reset = Reset::None).await;
    served.fixture.write(0, b"a").await;
    served.fixture.write(0, b"b").await;
    served.fixture.cluster.expire("orders", 0, 1);
    assert_eq!(Client::of(&served, "", "").await.err(), Some((400, "position_required".into())));
    let mut client = Client::open(&served, "cursor=orders@0%230,1%230;").await;
    client.hear_of("welcome").await;
    let error = client.hear_of("error").await;
    assert_eq!(error["error"], "offset_out_of_range");
    assert_eq!(error["cursors"]["earliest"], "orders@0#1,1#0;");
    assert_eq!(client.close_code().await, 4410);
}

#[tokio::test(start_paused = true)]
async fn who_cannot_be_served_is_told_before_the_connection_is_upgraded() {
    let served = served(|_| {}).await;
    for (query, protocols, status, code) in [
        ("cursor=demo1@0", "", 400, "cursor_malformed"),
        ("cursor=orders@0%231,0%231", "", 400, "cursor_duplicate"),
        ("cursor=orders@99%231", "", 400, "cursor_unknown_partition"),
        ("topics=secret", "", 403, "topic_not_allowed"),
        ("filter=true", "", 400, "filter_invalid"),
        ("batch=0", "", 400, "invalid_parameter"),
        ("acks=yes", "", 400, "invalid_parameter"),
        ("", "soap, wamp", 400, "invalid_parameter"),
        ("acks=true", RAW, 400, "invalid_parameter"),
    ] {
        let refused = Client::of(&served, query, protocols).await.err();
        assert_eq!(refused, Some((status, code.to_owned())), "{query} {protocols}");
    }
    let Err(Error::Http(response)) = served.connect("/v1/feeds/other/socket", "").await else {
        panic!("there is no such feed");
    };
    assert_eq!(response.status(), 404);
    let mut stream = UnixStream::connect(&served.path).await.unwrap();
    let plain = "GET /v1/feeds/orders/socket HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    stream.write_all(plain.as_bytes()).await.unwrap();
    let mut reply = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut reply).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 426 "), "{reply}");
    assert!(reply.contains("upgrade: websocket\r\n") && reply.contains("upgrade_required"));
    // The first that is known is spoken; a feed that is asked for an upgrade gives it.
    let (_, response) =
        served.connect("/v1/feeds/orders", "soap, kafka-upstream.raw.v1").await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], RAW);
}

#[tokio::test(start_paused = true)]
async fn who_breaks_the_rules_is_told_which() {
    let served = served(|_| {}).await;
    let open = async || {
        let mut client = Client::open(&served, "").await;
        client.hear_of("welcome").await;
        client
    };
    // An unmasked frame, text that is not UTF-8.
    for (frame, code) in [(&b"\x82\x01x"[..], 1002), (b"\x81\x81\0\0\0\0\xff", 1007)] {
        let mut client = open().await;
        client.0.get_mut().write_all(frame).await.unwrap();
        assert_eq!(client.close_code().await, code);
    }
    let mut client = open().await;
    client.0.send(Message::binary(b"{}".to_vec())).await.unwrap();
    assert_eq!(client.close_code().await, 1003);
    let mut client = open().await;
    client.0.send(Message::text("x".repeat(2 << 20))).await.unwrap();
    assert_eq!(client.close_code().await, 1009);
    // What is only meaningless ends nothing.
    let mut client = open().await;
    for frame in [json!({}), json!({ "type": "subscribe" }), json!("ack"), json!({ "type": "ack" })]
    {
        client.say(frame).await;
        assert_eq!(client.error().await, "invalid_parameter");
    }
    client.hears_nothing().await;
}

#[tokio::test]
async fn who_sends_and_does_not_read_is_not_read_either_and_others_are_served() {
    let served = served(|feed| feed.conversation.client_acks = true).await;
    served.fixture.write(0, b"a").await;
    let ahead = json!({ "type": "ack", "topic": "orders", "partition": 0, "offset": 9 });
    let ping = Message::Ping(Bytes::from(vec![b'x'; 125]));
    for message in [Message::text(""), Message::text(ahead.to_string()), ping] {
        let mut client = Client::open(&served, "").await;
        let sent = std::cell::Cell::new(0);
        let sending = async {
            loop {
                client.0.send(message.clone()).await.unwrap();
                sent.set(sent.get() + 1);
            }
        };
        let mut sending = std::pin::pin!(sending);
        loop {
            let before = sent.get();
            timeout(Duration::from_millis(500), sending.as_mut()).await.unwrap_err();
            assert!(sent.get() < 200_000, "{}", sent.get());
            if sent.get() == before {
                break;
            }
        }
        let mut other = Client::open(&served, "from=earliest").await;
        other.hear_of("welcome").await;
        assert_eq!(other.contents(1).await, ["a"]);
    }
}

#[tokio::test(start_paused = true)]
async fn who_pauses_is_sent_nothing_until_it_resumes() {
    let served = served(|_| {}).await;
    let mut client = Client::open(&served, "").await;
    client.hear_of("welcome").await;
    client.say(json!({ "type": "pause" })).await;
    client.hears_nothing().await;
    served.fixture.write(0, b"a").await;
    client.hears_nothing().await;
    client.say(json!({ "type": "resume" })).await;
    assert_eq!(client.contents(1).await, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_process_and_of_what_a_gateway_says_is_told() {
    let served = served(|_| {}).await;
    let mut client = Client::open(&served, "").await;
    client.hear_of("welcome").await;
    served.shutdown.fail("test");
    assert_eq!(client.hear().await, json!({ "type": "goaway", "reason": "shutdown" }));
    assert_eq!(client.close_code().await, 1012);
}

#[tokio::test(start_paused = true)]
async fn who_answers_no_ping_is_gone_and_leaves_nothing_behind() {
    let served = served(|_| {}).await;
    let mut client = Client::open(&served, "").await;
    client.hear_of("welcome").await;
    let mut bytes = Vec::new();
    let stream = client.0.get_mut();
    tokio::io::AsyncReadExt::read_to_end(stream, &mut bytes).await.unwrap();
    assert_eq!(bytes, b"\x89\0\x89\0");
    assert_eq!(served.reader.metrics.by(Entrypoint::Websocket).connections.get(), 0);
}

#[tokio::test]
async fn who_reads_nothing_takes_bounded_memory_and_harms_nobody() {
    let served = served(|_| {}).await;
    for _ in 0..200 {
        served.fixture.write(0, &[b'x'; 50_000]).await;
    }
    let before = served.fixture.resources.memory.used();
    let _silent = Client::open(&served, "").await;
    let mut client = Client::open(&served, "").await;
    client.hear_of("welcome").await;
    for _ in 0..200 {
        client.hear_of("message").await;
    }
    // What both have read is shared, and so is what they were sent last; beside it a few frames.
    let used = served.fixture.resources.memory.used();
    assert!(used < before + 200 * 50_000 + FEED_STEPS_BYTES + 1_000_000, "{before} {used}");
}

#[tokio::test(start_paused = true)]
async fn who_is_at_the_same_place_is_sent_the_same_in_its_own_words() {
    let served = served(|feed| {
        feed.entrypoints.insert(Entrypoint::Sse);
    })
    .await;
    let mut stream = UnixStream::connect(&served.path).await.unwrap();
    let events = "GET /v1/feeds/orders/events HTTP/1.1\r\nhost: a\r\n\r\n";
    stream.write_all(events.as_bytes()).await.unwrap();
    let mut clients = Vec::new();
    for query in ["", "", "", "big=string", "batch=5", "acks=true"] {
        let mut client = Client::open(&served, query).await;
        client.hear_of("welcome").await;
        clients.push((query, client));
    }
    let mut raw = Client::of(&served, "", RAW).await.unwrap();
    for offset in 0..20 {
        let value = format!("value {offset}");
        served.fixture.write(0, value.as_bytes()).await;
        for (query, client) in &mut clients {
            let frame = client.hear().await;
            let item = if *query == "batch=5" { &frame["items"][0] } else { &frame };
            let told = &item["metadata"]["offset"];
            assert_eq!(item["content"], value, "{query}");
            assert_eq!(frame["id"], format!("orders@0#{}.0,1#0;", offset + 1), "{query}");
            assert_eq!(
                *told,
                if *query == "big=string" { json!(offset.to_string()) } else { json!(offset) }
            );
        }
        assert_eq!(raw.next().await, Message::text(value));
    }
    let mut text = Vec::new();
    while !text.ends_with(b"data: value 19\n\n\r\n") {
        tokio::io::AsyncReadExt::read_buf(&mut stream, &mut text).await.unwrap();
    }
    let text = String::from_utf8(text).unwrap();
    assert_eq!(text.matches("event: message\ndata: value ").count(), 20, "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_stays_away_closes_the_connection() {
    let served = served(|feed| feed.deserializer = Deserializer::SchemaRegistry).await;
    served.fixture.write(0, b"\0\0\0\0\x01x").await;
    let mut client = Client::open(&served, "").await;
    client.hear_of("welcome").await;
    let began = Instant::now();
    assert_eq!(client.error().await, "registry_unavailable");
    assert!((30..35).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    assert_eq!(client.close_code().await, 1013);
}

#[tokio::test(start_paused = true)]
async fn bare_values_are_text_where_they_can_be() {
    let served = served(|_| {}).await;
    for value in [&b"text"[..], b"\xff\0", b""] {
        served.fixture.write(0, value).await;
    }
    let mut client = Client::of(&served, "", RAW).await.unwrap();
    assert_eq!(client.next().await, Message::text("text"));
    assert_eq!(client.next().await, Message::binary(Bytes::from_static(b"\xff\0")));
    assert_eq!(client.next().await, Message::text(""));
    client.0.send(Message::text("not written")).await.unwrap();
    assert_eq!(client.close_code().await, 4403);
}

#[tokio::test(start_paused = true)]
async fn a_conversation_takes_little_memory() {
    let bytes = size_of::<Conversation>();
    assert!(bytes < 2048, "{bytes}");
}
