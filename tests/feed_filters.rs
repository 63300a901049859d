//! Feeds with filters, values by expression and dead letters, on real Kafka.

use anyhow::{Context as _, ensure};
use harness::bridge::{Bridge, Settings};
use harness::http::Request;
use harness::kafka::{Kafka, KafkaVersion};
use harness::ports;
use harness::reader::read_all;
use serde_json::{Value, json};

/// A feed of the topic `orders` as JSON, with these fields.
async fn start(kafka: &Kafka, fields: &str) -> anyhow::Result<(Bridge, u16)> {
    let port = ports::free()?;
    let mut settings = Settings::to(kafka.bootstrap());
    settings.extra = format!(
        "[feeds]\nlisten = ['127.0.0.1:{port}']\n[feeds.orders]\ntopics = ['orders']\n\
         auto_offset_reset = 'earliest'\ndeserializer = 'json'\n{fields}\n"
    );
    Ok((Bridge::start(settings).await?, port))
}

async fn write(bridge: &Bridge, value: &str) -> anyhow::Result<()> {
    let request = Request::post("/v1/clusters/default/topics/orders", value.to_owned());
    let reply = request.header("kafka-key", "k").send(bridge.port()).await?;
    ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
    Ok(())
}

/// Contents of a page, and the cursor behind it.
async fn page(port: u16, query: &str) -> anyhow::Result<(Vec<Value>, String)> {
    let reply = Request::get(&format!("/v1/feeds/orders?{query}")).send(port).await?;
    ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
    let page = reply.json()?;
    let items = page.get("items").and_then(Value::as_array).context("items")?;
    let contents = items.iter().filter_map(|item| item.get("content").cloned()).collect();
    let next = page.pointer("/pagination/nextCursor").and_then(Value::as_str);
    Ok((contents, next.context("nextCursor")?.to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_get_what_the_filters_let_pass_and_nothing_is_read_twice() -> anyhow::Result<()> {
    let kafka = Kafka::pooled(KafkaVersion::V4_3).await?;
    kafka.create_topic("orders", 1).await?;
    let fields = "filter = 'value.total >= 100'\nallow_client_filter = true\n\
                  value_expression = \"{'total': value.total, 'key': key}\"";
    let (bridge, port) = start(&kafka, fields).await?;
    for number in 0..150 {
        write(&bridge, &format!(r#"{{"total":{number},"card":"4111"}}"#)).await?;
    }
    let (contents, next) = page(port, "timeout=1000&min=50").await?;
    assert_eq!(contents.len(), 50);
    assert_eq!(contents.first(), Some(&json!({ "total": 100, "key": "k" })), "no card");
    write(&bridge, r#"{"total":1}"#).await?;
    let (none, behind) = page(port, &format!("timeout=500&cursor={next}")).await?;
    assert_eq!(none, [Value::Null; 0]);
    assert_ne!(behind, next, "the cursor has moved over what was filtered");
    let filter = "timeout=1000&filter=value.total%20%3D%3D%20120";
    assert_eq!(page(port, filter).await?.0, [json!({ "total": 120, "key": "k" })]);
    for (filter, status) in [
        ("value.", 400),
        ("%5B1%5D.exists(n%2C%20n%20%3D%3D%201)", 400),
        // Of no record is there a result: it is nobody's.
        ("value.missing%20%3D%3D%201", 200),
    ] {
        let path = format!("/v1/feeds/orders?timeout=0&filter={filter}");
        let reply = Request::get(&path).send(port).await?;
        assert_eq!(reply.status, status, "{filter}: {}", reply.text());
        match status {
            200 => assert!(reply.text().starts_with(r#"{"items":[],"#), "{}", reply.text()),
            _ => assert!(reply.text().contains("filter_invalid"), "{}", reply.text()),
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_decoded_goes_to_the_dead_letter_topic_once() -> anyhow::Result<()> {
    let kafka = Kafka::pooled(KafkaVersion::V4_3).await?;
    kafka.create_topic("orders", 1).await?;
    kafka.create_topic("dead", 1).await?;
    let fields = "on_decode_error = 'dlq'\ndlq_topic = 'dead'";
    let (bridge, port) = start(&kafka, fields).await?;
    for value in ["1", "no json", "2"] {
        write(&bridge, value).await?;
    }
    for _ in 0..3 {
        assert_eq!(page(port, "timeout=2000&min=2").await?.0, [json!(1), json!(2)]);
    }
    let dead = read_all(&kafka.bootstrap(), "dead").await?;
    let [dead] = dead.as_slice() else { anyhow::bail!("{} dead letters", dead.len()) };
    assert_eq!(dead.value.as_deref(), Some(&b"no json"[..]));
    assert_eq!(dead.key.as_deref(), Some(&b"k"[..]));
    let header = |name: &str| {
        let name = format!("kafka-upstream-dlq-{name}");
        dead.headers.iter().find(|(of, _)| *of == name).map(|(_, value)| value.clone())
    };
    let text = |text: &str| Some(Some(text.as_bytes().to_vec()));
    for (name, value) in
        [("reason", "decode_error"), ("topic", "orders"), ("partition", "0"), ("offset", "1")]
    {
        assert_eq!(header(name), text(value), "{name}");
    }
    Ok(())
}
