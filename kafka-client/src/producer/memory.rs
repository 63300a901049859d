//! The producer's memory: a first-come-first-served budget in bytes.

use std::sync::Arc;

use tokio::sync::{Semaphore, TryAcquireError};
use tokio::time::{Instant, timeout_at};

use crate::error::Reason;
use crate::stats::Counters;

/// `buffer.memory`, from reserve to settle.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    free: Arc<Semaphore>,
    total: usize,
    stats: Arc<Counters>,
}

/// Bytes reserved in the producer's memory; what is not used for records goes back on drop.
#[derive(Debug)]
pub struct Permit {
    memory: Memory,
    bytes: usize,
}

impl Memory {
    /// `total` fits into 32 bits, as `config` has checked.
    pub(crate) fn new(total: usize, stats: Arc<Counters>) -> Self {
        Self { free: Arc::new(Semaphore::new(total)), total, stats }
    }

    /// Waits, first come first served. Dropping the future takes nothing.
    pub(crate) async fn reserve(&self, bytes: usize, deadline: Instant) -> Result<Permit, Reason> {
        let wanted = self.countable(bytes)?;
        let waiting = timeout_at(deadline, self.free.acquire_many(wanted)).await;
        let taken = waiting.map_err(|_| Reason::BufferFull)?.map_err(|_| Reason::Closed)?;
        taken.forget();
        Ok(self.permit(bytes))
    }

    /// Takes what is free, and never overtakes anyone who waits.
    pub(crate) fn try_reserve(&self, bytes: usize) -> Result<Permit, Reason> {
        let wanted = self.countable(bytes)?;
        match self.free.try_acquire_many(wanted) {
            Ok(taken) => {
                taken.forget();
                Ok(self.permit(bytes))
            }
            Err(TryAcquireError::NoPermits) => Err(Reason::BufferFull),
            Err(TryAcquireError::Closed) => Err(Reason::Closed),
        }
    }

    /// Gives back what a settled batch held.
    pub(crate) fn release(&self, bytes: usize) {
        self.stats.buffered_bytes.subtract(bytes);
        self.free.add_permits(bytes);
    }

    /// Whether nobody holds any of it.
    pub(crate) fn is_free(&self) -> bool {
        self.free.available_permits() == self.total
    }

    /// Fails all waiters, and everyone to come, because the client is closed.
    pub(crate) fn close(&self) {
        self.free.close();
    }

    fn countable(&self, bytes: usize) -> Result<u32, Reason> {
        let fits = u32::try_from(bytes).ok().filter(|_| bytes <= self.total);
        fits.ok_or(Reason::TooLarge)
    }

    fn permit(&self, bytes: usize) -> Permit {
        self.stats.buffered_bytes.add(bytes);
        Permit { memory: self.clone(), bytes }
    }
}

impl Permit {
    /// Bytes still in it.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Moves `bytes` out of the permit, to be released by whoever takes them. What is missing is
    /// taken from the memory, if it is free.
    pub(crate) fn spend(&mut self, bytes: usize) -> Result<(), Reason> {
        if let Some(missing) = bytes.checked_sub(self.bytes).filter(|missing| *missing > 0) {
            let more = self.memory.try_reserve(missing)?;
            self.bytes += more.into_bytes();
        }
        self.bytes -= bytes;
        Ok(())
    }

    /// Puts back what was spent on a record that was not taken.
    pub(crate) fn refund(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    fn into_bytes(mut self) -> usize {
        std::mem::take(&mut self.bytes)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.memory.release(self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn memory(total: usize) -> Memory {
        Memory::new(total, Arc::default())
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(1)
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_memory_spends_the_deadline() {
        let memory = memory(100);
        let _all = memory.reserve(100, soon()).await.unwrap();
        let started = Instant::now();
        assert_eq!(memory.reserve(1, soon()).await.unwrap_err(), Reason::BufferFull);
        assert_eq!(started.elapsed().as_secs(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_small_wish_waits_behind_a_large_one() {
        let memory = memory(100);
        let first = memory.reserve(60, soon()).await.unwrap();
        let large = tokio::spawn({
            let memory = memory.clone();
            async move { memory.reserve(80, soon()).await.map(|permit| permit.bytes()) }
        });
        tokio::task::yield_now().await;
        assert_eq!(memory.try_reserve(1).unwrap_err(), Reason::BufferFull);
        drop(first);
        assert_eq!(large.await.unwrap(), Ok(80));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_wish_takes_nothing() {
        let memory = memory(100);
        let first = memory.try_reserve(60).unwrap();
        let wish = memory.reserve(80, soon());
        assert!(tokio::time::timeout(Duration::from_millis(1), wish).await.is_err());
        drop(first);
        assert_eq!(memory.try_reserve(100).unwrap().bytes(), 100);
    }

    #[tokio::test]
    async fn what_can_never_fit_is_too_large() {
        let memory = memory(100);
        assert_eq!(memory.reserve(101, soon()).await.unwrap_err(), Reason::TooLarge);
        assert_eq!(memory.try_reserve(usize::MAX).unwrap_err(), Reason::TooLarge);
    }

    #[test]
    fn what_is_spent_stays_spent_until_released() {
        let memory = memory(100);
        let mut permit = memory.try_reserve(50).unwrap();
        permit.spend(80).unwrap();
        assert_eq!(permit.spend(30), Err(Reason::BufferFull));
        drop(permit);
        assert!(memory.try_reserve(21).is_err());
        memory.release(80);
        assert!(memory.try_reserve(100).is_ok());
    }
}
