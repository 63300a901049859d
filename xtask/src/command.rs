//! The commands: one file and one variant each.

mod bench;
mod binaries;
mod demo;
mod generate;
mod image;
mod modules;
mod mutations;
mod test;

use clap::Subcommand;

/// A command with its options.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Sends sample requests through Envoy into Kafka, and shows what became of them
    Demo(demo::Options),
    /// Leaves Envoy with the filter, the bridge and Kafka running
    Up(demo::UpOptions),
    /// As demo, with Envoy run by func-e
    FuncE(demo::Options),
    /// Runs every check: format, lints, unit tests, end-to-end tests
    Test(test::Options),
    /// Adds bugs to a copy of the Kafka client, and shows that the tests detect each
    Mutations(mutations::Options),
    /// Measures throughput, latency and CPU time per request
    Bench(bench::Options),
    /// Writes the files that are made of the code: schema, Kong's meta file, reference
    Generate,
    /// Writes the filter as an OCI image, for gateways that fetch Wasm modules from a registry
    Image(image::Options),
    /// Counts each crate's files and lines, and finds imports that run in circles
    Modules(modules::Options),
}

/// How a command ended.
pub(crate) enum Outcome {
    /// All is well.
    Passed,
    /// Something is wrong, and has been printed.
    Failed,
}

impl Command {
    pub(crate) fn run(self) -> anyhow::Result<Outcome> {
        match self {
            Self::Demo(options) => demo::run(&options),
            Self::Up(options) => demo::up(&options),
            Self::FuncE(options) => demo::func_e(&options),
            Self::Test(options) => test::run(&options),
            Self::Mutations(options) => mutations::run(&options),
            Self::Bench(options) => bench::run(&options),
            Self::Generate => generate::run(),
            Self::Image(options) => image::run(&options),
            Self::Modules(options) => modules::run(&options),
        }
    }
}

impl Outcome {
    pub(crate) fn of(succeeded: bool) -> Self {
        if succeeded { Self::Passed } else { Self::Failed }
    }
}
