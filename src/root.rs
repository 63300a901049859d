//! The root context: configures, is woken by its queue and by ticks, sends what is due, and answers
//! the paused streams when a callout ends.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use kafka_upstream_core::config::{Plugin, Settings};
use kafka_upstream_core::gateway::Gateway;
use kafka_upstream_core::limits::{FRAME_RECORDS_MAX, TICK_MS};
use kafka_upstream_core::outbox::{Depth, Outbox, Settled};
use kafka_upstream_core::wire::Delivery;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::ContextType;

use crate::host::{self, Buffer, Clock, Level};
use crate::metrics::{Gauges, Metrics};
use crate::request::RequestStream;
use crate::route::{Route, WakeUp, read_end};
use crate::routes::{Routes, SharedRoute};

/// One plugin configuration in one VM.
pub(crate) struct Root {
    id: u32,
    routes: Option<Rc<Routes>>,
    gauges: Option<Gauges>,
    /// Since when the root only drains.
    ending: Option<Clock>,
}

impl Root {
    pub(crate) fn new(id: u32) -> Self {
        Self { id, routes: None, gauges: None, ending: None }
    }

    fn configure(&self, size: usize) -> Result<(Routes, Gauges), String> {
        let config = host::buffer(Buffer::PluginConfiguration, size).unwrap_or_default();
        let plugin = Plugin::parse(&config).map_err(|error| error.to_string())?;
        let (gateway, is_certain) = gateway(&plugin)?;
        let (metrics, clock) = (Rc::new(Metrics::define()), Clock::start());
        let mut routes = Vec::new();
        for settings in &plugin.settings {
            let target = &settings.bridge.target;
            gateway.check_target(target).map_err(|why| format!("bridge: `{target}` {why}"))?;
            let wakes = is_certain && gateway.can_wake_root() && settings.group_commit;
            let mut settings = settings.clone();
            let on_ticks_alone = !gateway.root_dispatches_any_time();
            if settings.delivery == Delivery::Memory && on_ticks_alone {
                // A tick sends one batch of a topic: it takes what has queued since the last one.
                settings.batch.records = FRAME_RECORDS_MAX;
            }
            let route = self.route(settings, wakes, Rc::clone(&metrics), clock)?;
            routes.push(Rc::new(RefCell::new(route)));
        }
        // By each new instance: WasmX cancels the tick after a trap.
        if gateway.has_ticks() {
            let flush = plugin.settings.iter().map(|settings| settings.batch.flush_timeout).min();
            let (shortest, longest) = TICK_MS;
            let (shortest, longest) =
                (Duration::from_millis(shortest), Duration::from_millis(longest));
            host::set_tick_period((flush.unwrap_or_default() / 10).clamp(shortest, longest));
        }
        // WasmX traps when a gauge is added to, and a tick that traps does so for ever.
        let gauges = Gauges::define(is_certain && gateway.adds_to_gauges());
        Ok((Routes::new(plugin, gateway, routes, metrics, clock), gauges))
    }

    fn route(
        &self,
        settings: Settings,
        wakes: bool,
        metrics: Rc<Metrics>,
        clock: Clock,
    ) -> Result<Route, String> {
        // A route counts its batches by itself: to the bridge it is a VM of its own.
        let vm = host::random().map_err(|error| format!("no random bytes: {error}"))?;
        let outbox = Outbox::new(&settings, vm).map_err(|error| error.to_string())?;
        let mut wake_up = WakeUp::Unavailable;
        if wakes {
            // Envoy wakes the VM that registered a name last, and each worker has a VM: a name that
            // two of them register would leave one without wake-ups, and its streams paused.
            let name = format!("kafka-upstream-{}-{:032x}", self.id, u128::from_be_bytes(vm));
            match host::register_queue(&name) {
                Some(queue) => wake_up = WakeUp::Idle(queue),
                None => host::log(Level::Warn, "event=no_wake_up effect=one_callout_per_request"),
            }
        }
        Ok(Route::new(Rc::new(settings), outbox, wake_up, metrics, clock))
    }

    /// Concludes what is settled, then, where `dispatches` has the time, sends what is due, until
    /// neither leaves anything. Here group commit happens: while its batches are in flight records
    /// queue, and the reply that frees one of them is followed by one callout with all that has
    /// queued.
    fn proceed(
        &self,
        route: &RefCell<Route>,
        mut settled: Vec<Settled>,
        dispatches: Option<Duration>,
    ) {
        let Some(routes) = &self.routes else { return };
        loop {
            let mut route = route.borrow_mut();
            for (stream, end) in settled.into_iter().filter_map(|one| route.conclude(one)) {
                routes.end_later(stream, end);
            }
            settled = match dispatches {
                Some(now) => route.dispatch_due(now),
                None => Vec::new(),
            };
            if settled.is_empty() {
                return;
            }
        }
    }

    /// The last thing in every callback. The root's own context is no longer the effective one.
    fn answer_some(&mut self) {
        self.routes.iter().for_each(|routes| routes.answer_some());
        self.end_if_drained();
    }

