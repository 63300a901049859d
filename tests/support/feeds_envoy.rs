//! The Envoy that is shipped, with its listener of feeds alone, in front of any number of bridges.

use anyhow::Context as _;
use harness::envoy::{Envoy, Example, render_example};
use harness::ports;
use serde_json::{Value, json};

/// The path at which Envoy itself answers with a page.
pub const PAGE: &str = "/page";

/// Starts it; readers reach it at the listener `feeds`. With a page of HTML it has that, too, of the
/// same origin as the feeds.
///
/// # Errors
/// When `envoy/envoy.yaml` has not the listener and the cluster, or Envoy does not start.
pub async fn start(feeds_ports: &[u16], page: Option<&str>) -> anyhow::Result<Envoy> {
    let (readers, admin) = (ports::free()?, ports::free()?);
    let first = feeds_ports.first().copied().context("no bridge")?;
    let example = Example {
        port: ports::free()?,
        admin_port: admin,
        wasm: "/none".into(),
        socket: "/none".into(),
        bridge_port: first,
        readers_port: readers,
        feeds_port: first,
    };
    let mut config: Value = serde_saphyr::from_str(&render_example(&example)?)?;
    let resources = config.get_mut("static_resources").context("static_resources")?;
    let listeners = array(resources, "/listeners")?;
    listeners.retain(|listener| listener.get("name") == Some(&json!("feeds")));
    let routes = "/listeners/0/filter_chains/0/filters/0/typed_config/route_config\
                  /virtual_hosts/0/routes";
    if let Some(page) = page {
        let html = json!({ "header": { "key": "content-type", "value": "text/html" } });
        let route = json!({ "match": { "path": PAGE },
            "direct_response": { "status": 200, "body": { "inline_string": page } },
            "response_headers_to_add": [html] });
        array(resources, routes)?.push(route);
    }
    let clusters = array(resources, "/clusters")?;
    clusters.retain(|cluster| cluster.get("name") == Some(&json!("host_bridge_feeds")));
    let endpoints = "/clusters/0/load_assignment/endpoints/0/lb_endpoints";
    *array(resources, endpoints)? = feeds_ports.iter().map(|port| endpoint(*port)).collect();
    let ports = vec![("feeds".to_owned(), readers)];
    Envoy::start_file(&config.to_string(), admin, ports, &[]).await
}

fn array<'a>(config: &'a mut Value, pointer: &str) -> anyhow::Result<&'a mut Vec<Value>> {
    config.pointer_mut(pointer).and_then(Value::as_array_mut).with_context(|| pointer.to_owned())
}

fn endpoint(port: u16) -> Value {
    let address = json!({ "address": "127.0.0.1", "port_value": port });
    json!({ "endpoint": { "address": { "socket_address": address } } })
}
