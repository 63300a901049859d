//! Every host call of the filter returns every status once: no trap, and every client an answer.

use std::collections::BTreeMap;
use std::thread;

use kafka_upstream_emulator::rule::RULES;
use kafka_upstream_emulator::{Bridge, Guest, Host, Profile, Request, Rule, SERVED, configuration};
use serde_json::json;

/// A host call by its function and number, and the status that it returns.
type FaultCase = (&'static str, u64, u32);

/// Two requests on a host where one call fails; their replies, and how many records are written.
fn play(profile: Profile, fault: Option<FaultCase>) -> (Host, Vec<u32>, usize) {
    let mut host = Host::new(profile, &Guest::filter());
    for rule in 1..=RULES {
        host.expect_violation(Rule(rule));
    }
    if let Some((function, nth, status)) = fault {
        host.fail_once(function, nth, status);
    }
    let fields = json!({ "producer_async": false, "forward_headers": true });
    let Ok(route) = host.configure(configuration(profile, fields)) else {
        return (host, vec![], 0);
    };
    let mut bridge = Bridge::new();
    let clients = [host.send(route, Request::post("a")), host.send(route, Request::get("/"))];
    host.run_for(&mut bridge, 31_000);
    let replies = clients.map(|client| host.seen(client).status());
    (host, replies.to_vec(), bridge.ledger.len())
}

/// The first calls of `proxy_set_effective_context` are the SDK's: one before each of three callouts'
/// ends (unknown profile, registration, batch). The filter's own follow, to answer.
const SDK_CALLS: u64 = 3;

/// Faults that no host makes. The SDK does not survive them: its dispatch knows three statuses, and
/// it turns to the context that a callout's end is for, which always lives. And WasmX does not
/// say that it is Envoy, which the status of the first property is taken for.
fn is_none(profile: Profile, (function, nth, status): FaultCase) -> bool {
    match function {
        "proxy_get_property" => (profile, nth, status) == (Profile::Wasmx, 0, 1),
        "proxy_http_call" => ![2, 10].contains(&status),
        "proxy_set_effective_context" => !profile.is_envoy() || nth < SDK_CALLS,
        _ => false,
    }
}

/// The hosts are played side by side: one after the other they would be what the suite waits for.
#[test]
fn no_status_of_a_host_call_traps() {
    thread::scope(|scope| {
        for profile in SERVED {
            scope.spawn(move || no_status_traps_on(profile));
        }
    });
}

fn no_status_traps_on(profile: Profile) {
    let (calm, ..) = play(profile, None);
    let mut faults = Vec::new();
    let mut calls: BTreeMap<&'static str, u64> = BTreeMap::new();
    for (function, _, count) in calm.hostcalls() {
        *calls.entry(function).or_default() += count;
    }
    for (function, count) in calls {
        for nth in 0..count.min(CALLS) {
            faults.extend((1..=12).map(|status| (function, nth, status)));
        }
    }
    faults.retain(|fault| !is_none(profile, *fault));
    let survives = |fault: &FaultCase| {
        let (host, replies, _) = play(profile, Some(*fault));
        let known = [200, 400, 413, 500, 503, 504];
        let known = replies.iter().all(|status| known.contains(status));
        assert!(known, "{profile:?} {fault:?}: {replies:?}\n{}", host.trace());
        host.traps() == 0 && host.violations().is_empty()
    };
    let all = faults.len();
    faults.retain(|fault| !survives(fault));
    assert!(faults.is_empty(), "{profile:?}: {} of {all} trap: {faults:?}", faults.len());
}

/// Where the SDK panics the VM ends, and no client gets a false success.
#[test]
fn a_trap_of_the_sdk_is_no_success() {
    for profile in SERVED {
        let mut traps = 0;
        for function in ["proxy_http_call", "proxy_set_effective_context"] {
            for (nth, status) in (0..4).flat_map(|nth| (1..=12).map(move |status| (nth, status))) {
                let (host, replies, written) = play(profile, Some((function, nth, status)));
                traps += host.traps();
                let successes = replies.iter().filter(|status| **status == 200).count();
                assert!(successes <= written, "{profile:?} {function} {nth} {status}: {replies:?}");
            }
        }
        assert!(traps > 0, "{profile:?} survives it all: nothing need be left out any more");
    }
}

/// Calls of one function that return an injected status, from the first.
const CALLS: u64 = 12;
