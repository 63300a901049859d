//! Bridges that come, go and crash, and logs that change under them.

use kafka_client::fake_broker::CONSUMER_GROUP_HEARTBEAT;

use super::*;

#[tokio::test]
async fn bridges_share_partitions_and_take_over_in_order() {
    let kafka = Kafka::new(&[1, 2, 1, 2]);
    let receiver = Receiver::new(ok).await;
    let first = kafka.bridge(&receiver, "", SOON);
    for partition in 0..4 {
        kafka.write_numbers(partition, 0..5).await;
    }
    receiver.has(20).await;
    let second = kafka.bridge(&receiver, "", SOON);
    let started = Instant::now();
    let count = |bridge: &Bridge| bridge.webhooks.json()[0]["partitions"].as_array().unwrap().len();
    while [count(&first), count(&second)] != [2, 2] {
        assert!(started.elapsed() < 3 * WITHIN, "{} {}", count(&first), count(&second));
        sleep(Duration::from_millis(20)).await;
    }
    for partition in 0..4 {
        kafka.write_numbers(partition, 5..10).await;
    }
    receiver.has(40).await;
    first.end().await;
    for partition in 0..4 {
        kafka.write_numbers(partition, 10..12).await;
    }
    receiver.has(48).await;
    second.end().await;
    for partition in 0..4 {
        let own = receiver.places().into_iter().filter(|(of, _)| *of == partition);
        assert!(own.map(|(_, offset)| offset).eq(0..12), "{:?}", receiver.places());
        assert_eq!(kafka.position(partition), Some(12));
    }
}

#[tokio::test]
async fn a_bridge_with_a_name_that_was_killed_has_its_partitions_again_when_it_is_back() {
    let mut kafka = Kafka::new(&[1]);
    [1, 2].iter().for_each(|id| kafka.cluster.upgrade(*id, CONSUMER_GROUP_HEARTBEAT, 1, 0));
    kafka.member.instance = Some("b1".to_owned());
    let receiver = Receiver::new(ok).await;
    kafka.write_numbers(0, 0..2).await;
    let bridge = kafka.bridge(&receiver, "", SOON);
    kafka.committed(0, 2).await;
    bridge.crash().await;
    kafka.write_numbers(0, 2..4).await;
    let bridge = kafka.bridge(&receiver, "", SOON);
    // Another member would wait for the end of the session.
    receiver.has(4).await;
    bridge.end().await;
}

#[tokio::test]
async fn a_bridge_says_why_the_group_does_not_have_it() {
    let mut kafka = Kafka::new(&[1]);
    [1, 2].iter().for_each(|id| kafka.cluster.upgrade(*id, CONSUMER_GROUP_HEARTBEAT, 1, 0));
    kafka.member.instance = Some("b1".to_owned());
    let receiver = Receiver::new(ok).await;
    kafka.write_numbers(0, 0..1).await;
    let first = kafka.bridge(&receiver, "", SOON);
    kafka.committed(0, 1).await;
    let error = |bridge: &Bridge| bridge.webhooks.json()[0]["group_error"].clone();
    assert_eq!(error(&first), Value::Null);
    let second = kafka.bridge(&receiver, "", SOON);
    let started = Instant::now();
    while error(&first) != "another member has the same group.instance.id" {
        assert!(started.elapsed() < WITHIN, "{}", error(&first));
        sleep(Duration::from_millis(5)).await;
    }
    first.end().await;
    second.end().await;
}

#[tokio::test]
async fn what_is_under_way_is_awaited_when_the_bridge_ends_and_sent_again_after_a_crash() {
    let kafka = Kafka::new(&[1]);
    let receiver = Receiver::new(ok).await;
    kafka.write_numbers(0, 0..3).await;
    let bridge = kafka.bridge(&receiver, "", "");
    receiver.has(3).await;
    bridge.end().await;
    assert_eq!(kafka.position(0), Some(3));
    // Nothing is committed of what a receiver does not answer.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let away =
        Receiver { url: format!("http://{}/", silent.local_addr().unwrap()), ..receiver.clone() };
    kafka.write_numbers(0, 3..4).await;
    let bridge = kafka.bridge(&away, "", "");
    let (mut stream, _) = silent.accept().await.unwrap();
    let mut head = [0; 4];
    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut head).await.unwrap();
    bridge.crash().await;
    assert_eq!(kafka.position(0), Some(3));
    drop((stream, silent));
    let bridge = kafka.bridge(&receiver, "", "group_id = 'webhook.other'");
    receiver.has(7).await;
    bridge.end().await;
}

