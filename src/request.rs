//! One request: collects it, captures it as a record, and pauses it until it is answered.

use std::rc::Rc;

use kafka_upstream_core::body::{self, Announced};
use kafka_upstream_core::capture::{Captured, admit, capture};
use kafka_upstream_core::config::{Mode, Settings};
use kafka_upstream_core::gateway::AtHeaders;
use kafka_upstream_core::limits::{UNFINISHED_BYTES_MAX, UNFINISHED_OVERHEAD_BYTES};
use kafka_upstream_core::outbox::Settled;
use kafka_upstream_core::outcome::Code;
use kafka_upstream_core::reply::Reply;
use kafka_upstream_core::request::Request;
use kafka_upstream_core::wire::{self, Delivery};
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

use crate::budget::{ByteBudget, Reservation};
use crate::headers::RequestHead;
use crate::host::{self, Buffer, Map};
use crate::metrics::{Counter, RequestEnd};
use crate::per_request::PerRequestStream;
use crate::route::{StreamEnd, WakeUp, read_end};
use crate::routes::{Routes, SharedRoute};

/// A request's stream.
pub(crate) struct RequestStream {
    id: u32,
    /// None where the filter could not be configured.
    routes: Option<Rc<Routes>>,
    state: StreamState,
}

/// How far the request is.
enum StreamState {
    /// Nothing of it has arrived.
    New,
    /// Its headers have arrived, its body is not complete.
    Collecting(Box<Collecting>),
    /// The root's outbox has its records, and the stream is paused.
    Waiting(SharedRoute),
    /// It has been answered.
    Answered,
    /// It goes on to the upstream.
    Passing,
    /// It makes its own callouts.
    PerRequest { route: SharedRoute, stream: Box<PerRequestStream> },
}

struct Collecting {
    route: SharedRoute,
    request: Request,
    announced: Announced,
    /// Whether its headers were held back.
    next: AtHeaders,
    /// Bytes of its body so far; none before the first body callback.
    body_bytes: Option<u64>,
    /// Its body so far, where that goes on as it comes.
    copy: Option<Vec<u8>>,
    bytes: Option<Reservation>,
}

impl Collecting {
    /// Whether what has just arrived goes on.
    fn goes_on(&self) -> bool {
        self.copy.is_some() || (self.next != AtHeaders::Hold && self.body_bytes.is_none())
    }

    /// A body callback, or none of its own for the end: the bytes of the body so far. What is held
    /// back counts in each callback, what goes on in one alone.
    fn take_in(&mut self, size: Option<u64>, max_body_bytes: u64) -> Result<u64, Reply> {
        let before = self.body_bytes.unwrap_or_default();
        let total = match (&mut self.copy, size) {
            (_, None) => before,
            (None, Some(size)) => size,
            (Some(copy), Some(size)) => {
                let total = before.saturating_add(size);
                body::within(total, max_body_bytes)?;
                let size = usize::try_from(size).unwrap_or(usize::MAX);
                if !self.bytes.as_mut().is_none_or(|bytes| bytes.grow(size, UNFINISHED_BYTES_MAX)) {
                    return Err(too_many_wait());
                }
                if size > 0 {
                    copy.extend(host::buffer(Buffer::RequestBody, size).unwrap_or_default());
                }
                total
            }
        };
        self.body_bytes = Some(total);
        Ok(total)
    }
}

/// Why the filter has no record of a request.
struct Rejection {
    reply: Reply,
    /// The request goes on without its copy.
    goes_on: bool,
}

impl From<Reply> for Rejection {
    fn from(reply: Reply) -> Self {
        Self { reply, goes_on: false }
    }
}

impl RequestStream {
    pub(crate) fn new(id: u32, routes: Option<Rc<Routes>>) -> Self {
        Self { id, routes, state: StreamState::New }
    }

