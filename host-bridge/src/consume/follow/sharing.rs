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
        self.at.id()
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
        let behind = self.at.now().filter_map(|(place, position)| {
            let end = self.at.topics.get(place.topic)?.topic.log.lock().log_end(place.partition)?;
            Some((end - position.next()?).max(0))
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
        let now = Instant::now();
        // What it reads and asks for itself is for where it is.
        let is_busy = self.reading.is_some() || self.asking.is_some();
        let has_news = !self.gaps.is_empty() || !self.created.is_empty();
        if is_busy || has_news || self.doubts_tail || now >= until.min(self.look_again) {
            return Ok(None);
        }
        let Some(steps) = self.reader.steps.clone() else { return Ok(None) };
        self.at.mark_unchanged();
        let here = self.here(shape);
        let next = steps.next(&here, self.at.version());
        match next {
            Next::Onward(Onward { sent, to }) => {
                self.at.go(&to);
                self.reader.metrics.tail_hits.inc();
                self.met = Some((to, self.at.moves));
                Ok(Some(sent))
            }
            Next::Nothing => {
                self.wait(until.min(self.look_again), false, Vec::new()).await?;
                Ok(Some(Sent::default()))
            }
            Next::Unknown => Ok(None),
        }
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
