//! A host with the shipped filter, one configuration, and the model bridge: what tests need.

use serde_json::{Value, json};

use crate::bridge::{Bridge, Written};
use crate::client::{Reply, Request, Seen};
use crate::host::{Client, Host, Route};
use crate::profile::Profile;
use crate::vm::Guest;

/// The hosts that the filter serves.
pub const SERVED: [Profile; 4] = Profile::ALL;

/// A host, its filter's configuration, and the bridge.
pub struct Scene {
    /// The host.
    pub host: Host,
    /// The bridge behind it.
    pub bridge: Bridge,
    /// The configuration.
    pub route: Route,
}

impl Scene {
    /// A filter in `acked` mode, with more fields.
    #[must_use]
    pub fn acked(profile: Profile, fields: Value) -> Self {
        Self::new(profile, with(json!({ "producer_async": false }), fields))
    }

    /// A filter in `memory` mode, with more fields.
    #[must_use]
    pub fn memory(profile: Profile, fields: Value) -> Self {
        Self::new(profile, fields)
    }

    /// A filter with these fields besides its bridge and its topic `orders`.
    #[must_use]
    pub fn new(profile: Profile, fields: Value) -> Self {
        let host = Host::new(profile, &Guest::filter());
        Self::on(host, fields)
    }

    /// As `new`, on a host that a test has set up.
    #[must_use]
    pub fn on(mut host: Host, fields: Value) -> Self {
        let route = host.configure(configuration(host.kind(), fields)).unwrap();
        Self { host, bridge: Bridge::new(), route }
    }

    /// Sends a request, lets the bridge work, and returns what the client has seen then.
    pub fn ask(&mut self, request: Request) -> Seen {
        let client = self.send(request);
        self.host.serve(&mut self.bridge);
        self.host.seen(client)
    }

    /// As `ask`, with a text as body.
    pub fn post(&mut self, body: &str) -> Seen {
        self.ask(Request::post(body))
    }

    /// Sends a request; the bridge does nothing yet.
    pub fn send(&mut self, request: Request) -> Client {
        self.host.send(self.route, request)
    }

    /// Lets time pass with the bridge at its work.
    pub fn run_for(&mut self, ms: u64) {
        self.host.run_for(&mut self.bridge, ms);
    }

    /// The record that a reply says was written.
    #[must_use]
    pub fn record(&self, reply: &Reply) -> &Written {
        let number = |name: &str| reply.header(name).parse::<i64>().unwrap();
        let (partition, offset) = (number("kafka-partition"), number("kafka-offset"));
        let there = |written: &&Written| {
            written.topic == reply.header("kafka-topic")
                && i64::from(written.partition) == partition
                && written.offset == offset
        };
        self.bridge.ledger.iter().find(there).expect("nothing at the place that a reply names")
    }

    /// Nothing is left: no context, no callout, no gauge above zero.
    pub fn assert_empty(&mut self) {
        self.run_for(200);
        assert_eq!((self.host.contexts(), self.host.callouts_open()), (0, 0));
        for name in [
            "queue_records",
            "queue_bytes",
            "batches_in_flight",
            "topics_failing",
            "streams_waiting",
        ] {
            assert_eq!(self.host.metric(&format!("kafka_upstream_{name}")), 0, "{name}");
        }
        assert!(self.host.violations().is_empty());
    }
}

/// A plugin configuration for a host, with more fields.
#[must_use]
pub fn configuration(profile: Profile, fields: Value) -> Value {
    let bridge = if profile.is_envoy() { "host_bridge" } else { "127.0.0.1:9280" };
    let own = match profile {
        Profile::EnvoyNoStop => json!({ "allow_on_headers_stop_iteration": false }),
        _ => json!({}),
    };
    with(with(json!({ "bridge": bridge, "topic": "orders" }), own), fields)
}

fn with(mut all: Value, fields: Value) -> Value {
    if let (Some(all), Value::Object(fields)) = (all.as_object_mut(), fields) {
        all.extend(fields);
    }
    all
}
