//! What the requests of a root share: which settings are for which, and what the root must know of
//! requests that wait for their bodies.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::Duration;

use kafka_upstream_core::config::Plugin;
use kafka_upstream_core::gateway::Gateway;
use kafka_upstream_core::limits::{ANSWERS_PER_CALLBACK_MAX, TICK_MS};
use kafka_upstream_core::outbox::StreamId;
use kafka_upstream_core::outcome::Code;
use kafka_upstream_core::reply::Reply;

use crate::budget::ByteBudget;
use crate::host::{self, Clock, Level};
use crate::metrics::{Metrics, RequestEnd};
use crate::route::{Route, StreamEnd};

/// One set of settings, shared by the root and its requests.
pub(crate) type SharedRoute = Rc<RefCell<Route>>;

/// Which requests go where.
pub(crate) struct Routes {
    pub(crate) plugin: Plugin,
    pub(crate) gateway: Gateway,
    /// One for each of the plugin's settings.
    pub(crate) routes: Vec<SharedRoute>,
    pub(crate) metrics: Rc<Metrics>,
    /// Whether `gateway` is the one that serves requests; none before the first.
    is_expected_gateway: Cell<Option<bool>>,
    pub(crate) clock: Clock,
    /// The time of the last tick.
    ticked_at: Cell<Duration>,
    /// Streams that nothing of a body has come for yet.
    bodiless: RefCell<HashMap<StreamId, Bodiless>>,
    /// Some request's body has begun: the host passes bodies to the filter.
    body_seen: Cell<bool>,
    /// Paused streams whose end is known, until the root has carried it out; oldest first.
    ends: RefCell<BTreeMap<StreamId, StreamEnd>>,
    /// Bytes that requests hold in the VM until their bodies are complete.
    pub(crate) unfinished: ByteBudget,
    has_warned: Cell<bool>,
    /// A test has asked for the end of the VM.
    #[cfg(feature = "trap")]
    pub(crate) trap: Cell<bool>,
}

/// A stream that waits for its body to begin.
#[derive(Debug, Clone, Copy)]
struct Bodiless {
    until: Duration,
    /// It goes on without its copy when that time is over.
    goes_on: bool,
}

impl Routes {
    pub(crate) fn new(
        plugin: Plugin,
        gateway: Gateway,
        routes: Vec<SharedRoute>,
        metrics: Rc<Metrics>,
        clock: Clock,
    ) -> Self {
        Self {
            body_seen: Cell::new(!plugin.stops_at_headers),
            plugin,
            gateway,
            routes,
            metrics,
            is_expected_gateway: Cell::new(None),
            clock,
            ticked_at: Cell::default(),
            bodiless: RefCell::default(),
            ends: RefCell::default(),
            unfinished: ByteBudget::default(),
            has_warned: Cell::new(false),
            #[cfg(feature = "trap")]
            trap: Cell::new(false),
        }
    }

    /// Checks once, by what a host has while it serves a request, that it is the right one.
    pub(crate) fn is_expected_gateway(&self) -> bool {
        if let Some(known) = self.is_expected_gateway.get() {
            return known;
        }
        let is_there = |path| host::property_status(path) == 0;
        let dotted = is_there(b"ngx\0nginx_version");
        let found = Gateway::of_request(dotted, !dotted && is_there(b"nginx_version"));
        let known = found == self.gateway;
        if !known {
            let (host, found) = (self.gateway.name(), found.name());
            let what = format!("event=host_mismatch host={host} found={found} effect=500");
            host::log(Level::Error, &what);
        }
        self.is_expected_gateway.set(Some(known));
        known
    }

    /// Whether the gateway passes the body of a request that is held back at its headers.
    pub(crate) fn stops_at_headers(&self) -> bool {
        self.plugin.stops_at_headers || self.gateway != Gateway::Envoy
    }

    /// Logs, once, a refusal that the gateway's configuration can prevent.
    pub(crate) fn warn_of(&self, code: Code) {
        if code == Code::BodyNotReadable {
            self.warn_once(SPILLED);
        }
    }

