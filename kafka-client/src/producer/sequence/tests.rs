//! Stories about one partition's sequences.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

const RECORDS: usize = 10;
const NO_ID: NextAction = NextAction::Identify;

fn identity(producer_id: i64, epoch: i16) -> ProducerIdentity {
    ProducerIdentity { producer_id, epoch }
}

fn again(id: u64) -> NextAction {
    NextAction::Again { id, not_before: None }
}

/// With an identity, and bound to connection 1.
fn fresh() -> Sequence {
    let mut sequence = Sequence::new(5);
    assert!(sequence.identify(Some(identity(7, 0))));
    assert!(sequence.bind(1));
    sequence
}

/// One batch acknowledged, and `in_flight` more in flight: 2, 3, ….
fn open(in_flight: u64) -> Sequence {
    let mut sequence = fresh();
    sequence.stamp(1, RECORDS).unwrap();
    sequence.on_written(1);
    assert!((2..2 + in_flight).all(|id| sequence.stamp(id, RECORDS).is_some()));
    sequence
}

fn findings(sequence: &mut Sequence) -> Vec<Finding> {
    std::iter::from_fn(|| sequence.poll_finding()).collect()
}

fn key(stamp: Stamp) -> (i64, i16, i32) {
    (stamp.producer_id, stamp.producer_epoch, stamp.base_sequence)
}

#[test]
fn nothing_is_sent_before_there_is_an_identity() {
    let mut sequence = Sequence::new(5);
    assert_eq!(sequence.next_action(), NO_ID);
    assert_eq!(sequence.stamp(1, RECORDS), None);
    assert!(!sequence.identify(None));
    assert!(sequence.identify(Some(identity(7, 0))));
    assert_eq!(key(sequence.stamp(1, RECORDS).unwrap()), (7, 0, 0));
}

#[test]
fn one_batch_goes_first_then_five() {
    let mut sequence = fresh();
    sequence.stamp(1, RECORDS).unwrap();
    assert_eq!(sequence.next_action(), NextAction::Wait);
    sequence.on_written(1);
    for id in 2..7 {
        assert_eq!(sequence.next_action(), NextAction::New);
        sequence.stamp(id, RECORDS).unwrap();
    }
    assert_eq!(sequence.next_action(), NextAction::Wait);
    sequence.on_written(3);
    assert_eq!(
        sequence.next_action(),
        NextAction::Wait,
        "five from the oldest on are all a broker remembers"
    );
    sequence.on_written(2);
    assert_eq!(sequence.next_action(), NextAction::New);
}

#[test]
fn after_a_refusal_the_first_goes_alone_when_all_answers_are_in() {
    let mut sequence = open(3);
    sequence.on_retry(2, false, None);
    assert_eq!(sequence.next_action(), NextAction::Wait);
    sequence.on_sequence_error(3, SequenceError::OutOfOrder, false);
    sequence.on_sequence_error(4, SequenceError::OutOfOrder, false);
    assert_eq!(sequence.next_action(), again(2));
    assert_eq!(key(sequence.again(2).unwrap()), (7, 0, 10));
    assert_eq!(sequence.next_action(), NextAction::Wait);
    sequence.on_written(2);
    assert_eq!(sequence.next_action(), again(3));
    assert_eq!(key(sequence.again(3).unwrap()), (7, 0, 20));
    assert_eq!(sequence.next_action(), again(4));
    sequence.again(4).unwrap();
    assert_eq!(sequence.next_action(), NextAction::New);
    assert_eq!(findings(&mut sequence), []);
}

#[test]
fn a_new_connection_waits_for_the_old_one_and_begins_with_one() {
    let mut sequence = open(2);
    assert!(!sequence.bind(2));
    assert_eq!(sequence.next_action(), NextAction::Wait);
    sequence.on_written(2);
    assert_eq!(sequence.next_action(), NextAction::Wait);
    sequence.on_written(3);
    assert!(sequence.bind(2));
    sequence.stamp(4, RECORDS).unwrap();
    assert_eq!(sequence.next_action(), NextAction::Wait);
    sequence.on_written(4);
    assert_eq!(sequence.next_action(), NextAction::New);
}

