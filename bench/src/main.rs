//! `bench`: measures what a request costs, and what a record does.

mod capture;
mod cell;
mod client;
mod consume;
mod envoy;
mod produce_with;
mod report;
mod requests;
mod schema;
mod statistics;
mod table;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "bench", about = "Measures what a request costs, and what a record does")]
struct Arguments {
    #[command(subcommand)]
    subject: Subject,
}

/// What is measured.
#[derive(Subcommand)]
enum Subject {
    /// Envoy alone, the filter alone, and each way of delivery
    Envoy(envoy::Options),
    /// Requests captured without a filter, and REST, beside Benthos
    Capture(capture::Options),
    /// Our Kafka client beside librdkafka and Java's: records per second, and per CPU second
    Client(client::Options),
    /// What readers cost: event streams, pages, filters
    Consume(consume::Options),
    /// What a record's schema costs, beside the libraries called directly
    Schema(schema::Options),
    #[command(hide = true)]
    ConsumeFloor(consume::floor::Options),
    #[command(hide = true)]
    ReadWith(consume::reading::Options),
    #[command(hide = true)]
    ProduceWith(produce_with::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Arguments::parse().subject {
        Subject::Envoy(options) => envoy::run(&options).await,
        Subject::Capture(options) => capture::run(&options).await,
        Subject::Client(options) => client::run(&options).await,
        Subject::Consume(options) => consume::run(&options).await,
        Subject::Schema(options) => schema::run(&options).await,
        Subject::ConsumeFloor(options) => consume::floor::run(&options),
        Subject::ReadWith(options) => consume::reading::read(&options).await,
        Subject::ProduceWith(options) => produce_with::run(&options).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
