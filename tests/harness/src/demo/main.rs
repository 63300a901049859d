//! The program behind `cargo xtask demo`, `up` and `func-e`: starts what was built and fetched,
//! sends sample requests, and leaves everything running.

mod broker;
mod check;
mod parts;
mod show;
mod signals;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use harness::envoy::Runner;
use harness::kafka::KafkaVersion;

use parts::Parts;

/// What is started, and with which programs.
#[derive(Parser)]
struct Options {
    /// The filter
    #[arg(long)]
    filter: PathBuf,
    /// The bridge
    #[arg(long)]
    bridge: PathBuf,
    /// Kafka's version
    #[arg(long, default_value = "4.3")]
    kafka: KafkaVersion,
    /// How many brokers
    #[arg(long, default_value_t = 1)]
    brokers: usize,
    /// The embedded broker instead of Kafka
    #[arg(long)]
    memory: bool,
    /// Runs Envoy by func-e, whose folders are under this one
    #[arg(long)]
    func_e: Option<PathBuf>,
    /// Compares each record with what is expected, and ends
    #[arg(long)]
    check: bool,
    /// Shows every request beside its record
    #[arg(long)]
    verbose: bool,
    /// Sends nothing
    #[arg(long)]
    only_start: bool,
}

impl Options {
    fn runner(&self) -> Runner {
        self.func_e.clone().map_or(Runner::Direct, Runner::FuncE)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let stopped = match signals::Stop::listen() {
        Ok(stopped) => stopped,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    // Whatever was started ends with the future or the parts that hold it.
    let outcome = tokio::select! {
        outcome = run(&options) => outcome,
        () = stopped.wait() => {
            eprintln!("stopped");
            return ExitCode::from(130);
        }
    };
    match outcome {
        Ok(Some(parts)) => {
            stopped.wait().await;
            eprintln!("stopping");
            drop(parts);
            ExitCode::SUCCESS
        }
        Ok(None) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What runs until somebody stops it; nothing with `--check`.
async fn run(options: &Options) -> anyhow::Result<Option<Parts>> {
    let parts = Parts::start(options).await?;
    if !options.only_start {
        let exchanges = check::exchange(&parts).await?;
        let shown = exchanges.iter().filter(|exchange| options.verbose || exchange.is_typical());
        for exchange in shown {
            println!("{}", show::side_by_side(exchange));
        }
        check::judge(&exchanges, &parts, options.check || options.verbose)?;
        check::read_back(&exchanges, &parts).await?;
    }
    if options.check {
        return Ok(None);
    }
    println!("{}", show::addresses(&parts)?);
    Ok(Some(parts))
}
