//! One request: collects it, captures it as a record, and pauses it until it is answered.

use std::cell::Cell;
use std::rc::Rc;

use kafka_upstream_core::body::{self, Announced};
use kafka_upstream_core::capture::{Captured, admit, capture};
use kafka_upstream_core::config::{Mode, Settings};
use kafka_upstream_core::gateway::AtHeaders;
use kafka_upstream_core::limits::{UNFINISHED_BYTES_MAX, UNFINISHED_OVERHEAD_BYTES};
use kafka_upstream_core::outbox::Settled;
use kafka_upstream_core::outcome::{Code, Reply};
use kafka_upstream_core::request::Request;
use kafka_upstream_core::wire::Delivery;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

use crate::headers::Head;
use crate::host::{self, Buffer};
use crate::metrics::{Counter, Ended};
use crate::per_request::PerRequestStream;
use crate::routes::{Routes, Shared};
use crate::state::{CalloutEnd, StreamEnd};

/// A request's stream.
pub(crate) struct RequestStream {
    id: u32,
    /// None where the filter could not be configured.
    routes: Option<Rc<Routes>>,
    stage: StreamState,
}

/// How far the request is.
enum StreamState {
    /// Nothing of it is here.
    New,
    /// Its headers are here, its body is not yet complete.
    Collecting(Box<Collecting>),
    /// The root's outbox has its records, and the stream is paused.
    Waiting(Shared),
    /// It has been answered.
    Answered,
    /// It goes on to what stands behind the filter.
    Passing,
    /// It makes its own callouts.
    OnItsOwn { state: Shared, own: Box<PerRequestStream> },
}

struct Collecting {
    state: Shared,
    request: Request,
    announced: Announced,
    /// Bytes of its body so far; none before the first body callback.
    body_bytes: Option<u64>,
    _held: Option<Held>,
}

/// A request's share of the bytes that unfinished requests hold, until it is dropped.
struct Held {
    bytes: usize,
    all: Rc<Cell<usize>>,
}

impl Held {
    /// The share of a request, if there is room for it.
    fn take(request: &Request, all: &Rc<Cell<usize>>) -> Result<Self, Reply> {
        let (request_bytes, header_bytes) = UNFINISHED_OVERHEAD_BYTES;
        let headers = request.headers.iter();
        let headers = headers.map(|(name, value)| name.len() + value.len() + header_bytes);
        let bytes = request_bytes + request.target.len() + headers.sum::<usize>();
        let total = all.get() + bytes;
        if total > UNFINISHED_BYTES_MAX {
            let error = "too many requests wait for their bodies: send it again later";
            return Err(Reply::refused(Code::QueueFull, error));
        }
        all.set(total);
        Ok(Self { bytes, all: Rc::clone(all) })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.set(self.all.get() - self.bytes);
    }
}

/// Why the filter has no record of a request.
struct Refused {
    reply: Reply,
    /// Nothing was promised for its copy, so the request goes on all the same.
    goes_on: bool,
}

impl From<Reply> for Refused {
    fn from(reply: Reply) -> Self {
        Self { reply, goes_on: false }
    }
}

impl RequestStream {
    pub(crate) fn new(id: u32, routes: Option<Rc<Routes>>) -> Self {
        Self { id, routes, stage: StreamState::New }
    }

    /// Carries out a step. Whether the stream pauses follows from where the request is then: held
    /// back without a callout or an answer, one of nginx's workers would hang or die.
    fn act(&mut self, step: impl FnOnce(&mut Self, &Routes) -> Result<(), Refused>) -> Action {
        let Some(routes) = self.routes.clone() else {
            let error = "the filter's configuration is refused: the gateway's log names the field";
            host::answer(&Reply::refused(Code::NotConfigured, error));
            self.stage = StreamState::Answered;
            return Action::Pause;
        };
        match step(self, &routes) {
            Ok(()) => self.proceed_alone(&routes, Vec::new()),
            Err(Refused { reply, goes_on }) => {
                if let Some(code) = reply.code {
                    routes.metrics.count_request(Ended::Failed(code));
                    routes.warn_of(code);
                }
                self.stage = if goes_on { StreamState::Passing } else { StreamState::Answered };
                if !goes_on {
                    host::answer(&reply);
                }
            }
        }
        match self.stage {
            StreamState::Passing => Action::Continue,
            StreamState::Collecting(_) if routes.gateway.has_one_body_callback() => {
                Action::Continue
            }
            _ => Action::Pause,
        }
    }

