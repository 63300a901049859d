//! What is remembered of batches, and for how long.

use kafka_upstream_core::record::Record;

use super::*;

const HEAD: Head = Head {
    profile: [0; 32],
    vm: [1; 16],
    sequence: 7,
    delivery: Delivery::Acked,
    budget_ms: 10_000,
    settled_below: 0,
};
const WRITTEN: Outcome = Outcome::Written { partition: 1, offset: Some(5) };

fn sequence(sequence: u64) -> Head {
    Head { sequence, ..HEAD }
}

fn take_of(recent: &Recent, head: &Head, value: &[u8], records: usize) -> Seen {
    let (topic, headers) = ("orders", Vec::new());
    let (partition, key, value) = (None, None, Some(value));
    let record = Record { topic, partition, timestamp_ms: 5, key, value, headers };
    let encoded = wire::encode_record(&record).unwrap();
    let records = vec![encoded.as_slice(); records];
    let frame = wire::encode_frame(head, records.into_iter()).unwrap();
    recent.take(&wire::decode_frame(&frame).unwrap())
}

fn take(recent: &Recent, head: &Head) -> Seen {
    take_of(recent, head, b"value", 1)
}

fn new(recent: &Recent, head: &Head) -> Accepted {
    match take(recent, head) {
        Seen::New(taken) => taken,
        _ => panic!("{} is new", head.sequence),
    }
}

fn answered(recent: &Recent, head: &Head) -> Option<Vec<Outcome>> {
    match take(recent, head) {
        Seen::Answered(outcomes) => Some(wire::decode_outcomes(&outcomes).unwrap()),
        _ => None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_new_once_and_then_answered_from_memory() {
    let recent = Recent::default();
    let taken = new(&recent, &HEAD);
    let Seen::UnderWay(gone) = take(&recent, &HEAD) else { panic!("it is under way") };
    drop(gone);
    let Seen::UnderWay(mut early) = take(&recent, &HEAD) else { panic!("it is under way") };
    let Seen::UnderWay(late) = take(&recent, &HEAD) else { panic!("it is under way") };
    early.try_recv().unwrap_err();
    let answer = taken.answer(&[WRITTEN]);
    assert_eq!((early.await, late.await), (Ok(answer.clone()), Ok(answer)));
    assert_eq!(answered(&recent, &HEAD), Some(vec![WRITTEN]));
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_was_given_up_before_it_was_enqueued_is_new_again() {
    let recent = Recent::default();
    let first = new(&recent, &HEAD);
    let Seen::UnderWay(copy) = take(&recent, &HEAD) else { panic!("it is under way") };
    drop(first);
    copy.await.unwrap_err();
    drop(new(&recent, &HEAD));
    assert!(recent.lock().bytes <= ANSWER_BYTES, "of the VM");
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_lost_track_of_once_it_was_enqueued_is_unknown() {
    let recent = Recent::default();
    let mut taken = new(&recent, &HEAD);
    taken.enqueued();
    drop(taken);
    let outcomes = answered(&recent, &HEAD).unwrap();
    assert!(matches!(outcomes[..], [Outcome::Unknown(_)]), "{outcomes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_remembered_as_long_as_its_sender_may_send_it_again() {
    let recent = Recent::default();
    let hour = Head { budget_ms: 3_600_000, ..sequence(1) };
    let memory = Head { vm: [2; 16], delivery: Delivery::Memory, ..sequence(1) };
    let short = sequence(2);
    let not_written = Outcome::NotWritten(Reason::new(Code::QueueFull, "full"));
    new(&recent, &hour).answer(std::slice::from_ref(&not_written));
    new(&recent, &memory).answer(&[WRITTEN]);
    new(&recent, &short).answer(&[WRITTEN]);
    tokio::time::advance(Duration::from_secs(61)).await;
    assert_eq!(answered(&recent, &short), Some(vec![WRITTEN]));
    tokio::time::advance(Duration::from_secs(3500)).await;
    assert_eq!(answered(&recent, &hour), Some(vec![not_written]));
    assert_eq!(answered(&recent, &memory), Some(vec![WRITTEN]));
    assert!(matches!(take(&recent, &short), Seen::New(_)), "nobody can ask for it any more");
    tokio::time::advance(Duration::from_secs(3500)).await;
    assert_eq!(answered(&recent, &memory), Some(vec![WRITTEN]), "it was asked for since");
    tokio::time::advance(2 * MEMORY_ANSWER_KEPT).await;
    drop(new(&recent, &Head { vm: [3; 16], ..HEAD }));
    assert_eq!(recent.lock().bytes, ANSWER_BYTES, "all that is left is the last VM");
}

#[tokio::test(start_paused = true)]
async fn a_later_batch_is_no_proof_and_the_vms_word_is() {
    let recent = Recent::default();
    new(&recent, &sequence(1)).answer(&[WRITTEN]);
    new(&recent, &sequence(2)).answer(&[WRITTEN]);
    assert!(answered(&recent, &sequence(1)).is_some());
    new(&recent, &Head { settled_below: 2, ..sequence(3) }).answer(&[WRITTEN]);
    assert!(
        matches!(take(&recent, &sequence(1)), Seen::Settled),
        "a copy that was long on its way"
    );
    assert!(answered(&recent, &sequence(2)).is_some());
    // Copies may arrive in any order.
    let late = Head { settled_below: 1, ..sequence(2) };
    assert!(answered(&recent, &late).is_some());
    assert!(matches!(take(&recent, &sequence(1)), Seen::Settled));
}

#[tokio::test(start_paused = true)]
async fn another_batch_under_the_same_number_never_gets_the_first_answer() {
    let recent = Recent::default();
    let taken = new(&recent, &HEAD);
    let differs = |head: &Head, value, records| {
        matches!(take_of(&recent, head, value, records), Seen::Differs)
    };
    assert!(differs(&HEAD, b"other", 1));
    taken.answer(&[WRITTEN]);
    assert!(differs(&HEAD, b"other", 1) && differs(&HEAD, b"value", 2));
    assert!(differs(&Head { profile: [1; 32], ..HEAD }, b"value", 1));
    let again = Head { budget_ms: 3, ..HEAD };
    assert!(answered(&recent, &again).is_some(), "another budget is the same batch");
}

#[tokio::test(start_paused = true)]
async fn at_the_bound_what_is_new_is_refused_and_nothing_is_forgotten() {
    let recent = Recent::default();
    let mut taken = Vec::new();
    let full = (1..).find(|number| match take_of(&recent, &sequence(*number), b"", 10_000) {
        Seen::New(new) => {
            taken.push(new);
            false
        }
        Seen::Full => true,
        _ => panic!("{number}"),
    });
    let full = full.unwrap();
    assert_eq!(full as usize - 1, (ANSWERS_BYTES - ANSWER_BYTES) / (ANSWER_BYTES + 170_000));
    // However long its reasons are, an answer takes no more than was set aside for it.
    let reason = Reason::new(Code::KafkaRefused, "x".repeat(250));
    let outcomes = vec![Outcome::Unknown(reason); 10_000];
    taken.into_iter().for_each(|taken| drop(taken.answer(&outcomes)));
    assert!(recent.lock().bytes <= ANSWERS_BYTES);
    let seen = take_of(&recent, &sequence(1), b"", 10_000);
    let Seen::Answered(kept) = seen else { panic!("it is remembered") };
    assert_eq!(wire::decode_outcomes(&kept).unwrap().len(), 10_000);
    let settled = Head { settled_below: full, ..sequence(full) };
    drop(new(&recent, &settled));
    assert_eq!(recent.lock().bytes, ANSWER_BYTES);
}
