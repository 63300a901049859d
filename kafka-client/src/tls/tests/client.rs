//! A whole client over TLS: records, faults that a user sees, and files that change under load.

use std::path::Path;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::authority::Authority;
use super::server;
use crate::fake_broker::{FakeCluster, FakeSettings};
use crate::{Client, Config, NotReady, Outcome, Record};

/// A cluster of one broker that speaks TLS as `acceptor` says at the time.
async fn cluster(acceptor: impl Fn() -> TlsAcceptor + Send + 'static) -> FakeCluster {
    let cluster = FakeCluster::new(FakeSettings { brokers: 1, ..FakeSettings::default() });
    cluster.create_topic("orders", &[1]);
    let (listener, brokers) = (cluster.socket(1).await.unwrap(), cluster.clone());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (accepting, brokers) = (acceptor().accept(stream), brokers.clone());
            tokio::spawn(async move {
                if let Ok(stream) = accepting.await {
                    brokers.take(1, stream);
                }
            });
        }
    });
    cluster
}

fn client(bootstrap: &str, properties: &[(&str, &str)]) -> Client {
    let first = [
        ("bootstrap.servers", bootstrap),
        ("security.protocol", "SSL"),
        ("socket.connection.setup.timeout.ms", "300"),
    ];
    let all = first.into_iter().chain(properties.iter().copied());
    Client::new(Config::from_properties(all).unwrap())
}

async fn send(client: &Client, value: &[u8]) -> Outcome {
    let record =
        Record { partition: Some(0), key: None, value: Some(value), headers: &[], timestamp_ms: 5 };
    client.producer().send("orders", record, Instant::now() + Duration::from_secs(20)).await
}

fn is_written(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Written { .. })
}

async fn not_ready(client: &Client) -> String {
    match client.ready(Duration::from_secs(2)).await {
        Err(NotReady::Unreachable(cause)) => cause.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn records_of_every_size_arrive_over_tls_1_2_and_1_3() {
    let root = Authority::new("root");
    for versions in ["1.2", "1.3"] {
        let acceptor = server(&root.issue(&["127.0.0.1"]), None, versions);
        let cluster = cluster(move || acceptor.clone()).await;
        let client = client(&cluster.bootstrap(), &[("ssl.truststore.certificates", &root.pem())]);
        for bytes in [0, 1, 16_000, 16_384, 500_000, 900_000] {
            let outcome = send(&client, &vec![b'x'; bytes]).await;
            assert!(is_written(&outcome), "{bytes} bytes: {outcome:?}");
        }
        let sizes: Vec<_> = cluster
            .log("orders", 0)
            .iter()
            .map(|record| record.value.as_ref().unwrap().len())
            .collect();
        assert_eq!(sizes, [0, 1, 16_000, 16_384, 500_000, 900_000]);
        client.close(Instant::now() + Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn a_fault_names_its_step_and_what_to_change() {
    let root = Authority::new("root");
    let acceptor = server(&root.issue(&["kafka.test"]), None, "");
    let brokers = cluster(move || acceptor.clone()).await;
    let bootstrap = brokers.bootstrap();
    let trusted = root.pem();
    let cause = not_ready(&client(&bootstrap, &[("ssl.truststore.certificates", &trusted)])).await;
    let wanted =
        format!("{bootstrap}: the broker's certificate is for kafka.test, not for `127.0.0.1`");
    assert!(cause.starts_with(&wanted), "{cause}");
    let cause = not_ready(&client(&bootstrap, &[("ssl.truststore.location", "/no/file")])).await;
    assert_eq!(
        cause,
        format!(
            "{bootstrap}: `ssl.truststore.location`: /no/file: No such file or directory (os error 2)"
        )
    );
    let plain = Config::from_properties([("bootstrap.servers", &*bootstrap)]).unwrap();
    let cause = not_ready(&Client::new(plain)).await;
    assert!(
        cause.contains("this listener speaks TLS") || cause.contains("security.protocol"),
        "{cause}"
    );
}

#[tokio::test]
async fn a_broker_that_stalls_in_the_handshake_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bootstrap = listener.local_addr().unwrap().to_string();
    let client = client(&bootstrap, &[("enable.ssl.certificate.verification", "false")]);
    let started = Instant::now();
    let cause = not_ready(&client).await;
    let wanted =
        format!("{bootstrap}: no TLS handshake within 300 ms; does the listener speak TLS");
    assert!(cause.starts_with(&wanted), "{cause}");
    assert!(started.elapsed() < Duration::from_secs(3));
}

/// Replaces a file as Kubernetes and careful people do.
fn publish(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, path).unwrap();
}

#[tokio::test]
async fn new_connections_take_new_files_and_broken_ones_change_nothing() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let issued = [old.issue(&["127.0.0.1"]), new.issue(&["127.0.0.1"])];
    let acceptors = issued.map(|issued| server(&issued, None, ""));
    let (turn, turned) = tokio::sync::watch::channel(0);
    let cluster = cluster(move || acceptors[*turned.borrow()].clone()).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trusted.pem");
    publish(&path, &old.pem());
    let location = ("ssl.truststore.location", path.to_str().unwrap());
    let client = client(&cluster.bootstrap(), &[location]);
    assert!(is_written(&send(&client, b"1").await));
    let opened = client.stats().connections_opened;

    publish(&path, "rubbish");
    let error = client.reload().await.unwrap_err().to_string();
    assert_eq!(error, "`ssl.truststore.location`: there is no trusted certificate in it");
    assert_eq!(client.tls().unwrap().fault.unwrap().to_string(), error);
    assert!(is_written(&send(&client, b"2").await));

    // The new issuer alone: the broker still has the old certificate, so no new connection can be
    // made, but the one that is there serves on.
    publish(&path, &new.pem());
    client.reload().await.unwrap();
    assert_eq!(client.tls().unwrap().fault, None);
    assert!(is_written(&send(&client, b"3").await));
    assert_eq!(client.stats().connections_opened, opened);

    turn.send_replace(1);
    let deadline = Instant::now() + Duration::from_secs(10);
    while client.stats().connections_opened == opened {
        assert!(is_written(&send(&client, b"4").await));
        assert!(Instant::now() < deadline, "the connection was never replaced");
    }
    assert_eq!((client.stats().tls_loads, client.stats().tls_load_failures), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_changed_file_is_noticed_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trusted.pem");
    publish(&path, &Authority::new_for_years("a", 2020, 3000).pem());
    let client = client("127.0.0.1:1", &[("ssl.truststore.location", path.to_str().unwrap())]);
    let loaded = async |loads: u64| {
        while client.stats().tls_loads < loads {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    loaded(1).await;
    let first = client.tls().unwrap().truststore_ends.unwrap();
    publish(&path, &Authority::new_for_years("b", 2020, 2500).pem());
    let changed = Instant::now();
    loaded(2).await;
    assert!(changed.elapsed() <= Duration::from_secs(11));
    assert!(client.tls().unwrap().truststore_ends.unwrap() < first);
}
