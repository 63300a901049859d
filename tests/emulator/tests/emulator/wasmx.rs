//! The filter on WasmX, as in Kong and nginx: what it leans on there, and what it must not.

use kafka_upstream_emulator::{
    Bridge, Does, Ending, Guest, Host, Profile, Reply, Request, Scene, Seen, configuration,
};
use serde_json::json;

fn acked() -> Scene {
    let mut scene = Scene::acked(Profile::Wasmx, json!({ "delivery_timeout": 5000 }));
    assert_eq!(scene.post("warm").status(), 200);
    scene
}

fn is_bypassed(seen: &Seen) -> bool {
    matches!(seen, Seen::Upstream(reply) if reply.status == 504)
}

/// A body that nginx has spilled to a file cannot be read: the reply names the setting.
#[test]
fn a_spilled_body_is_refused() {
    let mut scene = acked();
    scene.host.set(|settings| settings.client_body_buffer_size = 1000);
    assert_eq!(scene.post(&"x".repeat(1000)).status(), 200);
    let seen = scene.post(&"x".repeat(1001));
    let reply = seen.answered();
    assert_eq!((reply.status, reply.header("kafka-error").as_str()), (413, "body_not_readable"));
    assert_eq!(scene.bridge.ledger.len(), 2);
    assert!(reply.body_text().contains("raise its body buffer"), "{}", reply.body_text());
    assert!(scene.host.has_logged("client_body_buffer_size"), "{:?}", scene.host.logs());
    scene.assert_empty();
}

/// A body in many buffers above the limit is not read at all: a short read of it would write past
/// the guest's memory.
#[test]
fn a_large_body_in_many_buffers_is_refused_unread() {
    let mut scene = Scene::acked(Profile::Wasmx, json!({ "max_body_bytes": 1000 }));
    let pieces = |bytes: usize| (0..bytes / 100).map(|_| vec![b'x'; 100]).collect::<Vec<_>>();
    let seen = scene.ask(Request::new("POST", "/").chunked(pieces(1100)));
    assert_eq!(seen.answered().status, 413);
    assert_eq!(scene.ask(Request::new("POST", "/").chunked(pieces(1000))).status(), 200);
    scene.assert_empty();
}

/// What slips past the filter reads as "may be written", never as a success.
#[test]
fn what_slips_past_is_never_a_success() {
    let mut scene = acked();
    assert!(is_bypassed(&scene.ask(Request::new("POST", "/").chunked([]))));
    scene.host.trap_in("proxy_on_http_call_response");
    assert!(is_bypassed(&scene.post("trapped")));
    assert_eq!(scene.post("after").status(), 200);
}

/// A bridge that is down: the first client gets 504, the next ones 503: nothing was written,
/// and all is well once it is back.
#[test]
fn a_bridge_that_is_down_is_known_after_the_first_request() {
    let mut scene = acked();
    scene.bridge.always(Does::Ends(Ending::Refused));
    let first = scene.post("first");
    let reply = first.answered();
    assert_eq!((reply.status, reply.body.len()), (504, 0));
    assert!(!reply.header("kafka-error").is_empty());
    for _ in 0..3 {
        let later = scene.post("later");
        let reply = later.answered();
        assert_eq!((reply.status, reply.header("retry-after").as_str()), (503, "1"));
        assert!(!reply.body.is_empty());
        assert_eq!(scene.bridge.paths.last().unwrap(), "/healthz");
    }
    scene.bridge.always(Does::Answers);
    assert_eq!(scene.post("back").status(), 200);
    assert_eq!((scene.bridge.times("first"), scene.bridge.times("later")), (0, 0));
    scene.assert_empty();
}

/// A reply that is lost, late, cut or empty: the bridge is asked whether it lives before the batch
/// goes out again, and its answer is the client's.
#[test]
fn a_lost_reply_is_asked_for_again_after_a_probe() {
    let half = Reply::text(200, "half");
    for ending in [
        Ending::no_content(),
        Ending::Closed,
        Ending::Reset,
        Ending::Cut(half.clone()),
        Ending::Garbage,
    ] {
        let mut scene = acked();
        scene.bridge.paths.clear();
        scene.bridge.next(Does::WorksBut(ending.clone()));
        let client = scene.send(Request::post("once"));
        scene.run_for(6000);
        let seen = scene.host.seen(client);
        let paths: Vec<_> = scene.bridge.paths.iter().map(String::as_str).collect();
        if ending == Ending::no_content() {
            // It is known only when the time is over.
            assert_eq!((seen.status(), seen.answered().body.len()), (504, 0));
        } else {
            assert_eq!(seen.status(), 200, "{ending:?}");
            assert_eq!(paths, ["/v1/produce", "/healthz", "/v1/produce"], "{ending:?}");
        }
        assert_eq!(scene.bridge.times("once"), 1);
        scene.assert_empty();
    }
    for ending in [Ending::Stalled, Ending::Late(half.clone()), Ending::StalledAfterHeaders(half)] {
        let mut scene = acked();
        scene.bridge.always(Does::Ends(ending.clone()));
        let client = scene.send(Request::post("doubtful"));
        scene.run_for(20_000);
        let seen = scene.host.seen(client);
        assert_eq!((seen.status(), seen.answered().body.len()), (504, 0), "{ending:?}");
        scene.assert_empty();
    }
}

