//! One cluster and one credential: what producers, and whoever asks, share of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::cluster::{Cluster, Network};
use crate::config::{ClusterConfig, Config, ConsumerConfig, ProducerConfig};
use crate::connection::ConnectionSettings;
use crate::consumer::{Consumer, ReaderConnections, Reading};
use crate::deadline::Deadline;
use crate::error::{Cause, NotReady, Reason};
use crate::group::{Group, GroupConnections};
use crate::limits::READER_CONNECTIONS;
use crate::lock::Lock;
use crate::metadata::{Metadata, TopicListing};
use crate::probe::{self, Probe, TopicOperation};
use crate::producer::{Producer, Producing};
use crate::sasl::CredentialSource;
use crate::stage::{ConnectionFailure, Stage};
use crate::stats::{Counters, Stats};
use crate::tasks::Tasks;
use crate::tls::{TlsFileError, TlsStatus};

/// One cluster. Cheap to clone; when the last clone, producer and consumer are gone, its tasks and
/// connections end, and what is still queued is settled as closed.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
}

/// What all handles of a client share. No task of the client holds it: the last handle ends it.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) metadata: Arc<Metadata>,
    default: ProducerConfig,
    /// Made when they are first asked for: who only reads needs no producer id.
    producers: Lock<HashMap<ProducerConfig, Arc<Producing>>>,
    readers: Arc<ReaderConnections>,
    /// Apart from those of readers, whose requests wait for records.
    groups: GroupConnections,
}

impl Client {
    /// A client of the cluster that `config` names. Connections are made when they are needed.
    /// What it logs is within the span that is current now.
    ///
    /// Must be called inside a tokio runtime with IO and time enabled.
    pub fn new(config: Config) -> Client {
        Self::on(config, Network::Sockets, None)
    }

    /// As [`Client::new`], with whoever gives what [`ClusterConfig::credential_source`] asks for.
    pub fn with_credentials(config: Config, source: Arc<dyn CredentialSource>) -> Client {
        Self::on(config, Network::Sockets, Some(source))
    }

    pub(crate) fn on(
        config: Config,
        network: Network,
        source: Option<Arc<dyn CredentialSource>>,
    ) -> Client {
        let Config { cluster: config, producer: default, consumer: _ } = config;
        let shutdown = CancellationToken::new();
        let settings = ConnectionSettings {
            client_id: config.client_id.as_str().into(),
            idle: config.idle,
            stats: Arc::new(Counters::default()),
            tasks: Tasks::new(shutdown.clone()),
            shutdown,
        };
        let tasks = settings.tasks.clone();
        let cluster = Cluster::new(config, settings, network, source);
        let metadata = Metadata::new(cluster.clone());
        if let Some(tls) = &cluster.tls {
            let shutdown = cluster.settings.shutdown.clone();
            tasks.spawn(shutdown.run_until_cancelled_owned(tls.clone().follow_files()));
        }
        tasks.spawn(metadata.clone().run());
        let producers = Lock::default();
        let readers = ReaderConnections::new(cluster.clone(), READER_CONNECTIONS);
        let groups = GroupConnections::new(&cluster);
        let shared = Shared { cluster, metadata, default, producers, readers, groups };
        Client { shared: Arc::new(shared) }
    }

    /// The cluster's configuration.
    pub fn config(&self) -> &ClusterConfig {
        &self.shared.cluster.config
    }

    /// A handle to the producer with the settings that the client was made with.
    pub fn producer(&self) -> Producer {
        self.producer_with(&self.shared.default)
    }

    /// A handle to the producer with these settings, which is made if there is none yet. It shares the
    /// client's metadata, credential and TLS; memory, batches, producer id and connections to leaders
    /// are its own.
    pub fn producer_with(&self, config: &ProducerConfig) -> Producer {
        let shared = &self.shared;
        let mut producers = shared.producers.lock();
        let producing = match producers.get(config) {
            Some(producing) => producing.clone(),
            None => {
                let made = Producing::start(
                    config.clone(),
                    shared.cluster.clone(),
                    shared.metadata.clone(),
                );
                producers.insert(config.clone(), made.clone());
                made
            }
        };
        drop(producers);
        Producer { producing, _client: shared.clone() }
    }

    /// Readers of partitions with these settings. Nothing is connected or asked before the first call.
    pub fn consumer(&self, config: &ConsumerConfig) -> Consumer {
        let shared = &self.shared;
        let reading = Reading {
            cluster: shared.cluster.clone(),
            metadata: shared.metadata.clone(),
            connections: shared.readers.clone(),
            config: config.clone(),
        };
        Consumer { reading, _client: shared.clone() }
    }

