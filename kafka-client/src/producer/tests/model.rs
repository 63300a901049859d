//! One partition's queue against a broker's sequence rules, with random losses and refusals.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::time::Instant;

use super::rules::Rules;
use crate::Outcome;
use crate::backoff::Backoff;
use crate::calls::init_producer_id::ProducerIdentity;
use crate::calls::produce::Appended;
use crate::connection::{Lost, LostReason};
use crate::error::Reason;
use crate::producer::accumulator::Accumulator;
use crate::producer::batch::Regrouped;
use crate::producer::batch::{
    BatchLimits, Content, Ending, InFlightBatch, NextBatch, ResendReason,
};
use crate::producer::memory::Memory;
use crate::producer::settle::{Ledger, Ticket};
use crate::producer::verdict::{RetryLimits, Verdict, judge, judge_lost};
use crate::record_batch::Record;
use crate::stats::Counters;

#[derive(Debug, Clone)]
enum Op {
    Push {
        deadline_ms: u64,
    },
    Send,
    /// The broker works on the next request: as it should, with a refusal, or with an error after
    /// the append.
    Serve(Option<i16>, bool),
    /// The client hears of the oldest request that is over.
    Hear,
    /// The connection ends; the broker may still execute what it has read.
    Cut,
    /// It does so with one request.
    Late,
    Restart,
    Lose,
    Pass {
        ms: u64,
    },
}

struct Copy {
    bytes: Bytes,
    until: Instant,
}

struct World {
    queue: Accumulator,
    ledger: Arc<Ledger>,
    rules: Rules,
    now: Instant,
    connection: u64,
    /// Requests that the broker has not worked on.
    inbox: VecDeque<InFlightBatch>,
    /// Answers and losses that the client has not heard of.
    over: VecDeque<(InFlightBatch, Option<Appended>)>,
    late: VecDeque<Copy>,
    held: ProducerIdentity,
    tickets: Vec<(String, Ticket)>,
    most_in_flight: usize,
}

const LIMITS: BatchLimits = BatchLimits {
    batch_bytes: 1000,
    batch_records: 3,
    request_bytes: 4000,
    buffer_bytes: 10_000_000,
    linger: Duration::ZERO,
    idempotent_in_flight: Some(5),
};
const RETRY: RetryLimits = RetryLimits {
    retries: u32::MAX,
    idempotent: true,
    policy_throttles: false,
    backoff: Backoff { base: Duration::from_millis(5), max: Duration::from_millis(50) },
};

impl World {
    fn new(epoch: i16) -> Self {
        let stats = Arc::<Counters>::default();
        let ledger = Ledger::new(Memory::new(LIMITS.buffer_bytes, stats.clone()), stats);
        Self {
            queue: Accumulator::new(0, 0, LIMITS, ledger.clone()),
            ledger,
            rules: Rules::default(),
            now: Instant::now(),
            connection: 1,
            inbox: VecDeque::new(),
            over: VecDeque::new(),
            late: VecDeque::new(),
            held: ProducerIdentity { producer_id: 1, epoch },
            tickets: Vec::new(),
            most_in_flight: 0,
        }
    }

    fn play(&mut self, op: &Op) {
        match op {
            Op::Push { deadline_ms } => self.push(*deadline_ms),
            Op::Send => self.send(),
            Op::Serve(code, appends) => self.serve(*code, *appends),
            Op::Hear => self.hear(),
            Op::Cut => self.cut(),
            Op::Late => self.append_late(),
            Op::Restart => {
                self.cut();
                self.late.clear();
                self.rules.restart();
            }
            Op::Lose => self.rules.lose_last(),
            Op::Pass { ms } => {
                self.now += Duration::from_millis(*ms);
                self.queue.on_alarm(self.now);
            }
        }
    }

