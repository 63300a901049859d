//! `bench envoy`: ways to answer, as listeners of the same Envoy with one worker.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use harness::envoy::{AWAIT_BODY, Listener};
use harness::stack::{Plan, Programs, Stack, plugin};
use serde_json::{Value, json};
use xtask::paths;

use super::cell::{Cell, measure};
use super::table::Table;

/// Partitions of the topic.
const PARTITIONS: i32 = 6;

/// Bytes of each request's body.
const BODY_BYTES: usize = 200;

/// What Envoy alone may buffer, so that it reads each body whole as the filter does.
const BUFFER_BYTES: u32 = 65_536;

/// Longer than a run.
const DELIVERY_MS: u32 = 3_600_000;

/// Plugin configuration that makes a callout for every request instead of one for many.
const ONE_CALLOUT_PER_REQUEST: &str = r#"{"producer_async": false, "group_commit": false}"#;

const GROUP_COMMIT: &str = "acked, group commit";
const ONE_EACH: &str = "acked, a callout a request";
const EVENTS: &str = "acked, cloudevents";

/// Envoy's field for whether a filter may hold a request with a body at its headers.
const OPTION: &str = "allow_on_headers_stop_iteration";

/// A structured event without the end of its data.
const EVENT: &str = r#"{"id":"1","source":"/bench","specversion":"1.0","type":"bench","data":""#;

#[derive(Args)]
pub(crate) struct Options {
    /// Times that each cell is measured; the median counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of load in a cell
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Connections that are tried; each has one request in flight
    #[arg(long, value_delimiter = ',', default_values_t = [1, 32, 256])]
    connections: Vec<usize>,
    /// Measures only the ways to answer whose names have this text
    #[arg(long)]
    only: Option<String>,
    /// A folder with another `kafka_upstream.wasm` and `host-bridge`, measured in turn with these
    #[arg(long)]
    baseline: Option<PathBuf>,
}

/// One way to answer.
pub(super) struct Target {
    pub(super) name: &'static str,
    /// The status of a request that went as it should.
    pub(super) status: u16,
    listener: Listener,
}

/// Programs that are measured, and what came out.
#[derive(Default)]
struct Side {
    /// None are this workspace's.
    programs: Option<Programs>,
    table: Table,
}

pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let mut targets = targets()?;
    targets.retain(|target| options.only.as_ref().is_none_or(|text| target.name.contains(text)));
    ensure!(!targets.is_empty(), "no way to answer has the text of --only in its name");
    let mut sides = vec![Side::default()];
    if let Some(folder) = &options.baseline {
        let programs = Some(Programs::in_folder(folder));
        sides.push(Side { programs, table: Table::default() });
    }
    for round in 1..=options.rounds {
        measure_round(options, &targets, &mut sides, round).await?;
        // Of two that run side by side, the one that started first is slower by some percent.
        sides.reverse();
    }
    if options.rounds % 2 == 1 {
        sides.reverse();
    }
    finish(&sides)
}

/// Measures all that is to be measured in processes of this round's own: two processes of the same
/// program differ by more than rounds of one do.
async fn measure_round(
    options: &Options,
    targets: &[Target],
    sides: &mut [Side],
    round: usize,
) -> anyhow::Result<()> {
    let mut running = Vec::new();
    for side in sides {
        running.push((start(targets, side.programs.clone()).await?, side));
    }
    for connections in &options.connections {
        for target in targets {
            let time = Duration::from_secs(options.seconds);
            let cell = Cell { target, connections: *connections, time };
            for (stack, side) in &mut running {
                let figures = measure(stack, &cell).await?;
                side.table.add(target.name, cell.connections, figures);
                eprintln!(
                    "round {round} of {}: {connections:>3} connections, {:<28} {:>8.0} requests/s",
                    options.rounds, target.name, figures.rps
                );
            }
            running.reverse();
        }
    }
    Ok(())
}

/// Starts what is measured, and warms it up.
async fn start(targets: &[Target], programs: Option<Programs>) -> anyhow::Result<Stack> {
    let listeners = targets.iter().map(|target| target.listener.clone()).collect();
    let topics = vec![("bench".to_owned(), PARTITIONS)];
    let mut stack = Stack::start(Plan { topics, listeners, programs, ..Plan::default() }).await?;
    for target in targets {
        let cell = Cell { target, connections: 32, time: Duration::from_secs(1) };
        measure(&mut stack, &cell).await?;
    }
    Ok(stack)
}

