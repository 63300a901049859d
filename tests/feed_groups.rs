//! Feeds in consumer groups: where pages start, and what is committed.

#![expect(clippy::indexing_slicing, reason = "what is missing in an answer fails the test")]

use std::time::Duration;

use anyhow::ensure;
use harness::bridge::{Bridge, Settings};
use harness::http::{Request, Response};
use harness::kafka::{Kafka, KafkaVersion};
use harness::ports;
use kafka_client::{Group, GroupConfig};
use kafka_upstream_tests::on_both_versions;
use kafka_upstream_tests::produce::client;
use serde_json::{Value, json};
use xtask::tools;

const FEEDS: &str = "\
[feeds.acked]\ntopics = ['orders']\nentrypoints = ['get']\nqos = 'at-least-once'\n\
encode_message_id = false\ngroup = { mode = 'manual', id = 'acked', allowed = ['other-*'] }\n\
[feeds.latest]\ntopics = ['orders']\nentrypoints = ['get']\nqos = 'balanced'\n\
group = { mode = 'client', prefix = 'p-' }\n\
[feeds.once]\ntopics = ['orders']\nentrypoints = ['get']\nqos = 'at-most-once'\n\
single_bridge = true\nauto_offset_reset = 'earliest'\ngroup = { mode = 'authenticated' }\n";
const WITHIN: Duration = Duration::from_secs(20);

struct Served {
    kafka: Kafka,
    bridge: Bridge,
    port: u16,
}

impl Served {
    async fn start(version: KafkaVersion) -> anyhow::Result<Self> {
        let kafka = Kafka::pooled(version).await?;
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
    let served = Served::start(version).await?;
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
    Ok(())
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

on_both_versions! {
    pages_are_read_where_their_group_is: super::groups;
}