    /// Logs what is the first to be logged so.
    pub(crate) fn warn_once(&self, line: &str) {
        if !self.has_warned.replace(true) {
            host::log(Level::Warn, line);
        }
    }

    /// A stream waits for the first of its body.
    pub(crate) fn await_body(&self, stream: StreamId, timeout: Duration, goes_on: bool) {
        // Whether it is over is looked at in ticks: the last one's time will do.
        let until = self.ticked_at.get() + Duration::from_millis(TICK_MS.1) + timeout;
        self.bodiless.borrow_mut().insert(stream, Bodiless { until, goes_on });
    }

    /// The first of a stream's body is here; how the stream ends, where the root has given it up
    /// meanwhile.
    pub(crate) fn body_began(&self, stream: StreamId) -> Result<(), Option<StreamEnd>> {
        self.body_seen.set(true);
        match self.bodiless.borrow_mut().remove(&stream) {
            Some(_) => Ok(()),
            None => Err(self.ends.borrow_mut().remove(&stream)),
        }
    }

    /// Gives up the streams that have waited too long for their bodies: a client is slow, or Envoy
    /// lacks `allow_on_headers_stop_iteration`, and reads no body of a stream that is held back at
    /// its headers.
    pub(crate) fn expire_bodiless(&self, now: Duration) {
        self.ticked_at.set(now);
        let late: Vec<_> =
            self.bodiless.borrow_mut().extract_if(|_, one| one.until <= now).collect();
        let code = if self.body_seen.get() { Code::BodyTimeout } else { Code::HostMismatch };
        if code == Code::HostMismatch && !late.is_empty() && !self.has_warned.replace(true) {
            host::log(Level::Error, NO_BODY);
        }
        for (stream, Bodiless { goes_on, .. }) in late {
            self.metrics.count_request(RequestEnd::Failed(code));
            let error = "no byte of the body arrived within delivery_timeout";
            self.end_later(
                stream,
                match goes_on {
                    true => StreamEnd::GoesOn,
                    false => StreamEnd::Answered(Reply::refused(code, error)),
                },
            );
        }
    }

    /// A paused stream's end is known; the root carries it out.
    pub(crate) fn end_later(&self, stream: StreamId, end: StreamEnd) {
        self.ends.borrow_mut().insert(stream, end);
    }

    /// Whether a stream's end is known and not yet carried out.
    pub(crate) fn is_about_to_end(&self, stream: StreamId) -> bool {
        self.ends.borrow().contains_key(&stream)
    }

    /// A stream has ended, and gets no answer: Envoy crashes when the root answers a stream that no
    /// longer exists. Whether an answer was due.
    pub(crate) fn forget(&self, stream: StreamId) -> bool {
        self.bodiless.borrow_mut().remove(&stream);
        self.ends.borrow_mut().remove(&stream).is_some()
    }

    /// What each callback of the root ends with: answers as many streams as one may. The others
    /// follow in the next wake-up, or, where no queue can wake the root, at the next tick. The last
    /// one's context stays the effective one until the callback returns: a callout that was
    /// dispatched after this would lose its reply with that stream.
    pub(crate) fn answer_some(&self) {
        for _ in 0..ANSWERS_PER_CALLBACK_MAX {
            let Some((stream, end)) = self.ends.borrow_mut().pop_first() else { break };
            if host::act_for(stream) {
                match end {
                    StreamEnd::Answered(reply) => host::answer(&reply),
                    StreamEnd::GoesOn => host::resume(),
                }
            }
        }
        self.metrics.report();
        if !self.ends.borrow().is_empty() {
            _ = self.routes.iter().any(|route| route.borrow_mut().wake());
        }
    }
}

const SPILLED: &str = "event=body_not_readable effect=413 hint=\"the gateway does not pass \
    a request's body to the filter; on Kong and nginx set client_body_buffer_size to max_body_bytes\"";

const NO_BODY: &str = "event=no_body effect=500 hint=\"a request's body did not begin within \
    delivery_timeout; if none ever does, set allow_on_headers_stop_iteration: true in Envoy's \
    plugin configuration\"";
