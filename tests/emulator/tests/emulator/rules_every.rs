//! What all hosts do, shown on guests of a few lines.

use kafka_upstream_emulator::{Guest, Host, Profile, Request, Rule, Seen, Small, imports, rule};

#[test]
fn every_rule_has_a_sentence() {
    for number in 1..=rule::RULES {
        assert!(!Rule(number).name().is_empty());
    }
}

/// Rule 1.
#[test]
fn a_host_links_its_own_functions_with_their_signatures() {
    let with = |module: &str, name: &str, parameters: &str| {
        Guest::wat(&format!(
            "(module (import \"{module}\" \"{name}\" (func (param {parameters}) (result i32))))"
        ))
    };
    for profile in Profile::ALL {
        assert_eq!(with("env", "proxy_log", "i32 i32 i32").load_error(profile), None);
        assert!(with("env", "proxy_log", "i32 i32").load_error(profile).is_some());
        assert!(with("env", "proxy_unheard_of", "i32").load_error(profile).is_some());
        let level = with("env", "proxy_get_log_level", "i32").load_error(profile);
        assert_eq!(level.is_none(), profile.is_envoy(), "{profile:?}: {level:?}");
        let metric = with("env", "proxy_get_metric", "i32 i32").load_error(profile);
        assert_eq!(metric.is_none(), profile != Profile::Apisix, "{profile:?}: {metric:?}");
        assert!(imports::names(profile).contains(&"proxy_http_call"));
    }
}

/// Rule 2.
#[test]
fn a_trap_in_a_request_has_its_hosts_answer() {
    let unreachable = Small::new().headers("(unreachable)").guest();
    let endless = Small::new()
        .function(
            "$deeper (param $n i32) (result i32)
             (i32.add (call $deeper (local.get $n)) (local.get $n))",
        )
        .headers("(call $deeper (local.get $ctx))")
        .guest();
    for (profile, guest) in
        Profile::ALL.into_iter().flat_map(|host| [(host, &unreachable), (host, &endless)])
    {
        let mut host = Host::new(profile, guest);
        let route = host.configure("").unwrap();
        let client = host.send(route, Request::get("/"));
        let status = if profile == Profile::Wasmx { 500 } else { 503 };
        assert!(matches!(host.seen(client), Seen::Host(reply) if reply.status == status));
        assert!(host.violations().is_empty());
    }
}

/// A trap on purpose has the same consequences as the guest's own.
#[test]
fn a_test_can_trap_a_callback() {
    let mut host = Host::new(Profile::Wasmx, &Small::new().headers("(i32.const 0)").guest());
    let route = host.configure("").unwrap();
    host.trap_in("proxy_on_request_headers");
    let (first, second) =
        (host.send(route, Request::get("/")), host.send(route, Request::get("/")));
    assert_eq!((host.seen(first).status(), host.seen(second).status()), (500, 504));
}

/// Rule 3.
#[test]
fn a_status_is_a_raw_number() {
    let guest = Small::new()
        .headers("(call $say @\"time\" (call $time (i32.const 64))) (i32.const 0)")
        .guest();
    let mut host = Host::new(Profile::Apisix, &guest);
    let route = host.configure("").unwrap();
    host.send(route, Request::get("/"));
    assert_eq!(host.said("time"), [12]);
    for status in 0..=12 {
        let mut host = Host::new(Profile::Envoy, &guest);
        let route = host.configure("").unwrap();
        host.fail("proxy_get_current_time_nanoseconds", status);
        host.send(route, Request::get("/"));
        assert_eq!(host.said("time"), [status]);
        assert_eq!(host.returned("proxy_get_current_time_nanoseconds", status), 1);
    }
}

/// A fault may strike one call of many.
#[test]
fn a_fault_strikes_the_call_that_is_named() {
    let guest = Small::new()
        .headers("(call $say @\"time\" (call $time (i32.const 64))) (i32.const 0)")
        .guest();
    let mut host = Host::new(Profile::Envoy, &guest);
    let route = host.configure("").unwrap();
    host.fail_once("proxy_get_current_time_nanoseconds", 1, 10);
    for _ in 0..3 {
        host.send(route, Request::get("/"));
    }
    assert_eq!(host.said("time"), [0, 10, 0]);
}

/// Rule 4.
#[test]
fn headers_keep_bytes_order_and_repeats() {
    let guest =
        Small::new().headers("(drop (call $map (i32.const 0))) (call $show) (i32.const 0)").guest();
    let request =
        Request::get("/").header("x-a", b"\xff\x80").header("x-b", "1").header("x-a", "2");
    for profile in [Profile::Envoy, Profile::Wasmx, Profile::Apisix] {
        let mut host = Host::new(profile, &guest);
        let route = host.configure("").unwrap();
        host.send(route, request.clone());
        let shown = host.logs()[0].text.clone();
        let places: Vec<_> = ["x-a\0\u{fffd}", "x-b\0", "x-a\x002"]
            .iter()
            .map(|part| shown.find(part).unwrap_or_else(|| panic!("{part:?} in {shown:?}")))
            .collect();
        assert!(places.is_sorted(), "{places:?}");
    }
}

/// Rule 4.
#[test]
fn every_host_has_its_limit_of_headers() {
    let guest = Small::new().headers("(call $say @\"n\" (local.get $count)) (i32.const 0)").guest();
    let many = (0..101).fold(Request::get("/"), |request, n| request.header(format!("x-{n}"), "1"));
    let mut envoy = Host::new(Profile::Envoy, &guest);
    let route = envoy.configure("").unwrap();
    let client = envoy.send(route, many.clone());
    assert_eq!((envoy.seen(client).status(), envoy.said("n").len()), (431, 0));
    let mut wasmx = Host::new(Profile::Wasmx, &guest);
    let route = wasmx.configure("").unwrap();
    wasmx.send(route, many);
    assert_eq!(wasmx.said("n"), [104], "four pseudo-headers and a hundred");
}

/// Rule 5.
#[test]
fn a_callback_that_runs_on_and_on_breaks_a_rule() {
    let guest = Small::new().headers("(loop (br 0)) (i32.const 0)").guest();
    let mut host = Host::new(Profile::Envoy, &guest);
    host.set(|settings| settings.fuel = 100_000);
    host.expect_violation(Rule(5));
    let route = host.configure("").unwrap();
    host.send(route, Request::get("/"));
    assert_eq!(host.violations()[0].0, Rule(5));
    assert!(host.crashed(0));
}
