//! The native process beside the gateway: takes batches from filters and produces them to Kafka.

mod access;
mod auth;
mod batches;
mod check;
mod clusters;
mod config;
mod credentials;
mod failing;
mod intake;
mod limits;
mod listen;
mod metrics;
mod outcomes;
mod profiles;
mod queued;
mod readiness;
mod recent;
mod reply;
mod rest;
mod routes;
mod security;
mod status;
mod tls;
mod watched;

use std::sync::Arc;
use std::time::Instant;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;
use tracing_subscriber::EnvFilter;

pub use crate::check::{Report, check};
pub use crate::config::{Args, Command, Config, ConfigError, environment};
pub use crate::listen::Listeners;
pub use crate::security::Tls;

use crate::clusters::Clusters;
use crate::metrics::Metrics;
use crate::profiles::Profiles;
use crate::queued::Queues;
use crate::recent::Recent;

/// What every route works with.
pub(crate) struct Bridge {
    pub(crate) began: Instant,
    /// Whom it serves; everybody who reaches it without.
    pub(crate) tokens: Option<auth::Tokens>,
    pub(crate) clusters: Clusters,
    pub(crate) profiles: Profiles,
    pub(crate) recent: Recent,
    pub(crate) queued: Queues,
    pub(crate) failing: failing::Failing,
    pub(crate) intake: intake::Room,
    pub(crate) metrics: Metrics,
}

/// Serves until `shutdown` is cancelled, then drains: no new connection is taken, requests under
/// way are answered, and what is queued is written, within `drain_timeout_ms`.
///
/// # Errors
/// A cluster whose properties are wrong, or whose files cannot be read.
pub async fn run(
    config: Config,
    listeners: Listeners,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let tokens = config.token_file.clone().map(auth::load).transpose();
    let tls = config.listen_tls.as_ref().map(tls::load).transpose();
    let bridge = Arc::new(Bridge {
        began: Instant::now(),
        tokens: tokens.map_err(|error| anyhow::anyhow!("token_file: {error}"))?,
        clusters: Clusters::new(&config)?,
        profiles: Profiles::default(),
        recent: Recent::default(),
        queued: Queues::default(),
        failing: failing::Failing::default(),
        intake: intake::Room::default(),
        metrics: Metrics::default(),
    });
    let tls = tls.map_err(|error| anyhow::anyhow!("tls: {error}"))?;
    info!(listen = %listeners, "event=started");
    let reloading = tokio::spawn(reload_on_hangup(signal(SignalKind::hangup())?, bridge.clone()));
    let routes = routes::router(Arc::clone(&bridge));
    let deadline = listeners.serve(routes, tls, shutdown, config.drain_timeout).await;
    bridge.queued.drain(deadline).await;
    reloading.abort();
    bridge.clusters.close(deadline).await;
    info!("event=stopped");
    Ok(())
}

/// SIGHUP: certificates, stores and passwords are read from their files again.
async fn reload_on_hangup(mut hangup: Signal, bridge: Arc<Bridge>) {
    while hangup.recv().await.is_some() {
        info!("event=reloading");
        bridge.clusters.reload().await;
    }
}

/// Cancelled by SIGTERM or SIGINT.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn termination() -> std::io::Result<CancellationToken> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        info!("event=draining");
        cancelled.cancel();
    });
    Ok(token)
}

/// The log filter of `HOST_BRIDGE_LOG`, in tracing's syntax. What it does not name has `info` and
/// above, or nothing where a report says it all.
#[must_use]
pub fn log_filter(is_reported: bool) -> EnvFilter {
    let default = if is_reported { "off" } else { "info" };
    let asked = std::env::var(config::LOG_VARIABLE).unwrap_or_default();
    EnvFilter::builder().parse_lossy(format!("{default},{asked}"))
}
