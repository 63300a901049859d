//! Requests made to break the filter: each gets a 4xx or becomes the right record, and the worker
//! serves the next one.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::load::{Ending, Limit, Load, Requests};
use harness::record::ReadRecord;
use kafka_upstream_tests::{Gateway, acked, text};
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// A request as bytes, and its body.
struct Attack {
    request: Vec<u8>,
    body: Vec<u8>,
}

fn attack(target: &[u8], headers: &[&[u8]], body: &[u8]) -> Attack {
    let mut request = [b"POST ", target, b" HTTP/1.1\r\nhost: h\r\n"].concat();
    for header in headers {
        request.extend_from_slice(header);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
    request.extend_from_slice(body);
    Attack { request, body: body.to_vec() }
}

const TYPES: [&[u8]; 8] = [
    b"content-type: application/json",
    b"content-type: application/x-www-form-urlencoded",
    b"content-type: multipart/form-data; boundary=b",
    b"content-type: text/plain",
    b"content-type: application/octet-stream",
    b"content-type: application/cloudevents+json",
    b"content-type: \xff\xfe; boundary=\"",
    b"x-no: type",
];

/// A whole CloudEvent, so that what is attacked is what comes after it.
const EVENT: [&[u8]; 4] = [b"ce-id: 1", b"ce-source: /s", b"ce-type: t", b"ce-specversion: 1.0"];

fn bodies() -> Vec<Vec<u8>> {
    let part = "--b\r\ncontent-disposition: form-data; name=a\r\n\r\n1\r\n";
    let event = r#"{"id":"1","source":"/","specversion":"1.0","type":"t","data":"#;
    let deep = ["[".repeat(100_000), "]".repeat(100_000)].concat();
    let gzip = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xcb\x48\xcd\xc9\xc9\x07\x00\x86\xa6\x10\x36\x05\x00\x00\x00";
    vec![
        b"\xff\xfe\x80\xc0\xaf".to_vec(),
        b"{\"a\":\"\xff\"}".to_vec(),
        b"{\"a\":\"\\ud800\"}".to_vec(),
        b"{\"a\":1e999999,\"a\":-0}".to_vec(),
        b"a=%f".to_vec(),
        b"%&=&%ff=%fe&&==".to_vec(),
        "a=1&".repeat(10_000).into_bytes(),
        deep.clone().into_bytes(),
        r#"{"a":"#.repeat(20_000).into_bytes(),
        format!("{event}{deep}}}").into_bytes(),
        format!("[{}1]", "{},".repeat(20_000)).into_bytes(),
        format!("{}--b--", part.repeat(10_000)).into_bytes(),
        part.repeat(10).into_bytes(),
        b"--b\r\n\r\n".to_vec(),
        b"--b\r\n".repeat(20_000),
        "\u{0}\"\\".repeat(20_000).into_bytes(),
        gzip.to_vec(),
        Vec::new(),
    ]
}

fn attacks() -> Vec<Attack> {
    let mut attacks = Vec::new();
    for kind in TYPES {
        for body in bodies() {
            attacks.push(attack(b"/", &[kind, EVENT[0], EVENT[1], EVENT[2], EVENT[3]], &body));
        }
    }
    let many = [b"/?".to_vec(), b"a=1&".repeat(10_000)].concat();
    let flags = [b"/?".to_vec(), b"&".repeat(40_000)].concat();
    let targets: [&[u8]; 9] = [
        b"/\xff\xfe",
        b"/%ff%",
        b"/?a=%f",
        b"/?%",
        b"/?a=%ff",
        b"/?\xff=\xc3\x28",
        b"/?a=%00",
        &many,
        &flags,
    ];
    for target in targets {
        attacks.push(attack(target, &EVENT, b"x"));
    }
    let bomb: Vec<Vec<u8>> =
        (0..80).map(|at| format!("x-{at}: {}", "b".repeat(600)).into_bytes()).collect();
    attacks.push(attack(b"/", &bomb.iter().map(Vec::as_slice).collect::<Vec<_>>(), b"x"));
    let long = [b"x-long: ".to_vec(), b"\xff".repeat(50_000)].concat();
    let boundary =
        [&b"content-type: multipart/form-data; boundary="[..], &b"b".repeat(5000)].concat();
    let single: [&[u8]; 12] = [
        b"x-latin: \xff\xfe\x80",
        b"ce-id: %",
        b"ce-subject: a%2",
        b"ce-subject: %ff",
        b"ce-subject: \"",
        b"ce-subject: \xff",
        b"ce-: 1",
        b"ce-time: %",
        &long,
        &boundary,
        b"content-encoding: gzip",
        b"content-type: application/json, application/json",
    ];
    for header in single {
        attacks.push(attack(b"/", &[header, EVENT[0], EVENT[1], EVENT[2], EVENT[3]], b"\x1f\x8b"));
    }
    attacks
}

fn listeners() -> [(&'static str, Value); 5] {
    [
        ("kong", acked(&json!({ "forward_uri": false }))),
        ("kong-all", acked(&json!({ "forward_uri": true, "forward_headers": true }))),
        ("body", acked(&json!({ "message_format": "body" }))),
        ("cloudevents", acked(&json!({ "message_format": "cloudevents" }))),
        (
            "expression",
            acked(&json!({
                "message_expression": "request.body_bytes",
                "key_expression": "size(message) > 0 && has(message.body) ? request.time : request.uri",
                "record_headers_expression":
                    "{'q': request.query.map(k, k), 'h': request.headers.map(k, k), \
                      'size': string(size(request))}",
            })),
        ),
    ]
}

/// Whether a record holds the body of the request that it came from.
fn check(listener: &str, record: &ReadRecord, body: &[u8]) -> anyhow::Result<()> {
    let value = record.value.as_deref().unwrap_or_default();
    if !listener.starts_with("kong") {
        ensure!(value == body, "another value: {:?}", String::from_utf8_lossy(value));
        return Ok(());
    }
    // The other members may nest deeper than a parser of values goes.
    let message: BTreeMap<String, &RawValue> = serde_json::from_slice(value)?;
    let told: String = serde_json::from_str(message.get("body").context("no body")?.get())?;
    let told = match message.contains_key("body_base64") {
        true => STANDARD.decode(told).map_err(anyhow::Error::msg)?,
        false => told.into_bytes(),
    };
    ensure!(told == body, "another body");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_request_gets_a_4xx_or_is_written_and_the_next_one_is_served()
-> anyhow::Result<()> {
    let gateway = Gateway::start(&listeners()).await?;
    let vms = created(&gateway).await?;
    for (listener, _) in listeners() {
        let attacks = attacks();
        let count = attacks.len() as u64;
        let sent: Vec<_> = attacks.iter().map(|attack| attack.request.clone()).collect();
        let good = attack(b"/", &EVENT, b"good").request;
        let requests = Requests::raw(move |number, out| {
            let hostile = sent.get(number as usize / 2).filter(|_| number % 2 == 0);
            out.extend_from_slice(hostile.unwrap_or(&good));
        });
        let load = Load::new(gateway.envoy.port(listener)?, requests);
        let report = load.limit(Limit::Requests(count * 2)).run().await?;
        let records = gateway.records(listener).await?;
        let mut refused = 0;
        for (number, ending) in report.endings() {
            let case = number / 2;
            match (ending, report.placements().get(&number)) {
                (Ending::Status(200), Some(place)) => {
                    let at = |record: &&ReadRecord| {
                        (record.partition, record.offset) == (place.partition, place.offset)
                    };
                    let record = records.iter().find(at).context("not in Kafka")?;
                    let body = match number % 2 {
                        0 => attacks[case as usize].body.as_slice(),
                        _ => b"good",
                    };
                    check(listener, record, body).with_context(|| format!("{listener} {case}"))?;
                }
                (Ending::Status(400..=499), None) if number % 2 == 0 => refused += 1,
                other => anyhow::bail!("{listener} {case}: {other:?}"),
            }
        }
        assert_eq!(report.requests(), count * 2);
        assert_eq!(records.len() as u64, report.count(200), "{listener}");
        assert!(refused > 0 && refused < count, "{listener}: {refused} of {count} are refused");
    }
    gateway.wait_until_empty().await?;
    assert_eq!(created(&gateway).await?, vms, "a VM was started anew");
    let log = gateway.envoy.log();
    assert!(!log.contains("panicked") && !log.contains("Uncaught RuntimeError"), "{log}");
    Ok(())
}

/// How many VMs Envoy has made; one that fails is made anew.
async fn created(gateway: &Gateway) -> anyhow::Result<u64> {
    gateway.envoy.stat("wasm.envoy.wasm.runtime.v8.created").await
}

/// Expressions that would take hours, or all memory there is.
#[tokio::test(flavor = "multi_thread")]
async fn an_expression_that_costs_too_much_is_a_400_in_time() -> anyhow::Result<()> {
    let greedy = [
        ("steps", "request.body.split('').all(a, request.body.split('').all(b, a != b + '!'))"),
        ("bytes", "[request.body].map(a, a+a).map(a, a+a).map(a, a+a).map(a, a+a).map(a, a+a)"),
        ("regex", "request.body.matches('(a|aa|aaa){20}b')"),
        ("lists", "request.body.split('').map(a, request.body.split(''))"),
        ("values", "[message].map(m, [m, m, m]) == [message].map(m, [m, m, m])"),
    ];
    let listeners = greedy.map(|(name, source)| {
        (name, json!({ "producer_async": false, "message_expression": source }))
    });
    let gateway = Gateway::start(&listeners).await?;
    let vms = created(&gateway).await?;
    for (name, _) in greedy {
        let mut worst = std::time::Duration::ZERO;
        for _ in 0..20 {
            let body = match name {
                "values" => format!("[{}1]", "1,".repeat(49_000)),
                _ => "a".repeat(1_000_000),
            };
            let kind = if name == "values" { "application/json" } else { "text/plain" };
            let request = harness::http::Request::post("/", body).header("content-type", kind);
            let start = Instant::now();
            let reply = gateway.send(name, request).await?;
            worst = worst.max(start.elapsed());
            let wanted = "message_expression: costs more than 100000 steps";
            assert_eq!((reply.status, &reply.json()?["error"]), (400, &json!(wanted)), "{name}");
        }
        println!("{name}: {worst:?}, {} bytes", gateway.gauge("memory_bytes").await?);
        assert!(worst.as_secs() < 5, "{name}: {worst:?}");
        let small = text("b");
        assert!(matches!(gateway.send(name, small).await?.status, 200 | 400));
    }
    assert_eq!(created(&gateway).await?, vms, "a VM was started anew");
    Ok(())
}
