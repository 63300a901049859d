//! A reader on its way through the partitions of a feed: what is in memory at its positions, what has
//! to be read from Kafka, and what must be sent to it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::select_all;
use kafka_client::{ReadError, Reason};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::asking::{Asked, Asking};
use super::cursor::{Cursor, Position, TopicPositions};
use super::gone::onward;
use super::hub::{Answer, Wanted, is_unknown_topic};
use super::positions::Positions;
use super::reader::{FeedReader, refused};
use super::refusal::{Code, Refusal};
use super::selection::{Selected, reported};
use super::start::{Gap, Given};
use super::steps::Met;
use super::timer::Timer;
use super::topic_log::{Look, Segment};
use super::waiting::{Waiting, WaitsFor};
use crate::limits::{FEED_CHUNK_BYTES, FEED_DEAD_LETTERS_AHEAD, FEED_HELD, FEED_LOOK_AGAIN};

mod ahead;
mod changes;
mod in_group;
mod sharing;

/// Positions in every partition, and how they move.
pub(crate) struct Follower {
    pub(crate) reader: Arc<FeedReader>,
    at: Positions,
    /// What the reader has not been sent yet.
    gaps: Vec<Gap>,
    /// Read from Kafka, and not given yet.
    caught: Vec<(usize, Arc<Segment>)>,
    /// Tasks of their own: they hold what others wait for, and a reader may be left alone for long
    /// while its client takes nothing.
    reading: Option<AbortOnDropHandle<Vec<Answer>>>,
    asking: Option<AbortOnDropHandle<Asked>>,
    /// Whether topics that are created are followed, too: of a pattern, and not of a request's list.
    follows_created: bool,
    created: Vec<(String, TopicPositions)>,
    /// Bytes of a read from Kafka.
    pub(crate) chunk_bytes: usize,
    /// Records of a partition that are looked at for dead letters at a time.
    pub(crate) wanted: usize,
    /// Where the tail has nothing brokers are asked, this once.
    doubts_tail: bool,
    look_again: Instant,
    /// Topics that brokers do not know.
    unknown_since: BTreeMap<String, Instant>,
    /// Why a partition could not be read last.
    trouble: Option<Refusal>,
    /// Whether brokers answered for none when time was over.
    is_unanswered: bool,
    /// For whom a partition waited then, and for whom one did last.
    is_stopped: Option<WaitsFor>,
    waited_for: WaitsFor,
    /// Since when there is nothing else but records that wait for the registry.
    pub(crate) held_since: Option<Instant>,
    turn: usize,
    met: Option<Met>,
    timer: Timer,
}

/// A place before a record that is not decided on.
type Stop = (usize, Waiting);

/// Records that are there for a partition.
pub(crate) struct Portion {
    place: usize,
    segment: Arc<Segment>,
    /// The first of them that was not given.
    at: usize,
    /// Behind the last that may be given now.
    end: usize,
}

/// A record that is given.
pub(crate) struct Taken<'a> {
    /// Of the partition, among the reader's.
    pub(crate) place: usize,
    pub(crate) topic: &'a Arc<str>,
    pub(crate) partition: i32,
    pub(crate) segment: &'a Arc<Segment>,
    /// Its place there.
    pub(crate) index: usize,
    pub(crate) selected: Selected,
    /// The cursor behind it.
    pub(crate) id: &'a str,
    /// As many moves have led there.
    pub(crate) moves: u64,
}

/// What was found at all positions.
#[derive(Default)]
struct Found {
    portions: Vec<Portion>,
    behind: Vec<usize>,
    without_offset: Vec<usize>,
    /// Portions that were in memory.
    hits: u64,
    is_being_read: bool,
    /// Whether one is at a record that is to be decided on again.
    is_stopped: bool,
    /// Partitions that wait at their tails, and whether any of these is answered for.
    at_end: usize,
    failing: usize,
    retry_at: Option<Instant>,
}

impl Found {
    /// A place waits at its tail, for which no broker answers.
    fn failing(&mut self, topic: &str) -> Refusal {
        self.at_end += 1;
        self.failing += 1;
        Code::KafkaUnavailable.because(format!("{topic}: brokers do not answer"))
    }

    /// A place is looked at again then.
    fn wait_for(&mut self, retry_at: Option<Instant>) {
        self.retry_at = self.retry_at.into_iter().chain(retry_at).min();
    }
}

