//! The protocol on a WebSocket, over a cluster in memory.

use std::ops::Deref;

use futures_util::SinkExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::messages::{
    CmdEmpty, CmdKafkaFetch, CmdKafkaListOffset, KafkaFetchResp, KafkaListOffsetResp, KafkaMessage,
    Ping,
};
use super::*;
use crate::consume::feeds::Entrypoint;
use crate::consume::selection::{Deserializer, OnDecodeError};
use crate::consume::served::Served;
use crate::consume::topics::Topics;
use crate::limits::FEED_ANSWERS_BYTES;

/// A bridge with the feed `orders`, of the topics `orders` and `missing`.
struct Bridge(Served);

struct Client(WebSocketStream<UnixStream>);

impl Bridge {
    async fn start() -> Self {
        let served = Served::start(|feed| {
            feed.topics = Topics::List(["orders", "missing"].map(str::to_owned).to_vec());
            feed.entrypoints = [Entrypoint::Pubsub].into();
            feed.origins = vec!["https://a.example".to_owned()];
        });
        Self(served.await)
    }

    async fn client(&self) -> Client {
        let connected = self.connect("/v1/feeds/orders/pubsub", "apisix, other").await;
        let (client, response) = connected.unwrap();
        assert_eq!(response.headers()["sec-websocket-protocol"], "apisix");
        Client(client)
    }
}

impl Deref for Bridge {
    type Target = Served;

    fn deref(&self) -> &Served {
        &self.0
    }
}

impl Client {
    async fn send(&mut self, message: impl Into<Message>) {
        self.0.send(message.into()).await.unwrap();
    }

    async fn next(&mut self) -> Message {
        self.0.next().await.unwrap().unwrap()
    }

    /// The next reply's sequence, and what it says.
    async fn reply(&mut self) -> (i64, Reply) {
        let reply = PubSubResp::decode(self.next().await.into_data()).unwrap();
        (reply.sequence, reply.resp.unwrap())
    }

    async fn ask(&mut self, command: Command) -> Reply {
        let sequence = i64::MAX;
        self.send(PubSubReq { sequence, req: Some(command) }.encode_to_vec()).await;
        let (echoed, reply) = self.reply().await;
        assert_eq!(echoed, sequence);
        reply
    }

    async fn list(&mut self, topic: &str, partition: i32, timestamp: i64) -> Result<i64, String> {
        let command = CmdKafkaListOffset { topic: topic.to_owned(), partition, timestamp };
        match self.ask(Command::ListOffset(command)).await {
            Reply::ListOffset(KafkaListOffsetResp { offset }) => Ok(offset),
            Reply::Error(ErrorResp { code: 0, message }) => Err(message),
            other => panic!("{other:?}"),
        }
    }

    async fn fetch(&mut self, topic: &str, offset: i64) -> Result<Vec<KafkaMessage>, String> {
        let command = CmdKafkaFetch { topic: topic.to_owned(), partition: 0, offset };
        match self.ask(Command::Fetch(command)).await {
            Reply::Fetch(KafkaFetchResp { messages }) => Ok(messages),
            Reply::Error(ErrorResp { code: 0, message }) => Err(message),
            other => panic!("{other:?}"),
        }
    }

