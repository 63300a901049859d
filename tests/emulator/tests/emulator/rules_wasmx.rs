//! What WasmX does, shown on guests of a few lines.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test reports by panicking")]

use kafka_upstream_emulator::{
    Ending, Guest, Host, Profile, Reply, Request, Route, Rule, Seen, Small,
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
/// Rule 17.
#[test]
fn the_end_of_stream_is_not_told_and_the_body_comes_once_or_never() {
    let guest = Small::new()
        .headers("(call $say @\"end\" (local.get $end)) (i32.const 0)")
        .body("(call $say @\"size\" (local.get $size)) (i32.const 0)")
        .guest();
    for (request, sizes) in [
        (Request::get("/"), vec![]),
        (Request::post(""), vec![]),
        (Request::new("POST", "/").chunked([]), vec![]),
        (Request::new("POST", "/").chunked([b"abc".to_vec(), b"de".to_vec()]), vec![5]),
    ] {
        let (mut host, route) = wasmx(&guest);
        let client = host.send(route, request);
        assert_eq!((host.said("end"), host.said("size")), (vec![0], sizes));
        assert!(matches!(host.seen(client), Seen::Upstream(_)));
    }
}

/// Rule 18.
#[test]
fn a_spilled_body_has_a_size_and_reads_as_absent() {
    let guest = Small::new()
        .headers("(i32.const 0)")
        .body(
            "(call $say @\"size\" (local.get $size))
             (call $say @\"read\" (call $read (i32.const 0) (i32.const 0) (local.get $size)))
             (i32.const 0)",
        )
        .guest();
    for (size, read) in [(10, 0), (11, 1)] {
        let (mut host, route) = wasmx(&guest);
        host.set(|settings| settings.client_body_buffer_size = 10);
        host.send(route, Request::post(vec![b'x'; size as usize]));
        assert_eq!((host.said("size"), host.said("read")), (vec![size], vec![read]));
    }
}

/// Rule 19.
#[test]
fn a_short_read_of_several_buffers_writes_past_the_allocation() {
    let guest = Small::new()
        .headers("(i32.const 0)")
        .body("(drop (call $read (i32.const 0) (i32.const 3) (i32.const 4))) (call $show) (i32.const 0)")
        .guest();
    let (mut host, route) = wasmx(&guest);
    host.send(route, Request::post("abcdef"));
    assert_eq!(host.logs()[0].text, "abcd", "the start is ignored");
    host.expect_violation(Rule(19));
    host.send(route, Request::post("abcdef").in_pieces_of(3));
    assert_eq!(host.violations()[0].0, Rule(19));
}

/// Rule 20.
#[test]
fn a_pause_without_a_callout_hangs_until_the_client_leaves() {
    let (mut host, route) = wasmx(&Small::new().headers("(i32.const 1)").guest());
    let client = host.send(route, Request::post("abc"));
    host.advance(3_600_000);
    assert_eq!((host.seen(client), host.contexts()), (Seen::Pending, 1));
    host.hang_up(client);
    assert_eq!((host.seen(client), host.contexts()), (Seen::Closed, 0));
}

/// Rule 22.
#[test]
fn the_effective_context_is_a_no_op_and_a_reply_from_root_kills() {
    let guest = Small::new()
        .headers("(i32.store (i32.const 80) (local.get $ctx)) (i32.const 1)")
        .configure("(drop (call $period (i32.const 10))) (i32.const 1)")
        .tick(
            "(call $say @\"act\" (call $act (i32.load (i32.const 80))))
             (call $answer (i32.const 200) @\"\")",
        )
        .guest();
    let (mut host, route) = wasmx(&guest);
    host.expect_violation(Rule(22));
    let client = host.send(route, Request::get("/"));
    host.advance(10);
    assert_eq!((host.said("act"), host.violations()[0].0), (vec![0], Rule(22)));
    assert_eq!(host.seen(client), Seen::Closed);
}

/// Rule 23.
#[test]
fn calls_that_do_not_fit_trap() {
    let callout =
        |to: &str, map: &str| format!("(drop (call $call @\"{to}\" @[{map}] @\"\" (i32.const 1)))");
    let whole = ":method=GET, :path=/, :authority=b";
    for code in [
        "(call $answer (i32.const 200) @\"\") (call $answer (i32.const 200) @\"\")",
        "(drop (call $share @\"k\" @\"v\" (i32.const 0)))",
        "(drop (call $register @\"q\" (i32.const 72)))",
        "(drop (call $read (i32.const 0) (i32.const 0) (i32.const 1)))",
        "(drop (call $read (i32.const 4) (i32.const 0) (i32.const 1)))",
        &callout("host_bridge", whole),
        &callout("127.0.0.1:0", whole),
        &callout("127.0.0.1:9280", ":path=/, :authority=b"),
        &callout("127.0.0.1:9280", ":method=GET, :authority=b"),
    ] {
        let guest = Small::new().headers(&format!("{code} (i32.const 1)")).guest();
        let (mut host, route) = wasmx(&guest);
        let client = host.send(route, Request::get("/"));
        assert_eq!(host.seen(client).status(), 500, "{code}");
    }
    let period = "(drop (call $period (i32.const 10)))";
    let twice = Small::new().configure(&format!("{period} {period} (i32.const 1)")).guest();
    assert!(Host::new(Profile::Wasmx, &twice).configure("").is_err());
    let from_root = Small::new()
        .configure("(drop (call $period (i32.const 10))) (i32.const 1)")
        .headers("(i32.const 0)")
        .tick(&format!("(drop {CALLOUT})"))
        .reply(&format!("(drop {CALLOUT})"));
    let (mut host, _) = wasmx(&from_root.guest());
    host.advance(10);
    assert_eq!(host.callouts_open(), 1, "a root may in its tick");
    host.end(host.callouts()[0].id, Ending::Closed);
    assert_eq!(host.traps(), 1, "and not in a reply");
    let late = Small::new().headers("(i32.const 0)").log(&format!("(drop {CALLOUT})")).guest();
    let (mut host, route) = wasmx(&late);
    host.send(route, Request::get("/"));
    assert_eq!((host.live_vms(), host.callouts_open()), (0, 0));
}

/// Rule 28.
#[test]
fn names_keep_their_case_and_the_authority_is_not_the_host() {
    let guest = Small::new()
        .headers("(drop (call $map (i32.const 0))) (call $show) (call $answer (i32.const 200) @\"a\") (i32.const 0)")
        .guest();
    let (mut host, route) = wasmx(&guest);
    let client = host.send(route, Request::get("/a%20b").header("X-One", "1"));
    let shown = &host.logs()[0].text;
    assert!(shown.contains("X-One\0") && shown.contains("/a b\0"), "{shown:?}");
    assert!(shown.contains(":authority\0server.name\0"), "{shown:?}");
    assert_eq!(host.seen(client).answered().body_text(), "a\n");
}

/// Rule 29.
#[test]
fn plugin_name_in_a_root_kills_and_other_properties_fail() {
    let guest = Small::new()
        .configure("(call $say @\"p\" (call $property @\"ngx\\0nginx_version\")) (i32.const 1)")
        .headers("(call $say @\"p\" (call $property @\"ngx\\0nginx_version\")) (i32.const 0)")
        .guest();
    let (mut host, route) = wasmx(&guest);
    host.send(route, Request::get("/"));
    assert_eq!(host.said("p"), [10, 0]);
    let kills = Small::new().configure("(drop (call $property @\"plugin_name\")) (i32.const 1)");
    let mut host = Host::new(Profile::Wasmx, &kills.guest());
    host.expect_violation(Rule(29));
    assert!(host.configure("").is_err());
    assert_eq!(host.violations()[0].0, Rule(29));
}

/// Rule 30.
#[test]
fn a_tick_fires_once_more_after_a_trap_unless_the_new_instance_sets_it() {
    let period = "(drop (call $period (i32.const 10))) (i32.const 1)";
    let ticking = || Small::new().tick("(call $say @\"tick\" (i32.const 1))");
    for (guest, ticks) in [
        (ticking().start(period).configure("(i32.const 1)"), 1),
        (ticking().start("(i32.const 1)").configure(period), 10),
    ] {
        let (mut host, route) = wasmx(&guest.headers("(i32.const 0)").guest());
        host.trap_in("proxy_on_request_headers");
        host.send(route, Request::get("/"));
        host.send(route, Request::get("/"));
        host.advance(100);
        assert_eq!(host.said("tick").len(), ticks);
        host.reload();
        host.advance(10);
        assert_eq!(host.said("tick").len(), ticks + 1, "the new worker's");
        assert_eq!(host.callbacks("proxy_on_done"), 1, "the old worker's root was told nothing");
    }
}

/// Rule 23.
#[test]
fn adding_to_a_gauge_or_to_an_unknown_metric_traps() {
    for (kind, traps) in [(0, 0), (1, 1), (2, 1)] {
        let define = format!("(drop (call $metric (i32.const {kind}) @\"m\" (i32.const 72)))");
        let guest = Small::new()
            .configure(&format!("{define} (i32.const 1)"))
            .headers("(drop (call $add (call $id) (i64.const 1))) (i32.const 0)");
        let (mut host, route) = wasmx(&guest.guest());
        host.send(route, Request::get("/"));
        assert_eq!(host.traps(), traps, "kind {kind}");
    }
}

/// Rule 28.
#[test]
fn a_map_of_100_pairs_cannot_be_read() {
    let guest = Small::new().headers("(drop (call $map (i32.const 0))) (i32.const 0)").guest();
    for (more, broken) in [(95, 0), (96, 1)] {
        let (mut host, route) = wasmx(&guest);
        host.expect_violation(Rule(28));
        let mut request = Request::get("/").without("host").header("host", "a");
        request.headers.extend((1..more).map(|n| (format!("x-{n}").into_bytes(), b"1".to_vec())));
        host.send(route, request);
        assert_eq!(host.violations().len(), broken, "{more}");
    }
}

/// Rule 18.
#[test]
fn the_framing_of_chunks_counts_for_the_buffer() {
    let guest = Small::new()
        .headers("(i32.const 0)")
        .body(
            "(call $say @\"read\" (call $read (i32.const 0) (i32.const 0) (local.get $size)))
             (i32.const 0)",
        )
        .guest();
    for (pieces, read) in [(1, 0), (20, 1)] {
        let (mut host, route) = wasmx(&guest);
        host.set(|settings| settings.client_body_buffer_size = 100);
        let pieces = vec![vec![b'x'; 60 / pieces]; pieces];
        host.send(route, Request::new("POST", "/").chunked(pieces));
        assert_eq!(host.said("read"), [read]);
    }
}

/// Rule 31.
#[test]
fn tokens_start_at_0() {
    let (mut host, route) = wasmx(&caller().guest());
    host.send(route, Request::get("/"));
    host.send(route, Request::get("/"));
    let tokens: Vec<_> = host.callouts().iter().map(|callout| callout.token).collect();
    assert_eq!(tokens, [0, 1]);
}

/// Rule 32.
#[test]
fn a_callouts_memory_lives_until_its_clients_connection_closes() {
    let guest = caller().reply("(call $answer (i32.const 200) @\"\")").guest();
    let (mut host, route) = wasmx(&guest);
    let mut held = Vec::new();
    for _ in 0..2 {
        host.send(route, Request::get("/").on_connection(1));
        host.send(route, Request::get("/"));
        for callout in host.callouts() {
            host.end(callout.id, Ending::Reply(Reply::text(200, "ok")));
        }
        held.push(host.callout_memory());
    }
    assert_eq!(held[1], 2 * held[0]);
    host.close_connection(1);
    assert_eq!(host.callout_memory(), 0);
}
