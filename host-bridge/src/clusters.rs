//! Kafka clients: one for each named cluster and for each set of properties that a profile asks
//! of it, shared by whoever asks for the same.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::Uri;
use kafka_client::{Client, ClusterConfig, ProducerConfig, SaslLogin, Secret};
use kafka_upstream_core::access::Authentication;
use kafka_upstream_core::profile::{DEFAULTS, PROPERTIES, Profile};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::access;
use crate::config::schemas::Schemas;
use crate::config::{Config, ConfigError, Places, field, is_loopback};
use crate::credentials;
use crate::encoding::Encoder;
use crate::pipeline::Pipeline;
use crate::registry::Rule;
use crate::registry::connection::Connection;
use crate::registry::registries::Registries;
use crate::security::{self, Properties, Tls};

/// The clients and producers of this process.
pub(crate) struct Clusters {
    properties: BTreeMap<String, Properties>,
    named: BTreeMap<String, Arc<Pipeline>>,
    allowed: BTreeSet<String>,
    tls: Tls,
    allowed_endpoints: BTreeSet<String>,
    registries: Registries,
    places: Places,
    made: Mutex<Made>,
    /// Cancelled when a client cannot go on.
    failed: CancellationToken,
}

#[derive(Default)]
struct Made {
    clients: HashMap<Place, Client>,
    pipelines: HashMap<(Place, ProducerConfig, Vec<Rule>), Arc<Pipeline>>,
}

/// A client by its cluster, the name that filters give it, if they do, and how it connects.
type Place = (String, Option<String>, ClusterConfig);

/// Why a profile gets no producer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("cluster: `{0}` is not in the bridge's configuration")]
    UnknownCluster(String),
    #[error("bootstrap_servers: `{0}` is neither loopback nor in inline_bootstrap_servers")]
    NotAllowed(String),
    #[error(transparent)]
    Security(#[from] security::Refusal),
    #[error(transparent)]
    Authentication(#[from] access::Refusal),
    #[error("{0}: `{1}` is neither loopback nor in inline_token_endpoints")]
    TokenEndpoint(&'static str, String),
    #[error(
        "schema_registry.confluent.url: `{0}` is neither loopback nor in inline_schema_registries"
    )]
    Registry(String),
    #[error(
        "schema_registry.confluent.authentication.oauth2_client.{0}: the bridge cannot do that, {1}"
    )]
    NotServed(&'static str, &'static str),
    #[error("properties: a profile cannot set `{0}`")]
    NotOfAProfile(String),
    #[error(transparent)]
    Property(#[from] kafka_client::PropertyError),
    #[error("{PIPELINES_MAX} different producers are in use")]
    TooMany,
}

impl Refusal {
    /// The setting of the bridge that could allow what is refused; else the field that is named is
    /// the filter's to change.
    fn setting(&self) -> Option<String> {
        match self {
            Self::UnknownCluster(name) => Some(format!("clusters.{name}")),
            Self::NotAllowed(_) => Some("inline_bootstrap_servers".to_owned()),
            Self::TokenEndpoint(..) => Some("inline_token_endpoints".to_owned()),
            Self::Registry(_) => Some("inline_schema_registries".to_owned()),
            Self::Security(refusal) => Some(refusal.setting()),
            Self::Authentication(_)
            | Self::NotServed(..)
            | Self::NotOfAProfile(_)
            | Self::Property(_)
            | Self::TooMany => None,
        }
    }
}

impl Clusters {
    /// Makes a client for each configured cluster; none connects before it is used. Reads the files
    /// of their TLS configuration.
    pub(crate) fn new(config: &Config) -> Result<Self, ConfigError> {
        let mut clusters = Self {
            properties: config.clusters.clone(),
            named: BTreeMap::new(),
            allowed: config.inline_bootstrap_servers.clone(),
            tls: config.tls.clone(),
            allowed_endpoints: config.inline_token_endpoints.clone(),
            registries: Registries::new(
                &config.schemas.registries,
                &config.inline_schema_registries,
            ),
            places: config.places.clone(),
            made: Mutex::default(),
            failed: CancellationToken::new(),
        };
        config.tls.check()?;
        for (name, properties) in &config.clusters {
            let refused = |reason: String| field(&format!("clusters.{name}"), &reason);
            let checked = read(properties).map_err(|error| refused(error.to_string()))?;
            checked.cluster.check_files().map_err(|error| refused(error.to_string()))?;
            let rules = config.schemas.of_cluster(name);
            let pipeline = clusters
                .pipeline(name, None, checked, rules)
                .map_err(|refusal| refused(refusal.to_string()))?;
            clusters.named.insert(name.clone(), pipeline);
        }
        Ok(clusters)
    }

