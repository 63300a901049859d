//! TLS towards brokers: one configuration for all connections of a client, which follows its files.

mod explain;
mod https;
mod load;
mod settings;
mod store;
mod verify;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use explain::Peer;
pub use explain::TlsFileError;
pub(crate) use explain::{TlsError, explain};
pub use https::HttpsTrust;
use load::Loaded;
pub(crate) use load::check;
pub(crate) use settings::{
    CHAIN, HTTPS_CA, HTTPS_CA_PEM, KEY, KEY_PASSWORD, KEYSTORE, KEYSTORE_PASSWORD, TRUSTED,
    TRUSTSTORE, TRUSTSTORE_PASSWORD,
};
pub use settings::{ClientCertificate, TlsChecks, TlsConfig, TlsTrust, TlsVersions};
use verify::server_name;

use crate::files::{self, Stamp};
use crate::limits::FILES_LOOKED_AT;
use crate::lock::Lock;
use crate::stats::Counters;

/// The TLS configuration that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsStatus {
    /// When the client certificate ends, or the first of those that are sent with it.
    pub certificate_ends: Option<SystemTime>,
    /// When the first certificate of the truststore ends; none with the system's roots.
    pub truststore_ends: Option<SystemTime>,
    /// What is checked of a broker's certificate: `all`, `issuer` or `nothing`.
    pub checks: &'static str,
    /// What is wrong with the files now; then what was loaded before is in force.
    pub fault: Option<TlsFileError>,
}

/// The TLS side of a client.
pub(crate) struct Tls {
    settings: Arc<TlsConfig>,
    state: Lock<TlsState>,
    /// Who loads holds it: connections that begin together wait for one load.
    turn: Semaphore,
    stats: Arc<Counters>,
}

#[derive(Default)]
struct TlsState {
    current: Option<Loaded>,
    /// Counts the configurations that were loaded.
    generation: u64,
    /// The files as they were before they were read last.
    stamps: Vec<Stamp>,
    /// What was wrong with them then.
    fault: Option<TlsFileError>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads no file yet: [`Tls::follow_files`] or a first connection does.
    pub(crate) fn new(settings: TlsConfig, stats: Arc<Counters>) -> Self {
        let (settings, turn) = (Arc::new(settings), Semaphore::new(1));
        Self { settings, state: Lock::default(), turn, stats }
    }

    /// Wraps a stream to `host`; also says with which generation of the configuration.
    pub(crate) async fn connect<S>(
        &self,
        stream: S,
        host: &str,
    ) -> Result<(TlsStream<S>, u64), TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (config, generation) = self.config().await?;
        let name = server_name(host)?;
        let connecting = TlsConnector::from(config).connect(name, stream);
        let stream =
            connecting.await.map_err(|error| explain::at_handshake(&error, host, Peer::Broker))?;
        Ok((stream, generation))
    }

    /// Counts the configurations that were loaded so far: connections of an older one are to be
    /// replaced.
    pub(crate) fn generation(&self) -> u64 {
        self.state.lock().generation
    }

    /// What is in force.
    pub(crate) fn status(&self) -> TlsStatus {
        let state = self.state.lock();
        let current = state.current.as_ref();
        TlsStatus {
            certificate_ends: current.and_then(|loaded| loaded.certificate_ends),
            truststore_ends: current.and_then(|loaded| loaded.truststore_ends),
            checks: match self.settings.checks {
                TlsChecks::All => "all",
                TlsChecks::Issuer => "issuer",
                TlsChecks::Nothing => "nothing",
            },
            fault: state.fault.clone(),
        }
    }

    /// Reads the files, and looks at them again and again.
    pub(crate) async fn follow_files(self: Arc<Self>) {
        let _reported = self.config().await;
        loop {
            sleep(FILES_LOOKED_AT).await;
            if self.has_changed().await {
                let _reported = self.reload().await;
            }
        }
    }

    /// Takes over the files as they are now. If something is wrong with them, what was loaded
    /// before stays.
    pub(crate) async fn reload(&self) -> Result<(), TlsFileError> {
        let _turn = self.turn.acquire().await;
        self.load().await
    }

    async fn load(&self) -> Result<(), TlsFileError> {
        let settings = self.settings.clone();
        let span = tracing::Span::current();
        let loading = tokio::task::spawn_blocking(move || {
            // Looked at before they are read: a change in between is seen the next time.
            let stamps = stamps(&settings);
            (stamps, span.in_scope(|| load::load(&settings)))
        });
        let Ok((stamps, loaded)) = loading.await else { return Err(TlsFileError::Cancelled) };
        let mut state = self.state.lock();
        state.stamps = stamps;
        match loaded {
            Ok(loaded) => {
                state.current = Some(loaded);
                state.generation += 1;
                state.fault = None;
                self.stats.tls_loads.add(1);
                tracing::info!(generation = state.generation, "tls_loaded");
                Ok(())
            }
            Err(error) => {
                let keeps = state.current.is_some();
                state.fault = Some(error.clone());
                self.stats.tls_load_failures.add(1);
                tracing::error!(%error, keeps_the_former = keeps, "tls_not_loaded");
                Err(error)
            }
        }
    }

    async fn config(&self) -> Result<(Arc<ClientConfig>, u64), TlsError> {
        if self.state.lock().current.is_none() {
            let _turn = self.turn.acquire().await;
            if self.state.lock().current.is_none() {
                self.load().await?;
            }
        }
        let state = self.state.lock();
        let loaded = state.current.as_ref().ok_or(TlsFileError::Cancelled)?;
        Ok((loaded.config.clone(), state.generation))
    }

    /// Whether a file is not what was read last. Before anything was read, nothing has changed.
    async fn has_changed(&self) -> bool {
        let settings = self.settings.clone();
        let Ok(now) = tokio::task::spawn_blocking(move || stamps(&settings)).await else {
            return false;
        };
        let state = self.state.lock();
        (state.current.is_some() || state.fault.is_some()) && state.stamps != now
    }
}

fn stamps(settings: &TlsConfig) -> Vec<Stamp> {
    settings.files().iter().map(|path| files::stamp(path)).collect()
}
