//! Readers over HTTP that come back with their cursors, and the ledger of what each has got.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use futures_util::future::try_join_all;
use harness::http::Request;
use harness::process::wait_until;
use kafka_client::{Client, Outcome, Record};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

/// Longest silence of a stream whose heartbeat is at most 2 s.
const SILENCE: Duration = Duration::from_secs(10);

/// How long the last records may take to a reader.
const REST: Duration = Duration::from_secs(60);

/// When a reader comes again.
const AGAIN: Duration = Duration::from_millis(200);

/// How long a record may take to be written while leaders fail.
const PATIENCE: Duration = Duration::from_secs(120);

/// Records of each partition that readers must get; none while there may be more.
type Goal = Option<Vec<u64>>;

/// Writes records that are numbered from 0 in each partition.
#[derive(Debug)]
pub struct Writer {
    is_over: watch::Sender<bool>,
    written: JoinHandle<anyhow::Result<Vec<u64>>>,
}

/// How a reader reads.
#[derive(Debug, Clone, Copy)]
enum Way {
    Stream,
    Poll,
}

/// Readers of a feed of a topic that a [`Writer`] writes, from its beginning.
#[derive(Debug)]
pub struct Readers {
    goal: watch::Sender<Goal>,
    /// Records that all of them have got together.
    seen: Arc<AtomicU64>,
    count: u64,
    following: Vec<JoinHandle<anyhow::Result<Ledger>>>,
}

#[derive(Debug, Clone, Copy)]
struct Reader {
    port: u16,
    feed: &'static str,
    way: Way,
}

/// What a reader has met; its records are in order, without a gap or a repetition.
#[derive(Debug, Default)]
pub struct Ledger {
    /// The number that is next in each partition.
    pub next: Vec<u64>,
    /// Connections that broke before their reply was complete, or ended without `goaway`.
    pub breaks: usize,
    /// Streams that ended with `goaway`.
    pub goaways: usize,
    /// Gaps that were told, by their reasons.
    pub gaps: BTreeMap<String, usize>,
    /// Replies other than 200, errors of pages and `failure` events.
    pub refusals: BTreeMap<String, usize>,
    /// The longest time without a byte on an open stream.
    pub silence: Duration,
    /// The longest time that a page took.
    pub slowest_page: Duration,
    seen: Arc<AtomicU64>,
}

impl Writer {
    /// Begins to write to some partitions, a record each in every `pause`, of at least so many bytes.
    #[must_use]
    pub fn start(
        client: &Client,
        topic: &'static str,
        partitions: Range<i32>,
        (pause, bytes): (Duration, usize),
    ) -> Self {
        let (is_over, over) = watch::channel(false);
        let write = |place| write(client.clone(), (topic, place), (pause, bytes), over.clone());
        let writers: Vec<_> = partitions.map(write).collect();
        Self { is_over, written: tokio::spawn(try_join_all(writers)) }
    }

    /// Ends it; how many records each partition has.
    ///
    /// # Errors
    /// When one was not written.
    pub async fn finish(self) -> anyhow::Result<Vec<u64>> {
        self.is_over.send_replace(true);
        self.written.await?
    }
}

async fn write(
    client: Client,
    (topic, partition): (&str, i32),
    (pause, bytes): (Duration, usize),
    over: watch::Receiver<bool>,
) -> anyhow::Result<u64> {
    let producer = client.producer();
    let mut number = 0;
    while !*over.borrow() {
        let value = format!("{:bytes$}", format!("{partition} {number} "));
        let record = Record { partition: Some(partition), ..Record::new(value.as_bytes()) };
        let outcome = producer.send(topic, record, PATIENCE).await;
        ensure!(matches!(outcome, Outcome::Written { .. }), "{value}: {outcome:?}");
        number += 1;
        sleep(pause).await;
    }
    Ok(number)
}

impl Readers {
    /// So many streams, and as many that read page by page, at a bridge or a gateway.
    #[must_use]
    pub fn start(port: u16, feed: &'static str, of_each: usize) -> Self {
        let (goal, known) = watch::channel(None);
        let seen = Arc::<AtomicU64>::default();
        let ways = [Way::Stream, Way::Poll].into_iter().cycle().take(2 * of_each);
        let follow = |way| Reader { port, feed, way }.follow(known.clone(), seen.clone());
        let following: Vec<_> = ways.map(|way| tokio::spawn(follow(way))).collect();
        Self { goal, seen, count: following.len() as u64, following }
    }