    async fn close_code(&mut self) -> u16 {
        match self.next().await {
            Message::Close(Some(frame)) => frame.code.into(),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn offsets_are_listed_and_records_fetched_from_exactly_there() {
    let bridge = Bridge::start().await;
    for number in 0..30 {
        bridge.fixture.write(0, format!("testmsg{}", number + 1).as_bytes()).await;
    }
    let mut client = bridge.client().await;
    assert_eq!(client.list("orders", 0, -2).await, Ok(0));
    assert_eq!(client.list("orders", 0, -1).await, Ok(30));
    assert_eq!(client.list("orders", 0, 500).await, Ok(0));
    assert_eq!(client.list("orders", 0, 9_999_999_999_999).await, Ok(-1));
    assert_eq!(client.list("orders", 1, -1).await, Ok(0));
    let failed = "failed to list offset, topic: orders, partition:";
    assert_eq!(
        client.list("orders", 0, -9).await,
        Err(format!("{failed} 0, err: INVALID_TIMESTAMP"))
    );
    assert_eq!(
        client.list("orders", 2, -1).await,
        Err(format!("{failed} 2, err: not found partition"))
    );
    assert_eq!(
        client.list("orders", -1, -1).await,
        Err(format!("{failed} -1, err: not found partition"))
    );
    let fetched = client.fetch("orders", 14).await.unwrap();
    assert_eq!((fetched[0].offset, &*fetched[0].value), (14, &b"testmsg15"[..]));
    assert_eq!((fetched.len(), fetched[15].offset), (16, 29));
    assert_eq!((fetched[0].timestamp, &*fetched[0].key), (1000, &b""[..]));
    assert_eq!(client.fetch("orders", 30).await, Ok(vec![]));
    let failed = "failed to fetch message, topic:";
    for offset in [31, 999, -1, i64::MAX] {
        let expected = format!("{failed} orders, partition: 0, err: OFFSET_OUT_OF_RANGE");
        assert_eq!(client.fetch("orders", offset).await, Err(expected), "{offset}");
    }
    let expected = format!("{failed} missing, partition: 0, err: not found topic");
    assert_eq!(client.fetch("missing", 0).await, Err(expected));
    let expected = format!("{failed} secret, partition: 0, err: TOPIC_AUTHORIZATION_FAILED");
    assert_eq!(client.fetch("secret", 0).await, Err(expected));
    // What comes while a fetch waits at the log end is in its reply, or in that of the next.
    bridge.fixture.write(0, b"next").await;
    let mut fetched = client.fetch("orders", 30).await.unwrap();
    while fetched.is_empty() {
        fetched = client.fetch("orders", 30).await.unwrap();
    }
    assert_eq!((fetched.len(), &*fetched[0].value), (1, &b"next"[..]));
}

#[tokio::test]
async fn the_bytes_are_those_of_apisix() {
    let bridge = Bridge::start().await;
    bridge.fixture.write(0, b"v").await;
    let mut client = bridge.client().await;
    // Sequence 1; list offset of orders, partition 0, time -1.
    let list = *b"\x08\x01\x92\x02\x13\x0a\x06orders\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
    client.send(list.to_vec()).await;
    assert_eq!(&*client.next().await.into_data(), b"\x08\x01\x92\x02\x02\x08\x01");
    client.send(b"\x08\x02\x8a\x02\x08\x0a\x06orders".to_vec()).await;
    let fetched = b"\x08\x02\x8a\x02\x08\x0a\x06\x10\xe8\x07\x22\x01v";
    assert_eq!(&*client.next().await.into_data(), fetched);
    client.send(b"\x08\x03\x82\x02\x03\x0a\x01s".to_vec()).await;
    assert_eq!(&*client.next().await.into_data(), b"\x08\x03\x82\x02\x03\x0a\x01s");
    client.send(b"\x08\x04\xfa\x01\x00".to_vec()).await;
    let error = b"\x08\x04\xfa\x01\x11\x12\x0funknown command";
    assert_eq!(&*client.next().await.into_data(), error);
}

#[tokio::test]
async fn replies_come_in_order_and_what_is_no_command_harms_nobody() {
    let bridge = Bridge::start().await;
    let mut client = bridge.client().await;
    let ping = |state: &'static str| Command::Ping(Ping { state: state.into() });
    let request = |sequence, req| PubSubReq { sequence, req: Some(req) }.encode_to_vec();
    for sequence in 0..100 {
        let topic = "orders".to_owned();
        let command = match sequence % 3 {
            0 => ping("x"),
            1 => Command::Fetch(CmdKafkaFetch { topic, partition: 0, offset: 0 }),
            _ => Command::ListOffset(CmdKafkaListOffset { topic, partition: 0, timestamp: -1 }),
        };
        client.send(request(sequence, command)).await;
    }
    for sequence in 0..100 {
        assert_eq!(client.reply().await.0, sequence);
    }
    // Of two commands the last one counts.
    let both = [request(5, Command::Empty(CmdEmpty {})), request(6, ping("last"))].concat();
    client.send(both).await;
    assert_eq!(client.reply().await, (6, Reply::Pong(Ping { state: "last".into() })));
    // Without a command that is known there is no reply: field 40, none at all, text.
    client.send(b"\x08\x07\xc2\x02\x00".to_vec()).await;
    client.send(Vec::new()).await;
    client.send("text").await;
    let wrong = Reply::Error(ErrorResp { code: 0, message: "wrong command".to_owned() });
    for garbage in [&b"\xff\xff"[..], b"\x8a\x02\x03\x0a\x01\xff", b"\x08"] {
        client.send(garbage.to_vec()).await;
        assert_eq!(client.reply().await, (0, wrong.clone()), "{garbage:?}");
    }
    assert_eq!(client.ask(ping("")).await, Reply::Pong(Ping::default()));
}

#[tokio::test]
async fn a_reply_is_as_large_as_its_first_record_or_a_megabyte() {
    let bridge = Bridge::start().await;
    let large = vec![b'x'; 600_000];
    for _ in 0..5 {
        bridge.fixture.write(0, &large).await;
    }
    bridge.fixture.write(0, &vec![b'y'; 1_020_000]).await;
    bridge.fixture.write(0, b"small").await;
    let mut client = bridge.client().await;
    let mut next = 0;
    let mut lengths = Vec::new();
    loop {
        let fetched = client.fetch("orders", next).await.unwrap();
        let Some(last) = fetched.last() else { break };
        assert_eq!(fetched[0].offset, next);
        next = last.offset + 1;
        lengths.push(fetched.iter().map(|message| message.value.len()).collect::<Vec<_>>());
    }
    let one = || vec![600_000];
    let expected = [one(), one(), one(), one(), one(), vec![1_020_000], vec![5]];
    assert_eq!(lengths, expected);
}

#[tokio::test]
async fn who_breaks_the_rules_of_websocket_is_told_which() {
    let bridge = Bridge::start().await;
    let mut client = bridge.client().await;
    client.send(vec![0; REQUEST_BYTES_MAX + 1]).await;
    assert_eq!(client.close_code().await, 1009);
    // Much of it has not been sent when the bridge sees how long it is.
    let mut client = bridge.client().await;
    client.send(vec![0; 64 * REQUEST_BYTES_MAX]).await;
    assert_eq!(client.close_code().await, 1009);
    // An unmasked frame, text that is not UTF-8, a reserved bit.
    let frames: [(&[u8], u16); 3] =
        [(b"\x82\x01x", 1002), (b"\x81\x81\0\0\0\0\xff", 1007), (b"\xc2\x81\0\0\0\0x", 1002)];
    for (frame, code) in frames {
        let mut client = bridge.client().await;
        client.0.get_mut().write_all(frame).await.unwrap();
        assert_eq!(client.close_code().await, code, "{frame:?}");
    }
    // Each in a connection of its own: the bridge goes on.
    let mut client = bridge.client().await;
    assert_eq!(client.list("orders", 0, -1).await, Ok(0));
}

#[tokio::test]
async fn what_is_no_handshake_is_a_request_with_a_fault() {
    let bridge = Bridge::start().await;
    let upgrade = "connection: keep-alive, Upgrade\r\nupgrade: WebSocket\r\n";
    let key = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let version = "sec-websocket-version: 13\r\n";
    let whole = format!("{upgrade}{version}{key}");
    for (headers, missing) in [
        (String::new(), "connection: upgrade"),
        (format!("{upgrade}{key}"), "sec-websocket-version"),
        (format!("{upgrade}{key}sec-websocket-version: 8, 13\r\n"), "sec-websocket-version"),
        (format!("{upgrade}{version}"), "sec-websocket-key"),
        (format!("{whole}{key}"), "sec-websocket-key"),
        (format!("{upgrade}{version}sec-websocket-key: x\r\n"), "sec-websocket-key"),
        (format!("{whole}content-length: 5\r\n"), "without a body"),
        (format!("{whole}sec-websocket-protocol: a b\r\n"), "not a token"),
    ] {
        let mut stream = UnixStream::connect(&bridge.path).await.unwrap();
        let request = format!(
            "GET /v1/feeds/orders/pubsub HTTP/1.1\r\nhost: a\r\n{headers}connection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        assert!(reply.starts_with("HTTP/1.1 400 "), "{reply}");
        assert!(reply.contains(missing), "{reply}");
    }
}

#[tokio::test]
async fn a_site_that_is_not_named_opens_no_socket() {
    let bridge = Bridge::start().await;
    for (origin, status) in [
        ("https://a.example", 101),
        ("http://A", 101),
        ("https://evil.example", 403),
        ("null", 403),
    ] {
        let mut stream = UnixStream::connect(&bridge.path).await.unwrap();
        let request = format!(
            "GET /v1/feeds/orders/pubsub HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\n\
             upgrade: websocket\r\nsec-websocket-version: 13\r\norigin: {origin}\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = [0; 12];
        stream.read_exact(&mut reply).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&reply), format!("HTTP/1.1 {status}"), "{origin}");
    }
}

#[tokio::test]
async fn who_asks_and_does_not_read_is_not_read_either() {
    let bridge = Bridge::start().await;
    let state = Bytes::from(vec![b'x'; 60_000]);
    let command = PubSubReq { sequence: 1, req: Some(Command::Ping(Ping { state })) };
    // Commands, and pings that the socket itself answers.
    let commands = Message::binary(command.encode_to_vec());
    for message in [commands, Message::Ping(Bytes::from(vec![b'x'; 125]))] {
        let mut client = bridge.client().await;
        let written = std::cell::Cell::new(0);
        let writing = async {
            loop {
                client.send(message.clone()).await;
                written.set(written.get() + message.len());
            }
        };
        let mut writing = std::pin::pin!(writing);
        loop {
            let before = written.get();
            let while_it_goes = tokio::time::timeout(Duration::from_millis(500), writing.as_mut());
            while_it_goes.await.unwrap_err();
            assert!(written.get() < 8 * 1024 * 1024, "{}", written.get());
            assert!(bridge.fixture.resources.answers.used() < 1024 * 1024);
            if written.get() == before {
                break;
            }
        }
    }
}

#[tokio::test]
async fn replies_are_as_short_as_the_feed_or_the_memory_of_all_has_them() {
    let bridge = Bridge(
        Served::start(|feed| {
            feed.entrypoints = [Entrypoint::Pubsub].into();
            feed.pubsub_reply_bytes = 65_535;
        })
        .await,
    );
    for bytes in [30_000, 30_000, 30_000, 100_000] {
        bridge.fixture.write(0, &vec![b'x'; bytes]).await;
    }
    let mut client = bridge.client().await;
    let answers = Arc::clone(&bridge.fixture.resources.answers);
    let mut count = async |offset| client.fetch("orders", offset).await.unwrap().len();
    assert_eq!([count(0).await, count(2).await, count(3).await], [2, 1, 1]);
    let _not_taken = answers.hold(FEED_ANSWERS_BYTES - 16 * 40_000);
    assert_eq!([count(0).await, count(3).await], [1, 1]);
}

#[tokio::test]
async fn a_large_record_waits_for_room_in_memory() {
    let bridge = Bridge::start().await;
    bridge.fixture.write(0, &[b'x'; 1_040_000]).await;
    let answers = Arc::clone(&bridge.fixture.resources.answers);
    let mut client = bridge.client().await;
    let in_use = answers.hold(FEED_ANSWERS_BYTES - 1_010_000);
    let asking = client.fetch("orders", 0);
    let mut asking = std::pin::pin!(asking);
    let at_once = tokio::time::timeout(Duration::from_millis(500), asking.as_mut()).await;
    assert!(at_once.is_err(), "{at_once:?}");
    drop(in_use);
    assert_eq!(asking.await.unwrap()[0].value.len(), 1_040_000);
}

#[tokio::test]
async fn a_client_hears_of_the_end_of_the_process() {
    let bridge = Bridge::start().await;
    let mut client = bridge.client().await;
    assert_eq!(client.list("orders", 0, -1).await, Ok(0));
    bridge.shutdown.fail("test");
    assert_eq!(client.close_code().await, 1012);
}

#[tokio::test(start_paused = true)]
async fn who_answers_no_ping_is_gone() {
    let bridge = Bridge::start().await;
    let mut silent = bridge.client().await;
    let mut bytes = Vec::new();
    // Two pings, and the end without a closing frame: nobody would read it.
    silent.0.get_mut().read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes, b"\x89\0\x89\0");
}

#[tokio::test]
async fn what_is_before_a_record_that_has_to_wait_is_given() {
    let served = Served::start(|feed| {
        feed.entrypoints = [Entrypoint::Pubsub].into();
        feed.deserializer = Deserializer::Json;
        feed.selection.on_decode_error = OnDecodeError::Dlq;
        feed.selection.dlq_topic = Some("dead".to_owned());
    });
    let bridge = Bridge(served.await);
    bridge.fixture.write(0, b"1").await;
    bridge.fixture.write(0, b"no json").await;
    let mut client = bridge.client().await;
    assert_eq!(client.fetch("orders", 0).await.unwrap().len(), 1);
    let error = client.fetch("orders", 1).await.unwrap_err();
    assert!(error.contains("the dead-letter topic `dead`"), "{error}");
    bridge.fixture.cluster.create_topic("dead", &[1]);
    assert_eq!(client.fetch("orders", 1).await, Ok(Vec::new()));
    assert_eq!(bridge.fixture.cluster.log("dead", 0).len(), 1);
}
