//! Receivers that fail, for a time or for good.

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

use super::*;

/// Numbers 0 to 4 in one partition.
async fn five() -> Kafka {
    let kafka = Kafka::new(&[1]);
    kafka.write_numbers(0, 0..5).await;
    kafka
}

#[tokio::test]
async fn a_request_that_fails_is_sent_again_unchanged_until_it_is_delivered_and_the_others_wait() {
    let kafka = five().await;
    let receiver = Receiver::new(|_, count| (if count < 2 { 503 } else { 200 }, None)).await;
    let bridge = kafka.bridge(&receiver, "", SOON);
    let received = receiver.has(7).await;
    let offsets: Vec<_> = receiver.places().iter().map(|(_, offset)| *offset).collect();
    assert_eq!(offsets, [0, 0, 0, 1, 2, 3, 4]);
    let [first, second, third, ..] = &received[..] else { panic!() };
    for again in [second, third] {
        assert_eq!(first.body, again.body);
        assert_eq!(first.header("webhook-id"), again.header("webhook-id"));
    }
    let attempts = received.iter().map(|it| it.header("kafka-upstream-attempt"));
    assert_eq!(attempts.collect::<Vec<_>>(), ["1", "2", "3", "1", "1", "1", "1"]);
    kafka.committed(0, 5).await;
    bridge.end().await;
}

#[tokio::test]
async fn a_receiver_that_asks_for_time_gets_it() {
    let kafka = five().await;
    let receiver = Receiver::new(|_, count| match count {
        0 => (429, Some("1")),
        _ => (200, None),
    })
    .await;
    let bridge = kafka.bridge(&receiver, "", "retry = { initial_ms = 1, max_ms = 60000 }");
    let received = receiver.has(6).await;
    let waited = received[1].at - received[0].at;
    assert!(waited >= Duration::from_millis(990), "{waited:?}");
    bridge.end().await;
}

#[tokio::test]
async fn a_record_that_is_refused_goes_to_the_dead_letter_topic_and_the_others_go_on() {
    let kafka = five().await;
    let receiver = Receiver::new(|request, _| match request.place().1 {
        1 => (400, None),
        2 => (302, None),
        3 => (500, None),
        _ => (204, None),
    })
    .await;
    let webhook = "retry = { initial_ms = 1, max_ms = 1, attempts = 3 }";
    let bridge = kafka.bridge(&receiver, "dlq_topic = 'dead'", webhook);
    receiver.has(7).await;
    kafka.committed(0, 5).await;
    let dead = kafka.dead();
    let values: Vec<_> = dead.iter().map(|(value, _)| &**value).collect();
    assert_eq!(values, ["1", "2", "3"]);
    let headers =
        |nth: usize, name: &str| dead[nth].1[&format!("kafka-upstream-dlq-{name}")].clone();
    assert_eq!(headers(0, "reason"), "undelivered");
    assert_eq!(headers(0, "webhook"), "hook");
    assert_eq!((headers(0, "offset"), headers(0, "attempts")), ("1".into(), "1".into()));
    assert_eq!((headers(2, "offset"), headers(2, "attempts")), ("3".into(), "3".into()));
    bridge.end().await;
}

#[tokio::test]
async fn without_a_dead_letter_topic_a_refused_record_stops_the_webhook_until_it_is_resumed() {
    let kafka = five().await;
    let receiver = Receiver::new(|request, _| match request.place().1 {
        2 => (400, None),
        _ => (200, None),
    })
    .await;
    let bridge = kafka.bridge(&receiver, "", SOON);
    let state = bridge.is("state", "stopped").await;
    let reason = "orders-0, offset 2: it answered 400 Bad Request";
    assert_eq!(
        (&state["reason"], &state["last_error"]),
        (&reason.into(), &"it answered 400 Bad Request".into())
    );
    assert_eq!(bridge.webhooks.faults()[0]["reason"], reason);
    kafka.committed(0, 2).await;
    bridge.end().await;
    // Whoever has the partition next does not go on either.
    let bridge = kafka.bridge(&receiver, "", SOON);
    bridge.is("state", "stopped").await;
    sleep(Duration::from_millis(100)).await;
    assert_eq!(receiver.all().len(), 3);
    receiver.answers(ok);
    let partitions = bridge.webhooks.set_paused("hook", false).await.unwrap();
    assert_eq!(partitions[0]["partition"], 0);
    receiver.has(6).await;
    assert_eq!(receiver.places().last(), Some(&(0, 4)));
    kafka.committed(0, 5).await;
    assert_eq!(kafka.note(0)["halt"], Value::Null);
    bridge.end().await;
}

