//! One measurement: load on one listener, and the processor time that it took.

use std::time::Duration;

use anyhow::ensure;
use harness::load::{Limit, Load, Report, Requests};
use harness::process::wait_until;
use harness::stack::Stack;

use super::envoy::Target;

/// Longest wait until records that were answered from memory have gone to Kafka.
const DRAIN: Duration = Duration::from_secs(60);

/// The filter's gauge of records that wait.
const QUEUED: &str = "wasmcustom.kafka_upstream_queue_records";

/// Records that wait for good: one in the queue of each target that refuses.
const LEFT: u64 = 2;

/// What is measured.
pub(super) struct Cell<'a> {
    pub(super) target: &'a Target,
    pub(super) connections: usize,
    pub(super) time: Duration,
}

/// What came out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Figures {
    /// Replies with the wanted status, per second.
    pub(super) rps: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    /// Processor time per reply.
    pub(super) envoy_us: f64,
    pub(super) bridge_us: f64,
    /// Requests without the wanted reply.
    pub(super) other: f64,
}

impl Figures {
    /// Processor time of Envoy and the bridge per reply.
    pub(super) fn cpu_us(&self) -> f64 {
        self.envoy_us + self.bridge_us
    }
}

pub(super) async fn measure(stack: &mut Stack, cell: &Cell<'_>) -> anyhow::Result<Figures> {
    let port = stack.envoy.port(cell.target.name)?;
    let (content_type, body) = cell.target.content();
    let requests = Requests::post("/bench", content_type, move |_| body.clone());
    let load =
        Load::new(port, requests).connections(cell.connections).limit(Limit::Duration(cell.time));
    let before = cpu(stack)?;
    let report = load.run().await?;
    drained(stack).await?;
    let after = cpu(stack)?;
    let wanted = report.count(cell.target.status);
    ensure!(wanted > 0, "{}: {:?}", cell.target.name, report.counts());
    Ok(figures(&report, wanted, [after.0 - before.0, after.1 - before.1]))
}

/// Records answered from memory cost their processor time later: it belongs to them.
async fn drained(stack: &Stack) -> anyhow::Result<()> {
    wait_until("empty queues", DRAIN, || async {
        let queued = stack.envoy.stat(QUEUED).await?;
        ensure!(queued <= LEFT, "{queued} records wait");
        Ok(())
    })
    .await
}

/// Processor time of Envoy and of the bridge so far.
fn cpu(stack: &mut Stack) -> anyhow::Result<(Duration, Duration)> {
    Ok((stack.envoy.process().cpu_time()?, stack.bridge.process().cpu_time()?))
}

#[expect(clippy::cast_precision_loss, reason = "counts of a few seconds keep their value")]
fn figures(report: &Report, wanted: u64, cpu: [Duration; 2]) -> Figures {
    let replies = report.replies() as f64;
    let each = cpu.map(|time| time.as_secs_f64() * 1e6 / replies);
    let [envoy_us, bridge_us] = each;
    Figures {
        rps: wanted as f64 / report.elapsed().as_secs_f64(),
        p50_us: report.quantile_us(0.5) as f64,
        p99_us: report.quantile_us(0.99) as f64,
        envoy_us,
        bridge_us,
        other: (report.requests() - wanted) as f64,
    }
}
