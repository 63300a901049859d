//! Many requests in one event loop: batches that wait, replies that come in another order, clients
//! that leave, and configurations that share a VM.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::ensure;
use harness::bridge::{Bridge, Settings};
use harness::envoy::{Envoy, EnvoyConfig, Listener};
use harness::http::Response;
use harness::kafka::{Kafka, KafkaVersion};
use harness::load::{Limit, Load, Requests};
use harness::process::wait_until;
use kafka_upstream_core::limits::BATCHES_IN_FLIGHT_SHARED;
use kafka_upstream_core::wire;
use kafka_upstream_tests::relay::{Does, Relay};
use kafka_upstream_tests::{Gateway, acked, bodies, configuration, record_of, text};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};
use xtask::build;

/// A gateway whose listeners share a VM and have bridges of their own: relays, by the listener.
async fn start(
    workers: u32,
    names: &[&'static str],
) -> anyhow::Result<(Gateway, BTreeMap<&'static str, Relay>)> {
    let kafka = Kafka::pooled(KafkaVersion::V4_3).await?;
    let bridge = Bridge::start(Settings::to(kafka.bootstrap())).await?;
    let mut config = EnvoyConfig::new(build::filter()?).concurrency(workers);
    let mut relays = BTreeMap::new();
    for name in names {
        kafka.create_topic(name, 1).await?;
        let relay = Relay::start(&bridge).await?;
        let fields = acked(&json!({ "bridge": name, "delivery_timeout": 60_000 }));
        let listener = Listener::filter(name, configuration(name, &fields));
        let listener = listener.vm_id("shared").stream_idle_timeout_s(90);
        config = config.cluster(name, relay.port()).listener(listener);
        relays.insert(*name, relay);
    }
    Ok((Gateway { envoy: Envoy::start(config).await?, bridge, kafka }, relays))
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_that_wait_reach_their_own_clients() -> anyhow::Result<()> {
    let (gateway, relays) = start(1, &["held"]).await?;
    let held = Held { gateway: &gateway, relay: &relays["held"] };
    assert_eq!(gateway.send("held", text("warm")).await?.status, 200);
    held.swapped_replies_reach_their_own_clients().await?;
    held.who_leaves_before_the_dispatch_takes_nobodys_answer().await?;
    held.a_thousand_requests_that_queue_make_few_callouts().await
}

/// A listener whose batches wait in its relay until the test lets them go.
#[derive(Clone, Copy)]
struct Held<'a> {
    gateway: &'a Gateway,
    relay: &'a Relay,
}

impl Held<'_> {
    /// Sends a request whose batch is held, and waits until it is.
    async fn hold(
        self,
        body: &str,
        release: usize,
    ) -> anyhow::Result<JoinHandle<anyhow::Result<Response>>> {
        let before = self.relay.batches().len();
        self.relay.next(Does::Holds(release));
        let asking =
            tokio::spawn(text(body).timeout(PATIENCE).send(self.gateway.envoy.port("held")?));
        wait_until("a batch", PATIENCE, async || {
            ensure!(self.relay.batches().len() > before);
            Ok(())
        })
        .await?;
        Ok(asking)
    }

    /// Waits until so many streams of the filter wait, and no more than the batches are in flight.
    async fn wait_for_waiting(self, streams: u64) -> anyhow::Result<()> {
        wait_until("streams that wait", PATIENCE, async || {
            let waiting = self.gateway.gauge("streams_waiting").await?;
            ensure!(waiting == streams, "{waiting} wait, not {streams}");
            Ok(())
        })
        .await
    }

    /// Each reply names the place of its client's own record.
    async fn assert_own(self, replies: &[(String, Response)]) -> anyhow::Result<()> {
        let records = self.gateway.records("held").await?;
        for (body, reply) in replies {
            assert_eq!(reply.status, 200, "{body}: {}", reply.text());
            let message = record_of(&records, reply, "held")?.json()?;
            assert_eq!(message.get("body"), Some(&json!(body)));
        }
        Ok(())
    }

    async fn swapped_replies_reach_their_own_clients(self) -> anyhow::Result<()> {
        let first = self.hold("first", 2).await?;
        let second = self.hold("second", 1).await?;
        self.relay.release(1);
        let second = second.await??;
        assert!(!first.is_finished(), "the first reply is still held");
        self.relay.release(2);
        let replies = [("first".to_owned(), first.await??), ("second".to_owned(), second)];
        self.assert_own(&replies).await?;
        self.gateway.wait_until_empty().await
    }

    /// Three requests queue one after the other behind batches that wait; the second one's client
    /// leaves.
    async fn who_leaves_before_the_dispatch_takes_nobodys_answer(self) -> anyhow::Result<()> {
        let mut asking = Vec::new();
        for number in 0..BATCHES_IN_FLIGHT_SHARED {
            let body = format!("before {number}");
            asking.push((body.clone(), self.hold(&body, 3).await?));
        }
        let port = self.gateway.envoy.port("held")?;
        let waiting = BATCHES_IN_FLIGHT_SHARED as u64;
        asking.push(("left".to_owned(), tokio::spawn(text("left").send(port))));
        self.wait_for_waiting(waiting + 1).await?;
        let mut leaving = TcpStream::connect(("127.0.0.1", port)).await?;
        let head = "POST / HTTP/1.1\r\nhost: h\r\ncontent-type: text/plain\r\n";
        leaving.write_all(format!("{head}content-length: 4\r\n\r\ngone").as_bytes()).await?;
        self.wait_for_waiting(waiting + 2).await?;
        asking.push(("right".to_owned(), tokio::spawn(text("right").send(port))));
        self.wait_for_waiting(waiting + 3).await?;
        drop(leaving);
        self.wait_for_waiting(waiting + 2).await?;
        let gone = self.gateway.gauge("client_gone").await?;
        self.relay.release(3);
        let mut replies = Vec::new();
        for (body, reply) in asking {
            replies.push((body, reply.await??));
        }
        self.assert_own(&replies).await?;
        self.gateway.wait_until_empty().await?;
        assert_eq!(self.gateway.gauge("client_gone").await? - gone, 1);
        let written = bodies(&self.gateway.records("held").await?)?;
        assert_eq!(written.get("gone"), Some(&1), "it was received in full");
        Ok(())
    }

    async fn a_thousand_requests_that_queue_make_few_callouts(self) -> anyhow::Result<()> {
        let mut asking = Vec::new();
        for number in 0..BATCHES_IN_FLIGHT_SHARED {
            asking.push(self.hold(&format!("ahead {number}"), 4).await?);
        }
        let port = self.gateway.envoy.port("held")?;
        let (batches, callouts) =
            (self.relay.batches().len(), self.gateway.gauge("callouts").await?);
        let mut thousand = JoinSet::new();
        for number in 0..1000 {
            let body = format!("r {number}");
            thousand.spawn(async move {
                let reply = text(&body).timeout(PATIENCE).send(port).await;
                (body, reply)
            });
        }
        self.wait_for_waiting(1000 + BATCHES_IN_FLIGHT_SHARED as u64).await?;
        self.relay.release(4);
        let mut replies = Vec::new();
        for (body, reply) in thousand.join_all().await {
            replies.push((body, reply?));
        }
        for ahead in asking {
            assert_eq!(ahead.await??.status, 200);
        }
        self.assert_own(&replies).await?;
        let made = self.relay.batches().len() - batches;
        println!("a thousand requests made {made} batches");
        assert!(made <= BATCHES_IN_FLIGHT_SHARED + 1, "{made} batches");
        assert_eq!(self.gateway.gauge("callouts").await? - callouts, made as u64);
        self.gateway.wait_until_empty().await
    }
}

