//! A reader on its way through the partitions of a feed: what is in memory at its positions, what has
//! to be read from Kafka, and what it must be told.

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use kafka_client::{At, ReadError, Reason};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::cursor::{Position, TopicPositions};
use super::feeds::Reset;
use super::hub::{Answer, Wanted};
use super::positions::Positions;
use super::reader::{FeedReader, is_unknown_topic, refused};
use super::refusal::{Code, Refusal};
use super::selection::Selected;
use super::start::{Gap, GapReason, Given};
use super::timer::Timer;
use super::topic_log::{Look, Segment, tag_of};
use crate::limits::{FEED_CHUNK_BYTES, FEED_GRACE, FEED_LOOK_AGAIN, FEED_QUIET};
use sharing::Met;

mod sharing;

/// Positions in every partition, and how they move.
pub(crate) struct Follower {
    pub(crate) reader: Arc<FeedReader>,
    at: Positions,
    /// What the reader has not been told yet.
    gaps: Vec<Gap>,
    /// Read from Kafka, and not given yet.
    caught: Vec<(usize, Arc<Segment>)>,
    /// Tasks of their own: they hold what others wait for, and a reader may be left alone for long
    /// while its client takes nothing.
    reading: Option<AbortOnDropHandle<Vec<Answer>>>,
    asking: Option<AbortOnDropHandle<Vec<Resolved>>>,
    /// Bytes of a read from Kafka.
    pub(crate) chunk_bytes: usize,
    /// Where the tail has nothing brokers are asked, this once.
    doubts_tail: bool,
    look_again: Instant,
    /// Why a partition could not be read last.
    trouble: Option<Refusal>,
    /// Whether brokers answered for none when time was over.
    is_unanswered: bool,
    turn: usize,
    met: Option<Met>,
    timer: Timer,
}

/// The offset of a place that had none.
type Resolved = (usize, Result<i64, Reason>);

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
    pub(crate) topic: &'a Arc<str>,
    pub(crate) partition: i32,
    pub(crate) segment: &'a Arc<Segment>,
    /// Its place there.
    pub(crate) index: usize,
    pub(crate) selected: Selected,
    /// The cursor behind it.
    pub(crate) id: &'a str,
}

/// What was found at all positions.
#[derive(Default)]
struct Found {
    portions: Vec<Portion>,
    behind: Vec<usize>,
    without_offset: Vec<usize>,
    is_being_read: bool,
    /// Partitions that wait at their tails, and whether any of these is answered for.
    at_end: usize,
    failing: usize,
    retry_at: Option<Instant>,
}

