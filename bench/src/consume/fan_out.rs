//! Many clients of one feed's events: what each costs in memory, what an event costs beside a program
//! that only writes it, and how late it is.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::conversations::upgrade;
use super::events::{Start, Writer};
use super::floor::{self, Floor};
use super::ground::{Ground, PARTITIONS, Readers, request};
use super::swarm::{Arrival, Plan, Swarm};
use crate::report::{Bound, Report};

/// Events a second: with many clients the machine is busy, or each event has it for itself.
const BUSY: f64 = 10.0;
const CALM: f64 = 2.0;

/// Longest time for an event to come to all.
const PATIENCE: Duration = Duration::from_secs(60);

/// Two heartbeats, and some.
const IDLE: Duration = Duration::from_secs(12);

/// What is sent to how many.
#[derive(Clone, Copy)]
struct Load {
    clients: usize,
    events: u32,
    rate: f64,
}

/// What a stage came to.
struct Stage {
    /// Processor time for each event that a client got, µs.
    cpu_us: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// Of an event on the wire.
    bytes: f64,
    fetch_requests: f64,
    fetch_bytes: f64,
}

/// The memory of clients that are sent nothing but signs of life.
pub(super) async fn idle(
    ground: &Ground,
    clients: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    ground.kafka.create_topic("idle", PARTITIONS).await?;
    let stream = of_idle(ground, clients, &request("events", "")).await?;
    report.judge(format!("memory of an idle stream, {clients}"), "KiB", stream, Bound::Most(24.0));
    let socket = of_idle(ground, clients, &upgrade("/v1/feeds/special/socket")).await?;
    report.add(format!("memory of an idle websocket, {clients}"), "KiB", socket);
    let ratio = socket / stream;
    report.judge("memory, websocket / stream", "times", ratio, Bound::Most(1.25));
    Ok(())
}

/// Of each client that asks for this, KiB.
async fn of_idle(ground: &Ground, clients: usize, request: &str) -> anyhow::Result<f64> {
    let readers = ground.bridge("idle", "entrypoints = ['websocket']\n").await?;
    let request = |_| request.to_owned();
    let swarm = async |clients| {
        Swarm::connect(&Plan { ports: &readers.ports, clients, request: &request }).await
    };
    // What the first reader loads is none of the others', nor is what the allocator keeps of their handshakes
    // until more come and go.
    let guests = clients.div_ceil(50);
    let clients = clients - guests;
    let rss = async || {
        drop(swarm(guests).await?);
        tokio::time::sleep(Duration::from_secs(1)).await;
        readers.bridge.process().rss_bytes()
    };
    let before = rss().await?;
    let _swarm = swarm(clients).await?;
    tokio::time::sleep(IDLE).await;
    Ok((rss().await? as f64 - before as f64) / clients as f64 / 1024.0)
}

/// What an event costs and how late it is, with few and many clients, beside the floor.
pub(super) async fn events(
    ground: &Ground,
    clients: usize,
    events: u32,
    report: &mut Report,
) -> anyhow::Result<()> {
    let topic = format!("events-{}", fastrand::u32(..));
    ground.kafka.create_topic(&topic, PARTITIONS).await?;
    let mut writer = Writer::new(&ground.kafka.bootstrap(), &topic).await?;
    let readers = ground.bridge(&topic, "").await?;
    let one = of_bridge(&readers, &mut writer, Load { clients: 1, events, rate: BUSY }).await?;
    drop(readers);
    let loads = [(clients.div_ceil(10), BUSY), (clients, CALM), (clients, BUSY)];
    for (clients, rate) in loads {
        let events = (f64::from(events) * rate / BUSY).ceil() as u32;
        let load = Load { clients, events, rate };
        let readers = ground.bridge(&topic, "").await?;
        let bridge = of_bridge(&readers, &mut writer, load).await?;
        drop(readers);
        let floor = of_floor(ground, load, bridge.bytes).await?;
        tell(load, &bridge, &floor, report);
        // As many events in as much time: what one client has fetched.
        if rate == BUSY {
            let mut judge = |name: &str, ratio| {
                let name = format!("{name}, {clients} clients / 1");
                report.judge(name, "times", ratio, Bound::Most(1.1));
            };
            judge("fetch requests", bridge.fetch_requests / one.fetch_requests);
            judge("fetched bytes", bridge.fetch_bytes / one.fetch_bytes);
        }
    }
    report.add("ack to client p99, 1 client", "ms", one.p99_ms);
    Ok(())
}

