//! What APISIX does, shown on guests of a few lines.

#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]

use kafka_upstream_emulator::{
    Client, Ending, Guest, Host, Profile, Reply, Request, Route, Rule, Seen, Small,
};
use serde_json::json;

fn apisix(guest: &Guest) -> (Host, Route) {
    let mut host = Host::new(Profile::Apisix, guest);
    let route = host.configure("").unwrap();
    (host, route)
}

const MAP: &str = "@[:method=POST, :scheme=http, :path=/p, :authority=b]";

fn callout(map: &str) -> String {
    format!("(call $call @\"127.0.0.1:9280\" {map} @\"body\" (i32.const 1000))")
}

fn caller() -> Small {
    Small::new().headers(&format!("(drop {}) (i32.const 0)", callout(MAP)))
}

fn end_all(host: &mut Host, ending: &Ending) {
    for callout in host.callouts() {
        host.end(callout.id, ending.clone());
    }
    host.advance(1000);
}

/// Rule 33.
#[test]
fn headers_come_without_a_count_and_as_the_end() {
    let guest = Small::new()
        .headers(
            "(call $say @\"n\" (local.get $count)) (call $say @\"end\" (local.get $end))
             (i32.const 0)",
        )
        .guest();
    let (mut host, route) = apisix(&guest);
    host.send(route, Request::post("abc"));
    assert_eq!((host.said("n"), host.said("end")), (vec![0], vec![1]));
}

