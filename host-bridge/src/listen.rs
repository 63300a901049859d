//! Listeners and connections: TCP and unix sockets, HTTP/1.1 and h2c, and their drain.

use std::fmt;
use std::fs::Permissions;
use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::{TcpListener, TcpSocket, UnixListener, UnixSocket, UnixStream};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::admission::{Admission, Admitted};
use crate::config::{Listen, UnixSocketAccess};
use crate::connection::Server;
use crate::limits::{ACCEPT_PAUSE, BACKLOG};
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

impl Listener {
    fn close(self) {
        if let Self::Unix(_, path, bound) = self
            && file_id(&path).is_ok_and(|file| file == bound)
        {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Listeners {
    /// Binds every address. The file of a unix socket on which nobody listens is replaced;
    /// `unix` says who may connect to the new one.
    ///
    /// # Errors
    /// What the system says, with the address.
    pub async fn bind(addresses: &[Listen], unix: UnixSocketAccess) -> io::Result<Self> {
        let mut listeners = Vec::new();
        for address in addresses {
            let bound = match address {
                Listen::Tcp(address) => bind_tcp(*address).map(Listener::Tcp),
                Listen::Tls(address) => bind_tcp(*address).map(Listener::Tls),
                Listen::Unix(path) => bind_unix(path, unix).await,
            };
            let named =
                |error: io::Error| io::Error::new(error.kind(), format!("{address}: {error}"));
            listeners.push(bound.map_err(named)?);
        }
        Ok(Self(listeners))
    }

    /// Nothing is served: the files of sockets are removed.
    pub(crate) fn give_up(self) {
        self.0.into_iter().for_each(Listener::close);
    }

    /// How many addresses are bound.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Serves until `shutdown`, then waits for requests under way, at most `drain_timeout`. Each
    /// listener has `places` connections. Returns the moment at which that time is over.
    pub(crate) async fn serve(
        self,
        server: Server,
        tls: Option<ServerTls>,
        places: usize,
        shutdown: &Shutdown,
        drain_timeout: Duration,
    ) -> Instant {
        info!(listen = %self, connections_per_listener = places, "started");
        let (server, connections) = (Arc::new(server), TaskTracker::new());
        let acceptor = Arc::new(Acceptor { server, tls, places, connections });
        let accept = |listener| {
            let acceptor = Arc::clone(&acceptor);
            shutdown.spawn("accept", async move { acceptor.accept(listener).await })
        };
        let accepting: Vec<_> = self.0.into_iter().map(accept).collect();
        shutdown.token().cancelled().await;
        let deadline = Instant::now() + drain_timeout;
        join_all(accepting).await;
        acceptor.connections.close();
        if timeout_at(deadline, acceptor.connections.wait()).await.is_err() {
            warn!(effect = "connections_cut", "drain_timeout");
        }
        deadline
    }
}

struct Acceptor {
    server: Arc<Server>,
    tls: Option<ServerTls>,
    /// Connections of each listener.
    places: usize,
    /// All of them, also those that have been upgraded.
    connections: TaskTracker,
}

impl Acceptor {
    async fn accept(&self, listener: Listener) {
        // Cancelled at any point it has lost nothing that a shutdown would not end.
        let _shutdown = self.server.shutdown.run_until_cancelled(self.accept_all(&listener)).await;
        listener.close();
    }

    async fn accept_all(&self, listener: &Listener) {
        let admission = Admission::new(self.places, self.connections.clone());
        for number in 0_u64.. {
            let accepted = listener.accept().await;
            if admission.is_full() {
                warn!(%listener, connections = self.places, "connections_full");
            }
            match accepted {
                Ok(stream) => {
                    let Some(admitted) = admission.admit(number).await else { return };
                    self.spawn(stream, admitted);
                }
                Err(error) => {
                    // Out of descriptors, for instance: the next moment may be better.
                    warn!(%listener, %error, "accept_failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn spawn(&self, stream: Stream, admitted: Arc<Admitted>) {
        let server = Arc::clone(&self.server);
        match stream {
            Stream::Tcp(stream) => {
                tokio::spawn(async move { server.serve(ready(Ok(stream)), admitted).await });
            }
            Stream::Unix(stream) => {
                tokio::spawn(async move { server.serve(ready(Ok(stream)), admitted).await });
            }
            Stream::Tls(stream) => {
                // Configuration: a listener with TLS has its files.
                let Some(tls) = &self.tls else { return };
                let handshake = TlsAcceptor::from(tls.get()).accept(stream);
                tokio::spawn(async move { server.serve(handshake, admitted).await });
            }
        }
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
    // Slower where it is refused.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A bridge that starts again finds connections of the former one that have not timed out.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn bind_unix(path: &Path, access: UnixSocketAccess) -> io::Result<Listener> {
    let is_socket = std::fs::metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if is_socket {
        // Only a refusal says that nobody listens; a busy listener answers otherwise.
        let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        if UnixStream::connect(path).await.is_err_and(refused) {
            std::fs::remove_file(path)?;
        }
    }
    let socket = UnixSocket::new_stream()?;
    socket.bind(path)?;
    // Before it listens: until then nobody can connect, whatever the umask.
    let unlistened = set_access(path, access).and_then(|()| socket.listen(BACKLOG));
    let listener = unlistened.inspect_err(|_| drop(std::fs::remove_file(path)))?;
    Ok(Listener::Unix(listener, path.to_owned(), file_id(path)?))
}

fn set_access(path: &Path, access: UnixSocketAccess) -> io::Result<()> {
    let named = |error: io::Error, what: &str| {
        io::Error::new(error.kind(), format!("{what} of unix_socket: {error}"))
    };
    if let Some(group) = access.group {
        chown(path, None, Some(group)).map_err(|error| named(error, "group"))?;
    }
    if let Some(mode) = access.mode {
        let mode = Permissions::from_mode(mode);
        std::fs::set_permissions(path, mode).map_err(|error| named(error, "mode"))?;
    }
    let file = std::fs::symlink_metadata(path)?;
    if file.mode() & 0o022 == 0 {
        let (path, user) = (path.display(), file.uid());
        let hint = "others need mode and group in [unix_socket]";
        info!(%path, user, hint, "unix_socket_for_its_user_only");
    }
    Ok(())
}

/// Device and inode: another process may have put its own socket in the place of ours.
fn file_id(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

impl fmt::Display for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.iter().map(Listener::to_string);
        f.write_str(&names.collect::<Vec<_>>().join(","))
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |tcp: &TcpListener| {
            tcp.local_addr().map_or_else(|error| error.to_string(), |it| it.to_string())
        };
        match self {
            Self::Tcp(tcp) => write!(f, "{}", named(tcp)),
            Self::Tls(tcp) => write!(f, "tls:{}", named(tcp)),
            Self::Unix(_, path, _) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn a_burst_of_connections_waits_to_be_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let addresses = [Listen::Tcp("127.0.0.1:0".parse().unwrap()), Listen::Unix(path.clone())];
        let bound = Listeners::bind(&addresses, UnixSocketAccess::default()).await.unwrap();
        let [tcp, _] = &*bound.0 else { panic!("two addresses") };
        let (address, mut waiting) = (tcp.to_string(), Vec::new());
        let soon = || Instant::now() + Duration::from_millis(900);
        for _ in 0..1500 {
            let stream = timeout_at(soon(), TcpStream::connect(&address)).await;
            waiting.push((
                stream.expect("it is turned away").unwrap(),
                UnixStream::connect(&path).await.unwrap(),
            ));
        }
    }
}
