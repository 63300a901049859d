//! The filter on APISIX: one callout at a time, a body on request, no tick.

use kafka_upstream_emulator::{Does, Ending, Guest, Host, Profile, Reply, Request, Scene, Seen};
use serde_json::json;

fn acked() -> Scene {
    let mut scene = Scene::acked(Profile::Apisix, json!({ "delivery_timeout": 5000 }));
    assert_eq!(scene.post("warm").status(), 200);
    scene
}

/// Requests of every kind go on to the body phase, and are one record each.
#[test]
fn requests_of_every_kind_are_one_record() {
    let fields = json!({ "message_format": "body", "max_body_bytes": 5_000_000 });
    let mut scene = Scene::acked(Profile::Apisix, fields);
    for (request, bytes) in [
        (Request::post("abc"), 3),
        (Request::get("/"), 0),
        (Request::new("POST", "/").chunked([b"ab".to_vec(), b"cde".to_vec()]), 5),
        (Request::new("POST", "/").chunked([]), 0),
        (Request::post(vec![b'x'; 5_000_000]).in_pieces_of(100_000), 5_000_000),
    ] {
        let seen = scene.ask(request);
        assert_eq!(scene.record(seen.answered()).value.len(), bytes);
    }
    assert_eq!(scene.bridge.ledger.len(), 5);
    scene.assert_empty();
}

fn endings() -> Vec<Ending> {
    let half = Reply::text(200, "half");
    vec![
        Ending::Refused,
        Ending::Closed,
        Ending::Reset,
        Ending::Garbage,
        Ending::Cut(half),
        Ending::no_content(),
    ]
}

/// Every failure looks the same, so the bridge is asked whether it lives before anything is sent
/// again.
#[test]
fn a_lost_reply_is_asked_for_again_after_a_probe() {
    for ending in endings() {
        for written in [true, false] {
            let mut scene = acked();
            scene.bridge.paths.clear();
            let end = ending.clone();
            scene.bridge.next(if written { Does::WorksBut(end) } else { Does::Ends(end) });
            let seen = scene.post("once");
            assert_eq!(scene.record(seen.answered()).body(), "once", "{ending:?}");
            assert_eq!(scene.bridge.paths, ["/v1/produce", "/healthz", "/v1/produce"]);
            assert_eq!(scene.bridge.times("once"), 1);
            scene.assert_empty();
        }
    }
}

/// The bridge is down: doubt for the first client, a sure 503 for the next ones, 200 for the first
/// one after it is back.
#[test]
fn a_bridge_that_is_down_is_known_after_the_first_request() {
    for ending in endings() {
        let mut scene = acked();
        scene.bridge.always(Does::Ends(ending.clone()));
        assert_eq!(scene.post("first").answered().status, 504, "{ending:?}");
        for _ in 0..2 {
            let later = scene.post("later");
            let reply = later.answered();
            assert_eq!((reply.status, reply.header("retry-after").as_str()), (503, "1"));
            assert_eq!(scene.bridge.paths.last().unwrap(), "/healthz");
        }
        scene.bridge.always(Does::Answers);
        assert_eq!(scene.post("back").status(), 200);
        assert_eq!(scene.bridge.times("later"), 0);
        scene.assert_empty();
    }
}

/// A request of HTTP/1.0 without Host would kill the worker if its headers were all read.
#[test]
fn a_request_without_host_kills_nothing() {
    for (all_headers, status) in [(false, 200), (true, 400)] {
        let mut scene = Scene::acked(Profile::Apisix, json!({ "forward_headers": all_headers }));
        let request = Request::post("abc").http_1_0();
        assert_eq!(scene.ask(request).status(), status, "forward_headers: {all_headers}");
        assert_eq!(scene.post("after").status(), 200);
        scene.assert_empty();
    }
}

/// A configuration whose empty lists have become objects and whose keys come in any order.
#[test]
fn a_configuration_that_was_encoded_anew_is_understood() {
    for seed in 0..20 {
        let mut host = Host::new(Profile::Apisix, &Guest::filter());
        host.seed(seed);
        let fields = json!({
            "producer_async": false,
            "allowed_topics": [],
            "topics_query_arg": "t",
            "headers": { "include_headers": [], "exclude_headers": ["a/b"] },
        });
        let mut scene = Scene::on(host, fields);
        assert_eq!(scene.post("abc").status(), 200, "{:?}", scene.host.logs());
    }
}

/// A wrong field is named in the log, and every request is refused.
#[test]
fn a_wrong_field_is_named() {
    let mut scene = Scene::acked(Profile::Apisix, json!({ "topik": "orders" }));
    for _ in 0..2 {
        assert!(matches!(scene.post("abc"), Seen::Host(reply) if reply.status == 503));
    }
    assert!(scene.host.has_logged("topik"));
}

/// Memory mode: the bridge's queue stands in for the filter's, which nothing would wake; it is full
/// by records or by bytes.
#[test]
fn memory_mode_queues_in_the_bridge() {
    for by_bytes in [false, true] {
        let mut scene = Scene::memory(Profile::Apisix, json!({ "message_format": "body" }));
        match by_bytes {
            true => scene.bridge.room_bytes = Some(14),
            false => scene.bridge.room = Some(3),
        }
        for n in 0..3 {
            assert_eq!(scene.post(&format!("r {n}")).answered().status, 200);
        }
        let full = scene.post("one too many");
        let reply = full.answered();
        assert_eq!((reply.status, reply.header("kafka-error").as_str()), (503, "queue_full"));
        assert_eq!(reply.header("retry-after"), "1");
        let written: Vec<_> = scene.bridge.ledger.iter().map(|one| one.value.clone()).collect();
        assert_eq!(written, [b"r 0", b"r 1", b"r 2"], "none dropped");
        scene.assert_empty();
    }
}
