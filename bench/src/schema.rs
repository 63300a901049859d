//! `bench schema`: what a record's schema costs, beside the libraries called directly.

mod acked;
mod codecs;
mod documents;

use std::time::Duration;

use clap::Args;

use super::report::Report;

#[derive(Args)]
pub(crate) struct Options {
    /// Times that each figure is taken; the medians count
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds for which records are sent, with a schema and without, in each round
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Without Kafka and a registry: encoding and decoding alone
    #[arg(long)]
    codecs: bool,
}

pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let mut report = Report::default();
    let parts = if options.codecs { None } else { Some(acked::Parts::start().await?) };
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        codecs::measure(&mut report)?;
        if let Some(parts) = &parts {
            parts.measure(Duration::from_secs(options.seconds), &mut report).await?;
        }
    }
    if let Some(parts) = &parts {
        parts.read(&mut report).await?;
    }
    report.finish("schema", None)
}
