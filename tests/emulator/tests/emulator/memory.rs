//! Memory mode: a record with a 200 reaches Kafka, and the queue is bounded.

use kafka_upstream_core::outcome::{Code, Outcome, Reason};
use kafka_upstream_emulator::{Does, Ending, Profile, Request, Scene};
use serde_json::json;

/// A full queue refuses, by records and by bytes, and keeps what it has.
#[test]
fn a_full_queue_refuses_and_drops_nothing() {
    let by_records = json!({ "producer_async_buffering_limits_messages_in_memory": 10 });
    let by_bytes = json!({ "producer_async_buffering_limits_bytes_in_memory": 11_000 });
    let hosts = [Profile::Envoy, Profile::EnvoyNoStop, Profile::Wasmx];
    for (profile, limits) in
        hosts.into_iter().flat_map(|host| [(host, by_records.clone()), (host, by_bytes.clone())])
    {
        let mut scene = Scene::memory(profile, limits.clone());
        scene.bridge.always(Does::Ends(Ending::Refused));
        let (mut kept, mut refused) = (Vec::new(), 0);
        for n in 0..30 {
            let body = format!("{n:01000}");
            let seen = scene.post(&body);
            let reply = seen.answered();
            match reply.status {
                200 => kept.push(body),
                503 => {
                    assert_eq!(reply.header("kafka-error"), "queue_full");
                    assert_eq!(reply.header("retry-after"), "1");
                    refused += 1;
                }
                other => panic!("{other}"),
            }
            scene.run_for(50);
        }
        assert!(kept.len() >= 5 && refused >= 15, "{profile:?} {limits}: {} kept", kept.len());
        scene.bridge.always(Does::Answers);
        scene.run_for(10_000);
        let written: Vec<_> = scene.bridge.ledger.iter().map(|one| one.body()).collect();
        assert_eq!(written, kept, "in order, none lost, none twice");
        scene.assert_empty();
    }
}

/// The oldest record waits no longer than the flush timeout.
#[test]
fn a_batch_goes_out_when_it_is_due() {
    let mut scene = Scene::memory(Profile::Envoy, json!({ "producer_async_flush_timeout": 500 }));
    scene.post("due");
    scene.run_for(400);
    assert!(scene.bridge.ledger.is_empty());
    scene.run_for(300);
    assert_eq!(scene.bridge.times("due"), 1);
    scene.assert_empty();
}

/// A topic that cannot be written to delays no other, and the log names it within a minute.
#[test]
fn a_missing_topic_stops_no_other() {
    let fields = json!({ "topics_query_arg": "t", "allowed_topics": ["missing"] });
    for profile in [Profile::Envoy, Profile::EnvoyNoStop, Profile::Wasmx] {
        let mut scene = Scene::memory(profile, fields.clone());
        scene.bridge.missing("missing");
        for n in 0..20 {
            let target = if n % 3 == 0 { "/?t=missing" } else { "/" };
            let mut request = Request::post(n.to_string());
            request.target = target.to_owned();
            assert_eq!(scene.ask(request).status(), 200);
            scene.run_for(100);
        }
        scene.run_for(2000);
        let good = (0..20).filter(|n| n % 3 != 0);
        assert!(good.into_iter().all(|n| scene.bridge.times(&n.to_string()) == 1), "{profile:?}");
        assert_eq!(scene.bridge.ledger.len(), 13);
        assert_eq!(scene.host.metric("kafka_upstream_topics_failing"), 1);
        scene.run_for(50_000);
        let waits: Vec<_> =
            scene.host.logs().into_iter().filter(|log| log.text.contains("records_wait")).collect();
        assert_eq!(waits.len(), 1, "once a minute");
        assert!(waits[0].text.contains("code=unknown_topic"), "{}", waits[0].text);
        assert!(waits[0].text.contains("topic=\"missing\""), "{}", waits[0].text);
        scene.bridge.created("missing");
        scene.run_for(2000);
        assert_eq!(scene.bridge.ledger.len(), 20);
        scene.assert_empty();
    }
}

/// What Kafka refuses for good after its client has a 200 is in the log, with topic and reason.
#[test]
fn a_dropped_record_is_logged() {
    let mut scene = Scene::memory(Profile::Envoy, json!({}));
    let reason = Reason::new(Code::Rejected, "a policy\nsays no");
    scene.post("warm");
    scene.run_for(2000);
    scene.bridge.next(Does::Gives(Outcome::NotWritten(reason)));
    for _ in 0..5 {
        scene.post("dropped");
    }
    scene.run_for(2000);
    assert_eq!(scene.host.metric("kafka_upstream_records_dropped"), 5);
    let lines = scene.host.logs();
    let lines: Vec<_> = lines.iter().filter(|log| log.text.contains("records_dropped")).collect();
    assert_eq!(lines.len(), 1);
    let expected = "event=records_dropped code=rejected records=1 topic=\"orders\" \
                    detail=\"a policy\\nsays no\"";
    assert_eq!(lines[0].text, expected);
    scene.assert_empty();
}

/// A failed delivery is sent again until the bridge takes it, once.
#[test]
fn a_failed_delivery_is_sent_again() {
    let mut scene = Scene::memory(Profile::Envoy, json!({}));
    for ending in [Ending::Refused, Ending::Closed, Ending::Stalled, Ending::Garbage] {
        scene.bridge.next(Does::Ends(ending.clone())).next(Does::WorksBut(ending));
    }
    assert_eq!(scene.post("again").answered().status, 200);
    scene.run_for(120_000);
    assert_eq!(scene.bridge.times("again"), 1);
    scene.assert_empty();
}
