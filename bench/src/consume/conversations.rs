//! Readers over WebSockets beside a consumer without HTTP: one that acknowledges what it gets, and one
//! that speaks APISIX's pubsub protocol.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail, ensure};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use kafka_client::At;
use memchr::memmem;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::events::VALUE_BYTES;
use super::ground::{Ground, PARTITIONS};
use super::pages::TOPIC;
use super::reading::{self, Peer};
use crate::report::{Bound, Report};

/// What the original sends in a frame at most.
const CAPPED_BYTES: usize = 65_535;

/// Commands under way.
const AT_ONCE: usize = 8;

/// How long the original waits for a record.
const QUIET: Duration = Duration::from_millis(100);

/// Bytes that are read at a time.
const READ_BYTES: usize = 256 * 1024;

/// A group on a WebSocket, which is sent 100 records in a frame and acknowledges each frame.
pub(super) async fn sockets(
    ground: &Ground,
    records: u32,
    report: &mut Report,
) -> anyhow::Result<()> {
    let direct = reading::run(ground, Peer::Ours, TOPIC, records).await?;
    let special = format!(
        "entrypoints = ['websocket']\nqos = 'at-least-once'\nauto_offset_reset = 'earliest'\n\
         group = {{ mode = 'manual', id = 'sockets-{}' }}\n",
        fastrand::u32(..)
    );
    let readers = ground.bridge(TOPIC, &special).await?;
    let port = readers.port()?;
    let (cpu, begin) = (readers.cpu()?, Instant::now());
    let mut socket = Socket::connect(port, "/v1/feeds/special/socket?batch=100").await?;
    let mut read = 0;
    while read < records {
        let frame = socket.next().await?;
        if !frame.starts_with(b"{\"type\":\"messages\"") {
            continue;
        }
        read += u32::try_from(memmem::find_iter(&frame, b"\"partition\":").count())?;
        let id = memmem::rfind(&frame, b"\"id\":").and_then(|at| frame.get(at..));
        let id = String::from_utf8_lossy(id.context("no id")?);
        socket.send(TEXT, format!("{{\"type\":\"ack\",{id}").as_bytes()).await?;
    }
    let (time, cpu) = (begin.elapsed(), readers.cpu()? - cpu);
    let rate = |time: Duration| f64::from(records) / time.as_secs_f64() / 1000.0;
    report.add("websocket with acknowledgements, batches of 100", "k records/s", rate(time));
    let ratio = rate(time) / rate(direct.time);
    report.judge("websocket / direct, records a second", "times", ratio, Bound::Least(0.3));
    let each = cpu.as_secs_f64() * 1e6 / f64::from(records);
    report.add("websocket, bridge CPU of a record", "µs", each);
    Ok(())
}

/// Fetches of all partitions, with short replies, too; and what the original would have at most.
pub(super) async fn pubsub(
    ground: &Ground,
    records: u32,
    report: &mut Report,
) -> anyhow::Result<()> {
    let direct = reading::run(ground, Peer::Ours, TOPIC, records).await?;
    let megabytes =
        |time: Duration| f64::from(records) * VALUE_BYTES as f64 / time.as_secs_f64() / 1e6;
    let mut rates = Vec::new();
    for (name, bytes, at_once) in [
        ("pubsub", 1_000_000, AT_ONCE),
        ("pubsub, one command at a time", 1_000_000, 1),
        ("pubsub, replies of 64 KiB", CAPPED_BYTES, AT_ONCE),
        ("pubsub, replies of 64 KiB, one command at a time", CAPPED_BYTES, 1),
    ] {
        let special = format!("entrypoints = ['pubsub']\npubsub = {{ reply_bytes = {bytes} }}\n");
        let readers = ground.bridge(TOPIC, &special).await?;
        let port = readers.port()?;
        let begin = Instant::now();
        fetch(ground, port, at_once).await?;
        let rate = megabytes(begin.elapsed());
        report.add(name, "MB/s", rate);
        rates.push(rate);
    }
    let begin = Instant::now();
    reply_by_reply(ground).await?;
    let original = megabytes(begin.elapsed());
    report.add("a broker's fetch for each 64 KiB, as in the original", "MB/s", original);
    if let Some(whole) = rates.first() {
        let ratio = whole / megabytes(direct.time);
        report.judge("pubsub / direct, bytes a second", "times", ratio, Bound::Least(0.6));
        let name = "pubsub / a broker's fetch for each 64 KiB";
        report.judge(name, "times", whole / original, Bound::Least(4.0));
    }
    Ok(())
}

/// The original asks a broker for each reply, one after the other, and a reply has up to 64 KiB. To send
/// it to the client takes more time, which is left out here.
async fn reply_by_reply(ground: &Ground) -> anyhow::Result<()> {
    let consumer = reading::consumer(&ground.kafka.bootstrap())?;
    let ends = reading::positions(&consumer, TOPIC, At::Latest).await?;
    let places = reading::positions(&consumer, TOPIC, At::Earliest).await?;
    for (mut place, end) in places.into_iter().zip(ends) {
        while place.offset < end.offset {
            let mut answers = consumer.fetch_from(&[place], CAPPED_BYTES, QUIET).await;
            let answer = answers.pop().context("no answer")?;
            place.offset = answer.map_err(|it| anyhow!("{it}"))?.next_offset;
        }
    }
    Ok(())
}