    fn push(&mut self, deadline_ms: u64) {
        let value = self.tickets.len().to_string();
        let bytes = Some(value.as_bytes());
        let record =
            Record { partition: None, key: None, value: bytes, headers: &[], timestamp_ms: 5 };
        let deadline = self.now + Duration::from_millis(deadline_ms);
        let mut permit = self.ledger.memory.try_reserve(200).unwrap();
        permit.spend(200).unwrap();
        let (cell, index) = self.queue.push(&record, 200, deadline, self.now).unwrap();
        self.tickets.push((value, Ticket { cell, index, timestamp_ms: 5 }));
    }

    fn send(&mut self) {
        if self.queue.spent_id() == Some(self.held.producer_id) {
            self.held = ProducerIdentity { producer_id: self.held.producer_id + 1, epoch: 0 };
        }
        assert!(self.queue.identify(Some(self.held)));
        if let NextBatch::Batch { id, content, records, attempts, stamp } =
            self.queue.take(self.now, 4000, true, self.connection)
        {
            let cut = self.over.iter().any(|(_, answer)| answer.is_none());
            assert!(!cut, "two connections at a time");
            let bytes = match content {
                Content::Growing(builder) => builder.finish(stamp),
                Content::Sealed(bytes) => stamp.put(bytes).unwrap(),
                Content::InFlight => panic!("it is in flight"),
            };
            self.inbox.push_back(InFlightBatch { id, bytes, records, attempts });
            self.most_in_flight = self.most_in_flight.max(self.inbox.len() + self.over.len());
        }
    }

    fn serve(&mut self, code: Option<i16>, appends: bool) {
        let Some(shipment) = self.inbox.pop_front() else { return };
        let refused = |code| (code, -1);
        let (code, base_offset) = match code {
            None => self.rules.append(&shipment.bytes).map_or_else(refused, |base| (0, base)),
            Some(code) if appends => {
                self.rules.append(&shipment.bytes).map_or_else(refused, |base| (code, base))
            }
            Some(code) => {
                self.rules.see(&shipment.bytes);
                refused(code)
            }
        };
        let (log_append_ms, faults, leader) = (None, vec![], None);
        let answer = Appended { code, base_offset, log_append_ms, faults, leader };
        self.over.push_back((shipment, Some(answer)));
    }

    fn hear(&mut self) {
        let Some((mut shipment, answer)) = self.over.pop_front() else { return };
        let (attempts, records) = (&mut shipment.attempts, shipment.records);
        let lost = Lost { fault: LostReason::Closed, handed_over: true };
        let (verdict, why) = match answer {
            Some(answer) => {
                (judge(answer, attempts, records, RETRY, self.now, 20), ResendReason::Refused)
            }
            None => (judge_lost(&lost, attempts, RETRY, 20), ResendReason::CutOff(self.now)),
        };
        let ending = match verdict {
            Verdict::Written { base_offset, log_append_ms } => {
                Ending::Written { base_offset, log_append_ms }
            }
            Verdict::Resend { pause, cause, .. } => {
                Ending::Resend { at: self.now + pause, cause, why }
            }
            Verdict::SequenceError { error, pause, cause } => {
                let why = ResendReason::Sequence(error);
                Ending::Resend { at: self.now + pause, cause, why }
            }
            Verdict::GiveUp { reason, .. } => Ending::GaveUp(reason),
            Verdict::Halve => Ending::Regroup(Regrouped::halves(&shipment.bytes).unwrap()),
            Verdict::Without(_) => Ending::GaveUp(Reason::TooLarge),
        };
        self.queue.finish(shipment, ending);
    }

    fn cut(&mut self) {
        self.connection += 1;
        // Answers that were under way are lost too.
        self.over.iter_mut().for_each(|(_, answer)| *answer = None);
        let until = self.now + Duration::from_millis(999);
        for shipment in self.inbox.drain(..) {
            self.late.push_back(Copy { bytes: shipment.bytes.clone(), until });
            self.over.push_back((shipment, None));
        }
    }

    fn append_late(&mut self) {
        let now = self.now;
        self.late.retain(|copy| now < copy.until);
        if let Some(copy) = self.late.pop_front() {
            let _nobody_hears = self.rules.append(&copy.bytes);
        }
    }