    /// Carries out a callback. Whether the stream pauses follows from the request's state after it:
    /// a stream that is paused without a callout or a reply hangs on WasmX until its client leaves,
    /// and ends APISIX's worker with a segmentation fault.
    fn on(&mut self, event: impl FnOnce(&mut Self, &Routes) -> Result<(), Rejection>) -> Action {
        let Some(routes) = self.routes.clone() else {
            let error = "the filter's configuration is refused: the gateway's log names the field";
            host::answer(&Reply::refused(Code::NotConfigured, error));
            self.state = StreamState::Answered;
            return Action::Pause;
        };
        match event(self, &routes) {
            Ok(()) => self.proceed_per_request(&routes, Vec::new()),
            Err(Rejection { reply, goes_on }) => {
                if let Some(code) = reply.code {
                    routes.metrics.count_request(RequestEnd::Failed(code));
                    routes.warn_of(code);
                }
                self.state = if goes_on { StreamState::Passing } else { StreamState::Answered };
                if !goes_on {
                    host::answer(&reply);
                }
            }
        }
        routes.metrics.report();
        match self.state {
            StreamState::Passing => Action::Continue,
            StreamState::Collecting(ref collecting) if collecting.goes_on() => Action::Continue,
            _ => Action::Pause,
        }
    }

    fn start(&mut self, routes: &Routes, num_headers: usize, ended: bool) -> Result<(), Rejection> {
        if !routes.is_expected_gateway() {
            return Err(Reply::refused(
                Code::HostMismatch,
                "host: the filter runs in another gateway",
            )
            .into());
        }
        let gateway = routes.gateway;
        let head = RequestHead::read(gateway, num_headers, &routes.metrics)?;
        #[cfg(feature = "trap")]
        routes.trap.set(routes.trap.get() || head.request.header(b"x-trap").is_some());
        let Request { method, target, .. } = &head.request;
        let authority = head.request.value(b"host").unwrap_or_default();
        let found = routes.plugin.settings_for(method, target, authority);
        let Some(route) = found.and_then(|index| routes.routes.get(index)).cloned() else {
            self.pass(routes);
            return Ok(());
        };
        let settings = &Rc::clone(&route.borrow().settings);
        let request = head.complete(gateway, settings).map_err(|reply| refused(settings, reply))?;
        if settings.mode == Mode::Tap && request.opens_a_tunnel() {
            self.pass(routes);
            return Ok(());
        }
        let announced = admit(settings, &request).map_err(|reply| refused(settings, reply))?;
        let stops = routes.stops_at_headers();
        let protocol = || host::property(b"request\0protocol");
        let next = gateway.at_headers(ended, stops, &request, protocol);
        let bytes = match next {
            AtHeaders::Capture => None,
            _ => Some(
                share(&request, &routes.unfinished).map_err(|reply| refused(settings, reply))?,
            ),
        };
        let (route, goes_on) = (Rc::clone(&route), settings.goes_on_without_copy());
        let in_pieces = next != AtHeaders::Capture && !gateway.has_one_body_callback();
        // Nothing that has gone on is held back: Envoy would send it twice where it retries.
        let copy = (in_pieces && goes_on && next == AtHeaders::GoOn).then(Vec::new);
        if in_pieces && copy.is_none() {
            routes.await_body(self.id, settings.delivery_timeout, goes_on);
        }
        let body_bytes = None;
        let collecting = Collecting { route, request, announced, next, body_bytes, copy, bytes };
        self.state = StreamState::Collecting(Box::new(collecting));
        match next {
            AtHeaders::Capture => self.finish(routes, 0),
            AtHeaders::AskForBody if !host::set_property(b"wasm_process_req_body", b"1") => {
                let error = "the gateway does not read the request's body";
                Err(refused(settings, Reply::refused(Code::HostMismatch, error)))
            }
            AtHeaders::Hold | AtHeaders::AskForBody | AtHeaders::GoOn => Ok(()),
        }
    }

    fn pass(&mut self, routes: &Routes) {
        routes.metrics.count_request(RequestEnd::Passed);
        self.state = StreamState::Passing;
    }

    fn collect(
        &mut self,
        routes: &Routes,
        size: Option<u64>,
        ended: bool,
    ) -> Result<(), Rejection> {
        let StreamState::Collecting(collecting) = &mut self.state else { return Ok(()) };
        let settings = &Rc::clone(&collecting.route.borrow().settings);
        let begins = collecting.body_bytes.is_none();
        let whole = routes.gateway.has_one_body_callback();
        if begins
            && !whole
            && collecting.copy.is_none()
            && let Err(given_up) = routes.body_began(self.id)
        {
            self.state = match given_up {
                // The root has carried it out already.
                None if settings.goes_on_without_copy() => StreamState::Passing,
                None => StreamState::Answered,
                Some(StreamEnd::GoesOn) => StreamState::Passing,
                Some(StreamEnd::Answered(reply)) => {
                    host::answer(&reply);
                    StreamState::Answered
                }
            };
            return Ok(());
        }
        let size = collecting.take_in(size, settings.max_body_bytes);
        let size = size.map_err(|reply| refused(settings, reply))?;
        if ended || whole {
            return self.finish(routes, size);
        }
        body::within(size, settings.max_body_bytes).map_err(|reply| refused(settings, reply))
    }

