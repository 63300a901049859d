//! `bench`: measures what a request costs, and what a record does.

mod cell;
mod client;
mod envoy;
mod produce_with;
mod statistics;
mod table;

use std::env;
use std::process::Command;

use clap::{Args, Subcommand};
use xtask::paths;
use xtask::process::Process;

use super::Outcome;

#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    subject: Subject,
    /// Measures this build, as it is: for the test of these commands
    #[arg(long, global = true, hide = true)]
    as_built: bool,
}

/// What is measured.
#[derive(Subcommand)]
enum Subject {
    /// Envoy alone, the filter alone, and each way of delivery
    Envoy(envoy::Options),
    /// Our Kafka client beside librdkafka and Java's: records per second, and per CPU second
    Client(client::Options),
    #[command(hide = true)]
    ProduceWith(produce_with::Options),
}

pub(crate) async fn run(options: &Options) -> anyhow::Result<Outcome> {
    if cfg!(debug_assertions) && !options.as_built {
        return in_release().await;
    }
    match &options.subject {
        Subject::Envoy(options) => envoy::run(options).await,
        Subject::Client(options) => client::run(options).await,
        Subject::ProduceWith(options) => produce_with::run(options).await,
    }
}

/// Runs the same command again, built with optimisations: the load generator shares the machine
/// with what it measures.
async fn in_release() -> anyhow::Result<Outcome> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(paths::workspace());
    command.args(["run", "--quiet", "--release", "--package", "xtask", "--"]);
    command.args(env::args_os().skip(1));
    let mut process = Process::spawn_in_terminal("the release build of xtask", command)?;
    let passed = process.wait().await?.success();
    Ok(if passed { Outcome::Passed } else { Outcome::Failed })
}
