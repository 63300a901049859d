//! Which promises a finished run has broken (pure).

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use bytes::Bytes;

use crate::ledger::{self, Ledger, ReadFault};

/// Topic and partition.
pub(crate) type Place = (String, i32);

/// Everything that is known after a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct History {
    /// In the order in which they were enqueued.
    pub(crate) records: Vec<Sent>,
    /// Offsets and record ids of each log.
    pub(crate) logs: BTreeMap<Place, Vec<(i64, u64)>>,
    /// Every batch that reached a broker.
    pub(crate) wire: Vec<Travelled>,
    /// Brokers that were sent something while they had asked for a pause.
    pub(crate) impatient: Vec<i32>,
    /// Partitions that took nothing although the cluster was well again.
    pub(crate) wedged: Vec<Place>,
    pub(crate) promise: Promise,
    pub(crate) leftovers: Leftovers,
    pub(crate) ledger: Ledger,
}

/// What the client promises about copies of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Promise {
    #[default]
    AtLeastOnce,
    /// Every batch carries a producer id, and no broker has forgotten one.
    ExactlyOnce,
    /// Every batch carries a producer id, but brokers have forgotten some.
    Identified,
}

/// One record, and what its sender heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) id: u64,
    pub(crate) topic: String,
    pub(crate) heard: Heard,
    /// Both in ms since the start.
    pub(crate) deadline_ms: u128,
    pub(crate) settled_ms: u128,
    /// Whether its place in `records` is its place in the order of its partition.
    pub(crate) is_ordered: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    Written {
        partition: i32,
        offset: Option<i64>,
    },
    NotWritten(String),
    Unknown(String),
    /// Nobody listened.
    Ignored,
    /// It should have been heard.
    Nothing,
}

/// A batch as it was on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Travelled {
    /// When a broker executed it, in ms since the start.
    pub(crate) at_ms: u128,
    pub(crate) broker: i32,
    pub(crate) place: Place,
    pub(crate) producer: i64,
    pub(crate) epoch: i16,
    pub(crate) sequence: i32,
    pub(crate) bytes: Bytes,
    pub(crate) ids: Vec<u64>,
}

/// What should be zero after the client was closed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Leftovers {
    pub(crate) buffered_bytes: u64,
    pub(crate) connections: u64,
}

/// A settled record may be this late.
pub(crate) const GRACE_MS: u128 = 100;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Violation {
    /// `Written`, and not in the log at that offset.
    Lost {
        id: u64,
        partition: i32,
        offset: i64,
    },
    /// `NotWritten`, and in the log.
    Denied {
        id: u64,
        reason: String,
    },
    /// In the log more than once.
    Copied {
        id: u64,
        copies: usize,
    },
    /// Acknowledged behind a record that was enqueued later.
    Overtaken {
        id: u64,
        by: u64,
    },
    Late {
        id: u64,
        by_ms: u128,
    },
    NeverSettled {
        id: u64,
    },
    /// In a log of another topic, or never sent.
    Stray {
        id: u64,
    },
    /// One sequence, two records.
    SequenceReused {
        place: Place,
        sequence: i32,
        ids: (u64, u64),
    },
    /// One first sequence, two contents.
    BatchChanged {
        place: Place,
        sequence: i32,
    },
    /// A batch without a producer id where there must be one.
    Anonymous {
        place: Place,
    },
    /// A request was sent within the throttle time of its broker.
    Impatient {
        broker: i32,
    },
    /// A partition takes no records.
    Wedged {
        place: Place,
    },
    /// A reader was told what is not so, or not told what is.
    Misread(ReadFault),
    Leftover {
        buffered_bytes: u64,
        connections: u64,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Misread(fault) => fault.fmt(f),
            other => write!(f, "{other:?}"),
        }
    }
}

