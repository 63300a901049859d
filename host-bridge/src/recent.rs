//! Batches that were taken, so that one which is sent again gets its first answer.
//!
//! A batch is known by its VM and its number there, and what guards its answer is a digest of its
//! records. It is remembered as long as it may be sent again: until its VM says that it is settled,
//! else until no sender's patience can last any longer. Nothing is forgotten for want of room; what
//! is new is refused then.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use kafka_upstream_core::outcome::{Code, Outcome, Reason};
use kafka_upstream_core::wire::{self, Batch, Delivery, Head};
use tokio::sync::oneshot;
use tokio::time::Instant;
use twox_hash::XxHash3_128;

use crate::limits::{
    ANSWER_BYTES, ANSWERS_BYTES, ANSWERS_SWEEP, MEMORY_ANSWER_KEPT, OUTCOME_BYTES, RESEND_MARGIN,
};

/// Answers by VM and number.
#[derive(Clone, Default)]
pub(crate) struct Recent(Arc<Mutex<Senders>>);

/// What is known of a batch that arrives.
pub(crate) enum Seen {
    /// It is new: whoever takes it answers here.
    New(Accepted),
    /// It was taken before, and its answer comes. Where the sender ends without one, the batch is
    /// to be looked up again.
    UnderWay(oneshot::Receiver<Bytes>),
    /// It was answered before.
    Answered(Bytes),
    /// Its number was given to other records before.
    Differs,
    /// Its VM has said that it is settled: a copy that was long on its way.
    Settled,
    /// There is no room to remember it.
    Full,
}

/// A batch that was taken and must be answered.
pub(crate) struct Accepted {
    vm: [u8; 16],
    sequence: u64,
    records: usize,
    progress: Progress,
    recent: Recent,
}

#[derive(PartialEq)]
enum Progress {
    /// Dropped now, nothing of it can be written: it is new again.
    Accepted,
    /// Dropped now, nobody knows what became of it.
    Enqueued,
    Answered,
}

#[derive(Default)]
struct Senders {
    by_vm: BTreeMap<[u8; 16], Sender>,
    bytes: usize,
    swept: Option<Instant>,
}

struct Sender {
    settled_below: u64,
    batches: BTreeMap<u64, Entry>,
    heard: Instant,
}

struct Entry {
    digest: u128,
    kept_for: Duration,
    bytes: usize,
    state: State,
}

enum State {
    /// Copies wait for the answer.
    UnderWay(Vec<oneshot::Sender<Bytes>>),
    Answered {
        outcomes: Bytes,
        until: Instant,
    },
}

