//! What is known of a registry's schemas, and what is being asked for: bounded in number and bytes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, Shared};
use tokio::time::Instant;

use super::schema::{Failure, Key, Registered};

/// A schema on its way, for all who wait for it.
pub(super) type Flight = Shared<BoxFuture<'static, Result<Arc<Registered>, Failure>>>;

#[derive(Default)]
pub(super) struct Cache {
    slots: HashMap<Key, Slot>,
    bytes: usize,
    /// Counts questions, to know which slot was used last.
    uses: u64,
    /// When the registry was last taken at its word that it does not know an id.
    given_up: Option<Instant>,
}

#[derive(Default)]
struct Slot {
    known: Option<(Arc<Registered>, Instant)>,
    /// Since when the registry has said that it does not know it.
    unknown_since: Option<Instant>,
    /// Why the last question had no answer, and until when none follows it.
    failed: Option<(Failure, Instant)>,
    flight: Option<Flight>,
    used: u64,
}

/// What there is of a schema.
pub(super) enum Found {
    Known(Arc<Registered>),
    /// It is out of date, and the registry was away a moment ago.
    Stale(Arc<Registered>),
    Failed(Failure),
    /// It is being asked for; one may be known that is out of date.
    Asked(Option<Arc<Registered>>, Flight),
}

impl Cache {
    /// Looks a schema up, and has it asked for if it must be.
    pub(super) fn find(
        &mut self,
        key: &Key,
        ttl: Duration,
        now: Instant,
        ask: impl FnOnce() -> Flight,
    ) -> Found {
        self.uses += 1;
        if !self.slots.contains_key(key) {
            self.make_room(1, 0);
        }
        let slot = self.slots.entry(key.clone()).or_default();
        slot.used = self.uses;
        let known = slot.known.as_ref().map(|(known, _)| Arc::clone(known));
        // An id never gets another schema.
        let is_fresh = |since: Instant| matches!(key, Key::Id(_)) || now < since + ttl;
        let failed = slot.failed.as_ref().filter(|(_, until)| now < *until);
        match (&slot.known, known, failed) {
            (Some((_, since)), Some(known), _) if is_fresh(*since) => Found::Known(known),
            (_, Some(known), Some(_)) => Found::Stale(known),
            (_, None, Some((failure, _))) => Found::Failed(failure.clone()),
            (_, known, None) => Found::Asked(known, slot.flight.get_or_insert_with(ask).clone()),
        }
    }

    /// The end of a question. Returns what it means to who waits.
    pub(super) fn settle(
        &mut self,
        key: &Key,
        answer: Result<Arc<Registered>, Failure>,
        now: Instant,
    ) -> Result<Arc<Registered>, Failure> {
        let answer = answer.map_err(|failure| self.unless_lagging(key, failure, now));
        self.remember(key, &answer, now);
        answer
    }

    /// A record names an id that its writer has just had: one that the registry does not know may be new
    /// to this replica of it. For a time that is no answer; but what is no id at all, as each record of
    /// a topic may begin with, must not hold up readers again and again.
    fn unless_lagging(&mut self, key: &Key, failure: Failure, now: Instant) -> Failure {
        let (Key::Id(_), Failure::Unknown(why)) = (key, &failure) else { return failure };
        let Some(slot) = self.slots.get_mut(key) else { return failure };
        let since = *slot.unknown_since.get_or_insert(now);
        let is_recent = |at: Instant| now < at + REPLICA_LAG;
        if is_recent(since) && !self.given_up.is_some_and(is_recent) {
            return Failure::Unavailable(Arc::clone(why));
        }
        self.given_up = Some(now);
        failure
    }

    fn remember(&mut self, key: &Key, answer: &Result<Arc<Registered>, Failure>, now: Instant) {
        let bytes = answer.as_ref().map_or(0, |registered| registered.bytes);
        self.make_room(0, bytes);
        // It may have been asked for by so many others that it is gone.
        let Some(slot) = self.slots.get_mut(key) else { return };
        slot.flight = None;
        let forget = match answer {
            Ok(registered) => {
                slot.failed = None;
                slot.known.replace((Arc::clone(registered), now))
            }
            Err(failure) => {
                slot.failed = Some((failure.clone(), now + kept_for(failure)));
                slot.known.take_if(|_| matches!(failure, Failure::Unknown(_)))
            }
        };
        self.bytes += bytes;
        self.bytes -= forget.map_or(0, |(registered, _)| registered.bytes);
    }

    /// Forgets what was used longest ago.
    fn make_room(&mut self, slots: usize, bytes: usize) {
        while self.slots.len() + slots > SLOTS_MAX || self.bytes + bytes > BYTES_MAX {
            let idle = self.slots.iter().filter(|(_, slot)| slot.flight.is_none());
            let oldest = idle.min_by_key(|(_, slot)| slot.used).map(|(key, _)| key.clone());
            let Some(slot) = oldest.and_then(|key| self.slots.remove(&key)) else { return };
            self.bytes -= slot.known.map_or(0, |(registered, _)| registered.bytes);
        }
    }
}

/// How long a failure is remembered: a replica of the registry may lag, and one that is away comes back.
fn kept_for(failure: &Failure) -> Duration {
    match failure {
        Failure::Unavailable(_) => Duration::from_secs(1),
        Failure::Unknown(_) | Failure::Refused(_) | Failure::Unusable(_) => Duration::from_secs(10),
    }
}

/// How long an id may be unknown to a replica of a registry that another one has given.
const REPLICA_LAG: Duration = Duration::from_secs(10);
/// Schemas that are known or asked for.
const SLOTS_MAX: usize = 1000;
/// Bytes of their texts. What is made of a text takes several times as much.
const BYTES_MAX: usize = 16 * 1024 * 1024;
