//! What an answer, or the lack of one, means for its batch (pure).
//!
//! `NotWritten` needs a proof for every attempt. Two things that look like a proof are
//! none. With acks=all a leader appends first and may then lose the partition while it waits for its
//! followers: its NOT_LEADER_OR_FOLLOWER carries the offset at which it appended, and the next leader
//! may have the batch. And a later refusal says nothing of an earlier attempt: a topic whose ACL was
//! taken away meanwhile may hold the batch whose answer was lost.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::sequence::SequenceError;
use crate::backoff::Backoff;
use crate::calls::produce::Appended;
use crate::connection::Lost;
use crate::error::Reason;
use crate::error::policy::{Class, class};
use crate::limits::{SENT_ALONE_AFTER, UNEXPLAINED_ATTEMPTS, UNKNOWN_TOPIC};

/// What has been tried with a batch so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Attempts {
    /// An attempt was handed over and did not end in a proof. It stays, whatever comes later: only
    /// a probe under the same stamp can take it back (see `sequence`).
    pub(crate) maybe_written: bool,
    /// Times it was sent again, for `retries`.
    pub(crate) resent: u32,
    /// Requests in a row that could not even be handed over.
    unsent: u32,
    /// Connections in a row that closed without an answer. A broker or a proxy that closes on one
    /// batch, such as one that is too large for it, would do so for ever, and each time with all the
    /// batches that travel in the same request.
    lost_in_row: u32,
    unexplained: u32,
    corrupt: u32,
    /// Since when the leader says that it does not know the topic.
    unknown_since: Option<Instant>,
}

/// How often and how fast to try again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RetryLimits {
    pub(crate) retries: u32,
    /// Whether batches have stamps.
    pub(crate) idempotent: bool,
    /// Whether POLICY_VIOLATION means "not now".
    pub(crate) policy_throttles: bool,
    pub(crate) backoff: Backoff,
}

/// What to do with the batch now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Written {
        base_offset: Option<i64>,
        log_append_ms: Option<i64>,
    },
    /// Unchanged, after a pause.
    Resend {
        pause: Duration,
        cause: Arc<Reason>,
        refresh: bool,
    },
    /// For good; `NotWritten` or `Unknown` follows from the attempts.
    GiveUp {
        reason: Reason,
        topic_unknown: bool,
    },
    /// Unchanged or under a new stamp, as the partition's state decides.
    SequenceError {
        error: SequenceError,
        pause: Duration,
        cause: Arc<Reason>,
    },
    /// In two halves.
    Halve,
    /// Without the records at fault, which are refused.
    Without(Vec<(i32, Reason)>),
}

/// Judges an answer.
pub(crate) fn judge(
    answer: Appended,
    attempts: &mut Attempts,
    records: usize,
    limits: RetryLimits,
    now: Instant,
    random: u64,
) -> Verdict {
    let class = class(answer.code);
    // Before anything is decided: the doubt outlives whatever this answer leads to.
    attempts.maybe_written |= class.leaves_doubt(answer.base_offset);
    (attempts.unsent, attempts.lost_in_row) = (0, 0);
    if class != Class::UnknownTopic {
        attempts.unknown_since = None;
    }
    let reason = Reason::of_code(answer.code);
    if let Some(error) = sequence_error_of(class).filter(|_| limits.idempotent) {
        return attempts.error(error, reason, limits, random);
    }
    match class {
        Class::Done => Verdict::Written {
            base_offset: Some(answer.base_offset).filter(|offset| *offset >= 0),
            log_append_ms: answer.log_append_ms,
        },
        Class::Duplicate => Verdict::Written { base_offset: None, log_append_ms: None },
        // Brokers learn of a new topic at different times, and one that has just become the leader
        // may know of neither: only a leader that goes on denying it is believed.
        Class::UnknownTopic
            if now >= *attempts.unknown_since.get_or_insert(now) + UNKNOWN_TOPIC =>
        {
            Verdict::GiveUp { reason, topic_unknown: true }
        }
        Class::Moved | Class::UnknownTopic => attempts.resend(reason, true, limits, random),
        // Resending what was appended but not confirmed is safe with a stamp: the broker answers the
        // duplicate with the offset of the first. Without one it may be there twice, as with any
        // client.
        Class::Wait | Class::Unconfirmed => attempts.resend(reason, false, limits, random),
        Class::Policy if limits.policy_throttles => attempts.throttled(reason, limits, random),
        Class::TooLarge
        | Class::BadRecord
        | Class::Policy
        | Class::BadBatch
        | Class::TopicRefused => refusal(class, &answer, attempts, records),
        // Damage on the way is gone at the next attempt; what is still damaged then is so at its
        // source.
        Class::Corrupt if attempts.corrupt == 0 => {
            attempts.corrupt += 1;
            attempts.resend(reason, false, limits, random)
        }
        Class::Corrupt => give_up(reason),
        // A permission may be given at any time, and the records have a deadline anyway.
        Class::ClusterRefused => later(limits.backoff.max, reason),
        _ if attempts.unexplained + 1 >= UNEXPLAINED_ATTEMPTS => give_up(reason),
        _ => {
            attempts.unexplained += 1;
            attempts.resend(reason, true, limits, random)
        }
    }
}

