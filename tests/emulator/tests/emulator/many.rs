//! Thousands of streams of one worker end at the same time: each gets its own answer, and the VM
//! lives, with what its memory mode has queued.

#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]

use kafka_upstream_emulator::{
    Client, Does, Ending, Guest, Host, Profile, Request, Route, Scene, Seen, configuration,
};
use serde_json::{Value, json};

const STREAMS: usize = 2000;

/// A filter in acked mode, and in the same VM one in memory mode with records that wait.
fn scene(fields: Value) -> (Scene, Route) {
    let mut host = Host::new(Profile::Envoy, &Guest::filter());
    let memory = json!({ "topic": "later", "producer_async_flush_timeout": 60_000 });
    let memory = host.configure(configuration(Profile::Envoy, memory)).unwrap();
    let mut acked = json!({ "producer_async": false });
    acked.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let mut scene = Scene::on(host, acked);
    assert_eq!(scene.post("warm").status(), 200);
    (scene, memory)
}

fn queue_300(scene: &mut Scene, memory: Route) {
    for n in 0..300 {
        let client = scene.host.send(memory, Request::post(format!("later {n}")));
        assert_eq!(scene.host.seen(client).status(), 200);
    }
}

fn wait(scene: &mut Scene) -> Vec<(Client, String)> {
    let bodies = (0..STREAMS).map(|n| format!("r {n}"));
    bodies.map(|body| (scene.send(Request::post(body.clone())), body)).collect()
}

/// Each client has this status and error, and no record is there twice.
fn assert_answered(scene: &Scene, clients: &[(Client, String)], status: u32, error: &str) {
    for (client, body) in clients {
        let seen = scene.host.seen(*client);
        let reply = seen.answered();
        assert_eq!((reply.status, reply.header("kafka-error").as_str()), (status, error), "{body}");
        if status == 200 {
            assert_eq!(scene.record(reply).body(), *body);
        }
    }
}

/// The VM has lived through it, and the records that its memory mode promised are written.
fn assert_alive(scene: &mut Scene) {
    scene.bridge.always(Does::Answers);
    scene.run_for(65_000);
    assert_eq!((scene.host.traps(), scene.host.violations().len()), (0, 0));
    for n in 0..300 {
        assert_eq!(scene.bridge.times(&format!("later {n}")), 1);
    }
    assert_eq!(scene.post("after").status(), 200);
    scene.assert_empty();
}

#[test]
fn thousands_of_streams_end_by_expiry() {
    let (mut scene, memory) = scene(json!({ "delivery_timeout": 2000 }));
    queue_300(&mut scene, memory);
    scene.bridge.always(Does::Ends(Ending::Stalled));
    let clients = wait(&mut scene);
    scene.run_for(4000);
    let of = |status| {
        let statuses = clients.iter().map(|(client, _)| scene.host.seen(*client).status());
        statuses.filter(|seen| *seen == status).count()
    };
    assert_eq!((of(504), of(503)), (4 * 200, STREAMS - 4 * 200), "sent to nobody, or in doubt");
    assert_alive(&mut scene);
}

#[test]
fn thousands_of_streams_end_by_refused_callouts() {
    let (mut scene, memory) = scene(json!({}));
    queue_300(&mut scene, memory);
    scene.host.fail("proxy_http_call", 10);
    let clients = wait(&mut scene);
    scene.host.turn();
    assert_answered(&scene, &clients, 503, "bridge_unreachable");
    scene.host.mend();
    assert_alive(&mut scene);
}

#[test]
fn thousands_of_streams_end_by_a_dead_bridge() {
    let limit = json!({ "producer_request_limits_messages_per_request": STREAMS / 2 });
    let (mut scene, memory) = scene(limit);
    queue_300(&mut scene, memory);
    let clients = wait(&mut scene);
    scene.bridge.always(Does::Ends(Ending::Refused));
    scene.host.serve(&mut scene.bridge);
    assert_answered(&scene, &clients, 503, "bridge_unreachable");
    assert_alive(&mut scene);
}

/// Clients that leave while their answers wait for the next turn get none, and no other client gets it.
#[test]
fn a_client_that_leaves_between_two_turns_is_not_answered() {
    let limit = json!({ "producer_request_limits_messages_per_request": STREAMS });
    let (mut scene, memory) = scene(limit);
    queue_300(&mut scene, memory);
    let clients = wait(&mut scene);
    scene.host.turn();
    let callouts = scene.host.callouts();
    let callout = callouts.into_iter().find(|one| one.path() == "/v1/produce").unwrap();
    let (_, ending) = scene.bridge.answer(&callout);
    scene.host.end(callout.id, ending);
    let pending = |scene: &Scene, one: &Client| scene.host.seen(*one) == Seen::Pending;
    let (gone, stay): (Vec<_>, Vec<_>) = clients
        .into_iter()
        .partition(|(client, body)| pending(&scene, client) && body.ends_with('7'));
    assert_eq!(gone.len(), 190, "a tenth of those that are not answered yet");
    for (client, _) in &gone {
        scene.host.hang_up(*client);
    }
    scene.host.serve(&mut scene.bridge);
    assert_answered(&scene, &stay, 200, "");
    for (client, body) in &gone {
        assert_eq!((scene.host.seen(*client), scene.bridge.times(body)), (Seen::Closed, 1));
    }
    assert_alive(&mut scene);
}
