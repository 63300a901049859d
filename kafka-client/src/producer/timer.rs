//! When partitions are woken: for linger, pauses and deadlines. One timer serves all of them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::lock::Lock;

/// Alarms by time. A partition sets one only if it is earlier than those it has set, so there are
/// few.
#[derive(Debug)]
pub(crate) struct Timer<P> {
    alarms: Lock<BinaryHeap<Reverse<Alarm<P>>>>,
    earlier: Notify,
}

#[derive(Debug)]
struct Alarm<P> {
    at: Instant,
    partition: Arc<P>,
}

impl<P> Default for Timer<P> {
    fn default() -> Self {
        Self { alarms: Lock::default(), earlier: Notify::new() }
    }
}

impl<P> Timer<P> {
    pub(crate) fn set(&self, at: Instant, partition: &Arc<P>) {
        let mut alarms = self.alarms.lock();
        let is_first = alarms.peek().is_none_or(|Reverse(first)| at < first.at);
        alarms.push(Reverse(Alarm { at, partition: partition.clone() }));
        drop(alarms);
        if is_first {
            self.earlier.notify_one();
        }
    }

    /// Waits for the next alarm.
    pub(crate) async fn next(&self) -> Arc<P> {
        loop {
            let next = {
                let mut alarms = self.alarms.lock();
                match alarms.peek() {
                    Some(Reverse(first)) if first.at <= Instant::now() => {
                        if let Some(Reverse(alarm)) = alarms.pop() {
                            return alarm.partition;
                        }
                        None
                    }
                    first => first.map(|Reverse(alarm)| alarm.at),
                }
            };
            match next {
                Some(at) => tokio::select! {
                    biased;
                    () = sleep_until(at) => {}
                    () = self.earlier.notified() => {}
                },
                None => self.earlier.notified().await,
            }
        }
    }
}

impl<P> PartialEq for Alarm<P> {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl<P> Eq for Alarm<P> {}

impl<P> PartialOrd for Alarm<P> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<P> Ord for Alarm<P> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

/// The earliest deadline in a partition, and the alarms that are set for it.
#[derive(Debug, Default)]
pub(crate) struct PartitionTimer {
    /// Not later than any deadline; exact after [`PartitionTimer::recount`].
    earliest: Option<Instant>,
    /// Those that have not rung, the next one last.
    set: Vec<Instant>,
}

impl PartitionTimer {
    /// One more deadline to keep.
    pub(crate) fn expect(&mut self, deadline: Instant) {
        self.earliest = Some(self.earliest.map_or(deadline, |earliest| earliest.min(deadline)));
    }

    /// These are the deadlines that are left.
    pub(crate) fn recount(&mut self, deadlines: impl Iterator<Item = Instant>) {
        self.earliest = deadlines.min();
    }

    /// The alarm to set, if it must ring earlier than the one that is set; `due` is another reason
    /// to wake.
    pub(crate) fn poll(&mut self, due: Option<Instant>) -> Option<Instant> {
        let wanted = [self.earliest, due].into_iter().flatten().min()?;
        if self.set.last().is_some_and(|set| *set <= wanted) {
            return None;
        }
        self.set.push(wanted);
        Some(wanted)
    }

    /// Time has passed; says whether a deadline may have.
    pub(crate) fn ring(&mut self, now: Instant) -> bool {
        while self.set.pop_if(|set| *set <= now).is_some() {}
        self.earliest.is_some_and(|earliest| earliest <= now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn later_deadlines_set_no_further_alarm() {
        let (mut alarm, start) = (PartitionTimer::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        alarm.expect(at(100));
        assert_eq!(alarm.poll(None), Some(at(100)));
        alarm.expect(at(200));
        assert_eq!(alarm.poll(Some(at(150))), None);
        assert_eq!(alarm.poll(Some(at(50))), Some(at(50)));
        assert!(!alarm.ring(at(50)));
        assert_eq!(alarm.poll(None), None, "the one for the deadline has not rung yet");
        assert!(alarm.ring(at(100)));
        alarm.recount([at(200)].into_iter());
        assert_eq!(alarm.poll(None), Some(at(200)));
    }
}
