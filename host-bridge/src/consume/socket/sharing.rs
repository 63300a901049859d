//! Where a client is; it may have a share of a group's partitions, which come and go.

use std::future::pending;

use tokio::time::Instant;

use super::frames::Frame;
use super::{Conversation, End, POSITION_INTERVAL, framed};
use crate::consume::cursor::Cursor;
use crate::consume::groups::{News, Share, is_among};
use crate::consume::refusal::Refusal;

impl Conversation {
    /// Partitions come and go. The client may still acknowledge what it was sent of those that go.
    pub(super) async fn change(&mut self, news: News) -> Result<(), End> {
        // Where it was in what comes back may be in a former topic.
        self.leaving.retain(|topic, partition| !is_among(&news.given, topic, partition));
        self.has_sent();
        self.settle();
        // Should they come back, what it owes of them comes again: it is not taken for acknowledged.
        let gone = self.acks.settled(self.follower.take_away(&news.gone));
        let taken = self.follower.take_away(&news.taken);
        gone.iter().for_each(|(topic, it, _)| self.acks.go_on_from(topic, it, None));
        self.ack_due = self.ack_due.filter(|_| self.acks.records() > 0);
        let Some(share) = &mut self.share else { return Ok(()) };
        share.remember(&gone);
        share.give_up(&taken);
        if self.window.is_some() {
            self.leaving.extend(&taken);
            if taken != Cursor::default() {
                self.stayed_at = self.follower.cursor();
            }
        }
        if !news.given.is_empty() {
            let (starts, gaps) = share.starts(&news.given).await?;
            let former = self.leaving.take_former(&starts);
            former.iter().for_each(|(topic, it, _)| self.acks.go_on_from(topic, it, None));
            self.follower.give(&starts, gaps);
            // What it had acknowledged of them, and nobody has committed.
            self.settle();
        }
        self.tell_gaps().await?;
        self.has_sent_position();
        match self.id() {
            Some(id) => self.tell(framed(&Frame::Position { id })).await,
            None => Ok(()),
        }
    }

    /// What was sent is with the client, as far as the bridge can tell.
    pub(super) fn has_sent(&mut self) {
        let Self { share: Some(share), follower, .. } = self else { return };
        share.sent(follower.moves(), || follower.cursor());
    }

    /// What is acknowledged is settled in the group.
    pub(super) fn settle(&mut self) {
        let Some(share) = self.share.as_ref().filter(|_| self.window.is_some()) else { return };
        let settled = self.acks.settled(self.cursor());
        share.settled(&settled);
        let leaving = self.leaving.clone();
        let owes = |topic: &str, it| settled.position(topic, it) != leaving.position(topic, it);
        self.leaving.retain(owes);
    }

    /// Later cursors do not list what the client gives up: who acknowledges a record that was sent behind
    /// all of that has that, too.
    pub(super) fn with_leaving(&self, mut acked: Cursor) -> Cursor {
        let is_later = acked.iter().any(|(topic, partition, position)| {
            let then = self.stayed_at.position(topic, partition).and_then(|then| then.next());
            then.zip(position.next()).is_some_and(|(then, now)| now > then)
        });
        if is_later {
            acked.extend(&self.leaving);
        }
        acked
    }

    /// Where the client is, if it may go on from there.
    pub(super) fn id(&self) -> Option<&str> {
        // Without a partition there is nothing to go on from.
        let id = Some(self.follower.id()).filter(|id| !id.is_empty());
        id.filter(|_| self.follower.reader.feed.delivery.has_cursors())
    }

    pub(super) fn has_sent_position(&mut self) {
        self.sent_moves = self.follower.moves();
        self.position_at = Instant::now() + POSITION_INTERVAL;
    }

    /// Where it is, by topic and partition; also in those that it is giving up.
    pub(super) fn cursor(&self) -> Cursor {
        let stays = self.follower.cursor();
        let mut cursor = Cursor { complete: stays.complete, ..self.leaving.clone() };
        cursor.extend(&stays);
        cursor
    }
}

pub(super) async fn news(share: &mut Option<Box<Share>>) -> Result<News, Refusal> {
    match share {
        // Boxed: every conversation would have the size of this future, also outside of groups.
        Some(share) => Box::pin(share.next()).await,
        None => pending().await,
    }
}
