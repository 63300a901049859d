//! Which events get a line: of each kind one at once, and then one a minute with a count.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tracing::callsite;

use super::line::Line;
use crate::limits::{LOG_AGAIN, LOG_KINDS};

/// What kind of event it is: where it is logged, and the cluster or the webhook that it is about.
/// Nothing that a client chooses is part of it.
pub(super) type Kind = (callsite::Identifier, Option<Arc<str>>);

/// The events whose lines wait for the end of their minute.
pub(super) type Throttle = Arc<Mutex<LogThrottle<Kind>>>;

/// The kinds of events of the last minute. What clients send makes a count grow, and no line.
pub(crate) struct LogThrottle<K>(HashMap<K, Recent>);

struct Recent {
    /// When this kind had its last line.
    since: Instant,
    /// Events that had none since then.
    count: u64,
    /// The first of them.
    example: Option<Line>,
}

/// What becomes of an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It gets its line now.
    Write,
    /// It is counted, and its line is to be kept as the example.
    Keep,
    /// It is counted.
    Count,
}

impl<K> Default for LogThrottle<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Clone + Eq + Hash> LogThrottle<K> {
    /// An event of this kind happens.
    pub(super) fn ask(&mut self, kind: &K, now: Instant) -> Verdict {
        if let Some(recent) = self.0.get_mut(kind) {
            recent.count += 1;
            return if recent.count == 1 { Verdict::Keep } else { Verdict::Count };
        }
        if self.0.len() >= LOG_KINDS {
            return Verdict::Count;
        }
        self.0.insert(kind.clone(), Recent { since: now, count: 0, example: None });
        Verdict::Write
    }

    /// The line of an event that is counted.
    pub(super) fn keep(&mut self, kind: &K, line: Line) {
        if let Some(recent) = self.0.get_mut(kind) {
            recent.example = Some(line);
        }
    }

    /// The lines of kinds whose minute is over; with `all` of every kind.
    pub(super) fn due(&mut self, now: Instant, all: bool) -> Vec<String> {
        let mut lines = Vec::new();
        self.0.retain(|_, recent| {
            if !all && now < recent.since + LOG_AGAIN {
                return true;
            }
            let Some(example) = recent.example.take() else { return recent.count > 0 };
            lines.push(example.finish(Some(recent.count)));
            (recent.since, recent.count) = (now, 0);
            true
        });
        lines
    }
}
