//! Which host is emulated, and what an operator sets in it.

use crate::client::Reply;

/// A host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Envoy with `allow_on_headers_stop_iteration`.
    Envoy,
    /// Envoy without it.
    EnvoyNoStop,
    /// nginx with WasmX, as in Kong.
    Wasmx,
    /// APISIX with wasm-nginx-module.
    Apisix,
}

impl Profile {
    /// All hosts.
    pub const ALL: [Self; 4] = [Self::Envoy, Self::EnvoyNoStop, Self::Wasmx, Self::Apisix];

    /// Whether it is an Envoy.
    #[must_use]
    pub fn is_envoy(self) -> bool {
        matches!(self, Self::Envoy | Self::EnvoyNoStop)
    }
}

/// Envoy's `failure_policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailurePolicy {
    /// 503 for ever.
    Closed,
    /// Every later request passes.
    Open,
    /// A new VM, with a backoff from the second on.
    Reload,
}

/// What an operator sets.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Envoy's `per_connection_buffer_limit_bytes`.
    pub buffer_limit: usize,
    /// Envoy's `stream_idle_timeout` in ms.
    pub idle_timeout_ms: u64,
    /// Envoy's `failure_policy`.
    pub failure_policy: FailurePolicy,
    /// Backoff of `Reload` in ms.
    pub reload_backoff_ms: u64,
    /// Envoy's clusters that have hosts.
    pub clusters: Vec<String>,
    /// Envoy's clusters without hosts.
    pub empty_clusters: Vec<String>,
    /// nginx's `client_max_body_size`; 0 for no limit.
    pub client_max_body_size: usize,
    /// nginx's `client_body_buffer_size`.
    pub client_body_buffer_size: usize,
    /// nginx's timeouts of callouts in ms: a timeout of 0 means this one.
    pub callout_timeout_ms: u64,
    /// WasmX: whether there is a `shm_kv *` zone.
    pub shared_zone: bool,
    /// APISIX: a trap aborts the worker, as it does on a busy one.
    pub trap_aborts: bool,
    /// The upstream.
    pub upstream: Reply,
    /// Envoy: it answers when it has a request's headers, as a `direct_response` does, and not at the
    /// request's end.
    pub answers_early: bool,
    /// The next header map that is read is cut to so many bytes.
    pub broken_map: Option<usize>,
    /// Wasm instructions that a callback may take.
    pub fuel: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            buffer_limit: 2 * 1024 * 1024,
            idle_timeout_ms: 30_000,
            failure_policy: FailurePolicy::Closed,
            reload_backoff_ms: 1_000,
            clusters: vec!["host_bridge".to_owned()],
            empty_clusters: Vec::new(),
            client_max_body_size: 0,
            client_body_buffer_size: 1024 * 1024,
            callout_timeout_ms: 60_000,
            shared_zone: false,
            trap_aborts: false,
            upstream: Reply::text(504, "bypassed"),
            answers_early: true,
            broken_map: None,
            fuel: 1_000_000_000,
        }
    }
}
