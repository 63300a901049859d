//! `demo`: requests beside the records that they became.

use clap::Args;
use xtask::envoy::Runner;
use xtask::kafka::KafkaVersion;
use xtask::stack::Stack;

use super::{Outcome, check, show};

#[derive(Args)]
pub(crate) struct Options {
    /// Compare each record with what is expected, and end
    #[arg(long)]
    check: bool,
}

pub(crate) async fn run(options: &Options) -> anyhow::Result<Outcome> {
    run_with(&Runner::Direct, options.check).await
}

/// The demo with Envoy by itself or by func-e.
pub(super) async fn run_with(runner: &Runner, only_check: bool) -> anyhow::Result<Outcome> {
    let stack = Stack::example(KafkaVersion::V4_1, 1, runner).await?;
    let exchanges = check::exchange(&stack).await?;
    for exchange in &exchanges {
        println!("{}", show::side_by_side(exchange));
    }
    if only_check {
        return Ok(check::verdict(&exchanges));
    }
    println!("{}", show::addresses(&stack)?);
    Ok(Outcome::Up(Box::new(stack)))
}
