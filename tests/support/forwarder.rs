//! An address that leads to one broker now and to another later, as a name or a load balancer does.

use std::sync::Arc;

use anyhow::Context as _;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Forwards each new connection to where it leads then.
#[derive(Debug)]
pub struct Forwarder {
    address: String,
    target: watch::Sender<String>,
}

impl Forwarder {
    /// One that leads to a `host:port`.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn to(target: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?.to_string();
        let (sender, target) = watch::channel(target.to_owned());
        let target = Arc::new(target);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let to = target.borrow().clone();
                tokio::spawn(async move {
                    let mut broker = TcpStream::connect(to).await?;
                    copy_bidirectional(&mut stream, &mut broker).await
                });
            }
        });
        Ok(Self { address, target: sender })
    }

    /// Its own `host:port`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// New connections go there from now on.
    ///
    /// # Errors
    /// When it has ended.
    pub fn lead_to(&self, target: String) -> anyhow::Result<()> {
        self.target.send(target).context("the forwarder has ended")
    }
}
