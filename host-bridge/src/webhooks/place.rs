//! A partition that this bridge sends from, as others than its task see it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::halt::Halt;
use super::position::Note;
use crate::consume::hub::Topic;

/// A partition.
pub(super) struct Place {
    pub(super) topic: Arc<Topic>,
    pub(super) partition: i32,
    /// Why nothing is sent.
    halt: watch::Sender<Option<Halt>>,
    progress: Mutex<Progress>,
}

/// How far a partition is.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    /// Known once Kafka has said where to begin.
    pub(super) position: Option<i64>,
    /// What is committed with it, but for the halt.
    pub(super) note: Note,
    /// Grows with each change, and how large it was when all was committed.
    version: u64,
    committed: u64,
    /// Of the request that failed last, if none was delivered since.
    pub(super) attempts: u32,
    pub(super) last_error: Option<String>,
}

/// A position that Kafka does not have yet.
pub(super) struct NewOffset {
    pub(super) position: i64,
    pub(super) note: String,
    version: u64,
}

impl Place {
    pub(super) fn new(topic: Arc<Topic>, partition: i32) -> Self {
        let (halt, progress) = (watch::Sender::new(None), Mutex::default());
        Self { topic, partition, halt, progress }
    }

    pub(super) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn halts(&self) -> watch::Receiver<Option<Halt>> {
        self.halt.subscribe()
    }

    /// Halts it, or has it go on; to be committed.
    pub(super) fn set_halt(&self, halt: Option<Halt>) {
        self.halt.send_replace(halt);
        self.renew();
    }

    /// All of it is to be committed, again if it was.
    pub(super) fn renew(&self) {
        self.progress().version += 1;
    }

    /// All is settled up to a position, and what the note says. `is_new` where that is to be committed.
    pub(super) fn set(&self, position: i64, note: Note, is_new: bool) {
        let mut progress = self.progress();
        (progress.position, progress.note) = (Some(position), note);
        progress.version += u64::from(is_new);
    }

    pub(super) fn is_halted(&self) -> bool {
        self.halt.borrow().is_some()
    }

    /// What is to be committed now, if anything is.
    pub(super) fn new_offset(&self) -> Option<NewOffset> {
        let progress = self.progress();
        let position = progress.position.filter(|_| progress.version != progress.committed)?;
        let halt = self.halt.borrow().clone();
        let note = Note { halt, ..progress.note.clone() }.encode();
        Some(NewOffset { position, note, version: progress.version })
    }

    /// Whether Kafka has all of it.
    pub(super) fn is_recorded(&self) -> bool {
        let progress = self.progress();
        progress.position.is_some() && progress.version == progress.committed
    }

    /// Kafka has it.
    pub(super) fn is_committed(&self, offset: &NewOffset) {
        self.progress().committed = offset.version;
    }

    /// Records between the position and the log end, where these are known.
    pub(super) fn lag(&self) -> Option<i64> {
        let end = self.topic.log.lock().log_end(self.partition)?;
        Some((end - self.progress().position?).max(0))
    }

    pub(super) fn json(&self) -> Value {
        let progress = self.progress().clone();
        let halt = self.halt.borrow().clone();
        json!({
            "topic": &*self.topic.log.name,
            "partition": self.partition,
            "position": progress.position,
            "lag": self.lag(),
            "state": halt.as_ref().map_or("running", |halt| halt.why.name()),
            "reason": halt.map(|halt| halt.reason),
            "attempts": progress.attempts,
            "last_error": progress.last_error,
        })
    }
}
