//! Stories on a paused clock, with brokers in memory.

use super::*;
use crate::Acks;
use crate::fake_broker::{
    Arrival, FakeCluster, FakeSettings, Fault, INIT_PRODUCER_ID, METADATA, PRODUCE, Trace, When,
};
use crate::record_batch::Stamp;

const PAUSE: Duration = Duration::from_secs(3);

fn cluster() -> FakeCluster {
    let cluster = FakeCluster::new(FakeSettings::default());
    cluster.create_topic("orders", &[1]);
    cluster
}

fn client(cluster: &FakeCluster, properties: &[(&str, &str)]) -> Client {
    let bootstrap = cluster.bootstrap();
    let own = [("bootstrap.servers", bootstrap.as_str())];
    let all = own.into_iter().chain(properties.iter().copied());
    cluster.client(Config::from_properties(all).unwrap())
}

async fn enqueue(client: &Client, value: &str) -> Ticket {
    let (producer, deadline) = (client.producer(), patiently());
    let topic = producer.topic("orders", deadline).await.unwrap();
    let mut permit = producer.try_reserve(record_size(&record(value))).unwrap();
    producer.enqueue(&mut permit, &topic, record(value), deadline).unwrap()
}

fn stamps(cluster: &FakeCluster) -> Vec<Stamp> {
    let stamp = |arrival: &Arrival| arrival.header.unwrap().stamp();
    cluster.arrivals().iter().map(stamp).collect()
}

#[tokio::test(start_paused = true)]
async fn flush_waits_for_earlier_records_only() {
    let cluster = cluster();
    let client = client(&cluster, &[("linger.ms", "20000"), ("batch.records", "2")]);
    cluster.arm(PRODUCE, When::Nth(1), Fault::SlowAnswer(PAUSE));
    let (started, mut earlier) = (Instant::now(), Vec::new());
    for value in ["a", "b", "c"] {
        earlier.push(enqueue(&client, value).await);
    }
    let flushing = tokio::spawn({
        let producer = client.producer();
        async move { producer.flush().await }
    });
    tokio::time::sleep(PAUSE / 3).await;
    let later = enqueue(&client, "d").await;
    flushing.await.unwrap();
    assert_eq!(started.elapsed().as_secs(), PAUSE.as_secs(), "an open batch does not linger");
    for (offset, ticket) in (0..).zip(earlier) {
        assert_eq!(ticket.outcome().await, written(Some(offset)));
    }
    assert_eq!(started.elapsed().as_secs(), PAUSE.as_secs());
    assert_eq!(later.outcome().await, written(Some(3)));
    assert!(started.elapsed() > Duration::from_secs(20), "what comes later lingers");
}

#[tokio::test(start_paused = true)]
async fn flush_follows_records_into_other_batches() {
    let settings = FakeSettings { batch_bytes: 250, ..FakeSettings::default() };
    let cluster = FakeCluster::new(settings);
    cluster.create_topic("orders", &[1]);
    let client = client(&cluster, &[("linger.ms", "20000")]);
    for _ in 0..8 {
        drop(enqueue(&client, &"x".repeat(50)).await);
    }
    client.producer().flush().await;
    assert_eq!(cluster.log("orders", 0).len(), 8);
    assert_eq!((client.stats().records_written, client.stats().buffered_bytes), (8, 0));
    client.producer().flush().await;
}

