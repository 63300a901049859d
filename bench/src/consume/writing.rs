//! How long writers wait beside readers: records by HTTP at a fixed rate, whatever the readers do.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use harness::load::ResponseReader;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::events::{FIRST, VALUE_BYTES, Writer, value};
use super::floor::{self, Floor};
use super::ground::{Ground, PARTITIONS, Readers};
use crate::report::{Bound, Report};

/// Longest time for the last events to come to all.
const PATIENCE: Duration = Duration::from_secs(60);

/// Records a second.
const RATE: f64 = 200.0;

/// Connections of the writer.
const CONNECTIONS: usize = 64;

/// What the readers are sent meanwhile, events a second.
const EVENTS: f64 = 1.0;

/// Signs of life a second to each of those that wait, and to how many at a time: as the bridge sends them.
const HEARTBEATS: f64 = 0.2;
const AT_A_TIME: usize = 256;
const HEARTBEAT_BYTES: usize = 64;

/// How fast, and how long, records are written until the broker's code is compiled.
const WARM_UP: (f64, u32) = (1000.0, 15);

/// Who is beside the writers.
#[derive(Clone, Copy)]
enum Beside {
    Nobody,
    /// Readers that wait, and readers that are sent events: of the bridge, or of the floor.
    Idle,
    IdleOfFloor,
    Busy,
    BusyOfFloor,
    /// Once more: how far the same is from itself.
    NobodyAgain,
}

const ALL: [Beside; 6] = [
    Beside::Nobody,
    Beside::Idle,
    Beside::IdleOfFloor,
    Beside::Busy,
    Beside::BusyOfFloor,
    Beside::NobodyAgain,
];

struct Stage<'a> {
    ground: &'a Ground,
    readers: Readers,
    written: String,
    /// Writes what the readers are sent.
    writer: Writer,
    clients: usize,
    seconds: u32,
    /// Of an event on the wire.
    bytes: usize,
}

/// Produces beside nobody, beside readers that wait, and beside readers that are sent events; in turn, so
/// that what the machine does meanwhile meets all alike.
pub(super) async fn beside_readers(
    ground: &Ground,
    clients: usize,
    (turns, seconds): (usize, u32),
    report: &mut Report,
) -> anyhow::Result<()> {
    let [written, read] = ["written", "read"].map(|name| format!("{name}-{}", fastrand::u32(..)));
    for topic in [&written, &read] {
        ground.kafka.create_topic(topic, PARTITIONS).await?;
    }
    let writer = Writer::new(&ground.kafka.bootstrap(), &read).await?;
    let readers = ground.bridge(&read, "").await?;
    let bytes = VALUE_BYTES;
    let mut stage = Stage { ground, readers, written, writer, clients, seconds, bytes };
    produce(&stage.readers, &stage.written, WARM_UP).await?;
    let mut delays = [const { Vec::new() }; ALL.len()];
    for _ in 0..turns {
        for (beside, delays) in ALL.into_iter().zip(&mut delays) {
            delays.extend(stage.produce(beside).await?);
        }
    }
    let p99s = delays.map(p99_ms);
    let [nobody, idle, idle_of_floor, busy, busy_of_floor, again] = p99s;
    report.add("produce p99 without readers", "ms", nobody);
    // How far a p99 is from itself.
    report.add("produce p99 without readers, again / first", "times", again / nobody);
    let nobody = (nobody + again) / 2.0;
    for (what, bridge, floor) in [
        ("idle readers", idle, idle_of_floor),
        ("readers at an event a second", busy, busy_of_floor),
    ] {
        let name = |more: &str| format!("produce p99 beside {clients} {what}{more}");
        report.add(name(""), "ms", bridge);
        report.add(name(" of the floor"), "ms", floor);
        report.judge(name(" / without"), "times", bridge / nobody, Bound::Most(1.2));
        report.add(name(" of the floor / without"), "times", floor / nobody);
        report.add(name(", bridge / floor"), "times", bridge / floor);
    }
    Ok(())
}

impl Stage<'_> {
    async fn produce(&mut self, beside: Beside) -> anyhow::Result<Vec<Duration>> {
        let Self { ground, readers, written, writer, clients, seconds, bytes } = self;
        let (clients, seconds) = (*clients, *seconds);
        let produce = || produce(readers, written, (RATE, seconds));
        let events = (f64::from(seconds) * EVENTS) as u32;
        let (rate, bytes, group) = match beside {
            Beside::Nobody | Beside::NobodyAgain => return produce().await,
            Beside::Idle => {
                let _swarm = readers.swarm(clients).await?;
                tokio::time::sleep(floor::PAUSE).await;
                return produce().await;
            }
            Beside::Busy => {
                let swarm = readers.swarm(clients).await?;
                tokio::time::sleep(floor::PAUSE).await;
                let before = swarm.look().await?.bytes;
                let (delays, sent) = tokio::join!(produce(), writer.write(events, EVENTS));
                sent?;
                let sight = swarm.wait_for(u64::from(events), PATIENCE).await?;
                *bytes = usize::try_from((sight.bytes - before) / sight.events)?;
                return delays;
            }
            Beside::IdleOfFloor => (HEARTBEATS, HEARTBEAT_BYTES, Some(AT_A_TIME)),
            Beside::BusyOfFloor => (EVENTS, *bytes, None),
        };
        let options = floor::Options { clients, events: seconds, rate, bytes, group };
        let _floor = Floor::start(ground, &options).await?;
        tokio::time::sleep(floor::PAUSE).await;
        produce().await
    }
}

/// Writes records at a rate, for so many seconds; how long after each was due its reply came.
async fn produce(
    readers: &Readers,
    topic: &str,
    (rate, seconds): (f64, u32),
) -> anyhow::Result<Vec<Duration>> {
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
    let mut ticks = interval(Duration::from_secs_f64(1.0 / rate));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for _ in 0..(f64::from(seconds) * rate) as u32 {
        due.send(ticks.tick().await)?;
    }
    drop(due);
    let delays: anyhow::Result<Vec<_>> = connections.join_all().await.into_iter().collect();
    Ok(delays?.concat())
}

fn p99_ms(mut delays: Vec<Duration>) -> f64 {
    delays.sort_unstable();
    let p99 = delays.get(delays.len() * 99 / 100);
    p99.map_or(f64::NAN, |delay| delay.as_secs_f64() * 1000.0)
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
