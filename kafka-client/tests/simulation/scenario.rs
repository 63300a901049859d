//! What a seed decides before a run begins: cluster, client, load and faults.

use std::time::Duration;

use kafka_client::Config;
use kafka_client::fake_broker::{
    API_VERSIONS, Dice, FETCH, FakeSettings, Fault, INIT_PRODUCER_ID, LIST_OFFSETS, METADATA,
    OFFSET_FOR_LEADER_EPOCH, PRODUCE, Trace, When, WithoutState,
};

#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) cluster: FakeSettings,
    /// Leaders of the partitions of each topic.
    pub(crate) topics: Vec<(String, Vec<i32>)>,
    pub(crate) properties: Vec<(&'static str, String)>,
    pub(crate) identity: Identity,
    pub(crate) faults: Vec<(i16, When, Fault)>,
    pub(crate) writers: u64,
    pub(crate) records_each: u64,
    /// Things that happen to the cluster meanwhile.
    pub(crate) events: u64,
    /// Whether brokers forget producers among them.
    pub(crate) forgets: bool,
    pub(crate) reading: ReadingScenario,
}

/// What readers read beside what producers write, and what happens to it. Not all of it is noticed by
/// old versions of the protocol.
#[derive(Debug)]
pub(crate) struct ReadingScenario {
    pub(crate) readers: u64,
    pub(crate) partitions: u64,
    pub(crate) steps: u64,
    /// Logs lose their ends in unclean elections: leader epochs tell.
    pub(crate) truncates: bool,
    /// The topic is deleted and created again: topic ids tell.
    pub(crate) recreates: bool,
    pub(crate) expires: bool,
}

/// Whether batches must carry a producer id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    Required,
    /// The client of today may not know the property at all.
    AsItComes,
}

/// Longest pause of a fault; a run waits for as long before it is judged.
pub(crate) const SLOWEST: Duration = Duration::from_secs(20);

impl Scenario {
    pub(crate) fn throw(seed: u64) -> Self {
        let dice = &mut Dice::new(seed);
        let brokers = number(dice, 1, 3);
        let (properties, identity) = properties(dice);
        let mut faults: Vec<_> = (0..dice.between(0, 5)).map(|_| fault(dice)).collect();
        if dice.per_mille(300) {
            faults.extend(doubt_then_refusal(dice));
        }
        let reading = ReadingScenario {
            readers: dice.between(0, 2),
            partitions: dice.between(1, 2),
            steps: dice.between(0, 40),
            truncates: dice.per_mille(500),
            recreates: dice.per_mille(300),
            expires: dice.per_mille(300),
        };
        if reading.readers > 0 {
            faults.extend((0..dice.between(0, 4)).map(|_| read_fault(dice)));
        }
        Self {
            cluster: FakeSettings {
                brokers,
                seed,
                metadata_delay: *pick(dice, &[0, 20, 500].map(Duration::from_millis)),
                leader_hints: dice.per_mille(700),
                without_state: *pick(dice, WITHOUT_STATE),
                batch_bytes: *pick(dice, &[700, 1_048_588, 1_048_588]),
                stream_bytes: *pick(dice, &[256, 65_536]),
                sasl: None,
                ..FakeSettings::default()
            },
            topics: topics(dice, brokers),
            properties,
            identity,
            faults,
            writers: dice.between(1, 4),
            records_each: dice.between(1, 60),
            events: dice.between(0, 10),
            forgets: dice.per_mille(150),
            reading,
        }
    }

    /// The lowest versions of Metadata and Fetch that tell readers all that happens.
    pub(crate) fn least_versions(&self) -> (u64, u64) {
        match &self.reading {
            ReadingScenario { recreates: true, .. } => (10, 13),
            ReadingScenario { truncates: true, .. } => (7, 9),
            ReadingScenario { readers: 1.., .. } => (7, 4),
            ReadingScenario { .. } => (4, 4),
        }
    }

    pub(crate) fn config(&self, bootstrap: &str) -> Config {
        let own = self.properties.iter().map(|(name, value)| (*name, value.as_str()));
        Config::from_properties(own.chain([("bootstrap.servers", bootstrap)])).unwrap()
    }
}

const WITHOUT_STATE: &[WithoutState] =
    &[WithoutState::AnyFirst, WithoutState::OutOfOrder, WithoutState::UnknownProducer];

fn pick<'a, T>(dice: &mut Dice, choices: &'a [T]) -> &'a T {
    dice.pick(choices).unwrap()
}

fn number(dice: &mut Dice, least: u64, most: u64) -> i32 {
    i32::try_from(dice.between(least, most)).unwrap()
}

fn topics(dice: &mut Dice, brokers: i32) -> Vec<(String, Vec<i32>)> {
    let leader = |dice: &mut Dice| number(dice, 1, brokers.unsigned_abs().into());
    let leaders = |dice: &mut Dice| (0..dice.between(1, 3)).map(|_| leader(dice)).collect();
    (0..dice.between(1, 2)).map(|topic| (format!("topic-{topic}"), leaders(dice))).collect()
}

