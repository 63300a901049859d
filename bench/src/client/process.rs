//! Each client as a process of its own: how it is started, and what it says at its end.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use harness::process::Process;
use xtask::tools::{self, KafkaVersion};

use super::settings::{Cell, Peer};

/// What a client is to do.
pub(super) struct Job<'a> {
    pub(super) bootstrap: &'a str,
    pub(super) topic: &'a str,
    pub(super) payloads: &'a Path,
    pub(super) records: u64,
}

/// Java's jars come with Kafka's version.
pub(super) struct Java {
    binary: PathBuf,
    libs: PathBuf,
}

/// The programs that clients run in.
pub(super) struct Programs {
    pub(super) java: Java,
    /// Another build of this one.
    pub(super) baseline: Option<PathBuf>,
}

impl Java {
    pub(super) fn find() -> anyhow::Result<Self> {
        Ok(Self { binary: tools::java()?, libs: tools::kafka_libs(KafkaVersion::V4_3)? })
    }
}

pub(super) fn start(
    peer: Peer,
    programs: &Programs,
    cell: &Cell,
    job: &Job<'_>,
    log: &Path,
) -> anyhow::Result<Process> {
    let mut properties: Vec<String> = vec![format!("bootstrap.servers={}", job.bootstrap)];
    let of_cell = peer.properties(cell);
    properties.extend(of_cell.iter().map(|(name, value)| format!("{name}={value}")));
    let mut command = match peer {
        Peer::Java => performance_tool(&programs.java)?,
        // Those that `produce-with` runs.
        _ => {
            let own = env::current_exe().context("where is this program?")?;
            let (name, program) = match (peer, &programs.baseline) {
                (Peer::Baseline, Some(program)) => (Peer::Ours.name(), program),
                _ => (peer.name(), &own),
            };
            let mut own = Command::new(program);
            own.args(["produce-with", name]);
            own
        }
    };
    command.args(["--topic", job.topic, "--num-records", &job.records.to_string()]);
    command.arg("--payload-file").arg(job.payloads);
    command.arg("--producer-props").args(properties);
    Process::spawn(peer.name(), command, log)
}

fn performance_tool(java: &Java) -> anyhow::Result<Command> {
    let libs = java.libs.to_str().context("the path of Kafka's jars is not UTF-8")?;
    let mut command = Command::new(&java.binary);
    // As Kafka's own script starts its tools.
    command.args(["-Xmx512M", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"]);
    command.args(["-XX:InitiatingHeapOccupancyPercent=35", "-XX:+ExplicitGCInvokesConcurrent"]);
    command.args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", &format!("{libs}/*")]);
    command.args(["org.apache.kafka.tools.ProducerPerformance", "--throughput", "-1"]);
    Ok(command)
}

/// How many records the client says were acknowledged, once it has ended.
pub(super) async fn acknowledged(process: &mut Process) -> anyhow::Result<u64> {
    let status = process.wait().await?;
    ensure!(status.success(), process.failure("failed"));
    let text = std::fs::read_to_string(process.log())?;
    last_count(&text).with_context(|| process.failure("told no count").to_string())
}

/// The count in the last line that tells one. ProducerPerformance writes such a line every 5 s
/// about these, and at the end about all: the one with percentiles.
fn last_count(text: &str) -> Option<u64> {
    let summary = |line: &&str| line.contains(" records sent") && line.contains(" 99.9th");
    let line = text.lines().rev().find(summary)?;
    line.split_whitespace().next()?.parse().ok()
}

/// The line that [`last_count`] reads, from a client of ours.
pub(in super::super) fn summary(acknowledged: u64) -> String {
    format!("{acknowledged} records sent, no 99.9th percentile")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
413261 records sent, 82652.2 records/sec (78.82 MB/sec), 312.4 ms avg latency, 600.0 ms max latency.
500100 records sent, 100020.0 records/sec (95.38 MB/sec), 3.1 ms avg latency, 9.0 ms max latency.
1000000 records sent, 91116.173 records/sec (86.90 MB/sec), 160.10 ms avg latency, 600.00 ms max \
latency, 3 ms 50th, 9 ms 95th, 580 ms 99th, 590 ms 99.9th.
";

    #[test]
    fn the_last_line_of_the_performance_tool_counts() {
        assert_eq!(last_count(OUTPUT), Some(1_000_000));
        let (partial, _) = OUTPUT.split_once("1000000").unwrap();
        assert_eq!(last_count(partial), None, "it was cut short");
        assert_eq!(last_count(""), None);
    }

    #[test]
    fn our_own_line_is_read_alike() {
        assert_eq!(last_count(&format!("warning\n{}\n", summary(7))), Some(7));
    }
}