    /// A cluster by its configured name.
    pub(crate) fn named(&self, name: &str) -> Option<&Arc<Pipeline>> {
        self.named.get(name)
    }

    /// All configured clusters.
    pub(crate) fn all(&self) -> impl Iterator<Item = (String, Client)> {
        self.named.iter().map(|(name, pipeline)| (name.clone(), pipeline.client().clone()))
    }

    /// Watches every configured cluster.
    pub(crate) fn watch(&self) -> impl Future<Output = ()> + Send + 'static {
        let named: Vec<_> = self.named.values().cloned().collect();
        async move {
            futures_util::future::join_all(named.iter().map(|pipeline| pipeline.watch())).await;
        }
    }

    /// Whether each configured cluster answered when it was last asked.
    pub(crate) fn readiness(&self) -> impl Iterator<Item = (&str, bool)> {
        self.named.iter().map(|(name, pipeline)| (&**name, pipeline.is_ready()))
    }

    /// The pipeline that a profile asks for, made if it is new.
    pub(crate) fn for_profile(&self, profile: &Profile) -> Result<Arc<Pipeline>, Refusal> {
        self.for_capture(profile, &Schemas::default())
    }

    /// The same for the bridge's own captures: what names no schema has that of its topic.
    pub(crate) fn for_capture(
        &self,
        profile: &Profile,
        schemas: &Schemas,
    ) -> Result<Arc<Pipeline>, Refusal> {
        let (cluster, properties) = self.properties(profile)?;
        let mut config = read(&properties)?;
        let trust = config.cluster.https_trust();
        let rules = match Rule::of_profile(profile, trust.clone()) {
            Some(rule) => {
                self.check_registry(&rule.connection)?;
                vec![rule]
            }
            None if profile.bootstrap_servers.is_empty() => schemas.of_cluster(cluster),
            None => Vec::new(),
        };
        let asked = profile.authentication.as_ref().map(|asked| access::login(asked, trust));
        if let Some(login) = asked.transpose()?.flatten() {
            config.cluster = config.cluster.sasl(login)?;
        }
        self.pipeline(cluster, profile.cluster_name.clone(), config, rules)
    }

    /// The schemas that a profile names itself.
    pub(crate) fn rule(&self, profile: &Profile) -> Option<Rule> {
        let (_, properties) = self.properties(profile).ok()?;
        Rule::of_profile(profile, read(&properties).ok()?.cluster.https_trust())
    }

    pub(crate) fn registries(&self) -> &Registries {
        &self.registries
    }

    /// A client of a named cluster that shows brokers a token (OAUTHBEARER); whoever asks has it alone.
    pub(crate) fn by_token(&self, name: &str, token: Secret) -> Option<Client> {
        // The configuration was checked.
        let config = read(self.properties.get(name)?).ok()?;
        let cluster = config.cluster.sasl(SaslLogin::Token(token)).ok()?;
        let span = tracing::error_span!("kafka", cluster = name);
        Some(span.in_scope(|| credentials::client(kafka_client::Config { cluster, ..config })))
    }

    /// Why a profile is refused, and where that can be changed.
    pub(crate) fn told(&self, refusal: &Refusal) -> String {
        let place = match refusal.setting() {
            Some(setting) => self.places.to_change(&setting),
            None if matches!(refusal, Refusal::TooMany) => return refusal.to_string(),
            None => "in the filter's configuration".to_owned(),
        };
        format!("{refusal} ({place})")
    }

    /// What a profile sets, over what its cluster sets, over the defaults.
    fn properties<'a>(&self, profile: &'a Profile) -> Result<(&'a str, Properties), Refusal> {
        let (name, mut properties) = if profile.bootstrap_servers.is_empty() {
            let name = profile.cluster.as_deref().unwrap_or("default");
            let known = self.properties.get(name);
            let known = known.ok_or_else(|| Refusal::UnknownCluster(name.to_owned()))?;
            let mut properties = known.clone();
            if let Some(asked) = &profile.security {
                self.tls.of_cluster(name, asked, &mut properties)?;
            }
            (name, properties)
        } else {
            let refused = profile.bootstrap_servers.iter().find(|server| !self.allows(server));
            if let Some(server) = refused {
                return Err(Refusal::NotAllowed(without_secrets(server)));
            }
            let servers = profile.bootstrap_servers.join(",");
            let mut properties = BTreeMap::from([("bootstrap.servers".to_owned(), servers)]);
            self.tls.inline(profile.security.as_ref(), &mut properties)?;
            (INLINE, properties)
        };
        let idempotent = properties.get("enable.idempotence").is_some_and(|value| value == "true");
        for (property, value) in DEFAULTS {
            if idempotent && property == "acks" {
                continue;
            }
            properties.entry(property.to_owned()).or_insert_with(|| value.to_owned());
        }
        for (property, value) in &profile.properties {
            if !PROPERTIES.contains(&property.as_str()) {
                return Err(Refusal::NotOfAProfile(property.clone()));
            }
            properties.insert(property.clone(), value.clone());
        }
        if let Some(authentication) = &profile.authentication {
            self.check_token_endpoint(authentication)?;
            access::apply(authentication, &mut properties)?;
        }
        raise(&mut properties, "retry.backoff.max.ms", "retry.backoff.ms", BACKOFF_MAX_MS);
        raise(&mut properties, "max.request.size", "batch.size", REQUEST_BYTES);
        Ok((name, properties))
    }

    /// Has every client read the files of its TLS configuration again; failures are logged where
    /// they happen, and leave what was there.
    pub(crate) async fn reload(&self) {
        for (_, client) in self.clients() {
            let _logged = client.reload().await;
        }
    }

    /// Drains every client, all at once.
    pub(crate) async fn close(&self, deadline: Instant) {
        let mut closing = tokio::task::JoinSet::new();
        for (_, client) in self.clients() {
            closing.spawn(async move { client.close(deadline).await });
        }
        closing.join_all().await;
    }

    /// Resolves when a client cannot go on.
    pub(crate) async fn failed(&self) {
        self.failed.cancelled().await;
    }

    /// Every client with its cluster's name; several may be of one cluster.
    pub(crate) fn clients(&self) -> Vec<(String, Client)> {
        let clients = &self.made().clients;
        clients.iter().map(|((cluster, ..), client)| (cluster.clone(), client.clone())).collect()
    }

    fn pipeline(
        &self,
        cluster: &str,
        own_name: Option<String>,
        config: kafka_client::Config,
        rules: Vec<Rule>,
    ) -> Result<Arc<Pipeline>, Refusal> {
        let place = (cluster.to_owned(), own_name, config.cluster.clone());
        let key = (place, config.producer.clone(), rules);
        let mut made = self.made();
        if let Some(pipeline) = made.pipelines.get(&key) {
            return Ok(Arc::clone(pipeline));
        }
        if made.pipelines.len() >= PIPELINES_MAX && !made.forget_one() {
            return Err(Refusal::TooMany);
        }
        let client = match made.clients.get(&key.0) {
            Some(client) => client.clone(),
            None => {
                let client = self.connect(cluster, config);
                made.clients.insert(key.0.clone(), client.clone());
                client
            }
        };
        let encoder = Encoder::new(&key.2, &self.registries);
        let pipeline = Arc::new(Pipeline::new(cluster, client, &key.1, encoder));
        made.pipelines.insert(key, Arc::clone(&pipeline));
        Ok(pipeline)
    }

    fn connect(&self, cluster: &str, config: kafka_client::Config) -> Client {
        // Of the level of errors, so that whoever logs these alone has it.
        let span = tracing::error_span!("kafka", cluster);
        let client = span.in_scope(|| credentials::client(config));
        let (ended, failed) = (client.ended(), self.failed.clone());
        tokio::spawn(async move {
            if ended.await {
                failed.cancel();
            }
        });
        client
    }

    fn allows(&self, server: &str) -> bool {
        let loopback = |address: SocketAddr| is_loopback(address.ip());
        self.allowed.contains(server)
            || server.parse().is_ok_and(loopback)
            || server.strip_prefix("localhost:").is_some_and(|port| port.parse::<u16>().is_ok())
    }

    /// A filter must not make the bridge ask whom it likes.
    fn check_token_endpoint(&self, authentication: &Authentication) -> Result<(), Refusal> {
        let oauth = authentication.oauthbearer.as_ref();
        let url = oauth.and_then(|oauth| oauth.token_endpoint_url.as_deref());
        url.filter(|url| !self.may_ask(url)).map_or(Ok(()), |url| {
            Err(Refusal::TokenEndpoint("token_endpoint_url", without_secrets(url)))
        })
    }

    fn check_registry(&self, connection: &Connection) -> Result<(), Refusal> {
        if let Some(url) = self.registries.forbidden(connection, is_loopback_url) {
            return Err(Refusal::Registry(without_secrets(url)));
        }
        if let Some(url) = connection.token_endpoint().filter(|url| !self.may_ask(url)) {
            return Err(Refusal::TokenEndpoint(REGISTRY_ENDPOINT, without_secrets(url)));
        }
        let not_served = connection.not_served();
        not_served.map_or(Ok(()), |(field, why)| Err(Refusal::NotServed(field, why)))
    }

    fn may_ask(&self, endpoint: &str) -> bool {
        self.allowed_endpoints.contains(endpoint) || is_loopback_url(endpoint)
    }

    fn made(&self) -> std::sync::MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn read(
    properties: &Properties,
) -> Result<kafka_client::Config, kafka_client::PropertyError> {
    let pairs = properties.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    kafka_client::Config::from_properties(pairs)
}

