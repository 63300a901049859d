//! `bench consume`: what readers cost, beside the least that they can cost.

mod clock;
mod events;
mod fan_out;
mod faults;
pub(super) mod floor;
mod ground;
mod pages;
pub(super) mod reading;
mod report;
mod swarm;
mod webhooks;
mod writing;

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use harness::kafka::KafkaVersion;
use serde_json::json;
use xtask::paths;

use super::client::machine;
use ground::Ground;
use report::Report;

#[derive(Args)]
pub(crate) struct Options {
    /// Times that each figure is taken; the medians count
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// One round with fewer events: a first impression in three minutes
    #[arg(long, conflicts_with = "rounds")]
    quick: bool,
    /// Clients of event streams
    #[arg(long, default_value_t = 10_000)]
    clients: usize,
    /// Measures only these
    #[arg(long, value_delimiter = ',')]
    only: Vec<Cell>,
    /// Another host-bridge
    #[arg(long, value_name = "PROGRAM")]
    bridge: Option<PathBuf>,
    /// Where the figures of every round go [default: target/bench/consume.json]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Cell {
    /// Memory of idle streams
    Idle,
    /// Processor time, delay and fetches of events to many
    Events,
    /// Pages beside a consumer without HTTP
    Pages,
    /// Records that a filter looks at
    Filters,
    /// kafka-client beside kcat and Java's console consumer
    Yardsticks,
    /// Produce requests beside readers
    Writing,
    /// All clients come back to a bridge that was killed
    Reconnect,
    /// A client that reads nothing
    Stalled,
    /// Webhooks whose receivers take 50 ms
    Webhooks,
}

pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let ground = Ground::start(options.bridge.clone()).await?;
    ground::check_descriptors(options.clients)?;
    let mut report = Report::default();
    let is_wanted = |cell| options.only.is_empty() || options.only.contains(&cell);
    let (rounds, events) = if options.quick { (1, 50) } else { (options.rounds, 100) };
    let (records, small) = if options.quick { (50_000, 300_000) } else { (200_000, 2_000_000) };
    if is_wanted(Cell::Pages) || is_wanted(Cell::Filters) {
        pages::fill(&ground, records).await?;
    }
    if is_wanted(Cell::Yardsticks) {
        reading::fill(&ground, small).await?;
    }
    if is_wanted(Cell::Idle) {
        fan_out::idle(&ground, options.clients, &mut report).await?;
    }
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        if is_wanted(Cell::Events) {
            fan_out::events(&ground, options.clients, events, &mut report).await?;
        }
        if is_wanted(Cell::Pages) {
            pages::pages(&ground, records, &mut report).await?;
        }
        if is_wanted(Cell::Filters) {
            pages::filters(&ground, records, &mut report).await?;
        }
        if is_wanted(Cell::Yardsticks) {
            reading::yardsticks(&ground, small, &mut report).await?;
        }
        if is_wanted(Cell::Writing) {
            let seconds = if options.quick { 5 } else { 10 };
            writing::beside_readers(&ground, options.clients, seconds, &mut report).await?;
        }
        if is_wanted(Cell::Reconnect) {
            faults::reconnect(&ground, options.clients, &mut report).await?;
        }
        if is_wanted(Cell::Stalled) {
            faults::stalled(&ground, &mut report).await?;
        }
        if is_wanted(Cell::Webhooks) {
            let records = if options.quick { 50 } else { 200 };
            webhooks::deliver(&ground, 1000, records, &mut report).await?;
        }
    }
    println!("{}", report.text());
    let path = options.json.clone().unwrap_or_else(|| paths::target().join("bench/consume.json"));
    let text = json!({
        "machine": machine::description(),
        "kafka": KafkaVersion::V4_3.number(),
        "partitions": ground::PARTITIONS,
        "figures": report.json(),
    });
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    fs::write(&path, format!("{text:#}\n"))
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("figures: {}", path.display());
    Ok(())
}
