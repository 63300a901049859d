//! The bridge fails in every way: nothing is lost, nothing comes twice, and nobody is told a lie.

use kafka_upstream_core::outcome::{Code, Outcome, Reason};
use kafka_upstream_core::wire;
use kafka_upstream_emulator::bridge::marked;
use kafka_upstream_emulator::{Does, Ending, FailurePolicy, Profile, Reply, Request, Scene, Seen};
use serde_json::json;

fn acked() -> Scene {
    let mut scene = Scene::acked(Profile::Envoy, json!({ "delivery_timeout": 5000 }));
    assert_eq!(scene.post("warm").status(), 200);
    scene
}

/// What certainly did not reach the bridge is answered 503 at once, and is safe to send again.
#[test]
fn a_bridge_that_is_not_reached_has_written_nothing() {
    for ending in [Ending::Refused, Ending::Overflow, Ending::NoHost] {
        let mut scene = acked();
        scene.bridge.always(Does::Ends(ending.clone()));
        let seen = scene.post("lost");
        let reply = seen.answered();
        assert_eq!((reply.status, reply.header("retry-after").as_str()), (503, "1"), "{ending:?}");
        assert_eq!(reply.header("kafka-error"), "bridge_unreachable");
        assert_eq!(scene.bridge.times("lost"), 0);
        scene.assert_empty();
    }
}

/// A cluster that Envoy does not know, and one without a host.
#[test]
fn a_callout_that_is_not_dispatched_has_written_nothing() {
    for no_host in [true, false] {
        let mut scene = acked();
        scene.host.set(|settings| {
            let clusters = std::mem::take(&mut settings.clusters);
            if no_host {
                settings.empty_clusters = clusters;
            }
        });
        let seen = scene.post("lost");
        let reply = seen.answered();
        assert_eq!((reply.status, reply.header("retry-after").as_str()), (503, "1"));
        assert_eq!(scene.host.returned("proxy_http_call", if no_host { 10 } else { 2 }), 1);
        assert_eq!(scene.bridge.times("lost"), 0);
        scene.assert_empty();
    }
}

fn in_doubt() -> Vec<Ending> {
    let half = Reply::text(200, "half");
    vec![
        Ending::Closed,
        Ending::Reset,
        Ending::Garbage,
        Ending::Cut(half.clone()),
        Ending::no_content(),
        Ending::Reply(half),
    ]
}

/// What may have been written is asked for again under its sequence: one record, and its place.
#[test]
fn a_lost_reply_is_asked_for_again() {
    for ending in in_doubt() {
        for written in [true, false] {
            let mut scene = acked();
            let end = ending.clone();
            scene.bridge.next(if written { Does::WorksBut(end) } else { Does::Ends(end) });
            let client = scene.send(Request::post("once"));
            scene.run_for(5000);
            let seen = scene.host.seen(client);
            assert_eq!(seen.status(), 200, "{ending:?}, written: {written}");
            assert_eq!(scene.record(seen.answered()).body(), "once");
            assert_eq!(scene.bridge.times("once"), 1, "{ending:?}, written: {written}");
            scene.assert_empty();
        }
    }
}

/// When no reply comes in time, the client is told that its record may be written.
#[test]
fn doubt_that_lasts_is_504() {
    let mut endings = in_doubt();
    let half = Reply::text(200, "half");
    endings.extend([
        Ending::Stalled,
        Ending::StalledAfterHeaders(half.clone()),
        Ending::Late(half),
    ]);
    for ending in endings {
        let mut scene = acked();
        scene.bridge.always(Does::Ends(ending.clone()));
        let client = scene.send(Request::post("doubtful"));
        scene.run_for(4000);
        assert_eq!(scene.host.seen(client), Seen::Pending, "{ending:?}");
        scene.run_for(2000);
        assert_eq!(scene.host.seen(client).answered().status, 504, "{ending:?}");
        scene.assert_empty();
    }
}

/// A reply that is not the bridge's, or that does not fit the batch, says nothing; what it holds
/// beyond the limit is not taken into memory.
#[test]
fn a_reply_that_does_not_fit_says_nothing() {
    let written = Outcome::Written { partition: 0, offset: Some(0) };
    let outcomes = |count: usize| wire::encode_outcomes(&vec![written.clone(); count]).unwrap();
    let kind = wire::OUTCOMES_TYPE;
    let good = marked(200, kind, &outcomes(1));
    let unmarked = Reply { headers: Vec::new(), ..good.clone() };
    let mut other_version = good;
    other_version.headers[0].1 = b"2".to_vec();
    for reply in [
        unmarked,
        other_version,
        marked(200, kind, &outcomes(0)),
        marked(200, kind, &outcomes(2)),
        marked(200, kind, &[0xff; 10]),
        marked(200, kind, &vec![1; 16 * 1024 * 1024]),
    ] {
        let mut scene = acked();
        let pages = scene.host.pages();
        scene.bridge.always(Does::Ends(Ending::Reply(reply)));
        let client = scene.send(Request::post("doubtful"));
        scene.run_for(6000);
        assert_eq!(scene.host.seen(client).answered().status, 504);
        assert!(scene.host.pages() <= pages + 2, "{} of {pages} pages", scene.host.pages());
        scene.assert_empty();
    }
}

/// What the bridge says of a record is what the client hears.
#[test]
fn the_bridges_word_is_the_clients_status() {
    for code in Code::ALL {
        let reason = || Reason::new(*code, "because");
        for (outcome, status) in
            [(Outcome::NotWritten(reason()), code.status()), (Outcome::Unknown(reason()), 504)]
        {
            let mut scene = acked();
            scene.bridge.always(Does::Gives(outcome.clone()));
            let client = scene.send(Request::post("refused"));
            scene.run_for(6000);
            let seen = scene.host.seen(client);
            let reply = seen.answered();
            assert_eq!(reply.status, u32::from(status), "{outcome:?}");
            assert_eq!(reply.header("kafka-error"), code.name());
            assert_eq!(reply.header("retry-after").is_empty(), status != 503, "{outcome:?}");
        }
    }
    for status in [400, 401, 403, 422, 429, 503] {
        let mut scene = acked();
        scene.bridge.always(Does::Refuses(status));
        let expected = if matches!(status, 401 | 403) { 500 } else { 503 };
        assert_eq!(scene.post("refused").answered().status, expected, "{status}");
        assert_eq!(scene.bridge.times("refused"), 0);
    }
}

/// The VM traps in a callout's reply: the paused requests end with a bare 503, which promises
/// nothing, and the next one is served by a new VM.
#[test]
fn a_trap_ends_what_was_paused_and_the_next_vm_serves() {
    let mut scene = acked();
    scene.host.set(|settings| settings.failure_policy = FailurePolicy::Reload);
    let clients: Vec<_> = (0..3).map(|_| scene.send(Request::post("trapped"))).collect();
    scene.host.trap_in("proxy_on_http_call_response");
    scene.host.serve(&mut scene.bridge);
    assert_eq!(scene.host.traps(), 1);
    let after = scene.post("after");
    assert_eq!(scene.record(after.answered()).body(), "after");
    assert!(clients.iter().all(|client| scene.host.seen(*client) == Seen::Pending));
    scene.run_for(30_000);
    for client in clients {
        let bare = Reply { status: 503, ..Reply::default() };
        assert_eq!(scene.host.seen(client), Seen::Host(bare));
    }
}
