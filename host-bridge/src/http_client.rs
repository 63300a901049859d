//! An HTTP client whose connections are kept for the next request to their host: bounded in time and
//! size, and no redirect is followed, because it would carry a secret elsewhere.

use std::error::Error as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Body as _;
use hyper::header::{HOST, HeaderValue};
use hyper::http::{StatusCode, response};
use hyper::{Request, Response, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use kafka_client::{Cause, HttpsTrust};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};
use tower_service::Service;

/// A clone shares its connections. They are never shared with a client of another trust.
#[derive(Debug, Clone)]
pub(crate) struct HttpClient {
    pool: Client<Connector, Full<Bytes>>,
    limits: HttpLimits,
}

/// What a request may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HttpLimits {
    /// Name, connection and TLS together.
    pub(crate) connect: Duration,
    /// All of it, with the whole answer.
    pub(crate) whole: Duration,
    /// Bytes of an answer's body.
    pub(crate) answer_bytes: usize,
}

/// Which step of a request failed. No text holds what was sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("`{0}` is no address")]
    Address(String),
    #[error("name: {0}")]
    Name(io::Error),
    #[error("{0} is a link-local address or one of a metadata service (allow_link_local)")]
    Guarded(IpAddr),
    #[error("no connection: {0}")]
    Connect(io::Error),
    #[error("TLS: {0}")]
    Tls(Cause),
    #[error("{0}: no answer within {ms} ms", ms = .1.as_millis())]
    Silent(&'static str, Duration),
    /// One of the above, as the pool hands it on.
    #[error("{0}")]
    NotConnected(String),
    #[error("HTTP: an answer of more than {0} bytes")]
    Large(usize, StatusCode),
    #[error("HTTP: {0}")]
    Http(String),
}

impl HttpClient {
    pub(crate) fn new(trust: HttpsTrust, limits: HttpLimits) -> Self {
        Self::with(Connector { trust, limits, is_guarded: false })
    }

    /// One that never connects to where clouds give machines their credentials.
    pub(crate) fn guarded(trust: HttpsTrust, limits: HttpLimits) -> Self {
        Self::with(Connector { trust, limits, is_guarded: true })
    }

