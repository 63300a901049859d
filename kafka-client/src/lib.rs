//! A tokio client for Apache Kafka that says what became of each record.
//!
//! A [`Client`] is one cluster; its [`Producer`] sends records, and each record ends as exactly
//! one [`Outcome`]: written, provably not written, or unknown.

mod backoff;
mod calls;
mod cluster;
mod config;
mod connection;
#[cfg(feature = "fake_broker")]
pub mod decoders;
mod error;
#[cfg(feature = "fake_broker")]
pub mod fake_broker;
#[doc(hidden)]
pub mod files;
mod frame;
mod handshake;
mod limits;
mod lock;
mod metadata;
mod news;
mod outcome;
mod producer;
pub mod record_batch;
mod resolve;
mod sasl;
mod secret;
mod shape;
mod stats;
mod step;
mod tasks;
mod tls;
mod told;
mod versions;
mod walk;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

pub use config::{Config, PropertyDoc, PropertyError, properties};
pub use error::{Cause, NotReady, Reason};
pub use outcome::Outcome;
pub use producer::{Permit, Producer, Ticket, Topic, record_size};
pub use record_batch::Record;
pub use sasl::{
    AwsBase, AwsClient, AwsKeys, AwsRole, ClockSkew, Credential, CredentialSource, Lease,
    Mechanism, OAuthClient, Obtaining, Presigned, Source, aws_time,
};
pub use secret::{Secret, SecretSource};
pub use stats::Stats;
pub use step::{Fault, Step};
pub use tls::{HttpsTrust, TlsFileError, TlsStatus};
pub use walk::Walk;

use cluster::{Cluster, Network};
use connection::Settings;
use metadata::Metadata;
use producer::{BatchLimits, Ledger, Memory, PartitionSettings, Routing};
use stats::Counters;
use tasks::Tasks;

/// One cluster. Cheap to clone; when the last clone and the last producer are gone, its tasks and
/// connections end, and what is still queued is settled as closed.
#[derive(Debug, Clone)]
pub struct Client {
    producer: Producer,
}

/// Ends a client when its last handle is dropped.
#[derive(Debug)]
pub(crate) struct Lifetime {
    routing: Arc<Routing>,
    closed: AtomicBool,
}

impl Client {
    /// A client of the cluster that `config` names. Connections are made when they are needed.
    /// What it logs is within the span that is current now.
    ///
    /// Must be called inside a tokio runtime with IO and time enabled.
    pub fn new(config: Config) -> Client {
        Self::on(config, Network::Sockets, None)
    }

    /// As [`Client::new`], with whoever gives what [`Config::credential_source`] asks for.
    pub fn with_credentials(config: Config, source: Arc<dyn CredentialSource>) -> Client {
        Self::on(config, Network::Sockets, Some(source))
    }

    pub(crate) fn on(
        config: Config,
        network: Network,
        source: Option<Arc<dyn CredentialSource>>,
    ) -> Client {
        let stats = Arc::new(Counters::default());
        let shutdown = CancellationToken::new();
        let settings = Settings {
            client_id: config.client_id.as_str().into(),
            idle: config.idle,
            stats: stats.clone(),
            tasks: Tasks::new(shutdown.clone()),
            shutdown,
        };
        let limits = BatchLimits {
            batch_bytes: config.batch_bytes,
            batch_records: config.batch_records,
            request_bytes: config.request_bytes,
            buffer_bytes: config.buffer_bytes,
            linger: config.linger,
            idempotent_in_flight: config.is_idempotent().then_some(config.in_flight),
        };
        let memory = Memory::new(config.buffer_bytes, stats.clone());
        let ledger = Ledger::new(memory, stats);
        let partitioner = config.partitioner;
        let tasks = settings.tasks.clone();
        let cluster = Cluster::new(config, settings, network, source);
        let metadata = Metadata::new(cluster.clone());
        let routing = Routing::new(cluster, metadata.clone());
        if let Some(tls) = &routing.cluster.tls {
            let shutdown = routing.cluster.settings.shutdown.clone();
            tasks.spawn(shutdown.run_until_cancelled_owned(tls.clone().follow_files()));
        }
        tasks.spawn(metadata.run());
        tasks.spawn(routing.clone().follow_metadata());
        tasks.spawn(routing.clone().follow_clock());
        if let Some(producer_id) = &routing.producer_id {
            tasks.spawn(producer_id.clone().run());
            tasks.spawn(routing.clone().follow_producer_id(producer_id.clone()));
        }
        let lifetime = Lifetime { routing: routing.clone(), closed: AtomicBool::new(false) };
        let settings = PartitionSettings { limits, partitioner, ledger };
        Client { producer: Producer { routing, settings, lifetime: Arc::new(lifetime) } }
    }

