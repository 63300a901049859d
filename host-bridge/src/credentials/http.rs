//! One question by HTTP to whoever gives credentials: bounded in time and size, and no redirect is
//! followed, because it would carry a secret elsewhere.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Body;
use hyper::header::{DATE, HOST, HeaderValue};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{self, CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Which step of a question failed. No text holds what was sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    #[error("`{0}` is no address")]
    Address(String),
    #[error("no connection: {0}")]
    Connect(std::io::Error),
    #[error("TLS: {0}")]
    Tls(String),
    #[error("HTTP: {0}")]
    Http(String),
    #[error("no answer within {} ms", PATIENCE.as_millis())]
    Silent,
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// The server's clock, if it tells.
    pub(super) date: Option<SystemTime>,
    pub(super) body: Bytes,
}

/// Sends a request to `url`, whose host and path it gets.
pub(super) async fn ask(
    url: &str,
    request: Request<Full<Bytes>>,
    verifies: bool,
) -> Result<Answer, HttpError> {
    let asked = timeout(PATIENCE, ask_patiently(url, request, verifies)).await;
    asked.unwrap_or(Err(HttpError::Silent))
}

async fn ask_patiently(
    url: &str,
    mut request: Request<Full<Bytes>>,
    verifies: bool,
) -> Result<Answer, HttpError> {
    // What follows may be signed, and hold a secret.
    let shown = url.split('?').next().unwrap_or_default();
    let wrong = || HttpError::Address(shown.to_owned());
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let (host, is_https) = (uri.host().ok_or_else(wrong)?, uri.scheme_str() == Some("https"));
    let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
    let authority = uri.authority().map_or(host, |authority| authority.as_str());
    let authority = HeaderValue::from_str(authority).map_err(|_| wrong())?;
    request.headers_mut().insert(HOST, authority);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse().map_err(|_| wrong())?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, port)).await.map_err(HttpError::Connect)?;
    if !is_https {
        return exchange(stream, request).await;
    }
    let name = ServerName::try_from(host.to_owned()).map_err(|_| wrong())?;
    let connector = TlsConnector::from(Arc::new(tls(verifies).await?));
    let stream = connector.connect(name, stream).await;
    exchange(stream.map_err(|error| HttpError::Tls(error.to_string()))?, request).await
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |error: hyper::Error| HttpError::Http(error.to_string());
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let work = async {
        let (head, body) = sender.send_request(request).await.map_err(failed)?.into_parts();
        if body.size_hint().lower() > ANSWER_BYTES as u64 {
            return Err(HttpError::Http(format!("an answer of more than {ANSWER_BYTES} bytes")));
        }
        let whole = Limited::new(body, ANSWER_BYTES).collect().await;
        let whole = whole.map_err(|error| HttpError::Http(error.to_string()))?;
        let date = head.headers.get(DATE).and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| httpdate::parse_http_date(date).ok());
        Ok(Answer { status: head.status, date, body: whole.to_bytes() })
    };
    tokio::pin!(work);
    tokio::select! {
        answer = &mut work => answer,
        // The peer is done with the connection; what it said may still be unread.
        _ = connection => work.await,
    }
}

async fn tls(verifies: bool) -> Result<ClientConfig, HttpError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| HttpError::Tls(error.to_string()))?;
    if !verifies {
        let verifier = Arc::new(Unverified(provider));
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        return Ok(builder.with_no_client_auth());
    }
    let found = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs).await;
    let found = found.map_err(|error| HttpError::Tls(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Takes every certificate: for `token_endpoint_tls_verify=false` alone.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// How long connection, TLS and answer may take together.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest answer; a token with many claims has a few KiB.
const ANSWER_BYTES: usize = 64 * 1024;
