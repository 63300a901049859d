//! Stories about records on their way into a scripted cluster.

mod broker;
mod changes;
mod idempotence;
mod model;
mod paused;
mod rules;

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::*;
use crate::{Client, Config, NotReady};
use broker::{Act, Scripted};

fn client_with(scripted: &Scripted, properties: &[(&str, &str)]) -> Client {
    let bootstrap = scripted.bootstrap();
    let fast = [("bootstrap.servers", bootstrap.as_str()), ("retry.backoff.ms", "1")];
    let all = fast.into_iter().chain(properties.iter().copied());
    Client::new(Config::from_properties(all).unwrap())
}

fn client(scripted: &Scripted) -> Client {
    client_with(scripted, &[])
}

fn record(value: &str) -> Record<'_> {
    let value = Some(value.as_bytes());
    Record { partition: Some(0), key: None, value, headers: &[], timestamp_ms: 5 }
}

fn within(ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(ms)
}

/// Long enough for any of these tests on a busy machine.
fn patiently() -> Instant {
    within(30_000)
}

fn written(offset: Option<i64>) -> Outcome {
    Outcome::Written { partition: 0, offset, timestamp_ms: 5 }
}

async fn send(client: &Client, value: &str) -> Outcome {
    client.producer().send("orders", record(value), patiently()).await
}

#[tokio::test]
async fn a_record_is_written_at_its_offset() {
    let scripted = Scripted::start().await;
    let client = client(&scripted);
    assert_eq!(client.ready(Duration::from_secs(30)).await, Ok(()));
    assert_eq!(send(&client, "a").await, written(Some(0)));
    assert_eq!(send(&client, "b").await, written(Some(1)));
    assert_eq!(scripted.log("orders", 0), ["a", "b"]);
    assert_eq!(client.stats().buffered_bytes, 0);
}

#[tokio::test]
async fn two_hundred_sends_make_three_requests() {
    let scripted = Scripted::start().await;
    let client = client(&scripted);
    assert_eq!(send(&client, "first").await, written(Some(0)));
    let answer = Arc::new(Notify::new());
    scripted.script([Act::Hold(answer.clone())]);
    let mut sends = JoinSet::new();
    for number in 0..200 {
        let client = client.clone();
        sends.spawn(async move { send(&client, &number.to_string()).await });
        // The sender has its turn after each record.
        tokio::task::yield_now().await;
        while scripted.produced_at().len() < 2 {
            tokio::task::yield_now().await;
        }
    }
    let all = 200 * record_size(&record("0")) as u64;
    while client.stats().buffered_bytes < all {
        tokio::task::yield_now().await;
    }
    answer.notify_one();
    let outcomes = sends.join_all().await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Written { .. })));
    assert!(scripted.produced_at().len() <= 1 + 3, "{:?}", scripted.produced_at());
    assert_eq!(scripted.log("orders", 0).len(), 1 + 200);
}

#[tokio::test]
async fn acks_0_is_written_when_the_socket_took_it() {
    let scripted = Scripted::start().await;
    let client = client_with(&scripted, &[("acks", "0")]);
    assert_eq!(send(&client, "a").await, written(None));
}

#[tokio::test]
async fn without_idempotence_a_lost_answer_duplicates_in_order() {
    let scripted = Scripted::start().await;
    let client = client_with(&scripted, &[("enable.idempotence", "false")]);
    scripted.script([Act::CloseBefore, Act::Refuse(19), Act::CloseAfter, Act::Forget]);
    let (producer, deadline) = (client.producer(), patiently());
    let topic = producer.topic("orders", deadline).await.unwrap();
    let mut permit = producer.try_reserve(10_000).unwrap();
    let mut tickets = Vec::new();
    for value in ["a", "b", "c"] {
        tickets.push(producer.enqueue(&mut permit, &topic, record(value), deadline).unwrap());
    }
    for ticket in tickets {
        assert!(matches!(ticket.outcome().await, Outcome::Written { .. }));
    }
    let copies = scripted.log("orders", 0);
    assert_eq!(copies.chunks(3).collect::<Vec<_>>(), [["a", "b", "c"]; 3]);
}

