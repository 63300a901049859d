//! How long writers wait beside readers: records by HTTP at a fixed rate, whatever the readers do.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use harness::load::ResponseReader;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::events::{FIRST, VALUE_BYTES, Writer, value};
use super::ground::{Ground, PARTITIONS, Readers};
use crate::report::{Bound, Report};

/// Records a second.
const RATE: f64 = 200.0;

/// Connections of the writer.
const CONNECTIONS: usize = 64;

/// What the readers are sent meanwhile, events a second.
const EVENTS: f64 = 1.0;

/// Produces beside nobody, beside readers that wait, and beside readers that are sent events.
pub(super) async fn beside_readers(
    ground: &Ground,
    clients: usize,
    seconds: u32,
    report: &mut Report,
) -> anyhow::Result<()> {
    let topics = ["written", "read"].map(|name| format!("{name}-{}", fastrand::u32(..)));
    for topic in &topics {
        ground.kafka.create_topic(topic, PARTITIONS).await?;
    }
    let [written, read] = &topics;
    let mut writer = Writer::new(&ground.kafka.bootstrap(), read).await?;
    let readers = ground.bridge(read, "").await?;
    let measure = || produce(&readers, written, seconds);
    measure().await?;
    let alone = measure().await?;
    let swarm = readers.swarm(clients).await?;
    let idle = measure().await?;
    let events = (f64::from(seconds) * EVENTS) as u32;
    let (busy, sent) = tokio::join!(measure(), writer.write(events, EVENTS));
    let (busy, _) = (busy?, sent?);
    drop(swarm);
    let again = measure().await?;
    let alone = (alone + again) / 2.0;
    report.add("produce p99 without readers", "ms", alone);
    let beside = |what: &str| format!("produce p99 beside {clients} {what}");
    report.add(beside("idle readers"), "ms", idle);
    report.add(beside("readers at an event a second"), "ms", busy);
    report.judge(beside("idle readers / without"), "times", idle / alone, Bound::Most(1.2));
    let name = beside("readers at an event a second / without");
    report.judge(name, "times", busy / alone, Bound::Most(1.2));
    Ok(())
}

/// Writes records at the rate; the 99th percentile from when each was due to its reply, ms.
async fn produce(readers: &Readers, topic: &str, seconds: u32) -> anyhow::Result<f64> {
    let (due, waiting) = mpsc::unbounded_channel::<Instant>();
    let waiting = Arc::new(Mutex::new(waiting));
    let mut connections = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let waiting = Arc::clone(&waiting);
        let stream = TcpStream::connect(("127.0.0.1", readers.bridge.port())).await?;
        stream.set_nodelay(true)?;
        let head = format!(
            "POST /v1/clusters/default/topics/{topic} HTTP/1.1\r\nhost: bench\r\n\
             content-length: {VALUE_BYTES}\r\n\r\n"
        );
        let mut request = head.into_bytes();
        request.extend_from_slice(&value(FIRST, VALUE_BYTES));
        connections.spawn(serve(stream, request, waiting));
    }
    let mut ticks = interval(Duration::from_secs_f64(1.0 / RATE));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for _ in 0..(f64::from(seconds) * RATE) as u32 {
        due.send(ticks.tick().await)?;
    }
    drop(due);
    let mut delays = Vec::new();
    for of_one in connections.join_all().await {
        delays.extend(of_one?);
    }
    delays.sort_unstable();
    let p99 = delays.get(delays.len() * 99 / 100).context("nothing was written")?;
    Ok(p99.as_secs_f64() * 1000.0)
}

async fn serve(
    mut stream: TcpStream,
    request: Vec<u8>,
    waiting: Arc<Mutex<mpsc::UnboundedReceiver<Instant>>>,
) -> anyhow::Result<Vec<Duration>> {
    let mut delays = Vec::new();
    let mut replies = ResponseReader::default();
    loop {
        let next = waiting.lock().await.recv().await;
        let Some(due) = next else { return Ok(delays) };
        stream.write_all(&request).await?;
        let reply = loop {
            if let Some(reply) = replies.poll()? {
                break reply;
            }
            let count = stream.read_buf(replies.buffer()).await?;
            ensure!(count > 0, "the bridge has closed a connection");
        };
        ensure!(reply.status == 200, "a record was answered {}", reply.status);
        delays.push(due.elapsed());
    }
}
