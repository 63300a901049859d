//! Clients of HTTP/1.1, every other one with TLS, that are written to together: each has what it would have
//! alone.

use std::time::Duration;

use axum::http::Response;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt as _, DuplexStream, duplex};
use tokio::time::{sleep, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::admission::{Admission, Unending};
use crate::consume::connections::Connections;
use crate::consume::envelope::Shape;
use crate::consume::feeds::Feed;
use crate::consume::fixture::{Fixture, WITHIN};
use crate::consume::follow::Follower;
use crate::consume::reader::FeedReader;
use crate::consume::selection::{Deserializer, Identity};
use crate::consume::start::{Given, Start};
use crate::consume::stream::EventStream;
use crate::limits::{BROADCAST_LEAST, FEED_HELD, FEED_LOOK_AGAIN, FEED_UNKNOWN};
use crate::unending;

const MEMORY: usize = 64 * 1024 * 1024;
const SHAPE: Shape = Shape { headers: false, metadata: true, big_as_string: false };
const COUNT: usize = 3 * BROADCAST_LEAST;

/// Clients of one feed from the log end on.
struct Clients {
    fixture: Fixture,
    reader: Arc<FeedReader>,
    shutdown: CancellationToken,
    streams: Vec<Box<dyn AsyncRead + Send + Unpin>>,
}

/// Both ends of connections with TLS.
struct Tls {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

impl Tls {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["bridge".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let provider = Arc::new(ring::default_provider());
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key.into())
            .unwrap();
        Self { acceptor: Arc::new(server).into(), connector: Arc::new(client).into() }
    }

    async fn connect(
        &self,
        (ours, theirs): (DuplexStream, DuplexStream),
    ) -> (server::TlsStream<DuplexStream>, client::TlsStream<DuplexStream>) {
        let connecting = self.connector.connect("bridge".try_into().unwrap(), theirs);
        let (ours, theirs) = tokio::join!(self.acceptor.accept(ours), connecting);
        (ours.unwrap(), theirs.unwrap())
    }
}

impl Clients {
    async fn connect() -> Self {
        Self::connect_until(None, Deserializer::Noop).await
    }

    /// The first two have room for a few events; for the last, what its gateway said expires after so long.
    async fn connect_until(expires_in: Option<Duration>, deserializer: Deserializer) -> Self {
        let fixture = Fixture::new(&[1, 1], MEMORY);
        let reader = fixture.reader(|feed: &mut Feed| {
            feed.encode_message_id = false;
            feed.deserializer = deserializer;
        });
        let (connections, shutdown) = (Connections::new(COUNT, COUNT), CancellationToken::new());
        let admission = Admission::new(COUNT, TaskTracker::new());
        let (tls, mut streams) = (Tls::new(), Vec::new());
        for number in 0..COUNT {
            let identity = Identity::default();
            let connection = connections.admit(&reader, &identity, Entrypoint::Sse).unwrap();
            let start = Given::From(Start::Latest);
            let follower = Follower::open(Arc::clone(&reader), &start, None, WITHIN).await.unwrap();
            let stream = EventStream::new(follower, SHAPE, shutdown.clone(), connection);
            let stream = stream.expiring(expires_in.filter(|_| number + 1 == COUNT));
            let response = Response::builder().extension(Unending).extension(stream.direct());
            let response = response.body(stream.into_body()).unwrap();
            let admitted = admission.admit(number as u64).await.unwrap();
            let response = admitted.caller.answer(response);
            let (ours, theirs) = duplex(if number < 2 { 2000 } else { 1 << 20 });
            if number.is_multiple_of(2) {
                tokio::spawn(unending::write(ours, response, admitted));
                streams.push(Box::new(theirs) as _);
            } else {
                let (ours, theirs) = tls.connect((ours, theirs)).await;
                tokio::spawn(unending::write(ours, response, admitted));
                streams.push(Box::new(theirs) as _);
            }
        }
        let clients = Self { fixture, reader, shutdown, streams };
        // The first came when there were few.
        clients.write(0, "first").await;
        clients.write(0, "second").await;
        assert!(clients.members() >= COUNT - 3, "{}", clients.members());
        clients
    }

    async fn write(&self, partition: i32, value: &str) {
        self.fixture.write(partition, value.as_bytes()).await;
        sleep(Duration::from_millis(1)).await;
    }

    fn members(&self) -> usize {
        self.reader.broadcasts.as_ref().unwrap().members()
    }

    /// What each has read in the end, without what HTTP puts around it.
    async fn texts(self) -> Vec<String> {
        let reading = self.streams.into_iter().map(|mut stream| {
            tokio::spawn(async move {
                let mut read = String::new();
                stream.read_to_string(&mut read).await.unwrap();
                read
            })
        });
        let reading: Vec<_> = reading.collect();
        sleep(Duration::from_secs(1)).await;
        self.shutdown.cancel();
        let mut texts = Vec::new();
        for reading in reading {
            let read = timeout(WITHIN, reading).await.unwrap().unwrap();
            let (_, mut chunks) = read.split_once("\r\n\r\n").unwrap();
            let mut text = String::new();
            loop {
                let (size, rest) = chunks.split_once("\r\n").unwrap();
                let (chunk, rest) = rest.split_at(usize::from_str_radix(size, 16).unwrap());
                text.push_str(chunk);
                chunks = rest.strip_prefix("\r\n").unwrap();
                if size == "0" {
                    break;
                }
            }
            assert_eq!(chunks, "");
            texts.push(text);
        }
        texts
    }
}

fn values(text: &str) -> Vec<&str> {
    let events = text.split("\n\n").filter(|event| event.contains("event: message"));
    events.map(|event| event.rsplit_once("data: ").unwrap().1).collect()
}

const GOAWAY: &str = "event: goaway\ndata: {\"reason\":\"shutdown\"}\n\n";

#[tokio::test(start_paused = true)]
async fn each_client_has_every_event_once_also_one_that_takes_them_slowly() {
    let clients = Clients::connect().await;
    let mut written = vec!["first".to_owned(), "second".to_owned()];
    for number in 0..40 {
        let value = format!("{number}-{}", "x".repeat(number * 20));
        clients.write(number as i32 % 2, &value).await;
        written.push(value);
    }
    assert!(clients.members() >= COUNT - 3, "{}", clients.members());
    let reader = Arc::clone(&clients.reader);
    for text in clients.texts().await {
        assert_eq!(values(&text), written);
        assert!(text.contains("\n\nid: orders:") && text.ends_with(GOAWAY), "{text}");
        assert!(text.contains("@0#22.0,1#20.0;\nevent: message\n"), "{text}");
    }
    let sse = reader.metrics.by(Entrypoint::Sse);
    assert_eq!(sse.records.get(), (COUNT * written.len()) as u64);
}

#[tokio::test(start_paused = true)]
async fn signs_of_life_come_and_who_is_gone_is_forgotten() {
    let mut clients = Clients::connect().await;
    let gone = clients.streams.split_off(COUNT / 2);
    drop(gone);
    sleep(clients.reader.feed.sse.heartbeat * 3 + Duration::from_secs(1)).await;
    assert!(clients.members() <= COUNT / 2, "{}", clients.members());
    let reader = Arc::clone(&clients.reader);
    for text in clients.texts().await {
        assert_eq!(values(&text), ["first", "second"]);
        assert_eq!(text.split("\n\n").filter(|event| *event == ":").count(), 3, "{text}");
    }
    sleep(FEED_IDLE).await;
    assert_eq!(Arc::strong_count(&reader), 1, "no task reads on for nobody");
}

#[tokio::test(start_paused = true)]
async fn partitions_that_are_added_are_read_by_all() {
    let clients = Clients::connect().await;
    clients.fixture.cluster.add_partition("orders", 1);
    clients.write(2, "added").await;
    sleep(2 * FEED_LOOK_AGAIN).await;
    clients.write(2, "third").await;
    clients.write(0, "fourth").await;
    assert!(clients.members() >= COUNT - 3, "{}", clients.members());
    for text in clients.texts().await {
        assert_eq!(values(&text), ["first", "second", "added", "third", "fourth"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_told_to_each() {
    let clients = Clients::connect().await;
    clients.fixture.cluster.delete_topic("orders");
    sleep(6 * FEED_UNKNOWN).await;
    for text in clients.texts().await {
        assert_eq!(text.matches("event: failure\n").count(), 1, "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_stays_away_is_told_to_each_in_time() {
    let clients = Clients::connect_until(None, Deserializer::SchemaRegistry).await;
    clients.write(0, "\0\0\0\0\u{1}x").await;
    sleep(FEED_HELD + Duration::from_secs(5)).await;
    for text in clients.texts().await.iter().skip(1) {
        assert!(text.contains("\"registry_unavailable\"") && !text.ends_with(GOAWAY), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_expires_ends_and_the_others_go_on() {
    let clients = Clients::connect_until(Some(Duration::from_secs(7)), Deserializer::Noop).await;
    sleep(Duration::from_secs(8)).await;
    clients.write(1, "third").await;
    let mut texts = clients.texts().await;
    let expired = texts.pop().unwrap();
    assert_eq!(values(&expired), ["first", "second"]);
    assert!(expired.ends_with("event: goaway\ndata: {\"reason\":\"auth_expired\"}\n\n"));
    for text in texts {
        assert_eq!(values(&text), ["first", "second", "third"]);
    }
}
