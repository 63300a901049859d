//! The order of things on one connection: what is to be written, who waits, and until when (pure).

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::time::Instant;

use super::request::{Lost, LostReason, Outgoing, Waiter};
use crate::calls::CORRELATION_BYTES;
use crate::limits::{QUEUED_REQUESTS, THROTTLE};
use crate::stats::Counters;

/// The state of one connection, without its socket.
pub(super) struct Wire {
    unsent: VecDeque<Outgoing>,
    /// Requests whose last byte was written, in the order in which answers must come.
    awaiting: VecDeque<Awaiting>,
    /// Whether some of the front of `unsent` is written.
    is_begun: bool,
    /// So many requests of `unsent` may be written; `None` is all.
    gate: Option<usize>,
    /// When the request at the front of `unsent` must have been written.
    write_by: Option<Instant>,
    /// The broker asked for silence until then (KIP-219).
    held_until: Option<Instant>,
    last_used: Instant,
    idle: Duration,
    stats: Arc<Counters>,
}

struct Awaiting {
    correlation: i32,
    patience: Duration,
    answer_by: Instant,
    waiter: Box<dyn Waiter>,
}

impl Wire {
    pub(super) fn new(idle: Duration, now: Instant, stats: Arc<Counters>) -> Self {
        Self {
            unsent: VecDeque::new(),
            awaiting: VecDeque::new(),
            is_begun: false,
            gate: None,
            write_by: None,
            held_until: None,
            last_used: now,
            idle,
            stats,
        }
    }

    /// Whether one more request may be taken from the queue.
    pub(super) fn has_room(&self) -> bool {
        self.unsent.len() + self.awaiting.len() < QUEUED_REQUESTS
    }

    /// Whether nothing is to be written and nobody waits.
    pub(super) fn is_quiet(&self) -> bool {
        self.unsent.is_empty() && self.awaiting.is_empty()
    }

    pub(super) fn push(&mut self, outgoing: Outgoing) {
        self.unsent.push_back(outgoing);
    }

    /// What to write now: as many requests as fit into `slices`, in one write.
    pub(super) fn poll_write<'a>(&'a self, now: Instant, slices: &mut [IoSlice<'a>]) -> usize {
        if self.held_until.is_some_and(|until| now < until) {
            return 0;
        }
        let mut used = 0;
        for outgoing in self.unsent.iter().take(self.gate.unwrap_or(usize::MAX)) {
            let Some(free) = slices.get_mut(used..).filter(|free| !free.is_empty()) else { break };
            used += outgoing.frame.fill(free);
        }
        used
    }

    /// The socket took `written` bytes.
    pub(super) fn on_written(&mut self, mut written: usize, now: Instant) {
        self.last_used = now;
        self.write_by = None;
        while let Some(front) = self.unsent.front_mut() {
            self.is_begun |= written > 0;
            written = front.frame.advance(written);
            if !front.frame.is_written() {
                break;
            }
            self.is_begun = false;
            self.gate = self.gate.map(|requests| requests.saturating_sub(1));
            let Some(sent) = self.unsent.pop_front() else { break };
            let Outgoing { correlation, patience, waiter, .. } = sent;
            if let Some(waiter) = waiter.handed_over() {
                let answer_by = now + patience;
                self.awaiting.push_back(Awaiting { correlation, patience, answer_by, waiter });
            }
        }
    }

    /// A whole frame arrived.
    pub(super) fn on_frame(&mut self, frame: Bytes, now: Instant) -> Result<(), LostReason> {
        self.last_used = now;
        let awaiting = self.awaiting.pop_front().ok_or(LostReason::Unasked)?;
        let got = frame.get(..CORRELATION_BYTES).map_or(-1, |mut id| id.get_i32());
        if got != awaiting.correlation {
            let fault = LostReason::OutOfStep { got, expected: awaiting.correlation };
            awaiting.waiter.lost(Lost { fault: fault.clone(), handed_over: true });
            return Err(fault);
        }
        let pause = awaiting.waiter.answered(frame)?;
        self.hold(pause, now);
        Ok(())
    }

    /// From now on nothing is written but the rest of what is begun.
    pub(super) fn shut(&mut self) {
        self.gate = Some(usize::from(self.is_begun));
    }

    /// Whether all that was written while it is shut is answered.
    pub(super) fn is_drained(&self) -> bool {
        self.gate == Some(0) && self.awaiting.is_empty()
    }

    /// Writes one request while it is shut and drained.
    pub(super) fn push_through(&mut self, outgoing: Outgoing) {
        self.unsent.push_front(outgoing);
        self.gate = Some(1);
        self.write_by = None;
    }

    pub(super) fn open(&mut self) {
        self.gate = None;
    }

    /// Tells all whose requests are not begun.
    pub(super) fn fail_unsent(&mut self, fault: &LostReason) {
        for outgoing in self.unsent.drain(usize::from(self.is_begun)..) {
            outgoing.waiter.lost(Lost { fault: fault.clone(), handed_over: false });
        }
    }

    /// The broker asks to be left alone.
    pub(super) fn hold(&mut self, pause: Duration, now: Instant) {
        if !pause.is_zero() {
            self.stats.throttled_answers.add(1);
            self.held_until = self.held_until.max(Some(now + pause.min(THROTTLE)));
        }
    }

    /// When to call [`Wire::on_timeout`] at the latest.
    pub(super) fn poll_timeout(&mut self, now: Instant) -> Instant {
        self.held_until = self.held_until.filter(|until| now < *until);
        if self.held_until.is_some() || self.gate == Some(0) {
            self.write_by = None;
        } else if self.write_by.is_none() {
            self.write_by = self.unsent.front().map(|front| now + front.patience);
        }
        let answer_by = self.awaiting.iter().map(|awaiting| awaiting.answer_by).min();
        let idle = self.is_quiet().then(|| self.last_used + self.idle);
        [self.held_until, self.write_by, answer_by, idle]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(now + self.idle)
    }

    /// Time has passed. A missed deadline ends the connection: answers come in order, so nothing
    /// behind the missing one can be trusted to be timely.
    pub(super) fn on_timeout(&mut self, now: Instant) -> Result<(), LostReason> {
        if let Some(late) = self.awaiting.iter().find(|awaiting| awaiting.answer_by <= now) {
            return Err(LostReason::Silent(late.patience));
        }
        if self.write_by.is_some_and(|by| by <= now) {
            let patience = self.unsent.front().map_or(Duration::ZERO, |front| front.patience);
            return Err(LostReason::Silent(patience));
        }
        if self.is_quiet() && self.last_used + self.idle <= now {
            return Err(LostReason::Idle);
        }
        Ok(())
    }

    /// Tells everyone, and for each whether the request had been handed over.
    pub(super) fn fail(&mut self, fault: &LostReason) {
        for awaiting in self.awaiting.drain(..) {
            awaiting.waiter.lost(Lost { fault: fault.clone(), handed_over: true });
        }
        for outgoing in self.unsent.drain(..) {
            outgoing.waiter.lost(Lost { fault: fault.clone(), handed_over: false });
        }
    }
}