#[tokio::test]
async fn a_webhook_that_is_stopped_takes_no_time() {
    let kafka = five().await;
    let receiver = Receiver::new(|_, _| (400, None)).await;
    let bridge = kafka.bridge(&receiver, "", SOON);
    bridge.is("state", "stopped").await;
    let processor_ms = || {
        let usage = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
        [usage.user_time(), usage.system_time()].iter().map(|it| it.num_milliseconds()).sum::<i64>()
    };
    let before = processor_ms();
    sleep(Duration::from_secs(1)).await;
    let taken = processor_ms() - before;
    assert!(taken < 200, "{taken} ms");
    bridge.end().await;
}

#[tokio::test]
async fn records_may_be_skipped() {
    let kafka = five().await;
    let receiver = Receiver::new(|request, _| match request.place().1 {
        0 | 3 => (404, None),
        _ => (200, None),
    })
    .await;
    let bridge = kafka.bridge(&receiver, "dlq_topic = 'dead'", "on_failure = 'skip'");
    receiver.has(5).await;
    kafka.committed(0, 5).await;
    assert!(kafka.dead().is_empty());
    bridge.end().await;
}

#[tokio::test]
async fn a_receiver_that_is_gone_for_good_gets_no_more() {
    let kafka = five().await;
    let receiver = Receiver::new(|_, count| (if count == 1 { 410 } else { 200 }, None)).await;
    let bridge = kafka.bridge(&receiver, "dlq_topic = 'dead'", SOON);
    bridge.is("state", "disabled").await;
    kafka.committed(0, 1).await;
    assert_eq!(kafka.note(0)["halt"]["why"], "disabled");
    assert_eq!((receiver.all().len(), kafka.dead().len()), (2, 0));
    bridge.webhooks.set_paused("hook", false).await.unwrap();
    receiver.has(6).await;
    let offsets: Vec<_> = receiver.places().iter().map(|(_, offset)| *offset).collect();
    assert_eq!(offsets, [0, 1, 1, 2, 3, 4]);
    bridge.end().await;
}

#[tokio::test]
async fn a_receiver_that_cannot_be_reached_is_tried_until_it_can() {
    let kafka = five().await;
    let receiver = Receiver::new(ok).await;
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let away = Receiver { url: format!("http://{port}/"), ..receiver.clone() };
    let bridge = kafka.bridge(&away, "", SOON);
    let started = Instant::now();
    while bridge.state(0)["attempts"].as_i64() < Some(3) {
        assert!(started.elapsed() < WITHIN, "{}", bridge.state(0));
        sleep(Duration::from_millis(5)).await;
    }
    let told = bridge.state(0)["last_error"].to_string();
    assert!(told.contains("no connection: "), "{told}");
    let listener = TcpListener::bind(port).await.unwrap();
    let own = receiver.clone();
    let routes = Router::new().fallback(move |headers: HeaderMap, body: Bytes| async move {
        own.received.lock().unwrap().push(Received { headers, body, at: Instant::now() });
    });
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    receiver.has(5).await;
    kafka.committed(0, 5).await;
    bridge.end().await;
}

#[tokio::test]
async fn keys_count_as_far_as_a_partition_goes_on_behind_a_record_that_is_not_delivered() {
    let kafka = Kafka::new(&[1]);
    for number in 0..40_usize {
        kafka.write(0, &[&[b'k'; 900_000][..], &number.to_le_bytes()].concat(), b"").await;
    }
    let receiver = Receiver::new(|_, _| (503, None)).await;
    let bridge = kafka.bridge(&receiver, "", &format!("ordering = 'key'\nformat = 'raw'\n{SOON}"));
    receiver.has(400).await;
    let offsets: std::collections::BTreeSet<_> = receiver.places().into_iter().collect();
    assert!((8..20).contains(&offsets.len()), "{offsets:?}");
    bridge.crash().await;
}
