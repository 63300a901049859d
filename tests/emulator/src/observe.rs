//! What a test can see of a host and order of it, and the clock's way to the next event.

use std::collections::BTreeMap;

use crate::callout::Ending;
use crate::client::Seen;
use crate::host::{Client, Host, NEVER};
use crate::profile::Profile;
use crate::rule::Rule;
use crate::world::{InjectedStatus, Log, StreamPhase};

/// Something that is due.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Due {
    Callout(usize),
    Tick { vm: usize, root: u32 },
    Idle(usize),
}

impl Host {
    /// Makes each call of a host function return a raw status without doing anything.
    pub fn fail(&mut self, function: &str, status: u32) {
        let fault = InjectedStatus { name: function.to_owned(), after: None, status };
        self.world.borrow_mut().faults.push(fault);
    }

    /// Makes one call of a host function, counted from 0, return a raw status.
    pub fn fail_once(&mut self, function: &str, nth: u64, status: u32) {
        let fault = InjectedStatus { name: function.to_owned(), after: Some(nth), status };
        self.world.borrow_mut().faults.push(fault);
    }

    /// Ends all faults of host functions.
    pub fn mend(&mut self) {
        self.world.borrow_mut().faults.clear();
    }

    /// Makes the next callback of a name trap, as if the guest had.
    pub fn trap_in(&mut self, callback: &str) {
        self.world.borrow_mut().traps.push(callback.to_owned());
    }

    /// The test breaks this rule on purpose: it goes on after the crash.
    pub fn expect_violation(&mut self, rule: Rule) {
        self.world.borrow_mut().expected.push(rule);
    }

    /// The rules that were broken, and how.
    #[must_use]
    pub fn violations(&self) -> Vec<(Rule, String)> {
        self.world.borrow().violations.clone()
    }

    /// The filter's log lines.
    #[must_use]
    pub fn logs(&self) -> Vec<Log> {
        self.world.borrow().logs.clone()
    }

    /// Forgets the log lines that a test has no use for.
    pub fn clear_logs(&mut self) {
        self.world.borrow_mut().logs.clear();
    }

    /// Whether a log line has this text.
    #[must_use]
    pub fn has_logged(&self, text: &str) -> bool {
        self.world.borrow().logs.iter().any(|log| log.text.contains(text))
    }

    /// The value of a counter or a gauge, of a histogram how many samples it has; 0 when it is not
    /// defined.
    #[must_use]
    pub fn metric(&self, name: &str) -> i64 {
        let world = self.world.borrow();
        let metric = world.metrics.iter().find(|metric| metric.name == name);
        metric.map_or(0, |metric| metric.value)
    }

    /// How often a host function returned a status.
    #[must_use]
    pub fn returned(&self, function: &str, status: u32) -> u64 {
        let world = self.world.borrow();
        let found =
            world.statuses.iter().find(|((name, is), _)| *name == function && *is == status);
        found.map_or(0, |(_, count)| *count)
    }

    /// Every host function that was called, with the statuses it returned and how often.
    #[must_use]
    pub fn hostcalls(&self) -> Vec<(&'static str, u32, u64)> {
        let world = self.world.borrow();
        world.statuses.iter().map(|((name, status), count)| (*name, *status, *count)).collect()
    }

    /// How often a callback ran.
    #[must_use]
    pub fn callbacks(&self, name: &str) -> u64 {
        self.world.borrow().callbacks.get(name).copied().unwrap_or_default()
    }

