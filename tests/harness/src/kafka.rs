//! A real Apache Kafka on loopback: brokers that can be stopped, killed, frozen and started again.

mod admin;
mod broker;
mod credentials;
mod dump;
pub(crate) mod metadata;
mod pool;
mod properties;
mod readers;
pub(crate) mod wire;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use crate::process::Process;
use crate::run_dir::RunDir;
use broker::Broker;
pub use credentials::DelegationToken;
pub use dump::DumpedBatch;
pub use metadata::Replicas;
use xtask::tools;
pub use xtask::tools::KafkaVersion;

/// Longest time until every broker is in the cluster's metadata.
const START: Duration = Duration::from_secs(90);

/// How long a broker may take to hand over its leaderships and end.
const STOP: Duration = Duration::from_secs(30);

/// What a cluster has beside the ordinary.
#[derive(Clone, Copy, Debug, Default)]
pub struct Setup<'a> {
    /// Properties of each broker, which win over the built-in ones.
    pub properties: &'a [(&'a str, &'a str)],
    /// Further listeners: name and security protocol. Each has a free port of its own.
    pub listeners: &'a [(&'a str, &'a str)],
    /// Users and passwords that SCRAM knows, with both of its mechanisms.
    pub scram: &'a [(&'a str, &'a str)],
    /// Options of each broker's Java.
    pub java: &'a [String],
    /// Folders of classes, and of jars as `folder/*`, that follow Kafka's own.
    pub class_path: &'a [PathBuf],
    /// Whether figures are taken of it: it starts slowly then, and serves as fast as it can.
    pub is_measured: bool,
}

/// A cluster whose brokers are its controllers too; it ends when this is dropped.
#[derive(Debug)]
pub struct Kafka {
    version: KafkaVersion,
    /// Whether it is kept for another test when it is dropped.
    is_pooled: bool,
    brokers: Vec<Broker>,
    // After the brokers: a folder must not go away under a running process.
    dir: RunDir,
}

impl Kafka {
    /// Fetches Kafka if it must, starts `brokers` of them (1 or more), and waits for all.
    ///
    /// Brokers are numbered from 1. A majority of them must run for the cluster to elect leaders.
    ///
    /// # Errors
    /// When a prerequisite is missing or a broker does not start; its log's end is shown.
    pub async fn start(version: KafkaVersion, brokers: usize) -> anyhow::Result<Self> {
        Self::start_setup(version, brokers, brokers, Setup::default()).await
    }

    /// As [`Kafka::start`], for benchmarks: one or more brokers as they run in production, with
    /// properties of the caller's that win over the built-in ones.
    ///
    /// # Errors
    /// As [`Kafka::start`].
    pub async fn start_measured(
        version: KafkaVersion,
        brokers: usize,
        properties: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let setup = Setup { properties, is_measured: true, ..Setup::default() };
        Self::start_setup(version, brokers, brokers, setup).await
    }

    /// As [`Kafka::start`], with broker properties of the caller's, and controllers in the first
    /// `controllers` brokers alone: the others can then be down together without the cluster losing
    /// its majority.
    ///
    /// # Errors
    /// As [`Kafka::start`].
    pub async fn start_voting(
        version: KafkaVersion,
        brokers: usize,
        controllers: usize,
        properties: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let setup = Setup { properties, ..Setup::default() };
        Self::start_setup(version, brokers, controllers, setup).await
    }

    /// As [`Kafka::start_voting`], with more than properties.
    ///
    /// # Errors
    /// As [`Kafka::start`].
    pub async fn start_setup(
        version: KafkaVersion,
        brokers: usize,
        controllers: usize,
        setup: Setup<'_>,
    ) -> anyhow::Result<Self> {
        let users = setup.scram.iter();
        let users: Vec<_> =
            users.map(|(user, word)| (user.to_string(), word.to_string())).collect();
        let (java, storage) = tokio::task::spawn_blocking(move || {
            let users: Vec<_> = users.iter().map(|(user, word)| (&**user, &**word)).collect();
            let java = tools::kafka_java(version)?;
            let storage = java.storage(&users)?;
            anyhow::Ok((java, storage))
        })
        .await??;
        let dir = RunDir::new("kafka")?;
        let brokers = broker::prepare(brokers, controllers, dir.path(), &setup)?;
        let mut cluster = Self { version, is_pooled: false, brokers, dir };
        let cluster_id = broker::random_id();
        for broker in &cluster.brokers {
            broker.format(&storage, &cluster_id)?;
        }
        for broker in &mut cluster.brokers {
            broker.spawn(&java)?;
        }
        for index in 1..=cluster.brokers.len() {
            cluster.wait_for(index).await?;
        }
        Ok(cluster)
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> KafkaVersion {
        self.version
    }

    /// All brokers, as `bootstrap.servers`.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        let addresses: Vec<String> = self.brokers.iter().map(Broker::address).collect();
        addresses.join(",")
    }