impl Recent {
    /// Looks a batch up, and takes it if it is new.
    pub(crate) fn take(&self, batch: &Batch<'_>) -> Seen {
        let Head { vm, sequence, .. } = batch.head;
        let digest = digest(batch);
        let (now, mut senders) = (Instant::now(), self.lock());
        senders.sweep(now);
        if let Some(seen) = senders.look_up(&batch.head, digest, now) {
            return seen;
        }
        let records = batch.records.len();
        let bytes = ANSWER_BYTES + records * OUTCOME_BYTES;
        let sender_bytes = if senders.by_vm.contains_key(&vm) { 0 } else { ANSWER_BYTES };
        if senders.bytes + bytes + sender_bytes > ANSWERS_BYTES {
            return Seen::Full;
        }
        senders.bytes += bytes + sender_bytes;
        let sender = senders.by_vm.entry(vm).or_insert_with(|| Sender {
            settled_below: 0,
            batches: BTreeMap::new(),
            heard: now,
        });
        let state = State::UnderWay(Vec::new());
        let entry = Entry { digest, kept_for: kept_for(&batch.head), bytes, state };
        sender.batches.insert(sequence, entry);
        let recent = self.clone();
        Seen::New(Accepted { vm, sequence, records, progress: Progress::Accepted, recent })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Senders> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Senders {
    /// What is known of a batch, after its VM has said what is settled.
    fn look_up(&mut self, head: &Head, digest: u128, now: Instant) -> Option<Seen> {
        let sender = self.by_vm.get_mut(&head.vm)?;
        sender.heard = now;
        let settled = head.settled_below.min(head.sequence).max(sender.settled_below);
        sender.settled_below = settled;
        // What is under way among them is written all the same; nobody asks for its answer.
        while let Some(first) = sender.batches.first_entry()
            && *first.key() < settled
        {
            self.bytes -= first.remove().bytes;
        }
        if head.sequence < settled {
            return Some(Seen::Settled);
        }
        let entry = sender.batches.get_mut(&head.sequence)?;
        if entry.digest != digest {
            return Some(Seen::Differs);
        }
        Some(match &mut entry.state {
            State::UnderWay(copies) => {
                let (copy, answer) = oneshot::channel();
                copies.retain(|copy| !copy.is_closed());
                copies.push(copy);
                Seen::UnderWay(answer)
            }
            State::Answered { outcomes, until } => {
                *until = (*until).max(now + kept_for(head));
                Seen::Answered(outcomes.clone())
            }
        })
    }

    /// Forgets, now and then, what nobody can ask for any more.
    fn sweep(&mut self, now: Instant) {
        if self.swept.is_some_and(|swept| now < swept + ANSWERS_SWEEP) {
            return;
        }
        self.swept = Some(now);
        let mut freed = 0;
        self.by_vm.retain(|_, sender| {
            sender.batches.retain(|_, entry| {
                let is_kept = match &entry.state {
                    State::UnderWay(_) => true,
                    State::Answered { until, .. } => now < *until,
                };
                freed += if is_kept { 0 } else { entry.bytes };
                is_kept
            });
            let is_kept = !sender.batches.is_empty() || now < sender.heard + MEMORY_ANSWER_KEPT;
            freed += if is_kept { 0 } else { ANSWER_BYTES };
            is_kept
        });
        self.bytes -= freed;
    }

    /// Keeps the answer to a batch, and returns who waits for it.
    fn keep(&mut self, vm: &[u8; 16], sequence: u64, outcomes: Bytes) -> Option<State> {
        let sender = self.by_vm.get_mut(vm)?;
        let entry = sender.batches.get_mut(&sequence)?;
        let bytes = ANSWER_BYTES + outcomes.len();
        self.bytes = self.bytes + bytes - entry.bytes;
        entry.bytes = bytes;
        let until = Instant::now() + entry.kept_for;
        Some(std::mem::replace(&mut entry.state, State::Answered { outcomes, until }))
    }

    fn forget(&mut self, vm: &[u8; 16], sequence: u64) {
        let sender = self.by_vm.get_mut(vm);
        let entry = sender.and_then(|sender| sender.batches.remove(&sequence));
        self.bytes -= entry.map_or(0, |entry| entry.bytes);
    }
}

impl Accepted {
    /// From here on the records may be written.
    pub(crate) fn enqueued(&mut self) {
        self.progress = Progress::Enqueued;
    }

    /// Answers the batch now and whenever it is sent again: also that nothing was written, because
    /// a copy that was sent earlier may yet arrive.
    pub(crate) fn answer(mut self, outcomes: &[Outcome]) -> Bytes {
        self.conclude(outcomes)
    }

    fn conclude(&mut self, outcomes: &[Outcome]) -> Bytes {
        self.progress = Progress::Answered;
        let answer = encode(outcomes);
        let kept = match answer.len() > self.records * OUTCOME_BYTES {
            true => encode(&outcomes.iter().map(without_detail).collect::<Vec<_>>()),
            false => answer.clone(),
        };
        let before = self.recent.lock().keep(&self.vm, self.sequence, kept);
        if let Some(State::UnderWay(copies)) = before {
            for copy in copies {
                // Nobody waits any more where it fails.
                let _ = copy.send(answer.clone());
            }
        }
        answer
    }
}

impl Drop for Accepted {
    fn drop(&mut self) {
        match self.progress {
            Progress::Answered => {}
            Progress::Accepted => self.recent.lock().forget(&self.vm, self.sequence),
            Progress::Enqueued => {
                tracing::error!(records = self.records, "batch_lost_track_of");
                let lost = Reason::new(Code::BadReply, "the bridge lost track of it");
                self.conclude(&vec![Outcome::Unknown(lost); self.records]);
            }
        }
    }
}

/// Enough against accidents, at some 10 GB/s; whoever may send batches need not forge any.
fn digest(batch: &Batch<'_>) -> u128 {
    let (first, _) = batch.head.profile.split_first_chunk().unwrap_or((&[0; 16], &[]));
    XxHash3_128::oneshot(batch.encoded) ^ u128::from_be_bytes(*first)
}

/// How long after its answer a batch may be sent again. In memory mode that is as long as the
/// filter finds no way to the bridge.
fn kept_for(head: &Head) -> Duration {
    match head.delivery {
        Delivery::Memory => MEMORY_ANSWER_KEPT,
        Delivery::Acked | Delivery::Queued => {
            Duration::from_millis(head.budget_ms.into()) + RESEND_MARGIN
        }
    }
}

/// Encoding cannot fail; if it did, the filter would read an empty reply as "may be written".
fn encode(outcomes: &[Outcome]) -> Bytes {
    wire::encode_outcomes(outcomes).unwrap_or_default().into_boxed_slice().into()
}

fn without_detail(outcome: &Outcome) -> Outcome {
    match outcome {
        Outcome::NotWritten(reason) => Outcome::NotWritten(Reason::new(reason.code, "")),
        Outcome::Unknown(reason) => Outcome::Unknown(Reason::new(reason.code, "")),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests;
