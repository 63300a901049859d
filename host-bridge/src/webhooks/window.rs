//! What of a partition is being sent to a receiver, is settled, or is to be sent again: which records the
//! next request has, and up to where the partition is done with.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Which records wait for which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ordering {
    /// A record waits for all before it.
    Partition,
    /// A record waits for those before it that have its key; without a key for none.
    Key,
    None,
}

/// How much is taken at a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) ordering: Ordering,
    /// Requests under way; those that wait to be sent again are not.
    pub(super) in_flight: usize,
    /// Records and bytes of a request; one record may have more bytes.
    pub(super) batch: usize,
    pub(super) batch_bytes: usize,
    /// Records and bytes from the oldest that is not settled on.
    pub(super) records: usize,
    pub(super) bytes: usize,
}

/// Records of a partition from the oldest one on that is not settled.
#[derive(Debug)]
pub(super) struct Window<T> {
    bounds: Bounds,
    /// The offset from which there are no records yet.
    next: i64,
    /// Those that are not settled.
    open: BTreeMap<i64, Open<T>>,
    /// Offset and bytes of each record since the oldest of these, settled ones included.
    span: VecDeque<(i64, usize)>,
    span_bytes: usize,
    /// Settled already when the partition came.
    settled: VecDeque<Range<i64>>,
    lanes: HashMap<Lane, VecDeque<i64>>,
    /// Lanes from which a request may be made now.
    ready: VecDeque<Lane>,
    deliveries: BTreeMap<u64, Delivery>,
    /// Those that are to be sent again.
    due: BTreeSet<(Instant, u64)>,
    in_flight: usize,
    begun: u64,
}

#[derive(Debug)]
struct Open<T> {
    bytes: usize,
    record: T,
}

/// Records that wait for each other. The lane of one that waits for none is never taken.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Lane {
    Whole,
    Key(Arc<[u8]>),
    Free,
}

/// The records of a request, which are the same whenever it is sent.
#[derive(Debug)]
pub(super) struct Delivery {
    lane: Lane,
    pub(super) offsets: Vec<i64>,
    /// How often it was sent, and when first, since somebody last said to go on.
    pub(super) attempts: u32,
    pub(super) since: Option<Instant>,
}

impl<T> Window<T> {
    /// Of a partition that is read from an offset on, behind which these were settled before.
    pub(super) fn new(bounds: Bounds, next: i64, settled: Vec<Range<i64>>) -> Self {
        Self {
            bounds,
            next,
            open: BTreeMap::new(),
            span: VecDeque::new(),
            span_bytes: 0,
            settled: settled.into(),
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            deliveries: BTreeMap::new(),
            due: BTreeSet::new(),
            in_flight: 0,
            begun: 0,
        }
    }

    /// Where to read on.
    pub(super) fn next(&self) -> i64 {
        self.next
    }

    /// All before is settled: to be committed.
    pub(super) fn position(&self) -> i64 {
        self.open.first_key_value().map_or(self.next, |(offset, _)| *offset)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether the partition has to wait for its oldest record.
    pub(super) fn is_full(&self) -> bool {
        self.span.len() >= self.bounds.records || self.span_bytes >= self.bounds.bytes
    }

    /// Whether a record was settled before the partition came. Offsets grow from call to call.
    pub(super) fn was_settled(&mut self, offset: i64) -> bool {
        while self.settled.front().is_some_and(|settled| settled.end <= offset) {
            self.settled.pop_front();
        }
        self.settled.front().is_some_and(|settled| settled.contains(&offset))
    }

    /// The next record; none of those before it is still to come.
    pub(super) fn push(&mut self, offset: i64, key: Option<&[u8]>, bytes: usize, record: T) {
        let lane = match (self.bounds.ordering, key) {
            (Ordering::Partition, _) => Lane::Whole,
            (Ordering::Key, Some(key)) => Lane::Key(key.into()),
            (Ordering::Key, None) | (Ordering::None, _) => Lane::Free,
        };
        self.next = offset + 1;
        self.open.insert(offset, Open { bytes, record });
        self.span.push_back((offset, bytes));
        self.span_bytes += bytes;
        match self.lanes.get_mut(&lane) {
            Some(queue) => queue.push_back(offset),
            None => {
                self.lanes.insert(lane.clone(), [offset].into());
                self.ready.push_back(lane);
            }
        }
    }

    /// The next record, which was settled before. It counts as far as the window goes.
    pub(super) fn push_settled(&mut self, offset: i64, bytes: usize) {
        self.next = offset + 1;
        self.span.push_back((offset, bytes));
        self.span_bytes += bytes;
        self.trim();
    }

    /// Nothing up to this offset is for the receiver.
    pub(super) fn pass(&mut self, next: i64) {
        self.next = self.next.max(next);
    }

    /// A request to send now. It is under way until it is settled or has failed.
    pub(super) fn poll_send(&mut self, now: Instant) -> Option<u64> {
        if self.in_flight >= self.bounds.in_flight {
            return None;
        }
        let number = match self.due.first() {
            Some((at, _)) if *at <= now => self.due.pop_first().map(|(_, number)| number),
            _ => self.begin(),
        }?;
        let delivery = self.deliveries.get_mut(&number)?;
        delivery.attempts += 1;
        delivery.since.get_or_insert(now);
        self.in_flight += 1;
        Some(number)
    }

    /// When a request is to be sent again, if nothing else happens.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let is_busy = self.in_flight >= self.bounds.in_flight;
        self.due.first().filter(|_| !is_busy).map(|(at, _)| *at)
    }

