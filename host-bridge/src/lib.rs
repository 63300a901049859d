//! The native process beside the gateway: takes batches from filters and produces them to Kafka.

mod access;
mod admission;
mod auth;
mod batches;
mod body;
mod bridge;
mod check;
mod clock;
mod clusters;
mod config;
mod connection;
mod consume;
mod credentials;
mod failing;
mod http_client;
mod intake;
mod limits;
mod listen;
mod logging;
mod metrics;
mod outcomes;
mod pipeline;
mod profiles;
mod queued;
mod readers;
mod readiness;
mod recent;
mod reply;
mod rest;
mod routes;
mod security;
mod shutdown;
mod status;
mod tail;
mod tls;
mod watched;

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

pub use crate::check::{Report, check, configuration};
pub use crate::config::{Args, Command, Config, ConfigError, Tail, environment};
pub use crate::listen::Listeners;
pub use crate::logging::{Log, LogFormat};
pub use crate::security::Tls;
pub use crate::shutdown::Shutdown;
pub use crate::tail::{Ended, tail};

use crate::bridge::Bridge;
use crate::connection::{Bounds, Server};
use crate::readers::ReaderListeners;

/// Serves until `shutdown` is cancelled, then drains: no new connection is taken, requests under
/// way are answered, and what is queued is written, within `drain_timeout_ms`.
///
/// # Errors
/// A cluster whose properties are wrong, or whose files cannot be read.
pub async fn run(config: Config, listeners: Listeners, shutdown: Shutdown) -> anyhow::Result<()> {
    let tokens = config.token_file.clone().map(auth::load).transpose();
    let tokens = tokens.map_err(|error| anyhow::anyhow!("token_file: {error}"))?;
    let tls = config.listen_tls.as_ref().map(tls::load).transpose();
    let bridge = Arc::new(Bridge::new(&config)?);
    let tls = tls.map_err(|error| anyhow::anyhow!("tls: {error}"))?;
    let hangup = signal(SignalKind::hangup())?;
    let following = [
        shutdown.spawn("reload", reload_on_hangup(hangup, bridge.clone())),
        shutdown.spawn("watch", bridge.clusters.watch()),
    ];
    if let Some(tokens) = tokens.clone() {
        shutdown.spawn("token_file", tokens.follow());
    }
    if let Some(tls) = tls.clone() {
        shutdown.spawn("tls_files", tls.follow());
    }
    let readers = ReaderListeners::bind(&config).await?;
    let count = listeners.len() + readers.as_ref().map_or(0, ReaderListeners::len);
    let descriptors = admission::raise_descriptors();
    let places = |most| admission::places(descriptors, count, most);
    let drain_timeout = config.drain_timeout;
    let server =
        |router, bounds| Server::new(router, tokens.clone(), shutdown.token().clone(), bounds);
    let serving = async {
        let reading = async {
            let Some(readers) = readers else { return };
            let feeds = consume::serve::Readers::new(&config.feeds, &bridge.clusters);
            let server = server(consume::serve::router(Arc::new(feeds)), Bounds::READERS);
            let places = places(limits::FEED_LISTENER_CONNECTIONS);
            readers.serve(server, tls.clone(), places, shutdown.clone(), drain_timeout).await;
        };
        let server = server(routes::router(Arc::clone(&bridge)), Bounds::WRITERS);
        let places = places(limits::CONNECTIONS_MAX);
        let writing = listeners.serve(server, tls.clone(), places, &shutdown, drain_timeout);
        let ((), deadline) = tokio::join!(reading, writing);
        bridge.queued.drain(deadline).await;
        following.iter().for_each(tokio::task::JoinHandle::abort);
        bridge.clusters.close(deadline).await;
    };
    // Whatever hangs, the process ends.
    let overdue = async {
        shutdown.token().cancelled().await;
        tokio::time::sleep(drain_timeout + DRAIN_GRACE).await;
    };
    let failing = async {
        bridge.clusters.failed().await;
        shutdown.fail("kafka_client");
        std::future::pending().await
    };
    tokio::select! {
        () = failing => {}
        () = serving => info!("stopped"),
        () = overdue => warn!(effect = "ended_without", "drain_overdue"),
    }
    Ok(())
}

/// SIGHUP: certificates, stores and passwords are read from their files again.
async fn reload_on_hangup(mut hangup: Signal, bridge: Arc<Bridge>) {
    while hangup.recv().await.is_some() {
        info!("reloading");
        bridge.clusters.reload().await;
    }
}

/// What the end of the process may take beyond `drain_timeout`.
const DRAIN_GRACE: Duration = Duration::from_secs(1);
