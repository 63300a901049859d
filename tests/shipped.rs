//! The configurations that users copy: each is loaded by what it is for, as far as that can be had.

#![expect(clippy::indexing_slicing, reason = "a configuration of ours has what is looked for")]

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use harness::bridge::{Bridge, Settings};
use harness::envoy::{Envoy, EnvoyConfig, Listener};
use harness::http::Request;
use harness::kafka::{Kafka, KafkaVersion};
use harness::ports;
use harness::process::wait_until;
use harness::reader::read_all;
use kafka_upstream_core::config::{Host, Plugin};
use kafka_upstream_core::gateway::Gateway as Kind;
use kafka_upstream_tests::{acked, configuration, text};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::{Value, json};
use xtask::{build, paths};

fn read(path: &str) -> anyhow::Result<String> {
    fs::read_to_string(paths::workspace().join(path)).with_context(|| path.to_owned())
}

pub(crate) fn yaml(path: &str) -> anyhow::Result<Value> {
    serde_saphyr::from_str(&read(path)?).with_context(|| path.to_owned())
}

/// What a gateway alone may tell the bridge: each takes it out of what a client sends.
const GATEWAY_HEADERS: [&str; 10] = [
    "attrs",
    "auto-offset-reset",
    "client-id",
    "cluster",
    "consumer",
    "expires",
    "gateway-token",
    "group",
    "token",
    "topics",
];

/// The filter takes a plugin configuration in its gateway.
fn accepts(kind: Kind, config: &Value) -> anyhow::Result<Plugin> {
    let plugin = Plugin::parse(config.to_string().as_bytes())?;
    ensure!(plugin.host.gateway() == Some(kind), "host is {:?}", plugin.host);
    for settings in &plugin.settings {
        kind.check_target(&settings.bridge.target).map_err(anyhow::Error::msg)?;
    }
    Ok(plugin)
}

#[test]
fn kong_and_apisix_send_a_request_to_a_capture_route_once() -> anyhow::Result<()> {
    let kong = yaml("kong/capture.yml")?;
    let service = &kong["services"][0];
    assert_eq!(service["url"], "http://127.0.0.1:9280/v1/capture/orders");
    assert_eq!((&service["retries"], &service["read_timeout"]), (&json!(0), &json!(15_000)));
    let apisix: Value = serde_json::from_str(&read("apisix/capture.json")?)?;
    assert_eq!(apisix["upstream"]["retries"], 0);
    let rewrite = &apisix["plugins"]["proxy-rewrite"];
    assert_eq!(rewrite["regex_uri"], json!(["^(/.*)$", "/v1/capture/orders$1"]));
    Ok(())
}

#[test]
fn the_filter_takes_the_configurations_for_kong_nginx_and_apisix() -> anyhow::Result<()> {
    let kong = yaml("kong/kong.yml")?;
    let filter = &kong["filter_chains"][0]["filters"][0];
    assert_eq!(filter["name"], "kafka_upstream");
    let plugin = accepts(Kind::Wasmx, &filter["config"])?;
    let bypass = kong["services"][0]["url"].as_str().context("a Service")?;
    assert!(bypass.ends_with("/v1/bypassed"), "{bypass}");

    let nginx = read("kong/nginx.conf")?;
    let (workers, _) = nginx.split_once("\nwasm {").context("the wasm block")?;
    assert!(workers.contains("\nworker_processes"), "nginx crashes where a filter has metrics");
    let (_, rest) = nginx.split_once("proxy_wasm kafka_upstream '").context("proxy_wasm")?;
    let (config, _) = rest.split_once("';").context("the end of its configuration")?;
    assert!(config.len() < 4000);
    accepts(Kind::Wasmx, &serde_json::from_str(config)?)?;

    let (env, megabyte) = (read("kong/kong.env")?, 1_048_576);
    assert_eq!(plugin.settings[0].max_body_bytes, megabyte);
    for limit in ["CLIENT_MAX_BODY_SIZE=1m", "CLIENT_BODY_BUFFER_SIZE=1m"] {
        assert!(env.contains(limit), "{limit} is max_body_bytes");
    }
    for limit in ["client_max_body_size 1m", "client_body_buffer_size 1m"] {
        assert!(nginx.contains(limit), "{limit} is max_body_bytes");
    }

    let route: Value = serde_json::from_str(&read("apisix/route.json")?)?;
    let plugin = accepts(Kind::Apisix, &route["plugins"]["kafka-upstream"]["conf"])?;
    assert_eq!(plugin.host, Host::Apisix);
    assert_eq!(route["plugins"]["proxy-rewrite"]["uri"], "/v1/bypassed");
    for gateway in ["kong/kong.yml", "kong/nginx.conf", "apisix/feeds.json", "envoy/envoy.yaml"] {
        let text = read(gateway)?;
        for name in GATEWAY_HEADERS {
            assert!(text.contains(&format!("kafka-upstream-{name}")), "{gateway}: {name}");
        }
    }
    let feeds: Value = serde_json::from_str(&read("apisix/feeds.json")?)?;
    assert_eq!(feeds["enable_websocket"], true);
    assert_eq!(feeds["plugins"]["proxy-buffering"]["disable_proxy_buffering"], true);
    assert_eq!(kong["services"][1]["routes"][0]["response_buffering"], false);
    let apisix = yaml("apisix/config.yaml")?;
    assert_eq!(apisix["wasm"]["plugins"][0]["name"], "kafka-upstream");
    assert_eq!(apisix["nginx_config"]["http"]["client_max_body_size"], "1m");
    Ok(())
}