#[tokio::test]
async fn a_group_that_has_begun_at_the_log_end_reads_what_comes_to_partitions_that_are_added() {
    let kafka = Kafka::new(&[1]);
    let receiver = Receiver::new(ok).await;
    kafka.write_numbers(0, 0..3).await;
    let latest = "auto_offset_reset = 'latest'";
    let bridge = kafka.bridge_of(&receiver, latest, "");
    kafka.committed(0, 3).await;
    bridge.end().await;
    kafka.write_numbers(0, 3..5).await;
    kafka.cluster.add_partition("orders", 2);
    let now = crate::clock::now_ms();
    let record = Record { partition: Some(1), timestamp_ms: now, ..Record::new(b"new") };
    kafka.producer.send("orders", record, WITHIN).await;
    let bridge = kafka.bridge_of(&receiver, latest, "");
    receiver.has(3).await;
    let mut places = receiver.places();
    places.sort_unstable();
    assert_eq!(places, [(0, 3), (0, 4), (1, 0)]);
    bridge.end().await;
}

#[tokio::test]
async fn expired_records_are_passed_and_a_topic_that_was_created_again_is_read_from_its_start() {
    let kafka = Kafka::new(&[1]);
    let receiver = Receiver::new(ok).await;
    kafka.write_numbers(0, 0..5).await;
    let bridge = kafka.bridge(&receiver, "", "");
    receiver.has(5).await;
    bridge.end().await;
    kafka.write_numbers(0, 5..10).await;
    kafka.cluster.expire("orders", 0, 8);
    let bridge = kafka.bridge(&receiver, "", "");
    receiver.has(7).await;
    assert_eq!(receiver.places()[5..], [(0, 8), (0, 9)]);
    bridge.end().await;
    kafka.cluster.delete_topic("orders");
    kafka.cluster.create_topic("orders", &[1]);
    kafka.write_numbers(0, 0..1).await;
    let bridge = kafka.bridge(&receiver, "", "");
    receiver.has(8).await;
    assert_eq!((receiver.places()[7], receiver.all()[7].text().contains("\"0\"")), ((0, 0), true));
    kafka.committed(0, 1).await;
    bridge.end().await;
}

#[tokio::test]
async fn at_most_once_goes_back_with_a_log_that_was_cut() {
    let kafka = Kafka::new(&[1]);
    let receiver = Receiver::new(ok).await;
    kafka.write_numbers(0, 0..5).await;
    let bridge = kafka.bridge(&receiver, "", "qos = 'at-most-once'");
    receiver.has(5).await;
    kafka.committed(0, 5).await;
    kafka.cluster.truncate("orders", 0, 2);
    kafka.committed(0, 2).await;
    bridge.end().await;
}

#[tokio::test]
async fn topics_of_a_pattern_are_read_from_when_the_group_began() {
    let kafka = Kafka::new(&[1]);
    let receiver = Receiver::new(ok).await;
    let feed = "topics_pattern = 'orders.*'\nauto_offset_reset = 'latest'";
    let bridge = kafka.bridge_of(&receiver, feed, "");
    kafka.committed(0, 0).await;
    bridge.end().await;
    kafka.cluster.create_topic("orders-eu", &[2]);
    let record = Record { timestamp_ms: crate::clock::now_ms(), ..Record::new(b"new") };
    kafka.producer.send("orders-eu", record, WITHIN).await;
    kafka.write_numbers(0, 0..1).await;
    let bridge = kafka.bridge_of(&receiver, feed, "");
    let received = receiver.has(2).await;
    let mut topics: Vec<_> = received.iter().map(|it| it.header("kafka-topic")).collect();
    topics.sort_unstable();
    assert_eq!(topics, ["orders", "orders-eu"]);
    bridge.end().await;
}
