//! `cargo xtask`: builds and fetches the filter, the bridge, Envoy and Kafka, and runs them.

mod command;

use std::process::ExitCode;

use clap::Parser;

use command::{Command, Outcome};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Runs the filter, the bridge, Envoy and Kafka")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    match Arguments::parse().command.run() {
        Ok(Outcome::Passed) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
