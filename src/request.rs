//! One request: collects it, captures it as a record, and pauses it until it is answered.

use std::cell::RefCell;
use std::rc::Rc;

use kafka_upstream_core::body::{self, Announced};
use kafka_upstream_core::capture::{Captured, capture};
use kafka_upstream_core::config::Mode;
use kafka_upstream_core::outbox::{Outbox, Settled, StreamId};
use kafka_upstream_core::outcome::{Code, Reply};
use kafka_upstream_core::request::Request;
use kafka_upstream_core::wire::Delivery;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

use crate::host::{self, Buffer, Map};
use crate::metrics::{Counter, Ended};
use crate::root::Routes;
use crate::state::{CalloutEnd, Sent, State};

/// A request's stream.
pub(crate) struct RequestStream {
    id: u32,
    routes: Rc<Routes>,
    stage: Stage,
}

/// How far the request is.
enum Stage {
    /// Nothing of it is here.
    New,
    /// Its headers are here, its body is not yet complete.
    Collecting { state: Shared, request: Request, announced: Announced, body_bytes: u64 },
    /// The root's outbox has its records, and the stream is paused.
    Waiting { state: Shared },
    /// It has been answered.
    Answered,
    /// It goes on to what stands behind the filter.
    Passing,
    /// It makes its own callouts.
    OnItsOwn { state: Shared, own: Box<Own> },
}

type Shared = Rc<RefCell<State>>;

/// What a request needs that makes its own callouts.
struct Own {
    outbox: Outbox,
    bytes: usize,
    callout: Option<(u32, Sent)>,
}

/// Why the filter has no record of a request.
struct Refused {
    reply: Reply,
    /// Nothing was promised for its copy, so the request goes on all the same.
    goes_on: bool,
}

impl RequestStream {
    pub(crate) fn new(id: u32, routes: Rc<Routes>) -> Self {
        Self { id, routes, stage: Stage::New }
    }

    /// Carries out a step; whether the stream pauses follows from where the request is then.
    fn act(&mut self, step: Result<(), Refused>) -> Action {
        match step {
            Ok(()) => self.proceed_alone(Vec::new()),
            Err(Refused { reply, goes_on }) => {
                if let Some(code) = reply.code {
                    self.routes.metrics.count_request(Ended::Failed(code));
                }
                self.routes.metrics.count(Counter::Refused);
                self.stage = if goes_on { Stage::Passing } else { Stage::Answered };
                if !goes_on {
                    host::answer(&reply);
                }
            }
        }
        if matches!(self.stage, Stage::Passing) { Action::Continue } else { Action::Pause }
    }

    fn start(&mut self, ended: bool) -> Result<(), Refused> {
        let pairs = host::headers(Map::Request).ok_or_else(|| {
            let error = "the host does not hand over the headers";
            Refused { reply: Reply::refused(Code::HostMismatch, error), goes_on: false }
        })?;
        let mut request = Request::from_host(pairs);
        let authority = request.header(b"host").unwrap_or_default();
        let plugin = &self.routes.plugin;
        let found = plugin.settings_for(&request.method, &request.target, authority);
        let state = found.and_then(|index| self.routes.states.get(index)).cloned();
        let Some(state) = state else {
            self.pass();
            return Ok(());
        };
        if state.borrow().settings.expressions.use_source() {
            request.source_address = host::property(b"source\0address").unwrap_or_default();
        }
        let (mode, most) = {
            let settings = &state.borrow().settings;
            (settings.mode, settings.max_body_bytes)
        };
        if request.opens_a_tunnel() {
            if mode == Mode::Tap {
                self.pass();
                return Ok(());
            }
            let error = "a tunnel has no end to wait for";
            return Err(refused(&state, Reply::refused(Code::BadRequest, error)));
        }
        let lengths = request.headers.iter().filter(|(name, _)| name == b"content-length");
        let announced = Announced::read(lengths.map(|(_, value)| value.as_slice()), most)
            .map_err(|reply| refused(&state, reply))?;
        self.stage = Stage::Collecting { state, request, announced, body_bytes: 0 };
        if ended { self.finish(0) } else { Ok(()) }
    }

    fn pass(&mut self) {
        self.routes.metrics.count_request(Ended::Passed);
        self.stage = Stage::Passing;
    }

    fn collect(&mut self, size: u64, ended: bool) -> Result<(), Refused> {
        let Stage::Collecting { state, announced, body_bytes, .. } = &mut self.stage else {
            return Ok(());
        };
        *body_bytes = size;
        let most = state.borrow().settings.max_body_bytes;
        announced.check(size, ended, most).map_err(|reply| refused(state, reply))?;
        if ended { self.finish(size) } else { Ok(()) }
    }

    /// The request is complete: it is captured, whether or not its client still waits.
    fn finish(&mut self, size: u64) -> Result<(), Refused> {
        let stage = std::mem::replace(&mut self.stage, Stage::Answered);
        let Stage::Collecting { state, mut request, .. } = stage else { return Ok(()) };
        let captured = body_of(&mut request, size)
            .and_then(|()| capture(&state.borrow().settings, &request, host::timestamp_ms()));
        let captured = captured.map_err(|reply| refused(&state, reply))?;
        self.stage = self.hand_over(&state, captured).map_err(|reply| refused(&state, reply))?;
        Ok(())
    }

