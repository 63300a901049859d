//! Hand-made histories: a clean one, and one for each promise that can be broken.

use super::*;

fn place() -> Place {
    ("orders".to_owned(), 0)
}

fn sent(id: u64, heard: Heard) -> Sent {
    let topic = "orders".to_owned();
    Sent { id, topic, heard, deadline_ms: 1000, settled_ms: 1000, is_ordered: true }
}

fn written(offset: i64) -> Heard {
    Heard::Written { partition: 0, offset: Some(offset) }
}

fn travelled(sequence: i32, bytes: &'static [u8], ids: &[u64]) -> Travelled {
    let bytes = Bytes::from_static(bytes);
    let (place, ids) = (place(), ids.to_vec());
    Travelled { at_ms: 0, broker: 1, place, producer: 7, epoch: 0, sequence, bytes, ids }
}

/// Records 1 and 2 in two batches, the second sent twice; 3 refused, 4 unknown and written.
fn clean() -> History {
    History {
        records: vec![
            sent(1, written(0)),
            sent(2, written(1)),
            sent(3, Heard::NotWritten("refused".to_owned())),
            sent(4, Heard::Unknown("lost".to_owned())),
            sent(5, Heard::Ignored),
            sent(6, Heard::Written { partition: 0, offset: None }),
        ],
        logs: BTreeMap::from([(place(), vec![(0, 1), (1, 2), (2, 4)])]),
        wire: vec![
            travelled(0, b"one", &[1]),
            travelled(1, b"two", &[2]),
            travelled(1, b"two", &[2]),
            travelled(2, b"four", &[4]),
        ],
        impatient: Vec::new(),
        wedged: Vec::new(),
        promise: Promise::ExactlyOnce,
        leftovers: Leftovers::default(),
        ledger: Ledger::default(),
    }
}

/// What is found when one thing in the clean history is changed.
fn found(change: impl Fn(&mut History)) -> Vec<Violation> {
    let mut history = clean();
    change(&mut history);
    check(&history)
}

fn log(history: &mut History) -> &mut Vec<(i64, u64)> {
    history.logs.get_mut(&place()).unwrap()
}

#[test]
fn a_clean_history_breaks_nothing() {
    assert_eq!(check(&clean()), []);
}

#[test]
fn an_acknowledged_record_must_be_in_the_log() {
    let lost = Violation::Lost { id: 2, partition: 0, offset: 1 };
    assert_eq!(found(|history| log(history).retain(|(_, id)| *id != 2)), [lost]);
}

#[test]
fn an_acknowledged_record_must_be_at_its_offset() {
    let lost = Violation::Lost { id: 2, partition: 0, offset: 9 };
    assert_eq!(found(|history| history.records[1].heard = written(9)), [lost]);
}

#[test]
fn a_denied_record_must_be_absent() {
    let denied = Violation::Denied { id: 3, reason: "refused".to_owned() };
    assert_eq!(found(|history| log(history).push((3, 3))), [denied]);
}

#[test]
fn copies_are_a_fault_only_with_exactly_once() {
    let copy = |history: &mut History| log(history).push((3, 4));
    assert_eq!(found(copy), [Violation::Copied { id: 4, copies: 2 }]);
    for promise in [Promise::AtLeastOnce, Promise::Identified] {
        let found = found(|history| {
            copy(history);
            history.promise = promise;
        });
        assert_eq!(found, []);
    }
}

#[test]
fn acknowledged_records_keep_their_order() {
    let swap = |history: &mut History| {
        *log(history) = vec![(0, 2), (1, 1), (2, 4)];
        history.records[0].heard = written(1);
        history.records[1].heard = written(0);
    };
    assert_eq!(found(swap), [Violation::Overtaken { id: 1, by: 2 }]);
    let unordered = found(|history| {
        swap(history);
        history.records[0].is_ordered = false;
    });
    assert_eq!(unordered, []);
}

#[test]
fn two_records_cannot_have_one_offset() {
    let share = |history: &mut History| {
        log(history).push((0, 2));
        history.records[1].heard = written(0);
        history.promise = Promise::AtLeastOnce;
    };
    assert_eq!(found(share), [Violation::Overtaken { id: 1, by: 2 }]);
}

#[test]
fn a_record_is_settled_within_its_grace() {
    let settle = |ms| found(move |history| history.records[3].settled_ms = ms);
    assert_eq!(settle(1100), []);
    assert_eq!(settle(1101), [Violation::Late { id: 4, by_ms: 101 }]);
    let never = found(|history| history.records[3].heard = Heard::Nothing);
    assert_eq!(never, [Violation::NeverSettled { id: 4 }]);
}

#[test]
fn a_record_belongs_to_its_topic() {
    let stray = Violation::Stray { id: 4 };
    assert_eq!(found(|history| history.records[3].topic = "other".to_owned()), [stray]);
    assert_eq!(found(|history| log(history).push((3, 99))), [Violation::Stray { id: 99 }]);
}

#[test]
fn a_sequence_is_spent_once() {
    let reused = Violation::SequenceReused { place: place(), sequence: 2, ids: (4, 5) };
    let later = found(|history| history.wire.push(travelled(1, b"two", &[2, 5])));
    assert_eq!(later, [reused]);
    let next_epoch = found(|history| {
        let fresh = Travelled { epoch: 1, ..travelled(2, b"five", &[5]) };
        history.wire.push(fresh);
    });
    assert_eq!(next_epoch, []);
}

#[test]
fn sequences_are_compared_behind_the_wrap() {
    let found = found(|history| {
        history.wire.push(travelled(i32::MAX, b"wrap", &[8, 9]));
    });
    let ids = (1, 9);
    assert_eq!(found, [Violation::SequenceReused { place: place(), sequence: 0, ids }]);
}

#[test]
fn a_stamped_batch_never_changes() {
    let changed = Violation::BatchChanged { place: place(), sequence: 1 };
    assert_eq!(found(|history| history.wire[2].bytes = Bytes::from_static(b"2!")), [changed]);
}

#[test]
fn an_idempotent_producer_has_a_name() {
    let anonymous = Violation::Anonymous { place: place() };
    assert_eq!(found(|history| history.wire[3].producer = -1), [anonymous]);
}

#[test]
fn a_throttled_broker_is_left_alone() {
    let impatient = Violation::Impatient { broker: 2 };
    assert_eq!(found(|history| history.impatient.push(2)), [impatient]);
}

#[test]
fn nothing_is_left_behind() {
    let leftover = Violation::Leftover { buffered_bytes: 1, connections: 0 };
    assert_eq!(found(|history| history.leftovers.buffered_bytes = 1), [leftover]);
}

#[test]
fn a_client_recovers() {
    let wedged = Violation::Wedged { place: place() };
    assert_eq!(found(|history| history.wedged.push(place())), [wedged]);
}
