//! Many seeds of groups: members that come, go and are cut off, coordinators that fail. No partition is
//! ever with two members, what is committed was settled, and in the end everything is shared.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kafka_client::fake_broker::{
    CONSUMER_GROUP_HEARTBEAT, Dice, FIND_COORDINATOR, FakeCluster, FakeSettings, Fault, HEARTBEAT,
    JOIN_GROUP, LEAVE_GROUP, METADATA, OFFSET_COMMIT, OFFSET_FETCH, SYNC_GROUP, Trace, When,
};
use kafka_client::{
    Assignor, Client, Config, GroupConfig, GroupEvent, GroupOffset, GroupProtocol, Member,
};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

const SEEDS: u64 = 200;
const TOPIC: &str = "shared";
const GROUP: &str = "readers";
/// How much longer than it has a reader may take to give back.
const SLUGGISH: Duration = Duration::from_secs(20);
/// How long members may take to share everything once all is well.
const SETTLED: Duration = Duration::from_secs(200);
const SIMULATED: Duration = Duration::from_secs(1000);

/// What is true of the partitions, whatever brokers and members believe.
#[derive(Default)]
struct Book {
    /// Who has a partition: members by number.
    holders: BTreeMap<i32, u64>,
    /// Up to where somebody who had it has settled it.
    settled: BTreeMap<i32, i64>,
    faults: Vec<String>,
    assigned: u64,
    committed: u64,
    lost: u64,
}

struct World {
    cluster: FakeCluster,
    config: GroupConfig,
    book: Mutex<Book>,
}

/// One member, and the task that follows it.
struct Seat {
    number: u64,
    member: Member,
    client: Client,
    follower: JoinHandle<()>,
}

impl World {
    fn book<T>(&self, with: impl FnOnce(&mut Book) -> T) -> T {
        with(&mut self.book.lock().unwrap())
    }

    fn client(&self) -> Client {
        let bootstrap = self.cluster.bootstrap();
        let properties = [
            ("bootstrap.servers", &*bootstrap),
            ("request.timeout.ms", "2000"),
            ("metadata.max.age.ms", "10000"),
        ];
        self.cluster.client(Config::from_properties(properties).unwrap())
    }

    fn sit(self: &Arc<Self>, number: u64, dice: Dice) -> Seat {
        let client = self.client();
        let (member, mut events) = client.group(GROUP).join(&[TOPIC], &self.config);
        let (world, its, group) = (self.clone(), member.clone(), client.group(GROUP));
        let follower = tokio::spawn(async move {
            let mut dice = dice;
            let mut settling = BTreeMap::<i32, JoinHandle<()>>::new();
            while let Some(event) = events.next().await {
                match event {
                    GroupEvent::Assigned(given) => {
                        for (_, partition) in given {
                            world.take(partition, number);
                            let work = settle(
                                world.clone(),
                                its.clone(),
                                group.clone(),
                                (partition, number),
                                Dice::new(dice.any()),
                            );
                            settling.insert(partition, tokio::spawn(work));
                        }
                    }
                    GroupEvent::Revoked(revocation) => {
                        let gone: Vec<_> = revocation.partitions.iter().map(|it| it.1).collect();
                        let slow = Duration::from_millis(dice.between(0, 200));
                        let slow = if dice.per_mille(30) { slow * 1000 } else { slow };
                        sleep_until(revocation.until.min(Instant::now() + slow)).await;
                        world.give_up(&gone, number, &mut settling);
                        if dice.per_mille(100) {
                            sleep(slow.min(SLUGGISH)).await;
                        }
                        drop(revocation);
                    }
                    GroupEvent::Lost(gone) => {
                        let gone: Vec<_> = gone.iter().map(|it| it.1).collect();
                        world.book(|book| book.lost += 1);
                        world.give_up(&gone, number, &mut settling);
                    }
                    other => world.fault(format!("member {number}: {other:?}")),
                }
            }
        });
        Seat { number, member, client, follower }
    }

    fn fault(&self, what: String) {
        self.book(|book| book.faults.push(what));
    }

    fn take(&self, partition: i32, number: u64) {
        let before = self.book(|book| {
            book.assigned += 1;
            book.holders.insert(partition, number)
        });
        if let Some(other) = before {
            self.fault(format!("{partition} is given to {number} while {other} has it"));
        }
    }

    fn give_up(
        &self,
        partitions: &[i32],
        number: u64,
        settling: &mut BTreeMap<i32, JoinHandle<()>>,
    ) {
        for partition in partitions {
            settling.remove(partition).into_iter().for_each(|it| it.abort());
            self.book(|book| {
                if book.holders.get(partition) == Some(&number) {
                    book.holders.remove(partition);
                }
            });
        }
    }