    fn routes(&self) -> &[SharedRoute] {
        self.routes.as_ref().map_or(&[], |routes| &routes.routes)
    }

    /// Whether nothing is left to send, or the time for it is over.
    fn is_drained(&self) -> bool {
        let Some(since) = self.ending else { return true };
        let routes = self.routes().iter();
        let left: usize = routes.map(|route| route.borrow().outbox.depth().records).sum();
        let over = since.now() >= DRAIN_TIMEOUT;
        if left > 0 && over {
            host::log(Level::Error, &format!("event=drain_timeout records_lost={left}"));
        }
        left == 0 || over
    }

    /// Takes this root's share out of the host's gauges.
    fn report_end(&mut self) {
        if let Some(gauges) = &mut self.gauges {
            gauges.report(Depth::default(), 0, 0);
        }
    }

    fn end_if_drained(&mut self) {
        if self.ending.is_some() && self.is_drained() {
            self.ending = None;
            self.report_end();
            self.routes = None;
            host::act_for(self.id);
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
        let Some(routes) = &self.routes else { return };
        #[cfg(feature = "trap")]
        if routes.trap.get() {
            core::arch::wasm32::unreachable();
        }
        let now = routes.clock.now();
        let ended = read_end(routes.gateway, num_headers, body_size, |ended| {
            routes.routes.iter().find_map(|route| {
                let settled = route.borrow_mut().end_callout(token, ended, now)?;
                Some((route, settled))
            })
        });
        if let Some((route, settled)) = ended {
            let dispatches = routes.gateway.root_dispatches_any_time().then_some(now);
            self.proceed(route, settled, dispatches);
        }
        self.answer_some();
    }

    /// The host keeps a root until it is drained: what clients have a 200 for is sent first.
    fn on_done(&mut self) -> bool {
        let Some(routes) = &self.routes else { return true };
        self.ending = Some(Clock::start());
        let dispatches = routes.gateway.root_dispatches_any_time().then(|| routes.clock.now());
        for route in &routes.routes {
            route.borrow_mut().outbox.drain();
            self.proceed(route, Vec::new(), dispatches);
        }
        routes.answer_some();
        let is_drained = self.is_drained();
        if is_drained {
            self.report_end();
        }
        is_drained
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, size: usize) -> bool {
        match self.configure(size) {
            Ok((routes, gauges)) => {
                self.gauges = Some(gauges);
                self.routes = Some(Rc::new(routes));
                true
            }
            Err(reason) => {
                host::log(Level::Error, &format!("kafka-upstream configuration: {reason}"));
                // Requests get 500 where the whole gateway would go down.
                let gateway = Gateway::of_probe(host::property_status(PROBE));
                !gateway.is_none_or(Gateway::may_refuse_configuration)
            }
        }
    }

    fn on_queue_ready(&mut self, queue: u32) {
        // It has one item: the next comes when this one is taken out.
        host::take_wake_up(queue);
        let Some(routes) = &self.routes else { return };
        let mut woken = routes.routes.iter();
        let woken = woken.find(|route| route.borrow_mut().on_queue_ready(queue));
        let Some(route) = woken else { return };
        self.proceed(route, Vec::new(), Some(routes.clock.now()));
        self.answer_some();
    }

    fn on_tick(&mut self) {
        let Some(routes) = &self.routes else { return };
        let now = routes.clock.now();
        let (mut depth, mut waiting) = (Depth::default(), 0);
        for route in &routes.routes {
            let settled = route.borrow_mut().outbox.expire(now);
            self.proceed(route, settled, Some(now));
            let mut route = route.borrow_mut();
            route.log_waiting();
            depth = depth + route.outbox.depth();
            waiting += route.paused.len();
        }
        if let Some(gauges) = &mut self.gauges {
            gauges.report(depth, waiting, host::memory_bytes());
        }
        routes.expire_bodiless(now);
        self.answer_some();
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(RequestStream::new(id, self.routes.clone())))
    }
}

/// The gateway that the filter is in, or is configured for, and whether the host's answer confirms
/// it. WasmX logs an error when it is probed, so it is not where `host` names it.
fn gateway(plugin: &Plugin) -> Result<(Gateway, bool), String> {
    let configured = plugin.host.gateway();
    if configured == Some(Gateway::Wasmx) {
        return Ok((Gateway::Wasmx, true));
    }
    let status = host::property_status(PROBE);
    match (configured, Gateway::of_probe(status)) {
        (Some(gateway), found) => Ok((gateway, found.is_none_or(|found| found == gateway))),
        (None, Some(found)) => Ok((found, true)),
        (None, None) => Err(format!(
            "host: none of Envoy, WasmX and APISIX was detected (status {status}): name one"
        )),
    }
}

/// The property by whose status a host is known.
const PROBE: &[u8] = b"ngx\0nginx_version";
/// How long an ending root goes on sending: a bridge that is down must not keep the VM for ever.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
