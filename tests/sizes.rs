//! Bodies of every size and framing: whole in Kafka, or refused with 413.

use std::time::Duration;

use harness::http::{Request, Response};
use kafka_upstream_tests::{Gateway, record_of};
use serde_json::json;

const MAX: usize = 1_048_576;

/// How a client frames a body.
#[derive(Debug, Clone, Copy)]
enum Framing {
    Announced,
    Pieces(usize),
    PiecesWithTrailers(usize),
}

const FRAMINGS: [Framing; 4] =
    [Framing::Announced, Framing::Pieces(1), Framing::Pieces(1000), Framing::PiecesWithTrailers(3)];

fn request(body: &[u8], framing: Framing, http2: bool) -> Request {
    let (pieces, trailer) = match framing {
        Framing::Announced => (0, false),
        Framing::Pieces(pieces) => (pieces, false),
        Framing::PiecesWithTrailers(pieces) => (pieces, true),
    };
    let mut request = Request::post("/", body.to_vec()).header("content-type", "text/plain");
    if pieces > 0 {
        let size = body.len().div_ceil(pieces).max(1);
        let pieces = body.chunks(size).map(|piece| piece.to_vec().into()).collect();
        request = request.pieces(pieces, Duration::ZERO);
    }
    if trailer {
        request = request.trailer("x-checksum", "none");
    }
    if http2 { request.http2() } else { request }
}

async fn send(
    gateway: &Gateway,
    body: &[u8],
    framing: Framing,
    http2: bool,
) -> anyhow::Result<Response> {
    gateway.send("sizes", request(body, framing, http2)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_arrives_whole_up_to_the_limit_and_not_at_all_above_it() -> anyhow::Result<()> {
    let gateway = Gateway::start(&[("sizes", json!({ "producer_async": false }))]).await?;
    let mut expected = Vec::new();
    for size in [0, 1, 1024, MAX - 1, MAX, MAX + 1] {
        let body: Vec<u8> = (0..size).map(|at| b'a' + (at % 23) as u8).collect();
        for (framing, http2) in FRAMINGS.iter().flat_map(|f| [(*f, false), (*f, true)]) {
            let case = format!("{size} bytes, {framing:?}, http2 {http2}");
            let reply = send(&gateway, &body, framing, http2).await?;
            if size > MAX {
                assert_eq!(reply.status, 413, "{case}");
                assert_eq!(reply.header("kafka-error"), Some("body_too_large"), "{case}");
            } else {
                assert_eq!(reply.status, 200, "{case}: {}", reply.text());
                expected.push((case, body.clone(), reply));
            }
        }
    }
    let records = gateway.records("sizes").await?;
    assert_eq!(records.len(), expected.len());
    for (case, body, reply) in &expected {
        let message = record_of(&records, reply, "sizes")?.json()?;
        assert_eq!(message["body"].as_str().map(str::as_bytes), Some(body.as_slice()), "{case}");
    }
    gateway.wait_until_empty().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_length_or_type_is_one_record() -> anyhow::Result<()> {
    let gateway = Gateway::start(&[("sizes", json!({ "producer_async": false }))]).await?;
    for request in [
        Request::get("/"),
        Request::new("DELETE", "/"),
        Request::new("POST", "/").header("content-length", "0"),
        Request::get("/").http2(),
    ] {
        assert_eq!(gateway.send("sizes", request).await?.status, 200);
    }
    let records = gateway.records("sizes").await?;
    assert_eq!(records.len(), 4);
    for record in &records {
        assert_eq!(record.json()?, json!({ "body_base64": true, "body_args": {}, "body": "" }));
    }
    Ok(())
}
