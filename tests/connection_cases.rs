//! Every case into Kafka, TLS and SASL on real brokers: with right settings a record goes through
//! filter and bridge; with wrong ones the client is told what to change.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use harness::bridge::{Bridge, Settings};
use harness::envoy::{Envoy, EnvoyConfig, Listener};
use harness::http::{Request, Response};
use harness::kafka::KafkaVersion;
use harness::process::wait_until;
use harness::reader::read_all;
use kafka_upstream_tests::secured_cluster::{BOB, BY_ENVIRONMENT, Case, SecuredCluster, WRONG};
use kafka_upstream_tests::{bodies, configuration, text};
use serde_json::{Value, json};
use xtask::build;

/// Where every case leads; the record's body names the case.
const TOPIC: &str = "orders";
/// What callers of the bridge must have.
const BEARER: &str = "bridges-bearer-token";

/// Filters that say themselves who they are, as Kong's plugin has it.
fn filters(secured: &SecuredCluster) -> anyhow::Result<Vec<(&'static str, Value)>> {
    let filter = |listener: &str, ssl: bool, user: &str, password: &str| -> anyhow::Result<Value> {
        let address = secured.kafka.bootstrap_at(listener)?;
        let port: u16 = address.rsplit(':').next().context("no port")?.parse()?;
        Ok(json!({
            // Else a cluster of the bridge with the same settings is the same client.
            "cluster_name": "kong",
            "bootstrap_servers": [{ "host": "127.0.0.1", "port": port }],
            "security": { "ssl": ssl },
            "authentication": { "mechanism": "SCRAM-SHA-512", "user": user, "password": password },
        }))
    };
    Ok(vec![
        ("kong-right", filter("OPEN", false, "bob", BOB)?),
        ("kong-right-by-tls", filter("SECURE", true, "bob", BOB)?),
        ("kong-password", filter("SECURE", true, "bob", WRONG)?),
    ])
}

fn toml(clusters: &BTreeMap<&'static str, Case>) -> String {
    let mut text = String::new();
    for (name, case) in clusters {
        // A JSON string is a TOML string; writing to a String cannot fail.
        let _infallible = writeln!(text, "[clusters.\"{name}\"]");
        for (property, value) in case {
            let _infallible = writeln!(text, "\"{property}\" = {}", Value::from(value.as_str()));
        }
    }
    text
}

async fn every_case(version: KafkaVersion) -> anyhow::Result<()> {
    let secured = SecuredCluster::start(version).await?;
    let (right, wrong) = (secured.right()?, secured.wrong()?);
    let is_right = |name: &str| right.contains_key(name) || name.starts_with("kong-right");
    let mut listeners = filters(&secured)?;
    let names = right.keys().chain(wrong.keys());
    listeners.extend(names.map(|name| (*name, json!({ "cluster": name }))));
    let bridge = bridge(&secured, &[&right, &wrong]).await?;
    let mut config = EnvoyConfig::new(build::filter()?).bridge(&bridge);
    secured.kafka.create_topic(TOPIC, 1).await?;
    for (name, fields) in &mut listeners {
        let fields = fields.as_object_mut().context("fields are an object")?;
        fields.insert("bridge_token".into(), BEARER.into());
        fields.insert("producer_async".into(), false.into());
        // All connect at once, and some keys take long to be unlocked.
        let delivery_timeout = if is_right(name) { 30_000 } else { 5000 };
        fields.insert("delivery_timeout".into(), delivery_timeout.into());
        fields.insert("error_handling".into(), json!({ "return_error_message": true }));
        let fields = configuration(TOPIC, &Value::Object(fields.clone()));
        config = config.listener(Listener::filter(name, fields).vm_id("cases"));
    }
    let envoy = Envoy::start(config).await?;
    let sending = listeners.iter().map(|(name, _)| {
        let port = envoy.port(name);
        async move { anyhow::Ok((*name, text(name).send(port?).await?)) }
    });
    let sent = futures_util::future::join_all(sending).await;
    let records = bodies(&read_all(&secured.kafka.bootstrap(), TOPIC).await?)?;
    let mut told = String::new();
    for sent in sent {
        let (name, reply) = sent?;
        let written = records.get(name).copied().unwrap_or(0);
        let expected = if is_right(name) { (200, 1) } else { (503, 0) };
        let got = (reply.status, written);
        ensure!(got == expected, "{name}: {got:?}, not {expected:?}: {}", reply.text());
        if !is_right(name) {
            let error = error(&reply)?;
            let _infallible = writeln!(told, "{name}\n  {}", secured.anonymous(&error)?);
        }
    }
    // Each client has 2 s to answer, and all are asked at once.
    let status = wait_until("all clients' answers", Duration::from_secs(60), async || {
        let status = stages(&get(&bridge, "/v1/status").await?.json()?)?;
        ensure!(!status.contains(": ,"), "neither ready nor at fault:\n{status}");
        Ok(status)
    })
    .await?;
    insta::assert_snapshot!("status", status);
    let failing = |cluster| format!("cluster=\"{cluster}\",stage=\"credential\"");
    let metrics = get(&bridge, "/metrics").await?.text();
    for (cluster, expected) in [("plain-password", 1.0), ("sasl-ssl-plain", 0.0)] {
        let name = "host_bridge_kafka_faults";
        ensure!(harness::bridge::sum(&metrics, name, &failing(cluster)) == expected, "{cluster}");
    }
    nobody_is_told_a_secret(&secured, &bridge, &envoy, &told).await?;
    insta::assert_snapshot!("cases", told);
    Ok(())
}

