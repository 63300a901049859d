//! Stories of clients that must say who they are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::fake_broker::{
    FakeCluster, FakeSasl, FakeSettings, Fault, SASL_AUTHENTICATE, SASL_HANDSHAKE, When,
};
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
    cluster.client_with(token_config(cluster), Arc::new(Token(token, None)))
}

fn token_config(cluster: &FakeCluster) -> Config {
    let properties = [
        ("sasl.mechanism", "OAUTHBEARER"),
        ("sasl.oauthbearer.token.endpoint.url", "http://idp/"),
        ("sasl.oauthbearer.client.credentials.client.id", "me"),
        ("sasl.oauthbearer.client.credentials.client.secret", "s"),
    ];
    config(cluster, &properties)
}

/// Fails after three seconds.
#[derive(Debug)]
struct Slow;

impl CredentialSource for Slow {
    fn obtain(&self) -> Obtaining<'_> {
        Box::pin(async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            Err("it is down".into())
        })
    }
}

#[tokio::test(start_paused = true)]
async fn why_it_is_not_ready_is_told_while_it_is_asked_again() {
    let cluster = secured(FakeSasl::default());
    let client = cluster.client_with(token_config(&cluster), Arc::new(Slow));
    assert_eq!(client.ready(Duration::from_secs(2)).await, Err(NotReady::Timeout));
    tokio::time::sleep(Duration::from_secs(2)).await;
    for _ in 0..20 {
        let told = client.ready(Duration::from_secs(1)).await.unwrap_err().to_string();
        assert!(told.ends_with("no credential for OAUTHBEARER: it is down"), "{told}");
    }
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
    assert!(why.contains("does not use SASL; set security.protocol to PLAINTEXT or SSL"), "{why}");
    assert_eq!(cluster.requests(SASL_AUTHENTICATE), 0, "no password is shown to it");
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_does_not_know_the_password_is_not_believed() {
    let cluster = secured(FakeSasl { is_honest: false, ..FakeSasl::default() });
    let why = why_not_ready(&by_password(&cluster, "SCRAM-SHA-256", PASSWORD)).await;
    assert!(why.contains("its signature is wrong: it does not know the password"), "{why}");
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
    assert!(
        why.contains("no credential for AWS_MSK_IAM: no source of credentials is configured"),
        "{why}"
    );
    assert_eq!(cluster.requests(SASL_HANDSHAKE), 0);
}

#[tokio::test(start_paused = true)]
async fn without_a_region_nothing_is_signed() {
    let cluster = secured(FakeSasl::default());
    let jaas = "A required awsAccessKeyId=i awsSecretAccessKey=hunter2;";
    let properties = [("sasl.mechanism", "AWS_MSK_IAM"), ("sasl.jaas.config", jaas)];
    let client = cluster.client(config(&cluster, &properties));
    let why = client.ready(Duration::from_secs(5)).await;
    let Err(NotReady::Unreachable(why)) = why else { panic!("{why:?}") };
    assert!(why.contains("; set awsRegion in sasl.jaas.config or AWS_REGION"), "{why}");
    assert!(!why.contains("hunter2"), "{why}");
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
    let proofs = cluster.requests(SASL_AUTHENTICATE);
    std::fs::write(file.path(), "\n").unwrap();
    tokio::time::sleep(Duration::from_secs(11)).await;
    let why = client.ready(Duration::from_secs(5)).await.unwrap_err().to_string();
    assert!(why.ends_with("it is empty"), "{why}");
    assert_eq!(cluster.requests(SASL_AUTHENTICATE), proofs, "nobody was asked");
    std::fs::write(file.path(), format!("{PASSWORD}\n")).unwrap();
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(client.ready(Duration::from_secs(5)).await, Ok(()));
}

fn limited(seconds: f64) -> FakeCluster {
    let lifetime = Some(Duration::from_secs_f64(seconds));
    secured(FakeSasl { lifetime, ..FakeSasl::default() })
}

#[tokio::test(start_paused = true)]
async fn a_password_that_cannot_be_read_for_a_while_costs_no_connection() {
    let cluster = limited(600.0);
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    std::fs::write(path, PASSWORD).unwrap();
    let user = [("sasl.mechanism", "PLAIN"), ("sasl.username", "alice")];
    let properties = [user[0], user[1], ("sasl.password.file", path)];
    // Each renews at a time of its own.
    let clients: Vec<_> = (0..16).map(|_| cluster.client(config(&cluster, &properties))).collect();
    let opened = || clients.iter().map(|client| client.stats().connections_opened).sum::<u64>();
    let mut before = 0;
    for tens in 0..62 {
        match tens {
            // Sessions are renewed from 510 s on, and may wait until 555 s at least.
            50 => std::fs::write(path, "").unwrap(),
            55 => std::fs::write(path, PASSWORD).unwrap(),
            _ => {}
        }
        for client in &clients {
            let outcome = send(client, Duration::from_secs(5)).await;
            assert!(matches!(outcome, Outcome::Written { .. }), "{tens}0 s: {outcome:?}");
        }
        if tens == 49 {
            before = opened();
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    assert_eq!(opened(), before);
}

/// Sends for a while; how many connections and authentications that took.
async fn under_load(cluster: &FakeCluster, client: &Client, seconds: u64) -> (u64, u64) {
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        let mut sending = tokio::task::JoinSet::new();
        for _ in 0..5 {
            let client = client.clone();
            sending.spawn(async move { send(&client, Duration::from_secs(5)).await });
            tokio::time::sleep(Duration::from_millis(7)).await;
        }
        for outcome in sending.join_all().await {
            assert!(matches!(outcome, Outcome::Written { .. }), "{outcome:?}");
        }
    }
    (client.stats().connections_opened, cluster.requests(SASL_HANDSHAKE))
}

#[tokio::test(start_paused = true)]
async fn a_session_is_renewed_on_the_same_connection_without_a_gap() {
    let cluster = limited(3.0);
    // Records queue up while it lasts.
    let slow = Fault::SlowAnswer(Duration::from_millis(50));
    cluster.arm(SASL_AUTHENTICATE, When::PerMille(1000), slow);
    let client = by_password(&cluster, "SCRAM-SHA-256", PASSWORD);
    let (connections, authentications) = under_load(&cluster, &client, 30).await;
    assert!(connections <= 4, "{connections} connections");
    assert!((20..60).contains(&authentications), "{authentications} authentications");
    assert_eq!(client.stats().batches_resent, 0);
}

#[tokio::test(start_paused = true)]
async fn a_session_too_short_to_be_renewed_is_replaced_by_a_new_connection() {
    let cluster = limited(1.0);
    let client = by_password(&cluster, "PLAIN", PASSWORD);
    let (connections, _) = under_load(&cluster, &client, 10).await;
    assert!(connections > 10, "{connections} connections");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_cannot_drain_is_replaced_before_its_session_ends() {
    let cluster = limited(3.0);
    let client = by_password(&cluster, "PLAIN", PASSWORD);
    under_load(&cluster, &client, 1).await;
    // Its answer comes after the session's end, and nobody waits for it with a new batch.
    let slow = Fault::SlowAnswer(Duration::from_secs(4));
    cluster.arm(crate::fake_broker::PRODUCE, When::Nth(1), slow);
    let late = tokio::spawn({
        let client = client.clone();
        async move { send(&client, Duration::from_secs(20)).await }
    });
    tokio::time::sleep(Duration::from_secs(3)).await;
    let outcome = send(&client, Duration::from_secs(20)).await;
    assert!(matches!(outcome, Outcome::Written { .. }), "{outcome:?}");
    let outcome = late.await.unwrap();
    assert!(matches!(outcome, Outcome::Written { .. }), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn a_password_that_was_changed_shows_at_the_next_renewal() {
    let cluster = limited(3.0);
    let client = by_password(&cluster, "PLAIN", PASSWORD);
    under_load(&cluster, &client, 1).await;
    let users = BTreeMap::from([("alice".into(), "new".into())]);
    let lifetime = Some(Duration::from_secs(3));
    cluster.demand(FakeSasl { users, lifetime, ..FakeSasl::default() });
    assert_eq!(client.ready(Duration::from_secs(1)).await, Ok(()), "the session still holds");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(why_not_ready(&client).await.contains("check sasl.username and sasl.password"));
}

#[tokio::test(start_paused = true)]
async fn an_old_broker_gets_a_new_connection_before_the_token_ends() {
    let cluster = secured(FakeSasl::default());
    cluster.upgrade(1, SASL_AUTHENTICATE, 0, 0);
    let source = Arc::new(Token("good", Some(Duration::from_secs(10))));
    let client = cluster.client_with(token_config(&cluster), source);
    let (connections, authentications) = under_load(&cluster, &client, 60).await;
    assert_eq!(connections, authentications, "it cannot authenticate again on one");
    assert!((6..30).contains(&connections), "{connections} connections");
}
