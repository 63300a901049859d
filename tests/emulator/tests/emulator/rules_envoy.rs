//! What Envoy does, shown on guests of a few lines.

#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]

use kafka_upstream_emulator::{
    Client, Ending, FailurePolicy, Guest, Host, Profile, Reply, Request, Route, Rule, Seen, Small,
};

fn envoy(guest: &Guest) -> (Host, Route) {
    let mut host = Host::new(Profile::Envoy, guest);
    let route = host.configure("").unwrap();
    (host, route)
}

/// A guest that pauses, and logs the sizes and ends that it gets.
fn collector() -> Small {
    Small::new()
        .headers("(call $say @\"end\" (local.get $end)) (i32.const 1)")
        .body(
            "(call $say @\"size\" (local.get $size)) (call $say @\"end\" (local.get $end))
             (i32.const 1)",
        )
        .trailers("(call $say @\"trailers\" (local.get $count)) (i32.const 1)")
}

/// A guest that pauses each request and makes a callout for it.
fn caller() -> Small {
    Small::new().headers(
        "(drop (call $call @\"host_bridge\" @[:method=GET, :path=/, :authority=b] @\"\"
           (i32.const 1000)))
         (i32.const 1)",
    )
}

fn pieces(sizes: &[usize]) -> Vec<Vec<u8>> {
    sizes.iter().map(|size| vec![b'x'; *size]).collect()
}

/// Rule 6.
#[test]
fn body_callbacks_tell_the_total_so_far() {
    let (mut host, route) = envoy(&collector().guest());
    host.send(route, Request::new("POST", "/").chunked(pieces(&[3, 4])));
    assert_eq!((host.said("size"), host.said("end")), (vec![3, 7, 7], vec![0, 0, 0, 1]));
    let (mut host, route) = envoy(&collector().guest());
    host.send(route, Request::post("abc"));
    assert_eq!((host.said("size"), host.said("end")), (vec![3], vec![0, 1]));
    let (mut host, route) = envoy(&collector().guest());
    host.send(route, Request::post("abc").trailers(&[("a", "1"), ("b", "2")]));
    assert_eq!((host.said("size"), host.said("end")), (vec![3], vec![0, 0]));
    assert_eq!(host.said("trailers"), [2]);
}

/// Rule 7.
#[test]
fn a_pause_at_headers_gets_the_body_only_with_the_option() {
    let mut host = Host::new(Profile::EnvoyNoStop, &collector().guest());
    let route = host.configure("").unwrap();
    let client = host.send(route, Request::post("abc"));
    assert_eq!((host.said("size"), host.seen(client)), (vec![], Seen::Pending));
    host.advance(30_000);
    assert_eq!(host.seen(client), Seen::Host(Reply::text(504, "stream timeout")));
}

/// Rule 8.
#[test]
fn continue_at_headers_sends_the_request_on_at_once() {
    let guest = Small::new()
        .headers("(i32.const 0)")
        .body("(call $say @\"size\" (local.get $size)) (i32.const 0)")
        .guest();
    let (mut host, route) = envoy(&guest);
    let client = host.send(route, Request::post("abc"));
    assert!(matches!(host.seen(client), Seen::Upstream(_)));
    assert!(host.said("size").is_empty());
}

/// Rule 9.
#[test]
fn the_buffer_limit_is_exact() {
    for (size, expected) in [(9, 504), (10, 504), (11, 413)] {
        let (mut host, route) = envoy(&collector().guest());
        host.set(|settings| settings.buffer_limit = 10);
        let client = host.send(route, Request::post(vec![b'x'; size]));
        host.advance(30_000);
        assert_eq!(host.seen(client).status(), expected, "{size}");
        assert_eq!(host.said("size").len(), usize::from(size <= 10));
        assert_eq!((host.callbacks("proxy_on_done"), host.contexts()), (1, 0));
    }
}

/// Rule 10.
#[test]
fn a_canary_and_the_main_thread_configure_and_get_no_request() {
    let guest = Small::new()
        .configure("(call $say @\"size\" (local.get $size)) (i32.const 1)")
        .headers("(call $say @\"request\" (i32.const 0)) (i32.const 0)")
        .guest();
    let mut host = Host::with_workers(Profile::Envoy, &guest, 2);
    let route = host.configure("12345").unwrap();
    assert_eq!((host.said("size"), host.live_vms()), (vec![5, 5, 5, 5], 3));
    host.send_to(1, route, Request::get("/"));
    assert_eq!(host.said("request").len(), 1);
    let refusing = Small::new().configure("(i32.const 0)").guest();
    assert!(Host::new(Profile::Envoy, &refusing).configure("").is_err());
}