/// Every promise that was broken.
pub(crate) fn check(history: &History) -> Vec<Violation> {
    let mut found = Vec::new();
    check_outcomes(history, &mut found);
    check_order(history, &mut found);
    check_strays(history, &mut found);
    if history.promise != Promise::AtLeastOnce {
        check_identities(history, &mut found);
    }
    found.extend(history.impatient.iter().map(|broker| Violation::Impatient { broker: *broker }));
    found.extend(history.wedged.iter().map(|place| Violation::Wedged { place: place.clone() }));
    found.extend(ledger::check(&history.ledger).into_iter().map(Violation::Misread));
    let Leftovers { buffered_bytes, connections } = history.leftovers;
    if buffered_bytes > 0 || connections > 0 {
        found.push(Violation::Leftover { buffered_bytes, connections });
    }
    found
}

fn check_outcomes(history: &History, found: &mut Vec<Violation>) {
    let mut copies: HashMap<u64, usize> = HashMap::new();
    for (_, id) in history.logs.values().flatten() {
        *copies.entry(*id).or_default() += 1;
    }
    for Sent { id, topic, heard, deadline_ms, settled_ms, .. } in &history.records {
        let (id, copies) = (*id, copies.get(id).copied().unwrap_or(0));
        match heard {
            Heard::Written { partition, offset: Some(offset) } => {
                let log = history.logs.get(&(topic.clone(), *partition));
                if !log.is_some_and(|log| log.contains(&(*offset, id))) {
                    found.push(Violation::Lost { id, partition: *partition, offset: *offset });
                }
            }
            Heard::NotWritten(reason) if copies > 0 => {
                found.push(Violation::Denied { id, reason: reason.clone() });
            }
            Heard::Nothing => found.push(Violation::NeverSettled { id }),
            _ => {}
        }
        if history.promise == Promise::ExactlyOnce && copies > 1 {
            found.push(Violation::Copied { id, copies });
        }
        if *settled_ms > deadline_ms + GRACE_MS {
            found.push(Violation::Late { id, by_ms: settled_ms - deadline_ms });
        }
    }
}

fn check_order(history: &History, found: &mut Vec<Violation>) {
    let mut last: HashMap<(&str, i32), (i64, u64)> = HashMap::new();
    for Sent { id, topic, heard, .. } in history.records.iter().filter(|sent| sent.is_ordered) {
        let Heard::Written { partition, offset: Some(offset) } = heard else { continue };
        let before = last.insert((topic, *partition), (*offset, *id));
        if let Some((earlier, by)) = before.filter(|(earlier, _)| earlier >= offset) {
            found.push(Violation::Overtaken { id: by, by: *id });
            last.insert((topic, *partition), (earlier, by));
        }
    }
}

fn check_strays(history: &History, found: &mut Vec<Violation>) {
    let topics: HashMap<u64, &str> =
        history.records.iter().map(|sent| (sent.id, sent.topic.as_str())).collect();
    for ((topic, _), log) in &history.logs {
        let stray = |id: &u64| topics.get(id) != Some(&topic.as_str());
        found.extend(
            log.iter().filter(|(_, id)| stray(id)).map(|(_, id)| Violation::Stray { id: *id }),
        );
    }
}

fn check_identities(history: &History, found: &mut Vec<Violation>) {
    let mut batches: HashMap<_, &Bytes> = HashMap::new();
    let mut records: HashMap<_, u64> = HashMap::new();
    for Travelled { place, producer, epoch, sequence, bytes, ids, .. } in &history.wire {
        if *producer < 0 || *epoch < 0 || *sequence < 0 {
            found.push(Violation::Anonymous { place: place.clone() });
            continue;
        }
        let identity = (place, producer, epoch);
        if batches.insert((identity, *sequence), bytes).is_some_and(|before| before != bytes) {
            found.push(Violation::BatchChanged { place: place.clone(), sequence: *sequence });
        }
        for (id, delta) in ids.iter().zip(0i64..) {
            let sequence = i32::try_from((i64::from(*sequence) + delta) & i64::from(i32::MAX));
            let sequence = sequence.unwrap_or(-1);
            let before = records.insert((identity, sequence), *id);
            if let Some(before) = before.filter(|before| before != id) {
                let ids = (before, *id);
                found.push(Violation::SequenceReused { place: place.clone(), sequence, ids });
            }
        }
    }
}

#[cfg(test)]
mod tests;
