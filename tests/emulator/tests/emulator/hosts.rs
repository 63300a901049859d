//! The filter knows which host it is in, and a tap never holds back what it may let go.

use kafka_upstream_emulator::{
    Bridge, Does, Ending, Guest, Host, Profile, Request, SERVED, Scene, Seen, configuration,
};
use serde_json::json;

fn name(profile: Profile) -> &'static str {
    match profile {
        Profile::Envoy | Profile::EnvoyNoStop => "envoy",
        Profile::Wasmx => "wasmx",
        Profile::Apisix => "apisix",
    }
}

/// The host is detected, or configured rightly.
#[test]
fn a_host_is_detected_or_configured() {
    for profile in SERVED {
        for host in ["auto", name(profile)] {
            let mut scene = Scene::acked(profile, json!({ "host": host }));
            assert_eq!(scene.post("abc").status(), 200, "{profile:?} as {host}");
            assert!(!scene.host.has_logged("host_mismatch"));
        }
    }
}

/// A wrong name for the host is refused at the first request, and logged; its ticks do no harm.
#[test]
fn a_wrong_host_is_refused_at_the_first_request() {
    for profile in SERVED {
        for told in SERVED.into_iter().filter(|told| name(*told) != name(profile)) {
            let mut host = Host::new(profile, &Guest::filter());
            let fields = json!({ "host": name(told), "bridge": "127.0.0.1:9280" });
            let Ok(route) = host.configure(configuration(profile, fields)) else { continue };
            let client = host.send(route, Request::post("abc"));
            let status = host.seen(client).status();
            assert_eq!(status, 500, "{profile:?} told it is {told:?}\n{}", host.trace());
            assert!(host.has_logged("host"), "{profile:?} told it is {told:?}");
            host.run_for(&mut Bridge::default(), 3000);
            assert_eq!((host.traps(), host.violations()), (0, Vec::new()), "{}", host.trace());
        }
    }
}

/// Whether a tap may be in memory mode, and in acked mode.
fn taps(profile: Profile) -> &'static [bool] {
    if profile == Profile::EnvoyNoStop { &[true] } else { &[true, false] }
}

/// A tap whose bridge is down: in memory mode the request goes on, in acked mode it is refused, and
/// never both.
#[test]
fn a_tap_with_its_bridge_down_does_one_of_both() {
    for profile in SERVED {
        for memory in taps(profile) {
            let fields = json!({ "mode": "tap", "producer_async": *memory });
            let mut scene = Scene::new(profile, fields);
            scene.bridge.always(Does::Ends(Ending::Refused));
            let client = scene.send(Request::post("abc"));
            scene.run_for(15_000);
            let seen = scene.host.seen(client);
            match *memory {
                true => assert!(matches!(seen, Seen::Upstream(_)), "{profile:?}: {seen:?}"),
                false => assert!([503, 504].contains(&seen.answered().status), "{profile:?}"),
            }
        }
    }
}

/// A tap whose record is written lets the request go on.
#[test]
fn a_tap_lets_the_request_go_on() {
    for profile in SERVED {
        for memory in taps(profile) {
            let fields = json!({ "mode": "tap", "producer_async": *memory });
            let mut scene = Scene::new(profile, fields);
            let client = scene.send(Request::post("abc"));
            scene.run_for(3000);
            assert!(matches!(scene.host.seen(client), Seen::Upstream(_)), "{profile:?}");
            assert_eq!(scene.bridge.times("abc"), 1, "{profile:?}, memory: {memory}");
        }
    }
}
