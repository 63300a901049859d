//! Batches that were taken lately, so that a batch which is sent again gets its first answer.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

/// A batch: the VM that sent it, and its number there.
pub(crate) type BatchId = ([u8; 16], u64);

/// Answers by batch, oldest first.
#[derive(Clone, Default)]
pub(crate) struct Recent(Arc<Mutex<Answers>>);

#[derive(Default)]
struct Answers {
    by_id: HashMap<BatchId, watch::Receiver<Option<Bytes>>>,
    oldest: VecDeque<(Instant, BatchId)>,
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
        let now = Instant::now();
        let mut answers = self.lock();
        if let Some(answer) = answers.by_id.get(&id) {
            return Seen::Before(answer.clone());
        }
        answers.forget(now);
        let (answer, receiver) = watch::channel(None);
        answers.by_id.insert(id, receiver);
        answers.oldest.push_back((now, id));
        Seen::New(Taken { id, answer, recent: self.clone() })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Answers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answers {
    /// Forgets what is too old or too much, but nothing that is still under way.
    fn forget(&mut self, now: Instant) {
        while let Some((taken, id)) = self.oldest.front().copied() {
            let under_way = self.by_id.get(&id).is_some_and(|answer| answer.borrow().is_none());
            let spare = now - taken > KEPT_FOR || self.oldest.len() >= KEPT_MAX;
            if under_way || !spare {
                return;
            }
            self.oldest.pop_front();
            self.by_id.remove(&id);
        }
    }
}

impl Taken {
    /// Answers the batch, now and whenever it is sent again.
    pub(crate) fn answer(self, outcomes: Bytes) {
        self.answer.send_replace(Some(outcomes));
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if self.answer.borrow().is_none() {
            let mut answers = self.recent.lock();
            answers.by_id.remove(&self.id);
            answers.oldest.retain(|(_, id)| *id != self.id);
        }
    }
}

/// Longer than a filter sends a batch again in acked mode at its default deadline.
const KEPT_FOR: Duration = Duration::from_secs(60);
/// Most answers: about 20 MiB at 200 outcomes each, and half a minute of the highest load.
const KEPT_MAX: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    const ID: BatchId = ([1; 16], 7);

    #[tokio::test(start_paused = true)]
    async fn a_batch_is_new_once_and_then_answered_from_memory() {
        let recent = Recent::default();
        let Seen::New(taken) = recent.take(ID) else { panic!("new") };
        let Seen::Before(mut early) = recent.take(ID) else { panic!("taken") };
        assert!(early.borrow().is_none());
        taken.answer(Bytes::from_static(b"outcomes"));
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
    }

    #[tokio::test(start_paused = true)]
    async fn old_answers_are_forgotten_but_not_what_is_under_way() {
        let recent = Recent::default();
        let Seen::New(taken) = recent.take(ID) else { panic!("new") };
        tokio::time::advance(2 * KEPT_FOR).await;
        let Seen::New(other) = recent.take(([1; 16], 8)) else { panic!("new") };
        assert!(matches!(recent.take(ID), Seen::Before(_)));
        taken.answer(Bytes::new());
        other.answer(Bytes::new());
        tokio::time::advance(2 * KEPT_FOR).await;
        let Seen::New(_third) = recent.take(([1; 16], 9)) else { panic!("new") };
        assert_eq!(recent.lock().by_id.len(), 1);
    }
}