    pub(super) fn delivery(&self, number: u64) -> Option<&Delivery> {
        self.deliveries.get(&number)
    }

    /// The records of a request, in their order.
    pub(super) fn records(&self, number: u64) -> impl Iterator<Item = &T> {
        let offsets = self.deliveries.get(&number).into_iter().flat_map(|it| &it.offsets);
        offsets.filter_map(|offset| self.open.get(offset)).map(|open| &open.record)
    }

    /// For how long a request has been tried.
    pub(super) fn tried_for(&self, number: u64, now: Instant) -> Duration {
        let since = self.deliveries.get(&number).and_then(|delivery| delivery.since);
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// A request that is under way was delivered, or nobody is to have its records any more.
    pub(super) fn on_settled(&mut self, number: u64) {
        let Some(delivery) = self.deliveries.remove(&number) else { return };
        self.in_flight -= 1;
        for offset in &delivery.offsets {
            self.open.remove(offset);
        }
        if delivery.lane != Lane::Free {
            match self.lanes.get(&delivery.lane).is_some_and(|queue| !queue.is_empty()) {
                true => self.ready.push_back(delivery.lane),
                false => drop(self.lanes.remove(&delivery.lane)),
            }
        }
        self.trim();
    }

    /// The window begins at the oldest record that is not settled.
    fn trim(&mut self) {
        let position = self.position();
        while let Some((_, bytes)) = self.span.pop_front_if(|(offset, _)| *offset < position) {
            self.span_bytes -= bytes;
        }
    }

    /// A request that is under way is to be sent again then.
    pub(super) fn on_failed(&mut self, number: u64, again: Instant) {
        if self.deliveries.contains_key(&number) && self.due.insert((again, number)) {
            self.in_flight -= 1;
        }
    }

    /// All requests that wait are sent again now, as for the first time.
    pub(super) fn start_again(&mut self, now: Instant) {
        for (_, number) in std::mem::take(&mut self.due) {
            self.due.insert((now, number));
            if let Some(delivery) = self.deliveries.get_mut(&number) {
                (delivery.attempts, delivery.since) = (0, None);
            }
        }
    }

    /// What is settled behind the position: the lengths of runs of offsets, those of the first not
    /// settled, of the next settled, and so on in turns. The last run is a settled one.
    pub(super) fn runs(&self) -> Vec<i64> {
        let (mut runs, mut end) = (Vec::new(), self.position());
        for offset in self.open.keys() {
            match (offset - end, runs.last_mut()) {
                (0, Some(last)) => *last += 1,
                (0, None) => runs.push(1),
                (gap, _) => runs.extend([gap, 1]),
            }
            end = offset + 1;
        }
        match self.next - end {
            gap if gap > 0 && !runs.is_empty() => runs.push(gap),
            _ => drop(runs.pop()),
        }
        runs
    }

    /// Takes the records of a new request from the lane that has waited for longest.
    fn begin(&mut self) -> Option<u64> {
        let lane = self.ready.pop_front()?;
        let queue = self.lanes.get_mut(&lane)?;
        let (mut offsets, mut bytes) = (Vec::new(), 0);
        while offsets.len() < self.bounds.batch
            && let Some(offset) = queue.front()
        {
            bytes += self.open.get(offset).map_or(0, |open| open.bytes);
            if !offsets.is_empty() && bytes > self.bounds.batch_bytes {
                break;
            }
            offsets.extend(queue.pop_front());
        }
        match queue.is_empty() {
            _ if lane != Lane::Free => {}
            false => self.ready.push_back(Lane::Free),
            true => drop(self.lanes.remove(&lane)),
        }
        self.begun += 1;
        let delivery = Delivery { lane, offsets, attempts: 0, since: None };
        self.deliveries.insert(self.begun, delivery);
        Some(self.begun)
    }
}

#[cfg(test)]
mod tests;
