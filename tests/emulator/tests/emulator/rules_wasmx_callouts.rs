//! What WasmX does about callouts and their ends, shown on guests of a few lines.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test reports by panicking")]

use kafka_upstream_emulator::bridge::marked;
use kafka_upstream_emulator::{
    Client, Ending, Guest, Host, Profile, Reply, Request, Route, Rule, Seen, Small,
};

fn wasmx(guest: &Guest) -> (Host, Route) {
    let mut host = Host::new(Profile::Wasmx, guest);
    let route = host.configure("").unwrap();
    (host, route)
}

/// A guest that makes a callout with a body for each request.
fn caller() -> Small {
    Small::new().headers(&format!("(drop {CALLOUT}) (i32.const 1)"))
}

const CALLOUT: &str = "(call $call @\"127.0.0.1:9280\" \
    @[:method=POST, :path=/p, :authority=b] @\"body\" (i32.const 1000))";
const HEALTHZ: &str = "(call $call @\"127.0.0.1:9280\" \
    @[:method=GET, :path=/h, :authority=b] @\"\" (i32.const 1000))";

/// Lets the first request's callout end.
fn called(guest: &Guest, ending: Ending, rules: &[Rule]) -> (Host, Client) {
    let (mut host, route) = wasmx(guest);
    for rule in rules {
        host.expect_violation(*rule);
    }
    let client = host.send(route, Request::get("/"));
    host.end(host.callouts()[0].id, ending);
    host.advance(1000);
    (host, client)
}

/// Rule 21.
#[test]
fn a_callback_without_an_answer_resumes_the_request() {
    let reply = Ending::Reply(marked(200, "text/plain", b"ok"));
    let (host, client) = called(&caller().guest(), reply, &[]);
    assert!(matches!(host.seen(client), Seen::Upstream(_)));
}

/// Rule 24.
#[test]
fn a_trap_in_a_callouts_reply_resumes_and_may_kill() {
    let guest = caller()
        .start("(call $say @\"start\" (i32.const 1)) (i32.const 1)")
        .configure("(call $say @\"configure\" (i32.const 1)) (i32.const 1)")
        .reply("(unreachable)")
        .guest();
    let (mut host, route) = wasmx(&guest);
    let clients: Vec<_> = (0..2).map(|_| host.send(route, Request::get("/"))).collect();
    let callouts = host.callouts();
    host.end(callouts[0].id, Ending::no_content());
    host.advance(1000);
    assert!(matches!(host.seen(clients[0]), Seen::Upstream(_)));
    assert_eq!(host.seen(clients[1]), Seen::Closed, "its callout returned to what is gone");
    assert!(host.crashed(0));
    let (mut host, route) = wasmx(&guest);
    host.send(route, Request::get("/"));
    host.end(host.callouts()[0].id, Ending::Refused);
    host.send(route, Request::get("/"));
    assert_eq!((host.said("start").len(), host.said("configure").len()), (1, 2));
}

/// Rule 25.
#[test]
fn dispatch_status_tells_how_a_callout_ended() {
    let guest = caller()
        .reply(
            "(call $say @\"headers\" (local.get $headers)) (call $say @\"body\" (local.get $body))
             (call $say @\"read\" (call $read (i32.const 4) (i32.const 0) (local.get $body)))
             (drop (call $header (i32.const 6) @\":dispatch_status\")) (call $show)
             (call $answer (i32.const 504) @\"\")",
        )
        .guest();
    let half = Reply::text(200, "half");
    for (ending, status, headers, body, read) in [
        (Ending::Reply(half.clone()), "ok", 2, 4, 0),
        (Ending::Closed, "ok", 0, 0, 1),
        (Ending::Refused, "broken connection", 0, 0, 2),
        (Ending::Reset, "broken connection", 0, 0, 2),
        (Ending::Unresolvable, "resolver failure", 0, 0, 2),
        (Ending::Garbage, "reader failure", 0, 0, 2),
        (Ending::Stalled, "timeout", 0, 0, 2),
        (Ending::Late(half.clone()), "timeout", 2, 4, 2),
        (Ending::Cut(half), "reader failure", 2, 4, 2),
        (Ending::no_content(), "timeout", 1, 0, 2),
    ] {
        let (host, _) = called(&guest, ending.clone(), &[]);
        assert!(host.logs().iter().any(|log| log.text == status), "{ending:?}");
        let said = (host.said("headers"), host.said("body"), host.said("read"));
        assert_eq!(said, (vec![headers], vec![body], vec![read]), "{ending:?}");
    }
}

/// Rule 26.
#[test]
fn a_body_after_a_callout_whose_reply_had_none_gives_an_empty_reply() {
    let with =
        |body: &str| caller().reply(&format!("(call $answer (i32.const 504) @\"{body}\")")).guest();
    let (host, client) = called(&with("no"), Ending::Refused, &[Rule(26)]);
    assert_eq!((host.violations()[0].0, host.seen(client)), (Rule(26), Seen::Closed));
    let (host, client) = called(&with(""), Ending::Refused, &[]);
    assert_eq!(host.seen(client).status(), 504);
    let (host, client) = called(&with("yes"), Ending::Reply(Reply::text(200, "ok")), &[]);
    assert_eq!(host.seen(client).answered().body_text(), "yes\n");
}

/// Rule 26.
#[test]
fn a_body_while_another_callout_is_under_way_gives_an_empty_reply() {
    let guest = Small::new()
        .headers(&format!("(drop {CALLOUT}) (drop {HEALTHZ}) (i32.const 1)"))
        .reply("(call $answer (i32.const 200) @\"body\")")
        .guest();
    let (host, client) = called(&guest, Ending::Reply(Reply::text(200, "ok")), &[Rule(26)]);
    assert_eq!((host.violations()[0].0, host.seen(client)), (Rule(26), Seen::Closed));
}

/// Rule 27.
#[test]
fn a_callout_with_a_body_after_a_reply_without_one_loops_for_ever() {
    let again = caller().reply(&format!("(drop {CALLOUT})")).guest();
    let (host, _) = called(&again, Ending::Closed, &[Rule(27)]);
    assert_eq!(host.violations()[0].0, Rule(27));
    let asks = Small::new()
        .headers(&format!("(drop {CALLOUT}) (i32.const 1)"))
        .reply(&format!(
            "(i32.store (i32.const 80) (i32.add (i32.const 1) (i32.load (i32.const 80))))
             (if (i32.eq (i32.load (i32.const 80)) (i32.const 1)) (then (drop {HEALTHZ})))
             (if (i32.eq (i32.load (i32.const 80)) (i32.const 2)) (then (drop {CALLOUT})))
             (if (i32.eq (i32.load (i32.const 80)) (i32.const 3))
               (then (call $answer (i32.const 200) @\"ok\")))"
        ))
        .guest();
    let (mut host, route) = wasmx(&asks);
    let client = host.send(route, Request::get("/"));
    host.end(host.callouts()[0].id, Ending::Closed);
    for _ in 0..2 {
        host.end(host.callouts()[0].id, Ending::Reply(Reply::text(200, "ok")));
    }
    assert_eq!(host.seen(client).status(), 200, "a callout without a body comes between");
}
