//! Stories of an outbox between requests and a bridge.

use std::time::Duration;

use super::{Callout, Depth, Outbox, Purpose, Settled};
use crate::callout::Ended;
use crate::capture::Captured;
use crate::config::Settings;
use crate::gateway::Gateway;
use crate::limits::RECORD_BYTES_MAX;
use crate::outcome::{Code, Outcome, Reason};
use crate::record::Record;
use crate::wire;

const START: Duration = Duration::from_secs(100);
const NO_REPLY: Ended<'_> = Ended {
    gateway: Gateway::Envoy,
    dispatch_status: None,
    status: None,
    marker: None,
    overloaded: false,
    body: None,
};

struct Filter {
    outbox: Outbox,
    sequence: u64,
    now: Duration,
}

impl Filter {
    fn new(fields: &str) -> Self {
        let config = format!(r#"{{"bridge":"b","topic":"orders",{fields}}}"#);
        let settings = Settings::parse(config.as_bytes()).unwrap();
        let outbox = Outbox::new(&settings, [1; 16]).unwrap();
        let mut filter = Self { outbox, sequence: 0, now: START };
        if settings.delivery == wire::Delivery::Memory {
            let register = filter.poll().unwrap();
            assert_eq!(register.purpose, Purpose::Register);
            assert_eq!(filter.reply(&register, 200, b"{}"), []);
        }
        filter
    }

    fn push(&mut self, stream: u32) -> Result<(), Code> {
        let value = stream.to_be_bytes();
        let record = Record {
            topic: "orders",
            partition: None,
            timestamp_ms: 0,
            key: None,
            value: Some(&value),
            headers: vec![],
        };
        self.outbox.push(wire::encode_record(&record).unwrap(), Some(stream), self.now)
    }

    fn poll(&mut self) -> Option<Callout> {
        let due = self.outbox.is_due(self.now);
        let callout = self.outbox.poll_callout(self.now, &mut self.sequence);
        assert_eq!(due, callout.is_some());
        callout
    }

    fn reply(&mut self, callout: &Callout, status: u16, body: &[u8]) -> Vec<Settled> {
        let ended =
            Ended { status: Some(status), marker: Some(b"1"), body: Some(body), ..NO_REPLY };
        self.outbox.on_ended(callout.purpose, &ended, self.now)
    }

    fn outcomes(&mut self, callout: &Callout, outcomes: &[Outcome]) -> Vec<Settled> {
        self.reply(callout, 200, &wire::encode_outcomes(outcomes).unwrap())
    }

    fn no_reply(&mut self, callout: &Callout) -> Vec<Settled> {
        self.outbox.on_ended(callout.purpose, &NO_REPLY, self.now)
    }
}

/// The stream numbers that a frame's records carry as values.
fn streams(callout: &Callout) -> Vec<u32> {
    let batch = wire::decode_frame(&callout.body).unwrap();
    let number = |value: &[u8]| u32::from_be_bytes(value.try_into().unwrap());
    batch.records.iter().map(|record| number(record.value.unwrap())).collect()
}

fn written(offset: i64) -> Outcome {
    Outcome::Written { partition: 0, offset: Some(offset) }
}

fn not(code: Code) -> Outcome {
    Outcome::NotWritten(Reason::new(code, ""))
}

fn told(settled: &[Settled]) -> Vec<(u32, &'static str)> {
    let name = |outcome: &Outcome| match outcome {
        Outcome::Written { .. } => "written",
        Outcome::NotWritten(_) => "not written",
        Outcome::Unknown(_) => "unknown",
        Outcome::Queued => "queued",
    };
    settled.iter().map(|one| (one.stream.unwrap(), name(&one.outcome))).collect()
}

const ACKED: &str = r#""producer_async":false"#;
const MEMORY: &str = r#""producer_async":true"#;

#[test]
fn what_queues_while_four_batches_are_in_flight_goes_out_together() {
    let mut filter = Filter::new(ACKED);
    let first: Vec<_> = (0..4)
        .map(|stream| {
            filter.push(stream).unwrap();
            filter.poll().unwrap()
        })
        .collect();
    (4..7).for_each(|stream| filter.push(stream).unwrap());
    assert_eq!(filter.poll(), None);
    let settled = filter.outcomes(&first[2], &[written(9)]);
    assert_eq!(told(&settled), [(2, "written")]);
    assert_eq!(streams(&filter.poll().unwrap()), [4, 5, 6]);
}

#[test]
fn swapped_replies_reach_their_own_streams() {
    let mut filter = Filter::new(ACKED);
    filter.push(1).unwrap();
    let one = filter.poll().unwrap();
    filter.push(2).unwrap();
    filter.push(3).unwrap();
    let two = filter.poll().unwrap();
    let settled = filter.outcomes(&two, &[written(0), not(Code::Rejected)]);
    assert_eq!(told(&settled), [(2, "written"), (3, "not written")]);
    assert_eq!(told(&filter.outcomes(&one, &[written(1)])), [(1, "written")]);
    assert_eq!(filter.outbox.depth(), Depth::default());
    assert_eq!(filter.outcomes(&one, &[written(1)]), [], "a second reply settles nothing");
}

#[test]
fn an_unknown_profile_is_registered_and_the_batch_sent_once_more() {
    let mut filter = Filter::new(ACKED);
    filter.push(1).unwrap();
    let produce = filter.poll().unwrap();
    assert_eq!(filter.reply(&produce, 404, b"{}"), []);
    let register = filter.poll().unwrap();
    assert_eq!((register.method, register.purpose), ("PUT", Purpose::Register));
    assert_eq!(filter.poll(), None, "nothing is sent before the profile is there");
    assert_eq!(filter.reply(&register, 200, b"{}"), []);
    let again = filter.poll().unwrap();
    assert_eq!(again.body, produce.body);
    let settled = filter.reply(&again, 404, b"{}");
    assert_eq!(told(&settled), [(1, "not written")], "registered once, not for ever");
}

#[test]
fn a_refused_profile_answers_who_waits_for_it() {
    let mut filter = Filter::new(ACKED);
    filter.push(1).unwrap();
    let produce = filter.poll().unwrap();
    filter.reply(&produce, 404, b"{}");
    let register = filter.poll().unwrap();
    assert_eq!(told(&filter.reply(&register, 422, b"no")), [(1, "not written")]);
    filter.push(2).unwrap();
    assert_eq!(filter.poll().unwrap().method, "POST", "the next request tries again");
}

#[test]
fn a_lost_reply_is_asked_for_again_under_the_same_sequence() {
    let mut filter = Filter::new(ACKED);
    filter.push(1).unwrap();
    let first = filter.poll().unwrap();
    assert_eq!(filter.no_reply(&first), []);
    assert_eq!(filter.poll(), None, "not before the backoff");
    filter.now += Duration::from_millis(50);
    let again = filter.poll().unwrap();
    assert_eq!(again.purpose, first.purpose);
    assert_eq!(told(&filter.outcomes(&again, &[written(5)])), [(1, "written")]);
}

#[test]
fn doubt_outlives_a_later_refusal() {
    let mut filter = Filter::new(ACKED);
    filter.push(1).unwrap();
    let first = filter.poll().unwrap();
    filter.no_reply(&first);
    filter.now += Duration::from_millis(50);
    let again = filter.poll().unwrap();
    let refused = filter.outbox.on_refused(again.purpose, "no host", filter.now);
    assert_eq!(refused, [], "the bridge may be back before the deadline");
    filter.now += Duration::from_millis(100);
    let third = filter.poll().unwrap();
    assert_eq!((third.purpose, third.body.len()), (first.purpose, first.body.len()));
    let settled = filter.outcomes(&third, &[not(Code::KafkaUnreachable)]);
    assert_eq!(told(&settled), [(1, "unknown")]);
}

#[test]
fn doubt_outlives_a_split() {
    let mut filter = Filter::new(ACKED);
    (1..3).for_each(|stream| filter.push(stream).unwrap());
    let whole = filter.poll().unwrap();
    filter.no_reply(&whole);
    filter.now += Duration::from_millis(50);
    let again = filter.poll().unwrap();
    filter.reply(&again, 413, b"{}");
    let half = filter.poll().unwrap();
    let settled = filter.outcomes(&half, &[not(Code::KafkaUnreachable)]);
    assert_eq!(told(&settled), [(1, "unknown")]);
}

#[test]
fn a_drain_waits_for_no_full_batch() {
    let mut filter = Filter::new(MEMORY);
    filter.push(1).unwrap();
    assert_eq!(filter.poll(), None);
    filter.outbox.drain();
    assert_eq!(streams(&filter.poll().unwrap()), [1]);
}

#[test]
fn a_deadline_ends_every_wait() {
    let mut filter = Filter::new(ACKED);
    filter.push(1).unwrap();
    let first = filter.poll().unwrap();
    filter.no_reply(&first);
    (2..6).for_each(|stream| filter.push(stream).unwrap());
    filter.now += Duration::from_secs(11);
    let settled = filter.outbox.expire(filter.now);
    assert_eq!(
        told(&settled),
        [
            (1, "unknown"),
            (2, "not written"),
            (3, "not written"),
            (4, "not written"),
            (5, "not written")
        ]
    );
    assert_eq!(filter.outbox.depth(), Depth::default());
}

#[test]
fn memory_mode_flushes_by_count_by_bytes_and_by_time() {
    let limits = r#","producer_request_limits_messages_per_request":3,
        "producer_request_limits_bytes_per_request":60"#;
    let mut filter = Filter::new(&[MEMORY, limits].concat());
    filter.push(1).unwrap();
    filter.push(2).unwrap();
    assert_eq!(filter.poll(), None);
    filter.push(3).unwrap();
    let by_count = filter.poll().unwrap();
    assert_eq!(streams(&by_count), [1, 2, 3]);
    filter.push(4).unwrap();
    filter.now += Duration::from_secs(1);
    assert_eq!(filter.poll(), None, "one batch in flight keeps the order");
    filter.outcomes(&by_count, &[written(0), written(1), written(2)]);
    assert_eq!(streams(&filter.poll().unwrap()), [4]);
}

#[test]
fn memory_mode_keeps_what_may_yet_be_written_and_drops_only_what_never_can() {
    let mut filter = Filter::new(&[MEMORY, r#","producer_async_flush_timeout":1"#].concat());
    (1..4).for_each(|stream| filter.push(stream).unwrap());
    filter.now += Duration::from_millis(1);
    let first = filter.poll().unwrap();
    filter.push(4).unwrap();
    let mixed = [written(0), not(Code::KafkaUnreachable), not(Code::Rejected)];
    let settled = filter.outcomes(&first, &mixed);
    assert_eq!(told(&settled), [(1, "written"), (3, "not written")]);
    assert_eq!(filter.poll(), None, "nothing overtakes the batch that is sent again");
    filter.now += Duration::from_secs(3600);
    assert_eq!(filter.outbox.expire(filter.now), []);
    let again = filter.poll().unwrap();
    assert_eq!(streams(&again), [2]);
    assert_ne!(again.purpose, first.purpose, "other records, another sequence");
    assert_eq!(filter.outbox.on_refused(again.purpose, "no host", filter.now), []);
    filter.now += Duration::from_secs(1);
    let third = filter.poll().unwrap();
    assert_eq!((third.purpose, &third.body), (again.purpose, &again.body));
}

#[test]
fn a_full_queue_refuses_by_records_and_by_bytes_and_frees_room_when_settled() {
    let limits = r#","producer_async_buffering_limits_messages_in_memory":2"#;
    let mut filter = Filter::new(&[ACKED, limits].concat());
    filter.push(1).unwrap();
    filter.push(2).unwrap();
    assert_eq!(filter.push(3), Err(Code::QueueFull));
    let batch = filter.poll().unwrap();
    assert_eq!(filter.push(3), Err(Code::QueueFull), "in flight counts");
    filter.outcomes(&batch, &[written(0), written(1)]);
    filter.push(3).unwrap();
    let bytes = r#","producer_async_buffering_limits_bytes_in_memory":1"#;
    let mut filter = Filter::new(&[ACKED, bytes].concat());
    filter.push(1).unwrap();
    assert_eq!(filter.push(2), Err(Code::QueueFull));
}

#[test]
fn a_frame_that_is_too_large_is_halved() {
    let mut filter = Filter::new(ACKED);
    (1..4).for_each(|stream| filter.push(stream).unwrap());
    let whole = filter.poll().unwrap();
    assert_eq!(filter.reply(&whole, 413, b"{}"), []);
    let (one, two) = (filter.poll().unwrap(), filter.poll().unwrap());
    assert_eq!((streams(&one), streams(&two)), (vec![1], vec![2, 3]));
    assert_eq!(told(&filter.reply(&one, 413, b"{}")), [(1, "not written")]);
}

#[test]
fn a_record_above_a_frame_is_refused() {
    let mut filter = Filter::new(ACKED);
    let record = vec![0; RECORD_BYTES_MAX + 1];
    assert_eq!(filter.outbox.push(record, None, START), Err(Code::RecordTooLarge));
}

#[test]
fn the_records_of_one_request_are_queued_all_or_none() {
    let limits = r#","producer_async_buffering_limits_messages_in_memory":3"#;
    let mut filter = Filter::new(&[ACKED, limits].concat());
    let two = || Captured { first: vec![0], more: vec![vec![1]] };
    assert_eq!(filter.outbox.push(two(), Some(1), START), Ok(()));
    assert_eq!(filter.outbox.push(two(), Some(2), START), Err(Code::QueueFull));
    assert_eq!(filter.outbox.depth().records, 2);
    let large = Captured { first: vec![0], more: vec![vec![0; RECORD_BYTES_MAX + 1]] };
    assert_eq!(filter.outbox.push(large, Some(2), START), Err(Code::RecordTooLarge));
    assert_eq!(filter.outbox.depth().records, 2);
}

#[test]
fn while_deliveries_fail_memory_mode_refuses_and_tries_what_it_holds_in_intervals() {
    let gating = r#","producer_async_flush_timeout":1,"producer_async_health_gating":true,
        "producer_async_health_failure_threshold":2,"producer_async_health_probe_interval":3000"#;
    let mut filter = Filter::new(&[MEMORY, gating].concat());
    filter.push(1).unwrap();
    filter.now += Duration::from_millis(1);
    let first = filter.poll().unwrap();
    filter.no_reply(&first);
    filter.push(2).unwrap();
    filter.now += Duration::from_millis(50);
    let second = filter.poll().unwrap();
    let refused = filter.outcomes(&second, &[not(Code::KafkaUnreachable)]);
    assert_eq!(refused, []);
    assert_eq!(filter.push(3), Err(Code::DeliveryFailing));
    filter.now += Duration::from_millis(2999);
    assert_eq!(filter.poll(), None, "not before the interval");
    filter.now += Duration::from_millis(1);
    let probe = filter.poll().unwrap();
    filter.outcomes(&probe, &[written(0)]);
    filter.push(3).unwrap();
    filter.now += Duration::from_millis(1);
    assert_eq!(streams(&filter.poll().unwrap()), [2, 3], "nothing that was taken is lost");
}

#[test]
fn a_profile_that_the_bridge_refuses_is_no_promise_in_memory_mode() {
    let flush = r#","producer_async_flush_timeout":1"#;
    let mut filter = Filter::new(&[MEMORY, flush].concat());
    filter.push(1).unwrap();
    for (status, then) in [(422, Err(Code::ProfileRefused)), (200, Ok(()))] {
        filter.now += Duration::from_secs(1);
        let produce = filter.poll().unwrap();
        filter.reply(&produce, 404, b"{}");
        let register = filter.poll().unwrap();
        assert_eq!(register.method, "PUT");
        filter.reply(&register, status, b"{}");
        assert_eq!(filter.push(2), then);
    }
}

#[test]
fn a_refused_profile_that_another_vm_registers_later_is_taken_again() {
    let flush = r#","producer_async_flush_timeout":1"#;
    let mut filter = Filter::new(&[MEMORY, flush].concat());
    filter.push(1).unwrap();
    filter.now += Duration::from_secs(1);
    let produce = filter.poll().unwrap();
    filter.reply(&produce, 404, b"{}");
    let register = filter.poll().unwrap();
    filter.reply(&register, 422, b"{}");
    assert_eq!(filter.push(2), Err(Code::ProfileRefused));
    filter.now += Duration::from_secs(1);
    let again = filter.poll().unwrap();
    filter.outcomes(&again, &[written(1)]);
    assert_eq!(filter.push(2), Ok(()));
}

#[test]
fn a_registration_that_failed_is_tried_again_without_a_batch() {
    let config = format!(r#"{{"bridge":"b","topic":"orders",{MEMORY}}}"#);
    let settings = Settings::parse(config.as_bytes()).unwrap();
    let outbox = Outbox::new(&settings, [1; 16]).unwrap();
    let mut filter = Filter { outbox, sequence: 0, now: START };
    for (status, then) in
        [(422, Err(Code::ProfileRefused)), (503, Err(Code::ProfileRefused)), (200, Ok(()))]
    {
        let register = filter.poll().unwrap();
        assert_eq!(register.purpose, Purpose::Register);
        filter.reply(&register, status, b"{}");
        assert_eq!(filter.push(1), then);
        assert_eq!(filter.poll(), None);
        filter.now += Duration::from_secs(5);
    }
}