/// Judges an answer that the same bytes would get again.
fn refusal(class: Class, answer: &Appended, attempts: &Attempts, records: usize) -> Verdict {
    let reason = Reason::of_code(answer.code);
    match class {
        // A batch that may be in the log already must not be taken apart: its records would go out
        // under new sequences, and the broker could not recognise them.
        Class::TooLarge | Class::BadRecord | Class::Policy if attempts.maybe_written => {
            give_up(reason)
        }
        // The broker's limit is not ours to know (`message.max.bytes`, or the topic's): halving finds
        // the records that fit, and the one that does not is refused alone.
        Class::TooLarge if records > 1 => Verdict::Halve,
        Class::BadRecord | Class::Policy if !answer.faults.is_empty() => without(answer),
        // Brokers before 2.4 do not say which record they mean (KIP-467): one caller's bad record
        // must not fail its neighbours.
        Class::BadRecord if records > 1 => Verdict::Halve,
        _ => give_up(reason),
    }
}

fn give_up(reason: Reason) -> Verdict {
    Verdict::GiveUp { reason, topic_unknown: false }
}

/// Unchanged, from the same leader, after a pause.
fn later(pause: Duration, reason: Reason) -> Verdict {
    Verdict::Resend { pause, cause: reason.into(), refresh: false }
}

/// Without the records that the answer names.
fn without(answer: &Appended) -> Verdict {
    let named = answer.faults.iter();
    let named = named.map(|(at, said)| (*at, Reason::of_record(answer.code, said)));
    Verdict::Without(named.collect())
}

/// Refusals whose meaning depends on what else is under way. Without stamps they explain nothing.
fn sequence_error_of(class: Class) -> Option<SequenceError> {
    match class {
        Class::OutOfOrder => Some(SequenceError::OutOfOrder),
        Class::Forgotten => Some(SequenceError::Forgotten),
        Class::WrongIdentity => Some(SequenceError::WrongIdentity),
        _ => None,
    }
}

/// Judges a request that got no answer.
pub(crate) fn judge_lost(
    lost: &Lost,
    attempts: &mut Attempts,
    limits: RetryLimits,
    random: u64,
) -> Verdict {
    let cause = lost.to_string().into();
    // Handed over means that the socket took the last byte: with a byte missing the broker cannot have
    // executed the request, with all of them nobody knows.
    if lost.handed_over {
        attempts.maybe_written = true;
        attempts.unsent = 0;
        attempts.lost_in_row += 1;
        return attempts.resend(Reason::NoAnswer(cause), true, limits, random);
    }
    // Nothing reached the broker, so this was no attempt in the sense of `retries`.
    attempts.unsent = attempts.unsent.saturating_add(1);
    let pause = limits.backoff.after(attempts.unsent, random);
    Verdict::Resend { pause, cause: Reason::Unreachable(cause).into(), refresh: true }
}

impl Attempts {
    /// Whether it closed so many connections that it must not take other batches with it.
    pub(crate) fn travels_alone(&self) -> bool {
        self.lost_in_row >= SENT_ALONE_AFTER
    }

    fn error(
        &mut self,
        error: SequenceError,
        reason: Reason,
        limits: RetryLimits,
        random: u64,
    ) -> Verdict {
        match self.resend(reason, false, limits, random) {
            Verdict::Resend { pause, cause, .. } => Verdict::SequenceError { error, pause, cause },
            other => other,
        }
    }

    /// Until the deadline, however often.
    fn throttled(&mut self, reason: Reason, limits: RetryLimits, random: u64) -> Verdict {
        self.resent = self.resent.saturating_add(1);
        later(limits.backoff.after(self.resent, random), reason)
    }

