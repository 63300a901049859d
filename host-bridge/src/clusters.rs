//! Kafka clients: one for each named cluster and for each set of properties that a profile asks
//! for, shared by whoever asks for the same.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use kafka_client::{Client, Producer};
use kafka_upstream_core::profile::Profile;
use tokio::time::Instant;

use crate::config::{Config, ConfigError, is_loopback};

/// The clients of this process.
pub(crate) struct Clusters {
    properties: BTreeMap<String, BTreeMap<String, String>>,
    named: BTreeMap<String, Client>,
    allowed: BTreeSet<String>,
    by_config: Mutex<ByConfig>,
    began: Instant,
}

type ByConfig = HashMap<kafka_client::Config, Arc<Shared>>;

/// A client that all share who ask for the same settings.
pub(crate) struct Shared {
    cluster: String,
    client: Client,
    /// When it was last asked for, in ms after the start.
    used_ms: AtomicU64,
}

/// Why a profile gets no producer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("cluster: `{0}` is not in the bridge's configuration")]
    UnknownCluster(String),
    #[error("bootstrap_servers: `{0}` is neither loopback nor in inline_bootstrap_servers")]
    NotAllowed(String),
    #[error(transparent)]
    Property(#[from] kafka_client::PropertyError),
    #[error("{CLIENTS_MAX} different producers are in use")]
    TooMany,
}

impl Clusters {
    /// Makes a client for each configured cluster; none connects before it is used.
    pub(crate) fn new(config: &Config) -> Result<Self, ConfigError> {
        let mut clusters = Self {
            properties: config.clusters.clone(),
            named: BTreeMap::new(),
            allowed: config.inline_bootstrap_servers.clone(),
            by_config: Mutex::new(HashMap::new()),
            began: Instant::now(),
        };
        for (name, properties) in &config.clusters {
            let client =
                clusters.client(name, properties).map_err(|refusal| ConfigError::Field {
                    field: format!("clusters.{name}"),
                    reason: refusal.to_string(),
                })?;
            clusters.named.insert(name.clone(), client.client.clone());
        }
        Ok(clusters)
    }

    /// A cluster by its configured name.
    pub(crate) fn named(&self, name: &str) -> Option<&Client> {
        self.named.get(name)
    }

    /// All configured clusters.
    pub(crate) fn all(&self) -> &BTreeMap<String, Client> {
        &self.named
    }

    /// The client that a profile asks for, made if it is new.
    pub(crate) fn for_profile(&self, profile: &Profile) -> Result<Arc<Shared>, Refusal> {
        let (name, mut properties) = if profile.bootstrap_servers.is_empty() {
            let name = profile.cluster.as_deref().unwrap_or("default");
            let known = self.properties.get(name);
            (name, known.ok_or_else(|| Refusal::UnknownCluster(name.to_owned()))?.clone())
        } else {
            let refused = profile.bootstrap_servers.iter().find(|server| !self.allows(server));
            if let Some(server) = refused {
                return Err(Refusal::NotAllowed(server.clone()));
            }
            let servers = profile.bootstrap_servers.join(",");
            (INLINE, BTreeMap::from([("bootstrap.servers".to_owned(), servers)]))
        };
        for (property, value) in [
            ("acks", profile.acks.to_string()),
            ("request.timeout.ms", profile.request_timeout_ms.to_string()),
            ("retries", profile.retries.to_string()),
            ("retry.backoff.ms", profile.retry_backoff_ms.to_string()),
            ("retry.backoff.max.ms", profile.retry_backoff_ms.max(BACKOFF_MAX_MS).to_string()),
            ("compression.type", profile.compression.name().to_owned()),
            ("linger.ms", profile.linger_ms.to_string()),
            ("partitioner", profile.partitioner.name().to_owned()),
        ] {
            properties.insert(property.to_owned(), value);
        }
        self.client(name, &properties)
    }

    /// Drains every client, all at once.
    pub(crate) async fn close(&self, deadline: Instant) {
        let mut closing = tokio::task::JoinSet::new();
        for (_, client) in self.clients() {
            closing.spawn(async move { client.close(deadline).await });
        }
        closing.join_all().await;
    }

    /// Every client with its cluster's name; several may be of one cluster.
    pub(crate) fn clients(&self) -> Vec<(String, Client)> {
        let of = |shared: &Arc<Shared>| (shared.cluster.clone(), shared.client.clone());
        self.lock().values().map(of).collect()
    }

    /// The producer of a client, which is in use now.
    pub(crate) fn producer(&self, shared: &Shared) -> Producer {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        shared.used_ms.store(now, Relaxed);
        shared.client.producer()
    }

    fn client(
        &self,
        cluster: &str,
        properties: &BTreeMap<String, String>,
    ) -> Result<Arc<Shared>, Refusal> {
        let pairs = properties.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let config = kafka_client::Config::from_properties(pairs)?;
        let mut clients = self.lock();
        if let Some(shared) = clients.get(&config) {
            return Ok(Arc::clone(shared));
        }
        if clients.len() >= CLIENTS_MAX && !forget_one(&mut clients) {
            return Err(Refusal::TooMany);
        }
        let client = Client::new(config.clone());
        let (cluster, used_ms) = (cluster.to_owned(), AtomicU64::new(0));
        let shared = Arc::new(Shared { cluster, client, used_ms });
        self.producer(&shared);
        clients.insert(config, Arc::clone(&shared));
        Ok(shared)
    }

    fn allows(&self, server: &str) -> bool {
        let loopback = |address: SocketAddr| is_loopback(address.ip());
        self.allowed.contains(server)
            || server.parse().is_ok_and(loopback)
            || server.strip_prefix("localhost:").is_some_and(|port| port.parse::<u16>().is_ok())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ByConfig> {
        self.by_config.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets the client that has not been used for longest, of those that hold no record: who needs
/// it again registers again.
fn forget_one(clients: &mut ByConfig) -> bool {
    let idle = clients.iter().filter(|(_, shared)| shared.client.stats().buffered_bytes == 0);
    let oldest = idle.min_by_key(|(_, shared)| shared.used_ms.load(Relaxed));
    let Some(config) = oldest.map(|(config, _)| config.clone()) else { return false };
    clients.remove(&config).is_some()
}

/// How clusters that filters name by their addresses are called.
const INLINE: &str = "inline";
/// Most clients at a time: each holds connections and memory.
const CLIENTS_MAX: usize = 256;
/// Longest backoff between attempts, in ms, as Kafka's own default.
const BACKOFF_MAX_MS: u32 = 1000;
