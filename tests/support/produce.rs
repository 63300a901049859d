//! A producer of numbered records, and what it was told of each.

use std::fmt::Write as _;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::Poll;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use harness::process::wait_until;
use kafka_client::{Client, Config, Outcome, Producer, Record, Ticket, Topic, record_size};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Keys: few enough that each has hundreds of records to keep in order.
const KEYS: u64 = 331;

/// How often a producer sends a handful of records.
const TICK: Duration = Duration::from_millis(50);

/// Records of a tick at most while the test goes on: 3,000 a second.
const PACE: u64 = 150;

/// A tick takes this part of what is released at most, so that it lasts until more is.
const SHARE: u64 = 100;

/// Of what is less than that, one record in so many ticks.
const TRICKLE: u64 = 20;

/// Records of a tick when all are released.
const FINISH: u64 = 1000;

/// Longest wait for outcomes that must come.
const PROGRESS: Duration = Duration::from_secs(120);

/// How long the topic may take to be found.
const TOPIC: Duration = Duration::from_secs(20);

/// What a producer is asked for.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The topic.
    pub topic: String,
    /// The partition; none leaves it to the key.
    pub partition: Option<i32>,
    /// Records from 0 to this, without it.
    pub records: u64,
    /// How long each may take.
    pub patience: fn(u64) -> Duration,
}

/// A producer at work.
#[derive(Debug)]
pub struct Running {
    progress: Arc<Progress>,
    told: JoinHandle<anyhow::Result<Vec<SentRecord>>>,
}

#[derive(Debug, Default)]
struct Progress {
    released: AtomicU64,
    written: AtomicU64,
    failed: AtomicU64,
}

impl Plan {
    /// Begins; nothing is sent before it is released.
    #[must_use]
    pub fn start(self, client: &Client) -> Running {
        let progress = Arc::new(Progress::default());
        let told = tokio::spawn(produce(client.producer(), self, progress.clone()));
        Running { progress, told }
    }
}

impl Running {
    /// Lets records be sent up to this number.
    pub fn release(&self, number: u64) {
        self.progress.released.store(number, Relaxed);
    }

    /// Waits until so many more records are told as written.
    ///
    /// # Errors
    /// After two minutes.
    pub async fn until_written(&self, more: u64) -> anyhow::Result<()> {
        until_more("written", &self.progress.written, more).await
    }

    /// Waits until so many more records have another outcome.
    ///
    /// # Errors
    /// After two minutes.
    pub async fn until_failed(&self, more: u64) -> anyhow::Result<()> {
        until_more("failed", &self.progress.failed, more).await
    }

    /// Lets all records be sent, and waits for what is told of each.
    ///
    /// # Errors
    /// When the topic was not found.
    pub async fn finish(self) -> anyhow::Result<Vec<SentRecord>> {
        self.release(u64::MAX);
        self.told.await?
    }
}

async fn until_more(what: &str, counter: &AtomicU64, more: u64) -> anyhow::Result<()> {
    let goal = counter.load(Relaxed) + more;
    wait_until("outcomes", PROGRESS, async || {
        let now = counter.load(Relaxed);
        ensure!(now >= goal, "{now} {what}, and not {goal}");
        Ok(())
    })
    .await
}

/// What was told of one record.
#[derive(Debug, Clone)]
pub struct SentRecord {
    /// Which record.
    pub number: u64,
    /// When it was enqueued.
    pub sent: Instant,
    /// When its outcome was due.
    pub deadline: Instant,
    /// When its outcome came.
    pub settled: Instant,
    /// Its outcome.
    pub outcome: Outcome,
}

impl SentRecord {
    /// Whether it was told as written.
    #[must_use]
    pub fn is_written(&self) -> bool {
        matches!(self.outcome, Outcome::Written { .. })
    }
}

/// A client of a cluster, with properties beside `bootstrap.servers`.
///
/// # Errors
/// When a property is wrong.
pub fn client(bootstrap: &str, properties: &[(&str, &str)]) -> anyhow::Result<Client> {
    let properties = properties.iter().copied().chain([("bootstrap.servers", bootstrap)]);
    Ok(Client::new(Config::from_properties(properties)?))
}

/// The key of a record.
#[must_use]
pub fn key(number: u64) -> String {
    (number % KEYS).to_string()
}

