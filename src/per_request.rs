//! The callouts of a request that makes its own: sends in the request's callbacks, and says how the
//! request ends.

use kafka_upstream_core::capture::Captured;
use kafka_upstream_core::gateway::Gateway;
use kafka_upstream_core::outbox::{Settled, StreamId};
use kafka_upstream_core::outcome::Code;
use kafka_upstream_core::per_request::{Next, PerRequestSender};

use crate::state::{CalloutEnd, Sent, State, StreamEnd};

/// The records of such a request and the callout that is under way for it.
pub(crate) struct PerRequestStream {
    alone: PerRequestSender,
    bytes: usize,
    callout: Option<(u32, Sent)>,
}

impl PerRequestStream {
    /// Takes records in, within the limits that the root's queue has.
    pub(crate) fn new(
        state: &mut State,
        stream: StreamId,
        captured: Captured,
    ) -> Result<Self, Code> {
        let topics = captured.several_topics();
        let bytes = captured.first.len() + captured.more.iter().map(Vec::len).sum::<usize>();
        if !state.has_room_for(bytes) {
            return Err(Code::QueueFull);
        }
        let now = state.clock.now();
        let alone = PerRequestSender::new(&state.outbox, captured, stream, now, state.suspect)?;
        state.waiting.insert(stream, topics);
        state.alone_bytes += bytes;
        Ok(Self { alone, bytes, callout: None })
    }

    /// Sends what is next while nothing is under way, after `settled`; says how the request ends
    /// once that is known.
    pub(crate) fn proceed(
        &mut self,
        state: &mut State,
        gateway: Gateway,
        mut settled: Vec<Settled>,
    ) -> Option<StreamEnd> {
        while self.callout.is_none() {
            if let Some((_, end)) = settled.into_iter().find_map(|one| state.conclude(one)) {
                state.alone_bytes -= std::mem::take(&mut self.bytes);
                return Some(match end {
                    StreamEnd::Answered(reply) if self.loses_body(gateway) => {
                        StreamEnd::Answered(reply.without_body())
                    }
                    end => end,
                });
            }
            let now = state.clock.now();
            settled = match self.alone.next(now, &mut state.sequence) {
                Next::Conclude(last) if last.is_empty() => return None,
                Next::Conclude(last) => last,
                Next::Dispatch(callout) => match state.send(&callout, now) {
                    Ok(sent) => {
                        self.callout = Some(sent);
                        Vec::new()
                    }
                    Err(why) => self.alone.on_refused(callout.purpose, &why, now),
                },
            };
        }
        None
    }

    /// Takes the end of a callout, if it is the one that is under way.
    pub(crate) fn end_callout(
        &mut self,
        state: &mut State,
        token: u32,
        end: &CalloutEnd,
    ) -> Option<Vec<Settled>> {
        let (_, sent) = self.callout.take_if(|(expected, _)| *expected == token)?;
        let now = state.note_end(sent, end);
        Some(self.alone.on_ended(sent.purpose, &end.as_ended(), now))
    }

    /// The request is over, whether or not it has ended as it should.
    pub(crate) fn forget(&self, state: &mut State, stream: StreamId) {
        state.waiting.remove(stream);
        state.alone_bytes -= self.bytes;
    }

    fn loses_body(&self, gateway: Gateway) -> bool {
        gateway.loses_bodies_after_empty_replies() && self.alone.is_unanswered()
    }
}