#[test]
fn a_batch_that_leaves_voids_its_range() {
    let mut sequence = open(2);
    sequence.on_void(2, false);
    assert_eq!(sequence.next_action(), NextAction::Wait, "the other is in flight");
    sequence.on_sequence_error(3, SequenceError::OutOfOrder, false);
    assert_eq!(findings(&mut sequence), [Finding::Reset]);
    assert!(!sequence.holds(3));
    assert_eq!(key(sequence.stamp(3, RECORDS).unwrap()), (7, 1, 0));
}

#[test]
fn an_abandoned_batch_counts_by_its_late_answer() {
    let mut sequence = open(1);
    sequence.abandon(2);
    sequence.on_written(2);
    assert_eq!(key(sequence.stamp(3, RECORDS).unwrap()), (7, 0, 20));
    sequence.abandon(3);
    sequence.on_retry(3, true, Some(Instant::now()));
    assert_eq!(findings(&mut sequence), [Finding::Reset]);
    assert_eq!(key(sequence.stamp(4, RECORDS).unwrap()), (7, 1, 0));
}

#[test]
fn a_doubtful_batch_is_probed_before_a_reset() {
    let now = Instant::now();
    let mut sequence = open(3);
    (2..5).for_each(|id| sequence.on_retry(id, true, Some(now)));
    sequence.on_void(2, true);
    let not_before = Some(now + Duration::from_secs(1));
    assert_eq!(sequence.next_action(), NextAction::Again { id: 3, not_before });
    assert_eq!(key(sequence.again(3).unwrap()), (7, 0, 20), "under its old identity");
    assert_eq!(sequence.next_action(), NextAction::Wait, "alone");
    sequence.on_written(3);
    assert_eq!(sequence.next_action(), NextAction::Again { id: 4, not_before });
    sequence.again(4).unwrap();
    sequence.on_sequence_error(4, SequenceError::OutOfOrder, true);
    assert_eq!(findings(&mut sequence), [Finding::Absent(4), Finding::Reset]);
    assert_eq!(key(sequence.stamp(4, RECORDS).unwrap()), (7, 1, 0));
}

#[test]
fn a_gap_proves_nothing_if_a_later_batch_is_in_the_log() {
    let now = Instant::now();
    let mut sequence = open(3);
    (2..5).for_each(|id| sequence.on_retry(id, true, Some(now)));
    sequence.on_void(2, true);
    sequence.again(3).unwrap();
    sequence.on_sequence_error(3, SequenceError::OutOfOrder, true);
    sequence.again(4).unwrap();
    sequence.on_written(4);
    assert_eq!(findings(&mut sequence), [Finding::Unprovable(3), Finding::Reset]);
}

#[test]
fn a_lost_probe_is_repeated_a_second_later() {
    let now = Instant::now();
    let later = now + Duration::from_secs(5);
    let mut sequence = open(2);
    (2..4).for_each(|id| sequence.on_retry(id, true, Some(now)));
    sequence.on_void(2, true);
    sequence.again(3).unwrap();
    sequence.on_retry(3, true, Some(later));
    let not_before = Some(later + Duration::from_secs(1));
    assert_eq!(sequence.next_action(), NextAction::Again { id: 3, not_before });
}

#[test]
fn a_gap_before_the_head_is_a_loss_and_stops_nobody() {
    let mut sequence = open(2);
    sequence.on_sequence_error(2, SequenceError::OutOfOrder, false);
    sequence.on_sequence_error(3, SequenceError::OutOfOrder, false);
    assert_eq!(findings(&mut sequence), [Finding::Loss, Finding::Reset]);
    assert_eq!(key(sequence.stamp(2, RECORDS).unwrap()), (7, 1, 0));
}

