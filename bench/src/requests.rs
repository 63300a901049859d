//! Requests that are all to be answered 200, and what each costs a process.

use std::time::Duration;

use anyhow::ensure;
use harness::load::{Limit, Load};
use harness::process::Process;

/// What came out.
pub(super) struct Figures {
    /// Requests a second.
    pub(super) rps: f64,
    pub(super) p99_us: f64,
    /// Processor time of the process for each.
    pub(super) cpu_us: f64,
}

/// Sends for so long.
#[expect(clippy::cast_precision_loss, reason = "counts of a few seconds keep their value")]
pub(super) async fn measure(
    process: &Process,
    load: Load,
    time: Duration,
) -> anyhow::Result<Figures> {
    let begin = process.cpu_time()?;
    let sent = load.limit(Limit::Duration(time)).run().await?;
    let cpu = process.cpu_time()? - begin;
    ensure!(sent.count(200) == sent.requests(), "{}: {:?}", process.name(), sent.counts());
    Ok(Figures {
        rps: sent.rps(),
        p99_us: sent.quantile_us(0.99) as f64,
        cpu_us: cpu.as_secs_f64() * 1e6 / sent.requests() as f64,
    })
}
