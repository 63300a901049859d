//! Stories about one partition's queue.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::Outcome;
use crate::producer::batch::Regrouped;
use crate::producer::batch::ResendReason;
use crate::producer::memory::Memory;
use crate::producer::settle::{Ledger, Ticket};
use crate::record_batch;
use crate::stats::Counters;

const LIMITS: BatchLimits = BatchLimits {
    batch_bytes: 1000,
    batch_records: 5,
    request_bytes: 4000,
    buffer_bytes: 40_000,
    linger: Duration::ZERO,
    idempotent_in_flight: None,
};
const CONNECTION: u64 = 1;
const RESERVED: usize = 200;

struct Fixture {
    queue: Accumulator,
    ledger: Arc<Ledger>,
    start: Instant,
}

impl Fixture {
    fn new(limits: BatchLimits) -> Self {
        let stats = Arc::<Counters>::default();
        let ledger = Ledger::new(Memory::new(limits.buffer_bytes, stats.clone()), stats);
        Self {
            queue: Accumulator::new(3, 0, limits, ledger.clone()),
            ledger,
            start: Instant::now(),
        }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn push(&mut self, value: &[u8], deadline_ms: u64, now_ms: u64) -> Result<Ticket, Reason> {
        let record = Record {
            partition: None,
            key: None,
            value: Some(value),
            headers: &[],
            timestamp_ms: 5,
        };
        let (deadline, now) = (self.at(deadline_ms), self.at(now_ms));
        let mut permit = self.ledger.memory.try_reserve(RESERVED)?;
        let (cell, index) = self.queue.push(&record, RESERVED, deadline, now)?;
        permit.spend(RESERVED)?;
        Ok(Ticket { cell, index, timestamp_ms: 5 })
    }

    fn take(&mut self, now_ms: u64) -> Option<InFlightBatch> {
        match self.queue.take(self.at(now_ms), 4000, true, CONNECTION) {
            NextBatch::Batch { id, content, records, attempts, stamp } => {
                let bytes = match content {
                    Content::Growing(builder) => builder.finish(stamp),
                    Content::Sealed(bytes) => stamp.put(bytes).unwrap(),
                    Content::InFlight => panic!("it is in flight"),
                };
                Some(InFlightBatch { id, bytes, records, attempts })
            }
            _ => None,
        }
    }

    fn resend(&mut self, shipment: InFlightBatch, at_ms: u64) {
        let (at, cause) = (self.at(at_ms), blocked("it broke"));
        self.queue.finish(shipment, Ending::Resend { at, cause, why: ResendReason::Refused });
    }

    fn buffered(&self) -> u64 {
        self.ledger.stats.buffered_bytes.get()
    }
}

fn written(offset: i64) -> Outcome {
    Outcome::Written { partition: 3, offset: Some(offset), timestamp_ms: 5 }
}

fn ending_at(offset: i64) -> Ending {
    Ending::Written { base_offset: Some(offset), log_append_ms: None }
}

fn blocked(why: &str) -> Arc<Reason> {
    Reason::Unreachable(why.into()).into()
}

fn late(last: Option<&str>) -> Reason {
    Reason::DeadlineExceeded { last: last.map(blocked) }
}

#[tokio::test]
async fn a_lone_record_waits_for_nothing() {
    let mut fixture = Fixture::new(LIMITS);
    let ticket = fixture.push(b"a", 1000, 0).unwrap();
    assert!(fixture.queue.poll_due(fixture.at(0)));
    assert!(!fixture.queue.poll_due(fixture.at(0)), "it is due once");
    let shipment = fixture.take(0).unwrap();
    fixture.queue.finish(shipment, ending_at(7));
    assert_eq!(ticket.outcome().await, written(7));
    assert!(fixture.queue.is_empty());
    assert_eq!(fixture.buffered(), 0);
}

#[test]
fn records_gather_while_a_batch_is_in_flight() {
    let mut fixture = Fixture::new(LIMITS);
    let _first = fixture.push(b"a", 1000, 0);
    assert!(fixture.queue.poll_due(fixture.at(0)));
    let first = fixture.take(0).unwrap();
    for _ in 0..3 {
        fixture.push(b"b", 1000, 1).unwrap();
        assert!(!fixture.queue.poll_due(fixture.at(1)));
    }
    fixture.queue.finish(first, ending_at(0));
    assert!(fixture.queue.poll_due(fixture.at(2)));
    assert_eq!(fixture.take(2).unwrap().records, 3);
}

#[test]
fn a_batch_is_full_by_records_or_by_bytes() {
    let mut fixture = Fixture::new(LIMITS);
    (0..7).for_each(|_| drop(fixture.push(b"a", 1000, 0).unwrap()));
    assert_eq!(fixture.take(0).unwrap().records, 5);

    let mut fixture = Fixture::new(LIMITS);
    (0..3).for_each(|_| drop(fixture.push(&[7; 450], 1000, 0).unwrap()));
    let shipment = fixture.take(0).unwrap();
    assert_eq!(shipment.records, 2);
    assert!(shipment.bytes.len() <= 1000);
}

#[test]
fn a_large_record_is_a_batch_of_its_own_and_a_larger_one_is_refused() {
    let mut fixture = Fixture::new(LIMITS);
    let _small = fixture.push(b"a", 1000, 0);
    let _large = fixture.push(&[7; 3000], 1000, 0).unwrap();
    assert_eq!(fixture.push(&[7; 4000], 1000, 0).unwrap_err(), Reason::TooLarge);
    let first = fixture.take(0).unwrap();
    assert_eq!(first.records, 1);
    fixture.queue.finish(first, ending_at(0));
    assert!(fixture.take(0).unwrap().bytes.len() > 3000);
}

#[test]
fn linger_waits_for_more_unless_the_client_closes() {
    let mut fixture = Fixture::new(BatchLimits { linger: Duration::from_millis(10), ..LIMITS });
    let _ticket = fixture.push(b"a", 1000, 0);
    assert!(!fixture.queue.poll_due(fixture.at(9)));
    assert_eq!(fixture.queue.poll_alarm(), Some(fixture.at(10)));
    assert!(fixture.queue.poll_due(fixture.at(10)));
    assert!(fixture.take(10).is_some());

    let mut fixture = Fixture::new(BatchLimits { linger: Duration::from_millis(10), ..LIMITS });
    let _ticket = fixture.push(b"a", 1000, 0);
    fixture.queue.drain();
    assert!(fixture.queue.poll_due(fixture.at(1)));
    assert_eq!(fixture.push(b"b", 1000, 1).unwrap_err(), Reason::Closed);
}

#[tokio::test]
async fn what_was_never_sent_is_not_written_at_its_deadline() {
    let mut fixture = Fixture::new(LIMITS);
    let ticket = fixture.push(b"a", 100, 0).unwrap();
    assert!(fixture.queue.on_blocked(&blocked("no route")));
    assert_eq!(fixture.queue.poll_alarm(), Some(fixture.at(100)));
    fixture.queue.on_alarm(fixture.at(100));
    assert_eq!(ticket.outcome().await, Outcome::NotWritten(late(Some("no route"))));
    assert_eq!(fixture.buffered(), 0);
    assert!(!fixture.queue.on_blocked(&blocked("no route")), "nothing waits any more");
}

#[tokio::test]
async fn a_batch_in_flight_is_unknown_at_its_deadline_and_keeps_its_place() {
    let mut fixture = Fixture::new(LIMITS);
    let ticket = fixture.push(b"a", 100, 0).unwrap();
    let shipment = fixture.take(0).unwrap();
    let _next = fixture.push(b"b", 900, 50);
    fixture.queue.on_alarm(fixture.at(100));
    let still = Reason::NoAnswer("the request is still under way".into()).into();
    let late = Reason::DeadlineExceeded { last: Some(still) };
    assert_eq!(ticket.outcome().await, Outcome::Unknown(late));
    assert!(!fixture.queue.poll_due(fixture.at(101)), "its request is still under way");
    fixture.queue.finish(shipment, ending_at(0));
    assert!(fixture.queue.poll_due(fixture.at(102)));
    assert_eq!(fixture.buffered(), RESERVED as u64);
}

#[tokio::test]
async fn doubt_from_an_earlier_attempt_decides_at_the_deadline() {
    let mut fixture = Fixture::new(LIMITS);
    let ticket = fixture.push(b"a", 100, 0).unwrap();
    let mut shipment = fixture.take(0).unwrap();
    shipment.attempts.maybe_written = true;
    fixture.resend(shipment, 50);
    fixture.queue.on_alarm(fixture.at(100));
    assert_eq!(ticket.outcome().await, Outcome::Unknown(late(Some("it broke"))));

    let mut fixture = Fixture::new(LIMITS);
    let ticket = fixture.push(b"a", 100, 0).unwrap();
    let shipment = fixture.take(0).unwrap();
    fixture.resend(shipment, 50);
    fixture.queue.on_alarm(fixture.at(100));
    assert_eq!(ticket.outcome().await, Outcome::NotWritten(late(Some("it broke"))));
}

#[test]
fn a_resent_batch_goes_first_unchanged_after_its_pause() {
    let mut fixture = Fixture::new(LIMITS);
    let _a = fixture.push(b"a", 1000, 0);
    let first = fixture.take(0).unwrap();
    let bytes = first.bytes.clone();
    let _b = fixture.push(b"b", 1000, 1);
    fixture.resend(first, 100);
    assert!(!fixture.queue.poll_due(fixture.at(99)));
    assert!(fixture.queue.poll_due(fixture.at(100)));
    assert_eq!(fixture.take(100).unwrap().bytes, bytes);
}

#[tokio::test]
async fn the_earliest_deadline_is_that_of_the_batch() {
    let mut fixture = Fixture::new(LIMITS);
    let patient = fixture.push(b"a", 1000, 0).unwrap();
    let hasty = fixture.push(b"b", 100, 0).unwrap();
    fixture.queue.on_alarm(fixture.at(100));
    assert_eq!(hasty.outcome().await, Outcome::NotWritten(late(None)));
    assert_eq!(patient.outcome().await, Outcome::NotWritten(late(None)));
}

#[tokio::test]
async fn a_batch_takes_records_for_a_second_only() {
    let mut fixture = Fixture::new(LIMITS);
    let first = fixture.push(b"a", 5000, 0).unwrap();
    let second = fixture.push(b"b", 6500, 1500).unwrap();
    fixture.queue.on_alarm(fixture.at(5000));
    assert_eq!(first.outcome().await, Outcome::NotWritten(late(None)));
    let shipment = fixture.take(5001).unwrap();
    fixture.queue.finish(shipment, ending_at(9));
    assert_eq!(second.outcome().await, written(9));
}

#[tokio::test]
async fn a_patient_record_does_not_share_the_deadline_of_an_impatient_one() {
    let mut fixture = Fixture::new(LIMITS);
    let hurried = fixture.push(b"h", 100, 0).unwrap();
    let patient = fixture.push(b"p", 60_000, 0).unwrap();
    fixture.queue.on_alarm(fixture.at(100));
    assert_eq!(hurried.outcome().await, Outcome::NotWritten(late(None)));
    let shipment = fixture.take(100).unwrap();
    fixture.queue.finish(shipment, ending_at(7));
    assert_eq!(patient.outcome().await, written(7));
}

#[test]
fn one_partition_takes_a_quarter_of_the_memory() {
    let mut fixture = Fixture::new(LIMITS);
    let taken = (0..200).take_while(|_| fixture.push(b"a", 1000, 0).is_ok()).count();
    assert_eq!(taken * RESERVED, LIMITS.buffer_bytes / 4);
    assert!(!fixture.queue.poll_room());
    let shipment = fixture.take(0).unwrap();
    fixture.queue.finish(shipment, ending_at(0));
    assert!(fixture.queue.poll_room());
    assert!(!fixture.queue.poll_room(), "it is told once");
}

#[tokio::test]
async fn a_halved_batch_keeps_its_order_and_its_tickets() {
    let mut fixture = Fixture::new(LIMITS);
    let tickets: Vec<_> = (0..5u8).map(|value| fixture.push(&[value], 1000, 0).unwrap()).collect();
    let shipment = fixture.take(0).unwrap();
    let halves = Regrouped::halves(&shipment.bytes).unwrap();
    fixture.queue.finish(shipment, Ending::Regroup(halves));
    assert_eq!(fixture.buffered(), 5 * RESERVED as u64);
    for (offset, values) in [(10, &[0u8, 1, 2][..]), (20, &[3, 4])] {
        let half = fixture.take(1).unwrap();
        assert_eq!(values_of(&half.bytes), values);
        fixture.queue.finish(half, ending_at(offset));
    }
    let mut outcomes = Vec::new();
    for ticket in tickets {
        outcomes.push(ticket.outcome().await);
    }
    assert_eq!(outcomes, [10, 11, 12, 20, 21].map(written));
    assert_eq!(fixture.buffered(), 0);
}

#[tokio::test]
async fn a_record_at_fault_does_not_fail_its_neighbours() {
    let mut fixture = Fixture::new(LIMITS);
    let tickets: Vec<_> = (0..3u8).map(|value| fixture.push(&[value], 1000, 0).unwrap()).collect();
    let shipment = fixture.take(0).unwrap();
    let no_key = Reason::InvalidRecord("no key".into());
    let without = Regrouped::without(&shipment.bytes, &[(1, no_key.clone())]).unwrap();
    fixture.queue.finish(shipment, Ending::Regroup(without));
    let rest = fixture.take(1).unwrap();
    assert_eq!(values_of(&rest.bytes), [0, 2]);
    fixture.queue.finish(rest, ending_at(4));
    let mut outcomes = Vec::new();
    for ticket in tickets {
        outcomes.push(ticket.outcome().await);
    }
    let refused = Outcome::NotWritten(no_key);
    assert_eq!(outcomes, [written(4), refused, written(5)]);
    assert_eq!(fixture.buffered(), 0);
}

#[test]
fn a_batch_that_closes_connections_travels_alone() {
    let mut fixture = Fixture::new(LIMITS);
    let _ticket = fixture.push(b"a", 1000, 0);
    let mut shipment = fixture.take(0).unwrap();
    let lost =
        crate::connection::Lost { fault: crate::connection::LostReason::Closed, handed_over: true };
    let limits = crate::producer::verdict::RetryLimits {
        retries: 9,
        idempotent: false,
        policy_throttles: false,
        backoff: crate::backoff::Backoff { base: Duration::ZERO, max: Duration::ZERO },
    };
    for _ in 0..3 {
        let _verdict =
            crate::producer::verdict::judge_lost(&lost, &mut shipment.attempts, limits, 0);
    }
    fixture.resend(shipment, 0);
    let now = fixture.at(1);
    assert!(matches!(fixture.queue.take(now, 4000, false, CONNECTION), NextBatch::NoRoom));
    assert!(matches!(fixture.queue.take(now, 4000, true, CONNECTION), NextBatch::Batch { .. }));
}

#[tokio::test]
async fn giving_up_settles_each_batch_by_its_attempts() {
    let mut fixture = Fixture::new(LIMITS);
    let in_flight = fixture.push(b"a", 1000, 0).unwrap();
    let shipment = fixture.take(0).unwrap();
    let waiting = fixture.push(b"b", 1000, 0).unwrap();
    fixture.queue.give_up(&Reason::Closed);
    assert_eq!(in_flight.outcome().await, Outcome::Unknown(Reason::Closed));
    assert_eq!(waiting.outcome().await, Outcome::NotWritten(Reason::Closed));
    fixture.queue.finish(shipment, ending_at(0));
    assert_eq!(fixture.buffered(), 0);
}

fn values_of(batch: &Bytes) -> Vec<u8> {
    let (_, records) = record_batch::decode_all(batch).unwrap();
    records.iter().flat_map(|record| record.value.clone().unwrap().to_vec()).collect()
}

#[test]
fn an_alarm_for_each_linger_adds_none_for_the_deadline() {
    let mut fixture = Fixture::new(BatchLimits { linger: Duration::from_millis(5), ..LIMITS });
    let mut alarms = Vec::new();
    for round in 0..100 {
        let now = 10 * round;
        drop(fixture.push(b"a", 60_000 + now, now).unwrap());
        alarms.extend(fixture.queue.poll_alarm());
        fixture.queue.on_alarm(fixture.at(now + 5));
        let shipment = fixture.take(now + 5).unwrap();
        fixture.queue.finish(shipment, ending_at(7));
        alarms.extend(fixture.queue.poll_alarm());
    }
    let of_deadlines = alarms.iter().filter(|at| **at >= fixture.at(60_000)).count();
    assert_eq!((alarms.len() - of_deadlines, of_deadlines), (100, 1));
}

#[test]
fn no_record_lingers_until_its_deadline() {
    let mut fixture = Fixture::new(BatchLimits { linger: Duration::from_secs(20), ..LIMITS });
    let _patient = fixture.push(b"a", 30_000, 0).unwrap();
    assert!(!fixture.queue.poll_due(fixture.at(19_999)));
    let _hasty = fixture.push(b"b", 10_000, 0).unwrap();
    assert_eq!(fixture.queue.poll_alarm(), Some(fixture.at(7500)));
    assert!(!fixture.queue.poll_due(fixture.at(7499)));
    assert!(fixture.queue.poll_due(fixture.at(7500)));
}

#[test]
fn small_batches_after_a_large_one_take_little_memory() {
    let limits = BatchLimits { batch_bytes: 100_000, request_bytes: 200_000, ..LIMITS };
    let mut fixture = Fixture::new(BatchLimits { buffer_bytes: 1_000_000, ..limits });
    drop(fixture.push(&[7; 90_000], 500_000, 0).unwrap());
    let _away = fixture.take(0).unwrap();
    for second in 1..=100 {
        drop(fixture.push(b"a", 500_000, 1000 * second).unwrap());
    }
    let kept = fixture.queue.queue.capacity();
    assert!(kept < 120_000, "{kept} bytes for 100 small batches");
}

#[test]
fn late_batches_behind_patient_ones_expire_in_one_pass() {
    let limits = BatchLimits { batch_records: 1, buffer_bytes: 64 * 1024 * 1024, ..LIMITS };
    let mut fixture = Fixture::new(limits);
    for number in 0..60_000 {
        drop(fixture.push(b"a", if number < 30_000 { 9000 } else { 1000 }, 0).unwrap());
    }
    let started = std::time::Instant::now();
    fixture.queue.on_alarm(fixture.at(1000));
    assert_eq!(fixture.buffered(), 30_000 * RESERVED as u64);
    assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
}