    /// Waits until each could have got so many more records.
    ///
    /// # Errors
    /// When that takes more than a minute.
    pub async fn until_seen(&self, more: u64) -> anyhow::Result<()> {
        let goal = self.seen.load(Relaxed) + more * self.count;
        wait_until("readers", REST, async || {
            let seen = self.seen.load(Relaxed);
            ensure!(seen >= goal, "{seen} of {goal}");
            Ok(())
        })
        .await
    }

    /// Waits until each has so many records since the beginning.
    ///
    /// # Errors
    /// As [`Readers::until_seen`].
    pub async fn until_all(&self, records: u64) -> anyhow::Result<()> {
        let seen = self.seen.load(Relaxed);
        wait_until("readers", REST, async || {
            let now = self.seen.load(Relaxed);
            ensure!(now >= records * self.count, "{now} of {records}, from {seen}");
            Ok(())
        })
        .await
    }

    /// What all have met together, once each has all records of each partition.
    ///
    /// # Errors
    /// When one has missed a record, got it twice or out of order, or its stream was silent.
    pub async fn finish(self, written: Vec<u64>) -> anyhow::Result<Ledger> {
        self.goal.send_replace(Some(written));
        let ledgers = try_join_all(self.following).await?;
        let sum = Ledger::sum(ledgers.into_iter().collect::<anyhow::Result<_>>()?);
        println!("{} readers: {sum:?}", self.count);
        Ok(sum)
    }
}

impl Reader {
    /// Reads until it has all there is.
    async fn follow(
        self,
        goal: watch::Receiver<Goal>,
        seen: Arc<AtomicU64>,
    ) -> anyhow::Result<Ledger> {
        let mut ledger = Ledger { seen, ..Ledger::default() };
        let read = match self.way {
            Way::Stream => self.stream(&goal, &mut ledger).await,
            Way::Poll => self.poll(&goal, &mut ledger).await,
        };
        read.with_context(|| format!("{self:?} after {ledger:?}"))?;
        Ok(ledger)
    }

    async fn stream(
        &self,
        goal: &watch::Receiver<Goal>,
        ledger: &mut Ledger,
    ) -> anyhow::Result<()> {
        let (mut position, mut end) = (None, End::default());
        let path = format!("/v1/feeds/{}/events?from=earliest", self.feed);
        while !end.is_reached(goal, ledger)? {
            let mut request = Request::get(&path);
            if let Some(position) = &position {
                request = request.header("last-event-id", position);
            }
            let mut opened = request.open(self.port).await?;
            if opened.status != 200 {
                ledger.refuse(opened.status.to_string());
                sleep(AGAIN).await;
                continue;
            }
            let (mut text, mut is_told) = (Vec::new(), false);
            while !end.is_reached(goal, ledger)? {
                let began = Instant::now();
                let chunk = timeout(SILENCE, opened.chunk()).await.context("it is silent")?;
                ledger.silence = ledger.silence.max(began.elapsed());
                let Ok(Some(chunk)) = chunk else {
                    ledger.breaks += usize::from(!is_told);
                    sleep(AGAIN).await;
                    break;
                };
                text.extend_from_slice(&chunk);
                while let Some(end) = text.windows(2).position(|pair| pair == b"\n\n") {
                    let block = String::from_utf8(text.drain(..end + 2).collect())?;
                    is_told |= ledger.block(&block, &mut position)?;
                }
            }
        }
        Ok(())
    }

