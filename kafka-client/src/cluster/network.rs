//! How an endpoint becomes a stream: through sockets, or in memory.

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

/// Connects to the first address of the host that answers.
pub(super) async fn dial(endpoint: &Endpoint, patience: Duration) -> Result<TcpStream, DialError> {
    let addresses = timeout(patience, endpoint.addresses())
        .await
        .map_err(|_| DialError::Name("the name server does not answer".to_owned()))?
        .map_err(|error| DialError::Name(error.to_string()))?;
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