    fn resend(
        &mut self,
        reason: Reason,
        refresh: bool,
        limits: RetryLimits,
        random: u64,
    ) -> Verdict {
        // A broker knows a stamped batch again: what is in doubt is resolved by asking until the
        // deadline, while giving up would leave it to somebody who can only write it twice.
        let is_resolvable = limits.idempotent && self.maybe_written;
        if self.resent >= limits.retries && !is_resolvable {
            return give_up(reason);
        }
        self.resent = self.resent.saturating_add(1);
        let pause = limits.backoff.after(self.resent, random);
        Verdict::Resend { pause, cause: reason.into(), refresh }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::LostReason;

    const LIMITS: RetryLimits = RetryLimits {
        retries: 5,
        idempotent: false,
        policy_throttles: false,
        backoff: Backoff { base: Duration::from_millis(100), max: Duration::from_secs(1) },
    };

    fn answer(code: i16, base_offset: i64) -> Appended {
        Appended { code, base_offset, log_append_ms: None, faults: vec![], leader: None }
    }

    fn after(attempts: &mut Attempts, code: i16, base_offset: i64) -> Verdict {
        judge(answer(code, base_offset), attempts, 2, LIMITS, Instant::now(), 20)
    }

    fn is_resend(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Resend { .. })
    }

    #[test]
    fn code_0_is_written_at_its_offset() {
        let written = Verdict::Written { base_offset: Some(7), log_append_ms: None };
        assert_eq!(after(&mut Attempts::default(), 0, 7), written);
    }

    #[test]
    fn a_refusal_before_the_append_leaves_no_doubt() {
        for code in [6, 5, 74, 75, 9, 56, 100, 103, 3, 19, 89, 2] {
            let mut attempts = Attempts::default();
            assert!(is_resend(&after(&mut attempts, code, -1)), "{code}");
            assert!(!attempts.maybe_written, "{code}");
        }
    }

    #[test]
    fn an_error_with_an_offset_is_no_proof() {
        for code in [6, 3, 56] {
            let mut attempts = Attempts::default();
            assert!(is_resend(&after(&mut attempts, code, 0)), "{code}");
            assert!(attempts.maybe_written, "{code}");
        }
    }

    #[test]
    fn doubt_outlives_later_refusals() {
        let mut attempts = Attempts::default();
        let lost = Lost { fault: LostReason::Closed, handed_over: true };
        assert!(is_resend(&judge_lost(&lost, &mut attempts, LIMITS, 20)));
        assert!(matches!(after(&mut attempts, 29, -1), Verdict::GiveUp { .. }));
        assert!(attempts.maybe_written);
    }

    #[test]
    fn what_was_never_handed_over_is_no_attempt() {
        let mut attempts = Attempts::default();
        let lost = Lost { fault: LostReason::Closed, handed_over: false };
        for _ in 0..20 {
            assert!(is_resend(&judge_lost(&lost, &mut attempts, LIMITS, 20)));
        }
        assert_eq!((attempts.maybe_written, attempts.resent), (false, 0));
    }