    /// How often each function was called over the border: callbacks that the guest has, host calls,
    /// and the guest's allocator for what they return.
    #[must_use]
    pub fn crossings(&self) -> BTreeMap<&'static str, u64> {
        self.world.borrow().crossings.clone()
    }

    /// Pages of 64 KiB of all live guests.
    pub fn pages(&mut self) -> u64 {
        self.vms.iter_mut().flatten().map(crate::vm::Vm::pages).sum()
    }

    /// How many request contexts live.
    #[must_use]
    pub fn contexts(&self) -> usize {
        self.world.borrow().vms.iter().map(|vm| vm.contexts.len()).sum()
    }

    /// Callouts that have not ended.
    #[must_use]
    pub fn callouts_open(&self) -> usize {
        self.world.borrow().callouts.len()
    }

    /// How many VMs live, on workers and the main thread.
    #[must_use]
    pub fn live_vms(&self) -> usize {
        self.vms.iter().flatten().count()
    }

    /// WasmX: bytes that callouts hold until their client's connection closes.
    #[must_use]
    pub fn callout_memory(&self) -> usize {
        self.world.borrow().callout_memory.values().sum()
    }

    /// A client closes a connection that its requests share.
    pub fn close_connection(&mut self, connection: usize) {
        self.world.borrow_mut().callout_memory.remove(&Ok(connection));
    }

    /// The gateway reloads its configuration: nginx starts new workers and tells the old filters
    /// nothing.
    pub fn reload(&mut self) {
        match self.profile() {
            Profile::Wasmx => self.wasmx_reload(),
            Profile::Apisix => self.drop_workers(),
            other => panic!("{other:?} removes and adds routes"),
        }
    }

    /// Whether a worker crashed.
    #[must_use]
    pub fn crashed(&self, worker: usize) -> bool {
        self.workers[worker].dead
    }

    /// Which host this is.
    #[must_use]
    pub fn kind(&self) -> Profile {
        self.profile()
    }

    /// How often a guest trapped.
    #[must_use]
    pub fn traps(&self) -> u64 {
        self.world.borrow().trapped
    }

    /// The virtual clock in ms.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.world.borrow().now_ms
    }

    /// The steps that led here, for a test's own failures.
    #[must_use]
    pub fn trace(&self) -> String {
        let world = self.world.borrow();
        world.trace.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }

    pub(crate) fn shuffle<T>(&self, items: &mut [T]) {
        self.world.borrow_mut().rng.shuffle(items);
    }

    /// The clients that still wait.
    #[must_use]
    pub fn pending(&self) -> Vec<Client> {
        let world = self.world.borrow();
        let waiting = world.streams.iter().filter(|(_, stream)| stream.seen == Seen::Pending);
        waiting.map(|(id, _)| Client(*id)).collect()
    }

    /// The earliest event up to a time.
    pub(crate) fn next_due(&self, until: u64) -> Option<(u64, Due)> {
        let world = self.world.borrow();
        let whole_timeout = world.settings.callout_timeout_ms;
        let mut found: Option<(u64, Due)> = None;
        let mut consider = |at: u64, due: Due| {
            if at <= until && found.is_none_or(|(best, _)| at < best) {
                found = Some((at, due));
            }
        };
        for open in world.callouts.values() {
            let timeout = match u64::from(open.callout.timeout_ms) {
                0 if world.profile.is_envoy() => NEVER,
                0 => whole_timeout,
                some => some,
            };
            let timeout_at = open.callout.at_ms.saturating_add(timeout);
            let at = open.plan.as_ref().map_or(timeout_at, |(at, _)| *at);
            consider(at, Due::Callout(open.callout.id));
        }
        for (vm, state) in world.vms.iter().enumerate().filter(|(_, state)| state.alive) {
            for root in state.roots.iter().filter(|root| !root.done) {
                if let Some((_, at)) = root.tick {
                    consider(at, Due::Tick { vm, root: root.context });
                }
            }
        }
        // A test may have thousands of streams behind it, and this runs at every step of the clock.
        if world.profile.is_envoy() {
            for (id, stream) in &world.streams {
                if stream.stage != StreamPhase::Over {
                    consider(stream.idle_at_ms, Due::Idle(*id));
                }
            }
        }
        found
    }

    pub(crate) fn happen(&mut self, due: Due) {
        match due {
            Due::Callout(id) => {
                let mut world = self.world.borrow_mut();
                let now_ms = world.now_ms;
                let open = world.callouts.get_mut(&id).unwrap();
                open.plan.get_or_insert((now_ms, Ending::Stalled));
                drop(world);
                self.deliver(id);
            }
            Due::Tick { vm, root } => {
                let mut world = self.world.borrow_mut();
                let roots = &mut world.vms[vm].roots;
                let root_state = roots.iter_mut().find(|state| state.context == root).unwrap();
                if std::mem::take(&mut root_state.last_tick) {
                    root_state.tick = None;
                } else if let Some((period, at)) = &mut root_state.tick {
                    *at += *period;
                }
                drop(world);
                self.tick(vm, root);
            }
            Due::Idle(id) => self.envoy_idle(id),
        }
    }

    /// A callout ends as planned.
    pub(crate) fn deliver(&mut self, id: usize) {
        let Some(open) = self.world.borrow_mut().callouts.remove(&id) else { return };
        let Some((_, ending)) = open.plan.clone() else { return };
        match self.profile() {
            Profile::Envoy | Profile::EnvoyNoStop => self.envoy_deliver(&open, ending),
            Profile::Wasmx => self.wasmx_deliver(&open, ending),
            Profile::Apisix => self.apisix_deliver(&open, ending),
        }
    }

    fn tick(&mut self, vm: usize, root: u32) {
        let called = self.call("proxy_on_tick", vm, root, &[]);
        match self.profile() {
            Profile::Envoy | Profile::EnvoyNoStop => self.envoy_after(vm, called),
            _ if called.trapped => self.wasmx_died(vm, None),
            _ => {}
        }
    }
}
