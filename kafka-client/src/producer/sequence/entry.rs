//! One stamped batch that is not settled, and the words in which a partition speaks of it.

use tokio::time::Instant;

use crate::record_batch::Stamp;

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: u64,
    pub(super) serial: u64,
    pub(super) stamp: Stamp,
    pub(super) standing: Standing,
    /// An attempt may have been appended.
    pub(super) doubtful: bool,
    /// When the last connection that carried it without an answer was closed.
    pub(super) cut_off: Option<Instant>,
    /// Settled at its deadline; only its answer is still of interest.
    pub(super) abandoned: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Waiting,
    Flying,
    /// In flight under an identity that is about to be given up.
    Probing,
    /// The probe found a gap before it.
    ProbeRefused,
}

/// What may be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nothing, until an answer comes.
    Wait,
    /// This batch again, byte for byte, not before a time.
    Again { id: u64, not_before: Option<Instant> },
    /// A batch that has no stamp yet.
    New,
    /// Nothing, until there is a producer id.
    Identify,
}

/// A refusal that only the state can explain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// OUT_OF_ORDER_SEQUENCE_NUMBER.
    OutOfOrder,
    /// UNKNOWN_PRODUCER_ID.
    Forgotten,
    /// INVALID_PRODUCER_EPOCH and its relatives.
    WrongIdentity,
}

/// What the state machine found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finding {
    /// The batch was in doubt, and provably is not in the log.
    Absent(u64),
    /// Nobody can find out any more whether the batch is in the log. It left the line.
    Unprovable(u64),
    /// Acknowledged records are gone from the log.
    Loss,
    /// A new identity begins; batches without an answer are stamped anew.
    Reset,
}

impl Entry {
    pub(super) fn is_flying(&self) -> bool {
        matches!(self.standing, Standing::Flying | Standing::Probing)
    }

    pub(super) fn is_unresolved(&self) -> bool {
        self.doubtful && self.standing == Standing::Waiting
    }
}
