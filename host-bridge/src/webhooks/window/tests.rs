//! Requests in every order, answered in every order.

use proptest::prelude::*;

use super::*;

fn bounds(ordering: Ordering) -> Bounds {
    let in_flight = if ordering == Ordering::Partition { 1 } else { 8 };
    Bounds { ordering, in_flight, batch: 3, batch_bytes: 100, records: 20, bytes: 1000 }
}

/// What the receiver and Kafka do next.
#[derive(Debug, Clone)]
enum Happens {
    /// Records with these keys, or none, and sizes arrive.
    Arrives(Option<u8>, usize),
    /// A record that is not for the receiver.
    Passes,
    Send,
    /// Of the requests under way this one.
    Settles(usize),
    Fails(usize, u64),
    TimePasses(u64),
    StartsAgain,
    MovesToAnother,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        6 => (prop::option::of(0..4u8), 0..200usize)
            .prop_map(|(key, bytes)| Happens::Arrives(key, bytes)),
        1 => Just(Happens::Passes),
        6 => Just(Happens::Send),
        4 => any::<usize>().prop_map(Happens::Settles),
        2 => (any::<usize>(), 0..1000u64).prop_map(|(nth, ms)| Happens::Fails(nth, ms)),
        2 => (0..500u64).prop_map(Happens::TimePasses),
        1 => Just(Happens::StartsAgain),
        1 => Just(Happens::MovesToAnother),
    ]
}

/// A receiver that knows what it may get.
struct Model {
    bounds: Bounds,
    window: Window<(i64, Option<u8>, usize)>,
    now: Instant,
    log: Vec<Option<(Option<u8>, usize)>>,
    settled: BTreeSet<i64>,
    under_way: Vec<u64>,
    again: BTreeMap<u64, (Instant, Vec<i64>)>,
}

impl Model {
    fn new(ordering: Ordering) -> Self {
        let bounds = bounds(ordering);
        Self {
            bounds,
            window: Window::new(bounds, 0, Vec::new()),
            now: Instant::now(),
            log: Vec::new(),
            settled: BTreeSet::new(),
            under_way: Vec::new(),
            again: BTreeMap::new(),
        }
    }

    /// Takes what is in the log, as a reader does.
    fn read(&mut self) {
        while !self.window.is_full()
            && let Some(record) = self.log.get(self.window.next() as usize)
        {
            let offset = self.window.next();
            match record {
                Some((_, bytes)) if self.window.was_settled(offset) => {
                    self.window.push_settled(offset, *bytes);
                }
                Some((key, bytes)) => {
                    let bytes_of_key = key.map(|key| [key]);
                    let key_bytes = bytes_of_key.as_ref().map(|key| &key[..]);
                    self.window.push(offset, key_bytes, *bytes, (offset, *key, *bytes));
                }
                None => self.window.pass(offset + 1),
            }
        }
    }

    fn happens(&mut self, what: Happens) {
        match what {
            Happens::Arrives(key, bytes) => self.log.push(Some((key, bytes))),
            Happens::Passes => self.log.push(None),
            Happens::Send => self.send(),
            Happens::Settles(nth) => {
                let Some(number) = self.take(nth) else { return };
                let offsets = self.window.delivery(number).unwrap().offsets.clone();
                self.settled.extend(offsets);
                self.window.on_settled(number);
            }
            Happens::Fails(nth, ms) => {
                let Some(number) = self.take(nth) else { return };
                let at = self.now + Duration::from_millis(ms);
                let offsets = self.window.delivery(number).unwrap().offsets.clone();
                self.again.insert(number, (at, offsets));
                self.window.on_failed(number, at);
            }
            Happens::TimePasses(ms) => self.now += Duration::from_millis(ms),
            Happens::StartsAgain => {
                self.window.start_again(self.now);
                self.again.values_mut().for_each(|(at, _)| *at = self.now);
            }
            Happens::MovesToAnother => {
                let (position, runs) = (self.window.position(), self.window.runs());
                let settled = super::super::position::ranges(position, &runs);
                self.window = Window::new(self.bounds, position, settled);
                self.under_way.clear();
                self.again.clear();
            }
        }
    }

    fn take(&mut self, nth: usize) -> Option<u64> {
        let count = self.under_way.len();
        (count > 0).then(|| self.under_way.remove(nth % count))
    }

    fn send(&mut self) {
        let earliest = self.again.values().map(|(at, _)| *at).min();
        let Some(number) = self.window.poll_send(self.now) else { return };
        let records: Vec<_> = self.window.records(number).copied().collect();
        let offsets: Vec<_> = records.iter().map(|(offset, ..)| *offset).collect();
        assert!(offsets.is_sorted() && !offsets.is_empty() && offsets.len() <= 3, "{offsets:?}");
        let bytes: usize = records.iter().map(|(.., bytes)| bytes).sum();
        assert!(offsets.len() == 1 || bytes <= 100, "{records:?}");
        match self.again.remove(&number) {
            Some((at, before)) => {
                assert_eq!(before, offsets, "the same request");
                assert!(at <= self.now && Some(at) == earliest);
            }
            None => assert!(earliest.is_none_or(|at| at > self.now), "those that are due first"),
        }
        for (offset, key, _) in &records {
            assert!(!self.settled.contains(offset), "{offset} was settled");
            let waits_for = |other: i64| match self.bounds.ordering {
                Ordering::Partition => true,
                Ordering::Key => {
                    let of_other = self.log[other as usize].and_then(|(key, _)| key);
                    key.is_some() && of_other == *key
                }
                Ordering::None => false,
            };
            for before in (0..*offset).filter(|it| self.log[*it as usize].is_some()) {
                let is_over = self.settled.contains(&before) || offsets.contains(&before);
                assert!(is_over || !waits_for(before), "{offset} before {before}");
            }
        }
        self.under_way.push(number);
        assert!(self.under_way.len() <= self.bounds.in_flight);
    }

