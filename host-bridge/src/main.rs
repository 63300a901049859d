//! The `host-bridge` process.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use host_bridge::{Args, Command, Listeners, Log, Shutdown};

fn main() -> ExitCode {
    let args = Args::parse();
    let worked = tokio::runtime::Builder::new_multi_thread().enable_all().build().map(|runtime| {
        let done = match &args.command {
            Some(Command::Check { topic }) => runtime.block_on(check(&args, topic)),
            None => logged(&args, |args| runtime.block_on(serve(args))),
        };
        // A thread that waits for a name server holds nobody up.
        runtime.shutdown_background();
        done
    });
    match worked.map_err(anyhow::Error::from).and_then(|done| done) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Nobody may be there to read it.
            let _unread = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all is well.
async fn check(args: &Args, topics: &[String]) -> anyhow::Result<bool> {
    let environment = host_bridge::environment(std::env::vars_os())?.into_iter();
    let report = host_bridge::check(args, environment, topics).await;
    writeln!(std::io::stdout(), "{report}")?;
    Ok(!report.has_failed())
}

/// What goes wrong is told in the log, as everything else.
fn logged(args: &Args, work: impl FnOnce(&Args) -> anyhow::Result<bool>) -> anyhow::Result<bool> {
    let log = Log::start(args.log_format)?;
    let done = work(args).unwrap_or_else(|error| {
        tracing::error!(error = format!("{error:#}"), "not_started");
        false
    });
    log.finish();
    Ok(done)
}

/// Whether it ended because it was asked to.
async fn serve(args: &Args) -> anyhow::Result<bool> {
    let environment = host_bridge::environment(std::env::vars_os())?.into_iter();
    let Some(config) = host_bridge::configuration(args, environment) else { return Ok(false) };
    let listeners = Listeners::bind(&config.listen, config.unix_socket).await?;
    let shutdown = Shutdown::on_signals()?;
    host_bridge::run(config, listeners, shutdown.clone()).await?;
    Ok(!shutdown.has_failed())
}
