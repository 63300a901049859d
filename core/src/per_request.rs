//! A request that makes its own callouts, one after the other, because nothing can wake the root.
//!
//! What may have been written is sent again only after the bridge has answered a probe, which has
//! no body. On WasmX a callout with a body from the callback of one that got no reply body never
//! ends: the worker spins at 100 % and fills the disk with log lines. On APISIX every failure looks
//! the same, no headers and no body, so nothing else tells a bridge that is gone from one whose
//! reply was lost.

use std::time::Duration;

use crate::callout::{self, Ended};
use crate::capture::Captured;
use crate::limits::PROBE_TIMEOUT_MS;
use crate::outbox::{Callout, Outbox, Purpose, Settled, StreamId};
use crate::outcome::{Code, Reason};

/// The records of such a request, from their capture to their outcomes.
#[derive(Debug)]
pub struct PerRequestSender {
    outbox: Outbox,
    /// When nothing is sent any more.
    deadline: Duration,
    bridge: BridgeState,
}

/// What is known of the bridge when the next callout is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BridgeState {
    /// It has answered the last callout, or none has been made.
    Answers,
    /// It is probed before anything is sent.
    Suspect,
    /// As `Suspect`, after a callout with a body that got none back.
    Silent,
}

/// What such a request does now.
#[derive(Debug, PartialEq, Eq)]
pub enum SenderAction {
    /// Dispatch this, and wait for its end.
    Dispatch(Callout),
    /// Nothing is left to send: these are the last outcomes.
    Conclude(Vec<Settled>),
}

impl PerRequestSender {
    /// Takes a request's records. `root` has the settings; `suspect` is whether the bridge did not
    /// answer the last probe.
    ///
    /// # Errors
    /// As [`Outbox::push`].
    pub fn new(
        root: &Outbox,
        captured: Captured,
        stream: StreamId,
        now: Duration,
        suspect: bool,
    ) -> Result<Self, Code> {
        let mut outbox = root.for_one_request();
        outbox.push(captured, Some(stream), now)?;
        let deadline = now + outbox.timeout();
        let bridge = if suspect { BridgeState::Suspect } else { BridgeState::Answers };
        Ok(Self { outbox, deadline, bridge })
    }

    /// What to do while no callout is in flight. `sequence` counts the batches of the VM.
    pub fn next(&mut self, now: Duration, sequence: &mut u64) -> SenderAction {
        let left = self.deadline.saturating_sub(now);
        if left.is_zero() {
            return self.give_up(Code::DeadlineExceeded, "no reply within delivery_timeout");
        }
        if self.bridge != BridgeState::Answers {
            let timeout = left.min(Duration::from_millis(PROBE_TIMEOUT_MS));
            return SenderAction::Dispatch(Callout::probe(timeout));
        }
        match self.outbox.poll_callout(now, sequence) {
            Some(callout) => SenderAction::Dispatch(callout),
            None => self.give_up(Code::BadReply, "the bridge reported no outcome"),
        }
    }

    /// The host refused to dispatch a callout. It would refuse the next one, too.
    pub fn on_refused(&mut self, purpose: Purpose, why: &str, now: Duration) -> Vec<Settled> {
        let mut settled = self.outbox.on_refused(purpose, why, now);
        settled.extend(self.abandon(Code::BridgeUnreachable, why));
        settled
    }

    /// A callout ended.
    pub fn on_ended(&mut self, purpose: Purpose, ended: &Ended<'_>, now: Duration) -> Vec<Settled> {
        let has_body = ended.body.is_some_and(|body| !body.is_empty());
        if purpose == Purpose::Probe {
            let is_alive = callout::is_alive(ended);
            self.bridge = match self.bridge {
                _ if is_alive => BridgeState::Answers,
                BridgeState::Silent if !has_body => BridgeState::Silent,
                _ => BridgeState::Suspect,
            };
            return match is_alive {
                true => Vec::new(),
                false => self.abandon(Code::BridgeUnreachable, "the bridge does not answer"),
            };
        }
        let settled = self.outbox.on_ended(purpose, ended, now);
        self.bridge = match has_body {
            // Also before what has not been sent yet.
            false => BridgeState::Silent,
            true if self.outbox.is_in_doubt() => BridgeState::Suspect,
            true => BridgeState::Answers,
        };
        settled
    }