    /// A consumer group: its offsets, and memberships in it. Nothing is connected or asked before the first call.
    pub fn group(&self, id: &str) -> Group {
        let Shared { cluster, metadata, groups, .. } = &*self.shared;
        let client = self.shared.clone();
        Group::new(id, cluster.clone(), metadata.clone(), groups.clone(), client)
    }

    /// Ends the producer with these settings, if it holds no record and has no handle.
    pub fn forget_producer(&self, config: &ProducerConfig) -> bool {
        let mut producers = self.shared.producers.lock();
        let idle = producers.get(config).filter(|producing| producing.is_idle(1));
        if idle.is_none() {
            return false;
        }
        producers.remove(config).iter().for_each(|producing| producing.end());
        true
    }

    /// Whether the cluster answers: a broker is asked now, for its metadata without topics, and
    /// others if it does not answer, and whether one of them can be reached where it says it is.
    /// Also whether each idempotent producer that is in use has a producer id.
    ///
    /// # Errors
    /// [`NotReady`] with the last cause, after at most `within`.
    pub async fn ready(&self, within: Duration) -> Result<(), NotReady> {
        self.shared.cluster.check_open().map_err(|_| NotReady::Closed)?;
        let (shared, deadline) = (&self.shared, Instant::now() + within);
        let asked = shared.metadata.ask_now(deadline).await;
        asked.map_err(|last| last.map_or(NotReady::Timeout, NotReady::Unreachable))?;
        if let Some(cause) = shared.cluster.nobody_has_an_address().await {
            return Err(NotReady::Unreachable(cause));
        }
        for producing in shared.producers() {
            let no_id = |last: Arc<Reason>| NotReady::NoProducerId(last.to_string().into());
            let held = producing.ready(deadline).await;
            held.map_err(|last| last.map_or(NotReady::Timeout, no_id))?;
        }
        Ok(())
    }

    /// All topics of the cluster that we may see, asked for now: for patterns of names. At most 50,000.
    ///
    /// # Errors
    /// [`NotReady`] with the last cause, after at most `within`.
    pub async fn topics(&self, within: Duration) -> Result<Vec<TopicListing>, NotReady> {
        self.shared.cluster.check_open().map_err(|_| NotReady::Closed)?;
        let listed = timeout(within, self.shared.metadata.list()).await;
        listed.map_err(|_| NotReady::Timeout)?.map_err(NotReady::Unreachable)
    }

    /// For how long brokers have been asked and none has answered; none if they answer.
    pub fn silent_for(&self) -> Option<Duration> {
        self.shared.metadata.silent_for()
    }

    /// Requests a metadata refresh without waiting for it: for a caller whose records have had no
    /// outcome for long, since a broker that is frozen or cut off leaves its connections open.
    pub fn ask_soon(&self) {
        let metadata = &self.shared.metadata;
        metadata.complain(metadata.generation());
    }

    /// Tries to connect to each bootstrap server, and then to each broker that the cluster
    /// advertises, with a new connection.
    pub async fn probe(&self) -> Vec<Probe> {
        probe::all(&self.shared.cluster, &self.shared.metadata).await
    }

    /// Whether what we are may read a topic or write to it, as a broker says (KIP-430); neither is
    /// done. A broker before 2.3 does not say: then this is `Ok`.
    ///
    /// # Errors
    /// The stage that failed and why, after at most `within`.
    pub async fn may(
        &self,
        operation: TopicOperation,
        topic: &str,
        within: Duration,
    ) -> Result<(), (Stage, Cause)> {
        let asked = timeout(within, probe::may(&self.shared.cluster, operation, topic)).await;
        asked.unwrap_or_else(|_| Err((Stage::Handshake, "no answer in time".into())))
    }

    /// What is wrong with connections to brokers now, as the last attempts showed; nothing before a
    /// first one.
    #[must_use]
    pub fn faults(&self) -> Vec<ConnectionFailure> {
        let producers = self.shared.producers();
        let ids = producers.iter().filter_map(|producing| producing.routing.producer_id.as_ref());
        let refused = ids.filter_map(|producer_id| producer_id.fault()).next();
        let mut faults = self.shared.cluster.faults();
        faults.sort_by(|a, b| a.server.cmp(&b.server));
        faults.into_iter().chain(refused).collect()
    }

    /// Where the cluster is, as configured: `host:port` with commas between.
    #[must_use]
    pub fn bootstrap_servers(&self) -> String {
        let servers = self.shared.cluster.config.bootstrap.iter();
        servers.map(ToString::to_string).collect::<Vec<_>>().join(",")
    }

    /// The id of the cluster, once it has answered.
    #[must_use]
    pub fn cluster_id(&self) -> Option<Arc<str>> {
        self.shared.cluster.id()
    }

    /// Where its brokers say that they are: `host:port` with commas between.
    #[must_use]
    pub fn brokers(&self) -> String {
        let brokers = self.shared.cluster.brokers().into_iter();
        brokers.map(|(_, endpoint)| endpoint.to_string()).collect::<Vec<_>>().join(",")
    }

