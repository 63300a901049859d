//! One broker: its ports, its folder, its process.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use super::properties;
use crate::ports;
use crate::process::Process;

/// The cluster id of every cluster here; any 16 bytes in base64 do.
const CLUSTER_ID: &str = "a2Fma2EtdXBzdHJlYW0tMQ";

/// A Java and the jars it runs.
#[derive(Clone, Debug)]
pub(super) struct Java {
    pub(super) binary: PathBuf,
    pub(super) libs: PathBuf,
}

#[derive(Debug)]
pub(super) struct Broker {
    pub(super) process: Option<Process>,
    id: usize,
    port: u16,
    dir: PathBuf,
}

/// Brokers 1 to `count` with their ports chosen and their properties written.
pub(super) fn prepare(
    count: usize,
    dir: &Path,
    extra: &[(&str, &str)],
) -> anyhow::Result<Vec<Broker>> {
    anyhow::ensure!(count > 0, "a cluster has at least one broker");
    let mut voters = Vec::new();
    let mut brokers = Vec::new();
    for id in 1..=count {
        let broker =
            Broker { process: None, id, port: ports::free()?, dir: dir.join(id.to_string()) };
        fs::create_dir_all(&broker.dir)?;
        voters.push(properties::Voter { id, port: ports::free()? });
        brokers.push(broker);
    }
    for (broker, voter) in brokers.iter().zip(&voters) {
        let text = properties::render(voter, broker.port, &voters, &broker.dir.join("data"), extra);
        fs::write(broker.properties(), text)?;
    }
    Ok(brokers)
}

impl Broker {
    pub(super) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(super) fn spawn(&mut self, java: &Java) -> anyhow::Result<()> {
        let mut command = java_command(java)?;
        command.args(["-Xms256m", "-Xmx512m", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"]);
        command.arg("-Dorg.slf4j.simpleLogger.showDateTime=true");
        command.arg("kafka.Kafka").arg(self.properties());
        let name = format!("kafka broker {}", self.id);
        self.process = Some(Process::spawn(&name, command, &self.dir.join("broker.log"))?);
        Ok(())
    }

    pub(super) fn format_command(&self, java: &Java) -> anyhow::Result<Command> {
        let mut command = java_command(java)?;
        // A run of a second: a quick start matters more than fast code.
        command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]);
        command.args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "kafka.tools.StorageTool"]);
        command.args(["format", "--cluster-id", CLUSTER_ID, "--config"]).arg(self.properties());
        Ok(command)
    }

    /// The segments of a topic's partitions, in order of their names.
    pub(super) fn segments(&self, topic: &str) -> anyhow::Result<Vec<PathBuf>> {
        let mut segments = Vec::new();
        for entry in fs::read_dir(self.dir.join("data"))? {
            let folder = entry?;
            let name = folder.file_name();
            let of = name.to_str().and_then(|name| name.rsplit_once('-')).map(|(of, _)| of);
            if of != Some(topic) {
                continue;
            }
            for entry in fs::read_dir(folder.path())? {
                let path = entry?.path();
                if path.extension().is_some_and(|extension| extension == "log") {
                    segments.push(path);
                }
            }
        }
        segments.sort();
        Ok(segments)
    }

    fn properties(&self) -> PathBuf {
        self.dir.join("server.properties")
    }
}

/// Runs a command of [`Broker::format_command`].
pub(super) fn run_format(mut command: Command) -> anyhow::Result<()> {
    let output = command.output().context("cannot run java")?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    bail!("cannot format Kafka's storage: {}", String::from_utf8_lossy(&text));
}

pub(super) fn java_command(java: &Java) -> anyhow::Result<Command> {
    let libs = java.libs.to_str().context("the path of Kafka's jars is not UTF-8")?;
    let mut command = Command::new(&java.binary);
    command.args(["-cp", &format!("{libs}/*")]);
    Ok(command)
}
