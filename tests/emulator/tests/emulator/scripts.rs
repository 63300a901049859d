//! Every short script of a bridge that misbehaves, on the hosts where a request makes its own
//! callouts: a reply says no more than what the ledger holds.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test's helpers"
)]

use kafka_upstream_core::outcome::{Code, Outcome, Reason};
use kafka_upstream_emulator::{Does, Ending, Profile, Reply, Request, Scene, Seen};
use serde_json::{Value, json};

/// What a bridge, or what is between, can do with a callout.
fn deeds() -> Vec<Does> {
    let no = Outcome::NotWritten(Reason::new(Code::KafkaRefused, "no"));
    vec![
        Does::Answers,
        Does::Ends(Ending::Closed),
        Does::Ends(Ending::Unresolvable),
        Does::WorksBut(Ending::Reset),
        Does::WorksBut(Ending::Cut(Reply::text(200, "half"))),
        Does::Gives(no),
        Does::Refuses(413),
        Does::Refuses(503),
    ]
}

/// Scripts of three deeds; after them the bridge is well, or gone.
fn scripts() -> impl Iterator<Item = (Vec<Does>, Does)> {
    let count = deeds().len();
    (0..count.pow(3)).flat_map(move |n| {
        let script = [n % count, n / count % count, n / count / count];
        let script: Vec<_> = script.into_iter().map(|deed| deeds()[deed].clone()).collect();
        [Does::Answers, Does::Ends(Ending::Refused)].map(|last| (script.clone(), last))
    })
}

fn judge(profile: Profile, fields: &Value, check: impl Fn(&Scene, &Seen, &str)) {
    let mut scene = Scene::new(profile, fields.clone());
    for (n, (script, last)) in scripts().enumerate() {
        scene.bridge.always(Does::Answers);
        scene.ask(Request::post(format!("well {n}")));
        scene.bridge.ledger.clear();
        let what = format!("{profile:?} {script:?}, then {last:?}");
        script.into_iter().for_each(|does| _ = scene.bridge.next(does));
        scene.bridge.always(last);
        let client = scene.send(Request::new("POST", "/?t=a,b").body("x"));
        scene.run_for(12_000);
        let seen = scene.host.seen(client);
        check(&scene, &seen, &what);
        // What is left of the script must not hit the next request.
        while scene.bridge.forget_next().is_some() {}
    }
    scene.assert_empty();
}

fn fields(more: &Value) -> Value {
    let mut fields = json!({
        "topics_query_arg": "t",
        "allowed_topics": ["a", "b"],
        "delivery_timeout": 5000,
    });
    fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    fields
}

/// How often each of the two records is in the ledger.
fn written(scene: &Scene) -> [usize; 2] {
    ["a", "b"].map(|topic| scene.bridge.ledger.iter().filter(|one| one.topic == topic).count())
}

fn is_true(scene: &Scene, status: u32, what: &str) {
    let written = written(scene);
    match status {
        200 => assert!(written[0] > 0 && written[1] > 0, "{what}: 200, {written:?}"),
        503 => assert_eq!(written, [0, 0], "{what}: 503"),
        413 | 504 => {}
        other => panic!("{what}: {other}"),
    }
    // A bridge that has taken a batch does not find it too large when it comes again.
    if !(what.contains("WorksBut") && what.contains("413")) {
        assert!(written.iter().all(|times| *times <= 1), "{what}: {written:?}");
    }
}

const HOSTS: [Profile; 2] = [Profile::Wasmx, Profile::Apisix];

#[test]
fn a_reply_says_no_more_than_what_is_written() {
    for profile in HOSTS {
        for records in [1, 200] {
            let limit = "producer_request_limits_messages_per_request";
            let fields = fields(&json!({ "producer_async": false, limit: records }));
            judge(profile, &fields, |scene, seen, what| match seen {
                Seen::Answered(reply) => is_true(scene, reply.status, what),
                other => panic!("{what}: {other:?}"),
            });
        }
    }
}

#[test]
fn a_reply_says_no_more_than_what_the_bridge_has_queued() {
    judge(Profile::Apisix, &fields(&json!({})), |scene, seen, what| match seen {
        Seen::Answered(reply) => is_true(scene, reply.status, what),
        other => panic!("{what}: {other:?}"),
    });
}

#[test]
fn a_tap_goes_on_once_its_copy_is_written_and_is_answered_otherwise() {
    for profile in HOSTS {
        let fields = fields(&json!({ "producer_async": false, "mode": "tap" }));
        judge(profile, &fields, |scene, seen, what| match seen {
            Seen::Upstream(_) => is_true(scene, 200, what),
            Seen::Answered(reply) => {
                assert_ne!(reply.status, 200, "{what}");
                is_true(scene, reply.status, what);
            }
            other => panic!("{what}: {other:?}"),
        });
    }
}

#[test]
fn a_tap_in_memory_mode_always_goes_on() {
    let fields = fields(&json!({ "mode": "tap" }));
    judge(Profile::Apisix, &fields, |_, seen, what| {
        assert!(matches!(seen, Seen::Upstream(_)), "{what}: {seen:?}");
    });
}
