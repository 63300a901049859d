//! Sends the samples, waits for their records, and judges them.

use std::time::Duration;

use anyhow::ensure;
use xtask::http::Response;
use xtask::process::wait_until;
use xtask::progress::Step;
use xtask::reader::{ReadRecord, read_all};
use xtask::samples::{self, Sample};
use xtask::stack::{EXAMPLE_TOPIC, Stack};

use super::Outcome;

/// Longest time until every record is there; more than the filter's flush timeout.
const ARRIVAL: Duration = Duration::from_secs(20);

/// A sample with what became of it.
pub(super) struct Exchange {
    pub(super) sample: Sample,
    pub(super) reply: Response,
    pub(super) record: Option<ReadRecord>,
}

impl Exchange {
    /// What is wrong, one line each.
    fn faults(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.reply.status != 200 {
            lines.push(format!("answered {}: {}", self.reply.status, self.reply.text()));
        }
        match &self.record {
            Some(record) => lines.extend(self.sample.check(record)),
            None => lines.push("no record in Kafka".to_owned()),
        }
        lines
    }
}

/// Sends each sample through Envoy, then reads the topic until all records are there.
pub(super) async fn exchange(stack: &Stack) -> anyhow::Result<Vec<Exchange>> {
    let step = Step::begin("sending the samples");
    let port = stack.envoy.port("http")?;
    let mut exchanges = Vec::new();
    for sample in samples::all() {
        let reply = sample.send(port).await?;
        exchanges.push(Exchange { sample, reply, record: None });
    }
    let sent = exchanges.iter().filter(|exchange| exchange.reply.status == 200).count();
    for record in arrivals(stack, sent).await? {
        for exchange in &mut exchanges {
            if exchange.sample.find(std::slice::from_ref(&record)).is_some() {
                exchange.record = Some(record.clone());
            }
        }
    }
    step.done();
    Ok(exchanges)
}

/// The topic's records as soon as there are `count`, or what there is after a while.
async fn arrivals(stack: &Stack, count: usize) -> anyhow::Result<Vec<ReadRecord>> {
    let bootstrap = stack.kafka.bootstrap();
    let all = wait_until("the records", ARRIVAL, || async {
        let records = read_all(&bootstrap, EXAMPLE_TOPIC).await?;
        ensure!(records.len() >= count, "{} of {count}", records.len());
        Ok(records)
    });
    match all.await {
        Ok(records) => Ok(records),
        Err(_) => read_all(&bootstrap, EXAMPLE_TOPIC).await,
    }
}

/// Prints one line a sample, and what is wrong with it.
pub(super) fn verdict(exchanges: &[Exchange]) -> Outcome {
    let mut wrong = 0;
    for exchange in exchanges {
        let faults = exchange.faults();
        let mark = if faults.is_empty() { "ok  " } else { "FAIL" };
        println!("{mark}  {}", exchange.sample.name);
        for fault in &faults {
            println!("      {fault}");
        }
        wrong += usize::from(!faults.is_empty());
    }
    let right = exchanges.len() - wrong;
    println!("{right} of {} records are as they must be", exchanges.len());
    if wrong == 0 { Outcome::Passed } else { Outcome::Failed }
}