    /// All brokers at a listener of [`Setup::listeners`], as `bootstrap.servers`.
    ///
    /// # Errors
    /// When there is no such listener.
    pub fn bootstrap_at(&self, listener: &str) -> anyhow::Result<String> {
        let addresses: Option<Vec<_>> =
            self.brokers.iter().map(|broker| broker.listener(listener)).collect();
        Ok(addresses.with_context(|| format!("no listener {listener}"))?.join(","))
    }

    /// The brokers that run and are not frozen.
    fn answering(&self) -> Vec<String> {
        self.brokers.iter().filter(|broker| broker.answers()).map(Broker::address).collect()
    }

    /// The `host:port` of broker `id`, counted from 1.
    ///
    /// # Errors
    /// When there is no such broker.
    pub fn address(&self, id: usize) -> anyhow::Result<String> {
        Ok(self.broker(id)?.address())
    }

    /// The folder with logs and data.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The process of broker `id`: for its CPU time, memory and log.
    ///
    /// # Errors
    /// When there is no such broker, or it does not run.
    pub fn process(&mut self, id: usize) -> anyhow::Result<&mut Process> {
        let broker = self.broker_mut(id)?;
        broker.process.as_mut().with_context(|| format!("broker {id} does not run"))
    }

    /// Ends a broker gracefully (SIGTERM) and waits until it is gone.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn stop_broker(&mut self, id: usize) -> anyhow::Result<()> {
        self.process(id)?.stop(STOP).await?;
        self.broker_mut(id)?.process = None;
        Ok(())
    }

    /// Ends a broker at once (SIGKILL).
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill_broker(&mut self, id: usize) -> anyhow::Result<()> {
        self.process(id)?.kill9()?;
        self.broker_mut(id)?.process = None;
        Ok(())
    }

    /// Starts a broker again, on its ports and with its data, and waits until it is in the cluster.
    ///
    /// # Errors
    /// When it does not start, for instance because it runs.
    pub async fn start_broker(&mut self, id: usize) -> anyhow::Result<()> {
        self.spawn_broker(id)?;
        self.wait_for(id).await
    }

    /// Ends a broker gracefully, and starts it again on another port.
    ///
    /// # Errors
    /// When it does not end or start.
    pub async fn move_broker(&mut self, id: usize) -> anyhow::Result<()> {
        self.stop_broker(id).await?;
        self.broker_mut(id)?.move_away()?;
        self.start_broker(id).await
    }

    /// As [`Kafka::start_broker`] without the wait: for brokers that need each other to start.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn spawn_broker(&mut self, id: usize) -> anyhow::Result<()> {
        let java = tools::kafka_java(self.version)?;
        let broker = self.broker_mut(id)?;
        anyhow::ensure!(broker.process.is_none(), "broker {id} runs already");
        broker.spawn(&java)
    }

    /// Makes a broker stop answering without closing anything (SIGSTOP).
    ///
    /// # Errors
    /// When it does not run.
    pub fn freeze_broker(&mut self, id: usize) -> anyhow::Result<()> {
        self.process(id)?.freeze();
        self.broker_mut(id)?.frozen = true;
        Ok(())
    }

    /// Lets a frozen broker go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn thaw_broker(&mut self, id: usize) -> anyhow::Result<()> {
        self.process(id)?.thaw();
        self.broker_mut(id)?.frozen = false;
        Ok(())
    }

    /// Waits until broker `id` answers and says that it is in the cluster.
    ///
    /// # Errors
    /// When it ends, or after 90 seconds.
    pub async fn wait_for(&mut self, id: usize) -> anyhow::Result<()> {
        let address = self.address(id)?;
        let process = self.process(id)?;
        let wait = || metadata::is_in_cluster(&address, id);
        process.wait_ready("to join its cluster", START, wait).await
    }

    /// Checks that every broker that was started still runs: for when a wait was in vain.
    ///
    /// # Errors
    /// When one has ended by itself; its log's end is shown.
    pub fn check(&mut self) -> anyhow::Result<()> {
        let mut running = self.brokers.iter_mut().filter_map(|broker| broker.process.as_mut());
        let ended = running.find_map(|process| (!process.is_running()).then_some(process));
        ended.map_or(Ok(()), |process| Err(process.failure("ended by itself")))
    }

    fn broker(&self, id: usize) -> anyhow::Result<&Broker> {
        let index = id.checked_sub(1);
        index.and_then(|index| self.brokers.get(index)).with_context(|| format!("no broker {id}"))
    }

    fn broker_mut(&mut self, id: usize) -> anyhow::Result<&mut Broker> {
        let index = id.checked_sub(1);
        index
            .and_then(|index| self.brokers.get_mut(index))
            .with_context(|| format!("no broker {id}"))
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        self.release();
        for process in self.brokers.iter_mut().filter_map(|broker| broker.process.as_mut()) {
            // Nothing reads its data any more, so an orderly end would only take time.
            if let Err(error) = process.kill9() {
                eprintln!("{error:#}");
            }
        }
    }
}