/// A bridge that logs all there is, and wants a token of its callers.
async fn bridge(
    secured: &SecuredCluster,
    clusters: &[&BTreeMap<&'static str, Case>],
) -> anyhow::Result<Bridge> {
    let tokens = secured.right.path("tokens")?;
    std::fs::write(&tokens, format!("{BEARER}\n"))?;
    let (own, trust) = (Value::from(tokens), Value::from(secured.right.path("ca.pem")?));
    let lines = format!("token_file = {own}\n[inline]\nssl.truststore.location = {trust}\n");
    let clusters = clusters.iter().map(|clusters| toml(clusters));
    let settings = Settings::to(secured.kafka.bootstrap()).line(&lines);
    let mut settings = clusters.fold(settings, |settings, cluster| settings.line(&cluster));
    settings.env.push(("HOST_BRIDGE_LOG".to_owned(), "trace".to_owned()));
    settings.env.push(password());
    Bridge::start(settings).await
}

async fn get(bridge: &Bridge, path: &str) -> anyhow::Result<Response> {
    let asked = Request::get(path).header("authorization", format!("Bearer {BEARER}"));
    asked.send(bridge.port()).await
}

/// What `/v1/status` says of each client: ready, or the stages that fail; mechanism and checks.
fn stages(status: &Value) -> anyhow::Result<String> {
    let clients = status.get("clients").and_then(Value::as_array).context("no clients")?;
    let told = |client: &Value, path: &str| {
        client.pointer(path).and_then(Value::as_str).unwrap_or("-").to_owned()
    };
    let mut lines = Vec::new();
    for client in clients {
        let faults = client.get("faults").and_then(Value::as_array).context("no faults")?;
        let mut stages: Vec<_> = faults.iter().map(|fault| told(fault, "/stage")).collect();
        stages.dedup();
        let is_ready = client.get("ready") == Some(&Value::Bool(true));
        let state = if is_ready { "ready".to_owned() } else { stages.join(" ") };
        let (cluster, mechanism) = (told(client, "/cluster"), told(client, "/mechanism"));
        lines.push(format!("{cluster}: {state}, {mechanism}, {}", told(client, "/tls/checks")));
    }
    lines.sort();
    lines.dedup();
    Ok(lines.join("\n"))
}

/// The variable that has the password of a case.
fn password() -> (String, String) {
    let cluster = BY_ENVIRONMENT.to_uppercase();
    (format!("HOST_BRIDGE_CLUSTERS__{cluster}__SASL_PASSWORD"), BOB.to_owned())
}

fn error(reply: &Response) -> anyhow::Result<String> {
    let body = reply.json()?;
    let error = body.get("error").and_then(Value::as_str);
    Ok(error.with_context(|| format!("no error in {body}"))?.to_owned())
}

/// Looks for every secret of the run in everything that was told to anyone.
async fn nobody_is_told_a_secret(
    secured: &SecuredCluster,
    bridge: &Bridge,
    envoy: &Envoy,
    replies: &str,
) -> anyhow::Result<()> {
    let mut told = vec![("replies", replies.to_owned())];
    for path in ["/readyz", "/metrics", "/v1/status"] {
        told.push((path, get(bridge, path).await?.text()));
    }
    let anonymous = Request::get("/v1/status").send(bridge.port()).await?;
    ensure!(anonymous.status == 401, "/v1/status answers anybody");
    told.push(("the bridge's log", std::fs::read_to_string(bridge.process().log())?));
    told.push(("Envoy's log", envoy.log()));
    told.push(("Envoy's statistics", format!("{:?}", envoy.stats("").await?)));
    let checked = check(bridge).await?;
    let path = bridge.config_path().display().to_string();
    insta::assert_snapshot!("check", secured.anonymous(&checked.replace(&path, "FILE"))?);
    told.push(("host-bridge check", checked));
    for (what, text) in &told {
        ensure!(!text.is_empty(), "{what} says nothing");
        for secret in secured.secrets().iter().map(String::as_str).chain([BEARER]) {
            let quoted = Value::from(secret).to_string();
            let found = [secret, quoted.trim_matches('"')].iter().any(|form| text.contains(form));
            ensure!(!found, "{what} tells the secret {secret}");
        }
    }
    Ok(())
}

/// What `host-bridge check` prints for the bridge's own configuration.
async fn check(bridge: &Bridge) -> anyhow::Result<String> {
    let mut command = Command::new(bridge.binary());
    command.arg("check").arg("--config").arg(bridge.config_path()).envs([password()]);
    // Its own addresses are in use.
    command.args(["--listen", "127.0.0.1:0"]);
    command.args(["--topic", "sasl-ssl-plain/orders", "--topic", "no-such-topic"]);
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    ensure!(output.status.code() == Some(1), "it ends with {}", output.status);
    Ok(String::from_utf8([output.stdout, output.stderr].concat())?)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_case_of_kafka_4_3_connects_or_says_why_not() -> anyhow::Result<()> {
    every_case(KafkaVersion::V4_3).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_case_of_kafka_3_9_connects_or_says_why_not() -> anyhow::Result<()> {
    every_case(KafkaVersion::V3_9).await
}