#[tokio::test]
async fn a_refusal_after_a_lost_answer_is_unknown() {
    let scripted = Scripted::start().await;
    let client = client(&scripted);
    scripted.script([Act::CloseAfter, Act::Refuse(29), Act::Refuse(29)]);
    let unauthorized = Reason::of_code(29);
    assert_eq!(send(&client, "a").await, Outcome::Unknown(unauthorized.clone()));
    assert_eq!(scripted.log("orders", 0), ["a"]);
    assert_eq!(send(&client, "b").await, Outcome::NotWritten(unauthorized));
    assert_eq!(scripted.produced_at().len(), 3, "the broker is asked each time");
    assert!(matches!(send(&client, "c").await, Outcome::Written { .. }), "the permission is back");
}

#[tokio::test]
async fn a_silent_broker_makes_unknown_at_the_deadline() {
    let scripted = Scripted::start().await;
    let client = client(&scripted);
    scripted.script([Act::Silence]);
    let producer = client.producer();
    producer.topic("orders", patiently()).await.unwrap();
    let outcome = producer.send("orders", record("a"), within(100)).await;
    let still = Reason::NoAnswer("the request is still under way".into()).into();
    assert_eq!(outcome, Outcome::Unknown(Reason::DeadlineExceeded { last: Some(still) }));
    assert_eq!(client.stats().buffered_bytes, 0);
}

#[tokio::test]
async fn retries_are_as_many_as_configured() {
    let scripted = Scripted::start().await;
    let client = client_with(&scripted, &[("retries", "1")]);
    scripted.script([Act::Refuse(19), Act::Refuse(19)]);
    assert_eq!(send(&client, "a").await, Outcome::NotWritten(Reason::of_code(19)));
    assert_eq!(scripted.produced_at().len(), 2);
}

#[tokio::test]
async fn a_moved_leader_is_found_through_the_metadata() {
    let scripted = Scripted::start().await;
    scripted.add_broker(2).await;
    let client = client(&scripted);
    client.producer().topic("orders", patiently()).await.unwrap();
    scripted.script([Act::Refuse(6)]);
    scripted.lead("orders", &[2]);
    assert_eq!(send(&client, "a").await, written(Some(0)));
    assert_eq!(scripted.produced_at().last(), Some(&2));
}

#[tokio::test]
async fn a_moved_leader_is_found_through_the_hint() {
    let scripted = Scripted::start().await;
    scripted.add_broker(2).await;
    let client = client_with(&scripted, &[("retry.backoff.ms", "100")]);
    scripted.script([Act::Hint(2)]);
    assert_eq!(send(&client, "a").await, written(Some(0)));
    assert_eq!(scripted.produced_at(), [1, 2]);
}

#[tokio::test]
async fn a_partition_without_a_leader_waits_for_one() {
    let scripted = Scripted::start().await;
    scripted.lead("orders", &[-1]);
    let client = client(&scripted);
    let sending = tokio::spawn({
        let client = client.clone();
        async move { send(&client, "a").await }
    });
    while client.stats().metadata_refreshes < 3 {
        tokio::task::yield_now().await;
    }
    scripted.lead("orders", &[1]);
    assert_eq!(sending.await.unwrap(), written(Some(0)));
}