    /// The SASL mechanism, if there is one.
    #[must_use]
    pub fn mechanism(&self) -> Option<&'static str> {
        let sasl = self.shared.cluster.config.sasl.as_ref();
        sasl.map(|sasl| sasl.mechanism.name())
    }

    /// Reads the files of the TLS configuration again, as it does by itself when one has changed;
    /// connections made from now on take what they hold.
    ///
    /// # Errors
    /// [`TlsFileError`] if something is wrong with them: then what was loaded before stays.
    pub async fn reload(&self) -> Result<(), TlsFileError> {
        match &self.shared.cluster.tls {
            Some(tls) => tls.reload().instrument(self.span()).await,
            None => Ok(()),
        }
    }

    /// The TLS configuration in force, if connections are TLS; before the first connection or
    /// [`Client::reload`] nothing is known of its certificates.
    pub fn tls(&self) -> Option<TlsStatus> {
        self.shared.cluster.tls.as_ref().map(|tls| tls.status())
    }

    /// Counters and gauges as they are now, of all its producers.
    pub fn stats(&self) -> Stats {
        self.shared.cluster.settings.stats.snapshot()
    }

    /// Refuses new records, waits until those that are queued are settled, settles the rest at the
    /// deadline by what is known of their attempts, and ends all tasks and connections.
    pub async fn close(&self, deadline: impl Into<Deadline>) {
        let shared = &self.shared;
        let deadline = deadline.into().or(shared.default.delivery_timeout);
        shared.cluster.close();
        let producers = shared.producers();
        producers.iter().for_each(|producing| producing.drain());
        let drained = async {
            for producing in &producers {
                producing.drained().await;
            }
        };
        if timeout_at(deadline, drained).await.is_err() {
            tracing::warn!(parent: self.span(), "closed_with_records_that_are_not_settled");
        }
        shared.end();
        shared.cluster.settings.tasks.ended().await;
    }

    /// Resolves when this client has ended: with true if a task of it panicked. Then it answers
    /// nothing any more, and whoever depends on it must make another or end as well.
    pub fn ended(&self) -> impl Future<Output = bool> + Send + 'static {
        self.shared.cluster.settings.tasks.shutdown()
    }

    fn span(&self) -> tracing::Span {
        self.shared.cluster.settings.tasks.span.clone()
    }
}

impl Shared {
    pub(crate) fn producers(&self) -> Vec<Arc<Producing>> {
        self.producers.lock().values().cloned().collect()
    }

    fn end(&self) {
        self.producers().iter().for_each(|producing| producing.end());
        self.cluster.settings.shutdown.cancel();
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_broker::{FakeCluster, FakeSettings, Fault, METADATA, When};

    const WITHIN: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn all_topics_are_listed_and_none_is_put_into_use() {
        let cluster = FakeCluster::new(FakeSettings { brokers: 2, ..FakeSettings::default() });
        cluster.create_topic("orders", &[1, 2]);
        cluster.create_topic("payments", &[1]);
        let client = cluster.client(ClusterConfig::new(&cluster.bootstrap()).unwrap().into());
        let listing = |name: &str, partitions| TopicListing {
            name: name.to_owned(),
            partitions,
            is_internal: false,
        };
        let listed = client.topics(WITHIN).await;
        assert_eq!(listed, Ok(vec![listing("orders", 2), listing("payments", 1)]));
        assert_eq!(client.shared.metadata.known("orders"), None);
        for nth in 1..=8 {
            cluster.arm(METADATA, When::Nth(nth), Fault::NoAnswer);
        }
        assert_eq!(client.topics(WITHIN).await, Err(NotReady::Timeout));
        client.close(Instant::now()).await;
        assert_eq!(client.topics(WITHIN).await, Err(NotReady::Closed));
    }

    #[tokio::test(start_paused = true)]
    async fn a_send_without_a_deadline_has_the_delivery_timeout() {
        let cluster = FakeCluster::new(FakeSettings { brokers: 1, ..FakeSettings::default() });
        cluster.create_topic("orders", &[1]);
        let producer = ProducerConfig::default().delivery_timeout(Duration::from_secs(7));
        let named = ClusterConfig::new(&cluster.bootstrap()).unwrap();
        let client = cluster.client(Config { producer, ..named.into() });
        let record = crate::Record::new(b"a");
        let sent = client.producer().send("orders", record, None).await;
        assert!(matches!(sent, crate::Outcome::Written { .. }), "{sent:?}");
        cluster.kill(1);
        let started = Instant::now();
        let sent = client.producer().send("orders", record, None).await;
        assert!(matches!(sent, crate::Outcome::NotWritten(_)), "{sent:?}");
        assert_eq!(started.elapsed().as_secs(), 7);
    }
}