/// Rule 11.
#[test]
fn a_queue_wakes_the_vm_that_registered_its_name_last() {
    let guest = Small::new()
        .configure("(drop (call $register @\"q\" (i32.const 72))) (i32.const 1)")
        .headers("(drop (call $enqueue (call $id) @\"x\")) (i32.const 1)")
        .queue(
            "(call $say @\"empty\" (call $dequeue (local.get $queue) (i32.const 64) (i32.const 68)))
             (call $say @\"empty\" (call $dequeue (local.get $queue) (i32.const 64) (i32.const 68)))",
        )
        .guest();
    let mut host = Host::with_workers(Profile::Envoy, &guest, 2);
    let route = host.configure("").unwrap();
    host.send_to(0, route, Request::get("/"));
    assert_eq!(host.callbacks("proxy_on_queue_ready"), 0, "not before the turn's end");
    host.turn();
    assert_eq!(host.said("empty"), [0, 7]);
    assert!(host.trace().contains("VM 3: proxy_on_queue_ready"), "{}", host.trace());
}

/// Rule 12.
#[test]
fn a_dead_effective_context_is_refused_and_a_reply_then_kills() {
    let guest = Small::new()
        .headers("(i32.const 1)")
        .configure("(drop (call $period (i32.const 10))) (i32.const 1)")
        .tick(
            "(call $say @\"act\" (call $act (i32.const 99))) (call $answer (i32.const 200) @\"\")",
        )
        .guest();
    let (mut host, _) = {
        let mut host = Host::new(Profile::Envoy, &guest);
        host.expect_violation(Rule(12));
        let route = host.configure("").unwrap();
        (host, route)
    };
    host.advance(10);
    assert!(host.said("act").contains(&2));
    assert_eq!(host.violations()[0].0, Rule(12));
}

/// Rule 13.
#[test]
fn the_last_local_reply_of_a_call_goes_out_after_it() {
    let guest = Small::new()
        .headers(
            "(call $answer (i32.const 200) @\"one\") (call $answer (i32.const 201) @\"two\")
             (call $say @\"done\" (i32.const 1)) (i32.const 1)",
        )
        .guest();
    let (mut host, route) = envoy(&guest);
    let client = host.send(route, Request::get("/"));
    let seen = host.seen(client);
    assert_eq!((seen.status(), seen.answered().body_text()), (201, "two".to_owned()));
    assert_eq!(host.callbacks("proxy_on_done"), 1);
}

/// Rule 14.
#[test]
fn a_callouts_failure_has_envoys_status_and_text() {
    let guest = caller()
        .reply(
            "(call $say @\"headers\" (local.get $headers))
             (drop (call $header (i32.const 6) @\":status\")) (call $show)
             (drop (call $read (i32.const 4) (i32.const 0) (local.get $body))) (call $show)
             (call $resume)",
        )
        .guest();
    let partial = Reply::text(200, "half");
    let cases = [
        (Ending::Refused, "503", "remote connection failure"),
        (Ending::Overflow, "503", "overflow"),
        (Ending::Closed, "503", "connection termination"),
        (Ending::Garbage, "502", "protocol error"),
        (Ending::Stalled, "504", "upstream request timeout"),
        (Ending::NoHost, "503", "no healthy upstream"),
        (Ending::Cut(partial.clone()), "", ""),
        (Ending::StalledAfterHeaders(partial), "", ""),
    ];
    for (ending, status, text) in cases {
        let (mut host, route) = envoy(&guest);
        host.send(route, Request::get("/"));
        host.end(host.callouts()[0].id, ending.clone());
        host.advance(1000);
        if status.is_empty() {
            assert_eq!(host.said("headers"), [0], "{ending:?}");
        } else {
            assert!(host.has_logged(status) && host.has_logged(text), "{ending:?}");
        }
    }
}

/// Rule 15.
#[test]
fn a_trap_leaves_paused_streams_hanging() {
    for (policy, in_reply, later) in [
        (FailurePolicy::Closed, 503, 503),
        (FailurePolicy::Open, 504, 504),
        (FailurePolicy::Reload, 0, 0),
    ] {
        let (mut host, route) = envoy(&caller().reply("(unreachable)").guest());
        host.set(|settings| settings.failure_policy = policy);
        let clients: Vec<Client> = (0..2).map(|_| host.send(route, Request::get("/"))).collect();
        host.end(host.callouts()[0].id, Ending::no_content());
        assert_eq!(host.seen(clients[0]).status(), in_reply, "{policy:?}");
        assert_eq!(host.seen(clients[1]), Seen::Pending, "{policy:?}");
        let next = host.send(route, Request::get("/"));
        assert_eq!(host.seen(next).status(), later, "{policy:?}");
        host.advance(30_000);
        let bare = Seen::Host(Reply { status: 503, ..Reply::default() });
        assert_eq!(host.seen(clients[1]), bare, "{policy:?}");
    }
}

/// Rule 15.
#[test]
fn a_second_reload_waits_for_its_backoff() {
    let (mut host, route) = envoy(&Small::new().headers("(i32.const 1)").guest());
    host.set(|settings| settings.failure_policy = FailurePolicy::Reload);
    let status = |host: &mut Host, traps: bool| {
        if traps {
            host.trap_in("proxy_on_request_headers");
        }
        let client = host.send(route, Request::get("/"));
        host.seen(client)
    };
    assert_eq!(status(&mut host, true).status(), 503);
    assert_eq!(status(&mut host, false), Seen::Pending, "a new VM at once");
    assert_eq!(status(&mut host, true).status(), 503);
    assert_eq!(status(&mut host, false).status(), 503, "too early");
    host.advance(1000);
    assert_eq!(status(&mut host, false), Seen::Pending);
}

/// Rule 16.
#[test]
fn on_done_comes_before_a_late_reply_which_is_dropped() {
    let guest = caller().reply("(call $say @\"reply\" (local.get $ctx))").guest();
    let (mut host, route) = envoy(&guest);
    let client = host.send(route, Request::get("/"));
    host.hang_up(client);
    assert_eq!((host.callbacks("proxy_on_done"), host.callouts_open()), (1, 0));
    host.advance(2000);
    assert!(host.said("reply").is_empty());
}

/// Rule 16.
#[test]
fn a_root_may_drain() {
    let guest = Small::new()
        .configure("(drop (call $period (i32.const 10))) (i32.const 1)")
        .done("(call $say @\"done\" (i32.const 1)) (i32.const 0)")
        .tick("(drop (call $drained))")
        .guest();
    let (mut host, route) = envoy(&guest);
    host.remove(route);
    assert!(!host.is_done(route));
    host.advance(10);
    assert!(host.is_done(route));
    let ticks = host.callbacks("proxy_on_tick");
    host.advance(100);
    assert_eq!(host.callbacks("proxy_on_tick"), ticks);
}

/// Rule 47.
#[test]
fn hundreds_of_answers_in_one_callback_end_the_vm() {
    let guest = Small::new()
        .headers("(i32.const 1)")
        .configure("(drop (call $period (i32.const 10))) (i32.const 1)")
        .tick(
            "(block $end (loop $next
               (local.set $root (i32.add (local.get $root) (i32.const 1)))
               (br_if $end (call $act (local.get $root)))
               (call $answer (i32.const 200) @\"\")
               (br $next)))",
        )
        .guest();
    for (count, trapped) in [(300, 0), (301, 1)] {
        let (mut host, route) = envoy(&guest);
        host.expect_violation(Rule(47));
        let clients: Vec<_> = (0..count).map(|_| host.send(route, Request::get("/"))).collect();
        host.advance(10);
        assert_eq!(host.traps(), trapped);
        let seen = if trapped == 0 { 200 } else { 0 };
        assert!(clients.iter().all(|client| host.seen(*client).status() == seen), "{count}");
    }
}

/// Rule 48.
#[test]
fn a_local_reply_to_a_grpc_request_is_a_200_with_a_grpc_status() {
    let answering = |grpc_status: &str| {
        let zero = "(i32.const 0)".repeat(6);
        let reply = format!("(call $local (i32.const 503) {zero} (i32.const {grpc_status}))");
        Small::new().headers(&format!("(drop {reply}) (i32.const 1)")).guest()
    };
    for (kind, grpc_status, status, told) in [
        ("application/grpc", "-1", 200, "14"),
        ("application/grpc+proto", "12", 200, "12"),
        ("application/grpc;a=b", "12", 503, ""),
        ("Application/grpc", "12", 503, ""),
        ("application/grpc-web", "12", 503, ""),
    ] {
        let (mut host, route) = envoy(&answering(grpc_status));
        let client = host.send(route, Request::new("POST", "/").header("content-type", kind));
        let seen = host.seen(client);
        let reply = seen.answered();
        assert_eq!((reply.status, reply.header("grpc-status").as_str()), (status, told), "{kind}");
    }
}

/// Rule 49.
#[test]
fn a_response_that_is_held_back_is_replaced_by_a_local_reply() {
    let guest = Small::new()
        .configure("(drop (call $period (i32.const 10))) (i32.const 1)")
        .headers("(i32.const 0)")
        .body("(i32.const 1)")
        .response("(call $say @\"response\" (local.get $count)) (i32.const 1)")
        .tick(
            "(if (i32.eqz (call $act (i32.const 2)))
                 (then (call $answer (i32.const 200) @\"\")))",
        )
        .guest();
    let mut host = Host::new(Profile::EnvoyNoStop, &guest);
    let route = host.configure("").unwrap();
    let client = host.send(route, Request::post("abc"));
    assert_eq!(host.seen(client), Seen::Pending);
    host.answer_behind(client, Reply::text(503, "gone"));
    assert_eq!((host.said("response"), host.seen(client)), (vec![2], Seen::Pending));
    host.advance(10);
    assert_eq!(host.said("response").len(), 1, "the local reply does not come by");
    assert_eq!(host.seen(client).answered().status, 200);
}
