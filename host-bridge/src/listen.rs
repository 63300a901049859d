//! Listeners and connections: TCP and unix sockets, HTTP/1.1 and h2c, and their drain.

use std::fmt;
use std::future::{Future, ready};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use kafka_upstream_core::limits::BRIDGE_IDLE_SECONDS;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::Listen;
use crate::shutdown::Shutdown;
use crate::tls::ServerTls;

/// Bound sockets. A unix socket's file is removed at the end.
pub struct Listeners(Vec<Listener>);

enum Listener {
    Tcp(TcpListener),
    Tls(TcpListener),
    /// The socket, its path, and the file that the path named when it was bound.
    Unix(UnixListener, PathBuf, (u64, u64)),
}

impl Listeners {
    /// Binds every address. The file of a unix socket on which nobody listens is replaced.
    ///
    /// # Errors
    /// What the system says, with the address.
    pub async fn bind(addresses: &[Listen]) -> io::Result<Self> {
        let mut listeners = Vec::new();
        for address in addresses {
            let bound = match address {
                Listen::Tcp(address) => TcpListener::bind(address).await.map(Listener::Tcp),
                Listen::Tls(address) => TcpListener::bind(address).await.map(Listener::Tls),
                Listen::Unix(path) => bind_unix(path).await,
            };
            let named =
                |error: io::Error| io::Error::new(error.kind(), format!("{address}: {error}"));
            listeners.push(bound.map_err(named)?);
        }
        Ok(Self(listeners))
    }

    /// Serves until `shutdown`, then waits for requests under way, at most `drain_timeout`.
    /// Returns the moment at which that time is over.
    pub(crate) async fn serve(
        self,
        router: Router,
        tls: Option<ServerTls>,
        shutdown: &Shutdown,
        drain_timeout: Duration,
    ) -> Instant {
        let server = Arc::new(Server { router, tls, graceful: GracefulShutdown::new() });
        let mut accepting = Vec::new();
        for listener in self.0 {
            let (server, token) = (Arc::clone(&server), shutdown.token().clone());
            let accept = async move { server.accept(listener, &token).await };
            accepting.push(shutdown.spawn("accept", accept));
        }
        shutdown.token().cancelled().await;
        let deadline = Instant::now() + drain_timeout;
        futures_util::future::join_all(accepting).await;
        if let Some(server) = Arc::into_inner(server)
            && timeout_at(deadline, server.graceful.shutdown()).await.is_err()
        {
            warn!(effect = "connections_cut", "drain_timeout");
        }
        deadline
    }
}

struct Server {
    router: Router,
    tls: Option<ServerTls>,
    graceful: GracefulShutdown,
}

impl Server {
    async fn accept(&self, listener: Listener, shutdown: &CancellationToken) {
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let connection = Arc::clone(&connections).acquire_owned();
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = async { (connection.await, listener.accept().await) } => accepted,
            };
            match accepted {
                (Ok(permit), Ok(Stream::Tcp(stream))) => self.spawn(ready(Ok(stream)), permit),
                (Ok(permit), Ok(Stream::Unix(stream))) => self.spawn(ready(Ok(stream)), permit),
                (Ok(permit), Ok(Stream::Tls(stream))) => {
                    // Configuration: a listener with TLS has its files.
                    let Some(tls) = &self.tls else { continue };
                    self.spawn(TlsAcceptor::from(tls.get()).accept(stream), permit);
                }
                (_, Err(error)) => {
                    // Out of descriptors, for instance: the next moment may be better.
                    warn!(%error, "accept_failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                (Err(_), _) => break,
            }
        }
        if let Listener::Unix(_, path, bound) = listener
            && file_id(&path).is_ok_and(|file| file == bound)
        {
            let _ = std::fs::remove_file(path);
        }
    }

    fn spawn<S>(
        &self,
        stream: impl Future<Output = io::Result<S>> + Send + 'static,
        permit: tokio::sync::OwnedSemaphorePermit,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        let idle = Duration::from_secs(BRIDGE_IDLE_SECONDS);
        builder.http1().timer(TokioTimer::new()).header_read_timeout(idle);
        let mut http2 = builder.http2();
        http2.timer(TokioTimer::new()).keep_alive_interval(idle).max_concurrent_streams(1024);
        let (router, begun) = (TowerToHyperService::new(self.router.clone()), Notify::new());
        let begun = Arc::new(begun);
        let begins = Arc::clone(&begun);
        let service = service_fn(move |request| {
            begins.notify_one();
            router.call(request)
        });
        let watcher = self.graceful.watcher();
        tokio::spawn(async move {
            let stream = match timeout(HANDSHAKE_TIMEOUT, stream).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    return info!(error = crate::tls::refused(&error), "tls_refused");
                }
                Err(_) => return info!(error = "no handshake in time", "tls_refused"),
            };
            let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
            let mut connection = Box::pin(watcher.watch(connection));
            // hyper's own timeouts begin only once it knows which HTTP the peer speaks. A peer that
            // breaks off is told to nobody: its request got no answer, and says so.
            let alive = tokio::select! {
                _ = connection.as_mut() => false,
                () = begun.notified() => true,
                () = tokio::time::sleep(idle) => false,
            };
            if alive {
                let _ = connection.await;
            }
            drop(permit);
        });
    }
}

enum Stream {
    Tcp(tokio::net::TcpStream),
    Tls(tokio::net::TcpStream),
    Unix(UnixStream),
}

impl Listener {
    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => Ok(Stream::Tcp(accept_tcp(listener).await?)),
            Self::Tls(listener) => Ok(Stream::Tls(accept_tcp(listener).await?)),
            Self::Unix(listener, ..) => Ok(Stream::Unix(listener.accept().await?.0)),
        }
    }
}

async fn accept_tcp(listener: &TcpListener) -> io::Result<tokio::net::TcpStream> {
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn bind_unix(path: &Path) -> io::Result<Listener> {
    let is_socket = std::fs::metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if is_socket {
        // Only a refusal says that nobody listens; a busy listener answers otherwise.
        let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        if UnixStream::connect(path).await.is_err_and(refused) {
            std::fs::remove_file(path)?;
        }
    }
    let listener = UnixListener::bind(path)?;
    Ok(Listener::Unix(listener, path.to_owned(), file_id(path)?))
}

/// Device and inode: another process may have put its own socket in the place of ours.
fn file_id(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Tls(address) => write!(f, "tls:{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |tcp: &TcpListener| {
            tcp.local_addr().map_or_else(|error| error.to_string(), |it| it.to_string())
        };
        let names = self.0.iter().map(|listener| match listener {
            Listener::Tcp(tcp) => named(tcp),
            Listener::Tls(tcp) => format!("tls:{}", named(tcp)),
            Listener::Unix(_, path, _) => format!("unix:{}", path.display()),
        });
        f.write_str(&names.collect::<Vec<_>>().join(","))
    }
}

/// Most connections of a listener at a time; more wait to be accepted. Peers of another machine
/// take none of those that the gateway beside the bridge needs.
const CONNECTIONS_MAX: usize = 8192;
/// How long a TLS handshake may take: its peer is near.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