/// Runs a configuration that was changed after it was made.
async fn run(config: &Value) -> anyhow::Result<Envoy> {
    let port = |address: &Value| {
        let port = address["address"]["socket_address"]["port_value"].as_u64();
        anyhow::Ok(u16::try_from(port.context("a port")?)?)
    };
    let mut listeners = Vec::new();
    for listener in config["static_resources"]["listeners"].as_array().context("listeners")? {
        let name = listener["name"].as_str().unwrap_or_default();
        listeners.push((name.to_owned(), port(listener)?));
    }
    Envoy::start_file(&config.to_string(), port(&config["admin"])?, listeners, &[]).await
}

/// Points a cluster at a port of loopback.
fn at_loopback(cluster: &mut Value, port: u16) {
    let address = "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address";
    if let Some(address) = cluster.pointer_mut(address) {
        *address = json!({ "address": "127.0.0.1", "port_value": port });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn istios_patches_make_an_envoy_that_captures_what_fits_its_rule() -> anyhow::Result<()> {
    let kafka = Kafka::pooled(KafkaVersion::V4_3).await?;
    kafka.create_topic("orders", 1).await?;
    let bridge = Bridge::start(Settings::to(kafka.bootstrap())).await?;
    let filter = build::filter()?;
    let mut config = EnvoyConfig::new(&filter).listener(Listener::plain("gateway")).json()?;
    let istio = yaml("envoy/istio.yaml")?;
    assert_eq!(istio["kind"], "EnvoyFilter");
    for patch in istio["spec"]["configPatches"].as_array().context("patches")? {
        let mut value = patch["patch"]["value"].clone();
        let manager = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
        let manager = config.pointer_mut(manager).context("the connection manager")?;
        match patch["applyTo"].as_str() {
            Some("CLUSTER") => {
                at_loopback(&mut value, bridge.port());
                config["static_resources"]["clusters"] = json!([value]);
            }
            Some("HTTP_FILTER") => {
                value["typed_config"]["config"]["vm_config"]["code"]["local"]["filename"] =
                    json!(filter);
                manager["http_filters"].as_array_mut().context("http_filters")?.insert(0, value);
            }
            Some("NETWORK_FILTER") => {
                let of = manager.as_object_mut().context("the connection manager")?;
                of.extend(value["typed_config"].as_object().context("typed_config")?.clone());
            }
            other => anyhow::bail!("{other:?}"),
        }
    }
    let envoy = run(&config).await?;
    let port = envoy.port("gateway")?;
    let taken = Request::post("/orders/1", "x").send(port).await?;
    assert_eq!((taken.status, taken.header("kafka-topic")), (200, Some("orders")));
    let passed = Request::get("/other").send(port).await?;
    assert_eq!((passed.status, &*passed.text()), (200, "ok"));
    assert_eq!(read_all(&kafka.bootstrap(), "orders").await?.len(), 1);
    Ok(())
}

/// What Envoy Gateway and Istio make without the option: a bridge that is away is the filter's own 503, and
/// the end of a VM is 504.
#[tokio::test(flavor = "multi_thread")]
async fn the_filter_serves_where_headers_go_on_before_the_body() -> anyhow::Result<()> {
    let kafka = Kafka::pooled(KafkaVersion::V4_3).await?;
    kafka.create_topic("http-requests", 1).await?;
    let mut bridge = Bridge::start(Settings::to(kafka.bootstrap())).await?;
    let (admin, port) = (ports::free()?, ports::free()?);
    let mut text = read("envoy/headers-go-on.yaml")?;
    for (from, to) in [
        ("port_value: 9901", format!("port_value: {admin}")),
        ("port_value: 10000", format!("port_value: {port}")),
        ("port_value: 9280", format!("port_value: {}", bridge.port())),
        // Less than what a client waits here, for what a VM that ended leaves paused.
        ("stream_idle_timeout: 30s", "stream_idle_timeout: 12s".to_owned()),
        ("/etc/envoy/kafka_upstream.wasm", build::filter_with_trap()?.display().to_string()),
    ] {
        ensure!(text.contains(from), "no `{from}`");
        text = text.replace(from, &to);
    }
    let envoy = Envoy::start_file(&text, admin, vec![("http".to_owned(), port)], &[]).await?;
    let post = async || anyhow::Ok(Request::post("/a", "x").send(port).await?);
    assert_eq!(post().await?.status, 200);
    bridge.kill9()?;
    let reply = post().await?;
    assert_eq!((reply.status, reply.header("kafka-error")), (503, Some("bridge_unreachable")));
    bridge.restart().await?;
    wait_until("a 200", Duration::from_secs(20), async || {
        ensure!(post().await?.status == 200);
        Ok(())
    })
    .await?;
    assert_eq!(read_all(&kafka.bootstrap(), "http-requests").await?.len(), 2);
    let trapped = Request::post("/a", "x").header("x-trap", "1").send(port).await?;
    assert_eq!(trapped.status, 504, "the VM has ended, and the record may be written");
    drop(envoy);
    Ok(())
}

/// What Istio makes of its two TrafficExtensions: a captured request goes no further, slow as its body may be.
#[tokio::test(flavor = "multi_thread")]
async fn istios_script_holds_a_captured_request_behind_the_filter() -> anyhow::Result<()> {
    let kafka = Kafka::pooled(KafkaVersion::V4_3).await?;
    kafka.create_topic("orders", 1).await?;
    let mut bridge = Bridge::start(Settings::to(kafka.bootstrap())).await?;
    let filter = yaml("kubernetes/istio/traffic-extension.yaml")?;
    let script = yaml("kubernetes/istio/body.yaml")?;
    let priority = |extension: &Value| extension["spec"]["priority"].as_i64();
    assert!(priority(&filter) > priority(&script), "Istio puts the higher first");
    for field in ["phase", "selector"] {
        assert_eq!(filter["spec"][field], script["spec"][field]);
    }
    let mut plugin = filter["spec"]["wasm"]["pluginConfig"].clone();
    plugin["bridge"] = json!("host_bridge");
    let script = script["spec"]["lua"]["inlineCode"].as_str().context("a script")?;
    let listener = Listener::filter("gateway", plugin).lua(script);
    let config = EnvoyConfig::new(build::filter()?).bridge(&bridge).listener(listener);
    let envoy = Envoy::start(config).await?;
    let port = envoy.port("gateway")?;
    let slow = async || {
        let pieces = vec!["x".into(), "y".into()];
        let request = Request::post("/orders/1", "").pieces(pieces, Duration::from_millis(200));
        anyhow::Ok(request.send(port).await?)
    };
    assert_eq!(slow().await?.status, 200);
    assert_eq!(Request::get("/orders/2").send(port).await?.status, 200);
    bridge.kill9()?;
    let reply = slow().await?;
    assert_eq!((reply.status, reply.header("kafka-error")), (503, Some("bridge_unreachable")));
    assert_eq!(envoy.stat("cluster.bypassed.upstream_rq_total").await?, 0);
    bridge.restart().await?;
    assert_eq!(Request::post("/other", "x").send(port).await?.status, 504, "it is not captured");
    assert_eq!(read_all(&kafka.bootstrap(), "orders").await?.len(), 2);
    Ok(())
}

/// A certificate for a name, and that of its authority, as PEM files in a folder.
struct Issued {
    dir: tempfile::TempDir,
}

impl Issued {
    fn for_name(name: &str) -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, format!("authority of {name}"));
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let own = CertificateParams::new(vec![name.to_owned()])?.signed_by(&key, &authority)?;
        let dir = tempfile::tempdir()?;
        for (file, pem) in
            [("ca.crt", authority.pem()), ("own.crt", own.pem()), ("own.key", key.serialize_pem())]
        {
            fs::write(dir.path().join(file), pem)?;
        }
        Ok(Self { dir })
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_to_a_bridge_with_tls_and_a_token_is_open_only_to_who_has_both()
-> anyhow::Result<()> {
    let kafka = Kafka::pooled(KafkaVersion::V4_3).await?;
    kafka.create_topic("orders", 1).await?;
    let (issued, gateways) =
        (Issued::for_name("bridge.example.com")?, Issued::for_name("gateway")?);
    fs::write(issued.path("tokens"), "old-token\n\n  right-token \n")?;
    let quoted = |path: PathBuf| Value::from(path.display().to_string()).to_string();
    let port = ports::free()?;
    let mut settings = Settings::to(kafka.bootstrap())
        .line(&format!("token_file = {}", quoted(issued.path("tokens"))))
        .line("[tls]")
        .line(&format!("certificate_file = {}", quoted(issued.path("own.crt"))))
        .line(&format!("key_file = {}", quoted(issued.path("own.key"))))
        .line(&format!("client_ca_file = {}", quoted(gateways.path("ca.crt"))));
    settings.listen = vec![format!("tls:127.0.0.1:{port}")];
    let bridge = Bridge::start(settings).await?;

    let mut made = EnvoyConfig::new(build::filter()?);
    let topic = |fields| configuration("orders", &acked(&fields));
    for (name, cluster, token) in [
        ("right", "right", Some("right-token")),
        ("wrong_token", "right", Some("wrong-token")),
        ("no_token", "right", None),
        ("no_certificate", "no_certificate", Some("right-token")),
        ("other_authority", "other_authority", Some("right-token")),
        ("other_name", "other_name", Some("right-token")),
    ] {
        let fields =
            json!({ "bridge": cluster, "bridge_token": token, "bridge_authority": "bridge" });
        made = made.listener(Listener::filter(name, topic(fields)));
    }
    let mut config = made.json()?;
    let shipped = yaml("envoy/host-bridge-tls.yaml")?;
    let clusters = ["right", "no_certificate", "other_authority", "other_name"].map(|name| {
        let mut cluster = shipped.clone();
        cluster["name"] = json!(name);
        cluster["load_assignment"]["cluster_name"] = json!(name);
        at_loopback(&mut cluster, port);
        let context = &mut cluster["transport_socket"]["typed_config"]["common_tls_context"];
        let authority = if name == "other_authority" { &gateways } else { &issued };
        context["validation_context"]["trusted_ca"]["filename"] = json!(authority.path("ca.crt"));
        if name == "other_name" {
            let names = &mut context["validation_context"]["match_typed_subject_alt_names"];
            names[0]["matcher"]["exact"] = json!("other.example.com");
        }
        if name != "no_certificate" {
            context["tls_certificates"] = json!([{
                "certificate_chain": { "filename": gateways.path("own.crt") },
                "private_key": { "filename": gateways.path("own.key") },
            }]);
        }
        cluster
    });
    config["static_resources"]["clusters"] = json!(clusters);
    let envoy = run(&config).await?;
    for (name, status, error) in [
        ("right", 200, None),
        ("wrong_token", 500, Some("bridge_unauthorized")),
        ("no_token", 500, Some("bridge_unauthorized")),
        ("other_authority", 503, Some("bridge_unreachable")),
        ("other_name", 503, Some("bridge_unreachable")),
    ] {
        let reply = text(name).send(envoy.port(name)?).await?;
        assert_eq!((reply.status, reply.header("kafka-error")), (status, error), "{name}");
    }
    // The bridge closes after its side of the handshake: to Envoy the request may have been read.
    let reply = text("no certificate").send(envoy.port("no_certificate")?).await?;
    assert!(matches!(reply.status, 503 | 504), "{}", reply.status);
    assert_eq!(read_all(&kafka.bootstrap(), "orders").await?.len(), 1, "only one had both");
    let open = Request::get("/healthz").send(bridge.port()).await?;
    assert_eq!(open.status, 200);
    let closed = Request::get("/metrics").send(bridge.port()).await?;
    assert_eq!((closed.status, closed.header("www-authenticate")), (401, Some("Bearer")));
    let bypassed = Request::post("/v1/bypassed", "x").send(bridge.port()).await?;
    assert_eq!(bypassed.status, 504);
    Ok(())
}
