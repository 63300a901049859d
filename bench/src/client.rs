//! `bench client`: our producer beside librdkafka's and Java's, at equal settings.

pub(super) mod machine;
mod measure;
mod payload;
pub(super) mod process;
pub(super) mod settings;
mod table;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::Args;
use harness::kafka::{Kafka, KafkaVersion};
use harness::run_dir::RunDir;
use serde_json::json;
use xtask::paths;
use xtask::progress::Step;

use measure::{Counts, Ground, payloads};
use process::{Java, Programs};
use settings::{Cell, PEERS, Peer, WITH_BASELINE, cells};
use table::Table;

/// Broker properties: the disk has what a run wrote only as long as the run takes.
const BROKER: [(&str, &str); 2] =
    [("log.segment.delete.delay.ms", "0"), ("log.segment.bytes", "268435456")];

/// What `--quick` measures, in thousands of records of 100 B.
const QUICK: u64 = 1000;

#[derive(Args)]
pub(crate) struct Options {
    /// Times that each client is measured in each cell; the medians count
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Records that are measured, in thousands; a quarter of these where they have 1024 B
    #[arg(long, default_value_t = 2500, value_parser = clap::value_parser!(u64).range(1..))]
    records: u64,
    /// One round of a million records: a first impression in two minutes
    #[arg(long, conflicts_with_all = ["rounds", "records"])]
    quick: bool,
    /// Only the cells that have all these words in their names, such as "1024 zstd all"
    #[arg(long, value_name = "WORDS", default_value = "")]
    cell: String,
    /// Another build of this program, whose own client is measured in turn instead of the others
    #[arg(long, value_name = "PROGRAM")]
    baseline: Option<PathBuf>,
    /// Where the figures of every round go [default: target/bench/client.json]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let cells = cells(&options.cell);
    ensure!(!cells.is_empty(), "no cell is called {:?}; one is called 100 lz4 all", options.cell);
    let dir = RunDir::new("bench")?;
    for bytes in [100, 1024] {
        fs::write(payloads(dir.path(), bytes), payload::pool(bytes))?;
    }
    let programs = Programs { java: Java::find()?, baseline: options.baseline.clone() };
    let peers = if options.baseline.is_some() { WITH_BASELINE } else { PEERS };
    let step = Step::begin("starting Kafka");
    let kafka = Kafka::start_measured(KafkaVersion::V4_3, 1, &BROKER).await?;
    step.done();
    let ground = Ground { kafka: &kafka, programs: &programs, dir: dir.path() };
    let rounds = if options.quick { 1 } else { options.rounds };
    let mut table = Table::of(peers);
    let mut number = 0;
    for round in 1..=rounds {
        for cell in &cells {
            for &peer in peers {
                number += 1;
                let figures =
                    ground.measure(peer, cell, options.counts(cell, peer), number).await?;
                eprintln!(
                    "round {round} of {rounds}: {:<13} {:<12} {:>9.0} records/s {:>9.0} records/CPU s",
                    cell.to_string(),
                    peer.name(),
                    figures.rate,
                    figures.cpu_rate
                );
                table.add(*cell, peer, figures);
            }
        }
    }
    println!("{}", table.text());
    let path = options.json.clone().unwrap_or_else(|| paths::target().join("bench/client.json"));
    write(&table, &path)?;
    println!("figures: {}", path.display());
    Ok(())
}

impl Options {
    /// Java's compiler needs a warm-up as long as the measurement.
    fn counts(&self, cell: &Cell, peer: Peer) -> Counts {
        let thousands = if self.quick { QUICK } else { self.records };
        let measured = (thousands * 1000).div_ceil(if cell.record_bytes > 100 { 4 } else { 1 });
        let warm_up = if peer == Peer::Java { measured } else { measured / 5 };
        Counts { warm_up, measured, rest: measured / 3 }
    }
}

fn write(table: &Table, path: &Path) -> anyhow::Result<()> {
    let report = json!({
        "machine": machine::description(),
        "kafka": KafkaVersion::V4_3.number(),
        "librdkafka": librdkafka_version(),
        "partitions": settings::PARTITIONS,
        "cells": table.json(),
    });
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    fs::write(path, format!("{report:#}\n"))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Of the library that is measured; none where the feature `librdkafka` is off.
fn librdkafka_version() -> Option<String> {
    #[cfg(feature = "librdkafka")]
    return Some(rdkafka::util::get_rdkafka_version().1);
    #[cfg(not(feature = "librdkafka"))]
    None
}
