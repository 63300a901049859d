//! The native process beside the gateway: takes batches from filters and produces them to Kafka.

mod access;
mod admission;
mod auth;
mod batches;
mod body;
mod bridge;
mod bypassed;
mod capture;
mod captures;
mod check;
mod clock;
mod clusters;
mod config;
mod connection;
mod consume;
mod credentials;
mod direct;
mod encoding;
mod failing;
mod http_client;
mod intake;
mod limits;
mod lingering;
mod listen;
mod logging;
mod metrics;
mod outcomes;
mod pipeline;
mod preface;
mod profiles;
mod queued;
mod readers;
mod readiness;
mod recent;
mod registry;
mod reply;
mod rest;
mod routes;
mod security;
mod shutdown;
mod status;
mod tail;
mod taking;
mod tls;
mod unending;
mod watched;
mod webhooks;
mod websocket;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join;
use rustls::pki_types::ServerName;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;
use tracing::{info, warn};

pub use crate::check::{Report, check, configuration};
pub use crate::config::{Args, Command, Config, ConfigError, Tail, environment};
pub use crate::listen::Listeners;
pub use crate::logging::{Log, LogFormat};
pub use crate::security::Tls;
pub use crate::shutdown::Shutdown;
pub use crate::tail::{Ended, tail};

use crate::auth::Proof;
use crate::bridge::Bridge;
use crate::captures::Captures;
use crate::clusters::Clusters;
use crate::connection::{Bounds, Server};
use crate::consume::authorization::Gateway;
use crate::consume::serve::Readers;
use crate::limits::LAST_WRITES;
use crate::metrics::Metrics;
use crate::queued::Queues;
use crate::readers::ReaderListeners;
use crate::tls::ServerTls;
use crate::webhooks::running::Webhooks;

/// Serves until `shutdown` is cancelled, then drains: no new connection is taken, requests under
/// way are answered, and what is queued is written, within `drain_timeout_ms`.
///
/// # Errors
/// A cluster whose properties are wrong, or whose files cannot be read.
pub async fn run(config: Config, listeners: Listeners, shutdown: Shutdown) -> anyhow::Result<()> {
    let (writers, gateways) = proofs(&config, &shutdown)?;
    let tls = load_tls(&config, &[], &shutdown)?;
    let readers_tls = match config.authorization.names() {
        [] => tls.clone(),
        names => load_tls(&config, names, &shutdown)?,
    };
    let (clusters, metrics) = (Arc::new(Clusters::new(&config)?), Arc::<Metrics>::default());
    let feeds = Readers::new(&config.feeds, config.authorization.clone(), &clusters, &metrics);
    let configured = (&config.webhooks, &config.feeds.member);
    let webhooks = Webhooks::new(configured, |name| feeds.reader(name), &metrics.webhooks)?;
    let (captures, drain_timeout) = (Captures::new(&config, &clusters)?, config.drain_timeout);
    let bridge = Arc::new(Bridge::new(Arc::clone(&clusters), captures, metrics, webhooks));
    let hangup = signal(SignalKind::hangup())?;
    let following = [
        shutdown.spawn("reload", reload_on_hangup(hangup, bridge.clone())),
        shutdown.spawn("watch", bridge.clusters.watch()),
    ];
    let readers = ReaderListeners::bind(&config).await?;
    let count = listeners.len() + readers.as_ref().map_or(0, ReaderListeners::len);
    let descriptors = admission::raise_descriptors();
    let places = |most| admission::places(descriptors, count, most);
    let server =
        |router, proof, bounds| Server::new(router, proof, shutdown.token().clone(), bounds);
    let serving = async {
        let reading = async {
            let Some(readers) = readers else { return };
            let router = consume::serve::router(Arc::clone(&feeds));
            let webhooks = bridge.webhooks.run(shutdown.token(), drain_timeout);
            let beside = join(webhooks, feeds.close(shutdown.token().clone())).map(drop);
            let server = server(router, gateways, Bounds::READERS);
            let places = places(limits::FEED_LISTENER_CONNECTIONS);
            let (tls, shutdown) = (readers_tls, shutdown.clone());
            readers.serve(server, tls, places, shutdown, drain_timeout, beside).await;
        };
        let server = server(routes::router(Arc::clone(&bridge)), writers, Bounds::WRITERS);
        let places = places(limits::CONNECTIONS_MAX);
        let writing = listeners.serve(server, tls.clone(), places, &shutdown, drain_timeout);
        let ((), deadline) = tokio::join!(reading, writing);
        bridge.queued.drain(deadline).await;
        following.iter().for_each(tokio::task::JoinHandle::abort);
        bridge.clusters.close(deadline).await;
    };
    let failing = async {
        bridge.clusters.failed().await;
        shutdown.fail("kafka_client");
        std::future::pending().await
    };
    tokio::select! {
        () = failing => {}
        () = serving => info!("stopped"),
        () = overdue(&shutdown, &bridge.queued, drain_timeout) => {
            warn!(effect = "ended_without", "drain_overdue");
        }
    }
    Ok(())
}

/// Whatever hangs, the process ends. What is queued has time of its own before that: a client that is slow
/// with its body is not told that the bridge has its record when nothing is left to write it.
async fn overdue(shutdown: &Shutdown, queued: &Queues, drain_timeout: Duration) {
    let last = LAST_WRITES.min(drain_timeout / 4);
    shutdown.token().cancelled().await;
    sleep(drain_timeout - last).await;
    queued.close();
    sleep(last + DRAIN_GRACE).await;
}

/// The files of listeners with TLS, which are followed.
fn load_tls(
    config: &Config,
    names: &[ServerName<'static>],
    shutdown: &Shutdown,
) -> anyhow::Result<Option<ServerTls>> {
    let loaded = config.listen_tls.as_ref().map(|files| tls::load(files, names)).transpose();
    let loaded = loaded.map_err(|error| anyhow::anyhow!("tls: {error}"))?;
    if let Some(tls) = loaded.clone() {
        shutdown.spawn("tls_files", tls.follow());
    }
    Ok(loaded)
}

/// What callers of filters' listeners must have, and what those of feeds. The files are followed.
fn proofs(config: &Config, shutdown: &Shutdown) -> anyhow::Result<(Proof, Proof)> {
    let tokens = config.token_file.clone().map(auth::load).transpose();
    let tokens = tokens.map_err(|error| anyhow::anyhow!("token_file: {error}"))?;
    let gateway_tokens = config.authorization.load()?;
    for tokens in [&tokens, &gateway_tokens].into_iter().flatten() {
        shutdown.spawn("token_file", Arc::clone(tokens).follow());
    }
    let writers = tokens.map_or(Proof::None, Proof::Bearer);
    let gateways = match (&config.authorization.gateway, gateway_tokens) {
        (None, _) => writers.clone(),
        (Some(_), Some(tokens)) => Proof::Gateway(tokens),
        (Some(gateway), None) => {
            if *gateway == Gateway::None {
                warn!(effect = "everyone_is_taken_for_a_gateway", "gateway_unproven");
            }
            Proof::None
        }
    };
    Ok((writers, gateways))
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
