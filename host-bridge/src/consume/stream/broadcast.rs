//! Streams that wait at the log end together: a task that reads on as one of them does, but has no client,
//! writes to the connections of all.

use std::future::pending;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::unconstrained;
use tokio::time::{Instant, sleep_until};

use super::Sending;
use crate::consume::broadcasts::{self, Broadcast, Joined, Place};
use crate::consume::feeds::Entrypoint;
use crate::limits::FEED_IDLE;
use crate::unending::chunk;

impl Sending {
    /// Joins others at the log end, if it has nothing to tell that they have not.
    pub(super) fn join(&mut self) -> Option<Joined> {
        let direct = self.direct.clone()?;
        if self.share.is_some() || self.sent_moves != self.follower.moves() || !direct.is_clear() {
            return None;
        }
        let reader = Arc::clone(&self.follower.reader);
        let broadcasts = reader.broadcasts.as_ref()?;
        let here = self.follower.waits_at(self.view.shape)?;
        let joined = broadcasts.join(&here, &direct).or_else(|| {
            let streams = reader.metrics.by(Entrypoint::Sse).connections.get();
            let begun = broadcasts.begin(&here, usize::try_from(streams).unwrap_or(0))?;
            let joined = begun.join(&here, &direct);
            let lag = reader.metrics.lag();
            let mut own = Self::new(self.follower.another(), self.view, lag, None);
            (own.sent_moves, own.heartbeat_at) = (own.follower.moves(), self.heartbeat_at);
            // With a budget a write would fail in the middle, as if its client took nothing.
            tokio::spawn(unconstrained(own.broadcast(begun)));
            joined
        });
        if joined.is_some() {
            self.lag.set(self.follower.lag());
        }
        joined
    }

    /// Returns when it is to go on alone, or at `end`.
    pub(super) async fn wait_with_others(&mut self, mut joined: Joined, end: Option<Instant>) {
        let end = async {
            match end {
                Some(end) => sleep_until(end).await,
                None => pending().await,
            }
        };
        tokio::select! {
            left = &mut joined.left => match left {
                Ok(Place { here, is_sent, heartbeat_at, held_since }) => {
                    self.follower.go_to(&here);
                    self.follower.held_since = held_since;
                    self.heartbeat_at = heartbeat_at;
                    if is_sent {
                        self.sent_moves = self.follower.moves();
                    }
                }
                // Nobody knows where it is.
                Err(_) => self.has_ended = true,
            },
            () = end => {}
        }
    }

    /// Sends on for all members, until there are none.
    async fn broadcast(mut self, broadcast: Arc<Broadcast>) {
        let layout = self.follower.layout();
        let mut place = self.place();
        loop {
            let worked = self.work(Some(Instant::now() + FEED_IDLE)).await;
            if worked.is_err() || self.follower.has_gaps() || self.follower.layout() != layout {
                // Each finds out what it is to be sent.
                return broadcast.depart().into_iter().for_each(|it| it.leave_at(&place));
            }
            let before = std::mem::replace(&mut place, self.place());
            if self.queue.is_empty() && Arc::ptr_eq(&before.here, &place.here) {
                match broadcast.is_over() {
                    true => return,
                    false => continue,
                }
            }
            let mut members = broadcast.depart();
            if !self.queue.is_empty() {
                let (bytes, chunks) = self.chunks();
                let written;
                (members, written) = broadcasts::write(members, &chunks, &place).await;
                self.count(bytes, written);
            }
            if members.is_empty() {
                return;
            }
            broadcast.stay(&place.here, members);
        }
    }

    fn place(&mut self) -> Place {
        let here = self.follower.here(self.view.shape);
        let is_sent = self.sent_moves == self.follower.moves();
        let held_since = self.follower.held_since;
        Place { here, is_sent, heartbeat_at: self.heartbeat_at, held_since }
    }

    /// What is queued: its bytes, and as it goes over HTTP/1.1.
    fn chunks(&mut self) -> (usize, Bytes) {
        let (mut bytes, mut chunks) = (0, Vec::new());
        // An empty chunk would be the last.
        for part in self.queue.drain(..).filter(|part| !part.is_empty()) {
            bytes += part.len();
            chunks.extend_from_slice(&chunk(&part));
        }
        let memory = &self.follower.reader.hub.resources.memory;
        (bytes, memory.hold(chunks.len()).keep(chunks))
    }
}

#[cfg(test)]
mod tests;