const PATIENCE: Duration = Duration::from_secs(40);

/// Two configurations with bridges of their own share a VM, on each of two workers.
#[tokio::test(flavor = "multi_thread")]
async fn configurations_in_one_vm_keep_to_their_bridges_and_wake_ups() -> anyhow::Result<()> {
    let (gateway, relays) = start(2, &["orders", "payments"]).await?;
    let mut loads = Vec::new();
    for name in relays.keys() {
        let requests = Requests::post("/", "text/plain", |number| number.to_string().into());
        let load = Load::new(gateway.envoy.port(name)?, requests).connections(64);
        loads.push((*name, tokio::spawn(load.limit(Limit::Requests(5000)).run())));
    }
    let mut vms = BTreeSet::new();
    for (name, load) in loads {
        let report = load.await??;
        assert_eq!(report.count(200), 5000, "{name}: {:?}", report.counts());
        assert_eq!(bodies(&gateway.records(name).await?)?.len(), 5000, "{name}");
        for frame in relays[name].batches() {
            let batch = wire::decode_frame(&frame)?;
            assert!(batch.records.iter().all(|record| record.topic == name), "{name}");
            vms.insert((name, batch.head.vm));
        }
        // A stolen wake-up would leave its request to the next tick, 100 ms apart.
        let requests = Requests::post("/", "text/plain", |_| b"one".to_vec());
        let one = Load::new(gateway.envoy.port(name)?, requests).limit(Limit::Requests(100));
        let median_us = one.run().await?.quantile_us(0.5);
        assert!(median_us < 40_000, "{name}: half take {median_us} us");
    }
    let distinct: BTreeSet<_> = vms.iter().map(|(_, vm)| vm).collect();
    assert_eq!((vms.len(), distinct.len()), (4, 4), "each root of each worker has its own queue");
    gateway.wait_until_empty().await
}
