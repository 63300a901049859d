//! `bench consume`: what readers cost, beside the least that they can cost.

mod clock;
mod events;
mod fan_out;
pub(super) mod floor;
mod ground;
mod report;
mod swarm;

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
}

pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let ground = Ground::start(options.bridge.clone()).await?;
    ground::check_descriptors(options.clients)?;
    let mut report = Report::default();
    let is_wanted = |cell| options.only.is_empty() || options.only.contains(&cell);
    let (rounds, events) = if options.quick { (1, 50) } else { (options.rounds, 100) };
    if is_wanted(Cell::Idle) {
        fan_out::idle(&ground, options.clients, &mut report).await?;
    }
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        if is_wanted(Cell::Events) {
            let few = (options.clients / 10).max(1);
            let clients = [1, few, options.clients];
            fan_out::events(&ground, &clients, events, &mut report).await?;
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
