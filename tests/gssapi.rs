//! Clients that Kerberos knows: a KDC, real brokers with a keytab, and a bridge with the feature.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use harness::bridge::{Bridge, Settings};
use harness::envoy::{Envoy, EnvoyConfig, Listener};
use harness::http::Request;
use harness::kafka::{Kafka, KafkaVersion, Setup};
use harness::kdc::{Kdc, REALM};
use harness::process::wait_until;
use harness::reader::read_all;
use kafka_upstream_tests::{Gateway, acked, configuration, text};
use serde_json::{Value, json};
use xtask::build;

/// A broker that Kerberos knows as `kafka/127.0.0.1`, with sessions of so many milliseconds.
async fn secured(version: KafkaVersion, kdc: &Kdc, session_ms: &str) -> anyhow::Result<Kafka> {
    let module = module(&kdc.keytab("kafka/127.0.0.1", "kafka.keytab")?, "kafka/127.0.0.1");
    let setup = Setup {
        properties: &[
            ("sasl.enabled.mechanisms", "GSSAPI"),
            ("sasl.kerberos.service.name", "kafka"),
            ("listener.name.sasl.gssapi.sasl.jaas.config", &module),
            ("connections.max.reauth.ms", session_ms),
        ],
        listeners: &[("SASL", "SASL_PLAINTEXT")],
        java: &[format!("-Djava.security.krb5.conf={}", kdc.config().display())],
        ..Setup::default()
    };
    Kafka::start_setup(version, 1, 1, setup).await
}

/// The login module of a user of Kafka's Java client, or of a broker.
fn module(keytab: &Path, principal: &str) -> String {
    format!(
        "com.sun.security.auth.module.Krb5LoginModule required useKeyTab=true storeKey=true \
         keyTab=\"{}\" principal=\"{principal}@{REALM}\";",
        keytab.display()
    )
}

fn cache_module(ticket: &Path) -> String {
    format!(
        "com.sun.security.auth.module.Krb5LoginModule required useTicketCache=true \
         ticketCache=\"{}\";",
        ticket.display()
    )
}

fn properties<'a>(service: &'a str, module: &'a str) -> [(&'a str, &'a str); 4] {
    [
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "GSSAPI"),
        ("sasl.kerberos.service.name", service),
        ("sasl.jaas.config", module),
    ]
}

/// A bridge with these clusters, all of them at the listener of Kerberos.
async fn bridge(
    kdc: &Kdc,
    kafka: &Kafka,
    clusters: &[(&str, [(&str, &str); 4])],
) -> anyhow::Result<Bridge> {
    let address = kafka.bootstrap_at("SASL")?;
    let mut settings = Settings::to(address.clone());
    let binary = tokio::task::spawn_blocking(build::bridge_with_gssapi).await??;
    settings.binary = Some(binary);
    settings.env = kdc.env()?;
    for (name, properties) in clusters {
        if *name == "default" {
            for (key, value) in properties {
                settings = settings.property(key, value);
            }
            continue;
        }
        settings = settings.line(&format!("[clusters.{name}]"));
        for (key, value) in [("bootstrap.servers", address.as_str())].iter().chain(properties) {
            settings = settings.line(&format!("{key} = {}", Value::from(*value)));
        }
    }
    Bridge::start(settings).await
}

/// A gateway whose listeners, which have their own names as topics, ask for these fields.
async fn gateway(
    kafka: Kafka,
    bridge: Bridge,
    listeners: &[(&str, Value)],
) -> anyhow::Result<Gateway> {
    let mut config = EnvoyConfig::new(build::filter()?).concurrency(1).bridge(&bridge);
    for (topic, fields) in listeners {
        kafka.create_topic(topic, 1).await?;
        let told = json!({
            "delivery_timeout": 3000,
            "error_handling": { "return_error_message": true },
        });
        let mut fields = acked(fields);
        let all = fields.as_object_mut().context("no object")?;
        all.extend(told.as_object().context("no object")?.clone());
        config = config.listener(Listener::filter(topic, configuration(topic, &fields)));
    }
    Ok(Gateway { envoy: Envoy::start(config).await?, bridge, kafka })
}

/// What `GET /readyz` says of a cluster.
async fn state(bridge: &Bridge, cluster: &str) -> anyhow::Result<String> {
    let page = bridge.get("/readyz").await?.json()?;
    let state = page.get("clusters").and_then(|clusters| clusters.get(cluster)?.as_str());
    Ok(state.with_context(|| format!("no {cluster} in {page}"))?.to_owned())
}

