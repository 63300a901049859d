//! `func-e`: the demo with Envoy run by func-e, without any download of func-e's own.

use clap::Args;
use xtask::envoy::Runner;
use xtask::paths;

use super::{Outcome, demo};

#[derive(Args)]
pub(crate) struct Options {
    /// Compare each record with what is expected, and end
    #[arg(long)]
    check: bool,
}

pub(crate) async fn run(options: &Options) -> anyhow::Result<Outcome> {
    let home = paths::target().join("func-e");
    demo::run_with(&Runner::FuncE(home), options.check).await
}
