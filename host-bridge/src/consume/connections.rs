//! Readers at a time: of all feeds and of each one.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::reader::FeedReader;
use super::refusal::{Code, Refusal};

/// A reader's place, for as long as its reply goes on.
pub(crate) struct Connection {
    _all: OwnedSemaphorePermit,
    _of_feed: OwnedSemaphorePermit,
}

impl Connection {
    /// # Errors
    /// [`Code::Overloaded`]: there are as many as may be, or the readers' memory is in use.
    pub(crate) fn admit(all: &Arc<Semaphore>, reader: &FeedReader) -> Result<Self, Refusal> {
        if reader.hub.resources.is_spent() {
            let message = "the memory of all readers is in use: ask again later";
            return Err(Code::Overloaded.because(message));
        }
        let place = |of: &Arc<Semaphore>, whose| {
            Arc::clone(of).try_acquire_owned().map_err(|_| {
                let message = format!("there are as many readers of {whose} as may be at a time");
                Code::Overloaded.because(message)
            })
        };
        Ok(Self {
            _all: place(all, "all feeds")?,
            _of_feed: place(&reader.connections, "the feed")?,
        })
    }
}
