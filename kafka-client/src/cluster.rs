//! The brokers of one cluster, and how to reach them.

pub(crate) mod anyone;
mod failure;
mod faults;
mod link;
mod network;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

pub(crate) use failure::ConnectError;
#[cfg(feature = "fake_broker")]
use failure::DialError;
use faults::Faults;
pub(crate) use link::Link;
pub(crate) use network::Network;

use crate::backoff::random;
use crate::config::Config;
use crate::connection::{Connection, Settings};
use crate::handshake::{self, Handshake, HandshakeError};
use crate::limits::CONNECT_TIMEOUT_MAX;
use crate::lock::Lock;
use crate::resolve::Endpoint;
use crate::sasl::{CredentialSource, Login};
use crate::step::{Fault, Step};
use crate::tls::{Tls, TlsError};
use crate::versions::API_VERSIONS;

/// Where brokers are, and the settings of every connection to them.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) config: Config,
    pub(crate) settings: Settings,
    /// If connections are TLS.
    pub(crate) tls: Option<Arc<Tls>>,
    network: Network,
    login: Option<Arc<Login>>,
    faults: Faults,
    directory: Lock<Directory>,
}

#[derive(Debug, Default)]
struct Directory {
    brokers: BTreeMap<i32, Endpoint>,
    /// Who told us these addresses; for the message when one cannot be reached.
    named_by: Option<Endpoint>,
}

impl Cluster {
    pub(crate) fn new(
        config: Config,
        settings: Settings,
        network: Network,
        source: Option<Arc<dyn CredentialSource>>,
    ) -> Arc<Self> {
        let login = config.sasl.clone().map(|sasl| Login::new(sasl, source));
        let tls = config.security.has_tls().then(|| {
            let stats = settings.stats.clone();
            Arc::new(Tls::new(config.tls.clone(), stats))
        });
        Arc::new(Self {
            config,
            settings,
            tls,
            network,
            login,
            faults: Faults::default(),
            directory: Lock::default(),
        })
    }

    /// Takes over the addresses that `named_by` advertised.
    pub(crate) fn learn(&self, brokers: Vec<(i32, Endpoint)>, named_by: Endpoint) {
        let mut directory = self.directory.lock();
        directory.brokers = brokers.into_iter().collect();
        directory.named_by = Some(named_by);
        // A bootstrap server has done its part, whether it answered or another did.
        self.faults.retain(|endpoint| directory.brokers.values().any(|at| at == endpoint));
    }

    /// Brokers that cannot be reached now.
    pub(crate) fn faults(&self) -> Vec<Fault> {
        self.faults.list()
    }

    /// The steps that the way to each broker has with these settings.
    pub(crate) fn steps(&self) -> impl Iterator<Item = Step> {
        let (tls, sasl) = (self.tls.is_some(), self.login.is_some());
        let is_taken = move |step: &Step| match step {
            Step::Tls => tls,
            Step::Mechanism | Step::Credential => sasl,
            Step::Name | Step::Tcp | Step::Handshake => true,
            Step::Authorization => false,
        };
        Step::ALL.into_iter().filter(is_taken)
    }

    /// Who is advertised, by number.
    pub(crate) fn brokers(&self) -> Vec<(i32, Endpoint)> {
        let directory = self.directory.lock();
        directory.brokers.iter().map(|(id, endpoint)| (*id, endpoint.clone())).collect()
    }

    /// One broker's address, told in passing (KIP-951).
    pub(crate) fn learn_one(&self, id: i32, endpoint: Endpoint) {
        self.directory.lock().brokers.insert(id, endpoint);
    }

    /// All advertised addresses, or those of the bootstrap servers while none is known.
    pub(crate) fn anyone(&self) -> Vec<Endpoint> {
        let advertised: Vec<_> = self.directory.lock().brokers.values().cloned().collect();
        if advertised.is_empty() { self.bootstrap() } else { rotated(advertised) }
    }

    pub(crate) fn bootstrap(&self) -> Vec<Endpoint> {
        rotated(self.config.bootstrap.clone())
    }

    /// Connects to a broker at its advertised address. `failures` in a row lengthen the timeout
    /// (KIP-601).
    pub(crate) async fn connect_broker(
        &self,
        id: i32,
        failures: u32,
    ) -> Result<Connection, ConnectError> {
        let (endpoint, named_by) = {
            let directory = self.directory.lock();
            let endpoint = directory.brokers.get(&id).cloned();
            (endpoint.ok_or(ConnectError::Unlisted(id))?, directory.named_by.clone())
        };
        self.connect(&endpoint, failures).await.map_err(|error| match (error, named_by) {
            (ConnectError::Unreachable { endpoint, error }, Some(named_by)) => {
                ConnectError::AdvertisedUnreachable { id, endpoint, named_by, error }
            }
            (error, _) => error,
        })
    }

