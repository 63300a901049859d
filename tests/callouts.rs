//! Envoy's callouts fail in every way: what was not sent is a 503, what may be written is asked for
//! again under its sequence, and doubt that lasts is a 504.

use std::time::{Duration, Instant};

use anyhow::ensure;
use harness::bridge::{Bridge, Settings};
use harness::envoy::{Envoy, EnvoyConfig, Listener};
use harness::kafka::{Kafka, KafkaVersion};
use harness::load::{self, HangUp, Limit, Load, Requests};
use harness::ports;
use harness::process::wait_until;
use kafka_upstream_core::outcome::Outcome;
use kafka_upstream_core::wire;
use kafka_upstream_tests::relay::{Does, Ending, Relay, marked, reply};
use kafka_upstream_tests::{Gateway, acked, bodies, configuration, text};
use serde_json::json;
use xtask::build;

/// Clusters whose callouts never leave Envoy.
const UNSENT: [&str; 4] = ["refused", "overflow", "no-host", "unknown"];
const DEADLINE: Duration = Duration::from_millis(2000);
/// What a VM may grow by while it is told nonsense: a whole reply would be four times this.
const GROWTH_BYTES: u64 = 4 * 1024 * 1024;

/// The ways in which a reply is lost.
fn lost() -> Vec<(String, Ending)> {
    let half = Ending::Reply(b"HTTP/1.1 204 x\r\n\r\n".to_vec());
    let endings = [Ending::Closed, Ending::Reset, Ending::Cut, Ending::Garbage, half];
    let named = endings.into_iter().enumerate();
    named.map(|(number, ending)| (format!("lost-{number}"), ending)).collect()
}

/// The replies that never come.
fn stalled() -> Vec<(String, Ending)> {
    vec![
        ("stalled".to_owned(), Ending::Stalled),
        ("stalled-in-body".to_owned(), Ending::StalledInBody),
    ]
}

/// Replies that are not the bridge's, or do not fit a batch of one record.
fn misfits() -> anyhow::Result<Vec<(String, Ending)>> {
    let written = Outcome::Written { partition: 0, offset: Some(7) };
    let outcomes = |count: usize| wire::encode_outcomes(&vec![written.clone(); count]);
    let other = format!("{}: 2\r\n", wire::MARKER);
    let replies = [
        ("unmarked", reply(200, "", &outcomes(1)?)),
        ("other-version", reply(200, &other, &outcomes(1)?)),
        ("too-few", marked(200, &outcomes(0)?)),
        ("too-many", marked(200, &outcomes(2)?)),
        ("undecodable", marked(200, &[0xff; 10])),
        ("too-long", marked(200, &vec![1; 16 * 1024 * 1024])),
    ];
    Ok(replies.map(|(name, reply)| (name.to_owned(), Ending::Reply(reply))).into())
}

