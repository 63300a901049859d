//! The `host-bridge` process.

use std::io::IsTerminal as _;

use clap::Parser as _;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(host_bridge::log_filter())
        .init();
    let config = host_bridge::Config::load(&host_bridge::Args::parse(), std::env::vars())?;
    let listeners = host_bridge::Listeners::bind(&config.listen).await?;
    host_bridge::run(config, listeners, host_bridge::termination()?).await
}
