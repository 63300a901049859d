//! The brokers of one cluster, and how to reach them.

pub(crate) mod anyone;
mod failures;
pub(crate) mod link;
mod membership;
mod network;

use std::collections::{BTreeMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

pub(crate) use failures::ConnectError;
use failures::{DialError, Failures};
use membership::Membership;
#[cfg(feature = "fake_broker")]
pub(crate) use network::InMemory;
pub(crate) use network::Network;

use crate::backoff::random;
use crate::calls::metadata::AskMetadata;
use crate::config::ClusterConfig;
use crate::connection::{Connection, ConnectionSettings, LostReason};
use crate::error::{Cause, Reason};
use crate::handshake::{self, Handshake, HandshakeError};
use crate::limits::{CONNECT_TIMEOUT_MAX, KNOWN_ASKED_FIRST, NAMES_AT_A_TIME, NAMES_LOOKED_UP};
use crate::lock::Lock;
use crate::resolve::{Advertised, Endpoint};
use crate::sasl::{CredentialSource, Login};
use crate::stage::{ConnectionFailure, Stage};
use crate::tls::{Tls, TlsError};
use crate::versions::API_VERSIONS;

/// Where brokers are, and the settings of every connection to them.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) config: ClusterConfig,
    pub(crate) settings: ConnectionSettings,
    /// If connections are TLS.
    pub(crate) tls: Option<Arc<Tls>>,
    network: Network,
    login: Option<Arc<Login>>,
    failures: Failures,
    membership: Lock<Membership>,
    directory: Lock<Directory>,
    /// Whoever looks names up holds it.
    looking_up: Arc<Semaphore>,
    /// Tells of each change of the directory.
    learnt: Notify,
    /// The client takes no records any more.
    closed: AtomicBool,
}

#[derive(Debug, Default)]
struct Directory {
    brokers: BTreeMap<i32, Endpoint>,
    /// What other brokers advertise, which is no address, and since when.
    unusable: BTreeMap<i32, (String, Instant)>,
    /// Advertised addresses whose name was looked up once, or that were connected to.
    found: HashSet<Endpoint>,
    /// Who told us these addresses; for the message when one cannot be reached.
    named_by: Option<Endpoint>,
    /// Nobody in it is to be asked: only a bootstrap server can say who is there now.
    is_void: bool,
}

