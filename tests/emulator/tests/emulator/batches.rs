//! One callout carries what many requests queued, and each request gets its own answer.

use kafka_upstream_emulator::{Client, Ending, Guest, Host, Profile, Request, Scene};
use serde_json::json;

fn warm() -> Scene {
    let mut scene = Scene::acked(Profile::Envoy, json!({}));
    assert_eq!(scene.post("warm").status(), 200);
    scene
}

/// Each client's reply names the place of its own record.
fn assert_own_answers(scene: &Scene, clients: &[(Client, String)]) {
    for (client, body) in clients {
        let seen = scene.host.seen(*client);
        assert_eq!(scene.record(seen.answered()).body(), *body);
    }
}

fn send_many(scene: &mut Scene, count: usize, name: &str) -> Vec<(Client, String)> {
    let bodies = (0..count).map(|n| format!("{name} {n}"));
    bodies.map(|body| (scene.send(Request::post(body.clone())), body)).collect()
}

/// A third of the clients leave while their batch is in flight.
#[test]
fn clients_that_leave_lose_their_reply_and_not_their_record() {
    let mut scene = warm();
    let clients = send_many(&mut scene, 90, "r");
    scene.host.turn();
    let (gone, stay): (Vec<_>, Vec<_>) =
        clients.into_iter().enumerate().partition(|(position, _)| position % 3 == 0);
    for (_, (client, _)) in &gone {
        scene.host.hang_up(*client);
    }
    scene.host.serve(&mut scene.bridge);
    let stay: Vec<_> = stay.into_iter().map(|(_, client)| client).collect();
    assert_own_answers(&scene, &stay);
    for (_, (_, body)) in &gone {
        assert_eq!(scene.bridge.times(body), 1);
    }
    assert_eq!(scene.host.metric("kafka_upstream_client_gone"), 30);
    for (function, status, count) in scene.host.hostcalls() {
        assert!(status != 2, "{function} returned 2 {count} times");
    }
    scene.assert_empty();
}

/// The replies of batches arrive in any order.
#[test]
fn no_stream_gets_anothers_answer() {
    for seed in 0..50 {
        let mut scene = warm();
        scene.host.seed(seed);
        let mut clients = Vec::new();
        for turn in 0..4 {
            clients.extend(send_many(&mut scene, 2, &format!("turn {turn}")));
            scene.host.turn();
        }
        assert_eq!(scene.host.callouts_open(), 4);
        scene.host.serve_in_any_order(&mut scene.bridge);
        assert_own_answers(&scene, &clients);
        scene.assert_empty();
    }
}

/// Beside many in flight a request waits for others: no longer than the next tick.
#[test]
fn one_beside_many_in_flight_goes_out_with_the_tick() {
    let mut scene = warm();
    let mut clients = send_many(&mut scene, 8, "many");
    scene.host.turn();
    clients.extend(send_many(&mut scene, 1, "one"));
    scene.host.turn();
    assert_eq!(scene.host.callouts_open(), 1);
    scene.host.advance(110);
    assert_eq!(scene.host.callouts_open(), 2);
    scene.host.serve(&mut scene.bridge);
    assert_own_answers(&scene, &clients);
    scene.assert_empty();
}

/// Without a queue that wakes the root each request makes its own callout.
#[test]
fn without_a_queue_each_request_makes_its_own_callout() {
    let mut host = Host::new(Profile::Envoy, &Guest::filter());
    host.fail("proxy_register_shared_queue", 10);
    let mut scene = Scene::on(host, json!({ "producer_async": false }));
    let logged = scene.host.logs().iter().filter(|log| log.text.contains("no_wake_up")).count();
    assert_eq!(logged, 3, "a line for each VM's root");
    scene.post("warm");
    let clients = send_many(&mut scene, 10, "r");
    scene.host.serve(&mut scene.bridge);
    assert_own_answers(&scene, &clients);
    assert!(scene.bridge.batches.iter().all(|(_, _, records)| *records == 1));
    scene.assert_empty();
}

/// A host that gives every callout's end twice gives no second answer.
#[test]
fn a_second_reply_of_the_bridge_changes_nothing() {
    let mut scene = warm();
    let client = scene.send(Request::post("once"));
    scene.host.turn();
    let callout = scene.host.callouts().remove(0);
    let (_, ending) = scene.bridge.answer(&callout);
    let Ending::Reply(reply) = ending else { panic!("{ending:?}") };
    scene.host.end(callout.id, Ending::Duplicate(reply));
    assert_eq!(scene.host.seen(client).status(), 200);
    scene.assert_empty();
}
