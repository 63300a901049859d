//! Every outcome that the bridge can give, and the reply to it.

use kafka_upstream_core::outcome::{Code, Outcome, Reason};
use kafka_upstream_emulator::{Does, Profile, Request, Scene};
use serde_json::json;

fn acked() -> Scene {
    let mut scene = Scene::acked(Profile::Envoy, json!({ "delivery_timeout": 5000 }));
    assert_eq!(scene.post("warm").status(), 200);
    scene
}

/// The outcome of a record decides the client's status.
#[test]
fn the_outcome_of_a_record_decides_the_status() {
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