impl Cluster {
    pub(crate) fn new(
        config: ClusterConfig,
        settings: ConnectionSettings,
        network: Network,
        source: Option<Arc<dyn CredentialSource>>,
    ) -> Arc<Self> {
        let login = config.sasl.clone().map(|sasl| Login::new(sasl, source));
        let tls = config.security.has_tls().then(|| {
            let stats = settings.stats.clone();
            Arc::new(Tls::new(config.tls.clone(), stats))
        });
        let membership = Lock::new(Membership::new(config.cluster_id.clone()));
        Arc::new(Self {
            config,
            settings,
            tls,
            network,
            login,
            failures: Failures::default(),
            membership,
            directory: Lock::default(),
            looking_up: Arc::new(Semaphore::new(1)),
            learnt: Notify::new(),
            closed: AtomicBool::new(false),
        })
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Relaxed);
    }

    pub(crate) fn check_open(&self) -> Result<(), Reason> {
        if self.closed.load(Relaxed) { Err(Reason::Closed) } else { Ok(()) }
    }

    /// Takes over the addresses that `named_by` advertised.
    pub(crate) fn learn(self: &Arc<Self>, brokers: Vec<(i32, Advertised)>, named_by: Endpoint) {
        let mut directory = self.directory.lock();
        let before = std::mem::take(&mut directory.unusable);
        directory.brokers.clear();
        for (id, advertised) in brokers {
            match advertised {
                Ok(endpoint) => drop(directory.brokers.insert(id, endpoint)),
                Err(address) => {
                    let known = before.get(&id).filter(|(known, _)| *known == address);
                    let since = known.map_or_else(Instant::now, |(_, since)| *since);
                    directory.unusable.insert(id, (address, since));
                }
            }
        }
        let Directory { brokers, found, .. } = &mut *directory;
        found.retain(|endpoint| brokers.values().any(|at| at == endpoint));
        (directory.named_by, directory.is_void) = (Some(named_by), false);
        // A bootstrap server has done its part, whether it answered or another did.
        self.failures.retain(|endpoint| directory.brokers.values().any(|at| at == endpoint));
        drop(directory);
        self.look_names_up();
        self.learnt.notify_waiters();
    }

    /// From now on only bootstrap servers are asked who is there, until one has told.
    pub(crate) fn bootstrap_anew(&self) {
        self.directory.lock().is_void = true;
    }

    /// Brokers that cannot be reached now.
    pub(crate) fn faults(&self) -> Vec<ConnectionFailure> {
        let mut faults = self.failures.list();
        let directory = self.directory.lock();
        faults.extend(directory.unusable.iter().filter_map(|(id, (address, since))| {
            let error = directory.no_address(*id)?;
            Some(ConnectionFailure {
                server: Some(address.clone()),
                stage: error.stage(),
                cause: error.what(),
                lasts: since.elapsed(),
            })
        }));
        faults
    }

    /// Brokers that advertise no address, by number, with what they advertise.
    pub(crate) fn without_address(&self) -> Vec<(i32, String, ConnectError)> {
        let directory = self.directory.lock();
        let error = |id: i32| directory.no_address(id);
        let unusable = directory.unusable.iter();
        unusable.filter_map(|(id, (text, _))| Some((*id, text.clone(), error(*id)?))).collect()
    }

    /// Looks up the names of advertised brokers that nobody has connected to yet: else one that has
    /// no address is noticed only when it leads a partition. Returns at once while that goes on.
    fn look_names_up(self: &Arc<Self>) {
        let is_real = matches!(self.network, Network::Sockets);
        let turn = Arc::clone(&self.looking_up).try_acquire_owned().ok().filter(|_| is_real);
        let (asked, named_by) = self.names_to_look_up();
        let (Some(turn), Some(named_by)) = (turn, named_by) else { return };
        let cluster = Arc::clone(self);
        let work = async move {
            let _turn = turn;
            for some in asked.chunks(NAMES_AT_A_TIME) {
                let mut asking = JoinSet::new();
                for (id, endpoint) in some.iter().cloned() {
                    let patience = cluster.patience(0);
                    asking.spawn(async move {
                        (network::look_up(&endpoint, patience).await.err(), id, endpoint)
                    });
                }
                while let Some(Ok((error, id, endpoint))) = asking.join_next().await {
                    cluster.looked_up(id, endpoint, named_by.clone(), error);
                }
            }
        };
        let shutdown = self.settings.shutdown.clone();
        self.settings.tasks.spawn(shutdown.run_until_cancelled_owned(work));
    }

    fn names_to_look_up(&self) -> (Vec<(i32, Endpoint)>, Option<Endpoint>) {
        let directory = self.directory.lock();
        let is_asked =
            |at: &Endpoint| !directory.found.contains(at) || self.failures.has_no_address(at);
        let asked = directory.brokers.iter().filter(|(_, at)| is_asked(at));
        let asked = asked.map(|(id, endpoint)| (*id, endpoint.clone())).collect();
        (asked, directory.named_by.clone())
    }

    fn looked_up(&self, id: i32, endpoint: Endpoint, named_by: Endpoint, error: Option<DialError>) {
        let mut directory = self.directory.lock();
        if directory.brokers.get(&id) != Some(&endpoint) {
            return;
        }
        match error {
            None => {
                self.failures.forget_name(&endpoint);
                directory.found.insert(endpoint);
            }
            Some(error) => {
                let at = endpoint.clone();
                let error = ConnectError::AdvertisedUnreachable { id, endpoint, named_by, error };
                self.failures.add(&at, &error);
            }
        }
    }

    /// Why no broker can be reached by the address that it advertises, if that is so. Waits a little
    /// for names that are being looked up.
    pub(crate) async fn nobody_has_an_address(&self) -> Option<Cause> {
        let _looked_up = timeout(NAMES_LOOKED_UP, self.looking_up.acquire()).await;
        let directory = self.directory.lock();
        let mut brokers = directory.brokers.values();
        let is_nobody = brokers.all(|endpoint| self.failures.has_no_address(endpoint));
        drop(directory);
        let fault = self.faults().into_iter().find(|fault| fault.stage == Stage::Name);
        let fault = fault.filter(|_| is_nobody)?;
        Some(format!("{}: {}", fault.server.unwrap_or_default(), fault.cause).into())
    }

    /// The stages of a connection with these settings.
    pub(crate) fn stages(&self) -> impl Iterator<Item = Stage> {
        let (tls, sasl) = (self.tls.is_some(), self.login.is_some());
        let is_taken = move |stage: &Stage| match stage {
            Stage::Tls => tls,
            Stage::Mechanism | Stage::Credential => sasl,
            Stage::Name | Stage::Tcp | Stage::Handshake => true,
            Stage::Authorization => false,
        };
        Stage::ALL.into_iter().filter(is_taken)
    }

    /// Who is advertised, by number.
    pub(crate) fn brokers(&self) -> Vec<(i32, Endpoint)> {
        let directory = self.directory.lock();
        directory.brokers.iter().map(|(id, endpoint)| (*id, endpoint.clone())).collect()
    }

    /// One broker's address, told in the refusal of another one (KIP-951).
    pub(crate) fn learn_one(&self, id: i32, endpoint: Endpoint) {
        self.directory.lock().brokers.insert(id, endpoint);
        self.learnt.notify_waiters();
    }

    /// Whom to ask what any broker can answer, in this order: advertised brokers, and when the
    /// first of them are silent or away the bootstrap servers, because all may have moved (KIP-899).
    pub(crate) fn anyone(&self) -> Vec<Endpoint> {
        let mut bootstrap = self.bootstrap();
        let directory = self.directory.lock();
        if directory.is_void {
            return bootstrap;
        }
        let mut places = rotated(directory.brokers.values().cloned().collect());
        bootstrap.retain(|endpoint| !places.contains(endpoint));
        let first = places.len().min(KNOWN_ASKED_FIRST);
        places.splice(first..first, bootstrap);
        places
    }

    pub(crate) fn bootstrap(&self) -> Vec<Endpoint> {
        rotated(self.config.bootstrap.clone())
    }

    /// Whether an address is still one of the cluster's.
    pub(crate) fn lists(&self, endpoint: &Endpoint) -> bool {
        let directory = self.directory.lock();
        let is_advertised = directory.brokers.values().any(|advertised| advertised == endpoint);
        !directory.is_void && is_advertised || self.config.bootstrap.contains(endpoint)
    }

    /// Where a broker is advertised.
    fn address(&self, id: i32) -> Option<Endpoint> {
        self.directory.lock().brokers.get(&id).cloned()
    }

    /// Waits until a broker is advertised elsewhere, or no more.
    async fn moved(&self, id: i32, from: Option<&Endpoint>) {
        loop {
            let mut learnt = pin!(self.learnt.notified());
            learnt.as_mut().enable();
            if self.address(id).as_ref() != from {
                return;
            }
            learnt.await;
        }
    }

    /// As [`Cluster::connect_broker`], but anew when it moves meanwhile, and only to a broker of
    /// this cluster.
    pub(crate) async fn connect_member(
        &self,
        id: i32,
        failures: u32,
    ) -> Result<Connection, ConnectError> {
        loop {
            let endpoint = self.address(id);
            let connect = async {
                let connection = self.connect_broker(id, failures).await?;
                if let Some(endpoint) = &endpoint {
                    self.check_cluster(endpoint, &connection).await?;
                }
                Ok(connection)
            };
            tokio::select! {
                biased;
                connected = connect => return connected,
                () = self.moved(id, endpoint.as_ref()) => {}
            }
        }
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
            let missing = || directory.no_address(id).unwrap_or(ConnectError::Unlisted(id));
            (endpoint.ok_or_else(missing)?, directory.named_by.clone())
        };
        self.connect(&endpoint, failures).await.map_err(|error| match (error, named_by) {
            (ConnectError::Unreachable { endpoint, error }, Some(named_by)) => {
                let at = endpoint.clone();
                let error = ConnectError::AdvertisedUnreachable { id, endpoint, named_by, error };
                self.failures.add(&at, &error);
                error
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
        if let Some(error) = self.failures.standing(endpoint) {
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
                self.failures.forget(endpoint);
                self.directory.lock().found.insert(endpoint.clone());
                self.settings.stats.connections_opened.add(1);
                tracing::debug!(%endpoint, "connected");
            }
            Err(error) => {
                self.failures.add(endpoint, error);
                self.settings.stats.connect_failures.add(1);
                tracing::debug!(%error, "not_connected");
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
        self.failures.add(&endpoint, &error);
        error
    }

    /// Which cluster answers, once one has.
    pub(crate) fn id(&self) -> Option<Arc<str>> {
        self.membership.lock().id()
    }

    /// Grows when another cluster takes the place of the one that was there: what was learnt in an
    /// earlier era means nothing any more.
    pub(crate) fn era(&self) -> u64 {
        self.membership.lock().era()
    }

    /// Whether an answer of such a cluster may be believed at all.
    pub(crate) fn admits(&self, theirs: Option<&str>) -> Result<(), Cause> {
        self.membership.lock().admits(theirs)
    }

    /// Takes the id of an admitted answer; says whether that is another cluster than before.
    pub(crate) fn adopt(&self, theirs: Option<&str>) -> bool {
        let Some(was) = self.membership.lock().adopt(theirs) else { return false };
        self.settings.stats.cluster_changes.add(1);
        tracing::error!(
            %was,
            now = theirs,
            effect = "topics and producer id are dropped, records that the former one may have are unknown",
            "cluster_changed"
        );
        true
    }

    /// Asks a broker which cluster it belongs to. A connection must not carry anything of this
    /// cluster, such as its producer id, to another one.
    pub(crate) async fn check_cluster(
        &self,
        endpoint: &Endpoint,
        connection: &Connection,
    ) -> Result<(), ConnectError> {
        let Some(ours) = self.id() else { return Ok(()) };
        let wrong_cluster = |cause: Cause| {
            let error = ConnectError::WrongCluster { endpoint: endpoint.clone(), cause };
            self.failures.add(endpoint, &error);
            error
        };
        let question = AskMetadata::default();
        let patience = self.config.connect_timeout.min(self.config.request_timeout);
        let reply = match connection.submit(Arc::new(question), patience).await {
            Ok(reply) => reply.answer().await,
            Err(lost) => Err(lost),
        };
        let answer = reply.map_err(|lost| match lost.fault {
            LostReason::Closed => self.closed_at_request(endpoint),
            _ => wrong_cluster(format!("does not say of which cluster it is: {lost}").into()),
        })?;
        match answer.cluster_id {
            Some(theirs) if *theirs != *ours => {
                Err(wrong_cluster(format!("is a broker of cluster {theirs}, not of {ours}").into()))
            }
            _ => Ok(()),
        }
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
        let (negotiated, decoder) = timeout(patience, handshake::drive(&mut stream, handshake))
            .await
            .unwrap_or(Err(HandshakeError::Timeout(patience)))?;
        Ok(Connection::start(stream, decoder, negotiated, &self.settings))
    }
}

impl Directory {
    /// Why nobody can connect to a broker, if it advertises no address.
    fn no_address(&self, id: i32) -> Option<ConnectError> {
        let (address, _) = self.unusable.get(&id)?;
        let (address, named_by) = (address.clone(), self.named_by.clone()?);
        Some(ConnectError::NoAddress { id, address, named_by })
    }
}

/// From a random place on, so that clients spread.
fn rotated(mut endpoints: Vec<Endpoint>) -> Vec<Endpoint> {
    let places = endpoints.len().max(1) as u64;
    endpoints.rotate_left(usize::try_from(random() % places).unwrap_or(0));
    endpoints
}