    fn hand_over(&self, shared: &Shared, captured: Captured) -> Result<Stage, Reply> {
        let mut state = shared.borrow_mut();
        let waits = state.settings.delivery == Delivery::Acked;
        if waits && state.queue.is_none() {
            let own = Box::new(go_alone(&mut state, self.id, captured)?);
            return Ok(Stage::OnItsOwn { state: Rc::clone(shared), own });
        }
        let (now, records) = (state.clock.now(), 1 + captured.more.len());
        state.outbox.push(captured, waits.then_some(self.id), now).map_err(not_queued)?;
        let stage = if waits {
            state.waiting.insert(self.id, records);
            Stage::Waiting { state: Rc::clone(shared) }
        } else {
            state.metrics.count(Counter::Queued);
            state.metrics.count_request(Ended::Sent);
            match state.settings.mode {
                Mode::Tap => Stage::Passing,
                Mode::Terminate => {
                    host::answer(&state.settings.replies.sent());
                    Stage::Answered
                }
            }
        };
        state.wake_if_due(now);
        Ok(stage)
    }

    /// Without a root that can be woken: sends and answers in this request's own callbacks.
    fn proceed_alone(&mut self, mut settled: Vec<Settled>) {
        let Stage::OnItsOwn { state, own } = &mut self.stage else { return };
        let mut state = state.borrow_mut();
        loop {
            for one in settled {
                if let Some((_, end)) = state.conclude(one) {
                    end.perform();
                    return;
                }
            }
            let now = state.clock.now();
            let Some(callout) = own.outbox.poll_callout(now, &mut state.sequence) else {
                // Nothing wakes a request later, so what cannot be sent again now is given up.
                settled = own.outbox.expire(now + state.settings.delivery_timeout);
                if settled.is_empty() {
                    return;
                }
                continue;
            };
            match state.send(&callout, now) {
                Ok(sent) => {
                    own.callout = Some(sent);
                    return;
                }
                Err(why) => settled = own.outbox.on_refused(callout.sequence, &why, now),
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
        let Stage::OnItsOwn { state, own } = &mut self.stage else { return };
        let Some((_, sent)) = own.callout.take_if(|(expected, _)| *expected == token) else {
            return;
        };
        let end = CalloutEnd::read(num_headers, body_size);
        let now = state.borrow_mut().note_end(sent, &end);
        let settled = own.outbox.on_ended(sent.sequence, &end.as_ended(), now);
        self.proceed_alone(settled);
    }

    fn on_done(&mut self) -> bool {
        match &self.stage {
            Stage::Waiting { state } => {
                state.borrow_mut().waiting.remove(self.id);
            }
            Stage::OnItsOwn { state, own } => {
                let mut state = state.borrow_mut();
                state.waiting.remove(self.id);
                state.alone_bytes -= own.bytes;
            }
            _ => {}
        }
        true
    }
}

impl HttpContext for RequestStream {
    fn on_http_request_headers(&mut self, _num_headers: usize, end_of_stream: bool) -> Action {
        let step = self.start(end_of_stream);
        self.act(step)
    }

    fn on_http_request_body(&mut self, body_size: usize, end_of_stream: bool) -> Action {
        let step = self.collect(body_size as u64, end_of_stream);
        self.act(step)
    }

    fn on_http_request_trailers(&mut self, _num_trailers: usize) -> Action {
        let size = match &self.stage {
            Stage::Collecting { body_bytes, .. } => *body_bytes,
            _ => 0,
        };
        let step = self.collect(size, true);
        self.act(step)
    }
}

/// Puts records into an outbox of their own, within the limits that the root's queue has.
fn go_alone(state: &mut State, stream: StreamId, captured: Captured) -> Result<Own, Reply> {
    let records = 1 + captured.more.len();
    let bytes = captured.first.len() + captured.more.iter().map(Vec::len).sum::<usize>();
    if !state.has_room_for(bytes) {
        return Err(not_queued(Code::QueueFull));
    }
    let mut outbox = Outbox::new(&state.settings, state.vm).map_err(no_outbox)?;
    outbox.push(captured, Some(stream), state.clock.now()).map_err(not_queued)?;
    state.waiting.insert(stream, records);
    state.alone_bytes += bytes;
    Ok(Own { outbox, bytes, callout: None })
}

/// Reads the whole body, whose size the host has told.
fn body_of(request: &mut Request, size: u64) -> Result<(), Reply> {
    if size > 0 {
        let read = host::buffer(Buffer::RequestBody, usize::try_from(size).unwrap_or(usize::MAX));
        body::check_read(read.as_deref(), size)?;
        request.body = read.unwrap_or_default();
    }
    Ok(())
}

/// A tap in memory mode promises nothing: what cannot be copied goes on without a copy.
fn refused(state: &Shared, reply: Reply) -> Refused {
    let settings = &state.borrow().settings;
    let goes_on = settings.mode == Mode::Tap && settings.delivery == Delivery::Memory;
    Refused { reply, goes_on }
}

fn not_queued(code: Code) -> Reply {
    match code {
        Code::RecordTooLarge => Reply::refused(code, "the message is larger than a frame"),
        Code::DeliveryFailing => Reply::refused(code, "deliveries fail: send it again later"),
        Code::ProfileRefused => Reply::refused(code, "the bridge refuses this configuration"),
        _ => Reply::refused(code, "the queue is full: nothing was written, send it again later"),
    }
}

fn no_outbox(error: impl std::fmt::Display) -> Reply {
    Reply::refused(Code::HostMismatch, &error.to_string())
}