fn tell(load: Load, bridge: &Stage, floor: &Stage, report: &mut Report) {
    let Load { clients, rate, .. } = load;
    let name = |name: &str| format!("{clients} clients, {rate} events/s: {name}");
    report.add(name("bridge CPU of an event to a client"), "µs", bridge.cpu_us);
    report.add(name("floor CPU"), "µs", floor.cpu_us);
    let ratio = bridge.cpu_us / floor.cpu_us;
    report.judge(name("bridge / floor, CPU"), "times", ratio, Bound::Most(1.5));
    report.add(name("ack to client p50"), "ms", bridge.p50_ms);
    report.add(name("ack to client p99"), "ms", bridge.p99_ms);
    report.add(name("floor p50"), "ms", floor.p50_ms);
    report.add(name("floor p99"), "ms", floor.p99_ms);
    let ratio = bridge.p99_ms / floor.p99_ms;
    report.judge(name("bridge / floor, p99"), "times", ratio, Bound::Most(2.0));
}

async fn of_bridge(
    readers: &Readers,
    writer: &mut Writer,
    Load { clients, events, rate }: Load,
) -> anyhow::Result<Stage> {
    let swarm = readers.swarm(clients).await?;
    // The first events make all ready.
    let warm_up = u64::from(events / 10).max(10);
    writer.write(u32::try_from(warm_up)?, BUSY).await?;
    let before = swarm.wait_for(warm_up, PATIENCE).await?;
    let (cpu, fetched) = (readers.cpu()?, readers.fetched().await?);
    let starts = writer.write(events, rate).await?;
    let after = swarm.wait_for(warm_up + u64::from(events), PATIENCE).await?;
    let cpu = readers.cpu()? - cpu;
    let fetched_after = readers.fetched().await?;
    ensure!(after.sums.0 == after.sums.1, "clients had different events");
    let delivered = (after.events - before.events) as f64;
    let (p50_ms, p99_ms) = delays(&starts, &after.arrivals)?;
    Ok(Stage {
        cpu_us: cpu.as_secs_f64() * 1e6 / delivered,
        p50_ms,
        p99_ms,
        bytes: (after.bytes - before.bytes) as f64 / delivered,
        fetch_requests: fetched_after.0 - fetched.0,
        fetch_bytes: fetched_after.1 - fetched.1,
    })
}

async fn of_floor(
    ground: &Ground,
    Load { clients, events, rate }: Load,
    bytes: f64,
) -> anyhow::Result<Stage> {
    let options =
        floor::Options { clients, events, rate, bytes: bytes.round() as usize, group: None };
    let mut floor = Floor::start(ground, &options).await?;
    let cpu = floor.process.cpu_time()?;
    let sight = floor.swarm.wait_for(u64::from(events), PATIENCE).await?;
    let starts = floor.starts().await?;
    let cpu = floor.process.cpu_time()? - cpu;
    let (p50_ms, p99_ms) = delays(&starts, &sight.arrivals)?;
    let cpu_us = cpu.as_secs_f64() * 1e6 / sight.events as f64;
    Ok(Stage { cpu_us, p50_ms, p99_ms, bytes, fetch_requests: 0.0, fetch_bytes: 0.0 })
}

/// The median and the 99th percentile of the time from a start to an arrival, ms.
pub(super) fn delays(starts: &[Start], arrivals: &[Arrival]) -> anyhow::Result<(f64, f64)> {
    let starts: HashMap<u32, u64> = starts.iter().copied().collect();
    let delays = arrivals.iter().filter_map(|(number, at)| {
        // One may come before its writer has heard of the acknowledgement.
        Some(at.saturating_sub(*starts.get(number)?))
    });
    let mut delays: Vec<u64> = delays.collect();
    delays.sort_unstable();
    let quantile = |part: usize| {
        let index = (delays.len() * part / 100).min(delays.len().saturating_sub(1));
        delays.get(index).map(|delay| *delay as f64 / 1000.0)
    };
    quantile(50).zip(quantile(99)).context("no event that was waited for came")
}
