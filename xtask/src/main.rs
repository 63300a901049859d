//! `cargo xtask`: runs the filter, the bridge, Envoy and Kafka for people and for checks.

mod command;
mod signals;

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
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(run(arguments.command));
    // A download or a build that a Ctrl-C cut short is not waited for.
    runtime.shutdown_background();
    code
}

/// Whatever the command started ends here, because its future or its outcome is dropped.
async fn run(command: Command) -> ExitCode {
    let stopped = match signals::Stop::listen() {
        Ok(stopped) => stopped,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = tokio::select! {
        outcome = command.run() => outcome,
        () = stopped.wait() => {
            eprintln!("stopped");
            return ExitCode::from(130);
        }
    };
    match outcome {
        Ok(Outcome::Passed) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::FAILURE,
        Ok(Outcome::Up(parts)) => {
            stopped.wait().await;
            eprintln!("stopping");
            drop(parts);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
