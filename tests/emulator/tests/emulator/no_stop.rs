//! Envoy without `allow_on_headers_stop_iteration`: the headers of a request with a body go on before
//! the body, and no client gets what stands behind the filter instead of the filter's answer.

use kafka_upstream_emulator::{
    Bridge, Client, Ending, FailurePolicy, Guest, Host, Profile, Reply, Request, Scene, Seen,
    configuration,
};
use serde_json::{Value, json};

const NO_STOP: Profile = Profile::EnvoyNoStop;

fn scene(fields: Value) -> Scene {
    Scene::acked(NO_STOP, fields)
}

/// A request whose headers have gone on, and of whose body a part has come.
fn begun() -> Request {
    Request::new("POST", "/").header("content-length", "6").chunked([b"abc".to_vec()]).unfinished()
}

/// A request that is whole, and whose batch is in flight.
fn handed_over(scene: &mut Scene, body: &str) -> Client {
    let client = scene.send(Request::post(body));
    scene.host.turn();
    assert_eq!((scene.host.seen(client), scene.host.callouts().len()), (Seen::Pending, 1));
    client
}

#[test]
fn what_answers_before_the_body_is_there_is_replaced_and_nothing_is_written() {
    for (status, expected, code) in [
        (200, 500, "host_mismatch"),
        (302, 500, "host_mismatch"),
        (504, 500, "host_mismatch"),
        (503, 503, "bridge_unreachable"),
    ] {
        for without_body in [true, false] {
            let mut scene = scene(json!({}));
            let headers = Request::new("POST", "/").header("content-length", "6").unfinished();
            let client = scene.send(if without_body { headers } else { begun() });
            scene.host.answer_behind(client, Reply::text(status, "behind"));
            let seen = scene.host.seen(client);
            let reply = seen.answered();
            assert_eq!((reply.status, reply.header("kafka-error").as_str()), (expected, code));
            let told = scene.host.has_logged("event=answered_behind");
            assert_eq!(told, expected == 500, "{status}");
            scene.run_for(11_000);
            assert!(scene.bridge.ledger.is_empty());
            assert_eq!(scene.post("next").status(), 200);
            scene.assert_empty();
        }
    }
}

/// A bridge that holds as many requests as it may, or is about to end.
#[test]
fn a_bridge_that_holds_no_more_is_a_503() {
    let mut scene = scene(json!({}));
    let client = scene.send(begun());
    let mut reply = Reply::text(504, "bypassed");
    reply.headers.push((b"kafka-upstream-bridge".to_vec(), b"1".to_vec()));
    scene.host.answer_behind(client, reply);
    let seen = scene.host.seen(client);
    assert_eq!(seen.answered().header("kafka-error"), "bridge_unreachable");
    scene.assert_empty();
}

/// What Envoy refuses of a request is the client's to know.
#[test]
fn envoys_own_refusal_of_a_request_passes() {
    let mut scene = scene(json!({}));
    scene.host.set(|settings| settings.buffer_limit = 10);
    assert_eq!(scene.post("eleven bytes").status(), 413);
    scene.host.set(|settings| settings.buffer_limit = 1000);
    let client = scene.send(begun());
    scene.host.answer_behind(client, Reply::text(429, "slower"));
    assert_eq!(scene.host.seen(client), Seen::Upstream(Reply::text(429, "slower")));
    assert_eq!(scene.post("next").status(), 200);
    scene.assert_empty();
}

#[test]
fn a_response_while_the_batch_is_in_flight_waits_for_the_outcome() {
    for one_each in [false, true] {
        for status in [200, 404, 503, 504] {
            let mut scene = scene(json!({ "group_commit": !one_each }));
            assert_eq!(scene.post("warm").status(), 200);
            let client = handed_over(&mut scene, "written");
            scene.host.answer_behind(client, Reply::text(status, "behind"));
            assert_eq!(scene.host.seen(client), Seen::Pending);
            scene.host.serve(&mut scene.bridge);
            let seen = scene.host.seen(client);
            assert_eq!(seen.answered().status, 200, "{status}");
            assert_eq!(scene.bridge.times("written"), 1);
            scene.assert_empty();
        }
    }
}