    /// The request is complete: it is captured, whether or not its client still waits.
    fn finish(&mut self, routes: &Routes, size: u64) -> Result<(), Rejection> {
        let state = std::mem::replace(&mut self.state, StreamState::Answered);
        let StreamState::Collecting(collecting) = state else { return Ok(()) };
        let Collecting { route, mut request, announced, copy, .. } = *collecting;
        let captured = {
            let settings = &Rc::clone(&route.borrow().settings);
            let read = |size| copy.or_else(|| host::buffer(Buffer::RequestBody, size));
            let captured = announced.take(size, settings.max_body_bytes, read).and_then(|body| {
                request.body = body;
                capture(settings, &request, host::timestamp_ms())
            });
            captured.map_err(|reply| refused(settings, reply))?
        };
        let state = self.hand_over(routes, &route, captured);
        self.state = state.map_err(|reply| refused(&route.borrow().settings, reply))?;
        Ok(())
    }

    fn hand_over(
        &self,
        routes: &Routes,
        shared: &SharedRoute,
        captured: Captured,
    ) -> Result<StreamState, Reply> {
        let mut route = shared.borrow_mut();
        let delivery = route.settings.delivery;
        let root_wakes = route.wake_up != WakeUp::Unavailable;
        if !routes.gateway.queues_in_root(delivery, root_wakes) {
            let stream =
                PerRequestStream::new(&mut route, self.id, captured).map_err(not_queued)?;
            let stream = Box::new(stream);
            return Ok(StreamState::PerRequest { route: Rc::clone(shared), stream });
        }
        let waits = delivery != Delivery::Memory;
        let (now, topics) = (route.clock.now(), captured.several_topics());
        route.outbox.push(captured, waits.then_some(self.id), now).map_err(not_queued)?;
        let state = if waits {
            route.paused.insert(self.id, topics);
            StreamState::Waiting(Rc::clone(shared))
        } else {
            route.metrics.count_request(RequestEnd::Sent);
            match route.settings.mode {
                Mode::Tap => StreamState::Passing,
                Mode::Terminate => {
                    host::answer(&route.settings.replies.sent());
                    StreamState::Answered
                }
            }
        };
        route.wake_if_due(now);
        Ok(state)
    }

    /// Where the root cannot be woken: sends and answers in this request's own callbacks.
    fn proceed_per_request(&mut self, routes: &Routes, settled: Vec<Settled>) {
        let StreamState::PerRequest { route, stream } = &mut self.state else { return };
        let end = stream.proceed(&mut route.borrow_mut(), routes.gateway, settled);
        self.state = match end {
            None => return,
            Some(StreamEnd::GoesOn) => StreamState::Passing,
            Some(StreamEnd::Answered(reply)) => {
                host::answer(&reply);
                StreamState::Answered
            }
        };
    }
}

/// Where the headers of a request go on before its body, something behind the filter may answer
/// first: a route that is wrong, Envoy itself where the bridge is away. No client gets that.
impl RequestStream {
    /// A part of a response: whether it is the client's. One that is held back is replaced by the
    /// filter's own, when that is there.
    fn guard(&mut self) -> Action {
        let Some(routes) = self.routes.clone().filter(|routes| !routes.stops_at_headers()) else {
            return Action::Continue;
        };
        let is_held = match &self.state {
            StreamState::New | StreamState::Answered | StreamState::Passing => false,
            StreamState::Collecting(collecting) => {
                collecting.copy.is_none() && self.replace_response(&routes)
            }
            // The filter's own reply comes by here, too, after its stream has ceased to wait.
            StreamState::Waiting(route) => {
                route.borrow().paused.contains(self.id) || routes.is_about_to_end(self.id)
            }
            StreamState::PerRequest { .. } => true,
        };
        if is_held { Action::Pause } else { Action::Continue }
    }

