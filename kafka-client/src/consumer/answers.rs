//! What a reader does about each error code, and what is said when none of it helped.

use tokio::time::Instant;

use crate::error::Reason;
use crate::limits::UNKNOWN_TOPIC;

/// What follows from an error code in a Fetch or ListOffsets answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reaction {
    Read,
    OutOfRange,
    /// The broker does not know it, or not yet: for a bounded time others may.
    Unknown,
    /// Refused for good, for what is asked or who asks.
    Refused,
    /// It passes: the leader is elsewhere, or not ready.
    Again,
}

/// Every code that does not pass by itself; all others are tried again.
const FINAL: &[(Reaction, &[i16])] = &[
    (Reaction::Read, &[0]),
    (Reaction::OutOfRange, &[1]),
    (Reaction::Unknown, &[3, 100]),
    (Reaction::Refused, &[2, 17, 29, 31, 35, 42, 43, 58, 76]),
];

pub(super) fn reaction(code: i16) -> Reaction {
    let found = FINAL.iter().find(|(_, codes)| codes.contains(&code));
    found.map_or(Reaction::Again, |(reaction, _)| *reaction)
}

/// What was in the way of an answer so far.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    last: Option<Reason>,
    unknown_since: Option<Instant>,
}

impl Refusals {
    /// A broker gave this code in place of an answer; says whether that is final.
    pub(super) fn on_code(&mut self, code: i16, now: Instant) -> Option<Reason> {
        let reason = match reaction(code) {
            Reaction::Unknown => Reason::UnknownTopic,
            _ => Reason::of_code(code),
        };
        let is_final = match reaction(code) {
            Reaction::Refused => true,
            Reaction::Unknown => now >= *self.unknown_since.get_or_insert(now) + UNKNOWN_TOPIC,
            Reaction::Read | Reaction::OutOfRange | Reaction::Again => false,
        };
        if is_final {
            return Some(reason);
        }
        self.last = Some(reason);
        None
    }

    /// No broker could be asked, or none answered.
    pub(super) fn on_failure(&mut self, reason: Reason) {
        self.last = Some(reason);
    }

    /// The time is over.
    pub(super) fn into_reason(self) -> Reason {
        match self.last {
            Some(Reason::Closed) => Reason::Closed,
            last => Reason::DeadlineExceeded { last: last.map(Into::into) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_one_reaction_and_what_may_pass_is_tried_again() {
        for code in -1..=133 {
            let rows = FINAL.iter().filter(|(_, codes)| codes.contains(&code)).count();
            assert!(rows <= 1, "{code}");
            assert_eq!(rows == 0, reaction(code) == Reaction::Again, "{code}");
        }
        for code in [-1, 5, 6, 7, 9, 56, 74, 75, 78, 103] {
            assert_eq!(reaction(code), Reaction::Again, "{code}");
        }
    }

    #[test]
    fn an_unknown_topic_is_refused_when_it_has_been_unknown_for_5_s() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        assert_eq!(refusals.on_code(3, now), None);
        assert_eq!(refusals.on_code(100, now + UNKNOWN_TOPIC / 2), None);
        assert_eq!(refusals.on_code(3, now + UNKNOWN_TOPIC), Some(Reason::UnknownTopic));
        assert!(refusals.on_code(29, now).is_some());
    }
}