fn properties(dice: &mut Dice) -> (Vec<(&'static str, String)>, Identity) {
    let mut properties: Vec<(&'static str, String)> = Vec::new();
    let mut set = |name, value: u64| properties.push((name, value.to_string()));
    set("linger.ms", *pick(dice, &[0, 0, 5, 60]));
    set("batch.records", dice.between(1, 20));
    set("batch.size", dice.between(300, 4000));
    set("max.request.size", dice.between(4000, 20_000));
    set("buffer.memory", *pick(dice, &[65_536, 67_108_864]));
    set("request.timeout.ms", dice.between(200, 3000));
    set("socket.connection.setup.timeout.ms", dice.between(200, 2000));
    set("retry.backoff.ms", dice.between(1, 100));
    set("retry.backoff.max.ms", dice.between(100, 1000));
    set("connections.max.idle.ms", dice.between(1000, 60_000));
    set("metadata.max.age.ms", dice.between(1000, 60_000));
    if dice.per_mille(150) {
        set("retries", dice.between(0, 3));
    }
    let acks = *pick(dice, &["all", "all", "all", "all", "all", "1", "0"]);
    properties.push(("acks", acks.to_owned()));
    let idempotent = acks == "all" && dice.per_mille(600);
    let switch = [("bootstrap.servers", "a:1"), ("enable.idempotence", "false")];
    if Config::from_properties(switch).is_err() {
        return (properties, Identity::AsItComes);
    }
    properties.push(("enable.idempotence", idempotent.to_string()));
    (properties, if idempotent { Identity::Required } else { Identity::AsItComes })
}

fn fault(dice: &mut Dice) -> (i16, When, Fault) {
    let api = *pick(dice, &[PRODUCE, PRODUCE, PRODUCE, METADATA, API_VERSIONS, INIT_PRODUCER_ID]);
    let when = match dice.between(0, 1) {
        0 => When::Nth(dice.between(1, 8)),
        _ => When::PerMille(u32::try_from(dice.between(20, 400)).unwrap()),
    };
    let longest = u64::try_from(SLOWEST.as_millis()).unwrap();
    let slowest = *pick(dice, &[50, 500, 4000, longest]);
    let pause = Duration::from_millis(dice.between(1, slowest));
    let fault = match dice.between(0, 16) {
        0 => Fault::SlowStart(pause),
        1 => Fault::SlowAnswer(pause),
        2 => Fault::NoAnswer,
        3 => Fault::CloseBefore,
        4 => Fault::CloseAfter,
        5 => Fault::CutRequest,
        6 => Fault::CutAnswer,
        7 => Fault::WrongCorrelation,
        8 => Fault::NegativeLength,
        9 => Fault::HugeLength,
        10 => Fault::ShortBody,
        11 => Fault::Garbage,
        12 => Fault::MissingPartition,
        13 => Fault::Throttle(pause.min(Duration::from_secs(3))),
        14 => Fault::MoveLeader,
        15 => Fault::HalfOpen,
        _ => refusal(dice),
    };
    (api, when, fault)
}

/// As [`fault`], of what readers ask.
fn read_fault(dice: &mut Dice) -> (i16, When, Fault) {
    const CODES: &[i16] = &[-1, 1, 3, 5, 6, 9, 56, 74, 75, 78, 100, 103];
    let (_, when, fault) = fault(dice);
    let api = *pick(dice, &[FETCH, FETCH, FETCH, LIST_OFFSETS, OFFSET_FOR_LEADER_EPOCH]);
    let fault = match fault {
        Fault::Refuse { .. } | Fault::MoveLeader => {
            Fault::Refuse { code: *pick(dice, CODES), trace: Trace::Nothing }
        }
        other => other,
    };
    (api, when, fault)
}

/// A Produce whose end is in doubt, and refusals of those behind it: the doubt must outlive them.
fn doubt_then_refusal(dice: &mut Dice) -> Vec<(i16, When, Fault)> {
    let trace = Trace::Appended;
    let doubtful = [
        Fault::CloseAfter,
        Fault::CutAnswer,
        Fault::MissingPartition,
        Fault::Refuse { code: 6, trace },
        Fault::Refuse { code: 20, trace },
    ];
    let at = dice.between(1, 8);
    let mut chain = vec![(PRODUCE, When::Nth(at), pick(dice, &doubtful).clone())];
    for behind in 1..=dice.between(1, 5) {
        let code = *pick(dice, &[10, 18, 29, 32, 44, 87]);
        let refusal = Fault::Refuse { code, trace: Trace::Nothing };
        chain.push((PRODUCE, When::Nth(at + behind), refusal));
    }
    chain
}

/// Only what an honest broker does: a base offset of −1 says that nothing was appended, except
/// with 7 and 20.
fn refusal(dice: &mut Dice) -> Fault {
    const BEFORE: &[i16] =
        &[2, 3, 5, 6, 9, 10, 17, 18, 19, 29, 31, 32, 42, 44, 56, 74, 75, 87, 89, 100];
    let (code, trace) = match dice.between(0, 3) {
        0 => (*pick(dice, &[3, 6, 56]), *pick(dice, &[Trace::Appended, Trace::Truncated])),
        1 => (*pick(dice, &[7, 20]), *pick(dice, &[Trace::Appended, Trace::AppendedUntold])),
        _ => (*pick(dice, BEFORE), Trace::Nothing),
    };
    Fault::Refuse { code, trace }
}