#[tokio::test]
async fn one_leader_down_does_not_hold_up_others() {
    let scripted = Scripted::start().await;
    scripted.add_dead_broker(2).await;
    scripted.lead("orders", &[1, 2]);
    let client = client(&scripted);
    let producer = client.producer();
    producer.topic("orders", patiently()).await.unwrap();
    let dead = Record { partition: Some(1), ..record("dead") };
    let (dead, alive) =
        tokio::join!(producer.send("orders", dead, within(300)), send(&client, "alive"));
    assert_eq!(alive, written(Some(0)));
    match dead {
        Outcome::NotWritten(Reason::DeadlineExceeded { last: Some(cause) }) => {
            let Reason::Unreachable(cause) = &*cause else { panic!("{cause}") };
            assert!(cause.contains("the advertised address of broker 2"), "{cause}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_fault_of_one_topic_stays_with_it() {
    let scripted = Scripted::start().await;
    scripted.lead("secret", &[1]);
    let client = client(&scripted);
    let (producer, deadline) = (client.producer(), patiently());
    let open = producer.topic("orders", deadline).await.unwrap();
    let closed = producer.topic("secret", deadline).await.unwrap();
    scripted.script([Act::RefuseTopic("secret", 29), Act::RefuseTopic("secret", 29)]);
    let mut permit = producer.try_reserve(10_000).unwrap();
    let fine = producer.enqueue(&mut permit, &open, record("a"), deadline).unwrap();
    let refused = producer.enqueue(&mut permit, &closed, record("b"), deadline).unwrap();
    assert_eq!(fine.outcome().await, written(Some(0)));
    assert_eq!(refused.outcome().await, Outcome::NotWritten(Reason::of_code(29)));
}

#[tokio::test]
async fn a_batch_too_large_is_sent_in_halves_which_are_compressed_again() {
    for (codec, bits) in [("none", 0), ("gzip", 1), ("snappy", 2), ("lz4", 3), ("zstd", 4)] {
        let scripted = Scripted::start().await;
        let client = client_with(&scripted, &[("compression.type", codec)]);
        let (producer, deadline) = (client.producer(), patiently());
        let topic = producer.topic("orders", deadline).await.unwrap();
        scripted.script(vec![Act::RefuseOver(2); 10]);
        let mut permit = producer.try_reserve(100_000).unwrap();
        let values = ["a", "b", "c", "d", "e"].map(|value| value.repeat(2000));
        let mut tickets = Vec::new();
        for value in &values {
            tickets.push(producer.enqueue(&mut permit, &topic, record(value), deadline).unwrap());
        }
        drop(permit);
        for (offset, ticket) in (0..).zip(tickets) {
            assert_eq!(ticket.outcome().await, written(Some(offset)), "{codec}");
        }
        assert_eq!(scripted.log("orders", 0), values, "{codec}");
        let codecs = scripted.codecs();
        assert!(codecs.len() > 2 && codecs.iter().all(|found| *found == bits), "{codecs:?}");
        assert_eq!(client.stats().buffered_bytes, 0);
    }
}

#[tokio::test]
async fn large_batches_of_slow_codecs_arrive_in_order() {
    for (codec, level) in
        [("gzip", ("compression.gzip.level", "9")), ("zstd", ("compression.zstd.level", "12"))]
    {
        let scripted = Scripted::start().await;
        let client = client_with(&scripted, &[("compression.type", codec), level]);
        let values: Vec<_> = (0..20).map(|n| format!("{n} ").repeat(40_000)).collect();
        for value in &values {
            assert!(matches!(send(&client, value).await, Outcome::Written { .. }));
        }
        assert_eq!(scripted.log("orders", 0), values);
        assert!(client.stats().produce_bytes < 100_000, "{}", client.stats().produce_bytes);
    }
}

#[tokio::test]
async fn a_broker_that_does_not_read_zstd_gets_no_other_codec() {
    let scripted = Scripted::start().await;
    scripted.speak_produce_up_to(6);
    let client = client_with(&scripted, &[("compression.type", "zstd")]);
    match send(&client, &"a".repeat(1000)).await {
        Outcome::NotWritten(reason @ Reason::Unsupported(_)) => {
            let told = reason.to_string();
            assert!(told.contains("zstd needs Produce 7, broker 1 has 6"), "{told}");
            assert!(!reason.is_permanent(), "a newer broker takes it");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!((scripted.produced_at(), client.stats().buffered_bytes), (vec![], 0));
    let lz4 = client_with(&scripted, &[("compression.type", "lz4")]);
    assert_eq!(send(&lz4, &"a".repeat(1000)).await, written(Some(0)));
    scripted.speak_produce_up_to(7);
    let newer = client_with(&scripted, &[("compression.type", "zstd")]);
    assert_eq!(send(&newer, &"a".repeat(1000)).await, written(Some(1)));
    assert_eq!(scripted.codecs(), [3, 4]);
}

#[tokio::test]
async fn a_dropped_ticket_changes_nothing() {
    let scripted = Scripted::start().await;
    let client = client(&scripted);
    let (producer, deadline) = (client.producer(), patiently());
    let topic = producer.topic("orders", deadline).await.unwrap();
    let mut permit = producer.try_reserve(10_000).unwrap();
    drop(producer.enqueue(&mut permit, &topic, record("a"), deadline).unwrap());
    drop(permit);
    assert_eq!(client.stats().buffered_bytes, record_size(&record("a")) as u64);
    client.close(deadline).await;
    assert_eq!(scripted.log("orders", 0), ["a"]);
    assert_eq!((client.stats().buffered_bytes, client.stats().connections_open), (0, 0));
}

#[tokio::test]
async fn putting_waits_for_room_and_keeps_the_order() {
    let scripted = Scripted::start().await;
    let small = [("buffer.memory", "65536"), ("max.request.size", "16384"), ("batch.size", "8192")];
    let client = client_with(&scripted, &small);
    let (producer, deadline) = (client.producer(), patiently());
    let topic = producer.topic("orders", deadline).await.unwrap();
    let values: Vec<String> = (0..200).map(|number| format!("{number:01000}")).collect();
    let mut tickets = Vec::new();
    for value in &values {
        tickets.push(producer.put(&topic, record(value), deadline).await.unwrap());
        assert!(client.stats().buffered_bytes <= 16_384, "a quarter of buffer.memory");
    }
    for (offset, ticket) in (0..).zip(tickets) {
        assert_eq!(ticket.outcome().await, written(Some(offset)));
    }
    assert_eq!(scripted.log("orders", 0), values);
}

#[tokio::test]
async fn closing_drains_and_then_refuses() {
    let scripted = Scripted::start().await;
    let client = client_with(&scripted, &[("linger.ms", "60000")]);
    let (producer, deadline) = (client.producer(), patiently());
    let topic = producer.topic("orders", deadline).await.unwrap();
    let mut permit = producer.try_reserve(10_000).unwrap();
    let ticket = producer.enqueue(&mut permit, &topic, record("a"), deadline).unwrap();
    client.close(deadline).await;
    assert_eq!(ticket.outcome().await, written(Some(0)));
    let late = producer.enqueue(&mut permit, &topic, record("b"), deadline);
    assert_eq!(late.unwrap_err(), Reason::Closed);
    assert_eq!(send(&client, "c").await, Outcome::NotWritten(Reason::Closed));
    assert_eq!(client.ready(Duration::from_secs(1)).await, Err(NotReady::Closed));
}

#[tokio::test]
async fn dropping_the_last_handle_settles_what_is_left() {
    let scripted = Scripted::start().await;
    let client = client_with(&scripted, &[("linger.ms", "60000")]);
    let (producer, deadline) = (client.producer(), patiently());
    let topic = producer.topic("orders", deadline).await.unwrap();
    let mut permit = producer.try_reserve(10_000).unwrap();
    let ticket = producer.enqueue(&mut permit, &topic, record("a"), deadline).unwrap();
    drop((client, producer));
    assert_eq!(ticket.outcome().await, Outcome::NotWritten(Reason::Closed));
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_before_it_is_queued() {
    let scripted = Scripted::start().await;
    let client = client(&scripted);
    let (producer, deadline) = (client.producer(), patiently());
    let topic = producer.topic("orders", deadline).await.unwrap();
    let mut permit = producer.try_reserve(10_000_000).unwrap();
    let mut refused = |record| producer.enqueue(&mut permit, &topic, record, deadline).unwrap_err();
    let large = "x".repeat(5_000_000);
    assert_eq!(refused(record(&large)), Reason::TooLarge);
    let elsewhere = Record { partition: Some(1), ..record("a") };
    assert_eq!(refused(elsewhere), Reason::NoSuchPartition { partition: 1, count: 1 });
    let timeless = Record { timestamp_ms: -1, ..record("a") };
    assert!(matches!(refused(timeless), Reason::InvalidRecord(_)));
    assert_eq!(producer.topic("a b", deadline).await.unwrap_err(), Reason::InvalidTopic);
}

#[tokio::test]
async fn nobody_there_is_not_ready_and_says_why() {
    let scripted = Scripted::default();
    scripted.add_dead_broker(1).await;
    let client = client(&scripted);
    match client.ready(Duration::from_millis(300)).await {
        Err(NotReady::Unreachable(cause)) => assert!(cause.contains("refused"), "{cause}"),
        other => panic!("{other:?}"),
    }
    let outcome = client.producer().send("orders", record("a"), within(100)).await;
    match outcome {
        Outcome::NotWritten(Reason::DeadlineExceeded { last: Some(last) }) => {
            assert!(matches!(&*last, Reason::Unreachable(cause) if cause.contains("refused")));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn another_protocol_on_the_port_is_named() {
    for (greeting, hint) in
        [(&b"HTTP/1.1 400 Bad Request\r\n"[..], "HTTP"), (&[0x15, 3, 3, 0, 2, 2, 80], "TLS")]
    {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.write_all(greeting).await;
                std::mem::forget(stream);
            }
        });
        let properties = [("bootstrap.servers", address.as_str())];
        let client = Client::new(Config::from_properties(properties).unwrap());
        match client.ready(Duration::from_secs(1)).await {
            Err(NotReady::Unreachable(cause)) => assert!(cause.contains(hint), "{cause}"),
            other => panic!("{other:?}"),
        }
    }
}
