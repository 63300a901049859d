//! What the requests of a root share: which settings are whose, and what the root must know of
//! requests that wait for their bodies.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use kafka_upstream_core::config::Plugin;
use kafka_upstream_core::gateway::Gateway;
use kafka_upstream_core::outbox::StreamId;
use kafka_upstream_core::outcome::{Code, Reply};

use crate::host::{self, Clock, Level};
use crate::metrics::{Ended, Metrics};
use crate::state::State;

/// The state of one set of settings, shared by the root and its requests.
pub(crate) type Shared = Rc<RefCell<State>>;

/// Which requests go where.
pub(crate) struct Routes {
    pub(crate) plugin: Plugin,
    pub(crate) gateway: Gateway,
    /// A state for each of the plugin's settings.
    pub(crate) states: Vec<Shared>,
    pub(crate) metrics: Rc<Metrics>,
    /// Whether the gateway is the one that serves requests; none before the first.
    is_at_home: Cell<Option<bool>>,
    clock: Clock,
    /// Streams that nothing of a body has come for yet.
    bodiless: RefCell<HashMap<StreamId, Bodiless>>,
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
        states: Vec<Shared>,
        metrics: Rc<Metrics>,
    ) -> Self {
        Self {
            plugin,
            gateway,
            states,
            metrics,
            is_at_home: Cell::new(None),
            clock: Clock::start(),
            bodiless: RefCell::default(),
            has_warned: Cell::new(false),
            #[cfg(feature = "trap")]
            trap: Cell::new(false),
        }
    }

    /// Checks once, by what a host has while it serves a request, that it is the right one.
    pub(crate) fn is_at_home(&self) -> bool {
        if let Some(known) = self.is_at_home.get() {
            return known;
        }
        let is_there = |path| host::property_status(path) == 0;
        let dotted = is_there(b"ngx\0nginx_version");
        let found = Gateway::of_request(dotted, !dotted && is_there(b"nginx_version"));
        let known = found == self.gateway;
        if !known {
            let (told, found) = (self.gateway.name(), found.name());
            let what = format!("event=host_mismatch host={told} found={found} effect=503");
            host::log(Level::Error, &what);
        }
        self.is_at_home.set(Some(known));
        known
    }

    /// Tells the operator, once, of a refusal that the gateway's configuration can mend.
    pub(crate) fn warn_of(&self, code: Code) {
        if code == Code::BodyNotReadable && !self.has_warned.replace(true) {
            host::log(Level::Warn, SPILLED);
        }
    }

    /// A stream waits for the first of its body.
    pub(crate) fn await_body(&self, stream: StreamId, timeout: Duration, goes_on: bool) {
        let until = self.clock.now() + timeout;
        self.bodiless.borrow_mut().insert(stream, Bodiless { until, goes_on });
    }

    /// The stream waits no longer; false when it has been refused meanwhile.
    pub(crate) fn body_began(&self, stream: StreamId) -> bool {
        self.bodiless.borrow_mut().remove(&stream).is_some()
    }

    /// Refuses the streams that have waited too long: without `allow_on_headers_stop_iteration`
    /// Envoy never reads the body of a stream that is held back at its headers.
    pub(crate) fn refuse_bodiless(&self) {
        let now = self.clock.now();
        let late: Vec<_> =
            self.bodiless.borrow_mut().extract_if(|_, one| one.until <= now).collect();
        for (stream, Bodiless { goes_on, .. }) in late {
            if !self.has_warned.replace(true) {
                host::log(Level::Error, NO_BODY);
            }
            self.metrics.count_request(Ended::Failed(Code::HostMismatch));
            if !host::act_for(stream) {
                continue;
            }
            let error = "no byte of the body came within delivery_timeout";
            match goes_on {
                true => host::resume(),
                false => host::answer(&Reply::refused(Code::HostMismatch, error)),
            }
        }
    }
}

const SPILLED: &str = "event=body_not_readable effect=413 hint=\"the gateway does not hand over a \
    body that it has; on Kong and nginx set client_body_buffer_size to max_body_bytes\"";

const NO_BODY: &str = "event=no_body effect=503 hint=\"a request's body did not begin within \
    delivery_timeout; if none ever does, set allow_on_headers_stop_iteration: true in Envoy's \
    plugin configuration\"";
