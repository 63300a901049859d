//! Stories of clients that must say who they are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::fake_broker::{FakeCluster, FakeSasl, FakeSettings, SASL_AUTHENTICATE, SASL_HANDSHAKE};
use crate::secret::Secret;
use crate::{Client, Config, NotReady, Outcome, Record};

fn secured(sasl: FakeSasl) -> FakeCluster {
    let sasl = Some(FakeSasl {
        users: BTreeMap::from([("alice".into(), "wonder=land,\u{e9}".into())]),
        tokens: BTreeSet::from(["good".into()]),
        ..sasl
    });
    let cluster = FakeCluster::new(FakeSettings { sasl, ..FakeSettings::default() });
    cluster.create_topic("orders", &[1]);
    cluster
}

fn config(cluster: &FakeCluster, properties: &[(&str, &str)]) -> Config {
    let bootstrap = cluster.bootstrap();
    let base = [("bootstrap.servers", &*bootstrap), ("security.protocol", "SASL_PLAINTEXT")];
    Config::from_properties(base.iter().chain(properties).copied()).unwrap()
}

fn by_password(cluster: &FakeCluster, mechanism: &str, password: &str) -> Client {
    let user = ("sasl.username", "alice");
    let properties = [("sasl.mechanism", mechanism), user, ("sasl.password", password)];
    cluster.client(config(cluster, &properties))
}

/// Gives one token for ever.
#[derive(Debug)]
struct Token(&'static str, Option<Duration>);

impl CredentialSource for Token {
    fn obtain(&self) -> Obtaining<'_> {
        let credential = Credential::Token(Secret::new(self.0));
        let lifetime = self.1;
        Box::pin(async move { Ok(Lease { credential, lifetime }) })
    }
}

fn by_token(cluster: &FakeCluster, token: &'static str) -> Client {
    let properties = [
        ("sasl.mechanism", "OAUTHBEARER"),
        ("sasl.oauthbearer.token.endpoint.url", "http://idp/"),
        ("sasl.oauthbearer.client.credentials.client.id", "me"),
        ("sasl.oauthbearer.client.credentials.client.secret", "s"),
    ];
    cluster.client_with(config(cluster, &properties), Arc::new(Token(token, None)))
}

async fn send(client: &Client, within: Duration) -> Outcome {
    let record =
        Record { partition: None, key: None, value: Some(b"x"), headers: &[], timestamp_ms: 5 };
    client.producer().send("orders", record, Instant::now() + within).await
}

async fn why_not_ready(client: &Client) -> String {
    client.ready(Duration::from_secs(5)).await.unwrap_err().to_string()
}

const PASSWORD: &str = "wonder=land,\u{e9}";

