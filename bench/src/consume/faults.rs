//! Readers when something goes wrong: a bridge that is killed, and clients that read nothing.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::ensure;
use harness::http::Request;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};

use super::events::{VALUE_BYTES, Writer};
use super::fan_out::delays;
use super::ground::{Ground, PARTITIONS, request};
use super::pages::TOPIC;
use super::swarm::{Plan, Swarm};
use crate::report::{Bound, Report};

const PATIENCE: Duration = Duration::from_secs(120);

/// What is written while the bridge is away, and how many a second: in batches as events come in. Brokers cut
/// an answer at the bytes that are asked for, and what it has of a batch then is lost: of one large batch that
/// would be half of all.
const MISSED: u32 = 500;
const MISSED_RATE: f64 = 500.0;

/// All clients come back after a kill, and have what they missed.
pub(super) async fn reconnect(
    ground: &Ground,
    clients: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let topic = format!("missed-{}", fastrand::u32(..));
    ground.kafka.create_topic(&topic, PARTITIONS).await?;
    let mut writer = Writer::new(&ground.kafka.bootstrap(), &topic).await?;
    let mut readers = ground.bridge(&topic, "").await?;
    let swarm = readers.swarm(clients).await?;
    writer.write(20, 10.0).await?;
    swarm.wait_for(20, PATIENCE).await?;
    readers.bridge.kill9()?;
    let ids = swarm.look_at_ids().await?.ids;
    drop(swarm);
    writer.write(MISSED, MISSED_RATE).await?;
    readers.bridge.restart().await?;
    let begin = Instant::now();
    let request = |number: usize| {
        let id = ids.get(number).map_or("", String::as_str);
        request("events", &format!("last-event-id: {id}\r\n"))
    };
    let swarm = Swarm::connect(&Plan { ports: &readers.ports, clients, request: &request }).await?;
    let connected = begin.elapsed();
    let sight = swarm.wait_for(u64::from(MISSED), PATIENCE).await?;
    let time = begin.elapsed();
    let expected = u64::from(MISSED) * clients as u64;
    let is_once = sight.events == expected && sight.sums.0 == sight.sums.1;
    ensure!(is_once, "{} of {expected} events", sight.events);
    let bytes = readers.fetched().await?.1;
    let missed = f64::from(MISSED) * VALUE_BYTES as f64;
    report.add("reconnect, all are connected after", "s", connected.as_secs_f64());
    let name = format!("reconnect, all {clients} have the {MISSED} events missed after");
    report.judge(name, "s", time.as_secs_f64(), Bound::Most(30.0));
    report.judge(
        "reconnect, bytes from brokers / missed",
        "times",
        bytes / missed,
        Bound::Most(1.5),
    );
    Ok(())
}

/// How many events a second the readers beside the one that stalls are sent, how many they are, and for
/// how long.
const RATE: f64 = 500.0;
const OTHERS: usize = 20;
const EVENTS: u32 = 5000;

/// The delay of others beside a client that reads nothing.
pub(super) async fn stalled(ground: &Ground, report: &mut Report) -> anyhow::Result<()> {
    let topic = format!("stalled-{}", fastrand::u32(..));
    ground.kafka.create_topic(&topic, PARTITIONS).await?;
    let mut writer = Writer::new(&ground.kafka.bootstrap(), &topic).await?;
    let readers = ground.bridge(&topic, "").await?;
    let swarm = readers.swarm(OTHERS).await?;
    let warm_up = writer.write(EVENTS / 10, RATE).await?.len() as u64;
    swarm.wait_for(warm_up, PATIENCE).await?;
    let port = readers.port()?;
    let (mut of, mut memory, mut before, mut held) = (Vec::new(), Vec::new(), warm_up, None);
    for is_beside in [false, true] {
        if is_beside {
            held = Some(reads_nothing(port, &request("events", "")).await?);
        }
        let starts = writer.write(EVENTS, RATE).await?;
        before += u64::from(EVENTS);
        let sight = swarm.wait_for(before, PATIENCE).await?;
        of.push(delays(&starts, &sight.arrivals)?.1);
        memory.push(readers.bridge.process().rss_bytes()? as f64 / 1e6);
    }
    drop(held);
    if let ([alone, beside], [memory, memory_beside]) = (&*of, &*memory) {
        report.add("p99 of 20 clients at 500 events/s", "ms", *alone);
        report.add("p99 of the same beside one that reads nothing", "ms", *beside);
        report.judge(
            "beside one that reads nothing / without",
            "times",
            beside / alone,
            Bound::Most(1.2),
        );
        report.add("memory more beside it", "MB", memory_beside - memory);
    }
    Ok(())
}

/// Clients that ask for the largest pages and read nothing, and how long another one reads beside them.
const PAGES: [usize; 3] = [0, 30, 300];
const BESIDE: Duration = Duration::from_secs(20);
const PAGE: &str = "/v1/feeds/events/messages?from=earliest&limit=10000&max_bytes=8388608";

/// What a client's pages are beside others whose pages nobody takes.
pub(super) async fn stalled_pages(ground: &Ground, report: &mut Report) -> anyhow::Result<()> {
    for stalled in PAGES {
        let readers = ground.bridge(TOPIC, "").await?;
        let port = readers.port()?;
        let mut held = Vec::new();
        for _ in 0..stalled {
            held.push(
                reads_nothing(port, &format!("GET {PAGE} HTTP/1.1\r\nhost: a\r\n\r\n")).await?,
            );
        }
        let (begin, mut pages, mut refused, mut bytes) = (Instant::now(), 0, 0, 0);
        while begin.elapsed() < BESIDE {
            let reply = Request::get(PAGE).send(port).await?;
            match reply.status {
                200 => (pages, bytes) = (pages + 1, bytes + reply.body.len()),
                _ => refused += 1,
            }
        }
        let name = |what: &str| format!("beside {stalled} whose pages nobody takes: {what}");
        report.add(name("pages a second"), "pages", f64::from(pages) / BESIDE.as_secs_f64());
        report.add(name("a page"), "KiB", bytes as f64 / f64::from(pages.max(1)) / 1024.0);
        report.add(name("refused"), "pages", f64::from(refused));
        report.add(name("memory"), "MB", readers.bridge.process().rss_bytes()? as f64 / 1e6);
    }
    Ok(())
}

/// A client that has sent a request, and takes as little of the reply as can be.
async fn reads_nothing(port: u16, request: &str) -> anyhow::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4096)?;
    let mut stream = socket.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
    stream.write_all(request.as_bytes()).await?;
    Ok(stream)
}
