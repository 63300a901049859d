//! How an endpoint becomes a stream: through sockets, or in memory.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::failure::DialError;
use crate::resolve::Endpoint;

/// What a cluster is reached through.
#[derive(Debug)]
pub(crate) enum Network {
    Sockets,
    /// Brokers of this process; their streams obey a paused clock, which sockets do not.
    #[cfg(feature = "fake_broker")]
    Memory(crate::fake_broker::FakeCluster),
}

/// The addresses of the host, of which there is one at least.
pub(super) async fn look_up(
    endpoint: &Endpoint,
    patience: Duration,
) -> Result<Vec<SocketAddr>, DialError> {
    let found = timeout(patience, endpoint.addresses()).await;
    let found = found.unwrap_or_else(|_| Err(io::Error::other("the name server does not answer")));
    match found {
        Ok(addresses) if addresses.is_empty() => Err(DialError::Name("it has none".to_owned())),
        Ok(addresses) => Ok(addresses),
        Err(error) => Err(DialError::Name(error.to_string())),
    }
}

/// Connects to the first address of the host that answers.
pub(super) async fn dial(endpoint: &Endpoint, patience: Duration) -> Result<TcpStream, DialError> {
    let addresses = look_up(endpoint, patience).await?;
    let mut last = DialError::Name("it has none".to_owned());
    for address in addresses {
        last = match timeout(patience, dial_address(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => DialError::Tcp(error.to_string()),
            Err(_) => DialError::Tcp(format!("none within {} ms", patience.as_millis())),
        };
    }
    Err(last)
}

async fn dial_address(address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A request waits for nothing, and a vanished peer is noticed even when we are idle.
    socket.set_nodelay(true)?;
    socket.set_keepalive(true)?;
    socket.connect(address).await
}