#[tokio::test(start_paused = true)]
async fn whoever_proves_who_it_is_may_write() {
    let cluster = secured(FakeSasl::default());
    let clients = [
        by_password(&cluster, "PLAIN", PASSWORD),
        by_password(&cluster, "SCRAM-SHA-256", PASSWORD),
        by_password(&cluster, "SCRAM-SHA-512", PASSWORD),
        by_token(&cluster, "good"),
    ];
    for client in clients {
        let outcome = send(&client, Duration::from_secs(10)).await;
        assert!(matches!(outcome, Outcome::Written { .. }), "{outcome:?}");
        assert_eq!(client.ready(Duration::from_secs(1)).await, Ok(()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrong_password_is_told_and_is_not_tried_with_every_connection() {
    for mechanism in ["PLAIN", "SCRAM-SHA-256"] {
        let cluster = secured(FakeSasl::default());
        let client = by_password(&cluster, mechanism, "hunter2");
        let why = why_not_ready(&client).await;
        let expected = format!(
            "broker-1:9092: SASL credential: refused for {mechanism}, check sasl.username and \
             sasl.password; the broker says SASL_AUTHENTICATION_FAILED (58): Authentication \
             failed: who are you?"
        );
        assert!(why.contains(&expected) && !why.contains("hunter2"), "{why}");
        let outcome = send(&client, Duration::from_secs(60)).await;
        assert!(format!("{outcome:?}").contains("sasl.password"), "{outcome:?}");
        let tried = cluster.requests(SASL_HANDSHAKE);
        assert!((5..=12).contains(&tried), "tried {tried} times within 60 s");
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_let_in_later_gets_its_records_written() {
    let cluster = secured(FakeSasl::default());
    let client = by_password(&cluster, "SCRAM-SHA-512", "new");
    let sending = tokio::spawn({
        let client = client.clone();
        async move { send(&client, Duration::from_secs(60)).await }
    });
    assert!(client.ready(Duration::from_secs(5)).await.is_err());
    let users = BTreeMap::from([("alice".into(), "new".into())]);
    cluster.demand(FakeSasl { users, ..FakeSasl::default() });
    let outcome = sending.await.unwrap();
    assert!(matches!(outcome, Outcome::Written { .. }), "{outcome:?}");
    assert_eq!(client.ready(Duration::from_secs(1)).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_mechanism_that_the_broker_lacks_is_told_with_those_it_has() {
    let mechanisms = vec!["GSSAPI", "SCRAM-SHA-512"];
    let cluster = secured(FakeSasl { mechanisms, ..FakeSasl::default() });
    let why = why_not_ready(&by_password(&cluster, "PLAIN", PASSWORD)).await;
    assert!(why.contains("this listener has no PLAIN, it has GSSAPI, SCRAM-SHA-512"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_listener_without_sasl_says_so() {
    let cluster = FakeCluster::new(FakeSettings::default());
    let why = why_not_ready(&by_password(&cluster, "PLAIN", PASSWORD)).await;
    assert!(why.contains("wants none; set security.protocol to PLAINTEXT or SSL"), "{why}");
    assert_eq!(cluster.requests(SASL_AUTHENTICATE), 0, "no password is shown to it");
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_does_not_know_the_password_is_not_believed() {
    let cluster = secured(FakeSasl { is_honest: false, ..FakeSasl::default() });
    let why = why_not_ready(&by_password(&cluster, "SCRAM-SHA-256", PASSWORD)).await;
    assert!(why.contains("its signature is false: it does not know the password"), "{why}");
    for iterations in [1, 100_000_000] {
        let cluster = secured(FakeSasl { iterations, ..FakeSasl::default() });
        let why = why_not_ready(&by_password(&cluster, "SCRAM-SHA-256", PASSWORD)).await;
        assert!(why.contains(&format!("{iterations} iterations are not 4096 to")), "{why}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_refused_is_told_with_the_brokers_reason() {
    let cluster = secured(FakeSasl::default());
    let why = why_not_ready(&by_token(&cluster, "stolen")).await;
    let told = "the broker says SASL_AUTHENTICATION_FAILED (58): {\"status\":\"invalid_token\"}";
    assert!(why.contains(told), "{why}");
    assert!(!why.contains("stolen"), "{why}");
    assert!(cluster.requests(SASL_AUTHENTICATE) >= 2, "the byte that asks for the reason");
}

#[tokio::test(start_paused = true)]
async fn without_a_source_of_tokens_there_is_none() {
    let cluster = secured(FakeSasl::default());
    let properties = [("sasl.mechanism", "AWS_MSK_IAM")];
    let client = cluster.client(config(&cluster, &properties));
    let why = client.ready(Duration::from_secs(5)).await;
    let Err(NotReady::Unreachable(why)) = why else { panic!("{why:?}") };
    assert!(why.contains("no credential for AWS_MSK_IAM: nobody is asked for one"), "{why}");
    assert_eq!(cluster.requests(SASL_HANDSHAKE), 0);
}

#[tokio::test(start_paused = true)]
async fn a_password_in_a_file_is_read_for_every_connection() {
    let cluster = secured(FakeSasl::default());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "old\n").unwrap();
    let path = file.path().to_str().unwrap();
    let user = [("sasl.mechanism", "PLAIN"), ("sasl.username", "alice")];
    let properties = [user[0], user[1], ("sasl.password.file", path)];
    let client = cluster.client(config(&cluster, &properties));
    assert!(client.ready(Duration::from_secs(5)).await.is_err());
    std::fs::write(file.path(), format!("{PASSWORD}\n")).unwrap();
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(client.ready(Duration::from_secs(5)).await, Ok(()));
}
