//! What clients send reaches Kafka whole, whatever pieces it comes in.

use kafka_upstream_emulator::{Bridge, Guest, Host, Profile, Request};
use serde_json::json;

#[test]
fn a_posted_text_is_one_record() {
    let mut host = Host::new(Profile::Envoy, &Guest::filter());
    let config = json!({ "bridge": "host_bridge", "topic": "orders", "producer_async": false });
    let orders = host.configure(config).unwrap();
    let mut bridge = Bridge::new();
    let client = host.send(orders, Request::post("hello"));
    host.serve(&mut bridge);
    let seen = host.seen(client);
    assert_eq!(seen.answered().status, 200);
    assert_eq!(bridge.times("hello"), 1);
}