    fn with(connector: Connector) -> Self {
        let (mut pool, limits) = (Client::builder(TokioExecutor::new()), connector.limits);
        pool.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE);
        pool.pool_max_idle_per_host(IDLE_CONNECTIONS).set_host(false);
        Self { pool: pool.build(connector), limits }
    }

    /// Sends a request to `url`, whose host and path it gets.
    ///
    /// # Errors
    /// There is no whole answer.
    pub(crate) async fn ask(
        &self,
        url: &str,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, HttpError> {
        let request = addressed(url, request)?;
        let answer = timeout(self.limits.whole, self.exchange(request)).await;
        answer.unwrap_or_else(|_| Err(HttpError::Silent("HTTP", self.limits.whole)))
    }

    /// As [`Self::ask`], for who wants the head alone. So much of the body is read as may be, for the
    /// connection to carry another request; what is wrong with it does not matter.
    ///
    /// # Errors
    /// There is no answer.
    pub(crate) async fn tell(
        &self,
        url: &str,
        request: Request<Full<Bytes>>,
    ) -> Result<response::Parts, HttpError> {
        let end = Instant::now() + self.limits.whole;
        let answer = timeout_at(end, self.pool.request(addressed(url, request)?)).await;
        let answer = answer.map_err(|_| HttpError::Silent("HTTP", self.limits.whole))?;
        let (head, body) = answer.map_err(HttpError::of)?.into_parts();
        if body.size_hint().lower() <= self.limits.answer_bytes as u64 {
            let rest = Limited::new(body, self.limits.answer_bytes).collect();
            let _whole_or_not = timeout_at(end, rest).await;
        }
        Ok(head)
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, HttpError> {
        let most = self.limits.answer_bytes;
        let (head, body) = self.pool.request(request).await.map_err(HttpError::of)?.into_parts();
        if body.size_hint().lower() > most as u64 {
            return Err(HttpError::Large(most, head.status));
        }
        let whole = Limited::new(body, most).collect().await;
        let whole = whole.map_err(|error| match error.is::<LengthLimitError>() {
            true => HttpError::Large(most, head.status),
            false => HttpError::Http(error.to_string()),
        })?;
        Ok(Response::from_parts(head, whole.to_bytes()))
    }
}

/// The request to `url`: its host and path.
fn addressed(
    url: &str,
    mut request: Request<Full<Bytes>>,
) -> Result<Request<Full<Bytes>>, HttpError> {
    // What follows may be signed, and hold a secret.
    let shown = url.split('?').next().unwrap_or_default();
    let wrong = || HttpError::Address(shown.to_owned());
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let authority = uri.authority().filter(|_| uri.scheme().is_some()).ok_or_else(wrong)?;
    let host = HeaderValue::from_str(authority.as_str()).map_err(|_| wrong())?;
    request.headers_mut().insert(HOST, host);
    *request.uri_mut() = uri;
    Ok(request)
}

impl HttpError {
    /// The pool's own words say nothing, those below them all.
    fn of(error: hyper_util::client::legacy::Error) -> Self {
        match error.source() {
            Some(source) if source.is::<Self>() => Self::NotConnected(source.to_string()),
            Some(source) => Self::Http(source.to_string()),
            None => Self::Http(error.to_string()),
        }
    }
}

/// Connects to the host of an address.
#[derive(Debug, Clone)]
struct Connector {
    trust: HttpsTrust,
    limits: HttpLimits,
    is_guarded: bool,
}

impl Connector {
    async fn connect(self, uri: Uri) -> Result<TokioIo<Stream>, HttpError> {
        let patience = self.limits.connect;
        let end = Instant::now() + patience;
        let silent = |step| move |_| HttpError::Silent(step, patience);
        let is_https = uri.scheme_str() == Some("https");
        let host = uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let found = timeout_at(end, lookup_host((host, port))).await.map_err(silent("name"))?;
        let addresses: Vec<_> = found.map_err(HttpError::Name)?.collect();
        let guarded =
            addresses.iter().map(|it| it.ip()).find(|ip| self.is_guarded && is_inner(*ip));
        if let Some(ip) = guarded {
            return Err(HttpError::Guarded(ip));
        }
        let connecting = timeout_at(end, TcpStream::connect(&*addresses)).await;
        let stream = connecting.map_err(silent("no connection"))?.map_err(HttpError::Connect)?;
        let stream: Box<dyn Duplex> = match is_https {
            false => Box::new(stream),
            true => {
                let handshake = timeout_at(end, self.trust.connect(stream, host)).await;
                Box::new(handshake.map_err(silent("TLS"))?.map_err(HttpError::Tls)?)
            }
        };
        let most = HEARD_HEAD_BYTES + HEARD_FACTOR * self.limits.answer_bytes;
        Ok(TokioIo::new(Stream { stream, most, left: most }))
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = HttpError;
    type Future = BoxFuture<'static, Result<Self::Response, HttpError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), HttpError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Duplex for S {}

/// A connection that ends where its peer says more in answer to a request than any answer has.
/// Without it, `100 Continue` after `100 Continue` would keep a thread busy.
struct Stream {
    stream: Box<dyn Duplex>,
    /// Bytes that the peer may say to a request.
    most: usize,
    left: usize,
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut *self.stream).poll_read(context, buffer))?;
        self.left = self.left.saturating_sub(buffer.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.left = self.most;
        Pin::new(&mut *self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_shutdown(context)
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

/// Whether an address is link-local, where AWS, Azure, Google and others have their metadata services,
/// or one that such a service has elsewhere.
pub(crate) fn is_inner(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            ip.is_link_local()
                || ip.is_unspecified()
                || ip.is_broadcast()
                || METADATA_V4.contains(&ip)
        }
        IpAddr::V6(ip) => {
            let embedded = ip.to_ipv4_mapped().or_else(|| nat64(ip));
            ip.is_unicast_link_local()
                || ip.is_unspecified()
                || METADATA_V6.contains(&ip)
                || embedded.is_some_and(|ip| is_inner(ip.into()))
        }
    }
}

/// The IPv4 address behind one of NAT64's well-known prefix (RFC 6052).
fn nat64(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let [prefix @ .., high, low] = ip.segments();
    let bits = u32::from(high) << 16 | u32::from(low);
    (prefix == [0x64, 0xff9b, 0, 0, 0, 0]).then(|| Ipv4Addr::from_bits(bits))
}

/// Of Alibaba and Oracle, and of Azure's machines.
const METADATA_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
    Ipv4Addr::new(168, 63, 129, 16),
];
/// Of AWS's machines, and of its pods' identities; of Google, Oracle and Scaleway.
const METADATA_V6: [Ipv6Addr; 5] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
];
/// How long a connection waits for its next request: less than servers commonly wait.
const IDLE: Duration = Duration::from_secs(60);
/// Connections to a host that wait.
const IDLE_CONNECTIONS: usize = 8;
/// All that is read of a peer to a request: the largest answer with each byte in a chunk of its own,
/// and its head, bytes.
const HEARD_FACTOR: usize = 8;
const HEARD_HEAD_BYTES: usize = 512 * 1024;

#[cfg(test)]
mod tests;
