//! Each message format besides Kong's, from a client through Envoy into Kafka.

use harness::http::{Request, Response};
use harness::record::ReadRecord;
use kafka_upstream_tests::{Gateway, acked, record_of};
use serde_json::{Value, json};

/// What a record must be.
struct Expected {
    key: Option<&'static [u8]>,
    value: Option<&'static [u8]>,
    headers: Vec<(&'static str, Option<&'static [u8]>)>,
}

/// A request to a listener, and the record that it must become.
struct Row {
    listener: &'static str,
    request: Request,
    expected: Expected,
}

fn row(
    listener: &'static str,
    request: Request,
    key: Option<&'static str>,
    value: Option<&'static str>,
    headers: &[(&'static str, &'static str)],
) -> Row {
    let headers = headers.iter().map(|(name, value)| (*name, Some(value.as_bytes())));
    let expected = Expected {
        key: key.map(str::as_bytes),
        value: value.map(str::as_bytes),
        headers: headers.collect(),
    };
    Row { listener, request, expected }
}

fn listeners() -> [(&'static str, Value); 4] {
    [
        ("body", acked(&json!({ "message_format": "body" }))),
        ("cloudevents", acked(&json!({ "message_format": "cloudevents" }))),
        (
            "expression",
            acked(&json!({
                "message_expression":
                    "request.method == 'DELETE' ? null : \
                     {'order': message.body_args.id, 'from': request.headers['x-shop'], \
                      'path': request.path, 'local': source.address.startsWith('127.0.0.1:')}",
                "key_expression": "message.body_args.id",
                "partition_expression": "has(request.query.p) ? int(request.query.p) : null",
            })),
        ),
        (
            "routed",
            acked(&json!({
                "topic_expression": "request.query.to",
                "key_expression": "request.headers['x-key']",
                "record_headers_expression":
                    "{'method': request.method, 'tags': request.headers['x-tag'], \
                      'body': request.body_bytes, 'none': null}",
            })),
        ),
    ]
}

const JSON: &str = "application/json";
const EVENT: &str = "application/cloudevents+json; charset=UTF-8";
const STRUCTURED: &str =
    r#"{"id":"1","source":"/s","specversion":"1.0","type":"t","partitionkey":"k","data":[1.50]}"#;

fn order(method: &str, target: &str) -> Request {
    let request = Request::post(target, r#"{"id":17}"#).method(method);
    request.header("content-type", JSON).header("x-shop", "north")
}

fn event(body: &'static str) -> Request {
    let request = Request::post("/", body).header("ce-specversion", "1.0");
    request
        .header("ce-type", "order.made")
        .header("ce-source", "/shop")
        .header("ce-id", "A%20%C3%BC")
}

/// The headers of `event` in the record.
const CE: [(&str, &str); 4] = [
    ("ce_id", "A ü"),
    ("ce_source", "/shop"),
    ("ce_specversion", "1.0"),
    ("ce_type", "order.made"),
];

fn body_rows() -> Vec<Row> {
    let typed = Request::post("/", "{").header("content-type", JSON);
    let bare = Request::post("/", "a=%ff");
    let gzip = Request::post("/", "\u{1f}not gzip").header("content-encoding", "gzip");
    vec![
        row("body", typed, None, Some("{"), &[("content-type", JSON)]),
        row("body", bare, None, Some("a=%ff"), &[]),
        row("body", gzip, None, Some("\u{1f}not gzip"), &[]),
        row("body", Request::get("/"), None, Some(""), &[]),
    ]
}

fn cloudevents_rows() -> Vec<Row> {
    let typed =
        event("1").header("content-type", "text/plain").header("ce-partitionkey", "k%C3%A9y");
    let mut with_key = CE.to_vec();
    with_key.insert(1, ("ce_partitionkey", "kéy"));
    with_key.push(("content-type", "text/plain"));
    let structured = Request::post("/", STRUCTURED).header("content-type", EVENT);
    vec![
        row("cloudevents", event(""), None, None, &CE),
        row("cloudevents", typed, Some("kéy"), Some("1"), &with_key),
        row("cloudevents", structured, Some("k"), Some(STRUCTURED), &[("content-type", EVENT)]),
    ]
}

fn expression_rows() -> Vec<Row> {
    let made = r#"{"order":17,"from":"north","path":"/orders","local":true}"#;
    let routed = Request::post("/?to=routed", "x").header("content-type", "text/plain");
    let routed = routed.header("x-key", "Z\u{fc}rich").header("x-tag", "a").header("x-tag", "b");
    let headers = [("method", "POST"), ("tags", "a"), ("tags", "b"), ("body", "x")];
    let mut routed = row(
        "routed",
        routed,
        Some("Z\u{fc}rich"),
        Some(r#"{"body_args":{},"body":"x"}"#),
        &headers,
    );
    routed.expected.headers.push(("none", None));
    vec![
        row("expression", order("POST", "/orders?p=2"), Some("17"), Some(made), &[]),
        row("expression", order("DELETE", "/orders"), Some("17"), None, &[]),
        routed,
    ]
}

fn check(record: &ReadRecord, expected: &Expected) {
    let headers: Vec<_> =
        record.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
    assert_eq!((record.key.as_deref(), record.value.as_deref()), (expected.key, expected.value));
    assert_eq!(headers, expected.headers);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_is_written_byte_for_byte() -> anyhow::Result<()> {
    let gateway = Gateway::start(&listeners()).await?;
    let rows: Vec<_> =
        body_rows().into_iter().chain(cloudevents_rows()).chain(expression_rows()).collect();
    what_is_refused(&gateway).await?;
    let mut replies = Vec::new();
    for row in &rows {
        replies.push((row, gateway.send(row.listener, row.request.clone()).await?));
        replies.push((row, gateway.send(row.listener, row.request.clone().http2()).await?));
    }
    for (topic, _) in listeners() {
        let records = gateway.records(topic).await?;
        let sent = replies.iter().filter(|(row, _)| row.listener == topic);
        assert_eq!(records.len(), sent.clone().count());
        for (row, reply) in sent {
            assert_eq!(reply.status, 200, "{}", reply.text());
            check(record_of(&records, reply, topic)?, &row.expected);
        }
    }
    let chosen = &replies.iter().find(|(row, _)| row.expected.key == Some(b"17")).map(|(_, r)| r);
    assert_eq!(chosen.and_then(|reply| reply.header("kafka-partition")), Some("2"));
    Ok(())
}

/// What no format takes: 400, with the reason, and nothing in Kafka.
async fn what_is_refused(gateway: &Gateway) -> anyhow::Result<()> {
    let cases = [
        (
            "cloudevents",
            Request::post("/", "x").header("ce-id", "1"),
            "the request is not a valid CloudEvent: the attribute `source` is missing",
        ),
        (
            "cloudevents",
            event("").header("ce-time", "now"),
            "the request is not a valid CloudEvent: \
             the attribute `time` is not a timestamp of RFC 3339",
        ),
        (
            "cloudevents",
            Request::post("/", "[]").header("content-type", "application/cloudevents-batch+json"),
            "the request is not a valid CloudEvent: batched content mode is not supported: \
             send each event in a request of its own",
        ),
        (
            "expression",
            Request::post("/", "{}").header("content-type", JSON).header("x-shop", "north"),
            "message_expression: no such key: `id`",
        ),
        (
            "expression",
            order("POST", "/?p=x"),
            "partition_expression: `int`: the string does not fit",
        ),
        ("expression", order("POST", "/?p=-1"), "partition_expression: must be 0 to 2147483647"),
        ("routed", Request::post("/", "x"), "topic_expression: no such key: `to`"),
    ];
    for (listener, request, error) in cases {
        let reply = gateway.send(listener, request).await?;
        assert_eq!((reply.status, reply.header("kafka-error")), (400, Some("bad_request")));
        assert_eq!(reply.json()?, json!({ "message": "Bad Request", "error": error }));
    }
    let elsewhere = Request::post("/?to=body", "x").header("x-key", "k").header("x-tag", "t");
    let reply: Response = gateway.send("routed", elsewhere).await?;
    assert_eq!((reply.status, reply.header("kafka-error")), (502, Some("topic_not_allowed")));
    let beyond = gateway.send("expression", order("POST", "/?p=99")).await?;
    assert!(matches!(beyond.status, 502 | 503), "{} {}", beyond.status, beyond.text());
    Ok(())
}