    fn start(&mut self, routes: &Routes, num_headers: usize, ended: bool) -> Result<(), Refused> {
        if !routes.is_at_home() {
            return Err(Reply::refused(Code::HostMismatch, "host: this is another one").into());
        }
        let gateway = routes.gateway;
        let head = Head::read(gateway, num_headers, &routes.metrics)?;
        #[cfg(feature = "trap")]
        routes.trap.set(routes.trap.get() || head.request.header(b"x-trap").is_some());
        let Request { method, target, .. } = &head.request;
        let authority = head.request.value(b"host").unwrap_or_default();
        let found = routes.plugin.settings_for(method, target, authority);
        let Some(state) = found.and_then(|index| routes.states.get(index)).cloned() else {
            self.pass(routes);
            return Ok(());
        };
        let settings = &Rc::clone(&state.borrow().settings);
        let request = head.complete(gateway, settings).map_err(|reply| refused(settings, reply))?;
        if settings.mode == Mode::Tap && request.opens_a_tunnel() {
            self.pass(routes);
            return Ok(());
        }
        let announced = admit(settings, &request).map_err(|reply| refused(settings, reply))?;
        let next = gateway.at_headers(ended, &request, || host::property(b"request\0protocol"));
        let held = match next {
            AtHeaders::Capture => None,
            _ => Some(
                Held::take(&request, &routes.unfinished)
                    .map_err(|reply| refused(settings, reply))?,
            ),
        };
        let shared = Rc::clone(&state);
        let collecting =
            Collecting { state: shared, request, announced, body_bytes: None, _held: held };
        self.stage = StreamState::Collecting(Box::new(collecting));
        match next {
            AtHeaders::Capture => return self.finish(routes, 0),
            AtHeaders::Hold => {
                routes.await_body(self.id, settings.delivery_timeout, promises_nothing(settings));
            }
            AtHeaders::AskForBody if !host::set_property(b"wasm_process_req_body", b"1") => {
                let error = "the host does not take the wish for the body";
                return Err(refused(settings, Reply::refused(Code::HostMismatch, error)));
            }
            AtHeaders::AskForBody | AtHeaders::GoOn => {}
        }
        Ok(())
    }

    fn pass(&mut self, routes: &Routes) {
        routes.metrics.count_request(Ended::Passed);
        self.stage = StreamState::Passing;
    }

    fn collect(&mut self, routes: &Routes, size: Option<u64>, ended: bool) -> Result<(), Refused> {
        let StreamState::Collecting(collecting) = &mut self.stage else { return Ok(()) };
        let state = Rc::clone(&collecting.state);
        let settings = &Rc::clone(&state.borrow().settings);
        let begins = collecting.body_bytes.is_none();
        let whole = routes.gateway.has_one_body_callback();
        if begins
            && !whole
            && let Err(given_up) = routes.body_began(self.id)
        {
            self.stage = match given_up {
                // The root has carried it out already.
                None if promises_nothing(settings) => StreamState::Passing,
                None => StreamState::Answered,
                Some(StreamEnd::GoesOn) => StreamState::Passing,
                Some(StreamEnd::Answered(reply)) => {
                    host::answer(&reply);
                    StreamState::Answered
                }
            };
            return Ok(());
        }
        let size = size.or(collecting.body_bytes).unwrap_or_default();
        collecting.body_bytes = Some(size);
        if ended || whole {
            return self.finish(routes, size);
        }
        body::within(size, settings.max_body_bytes).map_err(|reply| refused(settings, reply))
    }

    /// The request is complete: it is captured, whether or not its client still waits.
    fn finish(&mut self, routes: &Routes, size: u64) -> Result<(), Refused> {
        let stage = std::mem::replace(&mut self.stage, StreamState::Answered);
        let StreamState::Collecting(collecting) = stage else { return Ok(()) };
        let Collecting { state, mut request, announced, .. } = *collecting;
        let captured = {
            let settings = &Rc::clone(&state.borrow().settings);
            let read = |size| host::buffer(Buffer::RequestBody, size);
            let captured = announced.take(size, settings.max_body_bytes, read).and_then(|body| {
                request.body = body;
                capture(settings, &request, host::timestamp_ms())
            });
            captured.map_err(|reply| refused(settings, reply))?
        };
        let stage = self.hand_over(routes, &state, captured);
        self.stage = stage.map_err(|reply| refused(&state.borrow().settings, reply))?;
        Ok(())
    }