#[test]
fn a_broker_that_forgot_has_lost_nothing() {
    let mut sequence = open(2);
    (2..4).for_each(|id| sequence.on_retry(id, true, None));
    sequence.again(2).unwrap();
    sequence.on_sequence_error(2, SequenceError::OutOfOrder, true);
    sequence.again(2).unwrap();
    sequence.on_sequence_error(2, SequenceError::OutOfOrder, true);
    sequence.again(3).unwrap();
    sequence.on_written(3);
    assert_eq!(findings(&mut sequence), [Finding::Unprovable(2), Finding::Reset]);
}

#[test]
fn a_gap_behind_what_was_acknowledged_proves_nothing() {
    let mut sequence = open(1);
    sequence.on_retry(2, true, None);
    for _ in 0..2 {
        sequence.again(2).unwrap();
        sequence.on_sequence_error(2, SequenceError::OutOfOrder, true);
    }
    assert_eq!(findings(&mut sequence), [Finding::Unprovable(2), Finding::Loss, Finding::Reset]);
}

#[test]
fn a_doubtful_batch_of_a_forgotten_producer_is_unprovable() {
    let mut sequence = open(1);
    sequence.on_retry(2, true, None);
    sequence.again(2).unwrap();
    sequence.on_sequence_error(2, SequenceError::Forgotten, true);
    assert_eq!(findings(&mut sequence), []);
    sequence.again(2).unwrap();
    sequence.on_sequence_error(2, SequenceError::Forgotten, true);
    assert_eq!(findings(&mut sequence), [Finding::Unprovable(2), Finding::Reset]);
}

#[test]
fn a_wrong_identity_is_replaced_by_another() {
    let mut sequence = open(2);
    sequence.on_sequence_error(2, SequenceError::WrongIdentity, false);
    sequence.on_sequence_error(3, SequenceError::WrongIdentity, false);
    assert_eq!((sequence.next_action(), sequence.spent_id()), (NO_ID, Some(7)));
    assert!(!sequence.identify(Some(identity(7, 0))), "the old one");
    assert!(sequence.identify(Some(identity(8, 0))));
    assert_eq!(key(sequence.stamp(2, RECORDS).unwrap()), (8, 0, 0));
}

#[test]
fn after_the_last_epoch_comes_another_id() {
    let mut sequence = Sequence::new(5);
    sequence.identify(Some(identity(7, i16::MAX - 1)));
    sequence.stamp(1, RECORDS).unwrap();
    sequence.on_void(1, false);
    assert_eq!(key(sequence.stamp(2, RECORDS).unwrap()), (7, i16::MAX, 0));
    sequence.on_void(2, false);
    assert_eq!((sequence.next_action(), sequence.spent_id()), (NO_ID, Some(7)));
}

#[test]
fn a_recreated_topic_starts_over() {
    let mut sequence = open(1);
    sequence.on_recreated();
    assert_eq!(sequence.next_action(), NextAction::Wait);
    sequence.on_retry(2, false, None);
    assert_eq!(key(sequence.stamp(2, RECORDS).unwrap()), (7, 1, 0));
}

proptest! {
    /// Ranges follow each other without a gap, through the wrap.
    #[test]
    fn ranges_wrap_inside_a_batch(
        start in i32::MAX - 5000..=i32::MAX, sizes in proptest::collection::vec(1usize..3000, 1..9),
    ) {
        let mut sequence = open(0);
        sequence.next = start;
        let mut expected = start;
        for (id, records) in (2..).zip(sizes) {
            let stamp = sequence.stamp(id, records).unwrap();
            prop_assert_eq!(stamp.base_sequence, expected);
            prop_assert_eq!(stamp.producer_epoch, 0);
            expected = sequence_after(expected, records);
            sequence.on_written(id);
        }
    }
}
