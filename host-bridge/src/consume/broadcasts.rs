//! Event streams of a feed that wait at the same place, gathered: one task writes to all of them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::Instant;

use super::steps::Here;
use crate::direct::{Direct, Opened, Put};
use crate::limits::{BROADCAST_LEAST, BROADCAST_MOST, BROADCAST_WRITES};

/// Those of a feed.
#[derive(Default)]
pub(crate) struct Broadcasts(Mutex<Vec<Weak<Broadcast>>>);

/// Streams at one place.
pub(crate) struct Broadcast(Mutex<Waiting>);

struct Waiting {
    /// Where they are; none while they are written to, and in the end.
    place: Option<Arc<Here>>,
    members: Vec<Member>,
}

pub(crate) struct Member {
    direct: Arc<Direct>,
    leave: oneshot::Sender<Place>,
}

/// Where a stream goes on alone.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) here: Arc<Here>,
    /// Whether its client was sent the position.
    pub(crate) is_sent: bool,
    pub(crate) heartbeat_at: Instant,
    /// Since when it is held up by the registry.
    pub(crate) held_since: Option<Instant>,
}

/// A stream's membership.
pub(crate) struct Joined {
    /// Nothing comes where the task has ended unasked.
    pub(crate) left: oneshot::Receiver<Place>,
    _opened: Opened,
}

impl Broadcasts {
    /// Joins one that is at the place.
    pub(crate) fn join(&self, here: &Arc<Here>, direct: &Arc<Direct>) -> Option<Joined> {
        self.lock().iter().filter_map(Weak::upgrade).find_map(|it| it.join(here, direct))
    }

    /// Another one at the place, unless there are enough for so many streams.
    pub(crate) fn begin(&self, here: &Arc<Here>, streams: usize) -> Option<Arc<Broadcast>> {
        let mut all = self.lock();
        all.retain(|it| it.strong_count() > 0);
        if (all.len() + 1) * BROADCAST_LEAST > streams {
            return None;
        }
        let waiting = Waiting { place: Some(Arc::clone(here)), members: Vec::new() };
        let broadcast = Arc::new(Broadcast(Mutex::new(waiting)));
        all.push(Arc::downgrade(&broadcast));
        Some(broadcast)
    }

    /// Streams that wait in any.
    #[cfg(test)]
    pub(crate) fn members(&self) -> usize {
        let all: Vec<_> = self.lock().iter().filter_map(Weak::upgrade).collect();
        all.iter().map(|it| it.lock().members.len()).sum()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Broadcast>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Broadcast {
    pub(crate) fn join(&self, here: &Arc<Here>, direct: &Arc<Direct>) -> Option<Joined> {
        let mut waiting = self.lock();
        waiting.place.as_ref().filter(|place| Arc::ptr_eq(place, here))?;
        if waiting.members.len() == BROADCAST_MOST {
            waiting.members.retain(|member| !member.leave.is_closed());
        }
        if waiting.members.len() == BROADCAST_MOST {
            return None;
        }
        let opened = direct.open()?;
        let (leave, left) = oneshot::channel();
        waiting.members.push(Member { direct: Arc::clone(direct), leave });
        Some(Joined { left, _opened: opened })
    }

    /// Nobody joins until [`Self::stay`].
    pub(crate) fn depart(&self) -> Vec<Member> {
        let mut waiting = self.lock();
        waiting.place = None;
        std::mem::take(&mut waiting.members)
    }

    /// They wait at a place.
    pub(crate) fn stay(&self, here: &Arc<Here>, members: Vec<Member>) {
        *self.lock() = Waiting { place: Some(Arc::clone(here)), members };
    }

    /// Whether all have gone by themselves: then nobody joins any more.
    pub(crate) fn is_over(&self) -> bool {
        let mut waiting = self.lock();
        let is_over = waiting.members.iter().all(|member| member.leave.is_closed());
        if is_over {
            waiting.place = None;
        }
        is_over
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes to all before a place. Returns those that stay together there, and how many were written to:
/// who did not take all of it goes on alone.
pub(crate) async fn write(
    members: Vec<Member>,
    bytes: &Bytes,
    place: &Place,
) -> (Vec<Member>, usize) {
    let (mut staying, mut written) = (Vec::with_capacity(members.len()), 0);
    for (index, member) in members.into_iter().enumerate() {
        if index.is_multiple_of(BROADCAST_WRITES) {
            yield_now().await;
        }
        match member.direct.put(bytes) {
            Put::Whole => staying.push(member),
            Put::Part => member.leave_at(place),
            Put::Closed => continue,
        }
        written += 1;
    }
    (staying, written)
}

impl Member {
    pub(crate) fn leave_at(self, place: &Place) {
        // Who is gone needs none.
        let _gone = self.leave.send(place.clone());
    }
}
