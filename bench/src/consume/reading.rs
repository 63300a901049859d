//! Clients that read a topic from its first record to its last, each in a process of its own: ours,
//! kcat, and Java's console consumer.

use std::env;
use std::fs;
use std::io::{BufWriter, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
use clap::Args;
use harness::process::Process;
use kafka_client::{At, Client, Config, Consumer, ConsumerConfig, Position};
use xtask::tools::{self, KafkaVersion};

use super::events::Writer;
use super::ground::{Ground, PARTITIONS};
use crate::report::{Bound, Report};

/// The topic of the yardsticks, and the bytes of its records.
const TOPIC: &str = "yardsticks";
const BYTES: usize = 100;

/// Longest time for one client.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    Ours,
    Kcat,
    Java,
}

/// What reading it all took, from the start of the process to its end.
pub(super) struct Reading {
    pub(super) time: Duration,
    pub(super) cpu: Duration,
}

#[derive(Args)]
pub(crate) struct Options {
    #[arg(long)]
    bootstrap: String,
    #[arg(long)]
    topic: String,
    #[arg(long)]
    records: u64,
}

pub(super) async fn fill(ground: &Ground, records: u32) -> anyhow::Result<()> {
    ground.kafka.create_topic(TOPIC, PARTITIONS).await?;
    Writer::new(&ground.kafka.bootstrap(), TOPIC).await?.fill(records, BYTES).await
}

pub(super) async fn yardsticks(
    ground: &Ground,
    records: u32,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut ours = None;
    for (peer, name) in [
        (Peer::Ours, "kafka-client"),
        (Peer::Kcat, "kcat"),
        (Peer::Java, "Java's console consumer"),
    ] {
        let reading = run(ground, peer, TOPIC, records).await?;
        let rate = f64::from(records) / reading.cpu.as_secs_f64();
        report.add(format!("{name}, {BYTES} B"), "k records/CPU s", rate / 1000.0);
        let ours = *ours.get_or_insert(rate);
        if peer != Peer::Ours {
            report.judge(format!("kafka-client / {name}"), "times", ours / rate, Bound::Least(1.0));
        }
    }
    Ok(())
}

/// Runs a client to its end.
pub(super) async fn run(
    ground: &Ground,
    peer: Peer,
    topic: &str,
    records: u32,
) -> anyhow::Result<Reading> {
    let mut command = command(peer, &ground.kafka.bootstrap(), topic, records)?;
    // What each reads it writes there.
    command.stdout(Stdio::null()).stderr(Stdio::inherit());
    let begin = Instant::now();
    let mut process = Process::spawn_unlogged("reader", command)?;
    while !has_ended(process.id())? {
        ensure!(begin.elapsed() < PATIENCE, "{peer:?} does not end");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // It keeps its times until it is waited for.
    let (time, cpu) = (begin.elapsed(), process.cpu_time()?);
    let status = process.wait().await?;
    ensure!(status.success(), "{peer:?}: {status}");
    Ok(Reading { time, cpu })
}

fn command(peer: Peer, bootstrap: &str, topic: &str, records: u32) -> anyhow::Result<Command> {
    let records = records.to_string();
    Ok(match peer {
        Peer::Ours => {
            let mut command = Command::new(env::current_exe()?);
            command.args(["read-with", "--bootstrap", bootstrap, "--topic", topic]);
            command.args(["--records", &records]);
            command
        }
        Peer::Kcat => {
            let mut command = tools::kcat()?;
            command.args(["-b", bootstrap, "-C", "-t", topic, "-o", "beginning", "-e", "-q"]);
            command
        }
        Peer::Java => {
            let libs = tools::kafka_libs(KafkaVersion::V4_3)?;
            let libs = libs.to_str().context("the path of Kafka's jars is not UTF-8")?;
            let mut command = Command::new(tools::java()?);
            command.args([
                "-Xmx512M",
                "-server",
                "-XX:+UseG1GC",
                QUIET,
                "-cp",
                &format!("{libs}/*"),
            ]);
            command.arg("org.apache.kafka.tools.consumer.ConsoleConsumer");
            command.args(["--bootstrap-server", bootstrap, "--topic", topic, "--from-beginning"]);
            command.args(["--max-messages", &records]);
            command
        }
    })
}

/// Whether a process has ended; it is not waited for.
fn has_ended(id: u32) -> anyhow::Result<bool> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.starts_with('Z'));
    state.context("no state")
}

/// `bench read-with`: kafka-client as kcat is: each value becomes a line.
pub(crate) async fn read(options: &Options) -> anyhow::Result<()> {
    let consumer = consumer(&options.bootstrap)?;
    let mut positions = positions(&consumer, &options.topic, At::Earliest).await?;
    let (mut read, mut out) = (0, BufWriter::new(std::io::stdout().lock()));
    while read < options.records {
        let wait = Duration::from_millis(500);
        let answers = consumer.fetch_from(&positions, FETCH_BYTES, wait).await;
        for (position, answer) in positions.iter_mut().zip(answers) {
            let fetched = answer.map_err(|it| anyhow!("{it}"))?;
            for record in &fetched.records {
                out.write_all(record.value.as_deref().unwrap_or_default())?;
                out.write_all(b"\n")?;
            }
            read += fetched.records.len() as u64;
            position.offset = fetched.next_offset;
        }
    }
    out.flush()?;
    Ok(())
}

pub(super) fn consumer(bootstrap: &str) -> anyhow::Result<Consumer> {
    let config = Config::from_properties([("bootstrap.servers", bootstrap)])?;
    Ok(Client::new(config).consumer(&ConsumerConfig::default()))
}

/// A place in each partition of a topic.
pub(super) async fn positions<'a>(
    consumer: &Consumer,
    topic: &'a str,
    at: At,
) -> anyhow::Result<Vec<Position<'a>>> {
    let found = consumer.partitions(topic, PATIENCE).await.map_err(|it| anyhow!("{it}"))?;
    let partitions: Vec<_> = (0..).take(found.leaders.len()).map(|it| (topic, it)).collect();
    let offsets = consumer.offsets(&partitions, at, PATIENCE).await;
    let positions = partitions.into_iter().zip(offsets).map(|((topic, partition), offset)| {
        Ok(Position::new(topic, partition, offset.map_err(|it| anyhow!("{it}"))?))
    });
    positions.collect()
}

/// What Java's consumer and librdkafka ask of a partition.
const FETCH_BYTES: usize = 1024 * 1024;

/// Java's log is not what is measured.
const QUIET: &str = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn";
