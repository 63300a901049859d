//! kafka-client's groups on real Kafka: offsets without a membership, and groups whose other members are
//! Java's console consumer and kcat (librdkafka).

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use harness::kafka::{Kafka, KafkaVersion};
use harness::process::{Process, wait_until};
use harness::run_dir::RunDir;
use kafka_client::{
    Assignor, Client, Consumer, ConsumerConfig, Group, GroupConfig, GroupError, GroupEvent,
    GroupOffset, GroupProtocol, Member, MemberEvents, Outcome, Record,
};
use kafka_upstream_tests::on_both_versions;
use kafka_upstream_tests::produce::client;
use tokio::task::JoinHandle;
use xtask::tools;

const WITHIN: Duration = Duration::from_secs(20);
const PARTITIONS: i32 = 6;
/// The least that brokers take unless configured otherwise.
const SESSION: Duration = Duration::from_secs(6);
const MIB: usize = 1024 * 1024;

async fn committed(group: &Group, partition: i32) -> anyhow::Result<Option<i64>> {
    let found = group.committed(&[("orders", partition)], WITHIN).await.remove(0)?;
    Ok(found.map(|found| found.offset))
}

async fn offsets(version: KafkaVersion) -> anyhow::Result<()> {
    let kafka = Kafka::pooled(version).await?;
    kafka.create_topic("orders", PARTITIONS).await?;
    let client = client(&kafka.bootstrap(), &[])?;
    let group = client.group(&format!("offsets-{version:?}"));
    ensure!(committed(&group, 0).await?.is_none(), "nothing is committed yet");
    let given = [
        GroupOffset::new("orders", 0, 5).epoch(Some(0)).metadata("anchor=7"),
        GroupOffset::new("orders", 1, 0),
        GroupOffset::new("nothing", 0, 1),
    ];
    let kept = group.commit(&given, WITHIN).await;
    let [Ok(()), Ok(()), Err(GroupError::Failed(_))] = kept[..] else { anyhow::bail!("{kept:?}") };
    let found = group.committed(&[("orders", 0), ("orders", 2)], WITHIN).await;
    let [Ok(Some(first)), Ok(None)] = &found[..] else { anyhow::bail!("{found:?}") };
    ensure!(first.offset == 5 && first.metadata == "anchor=7", "{first:?}");
    ensure!(first.epoch == Some(0), "{first:?}");
    for protocol in [GroupProtocol::Classic, GroupProtocol::Negotiated] {
        let config = GroupConfig::default().protocol(protocol).session_timeout(SESSION);
        let (member, mut events) = group.join(&["orders"], &config);
        let Some(GroupEvent::Assigned(all)) = events.next().await else {
            anyhow::bail!("nothing is assigned")
        };
        ensure!(all.len() == 6, "{all:?}");
        let foreign = group.commit(&[GroupOffset::new("orders", 0, 9)], WITHIN).await;
        ensure!(foreign == [Err(GroupError::InUse)], "{protocol:?}: {foreign:?}");
        ensure!(committed(&group, 0).await? == Some(5), "{protocol:?}");
        let own = member.commit(&[GroupOffset::new("orders", 1, 9)], WITHIN).await;
        ensure!(own == [Ok(())], "{protocol:?}: {own:?}");
        member.leave(WITHIN).await;
        let again = group.commit(&[GroupOffset::new("orders", 1, 3)], WITHIN).await;
        ensure!(again == [Ok(())], "{protocol:?}: {again:?}");
        ensure!(committed(&group, 1).await? == Some(3), "{protocol:?}");
    }
    Ok(())
}

/// Partitions and values of records, in the order in which they were read.
pub(crate) type Read = Vec<(i32, String)>;

