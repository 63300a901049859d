//! A page of a feed: the records that come within a time.

use std::sync::Arc;

use tokio::task::yield_now;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::cursor::Cursor;
use super::follow::{Follower, Taken};
use super::groups::Turn;
use super::memory::Held;
use super::query::Query;
use super::reader::FeedReader;
use super::refusal::{Code, Refusal};
use super::selection::Selected;
use super::start::Gap;
use super::topic_log::{Segment, Stored};
use crate::limits::{
    FEED_CHUNK_BYTES, FEED_GRACE, FEED_PAGE_CHUNK_BYTES, FEED_PATIENCE, FEED_QUIET,
};
use crate::shutdown::finish;

/// What a reader gets.
pub(crate) struct Page {
    pub(crate) items: Vec<Item>,
    /// What these are, about.
    pub(crate) bytes: usize,
    /// The cursor behind the last item.
    pub(crate) cursor: String,
    /// The same for the group in which it is read.
    pub(crate) end: Option<Cursor>,
    pub(crate) gaps: Vec<Gap>,
    /// Records between the cursor and the log ends, where these are known.
    pub(crate) lag: i64,
    /// Why there are not more items.
    pub(crate) error: Option<Refusal>,
}

/// A record, and where to go on behind it.
pub(crate) struct Item {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    segment: Arc<Segment>,
    /// Its place there.
    index: usize,
    pub(crate) selected: Selected,
    /// The cursor behind this record.
    pub(crate) id: String,
}

/// A page in the making.
struct Reading<'a> {
    query: &'a Query,
    follower: Follower,
    items: Vec<Item>,
    gaps: Vec<Gap>,
    bytes: usize,
    /// Memory for the items.
    held: Vec<Held>,
}

impl Page {
    /// Reads a page, in a group or in none; a shutdown ends the wait for more.
    ///
    /// # Errors
    /// Why there is no page; nothing was read.
    pub(crate) async fn read(
        reader: &Arc<FeedReader>,
        query: &Query,
        mut turn: Option<&mut Turn>,
        shutdown: &CancellationToken,
    ) -> Result<(Self, Vec<Held>), Refusal> {
        let deadline = Instant::now() + query.timeout;
        let within = FEED_PATIENCE.min(query.timeout + FEED_GRACE);
        let open =
            Follower::open(Arc::clone(reader), &query.start, query.topics.as_deref(), within);
        // A refusal would be an error to the client, where another bridge can go on from a position.
        let Some(opened) = finish(open, shutdown, FEED_GRACE).await else {
            return Err(Code::Overloaded.because("the bridge is about to end: ask again"));
        };
        let mut follower = opened?;
        if query.timeout.is_zero() {
            follower.doubt_tail();
        }
        let gaps = match &mut turn {
            Some(turn) => turn.begin(&follower.cursor()).await?,
            None => Vec::new(),
        };
        let (items, held) = (Vec::new(), Vec::new());
        let mut reading = Reading { query, follower, items, gaps, bytes: 0, held };
        let error = match shutdown.run_until_cancelled(reading.read(deadline)).await {
            Some(Err(refusal)) if reading.items.is_empty() => return Err(refusal),
            Some(Err(refusal)) => Some(refusal),
            Some(Ok(())) | None => None,
        };
        let Reading { mut follower, items, bytes, mut gaps, held, .. } = reading;
        gaps.extend(follower.take_gaps());
        let (cursor, lag) = (follower.id().to_owned(), follower.lag());
        let end = turn.is_some().then(|| follower.cursor());
        if let (Some(turn), Some(end)) = (turn, &end) {
            turn.before(end).await?;
        }
        Ok((Self { items, bytes, cursor, end, gaps, lag, error }, held))
    }
}

impl Item {
    pub(crate) fn stored(&self) -> Option<&Stored> {
        self.segment.records.get(self.index)
    }
}

impl Reading<'_> {
    async fn read(&mut self, deadline: Instant) -> Result<(), Refusal> {
        self.follower.check().await?;
        while !self.is_full() {
            let resources = &self.follower.reader.hub.resources;
            if resources.is_spent() || resources.answers.is_spent() {
                let message = "the memory of all readers is in use: ask again later";
                return Err(Code::Overloaded.because(message));
            }
            let left = self.query.max_bytes - self.bytes;
            self.follower.chunk_bytes = left.clamp(FEED_CHUNK_BYTES, FEED_PAGE_CHUNK_BYTES);
            self.follower.wanted = self.query.limit - self.items.len();
            let enough = self.items.len() >= self.query.min;
            let now = Instant::now();
            let (until, grace) = match enough {
                true => (deadline.min(now + FEED_QUIET), FEED_QUIET),
                false => (deadline, FEED_GRACE + FEED_QUIET),
            };
            let before = self.items.len();
            let portions = self.follower.more(until, grace).await?;
            let is_nothing = portions.is_empty();
            let gaps = self.follower.take_gaps();
            let is_told = !gaps.is_empty();
            self.gaps.extend(gaps);
            let Self { follower, items, query, bytes, .. } = self;
            let held_before = *bytes;
            let taken = follower.take(portions, |taken| {
                let Taken { topic, partition, segment, index, selected, id } = taken;
                let stored = segment.records.get(index);
                *bytes += stored.map_or(0, Stored::bytes) + selected.bytes() + id.len();
                let (topic, segment) = (Arc::clone(topic), Arc::clone(segment));
                let id = id.to_owned();
                items.push(Item { topic, partition, segment, index, selected, id });
                items.len() >= query.limit || *bytes >= query.max_bytes
            });
            let answers = &self.follower.reader.hub.resources.answers;
            self.held.push(answers.hold(self.bytes - held_before));
            taken?;
            if self.items.len() == before {
                // All were filtered out, and there may be many more: others have their turn.
                yield_now().await;
            }
            // Records that are filtered out are passed for as long as a page has time.
            let is_over = self.items.len() == before && Instant::now() >= deadline;
            if (is_nothing || is_over) && !is_told {
                let why = match (self.items.is_empty(), self.gaps.is_empty()) {
                    (true, true) => self.follower.trouble(),
                    // A refusal would keep back what there is to tell.
                    (true, false) => None,
                    (false, _) => self.follower.fault(),
                };
                return match why {
                    Some(refusal) => Err(refusal),
                    None => Ok(()),
                };
            }
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.items.len() >= self.query.limit || self.bytes >= self.query.max_bytes
    }
}
