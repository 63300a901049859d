//! Envoy configurations for tests: many listeners, each with a filter configuration of its own.

use std::env;
use std::path::PathBuf;

use anyhow::ensure;
use serde_json::{Value, json};

use crate::http::Address;
use crate::ports;

/// Listens, filters, and what stands behind the filter.
#[derive(Clone, Debug)]
pub struct Listener {
    name: String,
    filter: Option<Value>,
    vm_id: Option<String>,
    buffer_limit_bytes: u32,
    stream_idle_timeout_s: u32,
    failure_policy: String,
    stop_iteration: bool,
    behind: Option<Value>,
    port: Option<u16>,
    routes: Value,
}

/// A whole configuration; [`super::Envoy::start`] runs it.
#[derive(Clone, Debug)]
pub struct EnvoyConfig {
    pub(super) concurrency: u32,
    wasm: PathBuf,
    listeners: Vec<Listener>,
    clusters: Vec<Value>,
}

/// The text of a configuration, and the ports in it.
#[derive(Debug)]
pub(super) struct Rendered {
    pub(super) text: String,
    pub(super) admin: u16,
    /// Listener names with their ports.
    pub(super) ports: Vec<(String, u16)>,
}

impl Listener {
    /// The filter with a plugin configuration, before a route that answers 504: what passes by
    /// the filter is never answered 200. Where the configuration says that
    /// `allow_on_headers_stop_iteration` is not set it is not, and the bridge holds what goes on
    /// ([`EnvoyConfig::bridge`]).
    #[must_use]
    pub fn filter(name: &str, configuration: Value) -> Self {
        let goes_on = configuration.get(OPTION) == Some(&json!(false))
            || env::var_os(HEADERS_GO_ON).is_some();
        let listener = Self { filter: Some(configuration), ..Self::behind(name, 504, "bypassed") };
        if goes_on { listener.headers_go_on() } else { listener }
    }

    /// No filter; each request is answered 200 `ok` by Envoy itself.
    #[must_use]
    pub fn plain(name: &str) -> Self {
        Self::behind(name, 200, "ok")
    }

    fn behind(name: &str, status: u16, body: &str) -> Self {
        let reply = json!({"status": status, "body": {"inline_string": body}});
        Self {
            name: name.to_owned(),
            filter: None,
            vm_id: None,
            buffer_limit_bytes: 2_097_152,
            stream_idle_timeout_s: 30,
            failure_policy: "FAIL_RELOAD".to_owned(),
            stop_iteration: true,
            behind: None,
            port: None,
            routes: json!([{"match": {"prefix": "/"}, "direct_response": reply}]),
        }
    }

    /// Shares a VM with the other listeners of the same id and plugin; one's own otherwise.
    #[must_use]
    pub fn vm_id(mut self, id: &str) -> Self {
        self.vm_id = Some(id.to_owned());
        self
    }

    /// `per_connection_buffer_limit_bytes`; 2 MiB otherwise.
    #[must_use]
    pub fn buffer_limit_bytes(mut self, bytes: u32) -> Self {
        self.buffer_limit_bytes = bytes;
        self
    }

    /// `stream_idle_timeout`; 30 s otherwise.
    #[must_use]
    pub fn stream_idle_timeout_s(mut self, seconds: u32) -> Self {
        self.stream_idle_timeout_s = seconds;
        self
    }

    /// `FAIL_RELOAD` (as otherwise), `FAIL_CLOSED` or `FAIL_OPEN`.
    #[must_use]
    pub fn failure_policy(mut self, policy: &str) -> Self {
        policy.clone_into(&mut self.failure_policy);
        self
    }

    /// Leaves out `allow_on_headers_stop_iteration`.
    #[must_use]
    pub fn without_stop_iteration(mut self) -> Self {
        self.stop_iteration = false;
        self
    }

    fn headers_go_on(mut self) -> Self {
        if let Some(Value::Object(fields)) = &mut self.filter {
            fields.insert(OPTION.to_owned(), json!(false));
        }
        if env::var(HEADERS_GO_ON).as_deref() == Ok("lua") {
            self = self.lua(AWAIT_BODY);
        }
        let held =
            json!({"cluster": "bypassed", "prefix_rewrite": "/v1/bypassed/", "timeout": "0s"});
        self.without_stop_iteration().routes(json!([{"match": {"prefix": "/"}, "route": held}]))
    }