    fn hand_over(
        &self,
        routes: &Routes,
        shared: &Shared,
        captured: Captured,
    ) -> Result<StreamState, Reply> {
        let mut state = shared.borrow_mut();
        let delivery = state.settings.delivery;
        if !routes.gateway.queues_in_root(delivery, state.queue.is_some()) {
            let own = PerRequestStream::new(&mut state, self.id, captured).map_err(not_queued)?;
            return Ok(StreamState::OnItsOwn { state: Rc::clone(shared), own: Box::new(own) });
        }
        let waits = delivery == Delivery::Acked;
        let (now, topics) = (state.clock.now(), captured.several_topics());
        state.outbox.push(captured, waits.then_some(self.id), now).map_err(not_queued)?;
        let stage = if waits {
            state.waiting.insert(self.id, topics);
            StreamState::Waiting(Rc::clone(shared))
        } else {
            state.metrics.count_request(Ended::Sent);
            match state.settings.mode {
                Mode::Tap => StreamState::Passing,
                Mode::Terminate => {
                    host::answer(&state.settings.replies.sent());
                    StreamState::Answered
                }
            }
        };
        state.wake_if_due(now);
        Ok(stage)
    }

    /// Without a root that sends for it: sends and answers in this request's own callbacks.
    fn proceed_alone(&mut self, routes: &Routes, settled: Vec<Settled>) {
        let StreamState::OnItsOwn { state, own } = &mut self.stage else { return };
        let end = own.proceed(&mut state.borrow_mut(), routes.gateway, settled);
        self.stage = match end {
            None => return,
            Some(StreamEnd::GoesOn) => StreamState::Passing,
            Some(StreamEnd::Answered(reply)) => {
                host::answer(&reply);
                StreamState::Answered
            }
        };
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
        let Some(routes) = self.routes.clone() else { return };
        let StreamState::OnItsOwn { state, own } = &mut self.stage else { return };
        let end = CalloutEnd::read(routes.gateway, num_headers, body_size);
        let settled = own.end_callout(&mut state.borrow_mut(), token, &end);
        let Some(settled) = settled else { return };
        self.proceed_alone(&routes, settled);
        if matches!(self.stage, StreamState::Passing) && !routes.gateway.resumes_by_itself() {
            host::resume();
        }
    }

    fn on_done(&mut self) -> bool {
        match &self.stage {
            StreamState::Waiting(state) => {
                let mut state = state.borrow_mut();
                state.waiting.remove(self.id);
                if self.routes.as_ref().is_some_and(|routes| routes.forget(self.id)) {
                    state.metrics.count(Counter::ClientGone);
                }
            }
            StreamState::OnItsOwn { state, own } => own.forget(&mut state.borrow_mut(), self.id),
            StreamState::Collecting(_) => {
                self.routes.iter().for_each(|routes| _ = routes.forget(self.id));
            }
            _ => {}
        }
        true
    }
}

impl HttpContext for RequestStream {
    fn on_http_request_headers(&mut self, num_headers: usize, end_of_stream: bool) -> Action {
        self.act(|request, routes| request.start(routes, num_headers, end_of_stream))
    }

    fn on_http_request_body(&mut self, body_size: usize, end_of_stream: bool) -> Action {
        self.act(|request, routes| request.collect(routes, Some(body_size as u64), end_of_stream))
    }

    fn on_http_request_trailers(&mut self, _num_trailers: usize) -> Action {
        self.act(|request, routes| request.collect(routes, None, true))
    }
}

fn refused(settings: &Settings, reply: Reply) -> Refused {
    Refused { reply, goes_on: promises_nothing(settings) }
}

/// A tap in memory mode: what cannot be copied goes on without a copy.
fn promises_nothing(settings: &Settings) -> bool {
    settings.mode == Mode::Tap && settings.delivery == Delivery::Memory
}

fn not_queued(code: Code) -> Reply {
    match code {
        Code::RecordTooLarge => Reply::refused(code, "the message is larger than a frame"),
        Code::DeliveryFailing => Reply::refused(code, "deliveries fail: send it again later"),
        Code::ProfileRefused => Reply::refused(code, "the bridge refuses this configuration"),
        Code::BridgeUnauthorized => {
            Reply::refused(code, "the bridge does not take this filter's token")
        }
        _ => Reply::refused(code, "the queue is full: nothing was written, send it again later"),
    }
}
