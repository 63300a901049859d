//! Webhooks that operators pause.

use super::*;
use crate::webhooks::running::NotRedelivered;

#[tokio::test]
async fn a_paused_webhook_sends_nothing_whoever_has_it_until_it_is_resumed() {
    let kafka = Kafka::new(&[1, 2]);
    let receiver = Receiver::new(ok).await;
    let bridge = kafka.bridge(&receiver, "", "");
    kafka.write_numbers(0, 0..2).await;
    kafka.committed(0, 2).await;
    let paused = bridge.webhooks.set_paused("hook", true).await.unwrap();
    assert!(paused.len() == 2 && paused.iter().all(|it| it["recorded"] == true), "{paused:?}");
    assert_eq!(kafka.note(0)["halt"]["why"], "paused");
    assert!(bridge.webhooks.set_paused("other", true).await.is_none());
    kafka.write_numbers(0, 2..4).await;
    bridge.end().await;
    let bridge = kafka.bridge(&receiver, "", "");
    bridge.is("state", "paused").await;
    kafka.write_numbers(1, 0..1).await;
    sleep(Duration::from_millis(100)).await;
    assert_eq!(receiver.places(), [(0, 0), (0, 1)]);
    bridge.webhooks.set_paused("hook", false).await.unwrap();
    receiver.has(5).await;
    let mut places = receiver.places();
    places.sort_unstable();
    assert_eq!(places, [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)]);
    bridge.end().await;
}

#[tokio::test]
async fn a_range_is_sent_again_and_positions_stay() {
    let kafka = Kafka::new(&[1, 2]);
    let receiver = Receiver::new(ok).await;
    let bridge = kafka.bridge(&receiver, "", SOON);
    kafka.write_numbers(0, 0..6).await;
    kafka.committed(0, 6).await;
    let wish = |text: &str| serde_json::from_str(text).unwrap();
    let again = wish(r#"{"from": "orders@0#2,1#0", "to": "orders@0#4,1#0"}"#);
    let told = bridge.webhooks.redeliver("hook", again).unwrap();
    let Ok(told) = told else { panic!() };
    assert_eq!(told[0]["to"], 4);
    let received = receiver.has(8).await;
    assert_eq!(receiver.places()[6..], [(0, 2), (0, 3)]);
    assert_eq!(received[6].header("webhook-id"), received[2].header("webhook-id"));
    let started = Instant::now();
    while bridge.webhooks.json()[0]["redelivery"]["left"] != 0 {
        assert!(started.elapsed() < WITHIN, "{:?}", bridge.webhooks.json());
        sleep(Duration::from_millis(5)).await;
    }
    let again = wish(r#"{"from": "orders@0#5", "to": "orders@0#100", "new_id": true}"#);
    assert!(matches!(bridge.webhooks.redeliver("hook", again), Some(Ok(_))));
    let received = receiver.has(9).await;
    assert_ne!(received[8].header("webhook-id"), received[5].header("webhook-id"));
    while bridge.webhooks.json()[0]["redelivery"]["left"] != 0 {
        assert!(started.elapsed() < WITHIN, "{:?}", bridge.webhooks.json());
        sleep(Duration::from_millis(5)).await;
    }
    receiver.answers(|_, _| (503, None));
    let again = wish(r#"{"from": "orders@0#5", "to": "orders@0#6"}"#);
    assert!(matches!(bridge.webhooks.redeliver("hook", again), Some(Ok(_))));
    let again = wish(r#"{"from": "orders@0#0", "to": "orders@0#1"}"#);
    let busy = bridge.webhooks.redeliver("hook", again);
    assert!(matches!(busy, Some(Err(NotRedelivered::Busy))));
    for (text, wrong) in [
        (
            r#"{"from": "orders@0#5", "to": "orders@0#5"}"#,
            "there is nothing between `from` and `to`",
        ),
        (r#"{"from": "orders@0#5", "to": "orders@1#6"}"#, "to: has no offset of orders-0"),
        (r#"{"from": "dead@0#5", "to": "dead@0#6"}"#, "from: the topic `dead` is not in the feed"),
        (
            r#"{"from": "orders@0#0,1#0", "to": "orders@0#9223372036854775807,1#1"}"#,
            "there are too many offsets between `from` and `to`",
        ),
    ] {
        let Some(Err(NotRedelivered::Invalid(why))) = bridge.webhooks.redeliver("hook", wish(text))
        else {
            panic!("{text}")
        };
        assert_eq!(why, wrong);
    }
    assert!(bridge.webhooks.redeliver("other", wish(r#"{"from": ";", "to": ";"}"#)).is_none());
    bridge.end().await;
    assert_eq!(kafka.position(0), Some(6));
}

#[tokio::test]
async fn a_partition_that_does_not_exist_is_passed_over() {
    let kafka = Kafka::new(&[1]);
    let receiver = Receiver::new(ok).await;
    let bridge = kafka.bridge(&receiver, "", SOON);
    bridge.is("state", "running").await;
    let nowhere = r#"{"from": "orders@2147483647#0", "to": "orders@2147483647#1"}"#;
    let nowhere = serde_json::from_str(nowhere).unwrap();
    assert!(matches!(bridge.webhooks.redeliver("hook", nowhere), Some(Ok(_))));
    let started = Instant::now();
    while bridge.webhooks.json()[0]["redelivery"]["left"] != 0 {
        assert!(started.elapsed() < WITHIN, "{:?}", bridge.webhooks.json());
        sleep(Duration::from_millis(5)).await;
    }
    bridge.end().await;
}