    /// Nobody settles or holds anything of a member that is gone.
    fn forget(&self, number: u64) {
        self.book(|book| book.holders.retain(|_, holder| *holder != number));
    }

    /// Something happens to the members, their coordinator or the topic.
    async fn event(self: &Arc<Self>, seats: &mut Vec<Seat>, next: &mut u64, dice: &mut Dice) {
        let brokers = self.cluster.bootstrap().split(',').count() as u64;
        let broker = i32::try_from(dice.between(1, brokers)).unwrap();
        match dice.between(0, 9) {
            0..=2 => {
                seats.push(self.sit(*next, Dice::new(dice.any())));
                *next += 1;
            }
            kind @ 3..=4 if !seats.is_empty() => {
                let at = usize::try_from(dice.between(0, seats.len() as u64 - 1)).unwrap();
                let seat = seats.swap_remove(at);
                self.forget(seat.number);
                if kind == 3 {
                    // It is gone silently: nobody hears its events any more.
                    seat.follower.abort();
                } else {
                    seat.member.leave(Duration::from_secs(5)).await;
                    seat.client.close(Instant::now()).await;
                }
            }
            5 => self.cluster.coordinate(GROUP, broker),
            6 => self.cluster.kill(broker),
            7 => self.cluster.restart(broker),
            8 => self.cluster.add_partition(TOPIC, 1),
            _ => {}
        }
    }

    /// All is well with the cluster: everything is shared soon, and nothing is ahead.
    async fn judge(&self, members: usize) {
        let all: BTreeSet<i32> = (0..self.cluster.partitions(TOPIC)).collect();
        let is_shared = |book: &Book| book.holders.keys().copied().collect::<BTreeSet<_>>() == all;
        let settling = async {
            loop {
                let before = self.book(|book| (is_shared(book), book.holders.clone()));
                sleep(Duration::from_secs(15)).await;
                let after = self.book(|book| (is_shared(book), book.holders.clone()));
                if before.0 && before == after {
                    return;
                }
            }
        };
        if timeout(SETTLED, settling).await.is_err() {
            let held = self.book(|book| format!("{:?} of {all:?}", book.holders));
            self.fault(format!("never settled: {held}, {members} members"));
        }
        for partition in all {
            let committed =
                self.cluster.committed(GROUP, TOPIC, partition).map_or(0, |it| it.offset);
            let settled = self.book(|book| book.settled.get(&partition).copied().unwrap_or(0));
            if committed > settled {
                self.fault(format!("{partition}: {committed} is committed, {settled} is settled"));
            }
        }
    }
}

