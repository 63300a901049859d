//! The commands: one file and one variant each.

mod bench;
mod check;
mod demo;
mod func_e;
mod generate;
mod planted;
mod show;
mod test;
mod up;

use std::any::Any;

use clap::Subcommand;

/// A command with its options.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Sends sample requests through Envoy into Kafka, and shows each with its record
    Demo(demo::Options),
    /// Leaves Envoy with the filter, the bridge and Kafka running
    Up(up::Options),
    /// As demo, with Envoy run by func-e
    FuncE(func_e::Options),
    /// Runs every check: format, lints, unit tests, end-to-end tests
    Test(test::Options),
    /// Breaks the Kafka client on purpose, patch by patch, and shows that the tests notice
    Planted(planted::Options),
    /// Measures throughput, latency and CPU time per request
    Bench(bench::Options),
    /// Writes the files that are made of the code: schema, Kong's meta file, reference
    Generate,
}

/// How a command ended.
pub(crate) enum Outcome {
    /// All is well.
    Passed,
    /// Something is wrong, and has been told.
    Failed,
    /// These parts run until somebody stops them.
    Up(Box<dyn Any + Send>),
}

impl Command {
    pub(crate) async fn run(self) -> anyhow::Result<Outcome> {
        match self {
            Self::Demo(options) => demo::run(&options).await,
            Self::Up(options) => up::run(&options).await,
            Self::FuncE(options) => func_e::run(&options).await,
            Self::Test(options) => test::run(&options).await,
            Self::Planted(options) => planted::run(&options).await,
            Self::Bench(options) => bench::run(&options).await,
            Self::Generate => generate::run(),
        }
    }
}