    async fn poll(&self, goal: &watch::Receiver<Goal>, ledger: &mut Ledger) -> anyhow::Result<()> {
        let (mut position, mut end) = ("from=earliest".to_owned(), End::default());
        while !end.is_reached(goal, ledger)? {
            let feed = self.feed;
            let path = format!("/v1/feeds/{feed}/messages?timeout=1000&min=100&{position}");
            let began = Instant::now();
            let Ok(reply) = Request::get(&path).send(self.port).await else {
                ledger.breaks += 1;
                sleep(AGAIN).await;
                continue;
            };
            ledger.slowest_page = ledger.slowest_page.max(began.elapsed());
            let body = reply.json()?;
            if let Some(error) = body.get("error").and_then(Value::as_str) {
                ledger.refuse(format!("{} {error}", reply.status));
                sleep(AGAIN).await;
            }
            if reply.status != 200 {
                continue;
            }
            for gap in body.get("gaps").and_then(Value::as_array).into_iter().flatten() {
                ledger.gap(gap)?;
            }
            for item in body.get("items").and_then(Value::as_array).context("items")? {
                ledger.record(item.get("content").and_then(Value::as_str).context("content")?)?;
            }
            let next = body.pointer("/pagination/nextCursor").and_then(Value::as_str);
            position = format!("cursor={}", next.context("nextCursor")?);
        }
        Ok(())
    }
}

/// When the last record was known.
#[derive(Debug, Default)]
struct End(Option<Instant>);

impl End {
    fn is_reached(
        &mut self,
        goal: &watch::Receiver<Goal>,
        ledger: &Ledger,
    ) -> anyhow::Result<bool> {
        let goal = goal.borrow();
        let Some(goal) = &*goal else { return Ok(false) };
        let known = self.0.get_or_insert_with(Instant::now).elapsed();
        ensure!(known < REST, "not at {goal:?} after {known:?}");
        Ok(*goal == ledger.next)
    }
}

impl Ledger {
    fn sum(ledgers: Vec<Self>) -> Self {
        let mut sum = Self::default();
        for ledger in ledgers {
            sum.next = ledger.next;
            sum.breaks += ledger.breaks;
            sum.goaways += ledger.goaways;
            sum.silence = sum.silence.max(ledger.silence);
            sum.slowest_page = sum.slowest_page.max(ledger.slowest_page);
            for (of, all) in [(ledger.refusals, &mut sum.refusals), (ledger.gaps, &mut sum.gaps)] {
                of.into_iter().for_each(|(reason, count)| *all.entry(reason).or_default() += count);
            }
        }
        sum
    }

    /// Adds a block of an event stream; whether it says that the stream ends.
    fn block(&mut self, block: &str, position: &mut Option<String>) -> anyhow::Result<bool> {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
        if let Some(id) = field("id: ") {
            *position = Some(id.to_owned());
        }
        let data = field("data: ").unwrap_or_default();
        match field("event: ") {
            None => return Ok(false),
            Some("message") => self.record(data)?,
            Some("gap") => self.gap(&serde_json::from_str(data)?)?,
            Some("goaway") => self.goaways += 1,
            Some("failure") => self.refuse(data.to_owned()),
            Some(other) => bail!("{other}: {data}"),
        }
        Ok(matches!(field("event: "), Some("goaway" | "failure")))
    }

    /// Adds a value of a [`Writer`].
    ///
    /// # Errors
    /// When it is not the next one of its partition.
    pub fn record(&mut self, value: &str) -> anyhow::Result<()> {
        let mut numbers = value.split_whitespace().map(str::parse::<u64>);
        let mut number = || numbers.next().context("not a record of the writer");
        let (partition, number) = (usize::try_from(number()??)?, number()??);
        let next = self.next(partition)?;
        ensure!(number == *next, "{partition}: {number} came instead of {next}");
        *next += 1;
        self.seen.fetch_add(1, Relaxed);
        Ok(())
    }

    /// A topic that was created again has its numbers from 0.
    fn gap(&mut self, gap: &Value) -> anyhow::Result<()> {
        let reason = gap.get("reason").and_then(Value::as_str).context("reason")?;
        if reason == "recreated" {
            let partition = gap.get("partition").and_then(Value::as_u64).context("partition")?;
            *self.next(usize::try_from(partition)?)? = 0;
        }
        *self.gaps.entry(reason.to_owned()).or_default() += 1;
        Ok(())
    }

    fn next(&mut self, partition: usize) -> anyhow::Result<&mut u64> {
        ensure!(partition < 100, "there is no partition {partition}");
        self.next.resize(self.next.len().max(partition + 1), 0);
        self.next.get_mut(partition).context("it is there by now")
    }

    fn refuse(&mut self, refusal: String) {
        *self.refusals.entry(refusal).or_default() += 1;
    }
}
