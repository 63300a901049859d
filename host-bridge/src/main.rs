//! The `host-bridge` process.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use host_bridge::{Args, Command, Config, Listeners};

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let is_check = args.command.is_some();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(host_bridge::log_filter(is_check))
        .init();
    let environment = host_bridge::environment(std::env::vars_os())?.into_iter();
    if let Some(Command::Check { topic }) = &args.command {
        let report = host_bridge::check(&args, environment, topic).await;
        writeln!(std::io::stdout(), "{report}")?;
        return Ok(if report.has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS });
    }
    let config = Config::load(&args, environment).context(CHECK)?;
    let listeners = Listeners::bind(&config.listen).await?;
    host_bridge::run(config, listeners, host_bridge::termination()?).await?;
    Ok(ExitCode::SUCCESS)
}

/// Said where the first fault is all that is said.
const CHECK: &str = "the configuration has a fault, `host-bridge check` names each with its line";