    /// Whether the cluster answers: a broker is asked now, for its metadata without topics, and
    /// others if it does not answer, and whether one of them can be reached where it says it is.
    /// With idempotence also whether there is a producer id.
    ///
    /// # Errors
    /// [`NotReady`] with the last cause, after at most `within`.
    pub async fn ready(&self, within: Duration) -> Result<(), NotReady> {
        self.producer.lifetime.check().map_err(|_| NotReady::Closed)?;
        let (routing, deadline) = (&self.producer.routing, Instant::now() + within);
        let asked = routing.metadata.ask_now(deadline).await;
        asked.map_err(|last| last.map_or(NotReady::Timeout, NotReady::Unreachable))?;
        if let Some(cause) = routing.cluster.nobody_has_an_address().await {
            return Err(NotReady::Unreachable(cause));
        }
        let Some(producer_id) = &routing.producer_id else { return Ok(()) };
        let held = producer_id.ready(deadline).await;
        let no_id = |last: Arc<Reason>| NotReady::NoProducerId(last.to_string().into());
        held.map_err(|last| last.map_or(NotReady::Timeout, no_id))
    }

    /// For how long brokers have been asked and none has answered; none if they answer.
    pub fn silent_for(&self) -> Option<Duration> {
        self.producer.routing.metadata.silent_for()
    }

    /// Asks the brokers soon, without waiting for the answer: for who has waited long for an outcome,
    /// since a broker that is frozen or cut off leaves its connections open.
    pub fn probe(&self) {
        let metadata = &self.producer.routing.metadata;
        metadata.complain(metadata.generation());
    }

    /// Reads the files of the TLS configuration again, as it does by itself when one has changed;
    /// connections made from now on take what they hold.
    ///
    /// # Errors
    /// [`TlsFileError`] if something is wrong with them: then what was loaded before stays.
    pub async fn reload(&self) -> Result<(), TlsFileError> {
        match &self.producer.routing.cluster.tls {
            Some(tls) => tls.reload().instrument(self.span()).await,
            None => Ok(()),
        }
    }

    /// The TLS configuration in force, if connections are TLS; before the first connection or
    /// [`Client::reload`] nothing is known of its certificates.
    pub fn tls(&self) -> Option<TlsStatus> {
        self.producer.routing.cluster.tls.as_ref().map(|tls| tls.status())
    }

    /// A handle to the producer of this client.
    pub fn producer(&self) -> Producer {
        self.producer.clone()
    }

    /// Counters and gauges as they are now.
    pub fn stats(&self) -> Stats {
        self.producer.settings.ledger.stats.snapshot()
    }

    /// Refuses new records, waits until those that are queued are settled, settles the rest at the
    /// deadline by what is known of their attempts, and ends all tasks and connections.
    pub async fn close(&self, deadline: Instant) {
        let lifetime = &self.producer.lifetime;
        let routing = &self.producer.routing;
        lifetime.closed.store(true, Relaxed);
        self.producer.settings.ledger.memory.close();
        for partition in routing.partitions() {
            partition.queue.lock().drain();
            routing.attend(&partition);
        }
        if timeout_at(deadline, self.producer.settings.ledger.drained()).await.is_err() {
            tracing::warn!(parent: self.span(), "closed_with_records_that_are_not_settled");
        }
        lifetime.end();
        routing.cluster.settings.tasks.ended().await;
    }

    /// Resolves when this client has ended: with true if a task of it panicked. Then it answers
    /// nothing any more, and whoever depends on it must make another or end as well.
    pub fn ended(&self) -> impl Future<Output = bool> + Send + 'static {
        self.producer.routing.cluster.settings.tasks.shutdown()
    }

    fn span(&self) -> tracing::Span {
        self.producer.routing.cluster.settings.tasks.span.clone()
    }
}

impl Lifetime {
    pub(crate) fn check(&self) -> Result<(), Reason> {
        if self.closed.load(Relaxed) { Err(Reason::Closed) } else { Ok(()) }
    }

    fn end(&self) {
        for partition in self.routing.partitions() {
            partition.queue.lock().give_up(&Reason::Closed);
        }
        self.routing.cluster.settings.shutdown.cancel();
    }
}

impl Drop for Lifetime {
    fn drop(&mut self) {
        self.end();
    }
}
