//! Many requests, a tenth of which fails each way: no false answer, flat memory, empty tables.

use std::collections::BTreeMap;

use kafka_upstream_emulator::{Client, Does, Ending, Profile, Reply, Request, SERVED, Scene};
use serde_json::json;

/// Rounds of fifty requests on each host; `ROUNDS` sets another number.
const ROUNDS: usize = 200;
const REQUESTS: usize = 50;
/// After so many rounds the guest has all the memory that it needs.
const WARM: usize = 50;

/// Ways in which callouts fail. Three more tenths fail before or without one: see `request`.
fn fate(tenth: usize) -> Does {
    match tenth {
        0 => Does::Ends(Ending::Refused),
        1 => Does::WorksBut(Ending::Closed),
        2 => Does::WorksBut(Ending::Cut(Reply::text(200, "half"))),
        3 => Does::WorksBut(Ending::Stalled),
        4 => Does::Refuses(503),
        6 => Does::Ends(Ending::Garbage),
        7 => Does::WorksBut(Ending::no_content()),
        8 => Does::Refuses(404),
        _ => Does::Answers,
    }
}

const LEAVES: usize = 5;
const TOO_LARGE: usize = 6;
const BAD: usize = 7;

fn request(number: usize, body: &str) -> Request {
    match number % 10 {
        TOO_LARGE => Request::post("x".repeat(1001)),
        BAD => Request::post(body).without("content-length").header("content-length", "x"),
        _ => Request::post(body),
    }
}

/// The round's orders for the bridge: on Envoy a failure is a whole batch's, so it is the round's.
fn order(scene: &mut Scene, profile: Profile, round: usize) {
    if profile.is_envoy() {
        scene.bridge.next(fate(round % 10));
        return;
    }
    let makes_callout = |number: &usize| ![TOO_LARGE, BAD].contains(&(number % 10));
    for number in (0..REQUESTS).filter(makes_callout) {
        // Both of the tenths that make none have their fate in turn.
        let tenth = if number % 10 == 9 { 6 + round % 4 } else { number % 10 };
        scene.bridge.next(fate(tenth));
    }
}

/// The reply to a client, against what is in Kafka.
fn judge(scene: &mut Scene, client: Client, number: usize, body: &str) -> u32 {
    let seen = scene.host.take(client);
    let status = seen.status();
    let times = scene.bridge.times(body);
    let is_true = match (number % 10, status) {
        (LEAVES, 0) | (_, 504) => times <= 1,
        (TOO_LARGE, 413) | (BAD, 400) | (0..=4 | 8.., 503) => times == 0,
        (0..=4 | 8.., 200) => scene.record(seen.answered()).body() == body && times == 1,
        _ => false,
    };
    assert!(is_true, "{body}: {seen:?}, written {times} times");
    status
}

#[test]
fn nothing_leaks_and_no_answer_is_false_while_a_tenth_fails_each_way() {
    let requested = std::env::var("ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    let rounds: usize = requested.unwrap_or(ROUNDS).max(2 * WARM);
    for profile in SERVED {
        let fields = json!({ "delivery_timeout": 1000, "max_body_bytes": 1000 });
        let mut scene = Scene::acked(profile, fields);
        let mut statuses: BTreeMap<u32, usize> = BTreeMap::new();
        let mut warm = 0;
        for round in 0..rounds {
            let bodies: Vec<_> = (0..REQUESTS).map(|number| format!("{round} {number}")).collect();
            let numbered = bodies.iter().enumerate();
            let clients: Vec<_> =
                numbered.map(|(number, body)| scene.send(request(number, body))).collect();
            order(&mut scene, profile, round);
            scene.host.turn();
            for client in clients.iter().skip(LEAVES).step_by(10) {
                scene.host.hang_up(*client);
            }
            scene.run_for(1700);
            for (number, client) in clients.into_iter().enumerate() {
                let status = judge(&mut scene, client, number, &bodies[number]);
                *statuses.entry(status).or_default() += 1;
            }
            scene.bridge.clear();
            scene.host.clear_logs();
            if round == WARM {
                warm = scene.host.pages();
            }
        }
        println!("{profile:?}: {statuses:?}");
        for status in [0, 400, 413] {
            assert_eq!(statuses[&status], rounds * REQUESTS / 10, "{profile:?}: {statuses:?}");
        }
        for status in [200, 503, 504] {
            assert!(statuses[&status] >= rounds, "{profile:?}: {statuses:?}");
        }
        assert_eq!(scene.host.pages(), warm, "{profile:?} grows");
        scene.assert_empty();
    }
}
