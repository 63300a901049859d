//! TLS towards servers that are no brokers: token endpoints, and services of AWS.

use std::io;
use std::sync::Arc;

use rustls::{ClientConfig, DEFAULT_VERSIONS};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::explain::{self, Peer, TlsError, TlsFileError};
use super::load::{authorities, builder, load, system_roots};
use super::settings::{HTTPS_CA, HTTPS_CA_PEM, TlsConfig};
use super::verify::server_name;
use crate::error::Cause;
use crate::secret::SecretSource;

/// Whose certificates such a server may have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum HttpsTrust {
    /// Those whom the system trusts.
    #[default]
    System,
    /// Those in a PEM (`https.ca.location`, `https.ca.pem`).
    Authorities(SecretSource),
    /// Everyone, which makes TLS worth little.
    Anyone,
    /// As brokers': for a server that wants a client certificate.
    AsConfigured(Box<TlsConfig>),
}

impl HttpsTrust {
    /// Wraps a stream to `host`. Files are read anew.
    ///
    /// # Errors
    /// What is wrong with the files, the certificate or the handshake, and what to change.
    pub async fn connect<S>(
        &self,
        stream: S,
        host: &str,
    ) -> Result<impl AsyncRead + AsyncWrite + Unpin + Send + use<S>, Cause>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let name = server_name(host).map_err(told)?;
        let trust = self.clone();
        let loading = tokio::task::spawn_blocking(move || trust.config());
        let config = loading.await.unwrap_or(Err(TlsFileError::Cancelled)).map_err(told)?;
        let connecting = TlsConnector::from(config).connect(name, stream);
        connecting.await.map_err(|error| told_of(&error, host))
    }

    /// Reads the files, if there are any. Blocks.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub fn check(&self) -> Result<(), TlsFileError> {
        match self {
            Self::Authorities(_) | Self::AsConfigured(_) => self.config().map(|_| ()),
            Self::System | Self::Anyone => Ok(()),
        }
    }

    fn config(&self) -> Result<Arc<ClientConfig>, TlsFileError> {
        let trusted = match self {
            Self::System => Some(system_roots(HTTPS_CA)?),
            Self::Authorities(source @ SecretSource::File(_)) => {
                Some(authorities(HTTPS_CA, source)?)
            }
            Self::Authorities(source) => Some(authorities(HTTPS_CA_PEM, source)?),
            Self::Anyone => None,
            Self::AsConfigured(settings) => return Ok(load(settings)?.config),
        };
        Ok(Arc::new(builder(trusted, true, DEFAULT_VERSIONS)?.with_no_client_auth()))
    }
}

fn told(error: impl ToString) -> Cause {
    error.to_string().into()
}

/// The words for brokers advise on their properties.
fn told_of(error: &io::Error, host: &str) -> Cause {
    match explain::at_handshake(error, host, Peer::Https) {
        TlsError::NotTls => "it does not speak TLS; should its address begin with http://?".into(),
        TlsError::Closed => "it closed the connection in the handshake".into(),
        other => told(other),
    }
}
