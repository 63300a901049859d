//! How an endpoint becomes a stream: through sockets, or in memory.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::failures::DialError;
use crate::limits::ADDRESS_STAGGER;
use crate::resolve::Endpoint;

/// What a cluster is reached through.
#[derive(Debug)]
pub(crate) enum Network {
    Sockets,
    /// Brokers of this process; their streams obey a paused clock, which sockets do not.
    #[cfg(feature = "fake_broker")]
    Memory(Box<dyn InMemory>),
}

/// Brokers of this process.
#[cfg(feature = "fake_broker")]
pub(crate) trait InMemory: std::fmt::Debug + Send + Sync {
    /// A stream to the broker that listens there, if one does; else why not.
    fn dial(&self, endpoint: &Endpoint) -> Result<tokio::io::DuplexStream, String>;
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

/// Connects to the address of the host that answers first.
pub(super) async fn dial(endpoint: &Endpoint, patience: Duration) -> Result<TcpStream, DialError> {
    let addresses = look_up(endpoint, patience).await?;
    let dials = alternating(addresses).into_iter().map(|address| async move {
        match timeout(patience, dial_address(address)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(DialError::Tcp(error.to_string())),
            Err(_) => Err(DialError::Tcp(format!("none within {} ms", patience.as_millis()))),
        }
    });
    race(dials).await.unwrap_or(Err(DialError::Name("it has none".to_owned())))
}

/// The first success, or the last failure. An attempt begins when the one before it has failed, or
/// has taken long: an address that is dead must not cost the patience (RFC 8305).
async fn race<T, F>(attempts: impl Iterator<Item = F>) -> Option<Result<T, DialError>>
where
    T: Send + 'static,
    F: Future<Output = Result<T, DialError>> + Send + 'static,
{
    let mut attempts = attempts.fuse();
    let (mut running, mut last) = (JoinSet::new(), None);
    loop {
        let next = attempts.next();
        let is_last = next.is_none();
        next.map(|attempt| running.spawn(attempt));
        let ended = if is_last {
            running.join_next().await
        } else {
            timeout(ADDRESS_STAGGER, running.join_next()).await.unwrap_or_default()
        };
        match ended {
            Some(Ok(Ok(done))) => return Some(Ok(done)),
            Some(Ok(Err(error))) => last = Some(Err(error)),
            None if is_last => return last,
            Some(Err(_)) | None => {}
        }
    }
}

/// Both families in turn, as far as there are two: often a whole family is dead.
fn alternating(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut mixed = Vec::new();
    loop {
        let pair = [first.next(), second.next()];
        if pair == [None, None] {
            return mixed;
        }
        mixed.extend(pair.into_iter().flatten());
    }
}

async fn dial_address(address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A request waits for nothing, and a vanished peer is noticed even when we are idle.
    socket.set_nodelay(true)?;
    socket.set_keepalive(true)?;
    socket.connect(address).await
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    async fn raced(attempts: Vec<(u64, Result<&'static str, ()>)>) -> (Option<String>, u128) {
        let started = Instant::now();
        let attempts = attempts.into_iter().map(|(ms, end)| async move {
            sleep(Duration::from_millis(ms)).await;
            end.map_err(|()| DialError::Tcp(format!("after {ms} ms")))
        });
        let won = race(attempts).await.map(|end| match end {
            Ok(name) => name.to_owned(),
            Err(error) => error.to_string(),
        });
        (won, started.elapsed().as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_first_address_costs_a_quarter_of_a_second() {
        let dead = u64::try_from(PATIENCE.as_millis()).unwrap();
        let (won, took) = raced(vec![(dead, Err(())), (20, Ok("second")), (0, Ok("third"))]).await;
        assert_eq!((won.as_deref(), took), (Some("second"), 270));
        let (won, took) = raced(vec![(300, Ok("slow")), (dead, Err(()))]).await;
        assert_eq!((won.as_deref(), took), (Some("slow"), 300), "one that is slow is not given up");
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_refuses_is_followed_by_the_next_at_once() {
        let (won, took) = raced(vec![(5, Err(())), (5, Err(())), (5, Ok("third"))]).await;
        assert_eq!((won.as_deref(), took), (Some("third"), 15));
        let (won, took) = raced(vec![(7000, Err(())), (5, Err(()))]).await;
        assert!(won.unwrap().contains("after 7000 ms"));
        assert_eq!(took, 7000);
        assert_eq!(raced(Vec::new()).await.0, None);
    }

    #[test]
    fn families_take_turns() {
        let addresses = ["[::1]:1", "[::2]:1", "[::3]:1", "127.0.0.1:1"];
        let mixed = alternating(addresses.map(|text| text.parse().unwrap()).to_vec());
        let mixed: Vec<_> = mixed.iter().map(ToString::to_string).collect();
        assert_eq!(mixed, ["[::1]:1", "127.0.0.1:1", "[::2]:1", "[::3]:1"]);
    }
}
