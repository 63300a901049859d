//! `bench`: builds the benchmarks as shipped code is built, and runs them.

use std::ffi::OsString;

use clap::Args;
use xtask::build;
use xtask::prerequisites::{Prerequisite, check, require};

use super::Outcome;

#[derive(Args)]
pub(crate) struct Options {
    /// `envoy`, `capture`, `client`, `consume` or `schema`, with its options; `envoy --help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    let wanted =
        [Prerequisite::Compiler, Prerequisite::Pip, Prerequisite::Java, Prerequisite::Maven];
    check(&wanted)?;
    require(Prerequisite::WasmTarget)?;
    let mut command = build::command();
    // The load generator shares the machine with what it measures, so it is optimized too.
    command.args(["run", "--release", "--package", "kafka-upstream-bench"]);
    command.args(["--features", "librdkafka", "--"]).args(&options.arguments);
    Ok(Outcome::of(build::run(command)?))
}
