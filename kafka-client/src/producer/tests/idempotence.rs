//! Stories about records that are in the log once, whatever happens on the way.

use super::*;
use crate::record_batch::Stamp;

/// Each record is a batch.
const ONE_BY_ONE: (&str, &str) = ("batch.records", "1");

fn stamp(producer_id: i64, producer_epoch: i16, base_sequence: i32) -> Stamp {
    Stamp { producer_id, producer_epoch, base_sequence }
}

async fn enqueue(client: &Client, values: &[&str]) -> Vec<Ticket> {
    let (producer, deadline) = (client.producer(), patiently());
    let topic = producer.topic("orders", deadline).await.unwrap();
    let mut permit = producer.try_reserve(100_000).unwrap();
    let mut put = |value| producer.enqueue(&mut permit, &topic, record(value), deadline).unwrap();
    values.iter().map(|value| put(value)).collect()
}

async fn all_written(tickets: Vec<Ticket>, first: i64) {
    for (offset, ticket) in (first..).zip(tickets) {
        assert_eq!(ticket.outcome().await, written(Some(offset)));
    }
}

#[tokio::test]
async fn a_lost_answer_is_written_once() {
    let scripted = Scripted::start().await;
    let client = client(&scripted);
    scripted.script([Act::CloseBefore, Act::Refuse(19), Act::CloseAfter, Act::Forget]);
    all_written(enqueue(&client, &["a", "b", "c"]).await, 0).await;
    assert_eq!(scripted.log("orders", 0), ["a", "b", "c"]);
    assert!(scripted.stamps(0).iter().all(|came| *came == stamp(1, 0, 0)));
}

#[tokio::test]
async fn one_producer_id_serves_all_partitions() {
    let scripted = Scripted::start().await;
    scripted.lead("orders", &[1, 1, 1]);
    let client = client(&scripted);
    for partition in [0, 1, 2, 0] {
        let record = Record { partition: Some(partition), ..record("a") };
        let outcome = client.producer().send("orders", record, patiently()).await;
        assert!(matches!(outcome, Outcome::Written { .. }), "{outcome:?}");
    }
    assert_eq!(scripted.producer_ids(), 1);
    assert_eq!(scripted.stamps(0), [stamp(1, 0, 0), stamp(1, 0, 1)]);
    assert_eq!(scripted.stamps(2), [stamp(1, 0, 0)]);
}

#[tokio::test]
async fn without_all_acks_there_is_no_identity() {
    let scripted = Scripted::start().await;
    for properties in [("acks", "1"), ("enable.idempotence", "false")] {
        let client = client_with(&scripted, &[properties]);
        assert!(matches!(send(&client, "a").await, Outcome::Written { .. }));
    }
    assert_eq!(scripted.stamps(0), [Stamp::NONE; 2]);
    assert_eq!(scripted.producer_ids(), 0);
}

#[tokio::test]
async fn an_expired_batch_spends_its_sequences() {
    let scripted = Scripted::start().await;
    let pause = [("retry.backoff.ms", "1000"), ("retry.backoff.max.ms", "1000")];
    let client = client_with(&scripted, &pause);
    let producer = client.producer();
    producer.topic("orders", patiently()).await.unwrap();
    scripted.script([Act::CloseAfter]);
    let lost = producer.send("orders", record("a"), within(300)).await;
    assert!(matches!(lost, Outcome::Unknown(_)), "{lost:?}");
    let next = producer.send("orders", record("b"), within(10_000)).await;
    assert_eq!(next, written(Some(1)));
    assert_eq!(scripted.log("orders", 0), ["a", "b"]);
    assert_eq!(scripted.stamps(0), [stamp(1, 0, 0), stamp(1, 1, 0)]);
    assert_eq!(client.stats().producer_resets, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wire_order_is_sequence_order() {
    let scripted = Scripted::start().await;
    let client = client_with(&scripted, &[ONE_BY_ONE]);
    let mut sends = JoinSet::new();
    for number in 0..300 {
        let client = client.clone();
        sends.spawn(async move { send(&client, &number.to_string()).await });
    }
    let outcomes = sends.join_all().await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Written { .. })));
    let sequences: Vec<_> = scripted.stamps(0).iter().map(|came| came.base_sequence).collect();
    assert_eq!(sequences, (0..300).collect::<Vec<_>>());
}

#[tokio::test]
async fn acknowledged_records_are_in_order_with_five_in_flight() {
    let scripted = Scripted::start().await;
    let client = client_with(&scripted, &[ONE_BY_ONE]);
    let refusals = [Act::Append, Act::Refuse(19), Act::Append, Act::CloseAfter, Act::Refuse(6)];
    scripted.script(refusals);
    let values: Vec<_> = (0..40).map(|number| number.to_string()).collect();
    let values: Vec<_> = values.iter().map(String::as_str).collect();
    all_written(enqueue(&client, &values).await, 0).await;
    assert_eq!(scripted.log("orders", 0), values);
}