fn finish(sides: &[Side]) -> anyhow::Result<()> {
    let Some(Side { table, .. }) = sides.first() else { return Ok(()) };
    println!("{}", table.text());
    let (many, one) = (GROUP_COMMIT, ONE_EACH);
    if let Some(ratio) = table.ratio(many, one, 256) {
        println!("\n{many} / {one} at 256 connections: {ratio:.2} times the requests per second");
    }
    if let Some(baseline) = sides.get(1) {
        println!("\nThe baseline:\n{}", baseline.table.text());
        println!("\n{}", table.against(&baseline.table));
    }
    let dir = paths::target().join("bench");
    fs::create_dir_all(&dir)?;
    let path = dir.join("envoy.json");
    fs::write(&path, format!("{:#}\n", table.json()))
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("figures: {}", path.display());
    Ok(())
}

fn targets() -> anyhow::Result<Vec<Target>> {
    let mut targets = vec![Target {
        name: "Envoy alone",
        status: 200,
        listener: Listener::plain("Envoy alone").buffered(BUFFER_BYTES),
    }];
    targets.extend(stopped_at_headers()?);
    targets.extend(headers_go_on());
    Ok(targets)
}

/// A queue of one record, which is full for as long as that record waits for others, refuses each
/// request once it has been read and made into a record.
fn refused(stop_at_headers: bool) -> Value {
    json!({
        OPTION: stop_at_headers,
        "producer_async": true,
        "producer_async_buffering_limits_messages_in_memory": 1,
        "producer_async_flush_timeout": 3_600_000,
        "delivery_timeout": DELIVERY_MS,
    })
}

fn stopped_at_headers() -> anyhow::Result<Vec<Target>> {
    let one_each: Value = serde_json::from_str(ONE_CALLOUT_PER_REQUEST)?;
    let acks_all = json!({"producer_async": false, "producer_request_acks": -1});
    Ok(vec![
        Target { status: 503, ..Target::filter("replies at once", &refused(true)) },
        Target::filter("memory", &json!({"producer_async": true})),
        Target::filter(GROUP_COMMIT, &json!({"producer_async": false})),
        Target::filter("acked, acks all", &acks_all),
        Target::filter(ONE_EACH, &one_each),
        Target::filter("acked, body", &json!({"message_format": "body"})),
        Target::filter(EVENTS, &json!({"message_format": "cloudevents"})),
        Target::filter(
            "acked, expression",
            &json!({
                "message_expression": "{'text': request.body, 'path': request.path}",
                "key_expression": "request.headers['content-length']",
            }),
        ),
    ])
}

/// Without `allow_on_headers_stop_iteration`: headers go as far as the bridge, or as a filter that
/// waits for the body.
fn headers_go_on() -> Vec<Target> {
    let memory = |name| Target::filter(name, &json!({"producer_async": true, OPTION: false}));
    let acked = |name| Target::filter(name, &json!({"producer_async": false, OPTION: false}));
    let at_once = Target::filter("replies at once, headers go on", &refused(false));
    let buffer = |listener: Listener| listener.buffered(BUFFER_BYTES);
    let lua = |listener: Listener| listener.lua(AWAIT_BODY);
    vec![
        Target { status: 503, ..at_once },
        memory("memory, headers go on"),
        acked("acked, headers go on"),
        memory("memory, headers to buffer").behind(buffer),
        acked("acked, headers to buffer").behind(buffer),
        memory("memory, headers to Lua").behind(lua),
        acked("acked, headers to Lua").behind(lua),
    ]
}

impl Target {
    fn filter(name: &'static str, fields: &Value) -> Self {
        Self { name, status: 200, listener: Listener::filter(name, plugin("bench", fields)) }
    }

    fn behind(self, change: impl FnOnce(Listener) -> Listener) -> Self {
        Self { listener: change(self.listener), ..self }
    }

    /// What is sent: a content type, and a body of `BODY_BYTES`.
    pub(super) fn content(&self) -> (&'static str, Vec<u8>) {
        if self.name != EVENTS {
            return ("text/plain", vec![b'x'; BODY_BYTES]);
        }
        let padding = "x".repeat(BODY_BYTES.saturating_sub(EVENT.len() + 2));
        ("application/cloudevents+json", format!("{EVENT}{padding}\"}}").into_bytes())
    }
}
