//! One seed: a cluster, a client, a load, faults, and what came of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kafka_client::fake_broker::{Dice, FakeCluster};
use kafka_client::record_batch;
use kafka_client::{Client, Outcome, Reason, Record, Ticket, record_size};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use crate::chaos::unsettle;
use crate::checker::{GRACE_MS, Heard, History, Leftovers, Place, Promise, Sent, Travelled};
use crate::feed::{FEED, Feed, end_of};
use crate::ledger::{FinalLog, Ledger};
use crate::reader::follow;
use crate::scenario::{Identity, SLOWEST, Scenario};

/// What all tasks of a run share.
pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) cluster: FakeCluster,
    client: Client,
    started: Instant,
    /// Records in the order in which they were enqueued; the place of a record is its id.
    book: Mutex<Vec<Sent>>,
    feed: Feed,
    /// The cluster is well again, and nobody writes any more.
    is_over: AtomicBool,
}

/// One record to be sent.
struct Plan {
    topic: String,
    partition: Option<i32>,
    key: Option<[u8; 2]>,
    padding: usize,
    deadline: Instant,
    manner: Manner,
}

#[derive(Clone, Copy)]
enum Manner {
    Enqueue,
    /// Enqueues, and drops the ticket.
    Forget,
    Send,
    /// Drops the future of `send` on the way.
    Cancel(Duration),
}

/// How long closing the client may take.
const CLOSING: Duration = Duration::from_secs(5);
/// How long a client may take to find its way in a cluster that is well again.
pub(crate) const RECOVERY: Duration = Duration::from_secs(60);
/// What is late is told apart from what never comes.
const NEVER: Duration = Duration::from_secs(30);

/// Runs a scenario to its end, and writes down what happened.
pub(crate) async fn run(scenario: Scenario) -> History {
    let cluster = FakeCluster::new(scenario.cluster.clone());
    for (topic, leaders) in &scenario.topics {
        cluster.create_topic(topic, leaders);
    }
    let feed = vec![1; usize::try_from(scenario.reading.partitions).unwrap()];
    cluster.create_topic(FEED, &feed);
    for (api, when, fault) in &scenario.faults {
        cluster.arm(*api, *when, fault.clone());
    }
    let client = cluster.client(scenario.config(&cluster.bootstrap()));
    let (started, book) = (Instant::now(), Mutex::default());
    let (feed, is_over) = (Feed::default(), AtomicBool::new(false));
    let world = Arc::new(World { scenario, cluster, client, started, book, feed, is_over });
    let mut dice = Dice::new(world.scenario.cluster.seed.wrapping_add(1));
    let mut tasks = JoinSet::new();
    for _ in 0..world.scenario.writers {
        tasks.spawn(world.clone().write(Dice::new(dice.any())));
    }
    tasks.spawn(unsettle(world.clone(), Dice::new(dice.any())));
    let (its_world, its_dice) = (world.clone(), Dice::new(dice.any()));
    tasks.spawn(async move {
        let World { cluster, scenario, feed, .. } = &*its_world;
        feed.unsettle(cluster, scenario, its_dice).await;
    });
    let mut readers = JoinSet::new();
    for _ in 0..world.scenario.reading.readers {
        readers.spawn(follow(world.clone(), Dice::new(dice.any())));
    }
    tasks.join_all().await;
    let wedged = world.probe().await;
    let ends = world.final_logs();
    world.is_over.store(true, Relaxed);
    let readings = readers.join_all().await;
    world.client.close(Instant::now() + CLOSING).await;
    // Whatever a broker has read may still be executed.
    sleep(SLOWEST + CLOSING).await;
    let history = world.history();
    let mut ledger = Ledger { readings, ..history.ledger };
    for (place, log) in &mut ledger.logs {
        log.was_truncated = ledger.truncations.iter().any(|(_, cut, _)| cut == place);
        log.end = ends.get(place).map_or(0, |before| end_of(before.start, &before.batches));
    }
    History { wedged, ledger, ..history }
}