/// A reader of a group: reads what it is assigned, commits, and gives back.
struct Reader {
    member: Member,
    read: Arc<Mutex<Read>>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Reader {
    fn join(kafka: &Kafka, group: &str, config: &GroupConfig) -> anyhow::Result<Self> {
        let client = client(&kafka.bootstrap(), &[])?;
        let group = client.group(group);
        let (member, events) = group.join(&["orders"], config);
        let read = Arc::<Mutex<Read>>::default();
        let consumer = client.consumer(&ConsumerConfig::default());
        let task = tokio::spawn(follow(group, member.clone(), events, consumer, read.clone()));
        Ok(Self { member, read, task })
    }

    fn read(&self) -> Read {
        self.read.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn has(&self, count: usize) -> anyhow::Result<()> {
        wait_until("its share", Duration::from_secs(40), async || {
            let has = self.member.assignment().len();
            ensure!(has == count, "it has {has} partitions, not {count}");
            Ok(())
        })
        .await
    }
}

async fn follow(
    group: Group,
    member: Member,
    mut events: MemberEvents,
    consumer: Consumer,
    read: Arc<Mutex<Read>>,
) -> anyhow::Result<()> {
    let mut positions = BTreeMap::<i32, i64>::new();
    loop {
        let event = tokio::time::timeout(Duration::from_millis(20), events.next()).await;
        match event {
            Ok(Some(GroupEvent::Assigned(given))) => {
                for (_, partition) in given {
                    let at = committed(&group, partition).await?.unwrap_or(0);
                    ensure!(positions.insert(partition, at).is_none(), "{partition} twice");
                }
            }
            Ok(Some(GroupEvent::Revoked(revocation))) => {
                for (_, partition) in &revocation.partitions {
                    let at = positions.remove(partition).context("it is not here")?;
                    let offset = GroupOffset::new("orders", *partition, at);
                    member.commit(&[offset], WITHIN).await.remove(0)?;
                }
            }
            Ok(Some(GroupEvent::Lost(gone))) => {
                positions.retain(|at, _| !gone.iter().any(|(_, partition)| partition == at));
            }
            Ok(Some(GroupEvent::Failed(error))) => return Err(error.into()),
            Ok(Some(other)) => anyhow::bail!("{other:?}"),
            Ok(None) => return Ok(()),
            Err(_) => {}
        }
        let wanted: Vec<_> = positions.iter().map(|(it, at)| ("orders", *it, *at)).collect();
        let fetched = consumer.fetch(&wanted, MIB, Duration::from_millis(20)).await;
        let mut offsets = Vec::new();
        for ((_, partition, at), fetched) in wanted.into_iter().zip(fetched) {
            let Ok(fetched) = fetched else { continue };
            let values = fetched.records.iter().map(|it| {
                let value = it.value.as_deref().unwrap_or_default();
                (partition, String::from_utf8_lossy(value).into_owned())
            });
            read.lock().unwrap_or_else(PoisonError::into_inner).extend(values);
            positions.insert(partition, fetched.next_offset);
            if fetched.next_offset > at {
                offsets.push(GroupOffset::new("orders", partition, fetched.next_offset));
            }
        }
        // What fails is read again, by whoever has the partition next.
        let _kept = member.commit(&offsets, WITHIN).await;
    }
}

/// Another client's program that reads in the group, and prints partition and value of each record.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Other {
    Java,
    Kcat,
}

impl Other {
    pub(crate) fn start(
        self,
        kafka: &Kafka,
        dir: &RunDir,
        group: &str,
        properties: &[(&str, &str)],
    ) -> anyhow::Result<Process> {
        let mut command: Command;
        let session = SESSION.as_millis().to_string();
        let timed = [("session.timeout.ms", session.as_str()), ("heartbeat.interval.ms", "1000")];
        let is_classic = properties.iter().all(|(name, _)| *name != "group.protocol");
        let timed = timed.into_iter().filter(|_| is_classic);
        let shared = [("auto.offset.reset", "earliest"), ("auto.commit.interval.ms", "100")];
        let properties = properties.iter().copied().chain(shared).chain(timed);
        match self {
            Self::Java => {
                command = tools::kafka_java(kafka.version())?.command(&[])?;
                command.args(tools::QUICK);
                command.arg("org.apache.kafka.tools.consumer.ConsoleConsumer");
                command.args(["--bootstrap-server", &kafka.bootstrap(), "--topic", "orders"]);
                let (of_consumer, of_printing) = match kafka.version() {
                    KafkaVersion::V3_9 => ("--consumer-property", "--property"),
                    KafkaVersion::V4_3 => ("--command-property", "--formatter-property"),
                };
                command.args([of_consumer, &format!("group.id={group}")]);
                for (name, value) in properties {
                    command.args([of_consumer, &format!("{name}={value}")]);
                }
                command.args([of_printing, "print.partition=true"]);
            }
            Self::Kcat => {
                command = tools::kcat()?;
                command.args(["-u", "-q", "-b", &kafka.bootstrap(), "-f", "Partition:%p\t%s\n"]);
                for (name, value) in properties {
                    command.args(["-X", &format!("{name}={value}")]);
                }
                command.args(["-G", group, "orders"]);
            }
        }
        Process::spawn("consumer", command, &dir.path().join("consumer.log"))
    }
}

/// What it has printed.
pub(crate) fn printed(other: &Process) -> anyhow::Result<Read> {
    let text = std::fs::read_to_string(other.log())?;
    let record = |line: &str| {
        let (partition, value) = line.strip_prefix("Partition:")?.split_once('\t')?;
        Some((partition.parse().ok()?, value.to_owned()))
    };
    Ok(text.lines().filter_map(record).collect())
}

/// As many records to each partition; gives their values.
pub(crate) async fn produce(
    client: &Client,
    round: usize,
    each: usize,
) -> anyhow::Result<BTreeSet<String>> {
    let (producer, mut sent) = (client.producer(), BTreeSet::new());
    for number in 0..each {
        for partition in 0..PARTITIONS {
            let value = format!("{round}-{partition}-{number}");
            let record = Record::new(value.as_bytes());
            let record = Record { partition: Some(partition), ..record };
            let outcome = producer.send("orders", record, WITHIN).await;
            ensure!(matches!(outcome, Outcome::Written { .. }), "{outcome:?}");
            sent.insert(value);
        }
    }
    Ok(sent)
}

pub(crate) fn values(read: &Read, round: usize) -> BTreeSet<String> {
    let prefix = format!("{round}-");
    read.iter().filter(|(_, it)| it.starts_with(&prefix)).map(|(_, it)| it.clone()).collect()
}

/// The other joins, and each reads its half; the other is killed, and what it had is taken over.
async fn shared_with(
    version: KafkaVersion,
    other: Other,
    config: GroupConfig,
    properties: &[(&str, &str)],
) -> anyhow::Result<()> {
    let kafka = Kafka::pooled(version).await?;
    kafka.create_topic("orders", PARTITIONS).await?;
    let dir = RunDir::new("group")?;
    let strategy = config_name(properties);
    let group = format!("shared-{version:?}-{other:?}-{strategy}");
    let config = config.session_timeout(SESSION).heartbeat_interval(Duration::from_secs(1));
    let ours = Reader::join(&kafka, &group, &config)?;
    ours.has(6).await?;
    let writer = client(&kafka.bootstrap(), &[])?;
    let mut theirs = other.start(&kafka, &dir, &group, properties)?;
    ours.has(3).await.with_context(|| theirs.log_tail())?;
    let sent = produce(&writer, 1, 20).await?;
    wait_until("all records", Duration::from_secs(20), async || {
        let (own, foreign) = (values(&ours.read(), 1), values(&printed(&theirs)?, 1));
        ensure!(own.len() + foreign.len() >= sent.len(), "{} and {}", own.len(), foreign.len());
        ensure!(own.is_disjoint(&foreign), "some were read twice");
        ensure!(own.len() == foreign.len(), "{} and {}", own.len(), foreign.len());
        Ok(())
    })
    .await
    .with_context(|| theirs.log_tail())?;
    // What it has printed and not committed is read again.
    let of_group = writer.group(&group);
    wait_until("its commits", WITHIN, async || {
        for partition in 0..PARTITIONS {
            let at = committed(&of_group, partition).await?;
            ensure!(at == Some(20), "partition {partition}: {at:?}");
        }
        Ok(())
    })
    .await?;
    let killed = Instant::now();
    theirs.kill9()?;
    let sent = produce(&writer, 2, 20).await?;
    wait_until("everything is taken over", Duration::from_secs(60), async || {
        let own = values(&ours.read(), 2);
        ensure!(own == sent, "{} of {}", own.len(), sent.len());
        Ok(())
    })
    .await?;
    let took = killed.elapsed();
    println!("{group}: taken over after {took:.1?}");
    // With KIP-848 the broker has a session of its own: 45 s.
    let session = if strategy == "consumer" { Duration::from_secs(45) } else { SESSION };
    ensure!(took < session + Duration::from_secs(4), "{took:?}");
    let twice = ours.read().len() - ours.read().iter().collect::<BTreeSet<_>>().len();
    ensure!(twice == 0, "{twice} were read twice");
    ours.member.leave(WITHIN).await;
    ours.task.await?
}

fn config_name(properties: &[(&str, &str)]) -> String {
    let named = properties
        .iter()
        .find(|(name, _)| matches!(*name, "partition.assignment.strategy" | "group.protocol"));
    let name = named.map_or("default", |(_, value)| *value);
    name.rsplit('.').next().unwrap_or(name).to_owned()
}

const STRATEGY: &str = "partition.assignment.strategy";

fn classic() -> GroupConfig {
    GroupConfig::default().protocol(GroupProtocol::Classic)
}

fn sticky() -> GroupConfig {
    classic().assignors(&[Assignor::CooperativeSticky])
}

async fn kcat_with_ranges(version: KafkaVersion) -> anyhow::Result<()> {
    shared_with(version, Other::Kcat, classic(), &[(STRATEGY, "range,roundrobin")]).await
}

async fn kcat_cooperative(version: KafkaVersion) -> anyhow::Result<()> {
    shared_with(version, Other::Kcat, sticky(), &[(STRATEGY, "cooperative-sticky")]).await
}

/// Java's list of assignors, which is ours: both are eager, and ranges are preferred.
async fn java_as_it_comes(version: KafkaVersion) -> anyhow::Result<()> {
    shared_with(version, Other::Java, classic(), &[]).await
}

async fn java_cooperative(version: KafkaVersion) -> anyhow::Result<()> {
    let name = "org.apache.kafka.clients.consumer.CooperativeStickyAssignor";
    shared_with(version, Other::Java, sticky(), &[(STRATEGY, name)]).await
}

/// KIP-848 where the broker speaks it: 3.9 does not unless it is told to, and both are classic then.
async fn negotiated(version: KafkaVersion) -> anyhow::Result<()> {
    let properties = match version {
        KafkaVersion::V3_9 => &[][..],
        KafkaVersion::V4_3 => &[("group.protocol", "consumer")],
    };
    shared_with(version, Other::Java, GroupConfig::default(), properties).await
}

/// The other was there first, so it is the leader, which assigns.
async fn led_by(
    version: KafkaVersion,
    other: Other,
    config: GroupConfig,
    properties: &[(&str, &str)],
) -> anyhow::Result<()> {
    let kafka = Kafka::pooled(version).await?;
    kafka.create_topic("orders", PARTITIONS).await?;
    let dir = RunDir::new("group")?;
    let group = format!("led-{version:?}-{other:?}-{}", config_name(properties));
    let writer = client(&kafka.bootstrap(), &[])?;
    let sent = produce(&writer, 1, 5).await?;
    let theirs = other.start(&kafka, &dir, &group, properties)?;
    wait_until("all records", Duration::from_secs(30), async || {
        let foreign = values(&printed(&theirs)?, 1);
        ensure!(foreign == sent, "{} of {}", foreign.len(), sent.len());
        Ok(())
    })
    .await
    .with_context(|| theirs.log_tail())?;
    let config = config.session_timeout(SESSION).heartbeat_interval(Duration::from_secs(1));
    let ours = Reader::join(&kafka, &group, &config)?;
    ours.has(3).await.with_context(|| theirs.log_tail())?;
    let sent = produce(&writer, 2, 20).await?;
    wait_until("all records", Duration::from_secs(20), async || {
        let (own, foreign) = (values(&ours.read(), 2), values(&printed(&theirs)?, 2));
        ensure!(own.len() + foreign.len() == sent.len(), "{} and {}", own.len(), foreign.len());
        ensure!(own.is_disjoint(&foreign), "some were read twice");
        Ok(())
    })
    .await
    .with_context(|| theirs.log_tail())?;
    ours.member.leave(WITHIN).await;
    let sent = produce(&writer, 3, 20).await?;
    wait_until("the other has all again", Duration::from_secs(20), async || {
        let foreign = values(&printed(&theirs)?, 3);
        ensure!(foreign == sent, "{} of {}", foreign.len(), sent.len());
        Ok(())
    })
    .await
    .with_context(|| theirs.log_tail())
}

async fn kcat_leads(version: KafkaVersion) -> anyhow::Result<()> {
    led_by(version, Other::Kcat, classic(), &[(STRATEGY, "range,roundrobin")]).await?;
    led_by(version, Other::Kcat, sticky(), &[(STRATEGY, "cooperative-sticky")]).await
}

async fn java_leads(version: KafkaVersion) -> anyhow::Result<()> {
    led_by(version, Other::Java, classic(), &[]).await?;
    let name = "org.apache.kafka.clients.consumer.CooperativeStickyAssignor";
    led_by(version, Other::Java, sticky(), &[(STRATEGY, name)]).await
}

/// Two of our own, one of which is gone silently.
async fn own_members(version: KafkaVersion) -> anyhow::Result<()> {
    for (name, config) in [("range", classic()), ("sticky", sticky())] {
        let kafka = Kafka::pooled(version).await?;
        kafka.create_topic("orders", PARTITIONS).await?;
        let group = format!("own-{version:?}-{name}");
        let config = config.session_timeout(SESSION).heartbeat_interval(Duration::from_secs(1));
        let first = Reader::join(&kafka, &group, &config)?;
        first.has(6).await?;
        let second = Reader::join(&kafka, &group, &config)?;
        first.has(3).await?;
        second.has(3).await?;
        let gone = Instant::now();
        second.task.abort();
        first.has(6).await?;
        let took = gone.elapsed();
        ensure!(took < SESSION + Duration::from_secs(3), "{name}: {took:?}");
        let third = Reader::join(&kafka, &group, &config)?;
        third.has(3).await?;
        let left = Instant::now();
        third.member.leave(WITHIN).await;
        first.has(6).await?;
        ensure!(left.elapsed() < SESSION, "{name}: {:?}", left.elapsed());
        first.member.leave(WITHIN).await;
    }
    Ok(())
}

on_both_versions! {
    offsets_are_read_and_committed_without_a_membership: super::offsets;
    members_share_and_take_over: super::own_members;
    a_group_with_kcat_in_ranges: super::kcat_with_ranges;
    a_group_with_kcat_by_cooperative_sticky: super::kcat_cooperative;
    a_group_with_javas_consumer_as_it_comes: super::java_as_it_comes;
    a_group_with_javas_consumer_by_cooperative_sticky: super::java_cooperative;
    a_group_that_kcat_leads: super::kcat_leads;
    a_group_that_javas_consumer_leads: super::java_leads;
    a_group_with_javas_consumer_in_the_protocol_that_the_broker_speaks: super::negotiated;
}
