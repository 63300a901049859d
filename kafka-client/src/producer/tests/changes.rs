//! Scenarios in which what was learnt of a cluster is no longer true, on a paused clock.

use super::*;
use crate::fake_broker::{
    Arrival, FakeCluster, FakeSettings, Fault, INIT_PRODUCER_ID, METADATA, PRODUCE, Trace, When,
};

fn cluster(brokers: i32) -> FakeCluster {
    let cluster = FakeCluster::new(FakeSettings { brokers, ..FakeSettings::default() });
    cluster.create_topic("orders", &[1]);
    cluster.alias("bootstrap", 9092, 1);
    cluster
}

fn client(cluster: &FakeCluster, properties: &[(&str, &str)]) -> Client {
    let own = [("bootstrap.servers", "bootstrap:9092")];
    let all = own.into_iter().chain(properties.iter().copied());
    cluster.client(Config::from_properties(all).unwrap())
}

async fn send_to(client: &Client, partition: i32, value: &str) -> Outcome {
    let record = Record { partition: Some(partition), ..record(value) };
    client.producer().send("orders", record, within(10_000)).await
}

fn values(cluster: &FakeCluster) -> Vec<String> {
    let value = |record: &crate::record_batch::StoredRecord| record.value.clone().unwrap();
    let values = cluster.log("orders", 0);
    values.iter().map(|record| String::from_utf8(value(record).to_vec()).unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn brokers_that_all_moved_are_found_again_at_once() {
    let cluster = cluster(3);
    let client = client(&cluster, &[]);
    assert_eq!(send(&client, "a").await, written(Some(0)));
    for broker in 1..=3 {
        cluster.move_to(broker, "elsewhere", 9000 + u16::try_from(broker).unwrap());
    }
    let started = Instant::now();
    assert_eq!(send(&client, "b").await, written(Some(1)));
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert_eq!(client.ready(Duration::from_secs(2)).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn brokers_that_moved_from_addresses_that_are_silent_now_are_found_within_seconds() {
    let cluster = cluster(5);
    let client = client(&cluster, &[]);
    assert_eq!(send(&client, "a").await, written(Some(0)));
    for broker in 1..=5 {
        cluster.silence(&format!("broker-{broker}"));
        cluster.move_to(broker, "elsewhere", 9000 + u16::try_from(broker).unwrap());
    }
    let started = Instant::now();
    assert_eq!(send(&client, "b").await, written(Some(1)));
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_producer_id_is_had_from_brokers_that_moved() {
    let cluster = cluster(1);
    let client = client(&cluster, &[]);
    cluster.arm(INIT_PRODUCER_ID, When::PerMille(1000), Fault::CloseBefore);
    let sending = tokio::spawn({
        let client = client.clone();
        async move { send(&client, "a").await }
    });
    while cluster.requests(INIT_PRODUCER_ID) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    cluster.move_to(1, "elsewhere", 9000);
    cluster.disarm();
    let started = Instant::now();
    assert_eq!(sending.await.unwrap(), written(Some(0)));
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_is_told_to_start_over_asks_the_bootstrap_servers() {
    let cluster = cluster(1);
    let client = client(&cluster, &[]);
    assert_eq!(send(&client, "a").await, written(Some(0)));
    // What still answers at the advertised address is no broker of the cluster any more.
    cluster.silence("broker-1");
    let trace = Trace::Nothing;
    cluster.arm(METADATA, When::Nth(1), Fault::Refuse { code: 129, trace });
    assert_eq!(client.ready(Duration::from_millis(900)).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn another_cluster_at_the_same_addresses_takes_the_place_of_the_former() {
    for properties in [&[][..], &[("acks", "1")]] {
        let cluster = cluster(2);
        let client = client(&cluster, properties);
        cluster.lead("orders", 0, Some(2));
        for offset in 0..7 {
            assert_eq!(send(&client, "old").await, written(Some(offset)));
        }
        cluster.rebuild("another");
        cluster.create_topic("orders", &[1, 1]);
        for offset in 0..3 {
            assert_eq!(send(&client, "new").await, written(Some(offset)), "{properties:?}");
        }
        assert_eq!(values(&cluster), ["new"; 3]);
        let is_written = |outcome| matches!(outcome, Outcome::Written { partition: 1, .. });
        assert!(is_written(send_to(&client, 1, "new").await), "its own partitions count");
        assert_eq!(client.ready(Duration::from_secs(2)).await, Ok(()));
        assert_eq!(client.stats().cluster_changes, 1);
        assert_eq!((client.stats().buffered_bytes, client.faults().len()), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn no_sequence_of_a_former_cluster_is_sent_to_another_one() {
    let cluster = cluster(1);
    let client = client(&cluster, &[]);
    for offset in 0..3 {
        assert_eq!(send(&client, "old").await, written(Some(offset)));
    }
    cluster.rebuild("another");
    cluster.create_topic("orders", &[1]);
    let before = cluster.arrivals().len();
    // Someone else gets the number that our producer id had in the former cluster.
    let other = self::client(&cluster, &[]);
    assert_eq!(send(&other, "theirs").await, written(Some(0)));
    assert_eq!(send(&client, "ours").await, written(Some(1)));
    let stamp = |arrival: &Arrival| arrival.header.unwrap().stamp();
    let stamps: Vec<_> = cluster.arrivals().iter().skip(before).map(stamp).collect();
    assert_eq!(stamps.len(), 2);
    assert!(stamps.iter().all(|stamp| stamp.base_sequence == 0), "{stamps:?}");
    assert_ne!(stamps[0].producer_id, stamps[1].producer_id);
}

#[tokio::test(start_paused = true)]
async fn what_a_former_cluster_may_have_is_unknown_and_the_rest_is_sent_to_the_new_one() {
    for properties in [&[][..], &[("enable.idempotence", "false")]] {
        let cluster = cluster(1);
        let settings = [properties, &[("batch.records", "1")]].concat();
        let client = client(&cluster, &settings);
        assert_eq!(send(&client, "old").await, written(Some(0)));
        cluster.arm(PRODUCE, When::Nth(1), Fault::NoAnswer);
        let (producer, deadline) = (client.producer(), within(20_000));
        let topic = producer.topic("orders", deadline).await.unwrap();
        let mut permit = producer.try_reserve(10_000).unwrap();
        let mut put =
            |value| producer.enqueue(&mut permit, &topic, record(value), deadline).unwrap();
        let doubtful = put("doubtful");
        let arrived = cluster.arrivals().len();
        while cluster.arrivals().len() == arrived {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        cluster.kill(1);
        let unsent = put("unsent");
        cluster.rebuild("another");
        cluster.create_topic("orders", &[1]);
        let started = Instant::now();
        let outcome = doubtful.outcome().await;
        assert!(matches!(outcome, Outcome::Unknown(Reason::NoAnswer(_))), "{outcome:?}");
        assert_eq!(unsent.outcome().await, written(Some(0)));
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
        assert_eq!(values(&cluster), ["unsent"]);
        drop(permit);
        assert_eq!(client.stats().buffered_bytes, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_another_cluster_lacks_is_unknown_there() {
    let cluster = cluster(1);
    let client = client(&cluster, &[]);
    assert_eq!(send(&client, "old").await, written(Some(0)));
    cluster.rebuild("another");
    let outcome = send(&client, "new").await;
    assert!(matches!(outcome, Outcome::NotWritten(_)), "{outcome:?}");
    let outcome = send(&client, "new").await;
    assert_eq!(outcome, Outcome::NotWritten(Reason::UnknownTopic));
    cluster.create_topic("orders", &[1]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(send(&client, "new").await, written(Some(0)));
}

#[tokio::test(start_paused = true)]
async fn a_pinned_cluster_id_refuses_every_other_cluster_alike() {
    let cluster = cluster(1);
    cluster.create_topic("others", &[1]);
    let client = client(&cluster, &[("cluster.id.pin", "fake")]);
    assert_eq!(client.ready(Duration::from_secs(2)).await, Ok(()));
    assert_eq!(send(&client, "old").await, written(Some(0)));
    cluster.rebuild("another");
    cluster.create_topic("orders", &[1]);
    cluster.create_topic("others", &[1]);
    for topic in ["orders", "others"] {
        let outcome = client.producer().send(topic, record("new"), within(3000)).await;
        let Outcome::NotWritten(reason) = outcome else { panic!("{topic}: {outcome:?}") };
        assert!(!reason.is_permanent(), "{topic}: {reason}");
        assert!(reason.chain().contains("another"), "{topic}: {}", reason.chain());
    }
    let not_ready = client.ready(Duration::from_secs(2)).await.unwrap_err().to_string();
    let told = "the cluster is another, and cluster.id.pin is fake";
    assert!(not_ready.contains(told), "{not_ready}");
    assert_eq!((values(&cluster).len(), client.stats().cluster_changes), (0, 0));
    cluster.rebuild("fake");
    cluster.create_topic("orders", &[1]);
    assert_eq!(client.ready(Duration::from_secs(2)).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_was_added_is_asked_for_before_it_is_refused() {
    let cluster = cluster(1);
    let client = client(&cluster, &[]);
    assert_eq!(send(&client, "a").await, written(Some(0)));
    cluster.create_topic("orders", &[1, 1]);
    let outcome = send_to(&client, 1, "b").await;
    assert!(matches!(outcome, Outcome::Written { partition: 1, .. }), "{outcome:?}");
    let asked = cluster.requests(METADATA);
    let missing = Outcome::NotWritten(Reason::NoSuchPartition { partition: 2, count: 2 });
    assert_eq!(send_to(&client, 2, "c").await, missing);
    assert_eq!(cluster.requests(METADATA), asked + 1, "a broker has said so");
    cluster.kill(1);
    let outcome = send_to(&client, 3, "d").await;
    let Outcome::NotWritten(reason) = outcome else { panic!("{outcome:?}") };
    assert!(!reason.is_permanent(), "nobody has said so: {reason}");
}

#[tokio::test(start_paused = true)]
async fn a_permission_that_is_back_counts_at_once() {
    let cluster = cluster(1);
    let client = client(&cluster, &[]);
    let refuse = |code| Fault::Refuse { code, trace: Trace::Nothing };
    cluster.arm(PRODUCE, When::Nth(1), refuse(29));
    assert_eq!(send(&client, "a").await, Outcome::NotWritten(Reason::of_code(29)));
    assert_eq!(send(&client, "b").await, written(Some(0)));
}

#[tokio::test(start_paused = true)]
async fn senders_of_brokers_that_come_and_go_end() {
    let cluster = cluster(2);
    let client = client(&cluster, &[]);
    assert_eq!(send(&client, "a").await, written(Some(0)));
    let tasks = || client.shared.cluster.settings.tasks.count();
    let at_first = tasks();
    for broker in 3..30 {
        cluster.replace(broker - 1, broker);
        cluster.lead("orders", 0, Some(broker));
        let outcome = send(&client, "b").await;
        assert!(matches!(outcome, Outcome::Written { .. }), "{broker}: {outcome:?}");
    }
    cluster.lead("orders", 0, Some(1));
    assert!(matches!(send(&client, "c").await, Outcome::Written { .. }));
    assert_eq!(client.ready(Duration::from_secs(2)).await, Ok(()));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(tasks() <= at_first + 4, "{} tasks, at first {at_first}", tasks());
    assert_eq!(client.faults(), []);
    assert!(client.stats().connections_open <= 4, "{}", client.stats().connections_open);
}