/// A gateway whose listeners have relays of their own, by name.
async fn start(
    relayed: &[(String, Ending)],
) -> anyhow::Result<(Gateway, Vec<(String, Ending, Relay)>)> {
    let kafka = Kafka::pooled(KafkaVersion::V4_3).await?;
    let bridge = Bridge::start(Settings::to(kafka.bootstrap())).await?;
    let mut config = EnvoyConfig::new(build::filter()?)
        .cluster("refused", ports::free()?)
        .full_cluster("overflow", bridge.port())
        .empty_cluster("no-host");
    let mut relays = Vec::new();
    for (name, ending) in relayed {
        let relay = Relay::start(&bridge).await?;
        config = config.cluster(name, relay.port());
        relays.push((name.clone(), ending.clone(), relay));
    }
    let names = relayed.iter().map(|(name, _)| name.as_str()).chain(UNSENT);
    for name in names {
        kafka.create_topic(name, 1).await?;
        let fields = json!({
            "bridge": name, "delivery_timeout": DEADLINE.as_millis(), "max_body_bytes": 1000,
        });
        let listener = Listener::filter(name, configuration(name, &acked(&fields)));
        config = config.listener(listener.vm_id("callouts"));
    }
    Ok((Gateway { envoy: Envoy::start(config).await?, bridge, kafka }, relays))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callout_that_fails_makes_no_false_answer() -> anyhow::Result<()> {
    let mixed = ("mixed".to_owned(), Ending::Closed);
    let all = [lost(), stalled(), misfits()?, vec![mixed]].concat();
    let (gateway, mut relays) = start(&all).await?;
    what_is_not_sent_is_a_503_and_not_written(&gateway).await?;
    let (_, _, mixed) = relays.pop().ok_or_else(|| anyhow::anyhow!("no relay"))?;
    for (name, ending, relay) in relays.iter().take(lost().len()) {
        a_lost_reply_is_asked_for_again(&gateway, name, ending, relay).await?;
    }
    doubt_that_lasts_is_a_504(&gateway, &relays).await?;
    no_answer_is_false_while_a_tenth_fails_each_way(&gateway, &mixed).await?;
    gateway.wait_until_empty().await
}

async fn what_is_not_sent_is_a_503_and_not_written(gateway: &Gateway) -> anyhow::Result<()> {
    for name in UNSENT {
        for round in 0..3 {
            let reply = gateway.send(name, text("lost")).await?;
            let told = (reply.status, reply.header("retry-after"), reply.header("kafka-error"));
            assert_eq!(told, (503, Some("1"), Some("bridge_unreachable")), "{name} {round}");
        }
        assert_eq!(gateway.records(name).await?.len(), 0, "{name}");
    }
    Ok(())
}

async fn a_lost_reply_is_asked_for_again(
    gateway: &Gateway,
    name: &str,
    ending: &Ending,
    relay: &Relay,
) -> anyhow::Result<()> {
    assert_eq!(gateway.send(name, text("first")).await?.status, 200, "{name}");
    for (body, does) in
        [("unwritten", Does::Ends(ending.clone())), ("written", Does::WorksBut(ending.clone()))]
    {
        let before = relay.batches().len();
        relay.next(does);
        let reply = gateway.send(name, text(body)).await?;
        assert_eq!(reply.status, 200, "{name}, {body}: {}", reply.text());
        let batches = relay.batches();
        assert_eq!(batches.len(), before + 2, "{name}");
        let [.., first, second] = batches.as_slice() else { continue };
        let (first, second) = (wire::decode_frame(first)?, wire::decode_frame(second)?);
        assert_eq!(first.head.sequence, second.head.sequence, "{name}");
    }
    let written = bodies(&gateway.records(name).await?)?;
    assert!(written.len() == 3 && written.values().all(|times| *times == 1), "{written:?}");
    Ok(())
}

/// Each listener's bridge fails in one way until the deadline, all at the same time.
async fn doubt_that_lasts_is_a_504(
    gateway: &Gateway,
    relays: &[(String, Ending, Relay)],
) -> anyhow::Result<()> {
    let mut asking = tokio::task::JoinSet::new();
    for (name, ending, relay) in relays {
        assert_eq!(gateway.send(name, text("before")).await?.status, 200, "{name}");
        relay.always(&[Does::Ends(ending.clone())]);
    }
    let memory = gateway.gauge("memory_bytes").await?;
    for (name, _, _) in relays {
        let (name, port) = (name.clone(), gateway.envoy.port(name)?);
        asking.spawn(async move {
            let start = Instant::now();
            (name, text("doubtful").send(port).await, start.elapsed())
        });
    }
    for (name, reply, took) in asking.join_all().await {
        let reply = reply?;
        assert_eq!(reply.status, 504, "{name}: {}", reply.text());
        assert!(reply.text().contains("the message may have been written"), "{name}");
        // The last attempt that fits in may end it a little earlier.
        assert!(took > DEADLINE / 2 && took < 2 * DEADLINE, "{name}: {took:?}");
    }
    for (name, _, relay) in relays {
        relay.always(&[]);
        assert_eq!(gateway.send(name, text("after")).await?.status, 200, "{name}");
        let written = bodies(&gateway.records(name).await?)?;
        assert_eq!(written.get("doubtful"), None, "{name}: the bridge never had it");
        assert_eq!(written.get("after"), Some(&1), "{name}");
    }
    gateway.wait_until_empty().await?;
    let grown = gateway.gauge("memory_bytes").await?.saturating_sub(memory);
    println!("the VM grew by {grown} bytes");
    assert!(grown < GROWTH_BYTES, "{grown} bytes of {memory}");
    Ok(())
}

/// A tenth of the batches and a tenth of the requests fails each way.
async fn no_answer_is_false_while_a_tenth_fails_each_way(
    gateway: &Gateway,
    relay: &Relay,
) -> anyhow::Result<()> {
    use Does::{Answers, Ends, WorksBut};
    relay.always(&[
        Answers,
        Ends(Ending::Closed),
        WorksBut(Ending::Reset),
        Answers,
        WorksBut(Ending::Garbage),
        Ends(Ending::Reply(marked(503, b"{\"error\":\"busy\"}"))),
        Answers,
        WorksBut(Ending::Cut),
        Ends(Ending::Reply(marked(404, b"{\"error\":\"unknown_profile\"}"))),
        WorksBut(Ending::Stalled),
    ]);
    let requests = Requests::raw(|number, out| {
        let (kind, body) = match number % 10 {
            0 => ("text/plain", "x".repeat(1001)),
            1 => ("application/json", "{".to_owned()),
            _ => ("text/plain", number.to_string()),
        };
        let length = body.len();
        let head = format!(
            "POST / HTTP/1.1\r\nhost: h\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n"
        );
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(body.as_bytes());
    });
    let report = Load::new(gateway.envoy.port("mixed")?, requests)
        .connections(200)
        .limit(Limit::Duration(Duration::from_secs(8)))
        .hang_up(HangUp { fraction: 0.1, within: Duration::from_millis(20) })
        .run()
        .await?;
    relay.always(&[]);
    gateway.wait_until_empty().await?;
    let written = bodies(&gateway.records("mixed").await?)?;
    let twice = written.values().filter(|times| **times > 1).count();
    ensure!(twice == 0, "{twice} are written twice");
    for (number, ending) in report.endings() {
        let there = written.contains_key(&number.to_string());
        match (ending, number % 10) {
            (load::Ending::Status(413), 0) | (load::Ending::Status(400), 1) => {}
            (load::Ending::Status(200), 2..) => ensure!(there, "{number} has a false 200"),
            (load::Ending::Status(503), 2..) => ensure!(!there, "{number} has a false 503"),
            (load::Ending::Status(504), 2..) | (load::Ending::HungUp, _) => {}
            other => anyhow::bail!("{number} ended as {other:?}: {:?}", report.counts()),
        }
    }
    println!("{:?}", report.counts());
    for status in [200, 400, 413, 503, 504] {
        assert!(report.count(status) > 10, "{status}: {:?}", report.counts());
    }
    Ok(())
}

/// Envoy's own retries on the bridge's cluster hide nothing: a batch that was written before the
/// bridge went away is in doubt, whatever a second attempt would have met.
#[tokio::test(flavor = "multi_thread")]
async fn envoys_retries_make_no_written_record_a_503() -> anyhow::Result<()> {
    let kafka = Kafka::pooled(KafkaVersion::V4_3).await?;
    kafka.create_topic("retried", 1).await?;
    let bridge = Bridge::start(Settings::to(kafka.bootstrap())).await?;
    let relay = Relay::start(&bridge).await?;
    let fields = json!({ "bridge": "retried", "delivery_timeout": 2000 });
    let listener = Listener::filter("retried", configuration("retried", &acked(&fields)));
    let config = EnvoyConfig::new(build::filter()?).retried_cluster("retried", relay.port());
    let envoy = Envoy::start(config.listener(listener)).await?;
    let gateway = Gateway { envoy, bridge, kafka };
    ensure!(gateway.send("retried", text("warm")).await?.status == 200);

    relay.next(Does::WorksBut(Ending::Stalled));
    let asking = tokio::spawn(text("written").send(gateway.envoy.port("retried")?));
    wait_until("the record", Duration::from_secs(10), async || {
        ensure!(bodies(&gateway.records("retried").await?)?.contains_key("written"));
        Ok(())
    })
    .await?;
    drop(relay);
    let reply = asking.await??;
    ensure!(reply.status == 504, "{} {}", reply.status, reply.text());
    ensure!(gateway.envoy.stat("cluster.retried.upstream_rq_retry").await? == 0);
    Ok(())
}
