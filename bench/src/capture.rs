//! `bench capture`: requests that become records without a filter: by a capture route, by REST, and by
//! Benthos beside them.

use std::fs;
use std::process::Command;
use std::time::Duration;

use clap::Args;
use harness::bridge::{Bridge, Settings};
use harness::kafka::{Kafka, KafkaVersion};
use harness::load::{Load, Requests};
use harness::ports;
use harness::process::{Process, wait_until};
use harness::run_dir::RunDir;
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use xtask::{build, tools};

use super::report::{Bound, Report};
use super::requests::{self, Figures};

/// Partitions of each topic.
const PARTITIONS: i32 = 6;

/// Bytes of each request's body, which is the record's value.
const BODY_BYTES: usize = 200;

/// Requests before the first measurement of each way.
const WARM_UP: Duration = Duration::from_secs(1);

/// Longest time until Benthos accepts connections.
const START: Duration = Duration::from_secs(20);

#[derive(Args)]
pub(crate) struct Options {
    /// Times that each figure is taken; the medians count
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of load in a round
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Connections that are tried; each has one request in flight
    #[arg(long, value_delimiter = ',', default_values_t = [1, 32, 256])]
    connections: Vec<usize>,
}

/// A way from HTTP to Kafka, and the process that it costs.
struct Way<'a> {
    name: &'static str,
    port: u16,
    path: &'static str,
    process: &'a Process,
}

pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let kafka = Kafka::start_measured(KafkaVersion::V4_3, 1, &[]).await?;
    for topic in ["captured", "posted", "benthos"] {
        kafka.create_topic(topic, PARTITIONS).await?;
    }
    let bridge = bridge(&kafka).await?;
    let benthos = Benthos::start(&kafka).await?;
    let ways = [
        ("capture", bridge.port(), "/v1/capture/bench/post", bridge.process()),
        ("REST", bridge.port(), "/v1/clusters/default/topics/posted", bridge.process()),
        ("Benthos", benthos.port, "/post", &benthos.process),
    ]
    .map(|(name, port, path, process)| Way { name, port, path, process });
    for way in &ways {
        way.measure(32, WARM_UP).await?;
    }
    let (mut report, time) = (Report::default(), Duration::from_secs(options.seconds));
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        for connections in &options.connections {
            compare(&ways, *connections, time, &mut report).await?;
        }
    }
    report.finish("capture", None)
}

async fn compare(
    ways: &[Way<'_>; 3],
    connections: usize,
    time: Duration,
    report: &mut Report,
) -> anyhow::Result<()> {
    let [capture, rest, benthos] = ways;
    for way in [rest, capture, benthos] {
        let figures = way.measure(connections, time).await?;
        let name = |what: &str| format!("{connections} connections, {}, {what}", way.name);
        report.add(name("requests"), "/s", figures.rps);
        report.add(name("p99"), "ms", figures.p99_us / 1e3);
        report.add(name("CPU of a request"), "µs", figures.cpu_us);
    }
    let ours = capture.measure(connections, time).await?;
    let theirs = benthos.measure(connections, time).await?;
    let name = |what: &str| format!("{connections} connections, capture / Benthos, {what}");
    let rps = ours.rps / theirs.rps;
    // One connection waits for Kafka either way.
    match connections {
        1 => report.add(name("requests"), "times", rps),
        _ => report.judge(name("requests"), "times", rps, Bound::Least(1.8)),
    }
    report.judge(name("p99"), "times", ours.p99_us / theirs.p99_us, Bound::Most(1.0));
    report.judge(name("CPU"), "times", ours.cpu_us / theirs.cpu_us, Bound::Most(0.55));
    Ok(())
}

async fn bridge(kafka: &Kafka) -> anyhow::Result<Bridge> {
    let mut settings = Settings::to(kafka.bootstrap()).line(
        "[captures.bench]\ntopic = 'captured'\nmessage_format = 'body'\nproducer_async = false\n\
         producer_request_acks = -1",
    );
    settings.binary = Some(spawn_blocking(build::bridge_as_shipped).await??);
    Bridge::start(settings).await
}

/// Benthos with `http_server` and `kafka_franz`; a request is answered when its record is acknowledged.
struct Benthos {
    process: Process,
    port: u16,
    _dir: RunDir,
}

impl Benthos {
    async fn start(kafka: &Kafka) -> anyhow::Result<Self> {
        let program = spawn_blocking(tools::benthos).await??;
        let (port, dir) = (ports::free()?, RunDir::new("benthos")?);
        let config = dir.path().join("benthos.yaml");
        fs::write(
            &config,
            format!(
                "http: {{ enabled: false }}\nlogger: {{ level: ERROR }}\n\
                 input:\n  http_server: {{ address: '127.0.0.1:{port}', path: /post, timeout: 10s }}\n\
                 output:\n  kafka_franz:\n    seed_brokers: ['{}']\n    topic: benthos\n    \
                 max_in_flight: 1024\n    compression: none\n",
                kafka.bootstrap()
            ),
        )?;
        let mut command = Command::new(program);
        command.arg("-c").arg(config);
        let mut process = Process::spawn("benthos", command, &dir.path().join("benthos.log"))?;
        let connects = async || Ok(TcpStream::connect(("127.0.0.1", port)).await.map(drop)?);
        if let Err(error) = wait_until("Benthos", START, connects).await {
            return Err(process.failure("does not start").context(error));
        }
        Ok(Self { process, port, _dir: dir })
    }
}

impl Way<'_> {
    async fn measure(&self, connections: usize, time: Duration) -> anyhow::Result<Figures> {
        let body = vec![b'x'; BODY_BYTES];
        let requests = Requests::post(self.path, "application/octet-stream", move |_| body.clone());
        let load = Load::new(self.port, requests).connections(connections);
        requests::measure(self.process, load, time).await
    }
}