impl Follower {
    /// # Errors
    /// As [`FeedReader::open`].
    pub(crate) async fn open(
        reader: Arc<FeedReader>,
        start: &Given,
        topics: Option<&[String]>,
        within: Duration,
    ) -> Result<Self, Refusal> {
        let (cursor, gaps) = reader.open(start, topics, within).await?;
        let follows_created = topics.is_none() && reader.has_pattern();
        Ok(Self { gaps, follows_created, ..Self::at(reader, &cursor) })
    }

    fn at(reader: Arc<FeedReader>, cursor: &Cursor) -> Self {
        let at = Positions::new(cursor, &reader);
        Self {
            reader,
            at,
            gaps: Vec::new(),
            caught: Vec::new(),
            reading: None,
            asking: None,
            follows_created: false,
            created: Vec::new(),
            chunk_bytes: FEED_CHUNK_BYTES,
            wanted: FEED_DEAD_LETTERS_AHEAD,
            doubts_tail: false,
            look_again: Instant::now() + FEED_LOOK_AGAIN,
            unknown_since: BTreeMap::new(),
            trouble: None,
            is_unanswered: false,
            is_stopped: None,
            waited_for: WaitsFor::DeadLetterTopic,
            held_since: None,
            turn: 0,
            met: None,
            timer: Timer::default(),
        }
    }

    /// Has brokers asked also where the tail knows of nothing: for who does not wait for it.
    pub(crate) fn doubt_tail(&mut self) {
        self.doubts_tail = true;
    }

    /// What is to be sent to the reader, with the cursor behind it.
    pub(crate) fn take_gaps(&mut self) -> Vec<Gap> {
        let gaps = std::mem::take(&mut self.gaps);
        gaps.iter().for_each(|gap| self.reader.metrics.gap(gap.reason));
        gaps
    }

    /// Why there was nothing at all: no broker answers, or what a record waits for does not.
    pub(crate) fn trouble(&self) -> Option<Refusal> {
        let stopped = self.is_stopped.and_then(|of| self.reader.late(of));
        stopped.or_else(|| self.trouble.clone().filter(|_| self.is_unanswered))
    }

    /// Why there is no more though other records were there, if that is known.
    pub(crate) fn fault(&self) -> Option<Refusal> {
        self.is_stopped.and_then(|of| self.reader.fault(of))
    }

    /// Why a client is not to be kept any longer: its next records have waited too long for the registry.
    pub(crate) fn held_up(&self) -> Option<Refusal> {
        self.held_since.filter(|since| since.elapsed() >= FEED_HELD)?;
        self.reader.late(WaitsFor::Registry)
    }

    /// Records at the positions, as soon as there are any; none once there is something to tell, or
    /// at `until`. A read of Kafka that is under way then may take `grace` longer.
    ///
    /// # Errors
    /// The reader cannot go on.
    pub(crate) async fn more(
        &mut self,
        until: Instant,
        grace: Duration,
    ) -> Result<Vec<Portion>, Refusal> {
        loop {
            if let Some(portions) = self.look_and_wait(until, grace).await? {
                return Ok(portions);
            }
        }
    }

    /// As [`Self::more`], but looks and waits once: none are there if something may have changed then.
    ///
    /// # Errors
    /// As [`Self::more`].
    pub(crate) async fn look_and_wait(
        &mut self,
        until: Instant,
        grace: Duration,
    ) -> Result<Option<Vec<Portion>>, Refusal> {
        // Answers that are awaited are for the places as they are.
        if self.reading.is_none() && self.asking.is_none() {
            self.add_created()?;
        }
        self.at.mark_unchanged();
        let version = self.at.version();
        let mut found = self.look();
        let mut portions = std::mem::take(&mut found.portions);
        let stops = self.decided(&mut portions);
        if !portions.is_empty() || !self.gaps.is_empty() {
            self.held_since = None;
            return Ok(Some(portions));
        }
        let stop = stops.first().map(|(_, waiting)| waiting.waits_for());
        let stop = stop.or(found.is_stopped.then_some(self.waited_for));
        let held = stop.filter(|of| *of == WaitsFor::Registry);
        self.held_since = held.map(|_| self.held_since.unwrap_or_else(Instant::now));
        if found.at_end == self.at.places.len() && found.failing == 0 {
            self.tell_end(version);
        }
        self.start_reading(&found.behind);
        self.start_asking(&found.without_offset);
        let now = Instant::now();
        let is_reading = self.reading.is_some() || found.is_being_read || !stops.is_empty();
        let until = if is_reading { until + grace } else { until };
        if now >= until {
            self.is_unanswered = found.at_end == found.failing;
            self.is_stopped = stop;
            return Ok(Some(Vec::new()));
        }
        let wake = found.retry_at.into_iter().chain([until, self.look_again]).min();
        self.wait(wake.unwrap_or(until), found.is_being_read, stops).await?;
        Ok(None)
    }