    /// Has Envoy read the whole body, up to this size, before what stands behind its `buffer` filter
    /// sees the request. Without it an answer that comes before the body's end costs the client its
    /// connection.
    #[must_use]
    pub fn buffered(mut self, bytes: u32) -> Self {
        self.behind = Some(json!({"name": "envoy.filters.http.buffer", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer",
            "max_request_bytes": bytes}}));
        self
    }

    /// Puts a script of Envoy's Lua filter behind the filter.
    #[must_use]
    pub fn lua(mut self, script: &str) -> Self {
        self.behind = Some(json!({"name": "envoy.filters.http.lua", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
            "default_source_code": {"inline_string": script}}}));
        self
    }

    /// Listens on this port instead of a free one.
    #[must_use]
    pub fn on_port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Replaces the routes, a JSON array of Envoy's `Route`.
    #[must_use]
    pub fn routes(mut self, routes: Value) -> Self {
        self.routes = routes;
        self
    }

    /// Sends what passes the filter to a cluster.
    #[must_use]
    pub fn to_cluster(self, cluster: &str) -> Self {
        let route = json!({"match": {"prefix": "/"}, "route": {"cluster": cluster}});
        self.routes(json!([route]))
    }

    fn render(&self, port: u16, wasm: &str) -> Value {
        let router = json!({"name": "envoy.filters.http.router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}});
        let wasm = self.filter.as_ref().map(|config| self.render_filter(config, wasm));
        let behind = self.behind.clone();
        let filters: Vec<Value> = wasm.into_iter().chain(behind).chain([router]).collect();
        let manager = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.\
                      http_connection_manager.v3.HttpConnectionManager",
            "codec_type": "AUTO",
            "stat_prefix": self.name,
            "stream_idle_timeout": format!("{}s", self.stream_idle_timeout_s),
            "http_filters": filters,
            "route_config": {"virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": self.routes}]},
        });
        json!({
            "name": self.name,
            "address": socket_address(port),
            "per_connection_buffer_limit_bytes": self.buffer_limit_bytes,
            "filter_chains": [{"filters": [{
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": manager}]}],
        })
    }

    fn render_filter(&self, configuration: &Value, wasm: &str) -> Value {
        let mut config = json!({
            "name": "kafka-upstream",
            "root_id": "kafka-upstream",
            "failure_policy": self.failure_policy,
            "vm_config": {
                "vm_id": self.vm_id.as_deref().unwrap_or(&self.name),
                "runtime": "envoy.wasm.runtime.v8",
                "code": {"local": {"filename": wasm}},
            },
            "configuration": {
                "@type": "type.googleapis.com/google.protobuf.StringValue",
                "value": configuration.to_string(),
            },
        });
        if let Some(fields) = config.as_object_mut() {
            if self.stop_iteration {
                fields.insert(OPTION.to_owned(), json!(true));
            }
            if self.failure_policy == "FAIL_RELOAD" {
                let backoff = json!({"backoff": {"base_interval": "1s"}});
                fields.insert("reload_config".to_owned(), backoff);
            }
        }
        json!({"name": "envoy.filters.http.wasm", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": config}})
    }
}

impl EnvoyConfig {
    /// One worker, the filter at `wasm`, no listener and no cluster yet.
    #[must_use]
    pub fn new(wasm: impl Into<PathBuf>) -> Self {
        Self { concurrency: 1, wasm: wasm.into(), listeners: Vec::new(), clusters: Vec::new() }
    }

    /// Sets the number of workers.
    #[must_use]
    pub fn concurrency(mut self, workers: u32) -> Self {
        self.concurrency = workers;
        self
    }

    /// Adds a listener on a free port; [`super::Envoy::port`] tells which.
    #[must_use]
    pub fn listener(mut self, listener: Listener) -> Self {
        self.listeners.push(listener);
        self
    }

    /// Adds a cluster of one endpoint, with the timeouts and limits that suit a bridge.
    #[must_use]
    pub fn cluster(mut self, name: &str, endpoint: impl Into<Address>) -> Self {
        self.clusters.push(cluster(name, Some(&endpoint.into()), REQUESTS_MAX));
        self
    }

    /// Adds a cluster whose requests Envoy itself sends again.
    #[must_use]
    pub fn retried_cluster(mut self, name: &str, endpoint: impl Into<Address>) -> Self {
        let mut cluster = cluster(name, Some(&endpoint.into()), REQUESTS_MAX);
        let options = format!("/typed_extension_protocol_options/{HTTP_OPTIONS}");
        if let Some(Value::Object(options)) = cluster.pointer_mut(&options) {
            let retries = json!({"retry_on": "5xx,reset,connect-failure", "num_retries": 3});
            options.insert("retry_policy".to_owned(), retries);
        }
        self.clusters.push(cluster);
        self
    }

    /// Adds a cluster whose circuit breaker lets no request wait for a connection.
    #[must_use]
    pub fn full_cluster(mut self, name: &str, endpoint: impl Into<Address>) -> Self {
        self.clusters.push(cluster(name, Some(&endpoint.into()), 0));
        self
    }

    /// Adds a cluster without an endpoint.
    #[must_use]
    pub fn empty_cluster(mut self, name: &str) -> Self {
        self.clusters.push(cluster(name, None, REQUESTS_MAX));
        self
    }

    /// Adds the clusters `host_bridge` (unix socket), `host_bridge_tcp`, and `bypassed`, where
    /// requests are held, of a bridge.
    #[must_use]
    pub fn bridge(self, bridge: &crate::bridge::Bridge) -> Self {
        self.cluster("host_bridge", bridge.socket().as_path())
            .cluster("host_bridge_tcp", bridge.port())
            .held_cluster(bridge.socket().as_path())
    }

    /// One connection of a worker: the other requests wait for it in Envoy, where the filter ends them.
    fn held_cluster(mut self, endpoint: impl Into<Address>) -> Self {
        let mut cluster = cluster("bypassed", Some(&endpoint.into()), REQUESTS_MAX);
        if let Some(most) = cluster.pointer_mut("/circuit_breakers/thresholds/0/max_connections") {
            *most = json!(1);
        }
        self.clusters.push(cluster);
        self
    }

    /// The configuration as Envoy would read it, to be changed further.
    ///
    /// # Errors
    /// When there is no listener, or no free port.
    pub fn json(&self) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.render()?.text)?)
    }

    pub(super) fn render(&self) -> anyhow::Result<Rendered> {
        ensure!(!self.listeners.is_empty(), "an Envoy without a listener does nothing");
        let wasm = self.wasm.display().to_string();
        let admin = ports::free()?;
        let mut ports = Vec::new();
        let mut listeners = Vec::new();
        for listener in &self.listeners {
            let port = listener.port.map_or_else(ports::free, Ok)?;
            ports.push((listener.name.clone(), port));
            listeners.push(listener.render(port, &wasm));
        }
        let config = json!({
            "admin": {"address": socket_address(admin)},
            "stats_config": {"stats_tags": [
                {"tag_name": "outcome", "regex": "(\\.outcome\\.(\\w+))$"}]},
            "stats_flush_interval": "1s",
            "static_resources": {"listeners": listeners, "clusters": self.clusters},
        });
        Ok(Rendered { text: format!("{config:#}"), admin, ports })
    }
}

fn cluster(name: &str, endpoint: Option<&Address>, pending_max: u32) -> Value {
    let endpoint = endpoint.map(|endpoint| {
        let address = match endpoint {
            Address::Tcp(tcp) => json!({"socket_address": {
                "address": tcp.ip().to_string(), "port_value": tcp.port()}}),
            Address::Unix(path) => json!({"pipe": {"path": path}}),
        };
        json!({"endpoint": {"address": address}})
    });
    let endpoints: Vec<Value> = endpoint.into_iter().collect();
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "circuit_breakers": {"thresholds": [{
            "max_connections": REQUESTS_MAX, "max_pending_requests": pending_max,
            "max_requests": REQUESTS_MAX}]},
        "typed_extension_protocol_options": {
            HTTP_OPTIONS: {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.\
                          HttpProtocolOptions",
                "common_http_protocol_options": {"idle_timeout": "30s"},
                "explicit_http_config": {"http_protocol_options": {}}}},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    })
}

const OPTION: &str = "allow_on_headers_stop_iteration";
/// A script of Envoy's Lua filter that holds each request until its body is there.
pub const AWAIT_BODY: &str = "function envoy_on_request(request) request:body() end";
/// When it is set, every filter runs without that option, and with `lua` before that script.
const HEADERS_GO_ON: &str = "KAFKA_UPSTREAM_HEADERS_GO_ON";
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
/// Above what any test has in flight: Envoy's own limit is 1024.
const REQUESTS_MAX: u32 = 8192;

fn socket_address(port: u16) -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_s_configuration_travels_as_a_string_of_json() {
        let listener = Listener::filter("a", json!({"topic": "t"}));
        let text = EnvoyConfig::new("/w.wasm").listener(listener).render().unwrap().text;
        assert!(text.contains(r#""value": "{\"topic\":\"t\"}""#), "{text}");
        assert!(text.contains(r#""allow_on_headers_stop_iteration": true"#));
    }

    #[test]
    fn a_plain_listener_has_no_filter() {
        let text = EnvoyConfig::new("/w").listener(Listener::plain("a")).render().unwrap().text;
        assert!(!text.contains("wasm.v3.Wasm"));
    }
}
