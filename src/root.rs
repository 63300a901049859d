//! The root context: configures, is woken by its queue and by ticks, sends what is due, and answers
//! the paused streams when a callout ends.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use kafka_upstream_core::config::{Host, Settings};
use kafka_upstream_core::limits::TICK_MS;
use kafka_upstream_core::outbox::{Depth, Outbox, Settled};
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::ContextType;

use crate::host::{self, Buffer, Detected, Level};
use crate::request::RequestStream;
use crate::state::{CalloutEnd, State};

/// One plugin configuration in one VM.
pub(crate) struct Root {
    id: u32,
    state: Option<Rc<RefCell<State>>>,
    /// Since when the root only drains, by its state's clock.
    ending: Option<Duration>,
}

impl Root {
    pub(crate) fn new(id: u32) -> Self {
        Self { id, state: None, ending: None }
    }

    fn configure(&self, size: usize) -> Result<State, String> {
        let config = host::buffer(Buffer::PluginConfiguration, size).unwrap_or_default();
        let settings = Settings::parse(&config).map_err(|error| error.to_string())?;
        if let (Host::Auto, Detected::Other(status)) = (settings.host, host::detect()) {
            return Err(format!("host: not Envoy, the only host so far (detection gave {status})"));
        }
        let vm = host::random().map_err(|error| format!("no random bytes: {error}"))?;
        let outbox = Outbox::new(&settings, vm).map_err(|error| error.to_string())?;
        let mut state = State::new(settings, vm, outbox);
        if state.settings.group_commit {
            // A name that another VM registers too would take the wake-ups away.
            let name = format!("kafka-upstream-{}-{:032x}", self.id, u128::from_be_bytes(vm));
            state.queue = host::register_queue(&name);
            if state.queue.is_none() {
                host::log(Level::Warn, "event=no_wake_up effect=one_callout_per_request");
            }
        }
        let (shortest, longest) = TICK_MS;
        let tenth = state.settings.batch.flush_timeout / 10;
        host::set_tick_period(
            tenth.clamp(Duration::from_millis(shortest), Duration::from_millis(longest)),
        );
        Ok(state)
    }

    /// Answers what is settled, then sends what is due, until neither leaves anything.
    fn proceed(&self, state: &RefCell<State>, mut settled: Vec<Settled>) {
        loop {
            for one in settled {
                let reply = state.borrow_mut().reply_to(&one);
                if let Some((stream, reply)) = reply
                    && host::act_for(stream)
                {
                    host::answer(&reply);
                }
            }
            host::act_for(self.id);
            let mut state = state.borrow_mut();
            let now = state.clock.now();
            settled = state.dispatch_due(now);
            if settled.is_empty() {
                return;
            }
        }
    }
}

impl Root {
    /// Whether nothing is left to send, or the patience with it is over.
    fn is_drained(&self) -> bool {
        let (Some(state), Some(since)) = (&self.state, self.ending) else { return true };
        let mut state = state.borrow_mut();
        let left = state.outbox.depth().records;
        let over = state.clock.now().saturating_sub(since) >= DRAIN_TIMEOUT;
        if left > 0 && over {
            host::log(Level::Error, &format!("event=drain_timeout records_lost={left}"));
        }
        if left == 0 || over {
            state.metrics.report(Depth::default(), 0);
        }
        left == 0 || over
    }

    fn end_if_drained(&mut self) {
        if self.ending.is_some() && self.is_drained() {
            self.ending = None;
            self.state = None;
            host::done();
        }
    }
}

impl Context for Root {
    fn on_http_call_response(
        &mut self,
        token: u32,
        num_headers: usize,
        body_size: usize,
        _num_trailers: usize,
    ) {
        let Some(state) = &self.state else { return };
        let end = CalloutEnd::read(num_headers, body_size);
        let settled = {
            let mut state = state.borrow_mut();
            let now = state.clock.now();
            state.end_callout(token, &end, now)
        };
        self.proceed(state, settled);
        self.end_if_drained();
    }

    /// The host lets a root go once it is drained: what clients were told is queued still goes out.
    fn on_done(&mut self) -> bool {
        let Some(state) = &self.state else { return true };
        {
            let mut state = state.borrow_mut();
            self.ending = Some(state.clock.now());
            state.outbox.drain();
        }
        self.proceed(state, Vec::new());
        self.is_drained()
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, size: usize) -> bool {
        match self.configure(size) {
            Ok(state) => {
                self.state = Some(Rc::new(RefCell::new(state)));
                true
            }
            Err(reason) => {
                host::log(Level::Error, &format!("kafka-upstream configuration: {reason}"));
                false
            }
        }
    }

    fn on_queue_ready(&mut self, queue: u32) {
        let Some(state) = &self.state else { return };
        while host::take_wake_up(queue) {}
        state.borrow_mut().wake_pending = false;
        self.proceed(state, Vec::new());
    }

    fn on_tick(&mut self) {
        let Some(state) = &self.state else { return };
        let settled = {
            let mut state = state.borrow_mut();
            let now = state.clock.now();
            state.outbox.expire(now)
        };
        self.proceed(state, settled);
        state.borrow_mut().report();
        self.end_if_drained();
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        let state = self.state.as_ref()?;
        Some(Box::new(RequestStream::new(id, Rc::clone(state))))
    }
}

/// How long an ending root goes on sending: a bridge that is away must not hold the host for ever.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
