//! The memory of the filter's VMs stays flat over many requests of every format.

use std::sync::Arc;

use harness::load::{Ending, Limit, Load, Requests};
use kafka_upstream_tests::{Gateway, acked};
use serde_json::{Value, json};

/// Requests of one run; `MEMORY_REQUESTS` sets another number.
const REQUESTS: u64 = 50_000;
const ROUNDS: u64 = 5;
/// As in the ledger: from this growth a request on it is a leak.
const LEAK_BYTES: u64 = 8;

fn formats() -> [(&'static str, Value); 4] {
    [
        ("kong", json!({ "forward_uri": true, "forward_headers": true })),
        ("body", json!({ "message_format": "body" })),
        ("cloudevents", json!({ "message_format": "cloudevents" })),
        (
            "expression",
            json!({
                "message_expression": "{'id': message.body_args.id, 'at': request.time}",
                "key_expression": "message.body_args.id",
                "record_headers_expression": "{'tags': request.headers['ce-type']}",
            }),
        ),
    ]
}

/// Events whose data is JSON of many sizes; each tenth does not parse.
fn requests() -> Requests {
    let padding: Arc<str> = "ü".repeat(1000).into();
    Requests::raw(move |number, out| {
        let size = (number as usize * 7919) % 1000 * 2;
        let end = if number % 10 == 0 { "" } else { "}" };
        let body = format!(
            "{{\"id\":{number},\"text\":\"{}\"{end}",
            padding.get(..size).unwrap_or_default()
        );
        let head = format!(
            "POST /a?n={number} HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n\
             ce-id: {number}\r\nce-source: /s\r\nce-specversion: 1.0\r\nce-type: t%20{number}\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(body.as_bytes());
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_of_a_vm_is_flat_over_many_requests_of_every_format() -> anyhow::Result<()> {
    let requested = std::env::var("MEMORY_REQUESTS").ok().and_then(|count| count.parse().ok());
    let round = requested.unwrap_or(REQUESTS) / ROUNDS;
    let formats = formats().map(|(name, fields)| (name, acked(&fields)));
    let gateway = Gateway::start(&formats).await?;
    let mut memory = Vec::new();
    for number in 0..ROUNDS {
        for (name, _) in &formats {
            let load = Load::new(gateway.envoy.port(name)?, requests())
                .first(number * round)
                .connections(64)
                .limit(Limit::Requests(round / 4));
            let report = load.run().await?;
            let counts = report.counts();
            let expected = |end: &Ending| matches!(end, Ending::Status(200 | 400));
            assert!(counts.keys().all(expected), "{name}: {counts:?}");
            let parses = matches!(*name, "body" | "cloudevents");
            assert_eq!(report.count(200), if parses { round / 4 } else { round / 4 / 10 * 9 });
            println!("{name}: {:.0} requests/s", report.rps());
        }
        gateway.wait_until_empty().await?;
        memory.push(gateway.gauge("memory_bytes").await?);
    }
    println!("memory after each of {ROUNDS} rounds of {round} requests: {memory:?}");
    let growth = memory.iter().max().unwrap_or(&0) - memory[0];
    assert!(growth < LEAK_BYTES * (ROUNDS - 1) * round, "the VMs grow: {memory:?}");
    Ok(())
}
