//! OAUTHBEARER by client credentials: a token server, and real brokers that check its tokens.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use harness::bridge::{Bridge, Settings};
use harness::envoy::{Envoy, EnvoyConfig, Listener};
use harness::http::Request;
use harness::kafka::{Kafka, KafkaVersion, Setup};
use harness::ports;
use harness::process::wait_until;
use kafka_upstream_tests::issuer::Issuer;
use kafka_upstream_tests::oidc::{CLIENT, Oidc, SECRET};
use kafka_upstream_tests::{Gateway, acked, configuration, text};
use serde_json::{Value, json};
use xtask::build;

/// A broker that takes the server's tokens for the audience `kafka`.
async fn secured(version: KafkaVersion, oidc: &Oidc) -> anyhow::Result<Kafka> {
    let keys = oidc.keys_endpoint();
    let module = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required ;";
    let handler =
        "org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallbackHandler";
    // Without its name Kafka 4.1 takes the one for clients, which checks neither signature nor
    // audience.
    let validator = "org.apache.kafka.common.security.oauthbearer.BrokerJwtValidator";
    let setup = Setup {
        properties: &[
            ("sasl.enabled.mechanisms", "OAUTHBEARER"),
            ("listener.name.sasl.oauthbearer.sasl.jaas.config", module),
            ("listener.name.sasl.oauthbearer.sasl.server.callback.handler.class", handler),
            ("sasl.oauthbearer.jwks.endpoint.url", &keys),
            ("sasl.oauthbearer.jwt.validator.class", validator),
            ("sasl.oauthbearer.expected.audience", "kafka"),
            ("sasl.oauthbearer.expected.issuer", "oidc"),
            ("connections.max.reauth.ms", "3600000"),
        ],
        listeners: &[("SASL", "SASL_PLAINTEXT")],
        java: &[format!("-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={keys}")],
        ..Setup::default()
    };
    Kafka::start_setup(version, 1, 1, setup).await
}

fn filter(kafka: &Kafka, oidc: &Oidc, secret: &str, scope: &str) -> anyhow::Result<Value> {
    let address = kafka.bootstrap_at("SASL")?;
    let port: u16 = address.rsplit(':').next().unwrap_or_default().parse()?;
    Ok(json!({
        "producer_async": false,
        "delivery_timeout": 4000,
        "error_handling": { "return_error_message": true },
        "bootstrap_servers": [{ "host": "127.0.0.1", "port": port }],
        "authentication": { "mechanism": "OAUTHBEARER", "oauthbearer": {
            "token_endpoint_url": oidc.token_endpoint(), "client_id": CLIENT,
            "client_secret": secret, "scopes": [scope], "extensions": { "traceId": "a-1" },
        } },
    }))
}