    fn settle_all(&mut self) {
        for _ in 0..4000 {
            if self.queue.is_empty() {
                return;
            }
            for op in [Op::Send, Op::Serve(None, false), Op::Hear, Op::Pass { ms: 20 }] {
                self.play(&op);
            }
        }
        panic!("the partition is stuck: {:?}", self.queue);
    }

    async fn check(self, lossless: bool) {
        assert!(self.most_in_flight <= 5, "{}", self.most_in_flight);
        let mut last = None;
        let patient = self.tickets.len() - 1;
        for (number, (value, ticket)) in self.tickets.into_iter().enumerate() {
            let places: Vec<_> = (0..)
                .zip(&self.rules.log)
                .filter(|(_, v)| **v == value)
                .map(|(at, _)| at)
                .collect();
            let outcome = ticket.outcome().await;
            let is_written = matches!(outcome, Outcome::Written { .. });
            assert!(is_written || number < patient, "the partition is blocked: {outcome:?}");
            assert!(places.len() <= 1, "{value} is {} times in the log", places.len());
            match outcome {
                Outcome::Written { offset, .. } if lossless => {
                    assert_eq!(
                        places.first().copied(),
                        offset,
                        "{value} is not where it should be"
                    );
                    assert!(offset > last, "{value} is before its predecessor");
                    last = offset;
                }
                Outcome::NotWritten(reason) => assert!(places.is_empty(), "{value}: {reason}"),
                Outcome::Written { .. } | Outcome::Unknown(_) => {}
            }
        }
        assert_eq!(self.ledger.stats.buffered_bytes.get(), 0);
    }
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => prop_oneof![Just(150), Just(3000), Just(20_000)]
            .prop_map(|deadline_ms| Op::Push { deadline_ms }),
        10 => Just(Op::Send),
        8 => Just(Op::Serve(None, false)),
        2 => prop_oneof![
            Just(6), Just(19), Just(29), Just(10), Just(87), Just(2), Just(59), Just(47)
        ].prop_map(|code| Op::Serve(Some(code), false)),
        1 => prop_oneof![Just(6), Just(7), Just(20), Just(-1)]
            .prop_map(|code| Op::Serve(Some(code), true)),
        8 => Just(Op::Hear),
        2 => Just(Op::Cut),
        3 => Just(Op::Late),
        6 => prop_oneof![Just(5), Just(60), Just(400)].prop_map(|ms| Op::Pass { ms }),
    ]
}

fn run(ops: &[Op], epoch: i16, lossless: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(epoch);
        ops.iter().for_each(|op| world.play(op));
        // Whatever has happened, a patient record in a batch of its own gets through.
        world.play(&Op::Pass { ms: 1100 });
        world.push(60_000);
        world.settle_all();
        while !world.late.is_empty() {
            world.append_late();
        }
        world.check(lossless).await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    /// No acknowledged record is lost, none is there twice, none that is said to be absent is
    /// there, and acknowledged ones are in the order in which they were enqueued.
    #[test]
    fn what_the_client_says_is_what_the_log_has(
        ops in vec(op(), 0..150), epoch in prop_oneof![4 => Just(0), 1 => Just(i16::MAX - 1)],
    ) {
        run(&ops, epoch, true);
    }

    /// Also when the broker restarts and remembers less of its producers.
    #[test]
    fn a_restarted_broker_remembers_less(
        ops in vec(prop_oneof![20 => op(), 1 => Just(Op::Restart)], 0..150),
    ) {
        run(&ops, 0, true);
    }

    /// A broker that loses acknowledged records causes no duplicates, no false "not written", and
    /// no end.
    #[test]
    fn a_broker_that_loses_records_stops_nobody(
        ops in vec(prop_oneof![20 => op(), 1 => Just(Op::Lose)], 0..150),
    ) {
        run(&ops, 0, false);
    }
}