    #[test]
    fn retries_are_bounded_and_pauses_grow() {
        let mut attempts = Attempts::default();
        let pauses: Vec<_> = (0..5)
            .map(|_| match after(&mut attempts, 19, -1) {
                Verdict::Resend { pause, .. } => pause.as_millis(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1000]);
        let reason = Reason::Refused { code: 19, name: "NOT_ENOUGH_REPLICAS" };
        let last = Verdict::GiveUp { reason, topic_unknown: false };
        assert_eq!(after(&mut attempts, 19, -1), last);
    }

    #[test]
    fn retries_do_not_end_a_doubt_that_a_broker_can_resolve() {
        let limits = RetryLimits { idempotent: true, retries: 2, ..LIMITS };
        let lost = Lost { fault: LostReason::Closed, handed_over: true };
        let mut attempts = Attempts::default();
        assert!((0..20).all(|_| is_resend(&judge_lost(&lost, &mut attempts, limits, 20))));
        let bare = RetryLimits { idempotent: false, ..limits };
        assert!(matches!(judge_lost(&lost, &mut attempts, bare, 20), Verdict::GiveUp { .. }));
    }

    #[test]
    fn only_a_batch_known_to_be_absent_is_taken_apart() {
        for code in [10, 18, 87, 32] {
            assert_eq!(after(&mut Attempts::default(), code, -1), Verdict::Halve);
            let mut doubtful = Attempts { maybe_written: true, ..Attempts::default() };
            assert!(matches!(after(&mut doubtful, code, -1), Verdict::GiveUp { .. }), "{code}");
            let single = &mut Attempts::default();
            let alone = judge(answer(code, -1), single, 1, LIMITS, Instant::now(), 0);
            assert!(matches!(alone, Verdict::GiveUp { .. }), "{code}");
        }
    }

    #[test]
    fn records_at_fault_are_named() {
        for (code, reason) in [
            (87, Reason::InvalidRecord("why".into())),
            (44, Reason::InvalidRecord("why".into())),
            (32, Reason::InvalidTimestamp("why".into())),
        ] {
            let faults = vec![(1, "why".to_owned())];
            let answer = Appended { faults, ..answer(code, -1) };
            let verdict = judge(answer, &mut Attempts::default(), 3, LIMITS, Instant::now(), 0);
            assert_eq!(verdict, Verdict::Without(vec![(1, reason)]));
        }
    }

    #[test]
    fn a_policy_refuses_for_good_unless_it_is_the_vendors_word_for_throttling() {
        let refused = Reason::Refused { code: 44, name: "POLICY_VIOLATION" };
        let given_up = Verdict::GiveUp { reason: refused, topic_unknown: false };
        assert_eq!(after(&mut Attempts::default(), 44, -1), given_up);
        let limits = RetryLimits { policy_throttles: true, ..LIMITS };
        let mut attempts = Attempts::default();
        for _ in 0..20 {
            let verdict = judge(answer(44, -1), &mut attempts, 2, limits, Instant::now(), 20);
            assert!(is_resend(&verdict), "{verdict:?}");
        }
        assert!(!attempts.maybe_written);
    }

    #[test]
    fn damage_is_resent_once() {
        let mut attempts = Attempts::default();
        assert!(is_resend(&after(&mut attempts, 2, -1)));
        assert!(matches!(after(&mut attempts, 2, -1), Verdict::GiveUp { .. }));
    }

    #[test]
    fn an_unexplained_code_is_in_doubt_after_three_attempts() {
        let mut attempts = Attempts::default();
        assert!(is_resend(&after(&mut attempts, -1, -1)));
        assert!(is_resend(&after(&mut attempts, 45, -1)));
        assert!(matches!(after(&mut attempts, 999, -1), Verdict::GiveUp { .. }));
        assert!(attempts.maybe_written);
    }

    #[test]
    fn an_unknown_topic_is_given_5_seconds() {
        let (mut attempts, start) = (Attempts::default(), Instant::now());
        let limits = RetryLimits { retries: u32::MAX, ..LIMITS };
        let mut at = |ms| {
            let now = start + Duration::from_millis(ms);
            judge(answer(3, -1), &mut attempts, 1, limits, now, 0)
        };
        assert!(is_resend(&at(0)));
        assert!(is_resend(&at(4999)));
        let reason = Reason::UnknownTopic;
        assert_eq!(at(5000), Verdict::GiveUp { reason, topic_unknown: true });
    }

    #[test]
    fn troubles_of_sequence_and_identity_are_left_to_the_partition() {
        let limits = RetryLimits { idempotent: true, ..LIMITS };
        for (code, expected) in [
            (45, SequenceError::OutOfOrder),
            (59, SequenceError::Forgotten),
            (47, SequenceError::WrongIdentity),
            (49, SequenceError::WrongIdentity),
            (90, SequenceError::WrongIdentity),
        ] {
            let mut attempts = Attempts::default();
            let verdict = judge(answer(code, -1), &mut attempts, 2, limits, Instant::now(), 20);
            match verdict {
                Verdict::SequenceError { error, .. } => assert_eq!(error, expected, "{code}"),
                other => panic!("{code}: {other:?}"),
            }
            assert!(!attempts.maybe_written, "{code} is a refusal");
        }
    }

    #[test]
    fn every_code_has_a_verdict() {
        for code in -2..=140 {
            for doubt in [false, true] {
                let mut attempts = Attempts { maybe_written: doubt, ..Attempts::default() };
                let verdict = after(&mut attempts, code, -1);
                let written = matches!(verdict, Verdict::Written { .. });
                assert_eq!(written, code == 0 || code == 46, "{code}");
                assert!(attempts.maybe_written >= doubt, "{code}");
            }
        }
    }
}