/// The value of a record: its number, the running count of its key, and filling up to 100 bytes.
#[must_use]
pub fn value(number: u64) -> String {
    let mut text = String::with_capacity(100);
    // Writing to a String cannot fail.
    let _infallible = write!(text, "{number} {} ", number / KEYS);
    let mut noise = number;
    while text.len() < 100 {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let _infallible = write!(text, "{:08x}", noise >> 32);
    }
    text.truncate(100);
    text
}

/// Sends what the plan says, a handful a tick, and waits for all outcomes.
async fn produce(
    producer: Producer,
    plan: Plan,
    progress: Arc<Progress>,
) -> anyhow::Result<Vec<SentRecord>> {
    let topic = producer.topic(&plan.topic, Instant::now() + TOPIC).await?;
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut waiting = JoinSet::new();
    let mut next = 0;
    for tick in 0.. {
        ticks.tick().await;
        let released = progress.released.load(Relaxed);
        let left = released.saturating_sub(next);
        let count = match left / SHARE {
            _ if released >= plan.records => FINISH.min(plan.records - next),
            0 => left.min(u64::from(tick % TRICKLE == 0)),
            share => share.min(PACE),
        };
        let handful = enqueue(&producer, &topic, &plan, next..next + count).await?;
        waiting.spawn(handful.settle(progress.clone()));
        next += count;
        if next >= plan.records {
            break;
        }
    }
    let mut told: Vec<SentRecord> = waiting.join_all().await.into_iter().flatten().collect();
    told.sort_by_key(|told| told.number);
    Ok(told)
}

/// Records that were enqueued at the same time, with the same patience.
struct Handful {
    sent: Instant,
    deadline: Instant,
    told: Vec<SentRecord>,
    tickets: Vec<(u64, Ticket)>,
}

async fn enqueue(
    producer: &Producer,
    topic: &Topic,
    plan: &Plan,
    numbers: std::ops::Range<u64>,
) -> anyhow::Result<Handful> {
    let sent = Instant::now();
    let deadline = sent + (plan.patience)(numbers.start);
    let timestamp_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis().try_into()?;
    let texts: Vec<_> = numbers.map(|number| (number, key(number), value(number))).collect();
    let record = |key: &str, value: &str, use_it: &mut dyn FnMut(Record<'_>)| {
        use_it(Record {
            partition: plan.partition,
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            headers: &[],
            timestamp_ms,
        });
    };
    let mut bytes = 0;
    for (_, key, value) in &texts {
        record(key, value, &mut |record| bytes += record_size(&record));
    }
    let mut permit = producer.reserve(bytes, deadline).await.context("no memory is left")?;
    let mut handful = Handful { sent, deadline, told: Vec::new(), tickets: Vec::new() };
    for (number, key, value) in &texts {
        record(key, value, &mut |record| match producer.enqueue(
            &mut permit,
            topic,
            record,
            deadline,
        ) {
            Ok(ticket) => handful.tickets.push((*number, ticket)),
            Err(reason) => handful.tell(*number, Outcome::NotWritten(reason)),
        });
    }
    Ok(handful)
}

impl Handful {
    fn tell(&mut self, number: u64, outcome: Outcome) {
        let Self { sent, deadline, .. } = *self;
        self.told.push(SentRecord { number, sent, deadline, settled: Instant::now(), outcome });
    }

    /// Notes each outcome when it comes, and not when those before it have come.
    async fn settle(mut self, progress: Arc<Progress>) -> Vec<SentRecord> {
        type Waiting = Pin<Box<dyn Future<Output = Outcome> + Send>>;
        progress.failed.fetch_add(self.told.len() as u64, Relaxed);
        let tickets = std::mem::take(&mut self.tickets).into_iter();
        let mut waiting: Vec<(u64, Waiting)> = tickets
            .map(|(number, ticket)| -> (u64, Waiting) { (number, Box::pin(ticket.outcome())) })
            .collect();
        poll_fn(|context| {
            waiting.retain_mut(|(number, outcome)| {
                let Poll::Ready(outcome) = outcome.as_mut().poll(context) else { return true };
                let is_written = matches!(outcome, Outcome::Written { .. });
                let counter = if is_written { &progress.written } else { &progress.failed };
                counter.fetch_add(1, Relaxed);
                self.tell(*number, outcome);
                false
            });
            if waiting.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        self.told
    }
}
