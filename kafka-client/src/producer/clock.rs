//! One timer for all partitions: linger, pauses and deadlines.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::topic::Partition;
use crate::lock::Lock;

/// Alarms by time. A partition sets one only if it is earlier than those it has set, so there are
/// few.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    alarms: Lock<BinaryHeap<Reverse<Alarm>>>,
    earlier: Notify,
}

#[derive(Debug)]
struct Alarm {
    at: Instant,
    partition: Arc<Partition>,
}

impl Clock {
    pub(crate) fn set(&self, at: Instant, partition: &Arc<Partition>) {
        let mut alarms = self.alarms.lock();
        let is_first = alarms.peek().is_none_or(|Reverse(first)| at < first.at);
        alarms.push(Reverse(Alarm { at, partition: partition.clone() }));
        drop(alarms);
        if is_first {
            self.earlier.notify_one();
        }
    }

    /// Waits for the next alarm.
    pub(crate) async fn next(&self) -> Arc<Partition> {
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

impl PartialEq for Alarm {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Alarm {}

impl PartialOrd for Alarm {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Alarm {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}
