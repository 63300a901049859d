//! Pages beside a consumer without HTTP, and what filters cost.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use harness::http::{Request, Response};

use super::events::{VALUE_BYTES, Writer};
use super::ground::{Ground, PARTITIONS};
use super::reading::{self, Peer};
use crate::report::{Bound, Report};

/// The topic of 1 KiB records, which all of these read.
pub(super) const TOPIC: &str = "pages";

/// Feeds whose filters pass 1 %: by the offset alone, and by a field of the value.
const FILTERS: [(&str, &str); 2] = [
    ("offset", "filter = 'offset % 100 == 7'\n"),
    ("JSON value", "deserializer = 'json'\nfilter = 'value.kind == 7'\n"),
];

const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn fill(ground: &Ground, records: u32) -> anyhow::Result<()> {
    ground.kafka.create_topic(TOPIC, PARTITIONS).await?;
    let mut writer = Writer::new(&ground.kafka.bootstrap(), TOPIC).await?;
    writer.fill(records, VALUE_BYTES).await
}

/// GET `limit=5000` from the first record to the last.
pub(super) async fn pages(
    ground: &Ground,
    records: u32,
    report: &mut Report,
) -> anyhow::Result<()> {
    let direct = reading::run(ground, Peer::Ours, TOPIC, records).await?;
    let readers = ground.bridge(TOPIC, "").await?;
    let (cpu, begin) = (readers.cpu()?, Instant::now());
    let read = read(readers.port()?, "events", "limit=5000&timeout=1000").await?;
    let (time, cpu) = (begin.elapsed(), readers.cpu()? - cpu);
    ensure!(read == u64::from(records), "{read} of {records} records");
    let each = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(records);
    let megabytes =
        |time: Duration| f64::from(records) * VALUE_BYTES as f64 / time.as_secs_f64() / 1e6;
    report.add("pages", "MB/s", megabytes(time));
    report.add("direct", "MB/s", megabytes(direct.time));
    let ratio = direct.time.as_secs_f64() / time.as_secs_f64();
    report.judge("pages / direct, bytes a second", "times", ratio, Bound::Least(0.5));
    report.add("pages, bridge CPU of a record", "µs", each(cpu));
    report.add("direct, CPU of a record", "µs", each(direct.cpu));
    let ratio = cpu.as_secs_f64() / direct.cpu.as_secs_f64();
    report.judge("pages / direct, CPU of a record", "times", ratio, Bound::Most(2.0));
    Ok(())
}

/// Records that a filter looks at.
pub(super) async fn filters(
    ground: &Ground,
    records: u32,
    report: &mut Report,
) -> anyhow::Result<()> {
    for (name, lines) in FILTERS {
        let lines = format!("auto_offset_reset = 'earliest'\n{lines}");
        let readers = ground.bridge(TOPIC, &lines).await?;
        let cpu = readers.cpu()?;
        let read = read(readers.port()?, "special", "limit=10000&timeout=30000").await?;
        let cpu = readers.cpu()? - cpu;
        let passed = read as f64 / f64::from(records);
        ensure!((0.005..0.02).contains(&passed), "{read} of {records} records passed");
        let rate = f64::from(records) / cpu.as_secs_f64() / 1000.0;
        report.add(format!("filter by {name} passing 1 %"), "k records/core s", rate);
    }
    Ok(())
}

/// Follows the cursors until nothing is left; how many records there were.
pub(crate) async fn read(port: u16, feed: &str, query: &str) -> anyhow::Result<u64> {
    let (mut start, mut records) = ("from=earliest".to_owned(), 0);
    loop {
        // What is not waited for: the rest is there.
        let path = format!("/v1/feeds/{feed}/messages?{query}&{start}");
        let request = Request::get(&path).header("accept", "application/x-ndjson");
        let reply = request.timeout(PATIENCE).send(port).await?;
        ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
        records += memchr::memchr_iter(b'\n', &reply.body).count() as u64;
        if header(&reply, "kafka-lag")? == "0" {
            return Ok(records);
        }
        start = format!("cursor={}", header(&reply, "kafka-next-cursor")?);
    }
}

fn header<'a>(reply: &'a Response, name: &'static str) -> anyhow::Result<&'a str> {
    reply.header(name).context(name)
}
