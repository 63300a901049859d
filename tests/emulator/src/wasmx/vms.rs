//! WasmX's VMs: one a worker for all configurations, made anew after a trap.

use crate::client::{Reply, Seen};
use crate::host::{Host, Route};
use crate::world::{Root, StreamPhase};

impl Host {
    /// Each worker starts its root; a refusal keeps the worker from starting.
    pub(crate) fn wasmx_configure(&mut self, route: Route) -> bool {
        for worker in 0..self.workers.len() {
            let vm = match self.workers[worker].vm {
                Some(vm) => vm,
                None => self.start_vm(Some(worker), 0),
            };
            self.workers[worker].vm = Some(vm);
            let context = self.world.borrow_mut().rng.u32(1 << 24..);
            let root = Root::new(context, route.0);
            if !self.wasmx_root(vm, &root, true) {
                // nginx starts none of its workers, whatever else they serve.
                (0..self.workers.len()).for_each(|worker| self.crash(worker));
                return false;
            }
        }
        true
    }

    /// Makes and configures a root. The tick of one that was there before fires
    /// once more.
    fn wasmx_root(&mut self, vm: usize, before: &Root, starts: bool) -> bool {
        let context = before.context;
        let size = self.nginx_root(vm, before.route, context);
        if let Some(root) = self.world.borrow_mut().root_of(vm, context) {
            (root.tick, root.last_tick) = (before.tick, !starts);
        }
        let start = starts.then_some(("proxy_on_vm_start", 0));
        let steps = std::iter::once(("proxy_on_context_create", 0))
            .chain(start)
            .chain(std::iter::once(("proxy_on_configure", size)));
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

    /// The VM and the root of a worker's request; after a trap both are made anew, without
    /// `on_vm_start`.
    pub(crate) fn wasmx_vm(&mut self, worker: usize, route: usize) -> Option<(usize, u32)> {
        let old = self.workers[worker].vm?;
        if self.vms[old].is_none() {
            let roots = std::mem::take(&mut self.world.borrow_mut().vms[old].roots);
            let vm = self.start_vm(Some(worker), 0);
            self.workers[worker].vm = Some(vm);
            // The timers are the worker's, not the instance's.
            for root in roots {
                self.wasmx_root(vm, &root, false);
            }
        }
        let vm = self.workers[worker].vm?;
        let world = self.world.borrow();
        let root =
            world.vms[vm].roots.iter().find(|root| root.route == route && root.configured)?;
        Some((vm, root.context))
    }

    /// A VM trapped: the request of a phase's callback gets 500, that of a callout's reply goes to
    /// the upstream. The requests whose callouts are under way keep them.
    pub(crate) fn wasmx_died(&mut self, vm: usize, of: Option<(usize, &'static str)>) {
        {
            let mut world = self.world.borrow_mut();
            let world = &mut *world;
            for stream in world.vms[vm].contexts.values() {
                world.streams.get_mut(stream).unwrap().filter = None;
            }
            world.vms[vm].contexts.clear();
        }
        let Some((id, callback)) = of else { return };
        if self.stream(id, |stream| stream.stage) == StreamPhase::Over {
            return;
        }
        match callback {
            "proxy_on_http_call_response" => self.nginx_goes_on(id),
            _ => self.close(id, Seen::Host(Reply { status: 500, ..Reply::default() })),
        }
    }

    /// nginx reloads: new workers with new VMs, and no callback in the old ones.
    pub(crate) fn wasmx_reload(&mut self) {
        self.drop_workers();
        let routes = (0..self.routes.len()).filter(|route| self.routes[*route].is_some());
        for route in routes.collect::<Vec<_>>() {
            self.wasmx_configure(Route(route));
        }
    }
}
