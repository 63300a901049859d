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
        self.push_to("orders", stream)
    }

    fn push_to(&mut self, topic: &str, stream: u32) -> Result<(), Code> {
        let value = stream.to_be_bytes();
        let record = Record {
            topic,
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

fn by_stream(settled: &[Settled]) -> Vec<(u32, &'static str)> {
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
    assert_eq!(by_stream(&settled), [(2, "written")]);
    assert_eq!(streams(&filter.poll().unwrap()), [4, 5, 6]);
}

fn push_all(filter: &mut Filter, numbers: std::ops::Range<u32>) {
    numbers.for_each(|stream| filter.push(stream).unwrap());
}

#[test]
fn beside_many_in_flight_as_many_wait_for_each_other() {
    let mut filter = Filter::new(ACKED);
    push_all(&mut filter, 0..8);
    assert_eq!(streams(&filter.poll().unwrap()).len(), 8);
    push_all(&mut filter, 8..15);
    assert_eq!(filter.poll(), None);
    filter.push(15).unwrap();
    assert_eq!(streams(&filter.poll().unwrap()).len(), 8);
    push_all(&mut filter, 16..31);
    assert_eq!(filter.poll(), None, "16 are in flight");
    filter.now += Duration::from_millis(2);
    assert_eq!(filter.poll(), None);
    filter.now += Duration::from_millis(1);
    assert_eq!(streams(&filter.poll().unwrap()).len(), 15, "for 3 ms at most");
}

#[test]
fn a_reply_sends_who_waits() {
    let mut filter = Filter::new(ACKED);
    push_all(&mut filter, 0..8);
    let first = filter.poll().unwrap();
    filter.push(8).unwrap();
    assert_eq!(filter.poll(), None);
    filter.outcomes(&first, &vec![written(0); 8]);
    assert_eq!(streams(&filter.poll().unwrap()), [8]);
}

#[test]
fn a_full_batch_waits_for_no_other() {
    for limit in ["messages_per_request\":8", "bytes_per_request\":136"] {
        let mut filter = Filter::new(&format!(r#"{ACKED},"producer_request_limits_{limit}"#));
        push_all(&mut filter, 0..16);
        assert_eq!(streams(&filter.poll().unwrap()).len(), 8);
        assert_eq!(streams(&filter.poll().unwrap()).len(), 8);
        push_all(&mut filter, 16..23);
        assert_eq!(filter.poll(), None);
        filter.push(23).unwrap();
        assert_eq!(streams(&filter.poll().unwrap()).len(), 8, "16 are in flight");
    }
}

#[test]
fn a_short_timeout_has_no_time_to_wait_for_others() {
    let mut filter = Filter::new(&format!(r#"{ACKED},"delivery_timeout":50"#));
    push_all(&mut filter, 0..9);
    assert_eq!(streams(&filter.poll().unwrap()).len(), 9);
    filter.push(9).unwrap();
    assert_eq!(streams(&filter.poll().unwrap()), [9]);
}

#[test]
fn what_is_to_be_sent_again_is_not_in_flight() {
    let mut filter = Filter::new(ACKED);
    push_all(&mut filter, 0..8);
    let first = filter.poll().unwrap();
    filter.no_reply(&first);
    filter.push(8).unwrap();
    assert_eq!(streams(&filter.poll().unwrap()), [8]);
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
    assert_eq!(by_stream(&settled), [(2, "written"), (3, "not written")]);
    assert_eq!(by_stream(&filter.outcomes(&one, &[written(1)])), [(1, "written")]);
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
    assert_eq!(by_stream(&settled), [(1, "not written")], "registered once, not for ever");
}

#[test]
fn a_refused_profile_answers_who_waits_for_it() {
    let mut filter = Filter::new(ACKED);
    filter.push(1).unwrap();
    let produce = filter.poll().unwrap();
    filter.reply(&produce, 404, b"{}");
    let register = filter.poll().unwrap();
    assert_eq!(by_stream(&filter.reply(&register, 422, b"no")), [(1, "not written")]);
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
    assert_eq!(by_stream(&filter.outcomes(&again, &[written(5)])), [(1, "written")]);
}

#[test]
fn a_batch_says_which_of_its_predecessors_are_not_sent_again() {
    let mut filter = Filter::new(r#""producer_async":false"#);
    let settled = |callout: &Callout| wire::decode_frame(&callout.body).unwrap().head.settled_below;
    let next = |filter: &mut Filter, stream| {
        filter.push(stream).unwrap();
        filter.poll().unwrap()
    };
    let (first, second) = (next(&mut filter, 1), next(&mut filter, 2));
    assert_eq!((settled(&first), settled(&second)), (1, 1));
    filter.no_reply(&first);
    filter.outcomes(&second, &[written(0)]);
    let third = next(&mut filter, 3);
    assert_eq!(settled(&third), 1, "the first is asked for again");
    filter.now += Duration::from_millis(50);
    let again = filter.poll().unwrap();
    filter.outcomes(&again, &[written(1)]);
    assert_eq!(settled(&next(&mut filter, 4)), 3);
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
    assert_eq!(by_stream(&settled), [(1, "unknown")]);
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
    assert_eq!(by_stream(&settled), [(1, "unknown")]);
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
        by_stream(&settled),
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
    assert_eq!(by_stream(&settled), [(1, "written"), (3, "not written")]);
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
    assert_eq!(by_stream(&filter.reply(&one, 413, b"{}")), [(1, "not written")]);
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
    for (status, then) in [
        (422, Err(Code::ProfileRefused)),
        (503, Err(Code::ProfileRefused)),
        (401, Err(Code::BridgeUnauthorized)),
        (200, Ok(())),
    ] {
        let register = filter.poll().unwrap();
        assert_eq!(register.purpose, Purpose::Register);
        filter.reply(&register, status, b"{}");
        assert_eq!(filter.push(1), then);
        assert_eq!(filter.poll(), None);
        filter.now += Duration::from_secs(5);
    }
}

const SEVERAL: &str = r#""topics_query_arg":"t","allowed_topics":["a","b"]"#;

fn several(fields: &str) -> Filter {
    Filter::new(&format!("{SEVERAL},{fields}"))
}

/// All callouts that may go out now.
fn polled(filter: &mut Filter) -> Vec<Callout> {
    std::iter::from_fn(|| filter.poll()).collect()
}

#[test]
fn memory_mode_keeps_a_topic_that_fails_apart_from_the_others() {
    let mut filter = several(MEMORY);
    for (topic, number) in [("missing", 1), ("orders", 2), ("missing", 3), ("orders", 4)] {
        filter.push_to(topic, number).unwrap();
    }
    filter.now += Duration::from_secs(1);
    let callouts = polled(&mut filter);
    assert_eq!(callouts.iter().map(streams).collect::<Vec<_>>(), [vec![1, 3], vec![2, 4]]);
    let missing = [not(Code::UnknownTopic), not(Code::UnknownTopic)];
    assert_eq!(filter.outcomes(&callouts[0], &missing), []);
    assert_eq!(filter.outcomes(&callouts[1], &[written(0), written(1)]).len(), 2);
    let failing: Vec<_> = filter.outbox.failing().map(|(topic, why)| (topic, why.code)).collect();
    assert_eq!(failing, [("missing", Code::UnknownTopic)]);
    for round in 5..50 {
        filter.push_to("orders", round).unwrap();
        filter.now += Duration::from_secs(1);
        for callout in polled(&mut filter) {
            let first = streams(&callout)[0];
            let outcome = if first == 1 { not(Code::UnknownTopic) } else { written(9) };
            let count = streams(&callout).len();
            assert_eq!(first == 1, count == 2, "the missing topic's records stay together");
            filter.outcomes(&callout, &vec![outcome; count]);
        }
        assert_eq!(filter.outbox.depth().records, 2, "round {round}");
    }
    filter.now += Duration::from_secs(1);
    let again = filter.poll().unwrap();
    assert_eq!(streams(&again), [1, 3], "in order, once the topic is there");
    filter.outcomes(&again, &[written(0), written(1)]);
    assert_eq!(filter.outbox.depth(), Depth::default());
}

#[test]
fn a_topic_that_fails_leaves_half_of_the_queue_to_others() {
    let limit = r#""producer_async_buffering_limits_messages_in_memory":100"#;
    let mut filter = several(&format!("{MEMORY},{limit}"));
    let refused = (0..200).find(|number| filter.push_to("missing", *number).is_err());
    assert_eq!(refused, Some(50));
    for number in 0..25 {
        filter.push_to("orders", number).unwrap();
    }
    assert_eq!(filter.push_to("orders", 25), Err(Code::QueueFull));
    let mut one = Filter::new(&format!("{MEMORY},{limit}"));
    assert_eq!((0..200).find(|number| one.push(*number).is_err()), Some(100), "its only topic");
}

#[test]
fn acked_mode_shares_batches_between_topics_that_are_written() {
    let mut filter = several(ACKED);
    for (topic, number) in [("a", 1), ("missing", 2), ("b", 3)] {
        filter.push_to(topic, number).unwrap();
    }
    let callouts = polled(&mut filter);
    assert_eq!(callouts.iter().map(streams).collect::<Vec<_>>(), [[1], [3], [2]]);
    filter.outcomes(&callouts[0], &[written(0)]);
    filter.outcomes(&callouts[1], &[written(0)]);
    // The missing topic's reply takes its time: the others go on, together.
    for round in 0..10 {
        for (topic, number) in [("a", 10), ("missing", 20), ("b", 30)] {
            filter.push_to(topic, number + round).unwrap();
        }
        let callout = filter.poll().unwrap();
        assert_eq!(streams(&callout), [10 + round, 30 + round]);
        assert_eq!(filter.poll(), None);
        filter.outcomes(&callout, &[written(1), written(1)]);
    }
    filter.outcomes(&callouts[2], &[not(Code::UnknownTopic)]);
    assert_eq!(streams(&filter.poll().unwrap()).len(), 10);
    // A topic that fails from now on has a lane of its own.
    filter.push_to("a", 1).unwrap();
    filter.push_to("b", 2).unwrap();
    let callout = filter.poll().unwrap();
    filter.outcomes(&callout, &[not(Code::UnknownTopic), written(2)]);
    filter.push_to("a", 3).unwrap();
    filter.push_to("b", 4).unwrap();
    assert_eq!(polled(&mut filter).iter().map(streams).collect::<Vec<_>>(), [[4], [3]]);
}

#[test]
fn many_topics_that_fail_leave_callouts_to_others() {
    for mode in [ACKED, MEMORY] {
        let mut filter = several(mode);
        for topic in 0..40 {
            filter.push_to(&format!("missing-{topic:02}"), topic).unwrap();
        }
        filter.now += Duration::from_secs(1);
        let first = polled(&mut filter);
        assert_eq!(first.len(), 32);
        for callout in &first {
            filter.no_reply(callout);
        }
        filter.now += Duration::from_secs(1);
        let again = polled(&mut filter);
        assert_eq!(again.len(), 24, "8 that were not sent yet, 16 of those that failed");
        filter.push_to("orders", 100).unwrap();
        filter.now += Duration::from_secs(1);
        assert_eq!(streams(&filter.poll().unwrap()), [100], "{mode}");
    }
}

#[test]
fn topics_beyond_the_number_of_lanes_are_refused() {
    let mut filter = several(MEMORY);
    let refused = (0..2000).find(|n| filter.push_to(&format!("t{n}"), *n).is_err());
    assert_eq!(refused, Some(1000));
}

#[test]
fn a_batch_has_records_of_one_second() {
    let mut filter = Filter::new(&format!("{ACKED},\"delivery_timeout\":10000"));
    let busy: Vec<_> = (0..4)
        .map(|stream| {
            filter.push(stream).unwrap();
            filter.poll().unwrap()
        })
        .collect();
    for stream in 10..20 {
        filter.push(stream).unwrap();
        filter.now += Duration::from_millis(400);
    }
    busy.iter().for_each(|callout| _ = filter.outcomes(callout, &[written(0)]));
    let callouts = polled(&mut filter);
    let batches: Vec<_> = callouts.iter().map(streams).collect();
    assert_eq!(batches, [vec![10, 11, 12], vec![13, 14, 15], vec![16, 17, 18], vec![19]]);
    let budgets = callouts.iter().map(|one| wire::decode_frame(&one.body).unwrap().head.budget_ms);
    assert_eq!(budgets.collect::<Vec<_>>(), [6000, 7200, 8400, 9600]);
}

#[test]
fn an_answer_that_leaves_doubt_is_asked_for_again_under_the_same_number() {
    for mode in [ACKED, MEMORY] {
        let mut filter = Filter::new(mode);
        filter.push(1).unwrap();
        filter.now += Duration::from_secs(1);
        let first = filter.poll().unwrap();
        for status in [500, 504, 502] {
            assert_eq!(filter.reply(&first, status, b"{}"), []);
            filter.now += Duration::from_secs(1);
            let again = filter.poll().unwrap();
            let head = |callout: &Callout| wire::decode_frame(&callout.body).unwrap().head.sequence;
            assert_eq!(head(&again), head(&first), "{mode} {status}");
        }
    }
}

#[test]
fn with_a_schema_memory_mode_answers_when_the_bridge_has_checked_a_record() {
    let registry = r#""schema_registry":{"confluent":{"url":"http://r","value_schema":{
        "subject_name":"s","schema_version":1}}}"#;
    let mut filter = Filter::new(registry);
    filter.push(1).unwrap();
    filter.push(2).unwrap();
    let callout = filter.poll().unwrap();
    let head = wire::decode_frame(&callout.body).unwrap().head;
    assert_eq!((head.delivery, streams(&callout)), (wire::Delivery::Queued, vec![1, 2]));
    let mismatch = Outcome::NotWritten(Reason::new(Code::SchemaMismatch, "why"));
    let settled = filter.outcomes(&callout, &[Outcome::Queued, mismatch.clone()]);
    let outcomes: Vec<_> = settled.iter().map(|it| (it.stream, it.outcome.clone())).collect();
    assert_eq!(outcomes, [(Some(1), Outcome::Queued), (Some(2), mismatch)]);
    // Nobody waits for the copy of a tapped request.
    let tap = format!(r#"{{"bridge":"b","topic":"t","mode":"tap",{registry}}}"#);
    let tap = Settings::parse(tap.as_bytes()).unwrap();
    assert_eq!(tap.delivery, wire::Delivery::Memory);
}
