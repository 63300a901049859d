//! A reader that does as others do who are where it is.

use std::sync::Arc;

use tokio::time::Instant;

use super::Follower;
use crate::consume::cursor::Cursor;
use crate::consume::envelope::Shape;
use crate::consume::refusal::Refusal;
use crate::consume::steps::{Here, Next, Onward, Sent};

impl Follower {
    /// The cursor.
    pub(crate) fn id(&self) -> &str {
        self.at.text.as_str()
    }

    /// How often it has moved.
    pub(crate) fn moves(&self) -> u64 {
        self.at.moves
    }

    /// Where it is in every partition.
    pub(crate) fn cursor(&self) -> Cursor {
        self.at.cursor()
    }

    /// Records between the positions and the log ends, where these are known.
    pub(crate) fn lag(&self) -> i64 {
        let behind = self.at.places.iter().filter_map(|place| {
            let end = self.at.topics.get(place.topic)?.topic.log.lock().log_end(place.partition)?;
            Some((end - place.next()?).max(0))
        });
        behind.sum()
    }

    /// What another reader who was here was sent then; the positions are behind it. Else, where
    /// another one has found that nothing is there, waits until there may be, or until a time, and
    /// says so.
    ///
    /// # Errors
    /// As [`Follower::more`].
    pub(crate) async fn as_others(
        &mut self,
        shape: Shape,
        until: Instant,
    ) -> Result<Option<Sent>, Refusal> {
        match self.next(shape, until) {
            Some((_, Next::Onward(Onward { sent, to }))) => {
                self.go_to(&to);
                self.reader.metrics.tail_hits.inc();
                Ok(Some(sent))
            }
            Some((_, Next::Nothing)) => {
                self.wait(until.min(self.look_again), false, Vec::new()).await?;
                Ok(Some(Sent::default()))
            }
            Some((_, Next::Unknown)) | None => Ok(None),
        }
    }

    /// Where it is, if another one has found that nothing is there and others there follow what it follows.
    pub(crate) fn waits_at(&mut self, shape: Shape) -> Option<Arc<Here>> {
        if self.follows_created != self.reader.has_pattern() {
            return None;
        }
        let (here, next) = self.next(shape, self.look_again)?;
        matches!(next, Next::Nothing).then_some(here)
    }

    /// What others who were here were sent, unless it has to look for itself.
    fn next(&mut self, shape: Shape, until: Instant) -> Option<(Arc<Here>, Next)> {
        // What it reads and asks for itself is for where it is.
        let is_busy = self.reading.is_some() || self.asking.is_some();
        let has_news = self.has_gaps() || !self.created.is_empty();
        let until = until.min(self.look_again);
        if is_busy || has_news || self.doubts_tail || Instant::now() >= until {
            return None;
        }
        let steps = self.reader.steps.clone()?;
        self.at.mark_unchanged();
        let here = self.here(shape);
        let next = steps.next(&here, self.at.version());
        Some((here, next))
    }

    /// Goes to where others are who were where it is.
    pub(crate) fn go_to(&mut self, here: &Arc<Here>) {
        self.at.go(here);
        self.met = Some((Arc::clone(here), self.at.moves));
    }

    /// Another one at its place.
    pub(crate) fn another(&self) -> Self {
        let another = Self::at(Arc::clone(&self.reader), &self.cursor());
        Self { follows_created: self.follows_created, ..another }
    }

    /// Whether it has something to tell beside records.
    pub(crate) fn has_gaps(&self) -> bool {
        !self.gaps.is_empty()
    }

    /// Grows when it may have other partitions.
    pub(crate) fn layout(&self) -> u64 {
        self.at.layout
    }

    /// Where it is, before it takes what it has found.
    pub(crate) fn here(&mut self, shape: Shape) -> Arc<Here> {
        if let Some((here, moves)) = &self.met
            && *moves == self.at.moves
        {
            return Arc::clone(here);
        }
        let here = self.at.here(shape);
        let here = match &self.reader.steps {
            Some(steps) => steps.meet(here),
            None => Arc::new(here),
        };
        self.met = Some((Arc::clone(&here), self.at.moves));
        here
    }

    /// What it is sent behind a place, for others who come there.
    pub(crate) fn tell_others(&mut self, from: &Arc<Here>, sent: Sent) {
        if let Some(steps) = &self.reader.steps {
            let to = steps.go(from, sent, self.at.here(from.shape));
            self.met = Some((to, self.at.moves));
        }
    }

    /// There is nothing at any position, with the topics at this version.
    pub(super) fn tell_end(&self, version: u64) {
        if let (Some(steps), Some((here, moves))) = (&self.reader.steps, &self.met)
            && *moves == self.at.moves
        {
            steps.end(here, version);
        }
    }
}
