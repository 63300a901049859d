//! What goes wrong, and at which request (pure).

use std::time::Duration;

use super::dice::Dice;

/// One thing that goes wrong with one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Executed late, even if the client has hung up meanwhile.
    SlowStart(Duration),
    /// Executed at once, answered late.
    SlowAnswer(Duration),
    /// Executed, and never answered; nothing behind it is read either.
    NoAnswer,
    /// Closes the connection instead of executing.
    CloseBefore,
    /// Executes, then closes the connection.
    CloseAfter,
    /// Closes the connection in the middle of the request, which is not executed.
    CutRequest,
    /// Executes, and closes the connection in the middle of the answer.
    CutAnswer,
    /// Refuses with an error code.
    Refuse {
        /// Kafka's code.
        code: i16,
        /// What a refused Produce leaves behind.
        trace: Trace,
    },
    /// Answers with what belongs to another request, its correlation id included; not executed.
    WrongCorrelation,
    /// Executes, and answers with a frame of negative length.
    NegativeLength,
    /// Executes, and announces a frame of 2 GiB.
    HugeLength,
    /// Executes, and answers with half of the body, in a frame that fits it.
    ShortBody,
    /// Executes, and answers with random bytes behind the correlation id.
    Garbage,
    /// Executes, and leaves the last partition out of the answer.
    MissingPartition,
    /// Executes, answers with `throttle_time_ms`, and works on nothing for as long (KIP-219).
    Throttle(Duration),
    /// Before a Produce is executed, another broker becomes leader of its partitions.
    MoveLeader,
    /// From this request on the connection is open and dead.
    HalfOpen,
}

/// What a Produce that is refused leaves in the log, and says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trace {
    /// Nothing appended, base offset −1.
    Nothing,
    /// Appended, and the answer has its base offset.
    Appended,
    /// Appended, base offset −1: an honest broker does so with codes 7 and 20 only.
    AppendedUntold,
    /// Appended with a base offset, and lost again with the leader.
    Truncated,
}

/// Which requests of an API a fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// The n-th from now on; 1 is the next.
    Nth(u64),
    /// So many in a thousand, as the cluster's dice fall.
    PerMille(u32),
}

/// Faults that wait for their request.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Armed>);

#[derive(Debug)]
struct Armed {
    api: i16,
    when: When,
    fault: Fault,
    seen: u64,
}

impl Faults {
    pub(super) fn arm(&mut self, api: i16, when: When, fault: Fault) {
        self.0.push(Armed { api, when, fault, seen: 0 });
    }

    pub(super) fn disarm(&mut self) {
        self.0.clear();
    }

    /// A request of `api` has arrived. Every rule counts it; the first that fires decides.
    pub(super) fn strike(&mut self, api: i16, dice: &mut Dice) -> Option<Fault> {
        let mut struck = None;
        for armed in self.0.iter_mut().filter(|armed| armed.api == api) {
            armed.seen += 1;
            let fires = match armed.when {
                When::Nth(nth) => armed.seen == nth,
                When::PerMille(times) => dice.per_mille(times),
            };
            if fires && struck.is_none() {
                struck = Some(armed.fault.clone());
            }
        }
        self.0.retain(|armed| !matches!(armed.when, When::Nth(nth) if nth <= armed.seen));
        struck
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nth_request_is_hit_once() {
        let (mut faults, mut dice) = (Faults::default(), Dice::new(1));
        faults.arm(0, When::Nth(2), Fault::CloseBefore);
        faults.arm(0, When::Nth(3), Fault::CloseAfter);
        assert_eq!(faults.strike(3, &mut dice), None);
        let hits: Vec<_> = (0..4).map(|_| faults.strike(0, &mut dice)).collect();
        assert_eq!(hits, [None, Some(Fault::CloseBefore), Some(Fault::CloseAfter), None]);
    }

    #[test]
    fn chances_follow_the_dice() {
        let (mut faults, mut dice) = (Faults::default(), Dice::new(1));
        faults.arm(0, When::PerMille(250), Fault::NoAnswer);
        let hits = (0..1000).filter(|_| faults.strike(0, &mut dice).is_some()).count();
        assert!((200..300).contains(&hits), "{hits}");
    }
}