async fn through_a_filter(version: KafkaVersion) -> anyhow::Result<()> {
    let oidc = Oidc::start(Duration::from_secs(3600)).await?;
    let kafka = secured(version, &oidc).await?;
    let mut elsewhere = filter(&kafka, &oidc, SECRET, "produce")?;
    let path = "/authentication/oauthbearer/token_endpoint_url";
    let url = elsewhere.pointer_mut(path).context("no endpoint")?;
    *url = "http://idp.example.com/token".into();
    let listeners = [
        ("right", filter(&kafka, &oidc, SECRET, "produce")?),
        ("wrong-secret", filter(&kafka, &oidc, "hunter2", "produce")?),
        ("wrong-audience", filter(&kafka, &oidc, SECRET, "other")?),
        ("elsewhere", elsewhere),
    ];
    let gateway = Gateway::start_with(kafka, 1, (1, &[]), &listeners).await?;
    let reply = gateway.send("right", text("x")).await?;
    ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
    ensure!(oidc.forms() == ["grant_type=client_credentials&scope=produce"], "{:?}", oidc.forms());
    for (topic, status, told) in [
        ("wrong-secret", 503, "it answered 401 Unauthorized invalid_client: who are you?"),
        ("wrong-audience", 503, "check the token's issuer, audience, scope and extensions"),
        ("elsewhere", 500, "profile_refused"),
    ] {
        let reply = gateway.send(topic, text("x")).await?;
        let text = reply.text() + reply.header("kafka-error").unwrap_or_default();
        ensure!(reply.status == status && text.contains(told), "{topic}: {} {text}", reply.status);
        ensure!(!text.contains("hunter2"), "a secret is told");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_writes_with_a_token_to_kafka_4_3() -> anyhow::Result<()> {
    through_a_filter(KafkaVersion::V4_3).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_writes_with_a_token_to_kafka_3_9() -> anyhow::Result<()> {
    through_a_filter(KafkaVersion::V3_9).await
}

/// A cluster of the bridge that gets its tokens at `endpoint`.
fn cluster(kafka: &Kafka, name: &str, endpoint: &str, more: &str) -> anyhow::Result<String> {
    Ok(format!(
        "[clusters.{name}]\nbootstrap.servers = '{}'\nsecurity.protocol = 'SASL_PLAINTEXT'\n\
         sasl.mechanism = 'OAUTHBEARER'\nsasl.oauthbearer.token.endpoint.url = '{endpoint}'\n\
         sasl.oauthbearer.client.credentials.client.id = '{CLIENT}'\n\
         sasl.oauthbearer.client.credentials.client.secret = '{SECRET}'\n{more}\n",
        kafka.bootstrap_at("SASL")?
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_endpoint_with_tls_is_trusted_as_the_bridge_says() -> anyhow::Result<()> {
    let oidc = Oidc::start(Duration::from_secs(3600)).await?;
    let kafka = secured(KafkaVersion::V4_3, &oidc).await?;
    let issuer = Issuer::new("company")?;
    let years = (2020, 4000);
    let right = oidc.secure_token_endpoint(issuer.server("127.0.0.1", years)?).await?;
    let elsewhere = oidc.secure_token_endpoint(issuer.server("idp.test", years)?).await?;
    let file = kafka.dir().join("company.pem");
    std::fs::write(&file, issuer.pem())?;
    let (stranger, system) = (Issuer::new("stranger")?, kafka.dir().join("system.pem"));
    std::fs::write(&system, stranger.pem())?;
    let trust = format!("https.ca.location = '{}'", file.display());
    let unverified = "sasl.oauthbearer.token.endpoint.tls.verify = 'false'";
    let mut settings = Settings::to(kafka.bootstrap())
        .line(&format!("[inline]\n{trust}"))
        .line(&cluster(&kafka, "trusting", &right, &trust)?)
        .line(&cluster(
            &kafka,
            "pasted",
            &right,
            &format!("https.ca.pem = '''{}'''", issuer.pem()),
        )?)
        .line(&cluster(&kafka, "careless", &elsewhere, unverified)?)
        .line(&cluster(&kafka, "distrusting", &right, "")?)
        .line(&cluster(&kafka, "elsewhere", &elsewhere, &trust)?);
    // What the system trusts, whatever machine this is.
    settings.env.push(("SSL_CERT_FILE".to_owned(), system.display().to_string()));
    let bridge = Bridge::start(settings).await?;
    let mut inline = filter(&kafka, &oidc, SECRET, "produce")?;
    let path = "/authentication/oauthbearer/token_endpoint_url";
    *inline.pointer_mut(path).context("no endpoint")? = right.clone().into();
    let named = |name: &str| {
        acked(&json!({ "cluster": name, "error_handling": { "return_error_message": true } }))
    };
    let mut config = EnvoyConfig::new(build::filter()?).bridge(&bridge);
    let names = ["trusting", "pasted", "careless", "distrusting", "elsewhere"];
    let listeners = names.into_iter().map(|name| (name, named(name))).chain([("inline", inline)]);
    for (topic, fields) in listeners {
        kafka.create_topic(topic, 1).await?;
        config = config.listener(Listener::filter(topic, configuration(topic, &fields)));
    }
    let gateway = Gateway { envoy: Envoy::start(config).await?, bridge, kafka };
    for topic in ["trusting", "pasted", "careless", "inline"] {
        let reply = gateway.send(topic, text("x")).await?;
        ensure!(reply.status == 200, "{topic}: {} {}", reply.status, reply.text());
        ensure!(gateway.records(topic).await?.len() == 1, "{topic} is not written");
    }
    let nobody = "TLS: its certificate was issued by nobody whom we trust; is its issuer in \
        https.ca.location?";
    let other = "TLS: its certificate is for idp.test, not for `127.0.0.1`; use such a name in its \
        address";
    for (topic, told, url) in [("distrusting", nobody, &right), ("elsewhere", other, &elsewhere)] {
        let reply = gateway.send(topic, text("x")).await?;
        let told =
            format!("the token endpoint {url} (sasl.oauthbearer.token.endpoint.url): {told}");
        ensure!(reply.status == 503, "{topic}: {} {}", reply.status, reply.text());
        ensure!(reply.text().contains(&told), "{topic}: no `{told}` in {}", reply.text());
        ensure!(!reply.text().contains(SECRET), "a secret is told");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_reader_is_known_to_kafka_by_the_token_of_its_request() -> anyhow::Result<()> {
    let oidc = Oidc::start(Duration::from_secs(3600)).await?;
    let kafka = secured(KafkaVersion::V4_3, &oidc).await?;
    kafka.create_topic("orders", 1).await?;
    let port = ports::free()?;
    let settings = Settings::to(kafka.bootstrap()).line(&format!(
        "[feeds]\nlisten = ['127.0.0.1:{port}']\ngateway = 'none'\n\
         [feeds.orders]\ntopics = ['orders']\nauto_offset_reset = 'earliest'\n\
         cluster = 'tokens'\ncredential = 'per-request'\n\
         [clusters.tokens]\nbootstrap.servers = '{}'",
        kafka.bootstrap_at("SASL")?
    ));
    let bridge = Bridge::start(settings).await?;
    let written = Request::post("/v1/clusters/default/topics/orders", "x").send(bridge.port());
    ensure!(written.await?.status == 200, "nothing is written");
    let token = async |scope: &str| {
        let credential = BASE64_STANDARD.encode(format!("{CLIENT}:{SECRET}"));
        let request =
            Request::post("/token", format!("grant_type=client_credentials&scope={scope}"))
                .header("authorization", format!("Basic {credential}"));
        let url = oidc.token_endpoint();
        let port = url.rsplit(':').next().and_then(|rest| rest.split('/').next());
        let reply = request.send(port.context("no port")?.parse::<u16>()?).await?.json()?;
        anyhow::Ok(reply["access_token"].as_str().context("no token")?.to_owned())
    };
    let read = async |token: Option<&str>| {
        let request = Request::get("/v1/feeds/orders");
        let named = |token| request.clone().header("kafka-upstream-token", token);
        token.map_or_else(|| request.clone(), named).send(port).await
    };
    let (first, second, foreign) =
        (token("produce").await?, token("produce").await?, token("other").await?);
    for token in [&first, &second, &first] {
        let reply = read(Some(token)).await?;
        ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
        ensure!(reply.json()?["items"][0]["content"] == "x", "{}", reply.text());
    }
    for (token, code) in [(Some(&*foreign), "auth_expired"), (None, "identity_required")] {
        let reply = read(token).await?;
        ensure!(reply.status == 401, "{} {}", reply.status, reply.text());
        ensure!(reply.json()?["error"] == code, "{}", reply.text());
        ensure!(!reply.text().contains(&foreign), "a token is told");
    }
    let log = std::fs::read_to_string(bridge.process().log())?;
    let is_told = [&first, &second, &foreign].into_iter().any(|token| log.contains(&**token));
    ensure!(!is_told, "a token is in the log");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_6_s_are_renewed_under_load_without_a_gap() -> anyhow::Result<()> {
    let oidc = Oidc::start(Duration::from_secs(6)).await?;
    let kafka = secured(KafkaVersion::V4_3, &oidc).await?;
    kafka.create_topic("t", 3).await?;
    let endpoint = oidc.token_endpoint();
    let settings = [
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "OAUTHBEARER"),
        ("sasl.oauthbearer.token.endpoint.url", &endpoint),
        ("sasl.oauthbearer.client.credentials.client.id", CLIENT),
        ("sasl.oauthbearer.client.credentials.client.secret", SECRET),
    ];
    let base = Settings::to(kafka.bootstrap_at("SASL")?);
    let settings = settings.iter().fold(base, |all, (name, value)| all.property(name, value));
    let bridge = Bridge::start(settings).await?;
    let produce = async || {
        let request = Request::post("/v1/clusters/default/topics/t", "x".to_owned());
        let reply = request.send(bridge.port()).await?;
        ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
        Ok(())
    };
    wait_until("a first record", Duration::from_secs(20), &produce).await?;
    let opened = bridge.metric("host_bridge_kafka_connections_opened_total", "").await?;
    let (end, mut sent) = (Instant::now() + Duration::from_secs(20), 0);
    while Instant::now() < end {
        produce().await.map_err(|error| error.context(format!("after {sent} records")))?;
        sent += 1;
    }
    ensure!(sent > 100, "only {sent} were sent");
    let now = bridge.metric("host_bridge_kafka_connections_opened_total", "").await?;
    ensure!(now == opened, "{opened} connections became {now}");
    let asked = oidc.asked();
    ensure!((4..=10).contains(&asked), "{asked} tokens in 20 s");
    Ok(())
}
