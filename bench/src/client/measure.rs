//! One run of one client: its records and its processor time between two looks at the topic.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use harness::kafka::Kafka;
use harness::process::Process;
use harness::reader;

use super::process::{self, Job, Programs};
use super::settings::{Cell, PARTITIONS, Peer};

/// How often the topic is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Longest time without a further record.
const STALL: Duration = Duration::from_secs(30);

/// Records of a run, in this order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    /// Left out: start-up, and Java's compiler.
    pub(super) warm_up: u64,
    pub(super) measured: u64,
    /// So that the client still works when the second look is taken.
    pub(super) rest: u64,
}

/// What came out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Figures {
    /// Acknowledged records per second.
    pub(super) rate: f64,
    /// Acknowledged records per second of the client's processor time, user and system.
    pub(super) cpu_rate: f64,
}

/// What a look sees.
struct Sight {
    at: Instant,
    cpu: Duration,
    records: u64,
}

/// What all runs have in common.
pub(super) struct Ground<'a> {
    pub(super) kafka: &'a Kafka,
    pub(super) programs: &'a Programs,
    pub(super) dir: &'a Path,
}

impl Ground<'_> {
    /// Runs one client in one cell, on a topic of its own.
    pub(super) async fn measure(
        &self,
        peer: Peer,
        cell: &Cell,
        counts: Counts,
        number: usize,
    ) -> anyhow::Result<Figures> {
        let topic = format!("bench-{number}");
        self.kafka.create_topic(&topic, PARTITIONS).await?;
        let figures = self.run(peer, cell, counts, &topic).await;
        self.kafka.delete_topic(&topic).await?;
        figures.with_context(|| format!("{} in {cell}", peer.name()))
    }

    async fn run(
        &self,
        peer: Peer,
        cell: &Cell,
        counts: Counts,
        topic: &str,
    ) -> anyhow::Result<Figures> {
        let bootstrap = self.kafka.bootstrap();
        let records = counts.warm_up + counts.measured + counts.rest;
        let payloads = payloads(self.dir, cell.record_bytes);
        let job = Job { bootstrap: &bootstrap, topic, payloads: &payloads, records };
        let log = self.dir.join(format!("{topic}.log"));
        let mut client = process::start(peer, self.programs, cell, &job, &log)?;
        let first = look(&mut client, &job, counts.warm_up).await?;
        let last = look(&mut client, &job, counts.warm_up + counts.measured).await?;
        let acknowledged = process::acknowledged(&mut client).await?;
        ensure!(acknowledged == records, "{acknowledged} of {records} were acknowledged");
        let written = held(&job).await?;
        ensure!(written == acknowledged, "{written} in the topic, {acknowledged} acknowledged");
        let told = first.records < last.records && first.cpu < last.cpu;
        ensure!(told, "too few records to measure");
        Ok(figures(&first, &last))
    }
}

/// The file of the payloads of one size.
pub(super) fn payloads(dir: &Path, bytes: usize) -> std::path::PathBuf {
    dir.join(format!("payloads-{bytes}"))
}

/// The records of the topic: none of these topics is ever emptied.
async fn held(job: &Job<'_>) -> anyhow::Result<u64> {
    let end = reader::end_offset_sum(job.bootstrap, job.topic, PARTITIONS).await?;
    Ok(u64::try_from(end)?)
}

/// Waits until the topic has so many records, and looks at the client.
async fn look(client: &mut Process, job: &Job<'_>, records: u64) -> anyhow::Result<Sight> {
    let (mut last, mut moved) = (0, Instant::now());
    loop {
        // A topic that is new has no leaders at first.
        let found = held(job).await.unwrap_or(last);
        if found >= records {
            // A process that has ended keeps its times until it is waited for.
            let cpu = client.cpu_time()?;
            return Ok(Sight { at: Instant::now(), cpu, records: found });
        }
        if found > last {
            (last, moved) = (found, Instant::now());
        }
        let stopped = moved.elapsed() > STALL;
        ensure!(!stopped, client.failure(&format!("stopped at {found} of {records} records")));
        tokio::time::sleep(LOOK).await;
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of a few seconds keep their value")]
fn figures(first: &Sight, last: &Sight) -> Figures {
    let records = (last.records - first.records) as f64;
    Figures {
        rate: records / (last.at - first.at).as_secs_f64(),
        cpu_rate: records / (last.cpu - first.cpu).as_secs_f64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_between_the_looks_counts() {
        let at = Instant::now();
        let seconds = Duration::from_secs;
        let first = Sight { at, cpu: seconds(7), records: 1000 };
        let last = Sight { at: at + seconds(10), cpu: seconds(9), records: 5000 };
        assert_eq!(figures(&first, &last), Figures { rate: 400.0, cpu_rate: 2000.0 });
    }
}
