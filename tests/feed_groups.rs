//! Feeds in consumer groups: where pages start, and what is committed.

#![expect(clippy::indexing_slicing, reason = "what is missing in an answer fails the test")]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::ensure;
use harness::bridge::{Bridge, Settings};
use harness::http::{Request, Response};
use harness::kafka::{Kafka, KafkaVersion};
use harness::ports;
use harness::process::wait_until;
use kafka_client::{Group, GroupConfig, GroupOffset};
use kafka_upstream_tests::followers::Writer;
use kafka_upstream_tests::on_both_versions;
use kafka_upstream_tests::produce::client;
use serde_json::{Value, json};
use tokio::time::sleep;
use xtask::tools;

const FEEDS: &str = "\
[feeds.acked]\ntopics = ['orders']\nentrypoints = ['get']\nqos = 'at-least-once'\n\
encode_message_id = false\ngroup = { mode = 'manual', id = 'acked', allowed = ['other-*'] }\n\
[feeds.latest]\ntopics = ['orders']\nentrypoints = ['get']\nqos = 'balanced'\n\
group = { mode = 'client', prefix = 'p-' }\n\
[feeds.once]\ntopics = ['orders']\nentrypoints = ['get']\nqos = 'at-most-once'\n\
single_bridge = true\nauto_offset_reset = 'earliest'\ngroup = { mode = 'authenticated' }\n\
[feeds.killed]\ntopics = ['killed']\nentrypoints = ['get']\nqos = 'at-most-once'\n\
single_bridge = true\nauto_offset_reset = 'earliest'\ngroup = { mode = 'manual', id = 'killed' }\n";
const WITHIN: Duration = Duration::from_secs(20);
/// A minute, and some for brokers that are busy.
const EXPIRY: Duration = Duration::from_secs(120);

struct Served {
    kafka: Kafka,
    bridge: Bridge,
    port: u16,
}

impl Served {
    async fn start(kafka: Kafka) -> anyhow::Result<Self> {
        kafka.create_topic("orders", 3).await?;
        let port = ports::free()?;
        let mut settings = Settings::to(kafka.bootstrap());
        let listen = format!("listen = ['127.0.0.1:{port}']\ngateway = 'none'\n");
        settings.extra = format!("[feeds]\n{listen}{FEEDS}");
        Ok(Self { bridge: Bridge::start(settings).await?, kafka, port })
    }

    async fn write(&self, values: impl IntoIterator<Item = (i32, String)>) -> anyhow::Result<()> {
        for (partition, value) in values {
            let request = Request::post("/v1/clusters/default/topics/orders", value);
            let request = request.header("kafka-partition", partition.to_string());
            let reply = request.send(self.bridge.port()).await?;
            ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
        }
        Ok(())
    }