impl World {
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Relaxed)
    }

    async fn write(self: Arc<Self>, mut dice: Dice) {
        let mut tasks = JoinSet::new();
        for _ in 0..self.scenario.records_each {
            if dice.per_mille(300) {
                sleep(Duration::from_millis(dice.between(0, 600))).await;
            }
            let plan = self.plan(&mut dice);
            match plan.manner {
                Manner::Enqueue | Manner::Forget => {
                    if let Some((id, ticket)) = self.enqueue(&plan).await {
                        tasks.spawn(self.clone().hear(id, plan.deadline, ticket));
                    }
                }
                Manner::Send | Manner::Cancel(_) => {
                    let world = self.clone();
                    tasks.spawn(async move { drop(world.send(plan).await) });
                }
            }
        }
        tasks.join_all().await;
    }

    fn plan(&self, dice: &mut Dice) -> Plan {
        let (topic, leaders) = dice.pick(&self.scenario.topics).unwrap();
        let partitions = leaders.len() as u64;
        let partition = dice.between(0, partitions - 1);
        let keyed = dice.per_mille(300);
        let patience = *dice.pick(&[200, 2000, 15_000]).unwrap();
        Plan {
            topic: topic.clone(),
            partition: dice.per_mille(500).then(|| i32::try_from(partition).unwrap()),
            key: keyed.then(|| [b'k', u8::try_from(dice.between(0, 9)).unwrap()]),
            padding: if dice.per_mille(30) { 20_000 } else { dice.between(0, 300) as usize },
            deadline: Instant::now() + Duration::from_millis(dice.between(1, patience)),
            manner: match dice.between(0, 19) {
                0 => Manner::Forget,
                1 => Manner::Send,
                2 => Manner::Cancel(Duration::from_millis(dice.between(0, 300))),
                _ => Manner::Enqueue,
            },
        }
    }

    /// A place in the book, and the value that names it.
    fn register(&self, plan: &Plan, is_ordered: bool) -> (u64, Vec<u8>) {
        let mut book = self.book.lock().unwrap();
        let id = book.len() as u64;
        let deadline_ms = plan.deadline.duration_since(self.started).as_millis();
        let (topic, heard) = (plan.topic.clone(), Heard::Ignored);
        book.push(Sent { id, topic, heard, deadline_ms, settled_ms: 0, is_ordered });
        let mut value = id.to_be_bytes().to_vec();
        value.resize(value.len() + plan.padding, b'.');
        (id, value)
    }

    fn note(&self, id: u64, heard: Heard) {
        let settled_ms = self.started.elapsed().as_millis();
        let mut book = self.book.lock().unwrap();
        let sent = book.get_mut(usize::try_from(id).unwrap()).unwrap();
        (sent.heard, sent.settled_ms) = (heard, settled_ms);
    }

    async fn enqueue(&self, plan: &Plan) -> Option<(u64, Ticket)> {
        let producer = self.client.producer();
        let bytes = record_size(&record(plan, &vec![0; 8 + plan.padding]));
        let ready = async {
            let topic = producer.topic(&plan.topic, plan.deadline).await?;
            Ok((topic, producer.reserve(bytes, plan.deadline).await?))
        };
        let ready: Result<_, Reason> = ready.await;
        // From here to `enqueue` nothing waits: the order in the book is the order of the records.
        let (id, value) = self.register(plan, true);
        let enqueued = ready.and_then(|(topic, mut permit)| {
            producer.enqueue(&mut permit, &topic, record(plan, &value), plan.deadline)
        });
        match enqueued {
            Ok(_) if matches!(plan.manner, Manner::Forget) => None,
            Ok(ticket) => Some((id, ticket)),
            Err(reason) => {
                self.note(id, Heard::NotWritten(reason.to_string()));
                None
            }
        }
    }

    async fn hear(self: Arc<Self>, id: u64, deadline: Instant, ticket: Ticket) {
        let heard = timeout_at(deadline + NEVER, ticket.outcome()).await;
        self.note(id, heard.map_or(Heard::Nothing, heard_of));
    }

    /// The cluster is well again, so each partition must take records soon. Gives those that do
    /// not.
    async fn probe(self: &Arc<Self>) -> Vec<Place> {
        let mut wedged = Vec::new();
        for (topic, partition) in self.places() {
            let until = Instant::now() + RECOVERY;
            while Instant::now() < until {
                let (topic, partition) = (topic.clone(), Some(partition));
                let deadline = Instant::now() + RECOVERY / 6;
                let (key, padding, manner) = (None, 0, Manner::Send);
                let plan = Plan { topic, partition, key, padding, deadline, manner };
                if matches!(self.clone().send(plan).await, Heard::Written { .. }) {
                    break;
                }
                sleep(RECOVERY / 60).await;
            }
            if Instant::now() >= until {
                wedged.push((topic, partition));
            }
        }
        wedged
    }

    async fn send(self: Arc<Self>, plan: Plan) -> Heard {
        let (id, value) = self.register(&plan, false);
        let producer = self.client.producer();
        let sending = producer.send(&plan.topic, record(&plan, &value), plan.deadline);
        let heard = match plan.manner {
            Manner::Cancel(after) => match timeout_at(Instant::now() + after, sending).await {
                Ok(outcome) => heard_of(outcome),
                Err(_) => return Heard::Ignored,
            },
            _ => {
                let outcome = timeout_at(plan.deadline + NEVER, sending).await;
                outcome.map_or(Heard::Nothing, heard_of)
            }
        };
        self.note(id, heard.clone());
        heard
    }

    fn history(&self) -> History {
        let arrivals = self.cluster.arrivals();
        let wire: Vec<_> = arrivals
            .iter()
            .filter_map(|arrival| {
                let (header, records) = record_batch::decode_all(&arrival.batch).ok()?;
                Some(Travelled {
                    at_ms: arrival.at.duration_since(self.started).as_millis(),
                    broker: arrival.broker,
                    place: (arrival.topic.clone(), arrival.partition),
                    producer: header.producer_id,
                    epoch: header.producer_epoch,
                    sequence: header.base_sequence,
                    bytes: arrival.batch.clone(),
                    ids: records.iter().map(|record| id_of(record.value.as_deref())).collect(),
                })
            })
            .collect();
        let is_identified = self.scenario.identity == Identity::Required
            || wire.iter().any(|batch| batch.producer >= 0);
        let stats = self.client.stats();
        History {
            records: self.book.lock().unwrap().clone(),
            logs: self.logs(),
            wire,
            impatient: self.cluster.impatient(),
            wedged: Vec::new(),
            promise: match (is_identified, self.scenario.forgets) {
                (false, _) => Promise::AtLeastOnce,
                (true, false) => Promise::ExactlyOnce,
                (true, true) => Promise::Identified,
            },
            ledger: Ledger {
                readings: Vec::new(),
                logs: self.final_logs(),
                truncations: self.feed.truncations.lock().unwrap().clone(),
            },
            leftovers: Leftovers {
                buffered_bytes: stats.buffered_bytes,
                connections: stats.connections_open,
            },
        }
    }

    fn logs(&self) -> BTreeMap<Place, Vec<(i64, u64)>> {
        let content = |(topic, partition): &Place| {
            let records = self.cluster.log(topic, *partition);
            records.iter().map(|it| (it.offset, id_of(it.value.as_deref()))).collect()
        };
        self.places().into_iter().map(|place| (place.clone(), content(&place))).collect()
    }

    fn final_logs(&self) -> BTreeMap<Place, FinalLog> {
        let feed = (0..self.cluster.partitions(FEED)).map(|partition| (FEED.to_owned(), partition));
        let content = |(topic, partition): Place| {
            let topic_id = self.cluster.topic_id(&topic);
            let (start, batches) = self.cluster.batches(&topic, partition);
            ((topic, partition), FinalLog { topic_id, start, batches, ..FinalLog::default() })
        };
        self.places().into_iter().chain(feed).map(content).collect()
    }

    fn places(&self) -> Vec<Place> {
        let of_topic = |(topic, leaders): &(String, Vec<i32>)| {
            let topic = topic.clone();
            (0..).zip(leaders).map(|(partition, _)| (topic.clone(), partition)).collect::<Vec<_>>()
        };
        self.scenario.topics.iter().flat_map(of_topic).collect()
    }
}

fn record<'a>(plan: &'a Plan, value: &'a [u8]) -> Record<'a> {
    let key = plan.key.as_ref().map(|key| &key[..]);
    let (partition, value) = (plan.partition, Some(value));
    Record { partition, key, value, headers: &[], timestamp_ms: 5 }
}

pub(crate) fn id_of(value: Option<&[u8]>) -> u64 {
    value.and_then(|value| value.first_chunk()).map_or(u64::MAX, |id| u64::from_be_bytes(*id))
}

fn heard_of(outcome: Outcome) -> Heard {
    match outcome {
        Outcome::Written { partition, offset, .. } => Heard::Written { partition, offset },
        Outcome::NotWritten(reason) => Heard::NotWritten(reason.to_string()),
        Outcome::Unknown(reason) => Heard::Unknown(reason.to_string()),
    }
}

const _: () = assert!(GRACE_MS < NEVER.as_millis());