/// The bridge does not know the profile: registered and sent again within the request.
#[test]
fn a_profile_is_registered_within_the_request() {
    let mut scene = Scene::acked(Profile::Wasmx, json!({}));
    assert_eq!(scene.post("first").status(), 200);
    assert_eq!(scene.bridge.paths.len(), 3);
    assert!(scene.bridge.paths[1].starts_with("/v1/profiles/"), "{:?}", scene.bridge.paths);
    scene.assert_empty();
}

/// Memory mode: batches go out from ticks alone, also those that are sent again.
#[test]
fn memory_mode_sends_from_ticks_alone() {
    let fields = json!({ "producer_async_flush_timeout": 200 });
    let mut scene = Scene::memory(Profile::Wasmx, fields);
    for ending in [Ending::Refused, Ending::Closed, Ending::Stalled] {
        scene.bridge.next(Does::Ends(ending));
    }
    let bodies: Vec<_> = (0..20).map(|n| format!("r {n}")).collect();
    for body in &bodies {
        let client = scene.send(Request::post(body.clone()));
        assert_eq!(scene.host.seen(client).answered().status, 200);
    }
    assert_eq!(scene.host.callouts_open(), 0);
    scene.run_for(60_000);
    let written: Vec<_> = scene.bridge.ledger.iter().map(|one| one.body()).collect();
    assert_eq!(written, bodies, "in order, none lost, none twice");
    scene.assert_empty();
}

/// Memory mode: a reload of nginx loses what is queued, no more, and the counters show it.
#[test]
fn a_reload_loses_the_queue_and_shows_it() {
    let mut scene = Scene::memory(Profile::Wasmx, json!({ "producer_async_flush_timeout": 200 }));
    scene.post("kept");
    scene.run_for(1000);
    for _ in 0..5 {
        assert_eq!(scene.post("lost").status(), 200);
    }
    scene.host.reload();
    scene.post("after");
    scene.run_for(1000);
    assert_eq!(scene.bridge.ledger.len(), 2);
    let sent = scene.host.metric("kafka_upstream_requests.outcome.sent");
    let written = scene.host.metric("kafka_upstream_records_written");
    assert_eq!((sent, written), (7, 2));
}

/// Two filter chains with bridges of their own share the worker's VM: no mix-up, also after a trap.
#[test]
fn chains_in_one_vm_keep_their_bridges() {
    let mut host = Host::new(Profile::Wasmx, &Guest::filter());
    let mut bridge = Bridge::new();
    let routes = [1, 2].map(|n| {
        let fields = json!({
            "bridge": format!("127.0.0.{n}:9280"),
            "topic": format!("t{n}"),
            "producer_async": false,
        });
        host.configure(configuration(Profile::Wasmx, fields)).unwrap()
    });
    for trap in [false, true, false] {
        if trap {
            host.trap_in("proxy_on_request_headers");
            let client = host.send(routes[0], Request::post("trapped"));
            assert_eq!(host.seen(client).status(), 500);
        }
        for n in [1, 2, 1] {
            let client = host.send(routes[n - 1], Request::post("a"));
            while let Some(callout) = host.callouts().pop() {
                assert_eq!(callout.target, format!("127.0.0.{n}:9280"));
                let (ms, ending) = bridge.answer(&callout);
                host.end_after(callout.id, ms, ending);
            }
            assert_eq!(host.seen(client).answered().header("kafka-topic"), format!("t{n}"));
        }
    }
    assert!(host.violations().is_empty());
}

/// A client that leaves while its callout is under way: its record is written, nothing is left.
#[test]
fn a_client_that_leaves_leaves_nothing() {
    let mut scene = acked();
    let client = scene.send(Request::post("gone"));
    scene.host.hang_up(client);
    scene.host.serve(&mut scene.bridge);
    assert_eq!((scene.bridge.times("gone"), scene.host.seen(client)), (1, Seen::Closed));
    scene.assert_empty();
}