/// Reads on from where the group is, and commits what it has settled.
async fn settle(
    world: Arc<World>,
    member: Member,
    group: kafka_client::Group,
    (partition, number): (i32, u64),
    mut dice: Dice,
) {
    let place = [(TOPIC, partition)];
    let from = loop {
        match group.committed(&place, Duration::from_secs(5)).await.remove(0) {
            Ok(found) => break found.map_or(0, |found| found.offset),
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    };
    let mut at = from;
    loop {
        sleep(Duration::from_millis(dice.between(50, 3000))).await;
        at += i64::try_from(dice.between(0, 5)).unwrap();
        let is_held = world.book(|book| {
            let is_held = book.holders.get(&partition) == Some(&number);
            let settled = book.settled.entry(partition).or_default();
            if is_held {
                *settled = at.max(*settled);
            }
            is_held
        });
        if !is_held {
            return;
        }
        let offset = GroupOffset::new(TOPIC, partition, at);
        let within = Duration::from_millis(dice.between(50, 5000));
        if member.commit(&[offset], within).await == [Ok(())] {
            world.book(|book| book.committed += 1);
        }
    }
}

fn config(dice: &mut Dice) -> GroupConfig {
    let config = GroupConfig::default().rebalance_timeout(Duration::from_secs(dice.between(5, 60)));
    let session = Duration::from_secs(dice.between(6, 45));
    match dice.between(0, 2) {
        0 => config.protocol(GroupProtocol::Classic).session_timeout(session),
        1 => config
            .protocol(GroupProtocol::Classic)
            .assignors(&[Assignor::CooperativeSticky])
            .session_timeout(session),
        _ => config,
    }
}

fn fault(dice: &mut Dice) -> (i16, When, Fault) {
    const APIS: &[i16] = &[
        HEARTBEAT,
        JOIN_GROUP,
        SYNC_GROUP,
        CONSUMER_GROUP_HEARTBEAT,
        CONSUMER_GROUP_HEARTBEAT,
        OFFSET_COMMIT,
        OFFSET_FETCH,
        FIND_COORDINATOR,
        LEAVE_GROUP,
        METADATA,
    ];
    const CODES: &[i16] = &[14, 15, 16, 27, 25, 22];
    const MODERN: &[i16] = &[14, 15, 16, 25, 110, 113];
    let api = *dice.pick(APIS).unwrap();
    let when = match dice.between(0, 1) {
        0 => When::Nth(dice.between(1, 20)),
        _ => When::PerMille(u32::try_from(dice.between(20, 300)).unwrap()),
    };
    let pause = Duration::from_millis(dice.between(1, 8000));
    let codes = if api == CONSUMER_GROUP_HEARTBEAT { MODERN } else { CODES };
    let fault = match dice.between(0, 9) {
        0 => Fault::SlowStart(pause),
        1 => Fault::SlowAnswer(pause),
        2 => Fault::NoAnswer,
        3 => Fault::CloseBefore,
        4 => Fault::CloseAfter,
        5 => Fault::CutAnswer,
        6 => Fault::Garbage,
        7 => Fault::HalfOpen,
        _ if api == METADATA || api == FIND_COORDINATOR => Fault::CloseAfter,
        _ => {
            let code = *dice.pick(codes).unwrap();
            Fault::Refuse { code, trace: Trace::Nothing }
        }
    };
    (api, when, fault)
}

async fn live(seed: u64) -> (Vec<String>, [u64; 3]) {
    let mut dice = Dice::new(seed ^ 0x6716);
    let brokers = i32::try_from(dice.between(1, 3)).unwrap();
    let cluster = FakeCluster::new(FakeSettings { brokers, seed, ..FakeSettings::default() });
    let partitions = dice.between(1, 9);
    cluster.create_topic(TOPIC, &vec![1; usize::try_from(partitions).unwrap()]);
    for _ in 0..dice.between(0, 4) {
        let (api, when, fault) = fault(&mut dice);
        cluster.arm(api, when, fault);
    }
    let config = config(&mut dice);
    let world = Arc::new(World { cluster, config, book: Mutex::default() });
    let mut seats = Vec::new();
    let mut next = 0;
    for _ in 0..dice.between(2, 14) {
        sleep(Duration::from_millis(dice.between(1, 15_000))).await;
        world.event(&mut seats, &mut next, &mut dice).await;
    }
    world.cluster.disarm();
    (1..=brokers).for_each(|broker| world.cluster.restart(broker));
    seats.push(world.sit(next, Dice::new(dice.any())));
    world.judge(seats.len()).await;
    for seat in seats {
        seat.follower.abort();
        seat.client.close(Instant::now()).await;
    }
    world
        .book(|book| (std::mem::take(&mut book.faults), [book.assigned, book.committed, book.lost]))
}

fn run(seed: u64) -> (Vec<String>, [u64; 3]) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let run = async { timeout(SIMULATED, live(seed)).await };
    let hangs = |_| (vec!["it is never over".to_owned()], [0; 3]);
    runtime.unwrap().block_on(run).unwrap_or_else(hangs)
}

#[test]
fn every_seed_of_a_group_shares_its_partitions() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse().unwrap());
    let seeds = match number("KAFKA_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("KAFKA_SIM_SEEDS").unwrap_or(SEEDS),
    };
    let (mut failed, mut counts) = (Vec::new(), [0; 3]);
    for seed in seeds {
        let (faults, counted) = run(seed);
        counts.iter_mut().zip(counted).for_each(|(sum, count)| *sum += count);
        if !faults.is_empty() {
            let faults = faults.iter().take(5).map(|it| format!("  {it}\n")).collect::<String>();
            failed.push(format!("KAFKA_SIM_SEED={seed}\n{faults}"));
        }
    }
    let [assigned, committed, lost] = counts;
    println!("{assigned} partitions assigned, {committed} commits, {lost} times lost");
    assert!(failed.is_empty(), "{} seeds failed\n{}", failed.len(), failed.join("\n"));
    assert!(assigned > 0 && committed > 0);
}

#[test]
fn a_seed_of_a_group_lives_the_same_life_twice() {
    let differing: Vec<_> = (0..20).filter(|seed| run(*seed) != run(*seed)).collect();
    assert!(differing.is_empty(), "{differing:?}");
}