    fn check(&self) {
        let position = self.window.position();
        for (offset, record) in (0..).zip(&self.log) {
            let is_over = record.is_none() || self.settled.contains(&offset);
            assert!(offset >= position || is_over, "{offset} is before {position}");
        }
        let (runs, next) = (self.window.runs(), self.window.next());
        assert!(runs.len().is_multiple_of(2) && runs.iter().all(|run| *run > 0), "{runs:?}");
        let ranges = super::super::position::ranges(position, &runs);
        for offset in position..next {
            let is_over = self.log[offset as usize].is_none() || self.settled.contains(&offset);
            let is_told = ranges.iter().any(|range| range.contains(&offset));
            assert!(is_told <= is_over, "{offset}: {runs:?}");
            let last = ranges.last().map_or(position, |range| range.end);
            assert!(is_told == is_over || offset >= last, "{offset}: {runs:?}");
        }
        let given = (position..next).filter(|it| self.log[*it as usize].is_some());
        assert!(given.count() <= self.bounds.records);
    }

    /// Whatever has happened, all records are settled in the end.
    fn finish(&mut self) {
        for _ in 0..10_000 {
            self.read();
            while !self.under_way.is_empty() {
                self.happens(Happens::Settles(0));
                self.check();
            }
            let begun = self.window.begun;
            self.send();
            if self.under_way.is_empty() && self.window.begun == begun {
                match self.window.poll_timeout() {
                    Some(at) => self.now = self.now.max(at),
                    None if self.window.next() == self.log.len() as i64 => break,
                    None => {}
                }
            }
        }
        let end = self.log.len() as i64;
        assert_eq!((self.window.position(), self.window.next()), (end, end));
        assert!(self.window.is_empty() && self.window.runs().is_empty());
        assert!(self.window.lanes.is_empty() && self.window.span.is_empty());
        let given = (0..end).filter(|it| self.log[*it as usize].is_some());
        assert!(given.eq(self.settled.iter().copied()));
    }
}

proptest! {
    #[test]
    fn records_wait_for_those_they_should_and_all_are_settled_in_the_end(
        ordering in prop_oneof![
            Just(Ordering::Partition), Just(Ordering::Key), Just(Ordering::None)
        ],
        all in prop::collection::vec(happens(), 0..200),
    ) {
        let mut model = Model::new(ordering);
        for one in all {
            model.happens(one);
            model.read();
            model.check();
        }
        model.finish();
    }
}

#[test]
fn a_failing_key_holds_up_its_own_records_until_the_window_is_full() {
    let bounds = Bounds { batch: 1, records: 2000, bytes: usize::MAX, ..bounds(Ordering::Key) };
    let (mut window, now) = (Window::new(bounds, 0, Vec::new()), Instant::now());
    window.push(0, Some(b"bad"), 1, ());
    let bad = window.poll_send(now).unwrap();
    window.on_failed(bad, now + Duration::from_secs(3600));
    for offset in 1..2000 {
        assert!(!window.is_full(), "{offset}");
        let key = if offset % 2 == 0 { &b"bad"[..] } else { b"good" };
        window.push(offset, Some(key), 1, ());
        if let Some(number) = window.poll_send(now) {
            assert_eq!(window.delivery(number).unwrap().offsets, [offset]);
            window.on_settled(number);
        }
    }
    assert!(window.is_full() && window.poll_send(now).is_none());
    assert_eq!((window.position(), window.open.len()), (0, 1000));
    let runs = window.runs();
    assert_eq!((runs.len(), runs.iter().all(|run| *run == 1)), (2000, true));
    let later = now + Duration::from_secs(3600);
    let again = window.poll_send(later).unwrap();
    assert_eq!((again, window.delivery(again).unwrap().attempts), (bad, 2));
    window.on_settled(again);
    for offset in (2..2000).step_by(2) {
        let number = window.poll_send(later).unwrap();
        assert_eq!(window.delivery(number).unwrap().offsets, [offset]);
        window.on_settled(number);
    }
    assert_eq!((window.position(), window.is_empty()), (2000, true));
}

#[test]
fn whoever_says_to_go_on_has_everything_sent_at_once_as_for_the_first_time() {
    let (mut window, now) =
        (Window::new(bounds(Ordering::Partition), 7, Vec::new()), Instant::now());
    assert_eq!((window.position(), window.poll_send(now), window.runs()), (7, None, Vec::new()));
    window.push(7, None, 1, "a");
    let number = window.poll_send(now).unwrap();
    window.on_failed(number, now + Duration::from_secs(60));
    let later = now + Duration::from_secs(5);
    assert_eq!(window.tried_for(number, later), Duration::from_secs(5));
    assert_eq!(
        (window.poll_send(later), window.poll_timeout()),
        (None, Some(now + Duration::from_secs(60)))
    );
    window.start_again(later);
    assert_eq!(window.poll_send(later), Some(number));
    assert_eq!(window.delivery(number).unwrap().attempts, 1);
    assert_eq!(window.tried_for(number, later), Duration::ZERO);
    assert_eq!(window.records(number).collect::<Vec<_>>(), [&"a"]);
}
