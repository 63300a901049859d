//! What readers of a feed who are at the same place are sent next: one of them finds and renders it, the
//! others take it over. Ten thousand at the log end cost little more than the writing.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::cursor::Position;
use super::cursor_text::CursorText;
use super::envelope::Shape;
use crate::limits::{FEED_STEPS, FEED_STEPS_BYTES};

/// The places where readers of a feed were last, oldest first. What is forgotten a reader finds itself.
#[derive(Debug, Default)]
pub(crate) struct Steps(Mutex<Last>);

#[derive(Debug, Default)]
struct Last {
    stops: VecDeque<Stop>,
    /// Of all that is sent on from them.
    bytes: usize,
}

/// A place that readers share: by its address.
#[derive(Debug)]
pub(crate) struct Here {
    pub(crate) shape: Shape,
    pub(crate) positions: Vec<Position>,
    pub(crate) text: CursorText,
}

/// A place that a reader shares with others, and its own moves when it was there.
pub(super) type Met = (Arc<Here>, u64);

#[derive(Debug)]
struct Stop {
    here: Arc<Here>,
    /// With the topics at this version there is nothing behind it.
    is_end_at: Option<u64>,
    onward: Option<Onward>,
}

/// A step from one place to another.
#[derive(Debug, Clone)]
pub(crate) struct Onward {
    pub(crate) sent: Sent,
    pub(crate) to: Arc<Here>,
}

/// What a reader is sent at a time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sent {
    pub(crate) parts: Arc<[Bytes]>,
    pub(crate) records: u64,
}

/// What there is for a reader.
#[derive(Debug)]
pub(crate) enum Next {
    Onward(Onward),
    /// Nothing, as another one found.
    Nothing,
    /// It has to look.
    Unknown,
}

impl Steps {
    /// The place as others have it who are there.
    pub(crate) fn meet(&self, here: Here) -> Arc<Here> {
        self.lock().meet(here)
    }

    /// What follows, with the topics at this version.
    pub(crate) fn next(&self, here: &Arc<Here>, version: u64) -> Next {
        let mut last = self.lock();
        match last.stop(here) {
            Some(Stop { onward: Some(onward), .. }) => Next::Onward(onward.clone()),
            Some(Stop { is_end_at: Some(at), .. }) if *at == version => Next::Nothing,
            _ => Next::Unknown,
        }
    }

    /// Nothing follows while the topics are at this version.
    pub(crate) fn end(&self, here: &Arc<Here>, version: u64) {
        if let Some(stop) = self.lock().stop(here) {
            stop.is_end_at = Some(version);
        }
    }

    /// A reader has gone on. Returns where it is now.
    pub(crate) fn go(&self, from: &Arc<Here>, sent: Sent, to: Here) -> Arc<Here> {
        let mut last = self.lock();
        let to = last.meet(to);
        let bytes = sent.parts.iter().map(Bytes::len).sum::<usize>();
        // Another one may have been first, and the place itself may have been forgotten.
        if let Some(stop) = last.stop(from).filter(|stop| stop.onward.is_none())
            && bytes <= FEED_STEPS_BYTES
        {
            stop.onward = Some(Onward { sent, to: Arc::clone(&to) });
            last.bytes += bytes;
            last.shrink(FEED_STEPS_BYTES);
        }
        to
    }

    /// Forgets all.
    pub(crate) fn clear(&self) {
        *self.lock() = Last::default();
    }

    fn lock(&self) -> MutexGuard<'_, Last> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Last {
    fn meet(&mut self, here: Here) -> Arc<Here> {
        let is_same = |stop: &&Stop| {
            stop.here.text.as_str() == here.text.as_str() && stop.here.shape == here.shape
        };
        if let Some(stop) = self.stops.iter().rev().find(is_same) {
            return Arc::clone(&stop.here);
        }
        let here = Arc::new(here);
        self.stops.push_back(Stop { here: Arc::clone(&here), is_end_at: None, onward: None });
        self.shrink(FEED_STEPS_BYTES);
        here
    }

    fn stop(&mut self, here: &Arc<Here>) -> Option<&mut Stop> {
        self.stops.iter_mut().rev().find(|stop| Arc::ptr_eq(&stop.here, here))
    }

    fn shrink(&mut self, most: usize) {
        while self.stops.len() > FEED_STEPS || self.bytes > most {
            let Some(oldest) = self.stops.pop_front() else { break };
            let sent = oldest.onward.iter().flat_map(|onward| onward.sent.parts.iter());
            self.bytes -= sent.map(Bytes::len).sum::<usize>();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consume::cursor::Cursor;

    fn here(next: i64) -> Here {
        let cursor = Cursor::parse(&format!("a@0#{next};")).unwrap();
        Here {
            shape: Shape { headers: false, metadata: true, big_as_string: false },
            positions: vec![Position::Offset { next, epoch: None }],
            text: CursorText::new(&cursor, true),
        }
    }

    fn sent(part: &Bytes) -> Sent {
        Sent { parts: Arc::new([part.clone()]), records: 1 }
    }

    #[test]
    fn who_is_at_a_place_goes_where_the_first_one_went() {
        let steps = Steps::default();
        let [first, second] = [(); 2].map(|()| steps.meet(here(1)));
        assert!(Arc::ptr_eq(&first, &second));
        assert!(matches!(steps.next(&first, 7), Next::Unknown));
        steps.end(&first, 7);
        assert!(matches!(steps.next(&second, 7), Next::Nothing));
        assert!(matches!(steps.next(&second, 8), Next::Unknown));
        let event = Bytes::from_static(b"event");
        let there = steps.go(&first, sent(&event), here(2));
        let Next::Onward(onward) = steps.next(&second, 8) else { panic!("the first went on") };
        assert!(Arc::ptr_eq(&onward.to, &there));
        assert_eq!((&*onward.sent.parts, onward.sent.records), (&[event][..], 1));
        // Who found more at once goes on alone from another place.
        let third = steps.go(&second, sent(&Bytes::from_static(b"more")), here(3));
        let Next::Onward(onward) = steps.next(&second, 8) else { panic!("it stays") };
        assert!(Arc::ptr_eq(&onward.to, &there));
        assert!(matches!(steps.next(&third, 8), Next::Unknown));
    }

    #[test]
    fn what_is_kept_has_bounds() {
        let steps = Steps::default();
        let mut at = steps.meet(here(0));
        let first = Arc::clone(&at);
        for next in 1..1000 {
            at = steps.go(&at, sent(&vec![0; FEED_STEPS_BYTES / 8].into()), here(next));
        }
        assert!(matches!(steps.next(&first, 0), Next::Unknown));
        let last = steps.lock();
        assert!(last.bytes <= FEED_STEPS_BYTES && last.stops.len() <= 9, "{last:?}");
        drop(last);
        let large = Bytes::from(vec![0; FEED_STEPS_BYTES + 1]);
        steps.go(&at, sent(&large), here(1000));
        assert!(matches!(steps.next(&at, 0), Next::Unknown));
        for next in 2000..3000 {
            steps.meet(here(next));
        }
        assert_eq!(steps.lock().stops.len(), FEED_STEPS);
        steps.clear();
        assert_eq!(steps.lock().bytes, 0);
    }
}