    /// Gives records in turns, so that a busy partition leaves room for the others, until `give`
    /// says that it is enough. The positions are behind each record when it is given, and move over
    /// those that are not for readers.
    ///
    /// # Errors
    /// Readers end at a record that cannot be decoded. Those before it were given.
    pub(crate) fn take(
        &mut self,
        mut portions: Vec<Portion>,
        mut give: impl FnMut(Taken<'_>) -> bool,
    ) -> Result<(), Refusal> {
        let (mut is_enough, mut stopped) = (false, Ok(()));
        while !portions.is_empty() && !is_enough {
            portions.retain_mut(|portion| {
                if is_enough {
                    return true;
                }
                let Portion { place: index, segment, at, end } = portion;
                let stored = segment.records.get(*at).filter(|_| at < end);
                let (Some(stored), Some(place)) = (stored, self.at.places.get(*index)) else {
                    return false;
                };
                let Some(followed) = self.at.topics.get(place.topic) else { return false };
                let (topic, partition) = (&followed.topic.log.name, place.partition);
                let selected = self.reader.select(topic, partition, stored);
                if let Selected::Stop(reason) = selected {
                    let offset = stored.record.offset;
                    let message =
                        format!("{topic}-{partition}, offset {offset}: {}", reported(reason));
                    (stopped, is_enough) = (Err(Code::DecodeError.because(message)), true);
                    return false;
                }
                let is_last = *at + 1 == segment.records.len();
                let (next, epoch) = match is_last {
                    true => (segment.next, segment.epoch),
                    false => (stored.record.offset + 1, stored.epoch()),
                };
                self.at.move_to(*index, next, epoch);
                if selected.is_given()
                    && let Some(topic) = self.at.topic_of(*index)
                {
                    let (place, index) = (*index, *at);
                    let (id, moves) = (self.at.text.as_str(), self.at.moves);
                    let taken =
                        Taken { place, topic, partition, segment, index, selected, id, moves };
                    is_enough = give(taken);
                }
                *at += 1;
                !is_last
            });
        }
        stopped
    }

    /// Leaves what may be given now. Says where something is waited for.
    fn decided(&self, portions: &mut Vec<Portion>) -> Vec<Stop> {
        let mut stops = Vec::new();
        for portion in portions.iter_mut() {
            let Some(place) = self.at.places.get(portion.place) else { continue };
            let Some(followed) = self.at.topics.get(place.topic) else { continue };
            let of_topic = (&*followed.topic.log.name, place.partition, &*portion.segment);
            let (end, waiting) = self.reader.decided(of_topic, portion.at, self.wanted);
            portion.end = end;
            stops.extend(waiting.map(|waiting| (portion.place, waiting)));
        }
        portions.retain(|portion| portion.at < portion.end);
        stops
    }

    /// What there is at each position, beginning with another one each time.
    fn look(&mut self) -> Found {
        let (mut found, now) = (Found::default(), Instant::now());
        let caught = std::mem::take(&mut self.caught);
        self.turn += 1;
        let count = self.at.places.len();
        for index in 0..count {
            let index = (self.turn + index) % count;
            self.look_at(index, &caught, now, &mut found);
        }
        if found.hits > 0 {
            self.reader.metrics.tail_hits.inc_by(found.hits);
        }
        found
    }

    fn look_at(
        &mut self,
        index: usize,
        caught: &[(usize, Arc<Segment>)],
        now: Instant,
        found: &mut Found,
    ) {
        // Once for each segment without records.
        loop {
            let Some(place) = self.at.places.get_mut(index) else { return };
            let Some(followed) = self.at.topics.get(place.topic) else { return };
            if place.retry_at.is_some_and(|at| at <= now) {
                place.retry_at = None;
            }
            let retry_at = place.retry_at;
            let Some(next) = place.next() else {
                return match retry_at {
                    None => found.without_offset.push(index),
                    at => found.wait_for(at),
                };
            };
            let mut of_place = caught.iter().filter(|(of, _)| *of == index);
            let here = of_place.find(|(_, it)| (it.base..it.next).contains(&next));
            let is_caught = here.is_some();
            let look = match here {
                Some((_, segment)) => Look::Here(Arc::clone(segment)),
                None => {
                    let position = (next, place.epoch());
                    followed.topic.log.lock().look(followed.tag, place.partition, position)
                }
            };
            match look {
                // What was waited for in vain.
                Look::Here(_) if retry_at.is_some() => {
                    found.is_stopped = true;
                    found.wait_for(retry_at);
                }
                Look::Here(segment) => {
                    let at = segment.place_of(next);
                    if at < segment.records.len() {
                        let end = segment.records.len();
                        found.hits += u64::from(!is_caught);
                        return found.portions.push(Portion { place: index, segment, at, end });
                    }
                    self.at.move_to(index, segment.next, segment.epoch);
                    continue;
                }
                Look::End | Look::Failing if self.doubts_tail => found.behind.push(index),
                Look::End => found.at_end += 1,
                Look::Failing => self.trouble = Some(found.failing(&followed.topic.log.name)),
                Look::BeingRead if !self.doubts_tail => found.is_being_read = true,
                Look::Behind | Look::BeingRead => match retry_at {
                    None => found.behind.push(index),
                    at => found.wait_for(at),
                },
            }
            return;
        }
    }

    fn start_reading(&mut self, behind: &[usize]) {
        if self.reading.is_some() || behind.is_empty() {
            return;
        }
        let wanted: Vec<_> = behind
            .iter()
            .filter_map(|index| {
                let place = self.at.places.get(*index)?;
                let topic = Arc::clone(&self.at.topics.get(place.topic)?.topic);
                let (partition, next, epoch) = (place.partition, place.next()?, place.epoch());
                Some(Wanted { topic, partition, next, epoch, place: *index })
            })
            .collect();
        self.reader.metrics.catch_up_reads.inc_by(wanted.len() as u64);
        let reading = self.reader.hub.read(wanted, self.chunk_bytes);
        self.reading = Some(AbortOnDropHandle::new(tokio::spawn(reading)));
        self.doubts_tail = false;
    }

    /// Partitions that had no leader are looked at again, and topics for new partitions.
    fn start_asking(&mut self, without_offset: &[usize]) {
        let (now, mut asking) = (Instant::now(), Asking::default());
        for index in without_offset {
            let Some(place) = self.at.places.get(*index) else { continue };
            if let (Position::Time(ms), Some(followed)) =
                (place.position, self.at.topics.get(place.topic))
            {
                asking.open.push((*index, Arc::clone(&followed.topic), place.partition, ms));
            }
        }
        let looks_again = self.look_again <= now;
        if self.asking.is_some() || (asking.open.is_empty() && !looks_again) {
            return;
        }
        if looks_again {
            self.look_again = now + FEED_LOOK_AGAIN;
            asking.topics = self.at.topics.iter().map(|it| Arc::clone(&it.topic)).collect();
            asking.looks_for_topics = self.follows_created;
        }
        let reader = Arc::clone(&self.reader);
        let asking = async move { asking.ask(&reader).await };
        self.asking = Some(AbortOnDropHandle::new(tokio::spawn(asking)));
    }

    /// Waits until something may have changed.
    async fn wait(
        &mut self,
        until: Instant,
        is_being_read: bool,
        stops: Vec<Stop>,
    ) -> Result<(), Refusal> {
        let Self { at, reading, asking, timer, waited_for, .. } = self;
        tokio::select! {
            answers = finished(reading) => {
                self.reading = None;
                // Apart: each reader would have room for it all its life.
                Box::pin(self.take_in(answers)).await
            }
            asked = finished(asking) => {
                self.asking = None;
                self.created = asked.created?;
                self.resolve(asked.resolved)
            }
            (place, of, is_done) = first(stops) => {
                if !is_done {
                    *waited_for = of;
                    at.pause(place);
                }
                Ok(())
            }
            () = at.changed(is_being_read) => Ok(()),
            () = timer.wait(until) => Ok(()),
        }
    }

    fn resolve(&mut self, answers: Vec<(usize, Result<i64, Reason>)>) -> Result<(), Refusal> {
        let mut deleted = BTreeSet::new();
        for (index, answer) in answers {
            match answer {
                Ok(next) => self.at.move_to(index, next, None),
                Err(reason) => {
                    let topic =
                        self.at.places.get(index).and_then(|it| self.at.topics.get(it.topic));
                    let name = topic.map_or("", |it| &it.topic.log.name);
                    let refusal = refused(name, &reason);
                    let (name, is_unknown) = (name.to_owned(), is_unknown_topic(&reason));
                    if is_unknown && self.reader.has_pattern() {
                        deleted.extend(self.deleted(&name));
                    } else if refusal.code != Code::KafkaUnavailable {
                        return Err(refusal);
                    }
                    self.at.pause(index);
                    self.trouble = Some(refusal);
                }
            }
        }
        self.drop_deleted(&deleted);
        Ok(())
    }

    async fn take_in(&mut self, answers: Vec<Answer>) -> Result<(), Refusal> {
        self.trouble = None;
        let recreated = self.recreated(&answers).await?;
        let mut deleted = BTreeSet::new();
        for (wanted, answer) in answers {
            let (index, name) = (wanted.place, &wanted.topic.log.name);
            match answer {
                // Offsets of a former topic mean nothing, whatever was read there.
                _ if self.at.places.get(index).is_none_or(|it| recreated.contains(&it.topic)) => {}
                Ok(segment) => {
                    self.unknown_since.remove(&**name);
                    if segment.next == wanted.next {
                        self.at.set_epoch(index, wanted.next, segment.epoch);
                    }
                    self.caught.push((index, segment));
                }
                Err(ReadError::Refused(reason) | ReadError::Unavailable(reason))
                    if is_unknown_topic(&reason) && self.reader.has_pattern() =>
                {
                    deleted.extend(self.deleted(name));
                    self.at.pause(index);
                    self.trouble = Some(refused(name, &reason));
                }
                // It is waited for.
                Err(ReadError::Refused(reason))
                    if is_unknown_topic(&reason) && !self.reader.feed.check_topic_existence =>
                {
                    self.at.pause(index);
                }
                Err(ReadError::Unavailable(reason)) => {
                    let refusal = refused(name, &reason);
                    let is_missing =
                        is_unknown_topic(&reason) && self.reader.feed.check_topic_existence;
                    if is_missing && self.deleted(name).is_some() {
                        return Err(refusal);
                    }
                    self.at.pause(index);
                    self.trouble = Some(refusal);
                }
                Err(error) => self.go_on_after(index, name, wanted.next, &error)?,
            }
        }
        for topic in recreated {
            self.start_anew(topic).await?;
        }
        self.drop_deleted(&deleted);
        Ok(())
    }

    /// A partition that cannot be read from here: its position moves, with a gap, or the reader ends.
    fn go_on_after(
        &mut self,
        index: usize,
        topic: &str,
        from: i64,
        error: &ReadError,
    ) -> Result<(), Refusal> {
        let partition = self.at.places.get(index).map_or(-1, |place| place.partition);
        let (to, epoch, reason) =
            onward((topic, partition, from), error, self.reader.feed.reset_of_lost())?;
        self.at.move_to(index, to, epoch);
        let (topic, from, to) = (topic.to_owned(), Some(from), Some(to));
        self.gaps.push(Gap { topic, partition, from, to, reason });
        Ok(())
    }
}

/// The first of these to be over, and whether readers may go on there.
async fn first(stops: Vec<Stop>) -> (usize, WaitsFor, bool) {
    if stops.is_empty() {
        return pending().await;
    }
    let stops = stops.into_iter();
    let wait = |(place, waiting): Stop| {
        async move { (place, waiting.waits_for(), waiting.done().await) }.boxed()
    };
    select_all(stops.map(wait)).await.0
}

async fn finished<T>(task: &mut Option<AbortOnDropHandle<T>>) -> T {
    if let Some(task) = task
        && let Ok(done) = task.await
    {
        return done;
    }
    // There is none, or the process ends.
    pending().await
}

#[cfg(test)]
mod tests;
