//! Sends the samples, waits for their records, and judges them.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use harness::http::{Request, Response};
use harness::process::wait_until;
use harness::reader::read_all;
use harness::record::ReadRecord;
use harness::samples::{self, Sample};
use serde_json::Value;
use xtask::progress::Step;

use super::parts::{Parts, TOPIC};

/// Longest time until every record is there; more than the filter's flush timeout.
const ARRIVAL: Duration = Duration::from_secs(20);

/// The sample that is shown beside its record.
const TYPICAL: &str = "POST of JSON";

/// A sample with what became of it.
pub(super) struct Exchange {
    pub(super) sample: Sample,
    pub(super) reply: Response,
    pub(super) record: Option<ReadRecord>,
}

impl Exchange {
    /// Whether it shows what the others show, too.
    pub(super) fn is_typical(&self) -> bool {
        self.sample.name == TYPICAL
    }

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
pub(super) async fn exchange(parts: &Parts) -> anyhow::Result<Vec<Exchange>> {
    let step = Step::begin("sending the samples");
    let port = parts.envoy.port("http")?;
    let mut exchanges = Vec::new();
    for sample in samples::all() {
        let reply = sample.send(port).await?;
        exchanges.push(Exchange { sample, reply, record: None });
    }
    let sent = exchanges.iter().filter(|exchange| exchange.reply.status == 200).count();
    for record in arrivals(parts, sent).await? {
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
async fn arrivals(parts: &Parts, count: usize) -> anyhow::Result<Vec<ReadRecord>> {
    let bootstrap = parts.broker.bootstrap();
    let all = wait_until("the records", ARRIVAL, || async {
        let records = read_all(&bootstrap, TOPIC).await?;
        ensure!(records.len() >= count, "{} of {count}", records.len());
        Ok(records)
    });
    match all.await {
        Ok(records) => Ok(records),
        Err(_) => read_all(&bootstrap, TOPIC).await,
    }
}

/// Prints what is wrong with each sample, or with `list` a line for each, and how many are right.
///
/// # Errors
/// When a record is not as it must be.
pub(super) fn judge(exchanges: &[Exchange], parts: &Parts, list: bool) -> anyhow::Result<()> {
    let mut wrong = 0;
    for exchange in exchanges {
        let faults = exchange.faults();
        let mark = if faults.is_empty() { "ok  " } else { "FAIL" };
        if list || !faults.is_empty() {
            println!("{mark}  {}", exchange.sample.name);
        }
        for fault in &faults {
            println!("      {fault}");
        }
        wrong += usize::from(!faults.is_empty());
    }
    let (right, all) = (exchanges.len() - wrong, exchanges.len());
    println!("{right} of {all} records are as they must be, on {}", parts.broker);
    ensure!(wrong == 0, "{wrong} records are wrong");
    Ok(())
}

/// Reads the records once more, over HTTP through Envoy, as a reader of the feed does.
///
/// # Errors
/// When the feed has not each of them.
pub(super) async fn read_back(exchanges: &[Exchange], parts: &Parts) -> anyhow::Result<()> {
    let limit = 2 * exchanges.len();
    let path = format!("/v1/feeds/{TOPIC}?from=earliest&limit={limit}");
    let reply = Request::get(&path).send(parts.envoy.port("feeds")?).await?;
    ensure!(reply.status == 200, "{path}: {} {}", reply.status, reply.text());
    let page: Value = serde_json::from_slice(&reply.body)?;
    let items = page.get("items").and_then(Value::as_array).context("a page without items")?;
    let number = |item: &Value, path| item.pointer(path).and_then(Value::as_i64);
    let place = |item| (number(item, "/metadata/partition"), number(item, "/metadata/offset"));
    let read: Vec<_> = items.iter().map(place).collect();
    let records = exchanges.iter().filter_map(|exchange| exchange.record.as_ref());
    let places = records.map(|record| (Some(record.partition.into()), Some(record.offset)));
    let missing = places.filter(|place| !read.contains(place)).count();
    ensure!(missing == 0, "{missing} records are not in the feed");
    println!("{} records were read back through Envoy from the feed `{TOPIC}`", items.len());
    Ok(())
}
