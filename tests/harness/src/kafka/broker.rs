//! One broker: its ports, its folder, its process.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use xtask::tools::{KafkaJava, QUICK};

use super::{Setup, properties};
use crate::ports;
use crate::process::Process;

#[derive(Debug)]
pub(super) struct Broker {
    pub(super) process: Option<Process>,
    /// Whether it runs without answering.
    pub(super) frozen: bool,
    is_measured: bool,
    id: usize,
    port: u16,
    listeners: Vec<(String, String, u16)>,
    java: Vec<String>,
    class_path: Vec<PathBuf>,
    dir: PathBuf,
}

/// An id as Kafka makes them.
pub(super) fn random_id() -> String {
    BASE64_URL_SAFE_NO_PAD.encode(fastrand::u128(..).to_be_bytes())
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
        let broker = Broker {
            process: None,
            frozen: false,
            is_measured: setup.is_measured,
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
        let mut own = Vec::new();
        if !setup.is_measured {
            own.extend(properties::QUICK);
        }
        own.extend(setup.properties);
        let text = properties::render(node, &nodes, controllers, &data, &own);
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

    /// Makes its storage, from that of [`KafkaJava::storage`], as one of this cluster.
    pub(super) fn format(&self, template: &Path, cluster_id: &str) -> anyhow::Result<()> {
        let data = self.dir.join("data");
        fs::create_dir(&data)?;
        fs::copy(template.join("bootstrap.checkpoint"), data.join("bootstrap.checkpoint"))?;
        let (id, directory) = (self.id, random_id());
        let meta =
            format!("version=1\ncluster.id={cluster_id}\nnode.id={id}\ndirectory.id={directory}\n");
        Ok(fs::write(data.join("meta.properties"), meta)?)
    }

    pub(super) fn spawn(&mut self, java: &KafkaJava) -> anyhow::Result<()> {
        let mut command = java.command(&self.class_path)?;
        command.args(["-Xms256m", "-Xmx512m"]);
        if self.is_measured {
            command.args(["-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"]);
        } else {
            command.args(QUICK);
        }
        command.args(&self.java).arg("-Dorg.slf4j.simpleLogger.showDateTime=true");
        command.arg("kafka.Kafka").arg(self.properties());
        let name = format!("kafka broker {}", self.id);
        self.frozen = false;
        self.process = Some(Process::spawn(&name, command, &self.dir.join("broker.log"))?);
        Ok(())
    }

    /// Gives it another port, from its next start on.
    pub(super) fn move_away(&mut self) -> anyhow::Result<()> {
        let former = self.address();
        self.port = ports::free()?;
        let text = fs::read_to_string(self.properties())?.replace(&former, &self.address());
        Ok(fs::write(self.properties(), text)?)
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
