//! When a partition wants to be woken next (pure).

use tokio::time::Instant;

/// The earliest deadline in a partition, and the alarms that are set for it.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    /// Not later than any deadline; exact after [`Alarm::recount`].
    earliest: Option<Instant>,
    /// Those that have not rung, the next one last.
    set: Vec<Instant>,
}

impl Alarm {
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
        let (mut alarm, start) = (Alarm::default(), Instant::now());
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
