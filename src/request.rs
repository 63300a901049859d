//! One request: collects it, captures it as a record, and pauses it until it is answered.

use std::cell::RefCell;
use std::rc::Rc;

use kafka_upstream_core::body::{self, Announced};
use kafka_upstream_core::capture::capture;
use kafka_upstream_core::outbox::{Outbox, Settled, StreamId};
use kafka_upstream_core::outcome::{Code, Reply};
use kafka_upstream_core::request::Request;
use kafka_upstream_core::wire::Delivery;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

use crate::host::{self, Buffer, Map};
use crate::metrics::Counter;
use crate::state::{CalloutEnd, State};

/// A request's stream.
pub(crate) struct RequestStream {
    id: u32,
    state: Rc<RefCell<State>>,
    stage: Stage,
}

/// How far the request is.
enum Stage {
    /// Its headers are here, its body is not yet complete.
    Collecting { request: Request, announced: Announced, body_bytes: u64 },
    /// The root's outbox has its record, or it has been answered.
    HandedOver,
    /// It makes its own callouts.
    OnItsOwn { outbox: Box<Outbox>, bytes: usize, token: Option<u32>, sequence: Option<u64> },
}

impl RequestStream {
    pub(crate) fn new(id: u32, state: Rc<RefCell<State>>) -> Self {
        Self { id, state, stage: Stage::HandedOver }
    }

    fn refuse(&mut self, reply: &Reply) {
        self.stage = Stage::HandedOver;
        self.state.borrow().metrics.count(Counter::Refused);
        host::answer(reply);
    }

    fn start(&mut self, ended: bool) -> Result<(), Reply> {
        let pairs = host::headers(Map::Request).ok_or_else(|| {
            Reply::refused(Code::HostMismatch, "the host does not hand over the headers")
        })?;
        let mut request = Request::from_host(pairs);
        if self.state.borrow().settings.expressions.use_source() {
            request.source_address = host::property(b"source\0address").unwrap_or_default();
        }
        if request.method == b"CONNECT" {
            let error = "CONNECT opens a tunnel, which has no end to wait for";
            return Err(Reply::refused(Code::BadRequest, error));
        }
        let lengths = request.headers.iter().filter(|(name, _)| name == b"content-length");
        let announced = Announced::read(
            lengths.map(|(_, value)| value.as_slice()),
            self.state.borrow().settings.max_body_bytes,
        )?;
        self.stage = Stage::Collecting { request, announced, body_bytes: 0 };
        if ended { self.finish(0) } else { Ok(()) }
    }

    fn collect(&mut self, size: u64, ended: bool) -> Result<(), Reply> {
        let Stage::Collecting { announced, body_bytes, .. } = &mut self.stage else {
            return Ok(());
        };
        *body_bytes = size;
        announced.check(size, ended, self.state.borrow().settings.max_body_bytes)?;
        if ended { self.finish(size) } else { Ok(()) }
    }

    /// The request is complete: it is captured, whether or not its client still waits.
    fn finish(&mut self, size: u64) -> Result<(), Reply> {
        let stage = std::mem::replace(&mut self.stage, Stage::HandedOver);
        let Stage::Collecting { mut request, .. } = stage else { return Ok(()) };
        if size > 0 {
            let read =
                host::buffer(Buffer::RequestBody, usize::try_from(size).unwrap_or(usize::MAX));
            body::check_read(read.as_deref(), size)?;
            request.body = read.unwrap_or_default();
        }
        let record = capture(&self.state.borrow().settings, &request, host::timestamp_ms())?;
        let mut state = self.state.borrow_mut();
        let waits = state.settings.delivery == Delivery::Acked;
        if waits && state.queue.is_none() {
            self.stage = go_alone(&mut state, self.id, record)?;
            return Ok(());
        }
        let now = state.clock.now();
        state.outbox.push(record, waits.then_some(self.id), now).map_err(not_queued)?;
        if waits {
            state.waiting.insert(self.id);
        } else {
            state.metrics.count(Counter::Queued);
            host::answer(&Reply::sent());
        }
        state.wake_if_due(now);
        Ok(())
    }