/// Rule 34.
#[test]
fn a_body_comes_only_when_the_property_asks() {
    let body = "(call $say @\"size\" (local.get $size))
        (call $say @\"read\" (call $read (i32.const 0) (i32.const 0) (local.get $size)))";
    let asks = "(drop (call $set_property @\"wasm_process_req_body\" @\"1\"))";
    let guest = |asks: &str| {
        Small::new()
            .headers(&format!("{asks} (i32.const 0)"))
            .body(&format!("{body} (drop {}) (i32.const 0)", callout(MAP)))
            .reply(
                "(call $say @\"late\" (call $read (i32.const 0) (i32.const 0) (i32.const 1)))
                 (call $answer (i32.const 200) @\"\")",
            )
            .guest()
    };
    let (mut host, route) = apisix(&guest(""));
    let client = host.send(route, Request::post("abc"));
    assert!(matches!(host.seen(client), Seen::Upstream(_)));
    assert!(host.said("size").is_empty());
    let (mut host, route) = apisix(&guest(asks));
    host.send(route, Request::post("abc"));
    end_all(&mut host, &Ending::Reply(Reply::text(200, "ok")));
    assert_eq!(
        (host.said("size"), host.said("read"), host.said("late")),
        (vec![3], vec![0], vec![1])
    );
    let (mut host, route) = apisix(&guest(asks));
    host.send(route, Request::get("/"));
    assert_eq!((host.said("size"), host.said("read")), (vec![0], vec![1]));
}

/// Rule 35.
#[test]
fn a_pause_with_neither_callout_nor_reply_kills() {
    let (mut host, route) = apisix(&Small::new().headers("(i32.const 1)").guest());
    host.expect_violation(Rule(35));
    let client = host.send(route, Request::get("/"));
    assert_eq!((host.violations()[0].0, host.seen(client)), (Rule(35), Seen::Closed));
}

/// Rule 36.
#[test]
fn one_callout_at_a_time_in_request_phases() {
    let say = |code: &str| format!("(call $say @\"status\" {code})");
    let twice = [say(&callout(MAP)), say(&callout(MAP))].concat();
    let guest = Small::new()
        .configure(&format!("{} (i32.const 1)", say(&callout(MAP))))
        .headers(&format!("{twice} (i32.const 1)"))
        .reply(&say(&callout(MAP)))
        .guest();
    let (mut host, route) = apisix(&guest);
    host.send(route, Request::get("/"));
    assert_eq!(host.said("status"), [2, 0, 10]);
    host.end(host.callouts()[0].id, Ending::Refused);
    assert_eq!((host.said("status").last(), host.callouts_open()), (Some(&0), 1));
}

/// Rule 37.
#[test]
fn every_failed_callout_looks_the_same() {
    let guest = caller()
        .reply(
            "(call $say @\"seen\" (i32.add (local.get $headers) (local.get $body)))
             (call $say @\"status\" (call $header (i32.const 6) @\":status\"))
             (call $answer (i32.const 504) @\"\")",
        )
        .guest();
    for ending in [
        Ending::Refused,
        Ending::Unresolvable,
        Ending::Closed,
        Ending::Reset,
        Ending::Garbage,
        Ending::Stalled,
        Ending::Cut(Reply::text(200, "half")),
        Ending::Late(Reply::text(200, "late")),
    ] {
        let (mut host, route) = apisix(&guest);
        host.send(route, Request::get("/"));
        end_all(&mut host, &ending);
        assert_eq!((host.said("seen"), host.said("status")), (vec![0], vec![1]), "{ending:?}");
    }
}

/// Rule 38.
#[test]
fn the_request_waits_for_its_callout_whatever_was_returned() {
    let (mut host, route) = apisix(&caller().guest());
    let client = host.send(route, Request::get("/"));
    assert_eq!(host.seen(client), Seen::Pending);
    end_all(&mut host, &Ending::Reply(Reply::text(200, "ok")));
    assert!(matches!(host.seen(client), Seen::Upstream(_)));
}

/// Rule 39.
#[test]
fn a_missing_pseudo_header_is_the_previous_callouts() {
    let guest = caller().reply(&format!("(drop {})", callout("@[:authority=b]"))).guest();
    let (mut host, route) = apisix(&guest);
    host.send(route, Request::get("/"));
    host.end(host.callouts()[0].id, Ending::Refused);
    let second = &host.callouts()[0];
    assert_eq!((second.path(), second.header(":method")), ("/p".into(), "POST".into()));
}

/// Rule 40.
#[test]
fn a_control_character_fails_the_callout() {
    for map in [
        "@[:method=GET, :scheme=http, :path=/, :authority=b, x=a\\1]",
        "@[:method=GET, :scheme=http, :path=/a b, :authority=b]",
        "@[:method=GET, :scheme=http, :path=/a#b, :authority=b]",
    ] {
        let guest = Small::new()
            .headers(&format!("(call $say @\"sent\" {}) (i32.const 1)", callout(map)))
            .reply("(call $say @\"headers\" (local.get $headers))")
            .guest();
        let (mut host, route) = apisix(&guest);
        host.send(route, Request::get("/"));
        end_all(&mut host, &Ending::Reply(Reply::text(200, "ok")));
        assert_eq!((host.said("sent"), host.said("headers")), (vec![0], vec![0]), "{map}");
    }
}

/// Rule 41.
#[test]
fn the_map_of_a_request_without_host_kills() {
    for code in
        ["(drop (call $map (i32.const 0)))", "(drop (call $header (i32.const 0) @\":authority\"))"]
    {
        let (mut host, route) =
            apisix(&Small::new().headers(&format!("{code} (i32.const 0)")).guest());
        host.send(route, Request::get("/"));
        host.expect_violation(Rule(41));
        host.send(route, Request::get("/").http_1_0());
        assert_eq!(host.violations()[0].0, Rule(41), "{code}");
    }
    let named = Small::new().headers("(drop (call $header (i32.const 0) @\"host\")) (i32.const 0)");
    let (mut host, route) = apisix(&named.guest());
    host.send(route, Request::get("/").http_1_0());
}

/// Rule 42.
#[test]
fn a_refused_configuration_is_tried_again_at_each_request() {
    let (mut host, route) = apisix(&Small::new().configure("(i32.const 0)").guest());
    for requests in 1..=2 {
        let client = host.send(route, Request::get("/"));
        assert_eq!(host.seen(client).status(), 503);
        assert_eq!(host.callbacks("proxy_on_configure"), 2 * requests);
    }
}

/// Rule 43.
#[test]
fn a_trap_refuses_every_later_request_or_aborts() {
    let statuses = |aborts: bool| {
        let (mut host, route) = apisix(&Small::new().headers("(i32.const 0)").guest());
        host.set(|settings| settings.trap_aborts = aborts);
        host.trap_in("proxy_on_request_headers");
        let clients: Vec<Client> = (0..3).map(|_| host.send(route, Request::get("/"))).collect();
        let seen = clients.iter().map(|client| host.seen(*client).status()).collect::<Vec<_>>();
        host.reload();
        let after = host.send(route, Request::get("/"));
        (seen, host.seen(after).status())
    };
    assert_eq!(statuses(false), (vec![503, 503, 503], 504));
    assert_eq!(statuses(true), (vec![0, 0, 0], 504));
}

/// Rule 44.
#[test]
fn there_is_no_time_no_tick_no_start_and_no_log() {
    let guest = Small::new()
        .start("(call $say @\"start\" (i32.const 1)) (i32.const 1)")
        .configure("(call $say @\"tick\" (call $period (i32.const 10))) (i32.const 1)")
        .headers(
            "(call $say @\"time\" (call $time (i32.const 64)))
             (call $say @\"queue\" (call $register @\"q\" (i32.const 72))) (i32.const 0)",
        )
        .log("(call $say @\"log\" (i32.const 1))")
        .tick("(unreachable)")
        .guest();
    let (mut host, route) = apisix(&guest);
    host.send(route, Request::get("/"));
    host.advance(1000);
    assert_eq!(
        (host.said("tick"), host.said("time"), host.said("queue")),
        (vec![12], vec![12], vec![12])
    );
    assert!(host.said("start").is_empty() && host.said("log").is_empty());
}

/// Rule 45.
#[test]
fn response_headers_come_for_local_replies_and_callouts_end_in_the_plugin_context() {
    let guest = caller()
        .configure("(call $say @\"root\" (local.get $root)) (i32.const 1)")
        .reply("(call $say @\"reply\" (local.get $ctx)) (call $answer (i32.const 200) @\"\")")
        .response_headers("(call $say @\"response\" (local.get $ctx)) (i32.const 0)")
        .guest();
    let (mut host, route) = apisix(&guest);
    let client = host.send(route, Request::get("/"));
    end_all(&mut host, &Ending::Reply(Reply::text(200, "ok")));
    assert_eq!(host.said("root"), host.said("reply"));
    assert_eq!((host.said("response").len(), host.seen(client).status()), (1, 200));
}

/// Rule 46.
#[test]
fn the_configuration_is_encoded_anew() {
    let guest = Small::new()
        .configure("(drop (call $read (i32.const 7) (i32.const 0) (local.get $size))) (call $show) (i32.const 1)")
        .guest();
    let config = json!({ "a": [], "b": "x/y", "c": [1], "d": { "e": null } });
    let mut orders = Vec::new();
    for seed in 0..20 {
        let mut host = Host::new(Profile::Apisix, &guest);
        host.seed(seed);
        let route = host.configure(&config).unwrap();
        host.send(route, Request::get("/"));
        let given = host.logs()[0].text.clone();
        assert!(given.contains(r#""a":{}"#) && given.contains(r#""x\/y""#), "{given}");
        let value: serde_json::Value = serde_json::from_str(&given).unwrap();
        assert_eq!((&value["c"], &value["d"]), (&config["c"], &config["d"]));
        orders.push(given);
    }
    orders.sort();
    orders.dedup();
    assert!(orders.len() > 5, "{} orders of keys", orders.len());
}