#[tokio::test]
async fn an_undecodable_answer_never_splits() {
    let scripted = Scripted::start().await;
    let client = client(&scripted);
    scripted.script([Act::Garble, Act::Garble]);
    all_written(enqueue(&client, &["a", "b", "c"]).await, 0).await;
    assert_eq!(scripted.log("orders", 0), ["a", "b", "c"]);
    assert_eq!(scripted.stamps(0), [stamp(1, 0, 0); 3]);
    assert_eq!(client.stats().batches_split, 0);
}

#[tokio::test]
async fn no_batch_leaves_without_the_identity_it_was_given() {
    let scripted = Scripted::start().await;
    let client = client_with(&scripted, &[ONE_BY_ONE]);
    assert_eq!(send(&client, "a").await, written(Some(0)));
    // The id is refused while five batches are in flight, and a new one is slow to come.
    scripted.refuse_ids([14, 14]);
    scripted.script(vec![Act::Refuse(47); 5]);
    all_written(enqueue(&client, &["b", "c", "d", "e", "f", "g"]).await, 1).await;
    let stamps = scripted.stamps(0);
    let (old, new): (Vec<_>, Vec<_>) = stamps.into_iter().partition(|s| s.producer_id == 1);
    assert_eq!(old, (0..6).map(|sequence| stamp(1, 0, sequence)).collect::<Vec<_>>());
    assert_eq!(new, (0..6).map(|sequence| stamp(2, 0, sequence)).collect::<Vec<_>>());
    assert_eq!(scripted.log("orders", 0), ["a", "b", "c", "d", "e", "f", "g"]);
}

#[tokio::test]
async fn a_new_leader_gets_one_batch_first() {
    let scripted = Scripted::start().await;
    scripted.add_broker(2).await;
    let client = client_with(&scripted, &[ONE_BY_ONE]);
    assert_eq!(send(&client, "a").await, written(Some(0)));
    let answer = Arc::new(Notify::new());
    scripted.script([Act::Hint(2), Act::Refuse(6), Act::Refuse(6), Act::Refuse(6), Act::Refuse(6)]);
    scripted.script([Act::Hold(answer.clone())]);
    let tickets = enqueue(&client, &["b", "c", "d", "e", "f"]).await;
    while scripted.produced_at().len() < 7 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(scripted.produced_at(), [1, 1, 1, 1, 1, 1, 2]);
    assert_eq!(client.stats().produce_requests, 7, "nor is another on its way");
    answer.notify_one();
    all_written(tickets, 1).await;
    assert_eq!(scripted.log("orders", 0), ["a", "b", "c", "d", "e", "f"]);
}

#[tokio::test]
async fn halves_go_under_a_new_epoch() {
    let scripted = Scripted::start().await;
    let client = client(&scripted);
    scripted.script([Act::RefuseOver(2)]);
    all_written(enqueue(&client, &["a", "b", "c", "d"]).await, 0).await;
    assert_eq!(scripted.stamps(0), [stamp(1, 0, 0), stamp(1, 1, 0), stamp(1, 1, 2)]);
}

#[tokio::test]
async fn a_refused_producer_id_is_not_ready_and_says_why() {
    let scripted = Scripted::start().await;
    scripted.refuse_ids(vec![31; 100]);
    let client = client(&scripted);
    let _in_use = client.producer();
    match client.ready(Duration::from_millis(200)).await {
        Err(NotReady::NoProducerId(cause)) => {
            assert!(cause.contains("CLUSTER_AUTHORIZATION_FAILED (31)"), "{cause}");
        }
        other => panic!("{other:?}"),
    }
    match client.producer().send("orders", record("a"), within(200)).await {
        Outcome::NotWritten(Reason::DeadlineExceeded { last: Some(cause) }) => {
            assert_eq!(*cause, Reason::NoProducerId(Reason::of_code(31).into()));
        }
        other => panic!("{other:?}"),
    }
    assert!(scripted.produced_at().is_empty(), "nothing is sent without an identity");
}

#[tokio::test]
async fn a_busy_coordinator_is_asked_again() {
    let scripted = Scripted::start().await;
    scripted.refuse_ids([14, 15, 16, 51]);
    let client = client(&scripted);
    assert_eq!(client.ready(Duration::from_secs(30)).await, Ok(()));
    assert_eq!(send(&client, "a").await, written(Some(0)));
    assert_eq!(scripted.producer_ids(), 1);
}