/// Reads all partitions in turn, with so many commands under way.
async fn fetch(ground: &Ground, port: u16, at_once: usize) -> anyhow::Result<()> {
    let consumer = reading::consumer(&ground.kafka.bootstrap())?;
    let ends = reading::positions(&consumer, TOPIC, At::Latest).await?;
    let mut socket = Socket::connect(port, "/v1/feeds/special/pubsub").await?;
    let mut places: VecDeque<_> = (0..PARTITIONS).map(|partition| (partition, 0)).collect();
    let mut under_way = 0;
    loop {
        while under_way < at_once
            && let Some((partition, offset)) = places.pop_front()
        {
            let topic = TOPIC.to_owned();
            let command = Fetch { topic, partition, offset };
            let request = Request { sequence: partition.into(), fetch: Some(command) };
            socket.send(BINARY, &request.encode_to_vec()).await?;
            under_way += 1;
        }
        if under_way == 0 {
            return Ok(());
        }
        let reply = Reply::decode(socket.next().await?)?;
        under_way -= 1;
        let messages = reply.fetched.context("an error")?.messages;
        let next = messages.last().context("no message")?.offset + 1;
        let partition = usize::try_from(reply.sequence)?;
        if ends.get(partition).is_some_and(|end| next < end.offset) {
            places.push_back((i32::try_from(partition)?, next));
        }
    }
}

/// The client's side of a WebSocket: what it is sent is not masked, and comes unfragmented.
struct Socket {
    stream: TcpStream,
    heard: BytesMut,
}

impl Socket {
    async fn connect(port: u16, path: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.set_nodelay(true)?;
        let mut socket = Self { stream, heard: BytesMut::new() };
        socket.stream.write_all(upgrade(path).as_bytes()).await?;
        loop {
            if let Some(end) = memmem::find(&socket.heard, b"\r\n\r\n") {
                let head = socket.heard.split_to(end + 4);
                let head = String::from_utf8_lossy(&head);
                ensure!(head.starts_with("HTTP/1.1 101"), "{head}");
                return Ok(socket);
            }
            socket.hear().await?;
        }
    }

    /// The next message.
    async fn next(&mut self) -> anyhow::Result<Bytes> {
        loop {
            match self.frame() {
                Some((TEXT | BINARY, payload)) => return Ok(payload),
                Some((CLOSE, payload)) => bail!("closed: {payload:?}"),
                Some(_) => {}
                None => self.hear().await?,
            }
        }
    }

    /// A whole frame, if it is there: its kind and payload.
    fn frame(&mut self) -> Option<(u8, Bytes)> {
        let (kind, short) = (self.heard.first()? & 15, *self.heard.get(1)?);
        let (head, length) = match short {
            126 => (4, self.heard.get(2..4)?.get_u16().into()),
            127 => (10, usize::try_from(self.heard.get(2..10)?.get_u64()).ok()?),
            short => (2, short.into()),
        };
        if self.heard.len() < head + length {
            return None;
        }
        self.heard.advance(head);
        Some((kind, self.heard.split_to(length).freeze()))
    }

    async fn hear(&mut self) -> anyhow::Result<()> {
        self.heard.reserve(READ_BYTES);
        ensure!(self.stream.read_buf(&mut self.heard).await? > 0, "the connection has ended");
        Ok(())
    }

    /// Sends a message of less than 64 KiB; the mask is zero.
    async fn send(&mut self, kind: u8, payload: &[u8]) -> anyhow::Result<()> {
        let mut frame = BytesMut::new();
        frame.put_slice(&[FIN | kind, MASKED | 126]);
        frame.put_u16(payload.len().try_into()?);
        frame.put_u32(0);
        frame.put_slice(payload);
        Ok(self.stream.write_all(&frame).await?)
    }
}

/// The request for a WebSocket.
pub(super) fn upgrade(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nhost: bench\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

const FIN: u8 = 128;
const MASKED: u8 = 128;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;

/// What is needed of `apisix/pubsub.proto`.
#[derive(Clone, PartialEq, prost::Message)]
struct Request {
    #[prost(int64, tag = "1")]
    sequence: i64,
    #[prost(message, optional, tag = "33")]
    fetch: Option<Fetch>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Fetch {
    #[prost(string, tag = "1")]
    topic: String,
    #[prost(int32, tag = "2")]
    partition: i32,
    #[prost(int64, tag = "3")]
    offset: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Reply {
    #[prost(int64, tag = "1")]
    sequence: i64,
    #[prost(message, optional, tag = "33")]
    fetched: Option<Fetched>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Fetched {
    #[prost(message, repeated, tag = "1")]
    messages: Vec<Message>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Message {
    #[prost(int64, tag = "1")]
    offset: i64,
    #[prost(bytes = "bytes", tag = "4")]
    value: Bytes,
}