    async fn ask(&self, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<Response> {
        let mut request = Request::get(&format!("/v1/feeds/{path}"));
        for (name, value) in headers {
            request = request.header(&format!("kafka-upstream-{name}"), *value);
        }
        request.send(self.port).await
    }

    /// The values of a page, sorted, and the page.
    async fn page(
        &self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<(Vec<String>, Value)> {
        let reply = self.ask(path, headers).await?;
        ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
        let page: Value = reply.json()?;
        let items = page["items"].as_array().into_iter().flatten();
        let mut values: Vec<_> =
            items.filter_map(|item| item["content"].as_str().map(str::to_owned)).collect();
        values.sort();
        Ok((values, page))
    }

    async fn values(&self, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<Vec<String>> {
        Ok(self.page(path, headers).await?.0)
    }

    async fn commit(&self, cursor: &Value) -> anyhow::Result<Response> {
        let body = json!({ "cursor": cursor }).to_string();
        Request::post("/v1/feeds/acked/commits", body).send(self.port).await
    }

    fn group(&self, id: &str) -> anyhow::Result<Group> {
        Ok(client(&self.kafka.bootstrap(), &[])?.group(id))
    }
}

fn is_refused(reply: &Response, status: u16, error: &str) -> anyhow::Result<()> {
    ensure!(reply.status == status && reply.text().contains(error), "{}", reply.text());
    Ok(())
}

async fn groups(version: KafkaVersion) -> anyhow::Result<()> {
    let mut served = Served::start(Kafka::pooled(version).await?).await?;
    let numbered = |name: &str, range: std::ops::Range<i32>| -> Vec<_> {
        range.map(|number| (number % 3, format!("{name}{number}"))).collect()
    };
    served.write(numbered("old", 0..3)).await?;
    // A group begins where its first reader does, and misses nothing from then on.
    let alice = [("consumer", "alice"), ("client-id", "phone")];
    ensure!(served.values("acked?timeout=0", &[]).await?.is_empty());
    ensure!(served.values("latest?timeout=0", &alice).await?.is_empty());
    served.write(numbered("n", 0..5)).await?;
    let all = ["n0", "n1", "n2", "n3", "n4"];
    ensure!(served.values("latest?min=5", &alice).await? == all);
    ensure!(served.values("latest?timeout=0", &alice).await?.is_empty());
    let kept = served.group("p-alice.phone")?.committed(&[("orders", 0)], WITHIN).await;
    let kept = kept[0].clone()?.map(|kept| (kept.offset, kept.metadata.starts_with("anchor=")));
    ensure!(kept == Some((3, true)), "{kept:?}");
    is_refused(&served.ask("latest", &[("consumer", "bob")]).await?, 401, "identity_required")?;
    // At least once: until it is acknowledged.
    let (values, page) = served.page("acked?min=5", &[]).await?;
    ensure!(values == all && served.values("acked?min=5", &[]).await? == all, "{page}");
    is_refused(&served.ask("acked?from=earliest", &[]).await?, 400, "invalid_parameter")?;
    ensure!(served.commit(&page["pagination"]["nextCursor"]).await?.status == 204);
    ensure!(served.values("acked?timeout=0", &[]).await?.is_empty());
    served.write(numbered("m", 0..3)).await?;
    ensure!(served.values("acked?min=3", &[]).await? == ["m0", "m1", "m2"]);
    ensure!(served.values("acked?timeout=0", &[("group", "other-1")]).await?.is_empty());
    is_refused(&served.ask("acked", &[("group", "mine")]).await?, 403, "forbidden")?;
    // At most once.
    is_refused(&served.ask("once", &[]).await?, 401, "identity_required")?;
    ensure!(served.values("once?min=11", &alice).await?.len() == 11);
    ensure!(served.values("once?timeout=0", &alice).await?.is_empty());
    a_position_is_gone(&served).await?;
    // Members have the position.
    let (member, mut events) = served.group("acked")?.join(&["orders"], &GroupConfig::default());
    ensure!(events.next().await.is_some());
    is_refused(&served.ask("acked?timeout=0", &[]).await?, 409, "group_in_use")?;
    is_refused(&served.commit(&json!("orders@0#1")).await?, 409, "group_in_use")?;
    member.leave(WITHIN).await;
    ensure!(served.values("acked?min=3", &[]).await?.len() >= 3);
    bridges_are_killed(&mut served).await
}

/// At most once: whenever the bridge is killed a page is lost at most, and nothing comes twice.
async fn bridges_are_killed(served: &mut Served) -> anyhow::Result<()> {
    const LIMIT: u64 = 20;
    let kills = std::env::var("AT_MOST_ONCE_KILLS").ok().and_then(|kills| kills.parse().ok());
    let kills = kills.unwrap_or(2);
    served.kafka.create_topic("killed", 3).await?;
    let pause = (Duration::from_millis(5), 0);
    let writer = Writer::start(&client(&served.kafka.bootstrap(), &[])?, "killed", 0..3, pause);
    let read = Arc::<Mutex<Vec<String>>>::default();
    let (port, of_reader) = (served.port, Arc::clone(&read));
    let reader = tokio::spawn(async move {
        let path = format!("/v1/feeds/killed/messages?limit={LIMIT}&timeout=500");
        loop {
            let page: anyhow::Result<Value> =
                Request::get(&path).send(port).await.and_then(|reply| reply.json());
            let Ok(page) = page else {
                // The bridge is away, or the page was cut off.
                sleep(Duration::from_millis(20)).await;
                continue;
            };
            let items = page["items"].as_array().into_iter().flatten();
            let values = items.filter_map(|item| item["content"].as_str().map(str::to_owned));
            lock(&of_reader).extend(values);
        }
    });
    for _ in 0..kills {
        let before = lock(&read).len();
        wait_until("records", WITHIN, async || {
            let count = lock(&read).len() - before;
            ensure!(count > 100, "{count}");
            Ok(())
        })
        .await?;
        served.bridge.kill9()?;
        served.bridge.restart().await?;
    }
    let written = writer.finish().await?;
    let all: u64 = written.iter().sum();
    // What is written after the last kill is read.
    wait_until("the last records", WITHIN, async || {
        let values = served.values("killed?timeout=0", &[]).await?;
        let is_last = values.is_empty();
        lock(&read).extend(values);
        ensure!(is_last, "there are more");
        Ok(())
    })
    .await?;
    reader.abort();
    let ledger = lock(&read);
    let distinct: BTreeSet<_> = ledger.iter().collect();
    ensure!(distinct.len() == ledger.len(), "{} came twice", ledger.len() - distinct.len());
    let lost = all - ledger.len() as u64;
    println!("{kills} kills: {lost} of {all} records were lost");
    ensure!(lost <= kills * LIMIT, "{lost} of {all} were lost by {kills} kills");
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A partition whose offset has expired is read from when the group began.
async fn a_position_is_gone(served: &Served) -> anyhow::Result<()> {
    let mut command = tools::kafka_java(served.kafka.version())?.command(&[])?;
    command.args(tools::QUICK).arg("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand");
    command.args(["--bootstrap-server", &served.kafka.bootstrap(), "--delete-offsets"]);
    command.args(["--group", "acked", "--topic", "orders:1"]);
    let output = command.output()?;
    ensure!(output.status.success(), "{output:?}");
    let (values, page) = served.page("acked?min=5", &[]).await?;
    ensure!(values == ["m0", "m1", "m2", "n1", "n4"], "{page}");
    let gap =
        json!({"topic": "orders", "partition": 1, "from": null, "to": 1, "reason": "uncommitted"});
    ensure!(page["gaps"] == json!([gap]), "{page}");
    let (values, page) = served.page("acked?min=5", &[]).await?;
    ensure!(values.len() == 5 && page["gaps"] == json!([]), "{page}");
    Ok(())
}

/// Kafka forgets what is not committed again for a minute: of a group that is read, also a partition that
/// nothing was written to.
async fn offsets_expire(version: KafkaVersion) -> anyhow::Result<()> {
    let properties =
        [("offsets.retention.minutes", "1"), ("offsets.retention.check.interval.ms", "1000")];
    let served = Served::start(Kafka::start_voting(version, 1, 1, &properties).await?).await?;
    let alice = [("consumer", "alice"), ("client-id", "phone")];
    served.write([(1, "old".to_owned())]).await?;
    ensure!(served.values("latest?timeout=0", &alice).await?.is_empty());
    // Beside it, one that is committed once.
    let once = served.group("once")?;
    once.commit(&[GroupOffset::new("orders", 1, 1)], WITHIN).await.remove(0)?;
    wait_until("an offset to expire", EXPIRY, async || {
        served.write([(0, "busy".to_owned())]).await?;
        ensure!(served.values("latest?min=1", &alice).await? == ["busy"]);
        let kept = once.committed(&[("orders", 1)], WITHIN).await.remove(0)?;
        ensure!(kept.is_none(), "{kept:?}");
        Ok(())
    })
    .await?;
    served.write([(1, "new".to_owned())]).await?;
    let (values, page) = served.page("latest?min=1", &alice).await?;
    ensure!(values == ["new"] && page["gaps"] == json!([]), "{page}");
    Ok(())
}

#[tokio::test]
async fn offsets_of_a_group_that_is_read_do_not_expire() -> anyhow::Result<()> {
    offsets_expire(KafkaVersion::V4_3).await
}

on_both_versions! {
    pages_are_read_where_their_group_is: super::groups;
}
