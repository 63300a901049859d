//! What clients send reaches Kafka whole, whatever pieces it comes in.

use kafka_upstream_emulator::{Profile, Request, SERVED, Scene, Seen, abi};
use serde_json::json;

/// Each content type, with an empty body, one byte, 1 KiB, and as much as is allowed: one record
/// each, with equal bytes, and a reply that names its place.
#[test]
fn a_body_of_any_type_and_size_is_one_record() {
    let types = [
        Some("text/plain"),
        Some("application/json"),
        Some("application/x-www-form-urlencoded"),
        Some("multipart/form-data; boundary=b"),
        Some("application/octet-stream"),
        Some("application/xml; charset=utf-8"),
        None,
    ];
    for profile in SERVED {
        let fields = json!({ "message_format": "body", "max_body_bytes": 65_536 });
        let mut scene = Scene::acked(profile, fields);
        let mut sent = 0;
        for kind in types {
            for size in [0, 1, 1024, 65_536] {
                let body: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
                let mut request = Request::new("POST", "/a?b=c").body(body.clone());
                if let Some(kind) = kind {
                    request = request.header("content-type", kind);
                }
                let seen = scene.ask(request);
                let reply = seen.answered();
                assert_eq!(reply.status, 200, "{kind:?} {size}: {}", reply.body_text());
                assert_eq!(scene.record(reply).value, body, "{kind:?} {size}");
                sent += 1;
            }
        }
        assert_eq!(scene.bridge.ledger.len(), sent);
        scene.assert_empty();
    }
}

/// The default limit is reached by a body of exactly its size.
#[test]
fn a_body_of_the_largest_size_is_one_record() {
    for profile in SERVED {
        let mut scene = Scene::acked(profile, json!({ "message_format": "body" }));
        let body = vec![b'x'; 1_048_576];
        let seen = scene.ask(Request::post(body.clone()).in_pieces_of(16_384));
        assert_eq!(scene.record(seen.answered()).value, body);
    }
}

/// One byte more than is allowed, announced or not: 413, and nothing is read or sent.
#[test]
fn a_body_above_the_limit_is_refused_unread() {
    for profile in SERVED {
        let mut scene = Scene::acked(profile, json!({ "max_body_bytes": 1000 }));
        scene.ask(Request::get("/"));
        let reads = scene.host.returned("proxy_get_buffer_bytes", 0);
        let callouts = scene.host.returned("proxy_http_call", 0);
        let body = vec![b'x'; 1001];
        let announced = Request::post(body.clone());
        let chunked =
            Request::new("POST", "/").chunked([body[..600].to_vec(), body[600..].to_vec()]);
        for request in [announced, chunked] {
            assert_eq!(scene.ask(request).answered().header("kafka-error"), "body_too_large");
        }
        assert_eq!(scene.host.returned("proxy_get_buffer_bytes", 0), reads);
        assert_eq!(scene.host.returned("proxy_http_call", 0), callouts);
        scene.assert_empty();
    }
}

/// Requests without a body are records with an empty one: none is lost, none comes twice.
#[test]
fn a_request_without_a_body_is_one_record() {
    for profile in SERVED {
        let mut scene = Scene::acked(profile, json!({ "forward_method": true }));
        for request in [
            Request::get("/"),
            Request::new("POST", "/").header("content-length", "0"),
            Request::new("POST", "/"),
            Request::new("DELETE", "/"),
        ] {
            let method = request.method.clone();
            let seen = scene.ask(request);
            let record = scene.record(seen.answered());
            let message: serde_json::Value = serde_json::from_slice(&record.value).unwrap();
            assert_eq!((&message["method"], &message["body"]), (&json!(method), &json!("")));
        }
        assert_eq!(scene.bridge.ledger.len(), 4);
        scene.assert_empty();
    }
}

/// A body in a thousand pieces, and one that trailers end.
#[test]
fn pieces_and_trailers_make_one_record() {
    let body: Vec<u8> = (0..10_000).map(|n| (n % 251) as u8).collect();
    let pieces: Vec<_> = body.chunks(10).map(<[u8]>::to_vec).collect();
    let chunked = Request::new("POST", "/").chunked(pieces.clone());
    let with_trailers =
        Request::new("POST", "/").chunked(pieces).http_2().trailers(&[("grpc-status", "0")]);
    let mut scene = Scene::acked(Profile::Envoy, json!({ "message_format": "body" }));
    for request in [chunked, with_trailers] {
        let seen = scene.ask(request);
        assert_eq!(scene.record(seen.answered()).value, body);
    }
    assert_eq!(scene.host.callbacks("proxy_on_request_trailers"), 1);
    assert_eq!(scene.bridge.ledger.len(), 2);
}

/// A client that leaves in the middle of its body leaves nothing.
#[test]
fn half_a_body_is_no_record() {
    for profile in SERVED {
        let mut scene = Scene::acked(profile, json!({}));
        let client = scene.send(Request::post("half of it").in_pieces_of(4).unfinished());
        scene.run_for(100);
        assert_eq!(scene.host.seen(client), Seen::Pending);
        scene.host.hang_up(client);
        scene.assert_empty();
        assert!(scene.bridge.ledger.is_empty());
    }
}

