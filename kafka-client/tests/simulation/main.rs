//! Many seeds, each a short life of a client among failing brokers, each judged by the checker.
//!
//! `KAFKA_SIM_SEEDS` is how many seeds are run (1,000), `KAFKA_SIM_SEED` runs one of them again:
//! a seed fixes everything that happens.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test reports by panicking")]

mod chaos;
mod checker;
mod feed;
mod groups;
mod ledger;
mod reader;
mod run;
mod scenario;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use checker::{Heard, History, check};
use ledger::Event;
use scenario::Scenario;

const SEEDS: u64 = 1000;
/// Seeds that are run twice, to compare the runs.
const TWICE: u64 = 50;
/// Simulated time that a seed may take at most.
const SIMULATED: Duration = Duration::from_secs(600);
/// Real time after which a seed is taken to hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// What one run came to.
struct Report {
    seed: u64,
    faults: Vec<String>,
    counts: BTreeMap<&'static str, u64>,
}

/// The seeds of all threads, and which of them they are at.
struct Fixture {
    seeds: Vec<u64>,
    next: AtomicU64,
    running: Mutex<Vec<u64>>,
}

#[test]
fn every_seed_keeps_every_promise() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse().unwrap());
    let seeds: Vec<u64> = match number("KAFKA_SIM_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("KAFKA_SIM_SEEDS").unwrap_or(SEEDS)).collect(),
    };
    let started = Instant::now();
    let fixture = Arc::new(Fixture { seeds, next: AtomicU64::new(0), running: Mutex::default() });
    let (sender, reports) = channel();
    for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
        let (fixture, sender) = (fixture.clone(), sender.clone());
        std::thread::spawn(move || fixture.work(&sender));
    }
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let mut failed = Vec::new();
    for _ in &fixture.seeds {
        let Ok(report) = reports.recv_timeout(PATIENCE) else {
            panic!("one of the seeds {:?} hangs", fixture.running.lock().unwrap());
        };
        for (name, count) in report.counts {
            *counts.entry(name).or_default() += count;
        }
        if !report.faults.is_empty() {
            failed.push(describe(report.seed, &report.faults));
        }
    }
    println!("{} seeds in {:.1?}: {counts:?}", fixture.seeds.len(), started.elapsed());
    assert!(failed.is_empty(), "{} seeds failed\n{}", failed.len(), failed.join("\n"));
}

/// Batches on the wire, logs and outcomes, with their times.
#[test]
fn a_seed_lives_the_same_life_twice() {
    let differing: Vec<_> = (0..TWICE).filter(|seed| live(*seed) != live(*seed)).collect();
    assert!(differing.is_empty(), "{differing:?}");
}

fn describe(seed: u64, faults: &[String]) -> String {
    let again = "cargo test -p kafka-client --test simulation every_seed";
    let scenario = Scenario::throw(seed);
    let faults: Vec<_> = faults.iter().take(10).map(|fault| format!("  {fault}\n")).collect();
    format!("seed {seed}\n{}  {scenario:?}\n  KAFKA_SIM_SEED={seed} {again}", faults.concat())
}

impl Fixture {
    fn work(&self, reports: &Sender<Report>) {
        while let Some(seed) = self.seeds.get(self.next.fetch_add(1, Relaxed) as usize) {
            self.running.lock().unwrap().push(*seed);
            let report = catch_unwind(AssertUnwindSafe(|| judge(*seed)));
            let report = report.unwrap_or_else(|_| Report {
                seed: *seed,
                faults: vec!["it panicked".to_owned()],
                counts: BTreeMap::new(),
            });
            self.running.lock().unwrap().retain(|running| running != seed);
            if reports.send(report).is_err() {
                return;
            }
        }
    }
}

/// `None` if it takes too long.
fn live(seed: u64) -> Option<History> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let scenario = Scenario::throw(seed);
    let run = async { tokio::time::timeout(SIMULATED, run::run(scenario)).await };
    runtime.unwrap().block_on(run).ok()
}

fn judge(seed: u64) -> Report {
    match live(seed) {
        Some(history) => {
            let faults = check(&history).iter().map(ToString::to_string).collect();
            Report { seed, faults, counts: count(&history) }
        }
        None => {
            let faults = vec![format!("not over after {} simulated seconds", SIMULATED.as_secs())];
            Report { seed, faults, counts: BTreeMap::new() }
        }
    }
}

fn count(history: &History) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::from([("batches", history.wire.len() as u64)]);
    for sent in &history.records {
        let name = match sent.heard {
            Heard::Written { .. } => "written",
            Heard::NotWritten(_) => "not written",
            Heard::Unknown(_) => "unknown",
            Heard::Ignored => "ignored",
            Heard::Nothing => "never settled",
        };
        *counts.entry(name).or_default() += 1;
    }
    for (_, event) in history.ledger.readings.iter().flat_map(|reading| &reading.events) {
        let (name, count) = match event {
            Event::Given { records, .. } => ("read", records.len() as u64),
            Event::Truncated { .. } => ("truncated", 1),
            Event::Recreated => ("recreated", 1),
            Event::OutOfRange { .. } => ("expired", 1),
            Event::Start { .. } => ("begun", 1),
            Event::Unexpected(_) => ("unexpected", 1),
        };
        *counts.entry(name).or_default() += count;
    }
    counts
}
