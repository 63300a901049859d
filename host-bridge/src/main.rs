//! The `host-bridge` process.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use host_bridge::{Args, Command, Ended, Listeners, Log, Shutdown, Tail};

/// The system's would keep the memory of threads apart: four times what thousands of streams that wait
/// need, and what a peak took for good.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = Args::parse();
    // Pages come and go: huge ones are cleared and kept whole for the little that is used of them. A
    // kernel that has none refuses that.
    let _has_none = nix::sys::prctl::set_thp_disable(true);
    let worked = tokio::runtime::Builder::new_multi_thread().enable_all().build().map(|runtime| {
        let done = match &args.command {
            Some(Command::Check { topic }) => runtime.block_on(check(&args, topic)),
            Some(Command::Tail(what)) => runtime.block_on(tail(&args, what)),
            None => logged(&args, |args| runtime.block_on(serve(args))),
        };
        // A thread that waits for a name server holds nobody up.
        runtime.shutdown_background();
        done
    });
    match worked.map_err(anyhow::Error::from).and_then(|done| done) {
        Ok(code) => code,
        Err(error) => {
            // Nobody may be there to read it.
            let _unread = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Success if all is well.
async fn check(args: &Args, topics: &[String]) -> anyhow::Result<ExitCode> {
    let environment = host_bridge::environment(std::env::vars_os())?.into_iter();
    let report = host_bridge::check(args, environment, topics).await;
    writeln!(std::io::stdout(), "{report}")?;
    Ok(success(!report.has_failed()))
}

/// As the shell has it of what SIGINT ended.
async fn tail(args: &Args, what: &Tail) -> anyhow::Result<ExitCode> {
    let environment = host_bridge::environment(std::env::vars_os())?;
    Ok(match host_bridge::tail(args, environment, what).await? {
        Ended::Done => ExitCode::SUCCESS,
        Ended::Interrupted => ExitCode::from(130),
    })
}

fn success(is_success: bool) -> ExitCode {
    if is_success { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What goes wrong is told in the log, as everything else.
fn logged(
    args: &Args,
    work: impl FnOnce(&Args) -> anyhow::Result<bool>,
) -> anyhow::Result<ExitCode> {
    let log = Log::start(args.log_format)?;
    let done = work(args).unwrap_or_else(|error| {
        tracing::error!(error = format!("{error:#}"), "not_started");
        false
    });
    log.finish();
    Ok(success(done))
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