/// A request whose records do not fit into one batch: after a callout that got no body back the
/// bridge is asked before the next one goes out, which would never end otherwise.
#[test]
fn the_next_batch_of_a_request_waits_for_an_answer_without_a_body() {
    let fields = json!({
        "topics_query_arg": "t",
        "allowed_topics": ["a", "b"],
        "producer_request_limits_messages_per_request": 1,
    });
    for registered in [true, false] {
        let mut scene = Scene::acked(Profile::Wasmx, fields.clone());
        if registered {
            assert_eq!(scene.post("warm").status(), 200);
            scene.bridge.next(Does::Ends(Ending::Unresolvable));
        } else {
            scene.bridge.next(Does::Answers).next(Does::Ends(Ending::Closed));
        }
        let seen = scene.ask(Request::new("POST", "/?t=a,b").body("two"));
        let topics: Vec<_> = scene.bridge.ledger.iter().map(|one| one.topic.as_str()).collect();
        assert_eq!(topics.last(), Some(&"b"), "{:?}", scene.bridge.paths);
        // One is written, the other is not, so that neither 200 nor a plain 503 would be true.
        assert_eq!(seen.answered().status, 504);
        scene.assert_empty();
    }
}

/// After a trap the new instance ticks: what it promises is written.
#[test]
fn memory_mode_goes_on_after_a_trap() {
    let mut scene = Scene::memory(Profile::Wasmx, json!({ "producer_async_flush_timeout": 200 }));
    assert_eq!(scene.post("before").status(), 200);
    scene.run_for(1000);
    scene.host.trap_in("proxy_on_request_headers");
    assert_eq!(scene.post("trapped").status(), 500);
    for n in 0..10 {
        assert_eq!(scene.post(&format!("after {n}")).status(), 200);
    }
    scene.run_for(1000);
    assert_eq!((scene.bridge.ledger.len(), scene.host.traps()), (11, 1));
    scene.assert_empty();
}

/// A tick sends all that has queued since the last one, in order.
#[test]
fn a_tick_sends_all_that_has_queued() {
    let mut scene = Scene::memory(Profile::Wasmx, json!({ "producer_async_flush_timeout": 200 }));
    let bodies: Vec<_> = (0..5000).map(|n| format!("r {n}")).collect();
    for body in &bodies {
        assert_eq!(scene.post(body).status(), 200);
    }
    scene.run_for(500);
    let written: Vec<_> = scene.bridge.ledger.iter().map(|one| one.body()).collect();
    assert_eq!(written, bodies);
    scene.assert_empty();
}

/// A configuration that is refused stops neither nginx nor what else it serves.
#[test]
fn a_bad_configuration_is_500_where_it_stands() {
    let bad = json!({ "bridge": "127.0.0.1:9280", "topik": "orders" });
    let worse = json!("no object");
    for (config, name) in [(bad, "topik"), (worse, "kafka-upstream configuration")] {
        let mut scene = Scene::acked(Profile::Wasmx, json!({}));
        let route = scene.host.configure(config).unwrap();
        for request in [Request::get("/"), Request::post("a")] {
            let client = scene.host.send(route, request);
            let seen = scene.host.seen(client);
            let reply = seen.answered();
            assert_eq!(
                (reply.status, reply.header("kafka-error").as_str()),
                (500, "not_configured")
            );
            assert_eq!(reply.header("retry-after"), "");
        }
        assert!(scene.host.has_logged(name));
        assert_eq!(scene.post("elsewhere").status(), 200);
    }
}

/// HTTP/2: any method may have a body that no header announces.
#[test]
fn a_body_that_nothing_announces_is_captured() {
    for method in ["DELETE", "OPTIONS", "PATCH", "POST"] {
        let mut scene = Scene::acked(Profile::Wasmx, json!({}));
        let mut request = Request::new(method, "/").header("content-type", "text/plain").http_2();
        request.body = vec![b"the body".to_vec()];
        assert_eq!(scene.ask(request).status(), 200);
        assert_eq!(scene.bridge.times("the body"), 1, "{method}");
        scene.assert_empty();
    }
}

/// With so many headers the host would write past the end of their map.
#[test]
fn a_hundred_headers_are_read_by_name_or_refused() {
    let request =
        (0..100).fold(Request::post("a"), |request, n| request.header(format!("x-{n}"), "1"));
    let chosen = json!({ "headers": { "include_headers": ["x-7"] } });
    let mut scene = Scene::acked(Profile::Wasmx, chosen);
    let seen = scene.ask(request.clone());
    let record = scene.record(seen.answered());
    assert_eq!(record.headers, [(b"x-7".to_vec(), Some(b"1".to_vec()))]);
    scene.assert_empty();
    let mut scene = Scene::acked(Profile::Wasmx, json!({ "forward_headers": true }));
    let seen = scene.ask(request);
    let reply = seen.answered();
    assert_eq!((reply.status, reply.header("kafka-error").as_str()), (431, "too_many_headers"));
    scene.assert_empty();
}
