//! `bench`: measures what a request costs.

mod cell;
mod envoy;
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
    host: Host,
}

/// The gateway that is measured.
#[derive(Subcommand)]
enum Host {
    /// Envoy alone, the filter alone, and each way of delivery
    Envoy(envoy::Options),
}

pub(crate) async fn run(options: &Options) -> anyhow::Result<Outcome> {
    if cfg!(debug_assertions) {
        return in_release().await;
    }
    match &options.host {
        Host::Envoy(options) => envoy::run(options).await,
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