async fn through_a_filter(version: KafkaVersion) -> anyhow::Result<()> {
    let kdc = Kdc::start().await?;
    let kafka = secured(version, &kdc, "3000").await?;
    let keytab = kdc.keytab("bridge", "bridge.keytab")?;
    let by_keys = module(&keytab, "bridge");
    let by_ticket = cache_module(&kdc.ticket("bridge", &keytab, "ticket")?);
    let clusters =
        [("default", properties("kafka", &by_keys)), ("ticket", properties("kafka", &by_ticket))];
    let bridge = bridge(&kdc, &kafka, &clusters).await?;
    let listeners = [
        ("keytab", json!({})),
        ("ticket", json!({ "cluster": "ticket" })),
        ("asked", json!({ "authentication": { "mechanism": "GSSAPI" } })),
    ];
    let gateway = gateway(kafka, bridge, &listeners).await?;
    for (topic, _) in listeners {
        let reply = gateway.send(topic, text(topic)).await?;
        ensure!(reply.status == 200, "{topic}: {} {}", reply.status, reply.text());
        ensure!(gateway.records(topic).await?.len() == 1, "{topic} is not written");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_writes_by_kerberos_to_kafka_4_3() -> anyhow::Result<()> {
    through_a_filter(KafkaVersion::V4_3).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_writes_by_kerberos_to_kafka_3_9() -> anyhow::Result<()> {
    through_a_filter(KafkaVersion::V3_9).await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gets_no_ticket_is_told_why() -> anyhow::Result<()> {
    let mut kdc = Kdc::start().await?;
    let kafka = secured(KafkaVersion::V4_3, &kdc, "3000").await?;
    let stale = kdc.keytab("bridge", "stale.keytab")?;
    let right = kdc.keytab("bridge", "bridge.keytab")?;
    let (own, none) = (module(&right, "bridge"), module(Path::new("/no/keytab"), "bridge"));
    let (old, other) = (module(&stale, "bridge"), module(&right, "other"));
    let clusters = [
        ("default", properties("kafka", &own)),
        ("service", properties("broker", &own)),
        ("stale", properties("kafka", &old)),
        ("missing", properties("kafka", &none)),
        ("other", properties("kafka", &other)),
    ];
    // Before the bridge connects: what tickets it has serve on.
    kdc.stop().await?;
    let bridge = bridge(&kdc, &kafka, &clusters).await?;
    let address = kafka.bootstrap_at("SASL")?;
    let on = |cluster: &str| json!({ "cluster": cluster });
    let listeners = [("right", on("default")), ("service", on("service")), ("stale", on("stale"))];
    let gateway = gateway(kafka, bridge, &listeners).await?;

    let realm = format!("Cannot contact any KDC for realm '{REALM}'");
    let ticket = |from: &Path, who: &str| {
        format!("no ticket for {who}@{REALM} from the keytab {}", from.display())
    };
    refused(&gateway, "right", &format!("{}: {realm}", ticket(&right, "bridge"))).await?;
    kdc.restart().await?;
    gateway.wait_for_success("right", "x").await?;

    let service = format!(
        "no ticket for the service broker@127.0.0.1: Server broker/127.0.0.1@{REALM} not found in \
         Kerberos database"
    );
    let keys = "Decrypt integrity check failed, the KDC has other keys; export the keytab again";
    let keys = format!("{}: {keys}", ticket(&stale, "bridge"));
    refused(&gateway, "service", &service).await?;
    refused(&gateway, "stale", &keys).await?;
    for (cluster, why) in [
        ("service", service),
        ("stale", keys),
        (
            "missing",
            format!(
                "{}: No such file or directory (os error 2)",
                ticket(Path::new("/no/keytab"), "bridge")
            ),
        ),
        (
            "other",
            format!("{}: it has no such principal, as `klist -k` shows", ticket(&right, "other")),
        ),
    ] {
        let told = state(&gateway.bridge, cluster).await?;
        let expected =
            format!("the cluster does not answer: {address}: no credential for GSSAPI: {why}");
        ensure!(told == expected, "{told}\nis not\n{expected}");
    }
    ensure!(state(&gateway.bridge, "default").await? == "ready");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kdc_that_does_not_answer_keeps_nobody_else_waiting() -> anyhow::Result<()> {
    let kdc = Kdc::start().await?;
    let kafka = secured(KafkaVersion::V4_3, &kdc, "3000").await?;
    kafka.create_topic("t", 1).await?;
    let keytab = kdc.keytab("bridge", "bridge.keytab")?;
    // There only when the KDC is silent: the bridge connects at its start.
    let late = keytab.with_file_name("late.keytab");
    let by_keys = module(&late, "bridge");
    let by_ticket = cache_module(&kdc.ticket("bridge", &keytab, "ticket")?);
    let clusters =
        [("default", properties("kafka", &by_keys)), ("ticket", properties("kafka", &by_ticket))];
    let bridge = bridge(&kdc, &kafka, &clusters).await?;
    wait_until("a first record", Duration::from_secs(20), || produce(&bridge, "ticket")).await?;
    kdc.process()?.freeze();
    std::fs::copy(&keytab, &late)?;
    let silent = format!(
        "the cluster does not answer: {}: no credential for GSSAPI: no answer of the KDC within \
         15000 ms; check the realm's kdc in krb5.conf",
        kafka.bootstrap_at("SASL")?
    );
    wait_until("the reason", Duration::from_secs(40), async || {
        produce(&bridge, "ticket").await?;
        let told = state(&bridge, "default").await?;
        ensure!(told == silent, "{told}");
        Ok(())
    })
    .await?;
    let tasks = std::fs::read_dir(format!("/proc/{}/task", bridge.process().id()))?;
    let names = tasks.map(|task| std::fs::read_to_string(task?.path().join("comm")));
    let names: Vec<_> = names.collect::<std::io::Result<_>>()?;
    let waiting = names.iter().filter(|name| name.trim() == "kerberos").count();
    ensure!(waiting <= 1, "{waiting} threads wait for one KDC");
    kdc.process()?.thaw();
    wait_until("a record", Duration::from_secs(30), || produce(&bridge, "default")).await
}

/// The filter's answer is a 503 with the reason, of which it may show a part.
async fn refused(gateway: &Gateway, topic: &str, why: &str) -> anyhow::Result<()> {
    let reply = gateway.send(topic, text("x")).await?;
    let told = reply.json()?;
    let told = told.get("error").and_then(Value::as_str).unwrap_or_default();
    let shown = told.split_once("no credential for GSSAPI: ").map_or(told, |(_, shown)| shown);
    let is_told = shown.len() > 100 && why.starts_with(shown);
    ensure!(reply.status == 503 && is_told, "{topic}: {} {told}\nis not\n{why}", reply.status);
    Ok(())
}

async fn produce(bridge: &Bridge, cluster: &str) -> anyhow::Result<()> {
    let path = format!("/v1/clusters/{cluster}/topics/t");
    let reply = Request::post(&path, "x".to_owned()).send(bridge.port()).await?;
    ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
    Ok(())
}

/// The KDC is away for the second half: its tickets serve on.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_6_s_is_renewed_under_load_without_a_gap() -> anyhow::Result<()> {
    let mut kdc = Kdc::start().await?;
    let kafka = secured(KafkaVersion::V4_3, &kdc, "6000").await?;
    kafka.create_topic("t", 3).await?;
    let module = module(&kdc.keytab("bridge", "bridge.keytab")?, "bridge");
    let bridge = bridge(&kdc, &kafka, &[("default", properties("kafka", &module))]).await?;
    let metric = async |name: &str| bridge.metric(&format!("host_bridge_kafka_{name}"), "").await;
    wait_until("a first record", Duration::from_secs(20), || produce(&bridge, "default")).await?;
    let opened = metric("connections_opened_total").await?;
    let mut sent = 0;
    // Two renewals with the KDC, two without.
    for is_last in [false, true] {
        let end = Instant::now() + Duration::from_secs(12);
        while Instant::now() < end {
            let sending = (0..8).map(|_| produce(&bridge, "default"));
            for reply in futures_util::future::join_all(sending).await {
                reply.with_context(|| format!("after {sent}"))?;
                sent += 1;
            }
        }
        if !is_last {
            kdc.stop().await?;
        }
    }
    ensure!(sent > 200, "only {sent} were sent");
    ensure!(metric("connections_opened_total").await? == opened, "a connection was replaced");
    ensure!(metric("batches_resent_total").await? == 0.0, "a batch was sent again");
    let held = read_all(&kafka.bootstrap(), "t").await?.len();
    ensure!(held == sent + 1, "{held} are written, {sent} and the first were sent");
    Ok(())
}
