//! Where a record goes and what it carries besides its message: topics, keys, record headers.

use anyhow::Context as _;
use harness::http::Request;
use harness::record::ReadRecord;
use kafka_upstream_tests::{Gateway, record_of, text};
use serde_json::{Value, json};

fn post(target: &str) -> Request {
    Request::post(target, "x").header("content-type", "text/plain")
}

fn headers(record: &ReadRecord) -> Vec<(&str, &str)> {
    let pairs = record.headers.iter().map(|(name, value)| {
        let value = value.as_deref().and_then(|value| std::str::from_utf8(value).ok());
        (name.as_str(), value.unwrap_or("?"))
    });
    pairs.collect()
}

fn listeners() -> Vec<(&'static str, Value)> {
    let topics = |more: Value| {
        let mut fields = json!({
            "producer_async": false, "topics_query_arg": "to",
            "allowed_topics": ["second", "third", "missing"],
        });
        if let (Some(fields), Some(more)) = (fields.as_object_mut(), more.as_object()) {
            fields.extend(more.clone());
        }
        fields
    };
    let headers = |headers: Value| json!({ "producer_async": false, "headers": headers });
    vec![
        ("first", topics(json!({}))),
        ("second", topics(json!({ "error_handling": { "return_error_message": true } }))),
        ("third", topics(json!({ "producer_async": true, "producer_async_flush_timeout": 10 }))),
        ("alone", topics(json!({ "group_commit": false }))),
        ("keyed", json!({ "producer_async": false, "key_query_arg": "key" })),
        (
            "listed",
            headers(json!({
                "include_headers": ["X-Tag", "x-tenant"],
                "name_mappings": { "X-Tenant": "tenant" },
                "trace_context": true,
            })),
        ),
        (
            "all",
            headers(json!({
                "forward_all_by_default": true,
                "exclude_headers": ["authorization", "host", "x-request-id", "x-forwarded-proto"],
                "repeated_headers_behavior": "concatenate_by_comma",
            })),
        ),
        (
            "once",
            headers(json!({
                "include_headers": ["x-tag"], "repeated_headers_behavior": "take_first",
            })),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_choose_topics_and_keys_within_what_is_allowed() -> anyhow::Result<()> {
    let gateway = Gateway::start(&listeners()).await?;
    several_topics_have_one_reply(&gateway).await?;
    a_topic_that_is_not_allowed_stops_all(&gateway).await?;
    a_missing_topic_is_the_worst(&gateway).await?;
    a_key_decides_the_partition(&gateway).await?;
    headers_become_record_headers(&gateway).await?;
    gateway.wait_until_empty().await
}

async fn several_topics_have_one_reply(gateway: &Gateway) -> anyhow::Result<()> {
    let one = gateway.send("first", post("/?to=second")).await?;
    assert_eq!(one.status, 200, "{}", one.text());
    record_of(&gateway.records("second").await?, &one, "second")?;
    let default = gateway.send("first", post("/?too=second")).await?;
    record_of(&gateway.records("first").await?, &default, "first")?;
    let several = gateway.send("first", post("/?to=first,second&to=third")).await?;
    assert_eq!((several.status, &*several.text()), (200, r#"{"message":"message sent"}"#));
    assert_eq!(several.header("kafka-topic"), None);
    let alone = gateway.send("alone", post("/?to=second,alone,second")).await?;
    assert_eq!((alone.status, alone.header("kafka-offset")), (200, None), "{}", alone.text());
    let memory = gateway.send("third", post("/?to=second,third")).await?;
    assert_eq!(memory.status, 200, "{}", memory.text());
    gateway.wait_until_empty().await?;
    for (topic, count) in [("first", 2), ("second", 4), ("third", 2), ("alone", 1)] {
        assert_eq!(gateway.records(topic).await?.len(), count, "{topic}");
    }
    Ok(())
}

async fn a_topic_that_is_not_allowed_stops_all(gateway: &Gateway) -> anyhow::Result<()> {
    let reply = gateway.send("first", post("/?to=first,second,other")).await?;
    assert_eq!((reply.status, reply.header("kafka-error")), (502, Some("topic_not_allowed")));
    let error = "one or more target topics are not in the allowed topics list";
    assert_eq!(reply.json()?, json!({ "message": "Bad Gateway", "error": error }));
    assert_eq!(gateway.records("first").await?.len(), 2, "nothing is sent");
    Ok(())
}

async fn a_missing_topic_is_the_worst(gateway: &Gateway) -> anyhow::Result<()> {
    let hidden = gateway.send("first", post("/?to=first,missing")).await?;
    assert_eq!((hidden.status, hidden.header("kafka-error")), (502, Some("unknown_topic")));
    assert!(!hidden.text().contains("topics"), "{}", hidden.text());
    let told = gateway.send("second", post("/?to=second,missing")).await?;
    let body = told.json()?;
    let line = |place: &str| body.pointer(&format!("/topics/{place}")).cloned();
    assert_eq!((told.status, line("0/topic")), (502, Some(json!("second"))));
    assert_eq!((line("0/status"), line("1/status")), (Some(json!(200)), Some(json!(502))));
    assert_eq!(line("1/code"), Some(json!("unknown_topic")));
    Ok(())
}

async fn a_key_decides_the_partition(gateway: &Gateway) -> anyhow::Result<()> {
    let mut partitions = Vec::new();
    for target in ["/?key=a%20b", "/?key=a+b&key=c", "/?other=1", "/?key="] {
        let reply = gateway.send("keyed", post(target)).await?;
        assert_eq!(reply.status, 200, "{}", reply.text());
        partitions.push(reply.header("kafka-partition").context("no partition")?.to_owned());
    }
    assert_eq!(partitions.first(), partitions.get(1));
    let records = gateway.records("keyed").await?;
    let mut keys: Vec<_> = records.iter().map(|record| record.key.as_deref()).collect();
    keys.sort_unstable();
    assert_eq!(keys, [None, Some(&b""[..]), Some(b"a b"), Some(b"a b")]);
    Ok(())
}

async fn headers_become_record_headers(gateway: &Gateway) -> anyhow::Result<()> {
    let request = || {
        text("x")
            .header("X-Tag", "1")
            .header("authorization", "Bearer secret")
            .header("x-tenant", "acme")
            .header("x-tag", "2")
            .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
            .header("x-request-id", "11111111-2222-3333-4444-555555555555")
    };
    for topic in ["listed", "all", "once"] {
        let reply = gateway.send(topic, request()).await?;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    let listed = gateway.records("listed").await?;
    let mut listed = headers(listed.first().context("no record")?);
    let id = listed.pop().context("no header")?;
    // Envoy gives requests from outside an id of its own.
    assert_eq!((id.0, id.1.len()), ("x-request-id", 36));
    let trace = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    assert_eq!(listed, [("x-tag", "1"), ("x-tag", "2"), ("tenant", "acme"), trace]);
    let all = gateway.records("all").await?;
    let all = headers(all.first().context("no record")?);
    let tags: Vec<_> = all.iter().filter(|(name, _)| *name == "x-tag").collect();
    assert_eq!(tags, [&("x-tag", "1,2")]);
    assert!(all.contains(&trace) && all.contains(&("content-type", "text/plain")), "{all:?}");
    assert!(!all.iter().any(|(name, _)| *name == "authorization" || *name == "host"), "{all:?}");
    let once = gateway.records("once").await?;
    assert_eq!(headers(once.first().context("no record")?), [("x-tag", "1")]);
    let reply = gateway.send("first", request()).await?;
    let records = gateway.records("first").await?;
    assert_eq!(headers(record_of(&records, &reply, "first")?), [], "as Kong, by default none");
    Ok(())
}
