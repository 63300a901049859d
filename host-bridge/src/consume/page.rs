//! A page of a feed: the records that come within a time.

use std::sync::Arc;

use tokio::task::yield_now;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::cursor::Cursor;
use super::ending::unless_ending;
use super::envelope::Record;
use super::follow::{Follower, Portion, Taken};
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

/// What a reader gets.
pub(crate) struct Page {
    items: Items,
    /// The cursor behind the last item.
    pub(crate) cursor: String,
    /// The same for the group in which it is read.
    pub(crate) end: Option<Cursor>,
    pub(crate) gaps: Vec<Gap>,
    /// Records between the cursor and the log ends, where these are known.
    pub(crate) lag: i64,
    /// Why there are not more items.
    pub(crate) error: Option<Refusal>,
    /// Memory for the items that have not been made.
    pub(crate) held: Held,
}

#[derive(Default)]
struct Items {
    items: Vec<Item>,
    sources: Vec<Source>,
    /// The last source of each place of the reader.
    latest: Vec<usize>,
    /// The cursors behind the items, one after the other.
    ids: String,
    /// What the items are, about.
    bytes: usize,
}

/// A record, and where to go on behind it.
struct Item {
    /// Of the sources.
    source: usize,
    /// Its place there.
    index: usize,
    selected: Selected,
    /// What it is as JSON, about.
    bytes: usize,
    /// Where its cursor ends among all of them.
    id_end: usize,
}

/// Records of a partition.
struct Source {
    topic: Arc<str>,
    partition: i32,
    segment: Arc<Segment>,
}

/// A page in the making.
struct Reading<'a> {
    query: &'a Query,
    follower: Follower,
    items: Items,
    gaps: Vec<Gap>,
    held: Held,
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
    ) -> Result<Self, Refusal> {
        let deadline = Instant::now() + query.timeout;
        let within = FEED_PATIENCE.min(query.timeout + FEED_GRACE);
        let open =
            Follower::open(Arc::clone(reader), &query.start, query.topics.as_deref(), within);
        // A refusal would be an error to the client, where another bridge can go on from a position.
        let mut follower = unless_ending(open, shutdown).await?;
        follower.has_come();
        if query.timeout.is_zero() {
            follower.doubt_tail();
        }
        let gaps = match &mut turn {
            Some(turn) => turn.begin(&follower.cursor()).await?,
            None => Vec::new(),
        };
        let held = reader.hub.resources.answers.hold(0);
        let mut reading = Reading { query, follower, items: Items::default(), gaps, held };
        let error = match shutdown.run_until_cancelled(reading.read(deadline)).await {
            Some(Err(refusal)) if reading.items.len() == 0 => return Err(refusal),
            Some(Err(refusal)) => Some(refusal),
            Some(Ok(())) | None => None,
        };
        let is_full = reading.is_full();
        let Reading { mut follower, items, mut gaps, held, .. } = reading;
        gaps.extend(follower.take_gaps());
        let (cursor, lag) = (follower.id().to_owned(), follower.lag());
        if is_full {
            follower.read_ahead(items.bytes);
        }
        let end = turn.is_some().then(|| follower.cursor());
        if let (Some(turn), Some(end)) = (turn, &end) {
            turn.hear(&gaps).await?;
            turn.before(end).await?;
        }
        Ok(Self { items, cursor, end, gaps, lag, error, held })
    }

    /// How many items it has.
    pub(crate) fn len(&self) -> usize {
        self.items.items.len()
    }

    /// What an item is as JSON, about.
    pub(crate) fn item_bytes(&self, place: usize) -> Option<usize> {
        self.items.items.get(place).map(|item| item.bytes)
    }

    /// An item's cursor and record, as its reader gets it.
    pub(crate) fn look_at(&self, place: usize, look: impl FnOnce(&str, Record<'_>)) {
        let Some(item) = self.items.items.get(place) else { return };
        let Some(source) = self.items.sources.get(item.source) else { return };
        let Some(stored) = self.items.stored(item) else { return };
        let headers: Vec<_> = stored.record.headers.iter().collect();
        let record = Record::of(&source.topic, source.partition, &stored.record, &headers);
        look(self.items.id(place), record.selected(&item.selected));
    }

    /// What is in memory for its items.
    pub(crate) fn records_bytes(&self) -> usize {
        let sources = self.items.sources.iter().map(|source| source.segment.bytes());
        let changed = self.items.items.iter().map(|item| item.selected.bytes());
        sources.chain(changed).sum()
    }

    pub(crate) fn forget_records(&mut self) {
        self.items.sources.clear();
    }
}

impl Items {
    fn len(&self) -> usize {
        self.items.len()
    }

    fn push(&mut self, taken: Taken<'_>) {
        let Taken { topic, partition, segment, index, selected, id, place, .. } = taken;
        let stored = segment.records.get(index).map_or(0, Stored::bytes);
        let bytes = stored + selected.bytes() + id.len();
        self.bytes += bytes;
        self.ids.push_str(id);
        let source = self.source((topic, partition, segment), place);
        self.items.push(Item { source, index, selected, bytes, id_end: self.ids.len() });
    }

    fn source(
        &mut self,
        (topic, partition, segment): (&Arc<str>, i32, &Arc<Segment>),
        place: usize,
    ) -> usize {
        let latest = self.latest.get(place).copied().unwrap_or(usize::MAX);
        if self.sources.get(latest).is_some_and(|it| Arc::ptr_eq(&it.segment, segment)) {
            return latest;
        }
        let (topic, segment, source) = (Arc::clone(topic), Arc::clone(segment), self.sources.len());
        self.sources.push(Source { topic, partition, segment });
        self.latest.resize(self.latest.len().max(place + 1), usize::MAX);
        if let Some(latest) = self.latest.get_mut(place) {
            *latest = source;
        }
        source
    }

    fn stored(&self, item: &Item) -> Option<&Stored> {
        self.sources.get(item.source)?.segment.records.get(item.index)
    }

    fn id(&self, place: usize) -> &str {
        let end = |place: usize| self.items.get(place).map_or(0, |item| item.id_end);
        let start = place.checked_sub(1).map_or(0, end);
        self.ids.get(start..end(place)).unwrap_or_default()
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
            let left = self.bytes_max().saturating_sub(self.items.bytes);
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
            let has_gaps = !gaps.is_empty();
            self.gaps.extend(gaps);
            self.take(portions)?;
            if self.items.len() == before {
                // All were filtered out, and there may be many more: others have their turn.
                yield_now().await;
            }
            // Records that are filtered out are passed for as long as a page has time.
            let is_over = self.items.len() == before && Instant::now() >= deadline;
            if (is_nothing || is_over) && !has_gaps {
                let why = match (self.items.len() == 0, self.gaps.is_empty()) {
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

    fn take(&mut self, portions: Vec<Portion>) -> Result<(), Refusal> {
        let bytes_max = self.bytes_max();
        let Self { follower, items, query, held, .. } = self;
        let taken = follower.take(portions, |taken| {
            items.push(taken);
            items.len() >= query.limit || items.bytes >= bytes_max
        });
        held.grow(items.bytes - held.bytes());
        taken
    }

    fn is_full(&self) -> bool {
        self.items.len() >= self.query.limit
            || (self.items.len() > 0 && self.items.bytes >= self.bytes_max())
    }

    /// Pages are shorter while many wait for their readers: those of others have room, too.
    fn bytes_max(&self) -> usize {
        self.query.max_bytes.min(self.follower.reader.hub.resources.answers.share())
    }
}