    /// Whether a host that loses bodies would lose the reply's now.
    #[must_use]
    pub fn is_unanswered(&self) -> bool {
        self.bridge == BridgeState::Silent
    }

    fn give_up(&mut self, code: Code, why: &str) -> SenderAction {
        SenderAction::Conclude(self.abandon(code, why))
    }

    fn abandon(&mut self, code: Code, why: &str) -> Vec<Settled> {
        self.outbox.abandon(&Reason::new(code, why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use crate::gateway::Gateway;
    use crate::outcome::Outcome;
    use crate::record::Record;
    use crate::wire;

    const NOTHING: Ended<'_> = Ended {
        gateway: Gateway::Apisix,
        dispatch_status: None,
        status: None,
        marker: None,
        overloaded: false,
        body: None,
    };

    fn reply(status: u16, body: &[u8]) -> Ended<'_> {
        Ended { status: Some(status), marker: Some(b"1"), body: Some(body), ..NOTHING }
    }

    struct Scenario {
        request: PerRequestSender,
        now: Duration,
        sequence: u64,
        settled: Vec<Settled>,
    }

    impl Scenario {
        fn new(fields: &str, suspect: bool) -> Self {
            let config = format!(r#"{{"bridge":"b:1","topic":"orders",{fields}}}"#);
            let settings = Settings::parse(config.as_bytes()).unwrap();
            let root = Outbox::new(&settings, [1; 16]).unwrap();
            let record = Record {
                topic: "orders",
                partition: None,
                timestamp_ms: 0,
                key: None,
                value: Some(b"x"),
                headers: vec![],
            };
            let now = Duration::from_secs(50);
            let record = wire::encode_record(&record).unwrap();
            let request = PerRequestSender::new(&root, record.into(), 7, now, suspect).unwrap();
            Self { request, now, sequence: 0, settled: vec![] }
        }

        /// The callouts that the scenario answers with `ends`, by method, and the outcome.
        fn run(
            mut self,
            ends: &[Ended<'_>],
        ) -> (Vec<&'static str>, &'static str, PerRequestSender) {
            let (mut asked, mut ends) = (Vec::new(), ends.iter());
            loop {
                match self.request.next(self.now, &mut self.sequence) {
                    SenderAction::Dispatch(callout) => {
                        asked.push(callout.method);
                        let ended = ends.next().expect("one more callout than the scenario has");
                        let settled = self.request.on_ended(callout.purpose, ended, self.now);
                        self.settled.extend(settled);
                        if self.settled.is_empty() {
                            continue;
                        }
                    }
                    SenderAction::Conclude(settled) => self.settled.extend(settled),
                }
                assert!(ends.next().is_none() && self.settled.len() == 1);
                let outcome = match &self.settled[0].outcome {
                    Outcome::Written { .. } => "written",
                    Outcome::Queued => "queued",
                    Outcome::NotWritten(_) => "not written",
                    Outcome::Unknown(_) => "unknown",
                };
                return (asked, outcome, self.request);
            }
        }
    }

    const ACKED: &str = r#""producer_async":false"#;
    const MEMORY: &str = r#""producer_async":true"#;

    #[test]
    fn what_may_be_written_is_sent_again_once_the_bridge_is_known_to_be_there() {
        let written =
            wire::encode_outcomes(&[Outcome::Written { partition: 0, offset: None }]).unwrap();
        let (alive, done) = (reply(200, b"{}"), reply(200, &written));
        let (asked, outcome, _) = Scenario::new(ACKED, false).run(&[NOTHING, alive, done]);
        assert_eq!((&asked[..], outcome), (&["POST", "GET", "POST"][..], "written"));
        let (asked, outcome, request) = Scenario::new(ACKED, false).run(&[NOTHING, NOTHING]);
        assert_eq!((&asked[..], outcome), (&["POST", "GET"][..], "unknown"));
        assert!(request.is_unanswered());
        let unknown = reply(404, b"{}");
        let (asked, outcome, _) = Scenario::new(ACKED, false).run(&[unknown, alive, done]);
        assert_eq!((&asked[..], outcome), (&["POST", "PUT", "POST"][..], "written"));
        let queued = wire::encode_outcomes(&[Outcome::Queued]).unwrap();
        let (_, outcome, _) = Scenario::new(MEMORY, false).run(&[reply(200, &queued)]);
        assert_eq!(outcome, "queued");
    }

    #[test]
    fn a_suspect_bridge_is_asked_before_anything_is_sent() {
        let (asked, outcome, request) = Scenario::new(ACKED, true).run(&[NOTHING]);
        assert_eq!((&asked[..], outcome), (&["GET"][..], "not written"));
        assert!(!request.is_unanswered(), "the question had no body to lose a reply's by");
        let refused = reply(503, b"{}");
        let (asked, outcome, _) = Scenario::new(ACKED, true).run(&[reply(200, b"{}"), refused]);
        assert_eq!((&asked[..], outcome), (&["GET", "POST"][..], "not written"));
    }

    #[test]
    fn a_bridge_that_is_there_but_never_answers_is_given_up() {
        let alive = reply(200, b"{}");
        let ends = [NOTHING, alive, NOTHING, alive, NOTHING, alive, NOTHING];
        let (asked, outcome, _) = Scenario::new(ACKED, false).run(&ends);
        assert_eq!((asked.len(), outcome), (7, "unknown"));
        let mut late = Scenario::new(ACKED, false);
        late.now += Duration::from_secs(10);
        assert_eq!(late.run(&[]).1, "not written");
    }

    #[test]
    fn the_next_batch_waits_for_an_answer_after_a_callout_that_got_no_body() {
        let one_a_batch = format!("{ACKED},\"producer_request_limits_messages_per_request\":1");
        let refused: Ended<'_> = Ended {
            gateway: Gateway::Wasmx,
            dispatch_status: Some(b"resolver failure"),
            ..NOTHING
        };
        let mut scenario = Scenario::new(&one_a_batch, false);
        let record = wire::encode_record(&Record {
            topic: "other",
            partition: None,
            timestamp_ms: 0,
            key: None,
            value: None,
            headers: vec![],
        });
        scenario.request.outbox.push(record.unwrap(), Some(7), scenario.now).unwrap();
        let mut asked = Vec::new();
        for ended in [refused, Ended { dispatch_status: Some(b"ok"), ..reply(200, b"{}") }] {
            let next = scenario.request.next(scenario.now, &mut scenario.sequence);
            let SenderAction::Dispatch(callout) = next else { panic!("{next:?}") };
            asked.push(callout.method);
            let ended = Ended { gateway: Gateway::Wasmx, ..ended };
            scenario.request.on_ended(callout.purpose, &ended, scenario.now);
        }
        let next = scenario.request.next(scenario.now, &mut scenario.sequence);
        let SenderAction::Dispatch(callout) = next else { panic!("{next:?}") };
        assert_eq!((&asked[..], callout.method), (&["POST", "GET"][..], "POST"));
    }

    #[test]
    fn a_dispatch_that_the_host_refuses_settles_everything() {
        for suspect in [false, true] {
            let mut scenario = Scenario::new(ACKED, suspect);
            let next = scenario.request.next(scenario.now, &mut scenario.sequence);
            let SenderAction::Dispatch(callout) = next else { panic!("{next:?}") };
            let settled = scenario.request.on_refused(callout.purpose, "no", scenario.now);
            assert!(matches!(settled[0].outcome, Outcome::NotWritten(_)));
        }
    }
}