    /// Connects and shakes hands, at every address of the host in turn.
    pub(crate) async fn connect(
        &self,
        endpoint: &Endpoint,
        failures: u32,
    ) -> Result<Connection, ConnectError> {
        if let Some(error) = self.faults.standing(endpoint) {
            return Err(error);
        }
        let patience = self.patience(failures);
        let connected = match self.greet(endpoint, patience, API_VERSIONS.most).await {
            Err(ConnectError::Handshake { error: HandshakeError::ClosedAtHello, .. }) => {
                self.greet(endpoint, patience, 0).await
            }
            other => other,
        };
        match &connected {
            Ok(_) => {
                self.faults.forget(endpoint);
                self.settings.stats.connections_opened.add(1);
                tracing::debug!(%endpoint, "connected");
            }
            Err(error) => {
                self.faults.add(endpoint, error);
                self.settings.stats.connect_failures.add(1);
                tracing::debug!(%error, "cannot connect");
            }
        }
        connected.map(|connection| match &self.login {
            Some(login) => connection.renewed_by(login, &endpoint.host, &self.settings),
            None => connection,
        })
    }

    /// A broker closed a new connection at its first request: without SASL, that is how it says that
    /// it wants it.
    fn closed_at_request(&self, endpoint: &Endpoint) -> ConnectError {
        let endpoint = endpoint.clone();
        let error = match self.login {
            None => HandshakeError::ClosedWithoutLogin,
            Some(_) => HandshakeError::ClosedAtRequest,
        };
        let error = ConnectError::Handshake { endpoint: endpoint.clone(), error };
        self.faults.add(&endpoint, &error);
        error
    }

    /// Whether a connection was made with a TLS configuration that has changed since.
    pub(crate) fn is_outdated(&self, connection: &Connection) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.generation() != connection.generation())
    }

    fn patience(&self, failures: u32) -> Duration {
        let base = self.config.connect_timeout;
        base.saturating_mul(1 << failures.min(8)).min(CONNECT_TIMEOUT_MAX.max(base))
    }

    async fn greet(
        &self,
        endpoint: &Endpoint,
        patience: Duration,
        version: i16,
    ) -> Result<Connection, ConnectError> {
        let unreachable = |error| ConnectError::Unreachable { endpoint: endpoint.clone(), error };
        let failed = |error| ConnectError::Handshake { endpoint: endpoint.clone(), error };
        // Before there is a connection: a broker does not wait long for who says nothing.
        let authentication = match &self.login {
            Some(login) => {
                let ready = login.authentication(&endpoint.host).await;
                Some(ready.map_err(|fault| failed(fault.into()))?)
            }
            None => None,
        };
        let handshake = Handshake::new(&self.settings.client_id, version, authentication);
        let handshake = handshake.map_err(failed)?;
        match &self.network {
            Network::Sockets => {
                let stream = network::dial(endpoint, patience).await.map_err(unreachable)?;
                self.secure(stream, endpoint, patience, handshake).await
            }
            #[cfg(feature = "fake_broker")]
            Network::Memory(brokers) => {
                let stream = brokers.dial(endpoint).map_err(DialError::Tcp).map_err(unreachable)?;
                self.secure(stream, endpoint, patience, handshake).await
            }
        }
    }

    /// TLS if it is on, then the handshake of Kafka.
    async fn secure<S>(
        &self,
        stream: S,
        endpoint: &Endpoint,
        patience: Duration,
        handshake: Handshake,
    ) -> Result<Connection, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let failed = |error| ConnectError::Handshake { endpoint: endpoint.clone(), error };
        let Some(tls) = &self.tls else {
            return self.shake_hands(stream, patience, handshake).await.map_err(failed);
        };
        let (stream, generation) = timeout(patience, tls.connect(stream, &endpoint.host))
            .await
            .unwrap_or(Err(TlsError::Silent(patience)))
            .map_err(|error| ConnectError::Tls { endpoint: endpoint.clone(), error })?;
        let connection = self.shake_hands(stream, patience, handshake).await.map_err(failed)?;
        Ok(connection.of_generation(generation))
    }

    async fn shake_hands<S>(
        &self,
        mut stream: S,
        patience: Duration,
        handshake: Handshake,
    ) -> Result<Connection, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (welcome, decoder) = timeout(patience, handshake::drive(&mut stream, handshake))
            .await
            .unwrap_or(Err(HandshakeError::Timeout(patience)))?;
        Ok(Connection::start(stream, decoder, welcome, &self.settings))
    }
}

/// From a random place on, so that clients spread.
fn rotated(mut endpoints: Vec<Endpoint>) -> Vec<Endpoint> {
    let places = endpoints.len().max(1) as u64;
    endpoints.rotate_left(usize::try_from(random() % places).unwrap_or(0));
    endpoints
}
