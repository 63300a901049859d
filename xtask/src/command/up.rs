//! `up`: leaves the parts running, to try things by hand.

use clap::{Args, ValueEnum};
use xtask::envoy::Runner;
use xtask::kafka::KafkaVersion;
use xtask::stack::Stack;

use super::{Outcome, show};

#[derive(Args)]
pub(crate) struct Options {
    /// Kafka's version: 3.9 or 4.1
    #[arg(long, default_value = "4.1")]
    kafka: KafkaVersion,
    /// How many brokers
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=9))]
    brokers: u8,
    /// The gateway
    #[arg(long, value_enum, default_value_t = Host::Envoy)]
    host: Host,
}

/// A gateway that can be started here.
#[derive(Clone, Copy, ValueEnum)]
enum Host {
    Envoy,
}

pub(crate) async fn run(options: &Options) -> anyhow::Result<Outcome> {
    let Host::Envoy = options.host;
    let stack = Stack::example(options.kafka, options.brokers.into(), &Runner::Direct).await?;
    println!("{}", show::addresses(&stack)?);
    Ok(Outcome::Up(Box::new(stack)))
}