    fn pause(&mut self, step: Result<(), Reply>) -> Action {
        match step {
            Ok(()) => self.proceed_alone(Vec::new()),
            Err(reply) => self.refuse(&reply),
        }
        Action::Pause
    }

    /// Without a root that can be woken: sends and answers in this request's own callbacks.
    fn proceed_alone(&mut self, mut settled: Vec<Settled>) {
        let Stage::OnItsOwn { outbox, token, sequence, .. } = &mut self.stage else { return };
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        loop {
            if let Some((_, reply)) = settled.first().and_then(|one| state.reply_to(one)) {
                host::answer(&reply);
                return;
            }
            let now = state.clock.now();
            let Some(callout) = outbox.poll_callout(now, &mut state.sequence) else {
                // Nothing wakes a request later, so what cannot be sent again now is given up.
                settled = outbox.expire(now + state.settings.delivery_timeout);
                if settled.is_empty() {
                    return;
                }
                continue;
            };
            state.metrics.count(Counter::Callouts);
            match host::dispatch(&state.settings.bridge, &callout) {
                Ok(dispatched) => {
                    (*token, *sequence) = (Some(dispatched), callout.sequence);
                    return;
                }
                Err(status) => {
                    let why = format!("the host refused the callout with status {status}");
                    settled = outbox.on_refused(callout.sequence, &why, now);
                }
            }
        }
    }
}

impl Context for RequestStream {
    fn on_http_call_response(
        &mut self,
        token: u32,
        num_headers: usize,
        body_size: usize,
        _num_trailers: usize,
    ) {
        let Stage::OnItsOwn { outbox, token: expected, sequence, .. } = &mut self.stage else {
            return;
        };
        if *expected != Some(token) {
            return;
        }
        let end = CalloutEnd::read(num_headers, body_size);
        let now = {
            let mut state = self.state.borrow_mut();
            state.note_end(&end);
            state.clock.now()
        };
        let settled = outbox.on_ended(*sequence, &end.as_ended(), now);
        self.proceed_alone(settled);
    }

    fn on_done(&mut self) -> bool {
        let mut state = self.state.borrow_mut();
        state.waiting.remove(&self.id);
        if let Stage::OnItsOwn { bytes, .. } = &self.stage {
            state.alone_bytes -= bytes;
        }
        true
    }
}

impl HttpContext for RequestStream {
    fn on_http_request_headers(&mut self, _num_headers: usize, end_of_stream: bool) -> Action {
        let step = self.start(end_of_stream);
        self.pause(step)
    }

    fn on_http_request_body(&mut self, body_size: usize, end_of_stream: bool) -> Action {
        let step = self.collect(body_size as u64, end_of_stream);
        self.pause(step)
    }

    fn on_http_request_trailers(&mut self, _num_trailers: usize) -> Action {
        let size = match &self.stage {
            Stage::Collecting { body_bytes, .. } => *body_bytes,
            _ => 0,
        };
        let step = self.collect(size, true);
        self.pause(step)
    }
}

/// Puts a record into an outbox of its own, within the limits that the root's queue has.
fn go_alone(state: &mut State, stream: StreamId, record: Vec<u8>) -> Result<Stage, Reply> {
    let bytes = record.len();
    if !state.has_room_for(bytes) {
        return Err(not_queued(Code::QueueFull));
    }
    let mut outbox = Outbox::new(&state.settings, state.vm).map_err(no_outbox)?;
    outbox.push(record, Some(stream), state.clock.now()).map_err(not_queued)?;
    state.waiting.insert(stream);
    state.alone_bytes += bytes;
    Ok(Stage::OnItsOwn { outbox: Box::new(outbox), bytes, token: None, sequence: None })
}

fn not_queued(code: Code) -> Reply {
    match code {
        Code::RecordTooLarge => Reply::refused(code, "the message is larger than a frame"),
        _ => Reply::refused(code, "the queue is full: nothing was written, send it again later"),
    }
}

fn no_outbox(error: impl std::fmt::Display) -> Reply {
    Reply::refused(Code::HostMismatch, &error.to_string())
}
