//! Webhooks on a cluster in memory, with receivers on this machine.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use kafka_client::fake_broker::{FakeCluster, FakeSettings};
use kafka_client::{Client, ClusterConfig, IsolationLevel, Outcome, Producer, Record};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::config;
use super::metrics::WebhookFamilies;
use super::running::Webhooks;
use crate::consume::dead_letters::DeadLetters;
use crate::consume::feed_metrics::FeedFamilies;
use crate::consume::feeds::{Feeds, Known, MemberOf};
use crate::consume::hub::{Hub, Resources};
use crate::consume::reader::FeedReader;

mod failures;
mod forms;
mod moves;
mod operators;

const WITHIN: Duration = Duration::from_secs(10);

/// A request that came.
#[derive(Clone)]
struct Received {
    headers: HeaderMap,
    body: Bytes,
    at: Instant,
}

impl Received {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Partition and offset.
    fn place(&self) -> (i32, i64) {
        let number = |name| self.header(name).parse::<i64>().unwrap();
        (number("kafka-partition") as i32, number("kafka-offset"))
    }

    fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }
}

type Answer = dyn Fn(&Received, usize) -> (u16, Option<&'static str>) + Send + Sync;

/// Takes requests, and answers each by what it is and how many came before: a status, and `Retry-After`.
#[derive(Clone)]
struct Receiver {
    url: String,
    received: Arc<Mutex<Vec<Received>>>,
    answer: Arc<Mutex<Arc<Answer>>>,
    /// What it says to OPTIONS: who may send, and how often a minute.
    agreed: Arc<Mutex<Option<(&'static str, &'static str)>>>,
}

impl Receiver {
    async fn new(
        answer: impl Fn(&Received, usize) -> (u16, Option<&'static str>) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let answer: Arc<Answer> = Arc::new(answer);
        let receiver = Self {
            url,
            received: Arc::default(),
            answer: Arc::new(Mutex::new(answer)),
            agreed: Arc::default(),
        };
        let own = receiver.clone();
        let take = move |method: Method, headers: HeaderMap, body: Bytes| async move {
            if method == Method::OPTIONS {
                return own.options();
            }
            let request = Received { headers, body, at: Instant::now() };
            let count = {
                let mut received = own.received.lock().unwrap();
                received.push(request.clone());
                received.len() - 1
            };
            let answer = Arc::clone(&own.answer.lock().unwrap());
            let (status, after) = answer(&request, count);
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            if let Some(after) = after {
                let after = HeaderValue::from_static(after);
                response.headers_mut().insert(header::RETRY_AFTER, after);
            }
            response
        };
        let routes = Router::new().fallback(take);
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        receiver
    }

    /// Who may send, and how often a minute; nobody says so otherwise.
    fn agrees(&self, agreed: Option<(&'static str, &'static str)>) {
        *self.agreed.lock().unwrap() = agreed;
    }

    fn options(&self) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        if let Some((origin, rate)) = *self.agreed.lock().unwrap() {
            let headers = response.headers_mut();
            headers.insert("webhook-allowed-origin", HeaderValue::from_static(origin));
            headers.insert("webhook-allowed-rate", HeaderValue::from_static(rate));
        }
        response
    }

    fn answers(
        &self,
        answer: impl Fn(&Received, usize) -> (u16, Option<&'static str>) + Send + Sync + 'static,
    ) {
        *self.answer.lock().unwrap() = Arc::new(answer);
    }

    fn all(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    fn places(&self) -> Vec<(i32, i64)> {
        self.all().iter().map(Received::place).collect()
    }

    async fn has(&self, count: usize) -> Vec<Received> {
        let started = Instant::now();
        while self.all().len() < count {
            assert!(started.elapsed() < WITHIN, "{} of {count} came", self.all().len());
            sleep(Duration::from_millis(5)).await;
        }
        self.all()
    }
}

/// A cluster with the topics `orders` and `dead`.
struct Kafka {
    cluster: FakeCluster,
    producer: Producer,
    /// What bridges are called, and how long they may be away.
    member: MemberOf,
}

impl Kafka {
    /// `orders` has a partition for each of these leaders, of brokers 1 and 2.
    fn new(leaders: &[i32]) -> Self {
        let cluster = FakeCluster::new(FakeSettings { brokers: 2, ..FakeSettings::default() });
        cluster.create_topic("orders", leaders);
        cluster.create_topic("dead", &[1]);
        let producer = client(&cluster).producer();
        Self { cluster, producer, member: MemberOf::default() }
    }

    async fn write(&self, partition: i32, key: &[u8], value: &[u8]) {
        let record = Record { partition: Some(partition), ..Record::new(value).key(key) };
        let record = Record { timestamp_ms: 1000, ..record };
        let outcome = self.producer.send("orders", record, WITHIN).await;
        assert!(matches!(outcome, Outcome::Written { .. }), "{outcome:?}");
    }

    /// So many records with their numbers as values.
    async fn write_numbers(&self, partition: i32, numbers: std::ops::Range<usize>) {
        for number in numbers {
            self.write(partition, b"k", number.to_string().as_bytes()).await;
        }
    }

    /// A bridge with the webhook `hook`.
    fn bridge(&self, receiver: &Receiver, feed: &str, webhook: &str) -> Bridge {
        self.bridge_of(receiver, &format!("auto_offset_reset = 'earliest'\n{feed}"), webhook)
    }

    fn bridge_of(&self, receiver: &Receiver, feed: &str, webhook: &str) -> Bridge {
        let client = client(&self.cluster);
        let topics = if feed.contains("topics_pattern") { "" } else { "topics = ['orders']" };
        let text = format!(
            "[feeds.orders]\n{topics}\nentrypoints = ['webhook']\n\
             {feed}\n\
             [webhooks.hook]\nfeed = 'orders'\nurl = '{}'\n{webhook}\n",
            receiver.url
        );
        let mut sections: toml::Table = toml::from_str(&text).unwrap();
        let mut faults = Vec::new();
        let mut section = |name| match sections.remove(name) {
            Some(toml::Value::Table(table)) => table,
            other => panic!("{other:?}"),
        };
        let feeds = Feeds::read(section("feeds"), &Known::of_clusters(["default"]), &mut faults);
        let configs = config::read(section("webhooks"), &feeds, &mut faults);
        assert!(faults.is_empty(), "{faults:?}");
        let feed = feeds.feeds["orders"].clone();
        let resources = Resources::new(64 * 1024 * 1024);
        let hub = Hub::new(client.clone(), IsolationLevel::ReadCommitted, &resources);
        let metrics = FeedFamilies::default().of("orders");
        let dead_letters =
            feed.selection.dlq_topic.as_ref().map(|topic| {
                DeadLetters::new("orders", topic, client.clone(), Arc::clone(&metrics))
            });
        let reader = Arc::new(FeedReader::new(feed, 0, hub, dead_letters, metrics));
        let families = WebhookFamilies::default();
        let feed = |_: &str| Some(Arc::clone(&reader));
        let webhooks = Arc::new(Webhooks::new((&configs, &self.member), feed, &families).unwrap());
        let stop = CancellationToken::new();
        let running = tokio::spawn(webhooks.run(&stop, WITHIN));
        Bridge { webhooks, stop, running, client }
    }

    fn position(&self, partition: i32) -> Option<i64> {
        let committed = self.cluster.committed("webhook.hook", "orders", partition);
        committed.map(|committed| committed.offset)
    }

    /// Waits until the webhook has committed so much of a partition.
    async fn committed(&self, partition: i32, offset: i64) {
        let started = Instant::now();
        while self.position(partition) != Some(offset) {
            assert!(started.elapsed() < WITHIN, "{:?} is committed", self.position(partition));
            sleep(Duration::from_millis(5)).await;
        }
    }

    fn note(&self, partition: i32) -> Value {
        let committed = self.cluster.committed("webhook.hook", "orders", partition).unwrap();
        serde_json::from_str(&committed.metadata).unwrap()
    }

    /// The dead letters with their headers that say why.
    fn dead(&self) -> Vec<(String, BTreeMap<String, String>)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let dead = self.cluster.log("dead", 0).into_iter();
        dead.map(|record| {
            let headers = record.headers.iter();
            let headers = headers.map(|(name, value)| (text(&name), text(&value.unwrap())));
            (text(&record.value.unwrap()), headers.collect())
        })
        .collect()
    }
}

fn client(cluster: &FakeCluster) -> Client {
    cluster.client(ClusterConfig::new(&cluster.bootstrap()).unwrap().into())
}

/// A bridge that runs.
struct Bridge {
    webhooks: Arc<Webhooks>,
    stop: CancellationToken,
    running: JoinHandle<()>,
    client: Client,
}

impl Bridge {
    /// SIGTERM.
    async fn end(self) {
        self.stop.cancel();
        self.running.await.unwrap();
        self.client.close(Duration::ZERO).await;
    }

    /// It is gone, and leaves no group.
    async fn crash(self) {
        self.running.abort();
        self.client.close(Duration::ZERO).await;
    }

    fn state(&self, partition: usize) -> Value {
        self.webhooks.json()[0]["partitions"][partition].clone()
    }

    async fn is(&self, field: &str, value: &str) -> Value {
        let started = Instant::now();
        loop {
            let state = self.state(0);
            if state[field] == value {
                return state;
            }
            assert!(started.elapsed() < WITHIN, "{state}");
            sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Retries that do not keep a test waiting.
const SOON: &str = "retry = { initial_ms = 5, max_ms = 20 }";

fn ok(_: &Received, _: usize) -> (u16, Option<&'static str>) {
    (200, None)
}

#[tokio::test]
async fn records_of_each_partition_come_in_order_and_what_came_is_committed() {
    let kafka = Kafka::new(&[1, 2, 1]);
    let receiver = Receiver::new(ok).await;
    for partition in 0..3 {
        kafka.write_numbers(partition, 0..20).await;
    }
    let bridge =
        kafka.bridge(&receiver, "", "secrets = ['whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw']");
    let received = receiver.has(60).await;
    for partition in 0..3 {
        let own = receiver.places().into_iter().filter(|(of, _)| *of == partition);
        assert!(own.map(|(_, offset)| offset).eq(0..20), "{:?}", receiver.places());
    }
    let first = &received[0];
    let (partition, offset) = first.place();
    let item: Value = serde_json::from_slice(&first.body).unwrap();
    assert_eq!(item["content"], offset.to_string());
    assert_eq!(
        (&item["metadata"]["partition"], &item["metadata"]["key"]),
        (&partition.into(), &"k".into())
    );
    assert_eq!(
        (first.header("content-type"), first.header("kafka-key")),
        ("application/json", "k")
    );
    assert_eq!(
        (first.header("kafka-upstream-attempt"), first.header("kafka-timestamp")),
        ("1", "1000")
    );
    let id = first.header("webhook-id");
    assert_eq!(first.header("idempotency-key"), id);
    let keys = super::signature::Keys::new(&[kafka_client::Secret::new(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    )]);
    let seconds = first.header("webhook-timestamp").parse().unwrap();
    let signature = keys.unwrap().sign(id, seconds, &first.body);
    assert_eq!(first.header("webhook-signature"), signature);
    let mut ids: Vec<_> = received.iter().map(|it| it.header("webhook-id")).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 60);
    for partition in 0..3 {
        kafka.committed(partition, 20).await;
    }
    kafka.write_numbers(1, 20..21).await;
    receiver.has(61).await;
    bridge.end().await;
    assert_eq!(kafka.position(1), Some(21), "what was settled last is committed at the end");
    assert!(kafka.cluster.members("webhook.hook").is_empty());
}

#[tokio::test]
async fn a_raw_request_has_the_value_and_one_with_several_records_an_array() {
    let kafka = Kafka::new(&[1]);
    kafka.write(0, b"k", b"\x00\xff").await;
    kafka.write_numbers(0, 1..6).await;
    let raw = Receiver::new(ok).await;
    let bridge = kafka.bridge(&raw, "", "format = 'raw'\nheaders = { x-tenant = 'a' }");
    let received = raw.has(6).await;
    assert_eq!((&received[0].body[..], &received[5].body[..]), (&b"\x00\xff"[..], &b"5"[..]));
    assert_eq!(received[0].header("content-type"), "application/octet-stream");
    assert_eq!(
        (received[0].header("x-tenant"), received[0].header("kafka-topic")),
        ("a", "orders")
    );
    bridge.end().await;
    let arrays = Receiver::new(ok).await;
    let bridge = kafka.bridge(&arrays, "", "batch_max = 4\ngroup_id = 'other'");
    arrays.has(2).await;
    let items: Vec<_> = arrays
        .all()
        .iter()
        .flat_map(|request| serde_json::from_slice::<Vec<Value>>(&request.body).unwrap())
        .collect();
    let offsets = items.iter().map(|item| item["metadata"]["offset"].as_i64().unwrap());
    assert!(offsets.eq(0..6), "{items:?}");
    assert_eq!(arrays.all()[0].header("kafka-key"), "");
    bridge.end().await;
}
