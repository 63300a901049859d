//! A value that changes, and wakes everyone who follows it in the order in which they wait.

use std::pin::pin;

use tokio::sync::Notify;

use crate::lock::Lock;

/// Unlike `tokio::sync::watch`, which wakes in a random order, it lets a simulation be run again.
#[derive(Debug, Default)]
pub(crate) struct Watch<T> {
    latest: Lock<Version<T>>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Version<T> {
    number: u64,
    value: T,
}

/// Hears of changes; several at once count as one.
#[derive(Debug)]
pub(crate) struct WatchReader<'a, T> {
    news: &'a Watch<T>,
    seen: u64,
}

impl<T: Clone> Watch<T> {
    pub(crate) fn latest(&self) -> T {
        self.latest.lock().value.clone()
    }

    /// `by` says whether it has changed anything.
    pub(crate) fn change(&self, by: impl FnOnce(&mut T) -> bool) {
        let mut latest = self.latest.lock();
        if by(&mut latest.value) {
            latest.number += 1;
            drop(latest);
            self.changed.notify_waiters();
        }
    }

    pub(crate) fn replace(&self, value: T) {
        self.change(|latest| {
            *latest = value;
            true
        });
    }

    /// Hears of every change from now on.
    pub(crate) fn reader(&self) -> WatchReader<'_, T> {
        WatchReader { news: self, seen: self.latest.lock().number }
    }
}

impl<T: Clone> WatchReader<'_, T> {
    /// Waits for a change that it has not heard of, and gives the value as it is then.
    pub(crate) async fn next(&mut self) -> T {
        loop {
            let mut changed = pin!(self.news.changed.notified());
            changed.as_mut().enable();
            let unheard = {
                let latest = self.news.latest.lock();
                (latest.number != self.seen).then(|| (latest.number, latest.value.clone()))
            };
            if let Some((number, value)) = unheard {
                self.seen = number;
                return value;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn a_reader_hears_of_changes_since_it_reads() {
        let news = Watch::default();
        news.replace(1);
        let mut reader = news.reader();
        news.change(|_| false);
        news.replace(2);
        news.replace(3);
        assert_eq!(reader.next().await, 3);
        news.replace(4);
        assert_eq!(reader.next().await, 4);
    }

    #[tokio::test]
    async fn readers_are_woken_in_the_order_in_which_they_wait() {
        let (news, woken) = (Arc::new(Watch::default()), Arc::new(Lock::new(Vec::new())));
        let mut readers = tokio::task::JoinSet::new();
        for number in 0..20 {
            let (news, woken) = (news.clone(), woken.clone());
            readers.spawn(async move {
                news.reader().next().await;
                woken.lock().push(number);
            });
        }
        tokio::task::yield_now().await;
        news.replace(true);
        readers.join_all().await;
        assert_eq!(*woken.lock(), (0..20).collect::<Vec<_>>());
    }
}
