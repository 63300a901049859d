//! The callouts of a request that makes its own: sends in the request's callbacks, and says how the
//! request ends.

use kafka_upstream_core::callout::Ended;
use kafka_upstream_core::capture::Captured;
use kafka_upstream_core::gateway::Gateway;
use kafka_upstream_core::outbox::{Settled, StreamId};
use kafka_upstream_core::outcome::Code;
use kafka_upstream_core::per_request::{PerRequestSender, SenderAction};

use crate::budget::Reservation;
use crate::route::{InFlight, Route, StreamEnd};

/// The records of such a request and its callout in flight.
pub(crate) struct PerRequestStream {
    sender: PerRequestSender,
    callout: Option<(u32, InFlight)>,
    _bytes: Reservation,
}

impl PerRequestStream {
    /// Takes records in, within the limits that the root's queue has. One request is always taken.
    pub(crate) fn new(
        route: &mut Route,
        stream: StreamId,
        captured: Captured,
    ) -> Result<Self, Code> {
        let topics = captured.several_topics();
        let bytes = captured.first.len() + captured.more.iter().map(Vec::len).sum::<usize>();
        let limits = route.settings.queue;
        let bytes_max = match route.paused.len() {
            0 => usize::MAX,
            streams if streams < limits.records => limits.bytes,
            _ => return Err(Code::QueueFull),
        };
        let bytes = route.per_request_bytes.take(bytes, bytes_max).ok_or(Code::QueueFull)?;
        let (now, suspect) = (route.clock.now(), route.is_suspect());
        let sender = PerRequestSender::new(&route.outbox, captured, stream, now, suspect)?;
        route.paused.insert(stream, topics);
        Ok(Self { sender, callout: None, _bytes: bytes })
    }

    /// Sends what is next while no callout is in flight, after `settled`; says how the request ends
    /// once that is known.
    pub(crate) fn proceed(
        &mut self,
        route: &mut Route,
        gateway: Gateway,
        mut settled: Vec<Settled>,
    ) -> Option<StreamEnd> {
        while self.callout.is_none() {
            if let Some((_, end)) = settled.into_iter().find_map(|one| route.conclude(one)) {
                return Some(match end {
                    StreamEnd::Answered(reply) if self.loses_body(gateway) => {
                        StreamEnd::Answered(reply.without_body())
                    }
                    end => end,
                });
            }
            let now = route.clock.now();
            settled = match self.sender.next(now, &mut route.sequence) {
                SenderAction::Conclude(last) if last.is_empty() => return None,
                SenderAction::Conclude(last) => last,
                SenderAction::Dispatch(callout) => match route.send(&callout, now) {
                    Ok(sent) => {
                        self.callout = Some(sent);
                        Vec::new()
                    }
                    Err(why) => self.sender.on_refused(callout.purpose, &why, now),
                },
            };
        }
        None
    }

    /// Takes the end of a callout, if it is the one in flight.
    pub(crate) fn end_callout(
        &mut self,
        route: &mut Route,
        token: u32,
        ended: &Ended<'_>,
    ) -> Option<Vec<Settled>> {
        let (_, callout) = self.callout.take_if(|(expected, _)| *expected == token)?;
        let now = route.clock.now();
        route.note_end(callout, ended, now);
        Some(self.sender.on_ended(callout.purpose, ended, now))
    }

    fn loses_body(&self, gateway: Gateway) -> bool {
        gateway.loses_bodies_after_empty_replies() && self.sender.is_unanswered()
    }
}