/// An announced length that is no number, or not the body's.
#[test]
fn a_wrong_content_length_is_refused() {
    for profile in SERVED {
        let mut scene = Scene::acked(profile, json!({}));
        let wrong = Request::post("abc").without("content-length");
        for (request, code) in [
            (wrong.clone().header("content-length", "x"), "bad_content_length"),
            (
                wrong.clone().header("content-length", "3").header("content-length", "4"),
                "bad_content_length",
            ),
            (wrong.header("content-length", "4"), "content_length_mismatch"),
        ] {
            let seen = scene.ask(request);
            let reply = seen.answered();
            assert_eq!((reply.status, reply.header("kafka-error").as_str()), (400, code));
        }
        assert!(scene.bridge.ledger.is_empty());
    }
}

/// Bytes above 0x7F in names and values, more headers than a host hands over, and a map that is
/// shorter than it says: no trap, and an answer.
#[test]
fn hostile_headers_trap_nothing() {
    for profile in SERVED {
        let fields =
            json!({ "forward_headers": true, "forward_uri": true, "forward_method": true });
        let mut scene = Scene::acked(profile, fields);
        for byte in 0x80..=0xff_u8 {
            let in_value = Request::post("a").header("x-a", [byte, b'z', byte]);
            assert_eq!(scene.ask(in_value).status(), 200, "{byte:#x} in a value");
            let in_name = Request::post("a").header([b'x', byte], "1");
            let status = scene.ask(in_name).status();
            assert!([200, 400].contains(&status), "{byte:#x} in a name: {status}");
        }
        let many = |count| {
            (0..count).fold(Request::post("a"), |request, n| request.header(format!("x-{n}"), "1"))
        };
        assert_eq!(scene.ask(many(80)).status(), 200);
        assert!([200, 431].contains(&scene.ask(many(101)).status()));
        let whole = abi::encode(&Request::post("a").headers).len();
        for cut in 0..whole {
            scene.host.set(|settings| settings.broken_map = Some(cut));
            let status = scene.post("a").status();
            assert!([200, 400, 500].contains(&status), "a map cut at {cut}: {status}");
        }
        assert_eq!(scene.host.traps(), 0, "{}", scene.host.trace());
        scene.assert_empty();
    }
}

/// A client that is slow with its body gets 408, and the log does not blame the configuration.
#[test]
fn a_slow_body_is_the_clients_fault_once_a_body_has_come() {
    let mut scene = Scene::acked(Profile::Envoy, json!({ "delivery_timeout": 5000 }));
    assert_eq!(scene.post("abc").status(), 200);
    let slow = Request::new("POST", "/").header("content-length", "3").unfinished();
    let client = scene.send(slow);
    scene.run_for(5200);
    let seen = scene.host.seen(client);
    let reply = seen.answered();
    assert_eq!((reply.status, reply.header("kafka-error").as_str()), (408, "body_timeout"));
    assert!(!scene.host.has_logged("allow_on_headers_stop_iteration"));
    scene.assert_empty();
}

/// Thousands of clients send large headers and no body: the VM's memory stays bounded, and the rest
/// are refused before anything of theirs is kept.
#[test]
fn unfinished_requests_have_a_bound_in_bytes() {
    let mut scene = Scene::acked(Profile::Envoy, json!({ "forward_headers": true }));
    let large = Request::new("POST", "/").header("x-large", "x".repeat(55_000)).unfinished();
    let mut clients: Vec<_> = (0..2000).map(|_| scene.send(large.clone())).collect();
    let refused = |scene: &Scene, client: &_| scene.host.seen(*client).status() == 503;
    let (gone, waiting): (Vec<_>, Vec<_>) =
        clients.drain(..).partition(|client| refused(&scene, client));
    assert!(waiting.len() > 500 && gone.len() > 1000, "{} wait", waiting.len());
    assert_eq!(scene.host.seen(gone[0]).answered().header("kafka-error"), "queue_full");
    assert!(scene.host.pages() * 65_536 < 64 * 1024 * 1024, "{} pages", scene.host.pages());
    assert_eq!(scene.ask(Request::get("/")).status(), 200, "no body, nothing to wait for");
    for client in waiting {
        scene.host.hang_up(client);
    }
    assert_eq!(scene.post("room again").status(), 200);
    scene.assert_empty();
}

/// What is refused without a body to wait for, as gRPC's clients know it; a tap copies it.
#[test]
fn grpc_is_refused_where_the_filter_answers_and_copied_by_a_tap() {
    for profile in SERVED {
        let call = |kind: &str| {
            Request::new("POST", "/s/m").header("content-type", kind).body(b"\0\0\0\0\x01x")
        };
        let mut scene = Scene::acked(profile, json!({}));
        for kind in ["application/grpc", "application/grpc+proto", "application/grpc; a=b"] {
            let seen = scene.ask(call(kind));
            let reply = seen.answered();
            let status = if profile.is_envoy() && !kind.contains(';') { 200 } else { 415 };
            assert_eq!((reply.status, reply.header("grpc-status").as_str()), (status, "12"));
            assert_eq!(reply.header("kafka-error"), "grpc_unsupported");
        }
        assert!(scene.bridge.ledger.is_empty());
        scene.assert_empty();
        let fields = json!({ "mode": "tap", "message_format": "body" });
        let mut tap = match profile {
            Profile::EnvoyNoStop => Scene::memory(profile, fields),
            _ => Scene::acked(profile, fields),
        };
        let seen = tap.ask(call("application/grpc"));
        tap.run_for(2000);
        assert!(matches!(seen, Seen::Upstream(_)), "{profile:?}: {seen:?}");
        assert_eq!(tap.bridge.ledger[0].value, b"\0\0\0\0\x01x");
    }
}