#[test]
fn a_response_that_waits_ends_with_its_client_or_its_deadline() {
    let mut scene = scene(json!({ "delivery_timeout": 2000 }));
    assert_eq!(scene.post("warm").status(), 200);
    let client = handed_over(&mut scene, "gone");
    scene.host.answer_behind(client, Reply::text(503, "behind"));
    scene.host.hang_up(client);
    scene.host.serve(&mut scene.bridge);
    assert_eq!((scene.host.seen(client), scene.bridge.times("gone")), (Seen::Closed, 1));

    let client = handed_over(&mut scene, "doubtful");
    scene.host.answer_behind(client, Reply::text(200, "behind"));
    let callout = scene.host.callouts()[0].id;
    scene.host.end(callout, Ending::Stalled);
    scene.host.advance(5000);
    assert_eq!(scene.host.seen(client).answered().status, 504);
    scene.assert_empty();
}

/// A VM that ends by a fault, while a response waits or not, is never a success.
#[test]
fn a_fault_gives_no_success() {
    for policy in [FailurePolicy::Reload, FailurePolicy::Closed, FailurePolicy::Open] {
        for callback in
            ["proxy_on_request_headers", "proxy_on_request_body", "proxy_on_http_call_response"]
        {
            let mut host = Host::new(NO_STOP, &Guest::filter());
            host.set(|settings| settings.failure_policy = policy);
            let mut scene = Scene::on(host, json!({ "producer_async": false }));
            scene.host.trap_in(callback);
            let client = scene.send(Request::post("abc"));
            scene.run_for(40_000);
            let status = scene.host.seen(client).status();
            assert!([503, 504].contains(&status), "{policy:?}, {callback}: {status}");
            let later = scene.post("later").status();
            let expected = match policy {
                FailurePolicy::Reload => 200,
                FailurePolicy::Closed => 503,
                FailurePolicy::Open => 504,
            };
            assert_eq!(later, expected, "{policy:?}, {callback}");
        }
    }
}

/// A tap copies a body as it goes on: nothing of it is held back, and what is not copied goes on too.
#[test]
fn a_tap_in_memory_mode_holds_nothing_back() {
    let fields = json!({ "mode": "tap", "max_body_bytes": 10, "message_format": "body" });
    let mut scene = Scene::memory(NO_STOP, fields);
    let pieces = |count| (0..count).map(|_| b"abc".to_vec());
    for (request, copy) in [
        (Request::post("abc"), Some("abc")),
        (Request::get("/"), Some("")),
        (Request::new("POST", "/").chunked(pieces(3)), Some("abcabcabc")),
        (Request::post("ab").trailers(&[("a", "b")]), Some("ab")),
        (Request::new("POST", "/").chunked(pieces(4)), None),
        (Request::post("eleven bytes"), None),
    ] {
        let client = scene.send(request);
        assert!(matches!(scene.host.seen(client), Seen::Upstream(_)));
        scene.run_for(2000);
        let written = scene.bridge.ledger.pop().map(|record| record.value);
        assert_eq!(written.as_deref(), copy.map(str::as_bytes));
    }
    let client = scene.send(begun());
    scene.host.answer_behind(client, Reply::text(200, "early"));
    assert_eq!(scene.host.seen(client).status(), 200, "the upstream's own");
    scene.assert_empty();
}

#[test]
fn a_tap_in_acked_mode_is_refused() {
    let fields = json!({ "mode": "tap", "producer_async": false });
    let mut host = Host::new(NO_STOP, &Guest::filter());
    let refusal = host.configure(configuration(NO_STOP, fields)).unwrap_err();
    assert!(refusal.contains("mode: `tap`"), "{refusal}");
}

/// Where the configuration does not say so, the first requests find it out.
#[test]
fn a_configuration_that_does_not_say_so_is_found_out() {
    let mut host = Host::new(NO_STOP, &Guest::filter());
    let fields = json!({ "bridge": "host_bridge", "topic": "orders", "producer_async": false });
    let route = host.configure(fields).unwrap();
    let client = host.send(route, Request::post("abc"));
    host.run_for(&mut Bridge::new(), 11_000);
    let seen = host.seen(client);
    assert_eq!(seen.answered().header("kafka-error"), "host_mismatch");
    assert!(host.has_logged("allow_on_headers_stop_iteration"));
}