#[tokio::test(start_paused = true)]
async fn flush_ends_at_the_deadlines() {
    let cluster = cluster();
    let client = client(&cluster, &[]);
    let ticket = enqueue(&client, "a").await;
    cluster.kill(1);
    client.producer().flush().await;
    assert!(!matches!(ticket.outcome().await, Outcome::Written { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_recreated_topic_starts_over() {
    let cluster = cluster();
    let client = client(&cluster, &[("metadata.max.age.ms", "1000")]);
    for offset in 0..2 {
        assert_eq!(send(&client, "old").await, written(Some(offset)));
    }
    cluster.create_topic("orders", &[1]);
    tokio::time::sleep(PAUSE).await;
    assert_eq!(send(&client, "new").await, written(Some(0)));
    let stamps: Vec<_> =
        stamps(&cluster).iter().map(|it| (it.producer_epoch, it.base_sequence)).collect();
    assert_eq!(stamps, [(0, 0), (0, 1), (1, 0)]);
}

#[tokio::test(start_paused = true)]
async fn every_request_has_a_deadline() {
    for api in [METADATA, INIT_PRODUCER_ID, PRODUCE] {
        let cluster = cluster();
        cluster.arm(api, When::Nth(1), Fault::NoAnswer);
        let client = client(&cluster, &[("request.timeout.ms", "1000")]);
        let started = Instant::now();
        assert_eq!(send(&client, "a").await, written(Some(0)), "{api}");
        let took = started.elapsed().as_millis();
        assert!((1000..5000).contains(&took), "{api} took {took} ms");
        assert_eq!(cluster.log("orders", 0).len(), 1, "{api}");
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_for_memory_spends_the_deadline() {
    let cluster = cluster();
    let client = client(&cluster, &[]);
    let _all = client.producer().try_reserve(64 * 1024 * 1024).unwrap();
    let (started, within) = (Instant::now(), Instant::now() + PAUSE);
    let outcome = client.producer().send("orders", record("a"), within).await;
    assert_eq!(outcome, Outcome::NotWritten(Reason::BufferFull));
    assert_eq!(started.elapsed().as_secs(), PAUSE.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_shrinks_loses_no_record_without_a_key() {
    let cluster = cluster();
    let client = client(&cluster, &[("metadata.max.age.ms", "1000")]);
    for partitions in [8, 1, 8, 1, 8, 1, 8, 1, 8, 1] {
        cluster.create_topic("orders", &vec![1; partitions]);
        tokio::time::sleep(PAUSE).await;
        let anywhere = Record { partition: None, ..record("a") };
        let outcome = client.producer().send("orders", anywhere, within(1000)).await;
        assert!(matches!(outcome, Outcome::Written { .. }), "{partitions}: {outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_backoff_a_missing_leader_is_not_asked_for_all_the_time() {
    let cluster = cluster();
    let none = [("retry.backoff.ms", "0"), ("retry.backoff.max.ms", "0")];
    let client = client(&cluster, &none);
    assert_eq!(send(&client, "a").await, written(Some(0)));
    cluster.lead("orders", 0, None);
    let outcome = client.producer().send("orders", record("b"), within(1000)).await;
    assert!(matches!(outcome, Outcome::NotWritten(_)), "{outcome:?}");
    assert!(cluster.requests(METADATA) < 1500, "{}", cluster.requests(METADATA));
}

/// A round that ends while a partition is on its way to those without a leader has not seen it.
#[test]
fn a_partition_that_is_parked_late_hears_of_its_leader() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let inside = runtime.enter();
    let cluster = cluster();
    let client = client(&cluster, &[("acks", "1")]);
    let learn = |leader| {
        cluster.lead("orders", 0, leader);
        runtime.block_on(async {
            assert_eq!(client.ready(PAUSE).await, Ok(()));
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        });
    };
    assert_eq!(runtime.block_on(send(&client, "a")), written(Some(0)));
    learn(None);
    let routing = client.producer().producing.routing.clone();
    let partition = routing.partitions().remove(0);
    let mut queue = partition.queue.lock();
    let (cell, index) = queue.push(&record("b"), 0, within(10_000), Instant::now()).unwrap();
    assert!(queue.poll_due(Instant::now()));
    let parking = std::thread::spawn({
        let (routing, partition) = (routing.clone(), partition.clone());
        let runtime = runtime.handle().clone();
        move || {
            let _inside = runtime.enter();
            routing.schedule(&partition);
        }
    });
    // It has seen that nobody leads, and waits for the lock to say so.
    while partition.has_leader() {
        std::thread::yield_now();
    }
    learn(Some(1));
    drop(queue);
    parking.join().unwrap();
    let outcome = runtime.block_on(Ticket { cell, index, timestamp_ms: 5 }.outcome());
    assert_eq!(outcome, written(Some(1)));
    drop(inside);
}

fn refuses(cluster: &FakeCluster, code: i16, times: std::ops::RangeInclusive<u64>) {
    for nth in times {
        cluster.arm(PRODUCE, When::Nth(nth), Fault::Refuse { code, trace: Trace::Nothing });
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_batch_takes_no_other_with_it() {
    for code in [44, 29, 17] {
        let cluster = cluster();
        let client = client(&cluster, &[("linger.ms", "1"), ("batch.records", "2")]);
        refuses(&cluster, code, 1..=1);
        let mut tickets = Vec::new();
        for value in ["a", "b", "c", "d", "e"] {
            tickets.push(enqueue(&client, value).await);
        }
        let mut outcomes = Vec::new();
        for ticket in tickets {
            outcomes.push(ticket.outcome().await);
        }
        let refused = || Outcome::NotWritten(Reason::of_code(code));
        assert_eq!(outcomes[..2], [refused(), refused()], "{code}");
        for (offset, outcome) in (0..).zip(&outcomes[2..]) {
            assert_eq!(*outcome, written(Some(offset)), "{code}");
        }
        assert_eq!(send(&client, "at once").await, written(Some(3)), "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_vendor_that_throttles_by_policy_is_asked_until_the_deadline() {
    let cluster = cluster();
    let properties = [("policy.violation.retry", "true"), ("retries", "1")];
    let client = client(&cluster, &properties);
    refuses(&cluster, 44, 1..=9);
    assert_eq!(send(&client, "a").await, written(Some(0)));
    refuses(&cluster, 44, 1..=99);
    client.producer().topic("orders", patiently()).await.unwrap();
    match client.producer().send("orders", record("b"), within(3000)).await {
        Outcome::NotWritten(Reason::DeadlineExceeded { last: Some(cause) }) => {
            assert_eq!(*cause, Reason::of_code(44));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_without_a_producer_asks_for_no_producer_id() {
    let cluster = cluster();
    let client = client(&cluster, &[]);
    assert_eq!(client.ready(PAUSE).await, Ok(()));
    assert_eq!(cluster.requests(INIT_PRODUCER_ID), 0);
    assert_eq!(send(&client, "a").await, written(Some(0)));
    assert_eq!((client.ready(PAUSE).await, cluster.requests(INIT_PRODUCER_ID)), (Ok(()), 1));
}

#[tokio::test(start_paused = true)]
async fn producers_of_one_client_differ_by_their_settings_alone() {
    let cluster = cluster();
    let client = client(&cluster, &[]);
    let hasty = ProducerConfig::default().acks(Acks::Leader).linger(Duration::from_millis(1));
    assert_eq!(send(&client, "a").await, written(Some(0)));
    let producer = client.producer_with(&hasty);
    assert_eq!(producer.send("orders", record("b"), within(1000)).await, written(Some(1)));
    assert!(!client.forget_producer(&hasty), "it has a handle");
    drop(producer);
    assert!(client.forget_producer(&hasty) && !client.forget_producer(&hasty));
    tokio::time::sleep(PAUSE).await;
    assert_eq!(send(&client, "c").await, written(Some(2)), "the other goes on");
    assert_eq!(client.stats().buffered_bytes, 0);
    let acks: std::collections::BTreeSet<_> =
        stamps(&cluster).iter().map(|it| it.producer_id < 0).collect();
    assert_eq!(acks.len(), 2, "one is idempotent, and the other is not");
}
