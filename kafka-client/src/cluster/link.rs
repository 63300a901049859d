//! The connection of one user to one broker: made when needed, made again with backoff.

use std::sync::Arc;

use tokio::time::{Instant, sleep_until};

use super::{Cluster, ConnectError};
use crate::backoff::random;
use crate::connection::Connection;

/// A link has one owner, so there is at most one attempt to connect at a time.
#[derive(Debug)]
pub(crate) struct Link {
    cluster: Arc<Cluster>,
    broker: i32,
    connection: Option<Arc<Connection>>,
    connected_at: Option<Instant>,
    failures: u32,
    not_before: Option<Instant>,
}

impl Link {
    pub(crate) fn new(cluster: Arc<Cluster>, broker: i32) -> Self {
        Self {
            cluster,
            broker,
            connection: None,
            connected_at: None,
            failures: 0,
            not_before: None,
        }
    }

    /// The open connection; makes one if there is none, after the pause that earlier failures
    /// demand. Dropping the future abandons the attempt.
    ///
    /// A connection of an older TLS configuration is replaced, and serves on if that fails.
    pub(crate) async fn connection(&mut self) -> Result<Arc<Connection>, ConnectError> {
        let open = self.connection.clone().filter(|connection| connection.is_open());
        if let Some(open) = open {
            let pauses = self.not_before.is_some_and(|not_before| Instant::now() < not_before);
            if pauses || !self.cluster.is_outdated(&open) {
                return Ok(open);
            }
            return match self.connect().await {
                Ok(newer) => Ok(newer),
                Err(error) => {
                    tracing::warn!(%error, effect = "former_serves_on", "new_tls_fails");
                    Ok(open)
                }
            };
        }
        let lived = self.connected_at.take().map(|at| at.elapsed());
        self.connection = None;
        if lived.is_some_and(|lived| lived < self.cluster.config.reconnect.max) {
            // It was closed soon: without a pause a broker that is shutting down would get one
            // connection after the other.
            self.pause(1);
        }
        if let Some(not_before) = self.not_before {
            sleep_until(not_before).await;
        }
        self.connect().await
    }

    async fn connect(&mut self) -> Result<Arc<Connection>, ConnectError> {
        match self.cluster.connect_member(self.broker, self.failures).await {
            Ok(connection) => {
                self.failures = 0;
                self.not_before = None;
                self.connected_at = Some(Instant::now());
                let connection = Arc::new(connection);
                self.connection = Some(connection.clone());
                Ok(connection)
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                self.pause(self.failures);
                Err(error)
            }
        }
    }

    fn pause(&mut self, failures: u32) {
        let pause = self.cluster.config.reconnect.after(failures, random());
        self.not_before = Some(Instant::now() + pause);
    }
}
