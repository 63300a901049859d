//! How a void range leads to a new identity: probes first, then the next epoch or id (pure).

use super::entry::{Entry, Standing};
use super::{Finding, Phase, Renewal, Sequence, Trouble, Turn};
use crate::calls::init_producer_id::Identity;
use crate::limits::LATE_APPEND;

impl Sequence {
    /// Refused for a reason of sequences or identity.
    pub(crate) fn on_trouble(&mut self, id: u64, trouble: Trouble, doubtful: bool) {
        let Some(place) = self.line.iter().position(|entry| entry.id == id) else { return };
        let Some(entry) = self.line.get_mut(place) else { return };
        entry.doubtful |= doubtful;
        let (standing, abandoned, serial) = (entry.standing, entry.abandoned, entry.serial);
        entry.standing = Standing::Waiting;
        if abandoned {
            return self.on_void(id, doubtful);
        }
        match (trouble, self.phase, standing) {
            (Trouble::OutOfOrder, _, Standing::Probing) => self.probe_refused(id),
            (_, _, Standing::Probing) => {
                self.leave(id, true);
                self.findings.push_back(Finding::Unprovable(id));
                self.reset(renewal(trouble));
            }
            (Trouble::WrongIdentity, ..) => self.reset(Renewal::ProducerId),
            (_, Phase::Resetting(_), _) => {}
            // Its predecessor is missing because it is still on its way.
            _ if place > 0 => self.recover(),
            (Trouble::OutOfOrder, Phase::Open | Phase::Recovering, _) => {
                self.gap = Some(serial);
                self.reset(Renewal::Epoch);
            }
            _ => self.reset(Renewal::Epoch),
        }
        self.advance();
    }

    /// A refusal proves something only when no earlier copy can be appended any more: a broker may
    /// still execute what it had read from a connection that is closed.
    pub(super) fn probe(&self) -> Option<Turn> {
        let entry = self.line.iter().find(|entry| entry.is_unresolved())?;
        Some(Turn::Again { id: entry.id, not_before: entry.cut_off.map(|at| at + LATE_APPEND) })
    }

    fn probe_refused(&mut self, id: u64) {
        let entry = self.line.iter_mut().find(|entry| entry.id == id);
        entry.into_iter().for_each(|entry| entry.standing = Standing::ProbeRefused);
    }

    pub(super) fn reset(&mut self, renewal: Renewal) {
        self.phase = match self.phase {
            Phase::Resetting(before) => Phase::Resetting(renewal.max(before)),
            _ => Phase::Resetting(renewal),
        };
    }

    /// Does what had to wait until nothing is in flight.
    pub(super) fn advance(&mut self) {
        if self.is_flying() {
            return;
        }
        self.rebinding = false;
        let Phase::Resetting(renewal) = self.phase else { return };
        if self.line.iter().any(Entry::is_unresolved) {
            return;
        }
        for entry in self.line.drain(..).filter(|entry| entry.doubtful) {
            // A broker never forgets the last batch of an epoch, but may forget those before it: a
            // gap before a batch proves its absence if nothing behind it can be in the log.
            self.findings.push_back(if entry.serial > self.last_logged {
                Finding::Absent(entry.id)
            } else {
                Finding::Unprovable(entry.id)
            });
        }
        // If anything from the gap on is in the log, the broker had only forgotten it.
        if self.gap.take().is_some_and(|serial| serial > self.last_logged) {
            self.findings.push_back(Finding::Loss);
        }
        let next = self.identity.and_then(|old| Some((old, old.epoch.checked_add(1)?)));
        match next {
            Some((old, epoch)) if renewal == Renewal::Epoch => {
                self.begin(Identity { epoch, ..old });
            }
            _ => self.phase = Phase::Resetting(Renewal::ProducerId),
        }
    }

    pub(super) fn begin(&mut self, identity: Identity) {
        if self.identity.is_some() {
            self.findings.push_back(Finding::Reset);
        }
        (self.identity, self.next, self.phase) = (Some(identity), 0, Phase::Fresh);
    }
}

fn renewal(trouble: Trouble) -> Renewal {
    match trouble {
        Trouble::WrongIdentity => Renewal::ProducerId,
        Trouble::OutOfOrder | Trouble::Forgotten => Renewal::Epoch,
    }
}
