//! The memory of all readers together: what is held of it, and what is done when it is spent.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use tokio::sync::Notify;

/// Counts bytes. What exists already is held whatever is in use; who wants more asks first.
#[derive(Debug)]
pub(crate) struct Memory {
    used: AtomicUsize,
    most: usize,
    freed: Notify,
}

/// Bytes in use, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    memory: Arc<Memory>,
    bytes: usize,
}

impl Memory {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), most, freed: Notify::new() })
    }

    /// For bytes that exist: they count, also beyond the bound.
    pub(crate) fn hold(self: &Arc<Self>, bytes: usize) -> Held {
        self.used.fetch_add(bytes, Relaxed);
        Held { memory: Arc::clone(self), bytes }
    }

    /// For bytes that are wanted; none when they would go beyond the bound.
    pub(crate) fn try_hold(self: &Arc<Self>, bytes: usize) -> Option<Held> {
        let more = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.most);
        self.used.fetch_update(Relaxed, Relaxed, more).ok()?;
        Some(Held { memory: Arc::clone(self), bytes })
    }

    /// Waits for room, after `shrink` has freed what it can.
    pub(crate) async fn wait_for(self: &Arc<Self>, bytes: usize, shrink: impl Fn()) -> Held {
        loop {
            let freed = self.freed.notified();
            if let Some(held) = self.try_hold(bytes) {
                return held;
            }
            shrink();
            match self.try_hold(bytes) {
                Some(held) => return held,
                None => freed.await,
            }
        }
    }

    /// What one of many may take: each leaves others the most of what there is, however many come.
    pub(crate) fn share(&self) -> usize {
        self.most.saturating_sub(self.used.load(Relaxed)) / SHARES
    }

    pub(crate) fn is_spent(&self) -> bool {
        self.used.load(Relaxed) >= self.most
    }

    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.used.load(Relaxed)
    }
}

impl Held {
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn grow(&mut self, bytes: usize) {
        self.memory.used.fetch_add(bytes, Relaxed);
        self.bytes += bytes;
    }

    /// So much of it, or all that there is.
    pub(crate) fn split(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self { memory: Arc::clone(&self.memory), bytes }
    }

    /// Bytes that count until the last of their slices is dropped.
    pub(crate) fn keep(self, bytes: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        struct Kept<T>(T, #[expect(dead_code, reason = "dropped with the bytes")] Held);
        impl<T: AsRef<[u8]>> AsRef<[u8]> for Kept<T> {
            fn as_ref(&self) -> &[u8] {
                self.0.as_ref()
            }
        }
        Bytes::from_owner(Kept(bytes, self))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.memory.used.fetch_sub(self.bytes, Relaxed);
        self.memory.freed.notify_waiters();
    }
}

/// Of what is left: of 160 MiB nobody else uses, one page may have its 8 MiB.
const SHARES: usize = 16;

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn what_is_wanted_waits_for_room_and_what_exists_counts() {
        let memory = Memory::new(10);
        let bytes = memory.hold(8).keep(vec![0; 8]);
        assert!(memory.try_hold(3).is_none());
        assert_eq!(memory.used(), 8);
        let mut waiting = Box::pin(memory.wait_for(3, || {}));
        assert!(waiting.as_mut().now_or_never().is_none());
        let slice = bytes.slice(2..3);
        drop(bytes);
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(slice);
        let held = waiting.await;
        assert_eq!(memory.used(), 3);
        let beyond = memory.hold(20);
        assert!(memory.is_spent());
        drop((held, beyond));
        assert_eq!(memory.used(), 0);
    }

    #[tokio::test]
    async fn who_waits_has_the_caches_shrink_first() {
        let memory = Memory::new(10);
        let cached = std::sync::Mutex::new(Some(memory.hold(10)));
        let held = memory.wait_for(5, || drop(cached.lock().unwrap().take())).await;
        assert_eq!((memory.used(), held.bytes), (5, 5));
    }
}
