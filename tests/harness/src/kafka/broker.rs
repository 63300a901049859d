//! One broker: its ports, its folder, its process.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use super::{Setup, properties};
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
    /// Whether it runs without answering.
    pub(super) frozen: bool,
    is_alone: bool,
    id: usize,
    port: u16,
    listeners: Vec<(String, String, u16)>,
    java: Vec<String>,
    class_path: Vec<PathBuf>,
    dir: PathBuf,
}

/// Brokers 1 to `count` with their ports chosen and their properties written; the first
/// `controllers` of them are controllers too.
pub(super) fn prepare(
    count: usize,
    controllers: usize,
    dir: &Path,
    setup: &Setup<'_>,
) -> anyhow::Result<Vec<Broker>> {
    let possible = (1..=count).contains(&controllers);
    anyhow::ensure!(possible, "{controllers} controllers among {count} brokers");
    let mut nodes = Vec::new();
    let mut brokers = Vec::new();
    for id in 1..=count {
        let mut listeners = Vec::new();
        for (name, protocol) in setup.listeners {
            listeners.push(((*name).to_owned(), (*protocol).to_owned(), ports::free()?));
        }
        let (port, controller) = (ports::free()?, ports::free()?);
        let node = properties::Node { id, port, controller, listeners: listeners.clone() };
        let dir = dir.join(id.to_string());
        let is_alone = count == 1;
        let broker = Broker {
            process: None,
            frozen: false,
            is_alone,
            id,
            port,
            listeners,
            java: setup.java.to_vec(),
            class_path: setup.class_path.to_vec(),
            dir,
        };
        fs::create_dir_all(&broker.dir)?;
        nodes.push(node);
        brokers.push(broker);
    }
    for (broker, node) in brokers.iter().zip(&nodes) {
        let data = broker.dir.join("data");
        let text = properties::render(node, &nodes, controllers, &data, setup.properties);
        fs::write(broker.properties(), text)?;
    }
    Ok(brokers)
}

impl Broker {
    pub(super) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The `host:port` of a listener of its own name.
    pub(super) fn listener(&self, name: &str) -> Option<String> {
        let found = self.listeners.iter().find(|(own, ..)| own == name);
        found.map(|(_, _, port)| format!("127.0.0.1:{port}"))
    }

    /// Whether it may be expected to answer.
    pub(super) fn answers(&self) -> bool {
        self.process.is_some() && !self.frozen
    }

    pub(super) fn spawn(&mut self, java: &Java) -> anyhow::Result<()> {
        let mut command = java_command(java, &self.class_path)?;
        command.args(["-Xms256m", "-Xmx512m"]);
        if self.is_alone {
            command.args(["-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"]);
        } else {
            // They share the processors, and are killed and started again: a quick start matters
            // more than fast code.
            command.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
        }
        command.args(&self.java).arg("-Dorg.slf4j.simpleLogger.showDateTime=true");
        command.arg("kafka.Kafka").arg(self.properties());
        let name = format!("kafka broker {}", self.id);
        self.frozen = false;
        self.process = Some(Process::spawn(&name, command, &self.dir.join("broker.log"))?);
        Ok(())
    }

    pub(super) fn format_command(&self, java: &Java, scram: &[String]) -> anyhow::Result<Command> {
        let mut command = java_command(java, &self.class_path)?;
        // A run of a second: a quick start matters more than fast code.
        command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]);
        command.args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "kafka.tools.StorageTool"]);
        command.args(["format", "--cluster-id", CLUSTER_ID, "--config"]).arg(self.properties());
        for user in scram {
            command.args(["--add-scram", user]);
        }
        Ok(command)
    }

    /// The segments of a topic's partitions, in order of their names.
    pub(super) fn segments(&self, topic: &str) -> anyhow::Result<Vec<PathBuf>> {
        let mut segments = Vec::new();
        for (_, folder) in self.logs(topic)? {
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                if path.extension().is_some_and(|extension| extension == "log") {
                    segments.push(path);
                }
            }
        }
        segments.sort();
        Ok(segments)
    }

    /// The partitions that it has of a topic, with their folders.
    pub(super) fn logs(&self, topic: &str) -> anyhow::Result<Vec<(i32, PathBuf)>> {
        let mut logs = Vec::new();
        for entry in fs::read_dir(self.dir.join("data"))? {
            let folder = entry?;
            let name = folder.file_name();
            if let Some((of, partition)) = name.to_str().and_then(|name| name.rsplit_once('-'))
                && of == topic
            {
                logs.push((partition.parse()?, folder.path()));
            }
        }
        Ok(logs)
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

pub(super) fn java_command(java: &Java, more: &[PathBuf]) -> anyhow::Result<Command> {
    let mut command = Command::new(&java.binary);
    let paths = std::iter::once(java.libs.join("*")).chain(more.iter().cloned());
    command.arg("-cp").arg(env::join_paths(paths).context("a colon in the path of jars")?);
    Ok(command)
}