impl Found {
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
        let at = Positions::new(&cursor, &reader);
        Ok(Self {
            reader,
            at,
            gaps,
            caught: Vec::new(),
            reading: None,
            asking: None,
            chunk_bytes: FEED_CHUNK_BYTES,
            doubts_tail: false,
            look_again: Instant::now() + FEED_LOOK_AGAIN,
            trouble: None,
            is_unanswered: false,
            turn: 0,
            met: None,
            timer: Timer::default(),
        })
    }

    /// Has brokers asked also where the tail knows of nothing: for who does not wait for it.
    pub(crate) fn doubt_tail(&mut self) {
        self.doubts_tail = true;
    }

    /// The cursor.
    pub(crate) fn id(&self) -> &str {
        self.at.text.as_str()
    }

    /// How often it has moved.
    pub(crate) fn moves(&self) -> u64 {
        self.at.moves
    }

    /// What the reader is to be told, with the cursor behind it.
    pub(crate) fn take_gaps(&mut self) -> Vec<Gap> {
        std::mem::take(&mut self.gaps)
    }

    /// Why there was nothing at all: no broker answers.
    pub(crate) fn trouble(&self) -> Option<Refusal> {
        self.trouble.clone().filter(|_| self.is_unanswered)
    }

    /// Records between the positions and the log ends, where these are known.
    pub(crate) fn lag(&self) -> i64 {
        let behind = self.at.places.iter().filter_map(|place| {
            let end = self.at.topics.get(place.topic)?.topic.log.lock().log_end(place.partition)?;
            Some((end - place.next()?).max(0))
        });
        behind.sum()
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
        if self.reading.is_none() && self.asking.is_none() && self.at.add_partitions() {
            self.caught.clear();
        }
        self.at.mark_unchanged();
        let version = self.at.version();
        let found = self.look();
        let given = timeout_at(until + grace, self.without_dead_letters(found.portions));
        let portions = given.await.unwrap_or_default();
        if !portions.is_empty() || !self.gaps.is_empty() {
            return Ok(Some(portions));
        }
        if found.at_end == self.at.places.len() && found.failing == 0 {
            self.tell_end(version);
        }
        self.start_reading(&found.behind);
        self.start_asking(&found.without_offset);
        let now = Instant::now();
        let is_reading = self.reading.is_some() || found.is_being_read;
        let until = if is_reading { until + grace } else { until };
        if now >= until {
            self.is_unanswered = found.at_end == found.failing;
            return Ok(Some(Vec::new()));
        }
        let wake = found.retry_at.into_iter().chain([until, self.look_again]).min();
        self.wait(wake.unwrap_or(until), found.is_being_read).await?;
        Ok(None)
    }

    /// Has brokers asked about the positions of which nothing is in memory, if they answer at once: who
    /// cannot read on is to know before it has read anything.
    ///
    /// # Errors
    /// As [`Self::more`].
    pub(crate) async fn check(&mut self) -> Result<(), Refusal> {
        let found = self.look();
        self.start_reading(&found.behind);
        let until = Instant::now() + FEED_QUIET;
        while self.reading.is_some() && Instant::now() < until {
            self.wait(until, false).await?;
        }
        Ok(())
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
                let (topic, partition) = (Arc::clone(&followed.topic.log.name), place.partition);
                let selected = self.reader.select(&topic, partition, stored);
                if let Selected::Stop(reason) = selected {
                    let offset = stored.record.offset;
                    let message = format!("{topic}-{partition}, offset {offset}: {reason}");
                    (stopped, is_enough) = (Err(Code::DecodeError.because(message)), true);
                    return false;
                }
                let is_last = *at + 1 == segment.records.len();
                let (next, epoch) = match is_last {
                    true => (segment.next, segment.epoch),
                    false => (stored.record.offset + 1, stored.epoch()),
                };
                self.at.move_to(*index, next, epoch);
                if !matches!(selected, Selected::Nothing | Selected::DeadLetter(_)) {
                    let (topic, index, id) = (&topic, *at, self.at.text.as_str());
                    is_enough = give(Taken { topic, partition, segment, index, selected, id });
                }
                *at += 1;
                !is_last
            });
        }
        stopped
    }

    /// What may be given now: what is no reader's has to be in the dead-letter topic before.
    async fn without_dead_letters(&mut self, mut portions: Vec<Portion>) -> Vec<Portion> {
        for portion in &mut portions {
            let Some(place) = self.at.places.get(portion.place) else { continue };
            let Some(followed) = self.at.topics.get(place.topic) else { continue };
            let (name, segment) = (&followed.topic.log.name, &portion.segment);
            let written =
                self.reader.write_dead_letters(name, place.partition, segment, portion.at).await;
            if let Err((end, refusal)) = written {
                portion.end = end;
                self.at.pause(portion.place);
                self.trouble = Some(refusal);
            }
        }
        portions.retain(|portion| portion.at < portion.end);
        portions
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
                match retry_at {
                    None => found.without_offset.push(index),
                    at => found.wait_for(at),
                }
                return;
            };
            let mut of_place = caught.iter().filter(|(of, _)| *of == index);
            let here = of_place.find(|(_, it)| (it.base..it.next).contains(&next));
            let look = match here {
                Some((_, segment)) => Look::Here(Arc::clone(segment)),
                None => {
                    let position = (next, place.epoch());
                    followed.topic.log.lock().look(followed.tag, place.partition, position)
                }
            };
            match look {
                // What is to go to the dead-letter topic, which does not take it now.
                Look::Here(_) if retry_at.is_some() => found.wait_for(retry_at),
                Look::Here(segment) => {
                    let at = segment.place_of(next);
                    if at < segment.records.len() {
                        let end = segment.records.len();
                        return found.portions.push(Portion { place: index, segment, at, end });
                    }
                    self.at.move_to(index, segment.next, segment.epoch);
                    continue;
                }
                Look::End | Look::Failing if self.doubts_tail => found.behind.push(index),
                Look::End => found.at_end += 1,
                Look::Failing => {
                    found.at_end += 1;
                    found.failing += 1;
                    let message = format!("{}: brokers do not answer", followed.topic.log.name);
                    self.trouble = Some(Code::KafkaUnavailable.because(message));
                }
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
        let wanted = behind.iter().filter_map(|index| {
            let place = self.at.places.get(*index)?;
            let topic = Arc::clone(&self.at.topics.get(place.topic)?.topic);
            let (partition, next, epoch) = (place.partition, place.next()?, place.epoch());
            Some(Wanted { topic, partition, next, epoch, place: *index })
        });
        let reading = self.reader.hub.read(wanted.collect(), self.chunk_bytes);
        self.reading = Some(AbortOnDropHandle::new(tokio::spawn(reading)));
        self.doubts_tail = false;
    }

    /// Partitions that had no leader are looked at again, and topics for new partitions.
    fn start_asking(&mut self, without_offset: &[usize]) {
        let now = Instant::now();
        let mut open = Vec::new();
        for index in without_offset {
            let Some(place) = self.at.places.get(*index) else { continue };
            if let (Position::Time(ms), Some(followed)) =
                (place.position, self.at.topics.get(place.topic))
            {
                open.push((*index, Arc::clone(&followed.topic), place.partition, ms));
            }
        }
        let looks_again = self.look_again <= now;
        if self.asking.is_some() || (open.is_empty() && !looks_again) {
            return;
        }
        let hub = Arc::clone(&self.reader.hub);
        let mut topics = Vec::new();
        if looks_again {
            self.look_again = now + FEED_LOOK_AGAIN;
            topics.extend(self.at.topics.iter().map(|followed| Arc::clone(&followed.topic)));
        }
        let asking = async move {
            for topic in topics {
                let _kept_there = hub.known(&topic, FEED_LOOK_AGAIN / 2, FEED_GRACE).await;
            }
            let mut answers = Vec::new();
            for (index, topic, partition, ms) in open {
                let mut answer = hub.offsets(&topic, &[partition], At::Time(ms), FEED_GRACE).await;
                answers.extend(answer.pop().map(|answer| (index, answer)));
            }
            answers
        };
        self.asking = Some(AbortOnDropHandle::new(tokio::spawn(asking)));
    }

    /// Waits until something may have changed.
    async fn wait(&mut self, until: Instant, is_being_read: bool) -> Result<(), Refusal> {
        let Self { at, reading, asking, timer, .. } = self;
        tokio::select! {
            answers = finished(reading) => {
                self.reading = None;
                // Apart: each reader would have room for it all its life.
                Box::pin(self.take_in(answers)).await
            }
            answers = finished(asking) => {
                self.asking = None;
                self.resolve(answers)
            }
            () = at.changed(is_being_read) => Ok(()),
            () = timer.wait(until) => Ok(()),
        }
    }

    fn resolve(&mut self, answers: Vec<Resolved>) -> Result<(), Refusal> {
        for (index, answer) in answers {
            match answer {
                Ok(next) => self.at.move_to(index, next, None),
                Err(reason) => {
                    let topic =
                        self.at.places.get(index).and_then(|it| self.at.topics.get(it.topic));
                    let refusal = refused(topic.map_or("", |it| &it.topic.log.name), &reason);
                    self.at.pause(index);
                    if refusal.code != Code::KafkaUnavailable {
                        return Err(refusal);
                    }
                    self.trouble = Some(refusal);
                }
            }
        }
        Ok(())
    }

    async fn take_in(&mut self, answers: Vec<Answer>) -> Result<(), Refusal> {
        self.trouble = None;
        let recreated = self.recreated(&answers).await?;
        for (wanted, answer) in answers {
            let (index, name) = (wanted.place, &wanted.topic.log.name);
            match answer {
                // Offsets of a former topic mean nothing, whatever was read there.
                _ if self.at.places.get(index).is_none_or(|it| recreated.contains(&it.topic)) => {}
                Ok(segment) => {
                    if segment.next == wanted.next {
                        self.at.set_epoch(index, wanted.next, segment.epoch);
                    }
                    self.caught.push((index, segment));
                }
                // It is waited for.
                Err(ReadError::Refused(reason))
                    if is_unknown_topic(&reason) && !self.reader.feed.check_topic_existence =>
                {
                    self.at.pause(index);
                }
                Err(ReadError::Unavailable(reason)) => {
                    self.at.pause(index);
                    self.trouble = Some(refused(name, &reason));
                }
                Err(error) => self.go_on_after(index, name, wanted.next, &error)?,
            }
        }
        for topic in recreated {
            self.start_anew(topic).await?;
        }
        Ok(())
    }

    /// Topics of the same names that were created since, by what was read of them. An offset that is
    /// not in the log may be of a former one: brokers are asked.
    async fn recreated(&mut self, answers: &[Answer]) -> Result<BTreeSet<usize>, Refusal> {
        let mut recreated = BTreeSet::new();
        for (wanted, answer) in answers {
            let Some(place) = self.at.places.get(wanted.place) else { continue };
            let tag = self.at.topics.get(place.topic).and_then(|followed| followed.tag);
            let is_other = |now: Option<u32>| tag.zip(now).is_some_and(|(ours, its)| ours != its);
            let is_recreated = match answer {
                _ if recreated.contains(&place.topic) => continue,
                Ok(segment) => is_other(segment.topic_id.and_then(tag_of)),
                Err(ReadError::Recreated) => true,
                Err(ReadError::OutOfRange { .. } | ReadError::Truncated { .. }) => {
                    let hub = &self.reader.hub;
                    let known = hub.known(&wanted.topic, Duration::ZERO, FEED_GRACE).await;
                    let name = &wanted.topic.log.name;
                    is_other(known.map_err(|reason| refused(name, &reason))?.tag)
                }
                Err(_) => false,
            };
            if is_recreated {
                recreated.insert(place.topic);
            }
        }
        Ok(recreated)
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
        let mut epoch_there = None;
        let (to, reason) = match (error, self.reader.feed.reset) {
            (ReadError::OutOfRange { .. } | ReadError::Truncated { .. }, Reset::None) => {
                let message = format!("{topic}-{partition}: {error}");
                return Err(Code::OffsetOutOfRange.because(message));
            }
            (ReadError::OutOfRange { log_start, log_end }, reset) => {
                let reason =
                    if from < *log_start { GapReason::Expired } else { GapReason::BeyondEnd };
                (if reset == Reset::Earliest { *log_start } else { *log_end }, reason)
            }
            (ReadError::Truncated { to, epoch }, _) => {
                epoch_there = *epoch;
                (*to, GapReason::Truncated)
            }
            (ReadError::TooLarge { next_offset, .. }, _) => (*next_offset, GapReason::TooLarge),
            (ReadError::Unreadable { next_offset: Some(next), .. }, _) => {
                (*next, GapReason::Unreadable)
            }
            (ReadError::Refused(reason), _) => return Err(refused(topic, reason)),
            _ => return Err(Code::Internal.because(format!("{topic}-{partition}: {error}"))),
        };
        self.at.move_to(index, to, epoch_there);
        let (topic, from, to) = (topic.to_owned(), Some(from), Some(to));
        self.gaps.push(Gap { topic, partition, from, to, reason });
        Ok(())
    }

    /// A topic was deleted and created again: its new log is read from its start.
    async fn start_anew(&mut self, index: usize) -> Result<(), Refusal> {
        let Some(followed) = self.at.topics.get(index) else { return Ok(()) };
        let (topic, name) = (Arc::clone(&followed.topic), Arc::clone(&followed.topic.log.name));
        if self.reader.feed.reset == Reset::None {
            let message = format!("the topic `{name}` was deleted and created again");
            return Err(Code::OffsetOutOfRange.because(message));
        }
        let known = self.reader.hub.known(&topic, Duration::ZERO, FEED_GRACE).await;
        let known = known.map_err(|reason| refused(&name, &reason))?;
        for place in self.at.places.iter().filter(|place| place.topic == index) {
            let Some(next) = place.next() else { continue };
            let (topic, from, to) = (name.to_string(), Some(next), Some(0));
            let partition = place.partition;
            self.gaps.push(Gap { topic, partition, from, to, reason: GapReason::Recreated });
        }
        let mut cursor = self.at.cursor();
        let start = |partition| (partition, Position::Offset { next: 0, epoch: None });
        let partitions = (0..known.partitions).map(start).collect();
        cursor.topics.insert(name.to_string(), TopicPositions { tag: known.tag, partitions });
        // Its answers would be of other places.
        self.asking = None;
        self.caught.clear();
        self.at.set(&cursor);
        Ok(())
    }
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
