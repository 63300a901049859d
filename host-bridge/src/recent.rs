//! Batches that were taken lately, so that a batch which is sent again gets its first answer.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

/// A batch: the VM that sent it, its number there, and its producer's profile.
pub(crate) type BatchId = ([u8; 16], u64, [u8; 32]);

/// Answers by batch, oldest first.
#[derive(Clone, Default)]
pub(crate) struct Recent(Arc<Mutex<Answers>>);

#[derive(Default)]
struct Answers {
    by_id: HashMap<BatchId, watch::Receiver<Option<Bytes>>>,
    /// What is answered, oldest first, with the bytes of each answer.
    answered: VecDeque<(Instant, BatchId, usize)>,
    answered_bytes: usize,
}

/// What is known of a batch that arrives.
pub(crate) enum Seen {
    /// It is new: whoever takes it answers here. Dropped without an answer, it is new again.
    New(Taken),
    /// It was taken before: the answer is there, or comes.
    Before(watch::Receiver<Option<Bytes>>),
}

/// A batch that was taken and must be answered.
pub(crate) struct Taken {
    id: BatchId,
    answer: watch::Sender<Option<Bytes>>,
    recent: Recent,
}

impl Recent {
    /// Looks a batch up, and takes it if it is new.
    pub(crate) fn take(&self, id: BatchId) -> Seen {
        let mut answers = self.lock();
        if let Some(answer) = answers.by_id.get(&id) {
            return Seen::Before(answer.clone());
        }
        let (answer, receiver) = watch::channel(None);
        answers.by_id.insert(id, receiver);
        Seen::New(Taken { id, answer, recent: self.clone() })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Answers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answers {
    fn keep(&mut self, now: Instant, id: BatchId, bytes: usize) {
        self.answered.push_back((now, id, bytes));
        self.answered_bytes += bytes;
        while let Some((since, id, bytes)) = self.answered.front().copied() {
            let spare = now - since > KEPT_FOR
                || self.answered.len() > KEPT_MAX
                || self.answered_bytes > KEPT_BYTES;
            if !spare {
                return;
            }
            self.answered.pop_front();
            self.answered_bytes -= bytes;
            self.by_id.remove(&id);
        }
    }
}

impl Taken {
    /// Answers the batch now, and if `kept` whenever it is sent again. An answer that nothing was
    /// written needs no memory: the batch may be produced once more.
    pub(crate) fn answer(self, outcomes: Bytes, kept: bool) {
        let bytes = outcomes.len() + OVERHEAD_BYTES;
        self.answer.send_replace(Some(outcomes));
        let mut answers = self.recent.lock();
        match kept {
            true => answers.keep(Instant::now(), self.id, bytes),
            false => {
                answers.by_id.remove(&self.id);
            }
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if self.answer.borrow().is_none() {
            self.recent.lock().by_id.remove(&self.id);
        }
    }
}

/// Longer than a filter sends a batch again in acked mode at its default deadline.
const KEPT_FOR: Duration = Duration::from_secs(60);
/// Most answers.
const KEPT_MAX: usize = 65_536;
/// Most bytes of answers: half a minute of the highest load.
const KEPT_BYTES: usize = 32 * 1024 * 1024;
/// What an answer takes besides its own bytes.
const OVERHEAD_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    const ID: BatchId = ([1; 16], 7, [0; 32]);

    #[tokio::test(start_paused = true)]
    async fn a_batch_is_new_once_and_then_answered_from_memory() {
        let recent = Recent::default();
        let Seen::New(taken) = recent.take(ID) else { panic!("new") };
        let Seen::Before(mut early) = recent.take(ID) else { panic!("taken") };
        assert!(early.borrow().is_none());
        taken.answer(Bytes::from_static(b"outcomes"), true);
        early.changed().await.unwrap();
        let Seen::Before(late) = recent.take(ID) else { panic!("answered") };
        assert_eq!(late.borrow().as_deref(), Some(&b"outcomes"[..]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_that_was_given_up_is_new_again() {
        let recent = Recent::default();
        let Seen::New(taken) = recent.take(ID) else { panic!("new") };
        drop(taken);
        assert!(matches!(recent.take(ID), Seen::New(_)));
        assert!(matches!(recent.take(([1; 16], 7, [1; 32])), Seen::New(_)), "another profile's");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nothing_was_written_is_not_kept() {
        let recent = Recent::default();
        let Seen::New(taken) = recent.take(ID) else { panic!("new") };
        let Seen::Before(waiting) = recent.take(ID) else { panic!("taken") };
        taken.answer(Bytes::from_static(b"no"), false);
        assert_eq!(waiting.borrow().as_deref(), Some(&b"no"[..]), "who waits is answered");
        assert!(matches!(recent.take(ID), Seen::New(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn answers_are_bounded_in_time_and_bytes_whatever_is_under_way() {
        let recent = Recent::default();
        let Seen::New(_under_way) = recent.take(([2; 16], 0, [0; 32])) else { panic!("new") };
        let answer = |sequence, bytes| {
            let Seen::New(taken) = recent.take(([1; 16], sequence, [0; 32])) else { panic!("new") };
            taken.answer(Bytes::from(vec![0; bytes]), true);
            recent.lock().answered.len()
        };
        assert_eq!((answer(1, 0), answer(2, KEPT_BYTES / 2), answer(3, KEPT_BYTES / 2)), (1, 2, 1));
        tokio::time::advance(2 * KEPT_FOR).await;
        assert_eq!(answer(4, 0), 1);
        assert!(matches!(recent.take(([2; 16], 0, [0; 32])), Seen::Before(_)));
    }
}
