//! Memory mode: what a client was told is queued comes to Kafka, and the queue is bounded.

use std::collections::HashSet;

use kafka_upstream_emulator::{Does, Ending, Profile, Request, Scene};
use serde_json::json;

/// A configuration is taken away while its queue is full: the root drains before it is done.
#[test]
fn a_root_drains_before_it_is_done() {
    let mut scene = Scene::memory(Profile::Envoy, json!({}));
    let bodies: HashSet<_> = (0..500).map(|n| format!("r {n}")).collect();
    for body in &bodies {
        let client = scene.send(Request::post(body.clone()));
        assert_eq!(scene.host.seen(client).answered().status, 200);
    }
    scene.host.remove(scene.route);
    assert!(!scene.host.is_done(scene.route));
    scene.run_for(1000);
    assert!(scene.host.is_done(scene.route));
    let written: HashSet<_> = scene.bridge.ledger.iter().map(|one| one.body()).collect();
    assert_eq!((written == bodies, scene.bridge.ledger.len()), (true, 500));
}

/// A full queue refuses, by records and by bytes, and keeps what it has.
#[test]
fn a_full_queue_refuses_and_drops_nothing() {
    let by_records = json!({ "producer_async_buffering_limits_messages_in_memory": 10 });
    let by_bytes = json!({ "producer_async_buffering_limits_bytes_in_memory": 11_000 });
    let hosts = [Profile::Envoy, Profile::Wasmx];
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