    /// The response to a request whose body is not complete, and of which nothing is written: what
    /// is not Envoy's own refusal of the request is replaced.
    fn replace_response(&mut self, routes: &Routes) -> bool {
        routes.forget(self.id);
        self.state = StreamState::Answered;
        let status = host::header(Map::Response, ":status").unwrap_or_default();
        let is_bridges = host::header(Map::Response, wire::MARKER).is_some();
        let Some(reply) = Reply::instead_of(&status, is_bridges) else { return false };
        if let Some(code) = reply.code {
            routes.metrics.count_request(RequestEnd::Failed(code));
            routes.metrics.report();
            if code == Code::HostMismatch {
                routes.warn_once(MISROUTED);
            }
        }
        host::answer(&reply);
        true
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
        let StreamState::PerRequest { route, stream } = &mut self.state else { return };
        let settled = read_end(routes.gateway, num_headers, body_size, |ended| {
            stream.end_callout(&mut route.borrow_mut(), token, ended)
        });
        let Some(settled) = settled else { return };
        self.proceed_per_request(&routes, settled);
        routes.metrics.report();
        if matches!(self.state, StreamState::Passing) && !routes.gateway.resumes_by_itself() {
            host::resume();
        }
    }

    fn on_done(&mut self) -> bool {
        match &self.state {
            StreamState::Waiting(route) => {
                let mut route = route.borrow_mut();
                route.paused.remove(self.id);
                if self.routes.as_ref().is_some_and(|routes| routes.forget(self.id)) {
                    route.metrics.count(Counter::ClientGone);
                    route.metrics.report();
                }
            }
            StreamState::PerRequest { route, .. } => {
                route.borrow_mut().paused.remove(self.id);
            }
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
        self.on(|request, routes| request.start(routes, num_headers, end_of_stream))
    }

    fn on_http_request_body(&mut self, body_size: usize, end_of_stream: bool) -> Action {
        self.on(|request, routes| request.collect(routes, Some(body_size as u64), end_of_stream))
    }

    fn on_http_request_trailers(&mut self, _num_trailers: usize) -> Action {
        self.on(|request, routes| request.collect(routes, None, true))
    }

    fn on_http_response_headers(&mut self, _num_headers: usize, _end_of_stream: bool) -> Action {
        self.guard()
    }

    fn on_http_response_body(&mut self, _body_size: usize, _end_of_stream: bool) -> Action {
        self.guard()
    }

    fn on_http_response_trailers(&mut self, _num_trailers: usize) -> Action {
        self.guard()
    }
}

fn refused(settings: &Settings, reply: Reply) -> Rejection {
    Rejection { reply, goes_on: settings.goes_on_without_copy() }
}

/// The share of a request in the bytes that wait for bodies, if there is room for it.
fn share(request: &Request, unfinished: &ByteBudget) -> Result<Reservation, Reply> {
    let (request_bytes, header_bytes) = UNFINISHED_OVERHEAD_BYTES;
    let headers = request.headers.iter();
    let headers = headers.map(|(name, value)| name.len() + value.len() + header_bytes);
    let bytes = request_bytes + request.target.len() + headers.sum::<usize>();
    unfinished.take(bytes, UNFINISHED_BYTES_MAX).ok_or_else(too_many_wait)
}

fn too_many_wait() -> Reply {
    let error = "too many requests wait for their bodies: send it again later";
    Reply::refused(Code::QueueFull, error)
}

fn not_queued(code: Code) -> Reply {
    match code {
        Code::RecordTooLarge => Reply::refused(code, "the message is larger than a frame"),
        Code::DeliveryFailing => {
            Reply::refused(code, "deliveries are failing: send it again later")
        }
        Code::ProfileRefused => {
            Reply::refused(code, "the bridge rejects this filter's configuration")
        }
        Code::BridgeUnauthorized => Reply::refused(code, "the bridge rejects this filter's token"),
        _ => Reply::refused(code, "the queue is full: nothing was written, send it again later"),
    }
}

const MISROUTED: &str = "event=answered_behind effect=500 hint=\"something behind the filter answered \
    before a request's body was there: route captured requests to /v1/bypassed of the bridge\"";
