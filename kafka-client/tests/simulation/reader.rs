//! A reader that follows its positions through all partitions, and writes down what it is told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_client::fake_broker::Dice;
use kafka_client::{At, Consumer, ConsumerConfig, Fetched, IsolationLevel, Position, ReadError};
use tokio::time::{Instant, sleep, timeout};

use crate::checker::Place;
use crate::feed::FEED;
use crate::ledger::{Event, Reading};
use crate::run::{RECOVERY, World, id_of};

struct Reader {
    world: Arc<World>,
    dice: Dice,
    consumer: Consumer,
    is_committed: bool,
    topics: Vec<String>,
    positions: BTreeMap<Place, Held>,
    /// Whether it has a position in each partition.
    is_complete: bool,
    events: Vec<(Place, Event)>,
}

/// What a cursor holds of a partition.
#[derive(Debug, Clone, Copy)]
struct Held {
    offset: i64,
    epoch: Option<i32>,
    topic_id: Option<u128>,
    /// There was nothing behind it, once the cluster was well again.
    is_at_end: bool,
}

const PATIENCE: Duration = Duration::from_secs(3);

/// Reads until the world has ended and nothing is left to be read.
pub(crate) async fn follow(world: Arc<World>, mut dice: Dice) -> Reading {
    let is_committed = dice.per_mille(500);
    let level = match is_committed {
        true => IsolationLevel::ReadCommitted,
        false => IsolationLevel::ReadUncommitted,
    };
    let config = ConsumerConfig::default().isolation(level);
    let config = match dice.between(0, 1) {
        0 => config,
        _ => config.max_partition_fetch_bytes(300).fetch_max_wait(Duration::from_millis(100)),
    };
    let consumer = world.client().consumer(&config);
    let own = world.scenario.topics.iter().map(|(topic, _)| topic.clone());
    let topics = own.chain([FEED.to_owned()]).collect();
    let mut reader = Reader {
        world,
        dice,
        consumer,
        is_committed,
        topics,
        positions: BTreeMap::new(),
        is_complete: false,
        events: Vec::new(),
    };
    let is_done = reader.run().await;
    let offset = |(place, held): (Place, Held)| (place, (held.topic_id, held.offset));
    let ends = reader.positions.into_iter().map(offset).collect();
    Reading { is_committed: reader.is_committed, events: reader.events, ends, is_done }
}

impl Reader {
    /// Whether all was read in time.
    async fn run(&mut self) -> bool {
        let mut until = None;
        loop {
            self.discover().await;
            for _ in 0..self.dice.between(1, 5) {
                self.fetch(until.is_some()).await;
            }
            if !self.world.is_over() {
                continue;
            }
            let is_at_end = self.is_complete && self.positions.values().all(|held| held.is_at_end);
            if until.is_some() && is_at_end {
                return true;
            }
            let now = Instant::now();
            if now > *until.get_or_insert(now + RECOVERY) {
                return false;
            }
        }
    }

    /// Begins at the log start wherever there is no position.
    async fn discover(&mut self) {
        self.is_complete = true;
        for topic in self.topics.clone() {
            let Ok(listed) = self.consumer.partitions(&topic, PATIENCE).await else {
                self.is_complete = false;
                continue;
            };
            let is_other = |held: &Held| listed.id.is_some() && held.topic_id != listed.id;
            let former = self.positions.iter().find(|(place, _)| place.0 == topic);
            if former.is_some_and(|(_, held)| held.topic_id.is_some() && is_other(held)) {
                self.begin_anew(&topic);
            }
            let count = i32::try_from(listed.leaders.len()).unwrap();
            let missing: Vec<_> = (0..count)
                .filter(|index| !self.positions.contains_key(&(topic.clone(), *index)))
                .map(|index| (topic.as_str(), index))
                .collect();
            let starts = self.consumer.offsets_with_epochs(&missing, At::Earliest, PATIENCE).await;
            for ((_, partition), start) in missing.iter().zip(starts) {
                let Ok((offset, epoch)) = start else {
                    self.is_complete = false;
                    continue;
                };
                let (place, topic_id) = ((topic.clone(), *partition), listed.id);
                let held = Held { offset, epoch, topic_id, is_at_end: false };
                self.note(&place, Event::Start { topic_id, offset });
                self.positions.insert(place, held);
            }
        }
    }

    fn begin_anew(&mut self, topic: &str) {
        let of_topic: Vec<_> =
            self.positions.keys().filter(|place| place.0 == topic).cloned().collect();
        for place in of_topic {
            self.note(&place, Event::Recreated);
            self.remove(&place);
        }
    }

    fn remove(&mut self, place: &Place) {
        self.positions.remove(place);
        self.is_complete = false;
    }

    fn note(&mut self, place: &Place, event: Event) {
        self.events.push((place.clone(), event));
    }

    async fn fetch(&mut self, is_over: bool) {
        let asked: Vec<_> = self.positions.clone().into_iter().collect();
        let positions: Vec<_> = asked
            .iter()
            .map(|((topic, partition), held)| {
                let position = Position::new(topic, *partition, held.offset);
                position.epoch(held.epoch).topic_id(held.topic_id)
            })
            .collect();
        let max_bytes = *self.dice.pick(&[1, 600, 100_000]).unwrap();
        let wait = Duration::from_millis(*self.dice.pick(&[0, 50, 1000]).unwrap());
        // Now and then its client hangs up, and goes on from the cursor that it has.
        let patience = match self.dice.per_mille(100) {
            true => Duration::from_millis(self.dice.between(0, 300)),
            false => Duration::MAX,
        };
        let fetch = self.consumer.fetch_from(&positions, max_bytes, wait);
        let Ok(answers) = timeout(patience, fetch).await else { return };
        let mut has_failed = answers.is_empty();
        for ((place, held), answer) in asked.into_iter().zip(answers) {
            match answer {
                Ok(fetched) => self.take(&place, fetched, is_over),
                Err(error) => has_failed |= self.on_error(&place, held, error),
            }
        }
        if has_failed {
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn take(&mut self, place: &Place, fetched: Fetched, is_over: bool) {
        // It was told meanwhile that the topic is another one.
        let Some(held) = self.positions.get_mut(place) else { return };
        let records = fetched.records.iter();
        let records = records.map(|it| (it.offset, id_of(it.value.as_deref()))).collect();
        held.is_at_end = is_over && fetched.next_offset == fetched.log_end;
        (held.offset, held.epoch) = (fetched.next_offset, fetched.epoch);
        held.topic_id = held.topic_id.or(fetched.topic_id);
        let (topic_id, next_offset) = (fetched.topic_id, fetched.next_offset);
        self.note(place, Event::Given { topic_id, records, next_offset });
    }

    /// Says whether nothing can be done but to ask again.
    fn on_error(&mut self, place: &Place, held: Held, error: ReadError) -> bool {
        match error {
            ReadError::Truncated { to, epoch } => {
                if let Some(held) = self.positions.get_mut(place) {
                    (held.offset, held.epoch) = (to, epoch);
                    self.note(place, Event::Truncated { to });
                }
            }
            ReadError::Recreated => self.begin_anew(&place.0),
            ReadError::OutOfRange { log_start, log_end } => {
                let from = held.offset;
                self.note(place, Event::OutOfRange { from, log_start, log_end });
                self.remove(place);
            }
            ReadError::Unavailable(_) | ReadError::Refused(_) => return true,
            other => self.note(place, Event::Unexpected(other.to_string())),
        }
        false
    }
}
