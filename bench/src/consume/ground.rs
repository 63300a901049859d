//! What all measurements of readers have in common: Kafka, a topic, and bridges with its feed.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use harness::bridge::{Bridge, Settings};
use harness::kafka::{Kafka, KafkaVersion};
use harness::ports;
use harness::run_dir::RunDir;
use xtask::build;
use xtask::progress::Step;

use super::swarm::{Plan, Swarm};

/// Partitions of each topic.
pub(super) const PARTITIONS: i32 = 12;

/// Addresses of the feeds: where a process may have 20,000 descriptors each gets a share of them, and
/// so do the two addresses for writers.
const ADDRESSES: usize = 6;

pub(super) struct Ground {
    pub(super) kafka: Kafka,
    pub(super) dir: RunDir,
    pub(super) program: PathBuf,
}

/// A bridge, and the ports of its feeds.
pub(super) struct Readers {
    pub(super) bridge: Bridge,
    pub(super) ports: Vec<u16>,
}

impl Ground {
    pub(super) async fn start(program: Option<PathBuf>) -> anyhow::Result<Self> {
        raise_descriptors();
        let program = match program {
            Some(program) => program,
            None => tokio::task::spawn_blocking(build::bridge_as_shipped).await??,
        };
        let step = Step::begin("starting Kafka");
        let kafka = Kafka::start_measured(KafkaVersion::V4_3, 1, &[]).await?;
        step.done();
        Ok(Self { kafka, dir: RunDir::new("bench")?, program })
    }

    /// A topic of its own, and a bridge with feeds of it: `events` and, with these lines, `special`.
    pub(super) async fn bridge(&self, topic: &str, special: &str) -> anyhow::Result<Readers> {
        let ports: Vec<u16> = (0..ADDRESSES).map(|_| ports::free()).collect::<Result<_, _>>()?;
        let listen: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let mut settings = Settings::to(self.kafka.bootstrap());
        settings.binary = Some(self.program.clone());
        settings = settings.line(&format!("[feeds]\nlisten = {listen:?}\ninstance_id = 'bench'"));
        for (name, more) in [("events", ""), ("special", special)] {
            settings = settings.line(&format!("[feeds.{name}]\ntopics = ['{topic}']\n{more}"));
        }
        Ok(Readers { bridge: Bridge::start(settings).await?, ports })
    }
}

impl Readers {
    /// Clients of the feed's events, from the log end on.
    pub(super) async fn swarm(&self, clients: usize) -> anyhow::Result<Swarm> {
        let request = |_| request("events", "");
        Swarm::connect(&Plan { ports: &self.ports, clients, request: &request }).await
    }

    /// One of its ports.
    pub(super) fn port(&self) -> anyhow::Result<u16> {
        self.ports.first().copied().context("no port")
    }

    /// Processor time of the bridge so far.
    pub(super) fn cpu(&self) -> anyhow::Result<Duration> {
        self.bridge.process().cpu_time()
    }

    /// The readers' Fetch requests, and bytes of batches in answers, so far.
    pub(super) async fn fetched(&self) -> anyhow::Result<(f64, f64)> {
        let metrics = self.bridge.metrics().await?;
        let sum = |name| harness::bridge::sum(&metrics, name, "");
        Ok((
            sum("host_bridge_kafka_fetch_requests_total"),
            sum("host_bridge_kafka_fetch_bytes_total"),
        ))
    }
}

/// The request for a stream; with the header if there is one.
pub(super) fn request(feed: &str, header: &str) -> String {
    format!("GET /v1/feeds/{feed}/events HTTP/1.1\r\nhost: bench\r\n{header}\r\n")
}

/// Lets this process, and those that it starts, have as many descriptors as the system allows.
fn raise_descriptors() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Else the first connection that fails says so.
    let _refused = setrlimit(Resource::Nofile, limit);
}

/// How many clients this process may have, of those that are wanted.
pub(super) fn check_descriptors(clients: usize) -> anyhow::Result<()> {
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let most = most.context("no limit of descriptors").map_or(usize::MAX, |it| it as usize);
    ensure!(clients + 1000 < most, "{clients} clients, and a process may have {most} descriptors");
    Ok(())
}
