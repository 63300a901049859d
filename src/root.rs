//! The root context: configures, is woken by its queue and by ticks, sends what is due, and answers
//! the paused streams when a callout ends.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use kafka_upstream_core::config::{Host, Plugin, Settings};
use kafka_upstream_core::limits::TICK_MS;
use kafka_upstream_core::outbox::{Outbox, Settled};
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::ContextType;

use crate::host::{self, Buffer, Clock, Detected, Level};
use crate::metrics::Metrics;
use crate::request::RequestStream;
use crate::state::{CalloutEnd, State};

/// One plugin configuration in one VM.
pub(crate) struct Root {
    id: u32,
    routes: Option<Rc<Routes>>,
    /// Since when the root only drains.
    ending: Option<Clock>,
}

/// Which requests go where.
pub(crate) struct Routes {
    pub(crate) plugin: Plugin,
    /// A state for each of the plugin's settings.
    pub(crate) states: Vec<Rc<RefCell<State>>>,
    pub(crate) metrics: Rc<Metrics>,
}

impl Root {
    pub(crate) fn new(id: u32) -> Self {
        Self { id, routes: None, ending: None }
    }

    fn configure(&self, size: usize) -> Result<Routes, String> {
        let config = host::buffer(Buffer::PluginConfiguration, size).unwrap_or_default();
        let plugin = Plugin::parse(&config).map_err(|error| error.to_string())?;
        if let (Host::Auto, Detected::Other(status)) = (plugin.host, host::detect()) {
            return Err(format!("host: not Envoy, the only host so far (detection gave {status})"));
        }
        let metrics = Rc::new(Metrics::define());
        let mut states = Vec::new();
        for settings in &plugin.settings {
            let state = self.state(settings.clone(), Rc::clone(&metrics))?;
            states.push(Rc::new(RefCell::new(state)));
        }
        let (shortest, longest) = TICK_MS;
        let flush = plugin.settings.iter().map(|settings| settings.batch.flush_timeout).min();
        host::set_tick_period(
            (flush.unwrap_or_default() / 10)
                .clamp(Duration::from_millis(shortest), Duration::from_millis(longest)),
        );
        Ok(Routes { plugin, states, metrics })
    }

    fn state(&self, settings: Settings, metrics: Rc<Metrics>) -> Result<State, String> {
        // A state has an id and a queue of its own: to the bridge it is a VM of its own.
        let vm = host::random().map_err(|error| format!("no random bytes: {error}"))?;
        let outbox = Outbox::new(&settings, vm).map_err(|error| error.to_string())?;
        let mut state = State::new(settings, vm, outbox, metrics);
        if state.settings.group_commit {
            // A name that another VM registers too would take the wake-ups away.
            let name = format!("kafka-upstream-{}-{:032x}", self.id, u128::from_be_bytes(vm));
            state.queue = host::register_queue(&name);
            if state.queue.is_none() {
                host::log(Level::Warn, "event=no_wake_up effect=one_callout_per_request");
            }
        }
        Ok(state)
    }

    /// Answers what is settled, then sends what is due, until neither leaves anything.
    fn proceed(&self, state: &RefCell<State>, mut settled: Vec<Settled>) {
        loop {
            for one in settled {
                let concluded = state.borrow_mut().conclude(one);
                if let Some((stream, end)) = concluded
                    && host::act_for(stream)
                {
                    end.perform();
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

    fn states(&self) -> &[Rc<RefCell<State>>] {
        self.routes.as_ref().map_or(&[], |routes| &routes.states)
    }

    /// Whether nothing is left to send, or the patience with it is over.
    fn is_drained(&self) -> bool {
        let Some(since) = self.ending else { return true };
        let states = self.states();
        let left: usize = states.iter().map(|state| state.borrow().outbox.depth().records).sum();
        let over = since.now() >= DRAIN_TIMEOUT;
        if left > 0 && over {
            host::log(Level::Error, &format!("event=drain_timeout records_lost={left}"));
        }
        if left == 0 || over {
            states.iter().for_each(|state| state.borrow_mut().report_end());
        }
        left == 0 || over
    }

    fn end_if_drained(&mut self) {
        if self.ending.is_some() && self.is_drained() {
            self.ending = None;
            self.routes = None;
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
        let end = CalloutEnd::read(num_headers, body_size);
        for state in self.states() {
            let settled = state.borrow_mut().end_callout(token, &end);
            if let Some(settled) = settled {
                self.proceed(state, settled);
                break;
            }
        }
        self.end_if_drained();
    }

    /// The host lets a root go once it is drained: what clients were told is queued still goes out.
    fn on_done(&mut self) -> bool {
        if self.routes.is_none() {
            return true;
        }
        self.ending = Some(Clock::start());
        for state in self.states() {
            state.borrow_mut().outbox.drain();
            self.proceed(state, Vec::new());
        }
        self.is_drained()
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, size: usize) -> bool {
        match self.configure(size) {
            Ok(routes) => {
                self.routes = Some(Rc::new(routes));
                true
            }
            Err(reason) => {
                host::log(Level::Error, &format!("kafka-upstream configuration: {reason}"));
                false
            }
        }
    }

    fn on_queue_ready(&mut self, queue: u32) {
        while host::take_wake_up(queue) {}
        let Some(routes) = &self.routes else { return };
        let woken = routes.states.iter().find(|state| state.borrow().queue == Some(queue));
        let Some(state) = woken else { return };
        state.borrow_mut().wake_pending = false;
        self.proceed(state, Vec::new());
    }

    fn on_tick(&mut self) {
        let mut memory_bytes = host::memory_bytes();
        for state in self.states() {
            let settled = {
                let mut state = state.borrow_mut();
                let now = state.clock.now();
                state.outbox.expire(now)
            };
            self.proceed(state, settled);
            state.borrow_mut().report(std::mem::take(&mut memory_bytes));
        }
        self.end_if_drained();
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        let routes = self.routes.as_ref()?;
        Some(Box::new(RequestStream::new(id, Rc::clone(routes))))
    }
}

/// How long an ending root goes on sending: a bridge that is away must not hold the host for ever.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
