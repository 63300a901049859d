//! Envoy's VMs: canary, main thread, workers; their roots, their deaths and what follows.

use crate::client::{Reply, Seen};
use crate::host::{Host, Route};
use crate::profile::FailurePolicy;
use crate::world::{Root, StreamPhase};

impl Host {
    /// A configuration is tried in a canary, then given to the main thread's VM and each worker's.
    pub(crate) fn envoy_configure(&mut self, route: Route) -> bool {
        let canary = self.start_vm(None, 1);
        let accepted = self.envoy_root(canary, route.0);
        self.vms[canary] = None;
        self.world.borrow_mut().vms[canary].alive = false;
        if !accepted {
            return false;
        }
        let main = self.world.borrow().vms.iter().position(|vm| vm.worker.is_none() && vm.alive);
        let main = main.unwrap_or_else(|| self.start_vm(None, 1));
        self.envoy_root(main, route.0);
        for worker in 0..self.workers.len() {
            let vm = match self.workers[worker].vm {
                Some(vm) => vm,
                None => self.start_vm(Some(worker), 1),
            };
            self.workers[worker].vm = Some(vm);
            self.envoy_root(vm, route.0);
        }
        true
    }

    /// Makes and configures a root; whether the filter accepted.
    fn envoy_root(&mut self, vm: usize, route: usize) -> bool {
        let context = {
            let mut world = self.world.borrow_mut();
            let context = world.vms[vm].next_context;
            world.vms[vm].next_context += 1;
            let config = self.routes[route].clone().unwrap_or_default();
            world.vms[vm].roots.push(Root { config, ..Root::new(context, route) });
            context
        };
        let size = u32::try_from(self.routes[route].as_ref().map_or(0, Vec::len)).unwrap();
        let steps: [(&'static str, u32); 3] = [
            ("proxy_on_context_create", 0),
            ("proxy_on_vm_start", 0),
            ("proxy_on_configure", size),
        ];
        for (callback, argument) in steps {
            let called = self.call(callback, vm, context, &[argument]);
            let refused = callback != "proxy_on_context_create" && called.result == Some(0);
            if called.trapped || refused {
                return false;
            }
        }
        self.world.borrow_mut().root_of(vm, context).unwrap().configured = true;
        true
    }

    /// The VM and the root that serve a worker's request; none while there is no VM.
    pub(crate) fn envoy_vm(&mut self, worker: usize, route: usize) -> Option<(usize, u32)> {
        let vm = self.workers[worker].vm?;
        let vm = if self.vms[vm].is_some() { vm } else { self.envoy_reload(worker)? };
        let world = self.world.borrow();
        let mut roots = world.vms[vm].roots.iter();
        let root = roots.find(|root| root.route == route && root.configured && !root.draining)?;
        Some((vm, root.context))
    }

    /// A failed VM is made anew at once the first time, then after a backoff.
    fn envoy_reload(&mut self, worker: usize) -> Option<usize> {
        let (policy, backoff, now_ms) = {
            let world = self.world.borrow();
            let settings = &world.settings;
            (settings.failure_policy, settings.reload_backoff_ms, world.now_ms)
        };
        let state = &mut self.workers[worker];
        let early = state.reloads > 0 && now_ms < state.failed_at_ms + backoff;
        if policy != FailurePolicy::Reload || early {
            return None;
        }
        state.reloads += 1;
        let vm = self.start_vm(Some(worker), 1);
        self.workers[worker].vm = Some(vm);
        for route in 0..self.routes.len() {
            if self.routes[route].is_some() {
                self.envoy_root(vm, route);
            }
        }
        Some(vm)
    }

    /// A VM trapped. The stream whose callback it was gets Envoy's answer; all others hang.
    pub(crate) fn envoy_died(&mut self, vm: usize, of: Option<(usize, &'static str)>) {
        let policy = {
            let mut world = self.world.borrow_mut();
            let world = &mut *world;
            for stream in world.vms[vm].contexts.values() {
                world.streams.get_mut(stream).unwrap().filter = None;
            }
            world.vms[vm].contexts.clear();
            if let Some(worker) = world.vms[vm].worker {
                self.workers[worker].failed_at_ms = world.now_ms;
            }
            world.settings.failure_policy
        };
        let Some((id, callback)) = of else { return };
        if self.stream(id, |stream| stream.stage) == StreamPhase::Over {
            return;
        }
        let refusal = Seen::Host(Reply { status: 503, ..Reply::default() });
        match (callback, policy) {
            ("proxy_on_http_call_response", FailurePolicy::Reload) => {}
            ("proxy_on_http_call_response", FailurePolicy::Open) => {
                let upstream = self.world.borrow().settings.upstream.clone();
                self.envoy_finish(id, Seen::Upstream(upstream));
            }
            _ => self.envoy_finish(id, refusal),
        }
    }

    /// The configuration is taken away: each root may drain before it is done.
    pub fn remove(&mut self, route: Route) {
        self.routes[route.0] = None;
        for vm in 0..self.vms.len() {
            let roots: Vec<u32> = {
                let world = self.world.borrow();
                let roots = world.vms[vm].roots.iter();
                roots.filter(|root| root.route == route.0).map(|root| root.context).collect()
            };
            for root in roots {
                if self.vms[vm].is_none() {
                    break;
                }
                let called = self.call("proxy_on_done", vm, root, &[]);
                let waits = called.result == Some(0) && !called.frame.done;
                self.world.borrow_mut().root_of(vm, root).unwrap().draining = true;
                self.envoy_after(vm, called);
                if !waits {
                    self.envoy_root_done(vm, root);
                }
            }
        }
    }

    /// Whether the roots of a removed configuration are all done.
    #[must_use]
    pub fn is_done(&self, route: Route) -> bool {
        let world = self.world.borrow();
        let mut roots = world.vms.iter().filter(|vm| vm.alive).flat_map(|vm| &vm.roots);
        roots.all(|root| root.route != route.0 || root.done)
    }

    pub(crate) fn envoy_root_done(&mut self, vm: usize, root: u32) {
        let waits = {
            let mut world = self.world.borrow_mut();
            let state = world.root_of(vm, root);
            state.is_some_and(|root| root.draining && !std::mem::replace(&mut root.done, true))
        };
        if waits {
            self.call("proxy_on_log", vm, root, &[]);
            self.call("proxy_on_delete", vm, root, &[]);
        }
    }
}