/// An address without a user, a password and arguments, wherever a misspelt one has them.
fn without_secrets(address: &str) -> String {
    let rest = address.rsplit_once('@').map_or(address, |(_, rest)| rest);
    rest.split(['?', '#', ';', '&']).next().unwrap_or_default().to_owned()
}

fn is_loopback_url(url: &str) -> bool {
    let host = url.parse::<Uri>().ok().and_then(|url| url.host().map(str::to_owned));
    let host = host.unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse().is_ok_and(is_loopback)
}

/// A filter that asks for more than the cluster's own bound, or Kafka's default, gets it.
fn raise(properties: &mut Properties, bound: &str, property: &str, default: u64) {
    let number = |name: &str| properties.get(name).and_then(|value| value.parse::<u64>().ok());
    if let Some(wanted) = number(property).filter(|n| *n > number(bound).unwrap_or(default)) {
        properties.insert(bound.to_owned(), wanted.to_string());
    }
}

impl Made {
    /// Forgets the pipeline that has not been used for longest, of those that hold no record, have no
    /// name and are not about to be used: who needs it again registers again. Its client goes with its
    /// last pipeline.
    fn forget_one(&mut self) -> bool {
        // With other schemas it may share its producer.
        let sharing = |(place, producer, _): &(Place, ProducerConfig, Vec<Rule>)| {
            let is_its = |other: &&(Place, _, _)| other.0 == *place && other.1 == *producer;
            self.pipelines.keys().filter(is_its).count() > 1
        };
        let is_idle = |(key, it): &(&_, &Arc<Pipeline>)| {
            Arc::strong_count(it) == 1 && (it.is_idle() || sharing(key))
        };
        let idle = self.pipelines.iter().filter(is_idle);
        let oldest = idle.min_by_key(|(_, pipeline)| pipeline.last_used());
        let Some(key) = oldest.map(|(key, _)| key.clone()) else { return false };
        let is_shared = sharing(&key);
        self.pipelines.remove(&key);
        let (place, producer, _) = key;
        if is_shared {
            true
        } else if self.pipelines.keys().any(|(other, ..)| *other == place) {
            self.clients.get(&place).is_some_and(|client| client.forget_producer(&producer))
        } else {
            self.clients.remove(&place).is_some()
        }
    }
}

/// Where a registry's client gets its tokens.
const REGISTRY_ENDPOINT: &str = "schema_registry.confluent.authentication.oauth2.token_endpoint";
/// How clusters that filters name by their addresses are called.
const INLINE: &str = "inline";
/// Most producers at a time: each holds memory, and some have a client of their own.
const PIPELINES_MAX: usize = 256;
/// `retry.backoff.max.ms` unless it is configured.
const BACKOFF_MAX_MS: u64 = 1000;
/// `max.request.size` unless it is configured.
const REQUEST_BYTES: u64 = 4 * 1024 * 1024;

#[cfg(test)]
mod tests;
