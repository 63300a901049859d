//! The host: its VMs, and the events that a story makes happen in it.

use std::cell::RefCell;
use std::rc::Rc;

use crate::callout::{Callout, Ending};
use crate::client::{Request, Seen};
use crate::profile::{Profile, Settings};
use crate::rule::Rule;
use crate::vm::{Guest, Stop, Vm};
use crate::world::{Frame, Posted, Shared, Stage, Stream, VmState, World};

/// A host with its workers.
pub struct Host {
    pub(crate) world: Shared,
    pub(crate) guest: Guest,
    /// Instances by the index of their state in the world; none once they are gone.
    pub(crate) vms: Vec<Option<Vm>>,
    pub(crate) workers: Vec<Worker>,
    /// The configurations; none once removed.
    pub(crate) routes: Vec<Option<Vec<u8>>>,
}

/// A worker process or thread.
#[derive(Debug, Clone, Default)]
pub(crate) struct Worker {
    /// The VM that serves it.
    pub(crate) vm: Option<usize>,
    /// It crashed.
    pub(crate) dead: bool,
    /// How often its VM was made anew, and when the last one failed.
    pub(crate) reloads: u32,
    pub(crate) failed_at_ms: u64,
}

/// A plugin configuration on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Route(pub(crate) usize);

/// A client's request on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Client(pub(crate) usize);

/// What a callback did.
pub(crate) struct Called {
    pub(crate) result: Option<u32>,
    pub(crate) frame: Frame,
    pub(crate) trapped: bool,
}

impl Host {
    /// A host with one worker that will run `guest`.
    #[must_use]
    pub fn new(profile: Profile, guest: &Guest) -> Self {
        Self::with_workers(profile, guest, 1)
    }

    /// A host with several workers.
    #[must_use]
    pub fn with_workers(profile: Profile, guest: &Guest, workers: usize) -> Self {
        Self {
            world: Rc::new(RefCell::new(World::new(profile))),
            guest: guest.clone(),
            vms: Vec::new(),
            workers: vec![Worker::default(); workers],
            routes: Vec::new(),
        }
    }

    /// Fixes all randomness.
    pub fn seed(&mut self, seed: u64) {
        self.world.borrow_mut().rng = fastrand::Rng::with_seed(seed);
    }

    /// Changes what an operator sets; before the first route for what VMs are made with.
    pub fn set(&mut self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.world.borrow_mut().settings);
    }

    /// Adds a plugin configuration.
    ///
    /// # Errors
    /// When the host refuses it, with the filter's last error line.
    pub fn configure(&mut self, config: impl ToString) -> Result<Route, String> {
        self.routes.push(Some(config.to_string().into_bytes()));
        let route = Route(self.routes.len() - 1);
        let accepted = match self.profile() {
            Profile::Envoy | Profile::EnvoyNoStop => self.envoy_configure(route),
            other => panic!("{other:?} is not emulated"),
        };
        if accepted {
            return Ok(route);
        }
        self.routes[route.0] = None;
        Err(self.logs().last().map_or_else(String::new, |log| log.text.clone()))
    }

    /// A client sends a request to the first worker.
    pub fn send(&mut self, route: Route, request: Request) -> Client {
        self.send_to(0, route, request)
    }

    /// A client sends a request to a worker. All that the client sends of it arrives now.
    pub fn send_to(&mut self, worker: usize, route: Route, request: Request) -> Client {
        let id = {
            let mut world = self.world.borrow_mut();
            let id = world.next_stream;
            world.next_stream += 1;
            let idle_at_ms = world.now_ms + world.settings.idle_timeout_ms;
            let stream = Stream {
                worker,
                route: route.0,
                filter: None,
                headers: Vec::new(),
                request,
                buffered: Vec::new(),
                taken: 0,
                ended: false,
                paused: false,
                stage: Stage::Headers,
                seen: Seen::Pending,
                idle_at_ms,
                wants_body: false,
                bodiless_reply: false,
            };
            world.streams.insert(id, stream);
            id
        };
        if self.workers[worker].dead {
            self.stream(id, |stream| (stream.seen, stream.stage) = (Seen::Closed, Stage::Over));
        } else {
            self.envoy_open(id);
        }
        Client(id)
    }

    /// A client sends another piece of its body.
    pub fn send_piece(&mut self, client: Client, piece: impl Into<Vec<u8>>) {
        self.stream(client.0, |stream| stream.request.body.push(piece.into()));
        self.envoy_pump(client.0);
    }

    /// A client's request ends.
    pub fn finish(&mut self, client: Client) {
        self.stream(client.0, |stream| {
            stream.request.ends = true;
            stream.request.late_end = true;
        });
        self.envoy_pump(client.0);
    }

    /// A client closes its connection.
    pub fn hang_up(&mut self, client: Client) {
        if self.stream(client.0, |stream| stream.stage) != Stage::Over {
            self.envoy_finish(client.0, Seen::Closed);
        }
    }

    /// What a client has seen.
    #[must_use]
    pub fn seen(&self, client: Client) -> Seen {
        self.stream(client.0, |stream| stream.seen.clone())
    }

    /// What a client has seen, when nobody will ask again.
    pub fn take(&mut self, client: Client) -> Seen {
        let over = self.stream(client.0, |stream| stream.stage == Stage::Over);
        if !over {
            return Seen::Pending;
        }
        self.world.borrow_mut().streams.remove(&client.0).unwrap().seen
    }

    /// Runs what is left of this turn of the event loop.
    pub fn turn(&mut self) {
        loop {
            let posted = self.world.borrow_mut().posted.pop_front();
            match posted {
                Some(Posted::Wake { queue }) => self.envoy_wake(queue),
                None => return,
            }
        }
    }

    /// Lets time pass; what is due on the way happens in its order.
    pub fn advance(&mut self, ms: u64) {
        self.turn();
        let until = self.world.borrow().now_ms + ms;
        while let Some((at, due)) = self.next_due(until) {
            let now_ms = self.world.borrow().now_ms.max(at);
            self.world.borrow_mut().now_ms = now_ms;
            self.happen(due);
            self.turn();
        }
        self.world.borrow_mut().now_ms = until;
    }

    /// The callouts that wait for their end, in order of dispatch.
    #[must_use]
    pub fn callouts(&self) -> Vec<Callout> {
        let world = self.world.borrow();
        let waiting = world.callouts.values().filter(|open| open.plan.is_none());
        waiting.map(|open| open.callout.clone()).collect()
    }

    /// Ends a callout now, or when its timeout comes where that is what ends it.
    pub fn end(&mut self, callout: usize, ending: Ending) {
        self.end_after(callout, 0, ending);
    }

    /// Ends a callout after some ms, unless its timeout comes first.
    pub fn end_after(&mut self, callout: usize, ms: u64, ending: Ending) {
        let due_now = {
            let mut world = self.world.borrow_mut();
            let (now_ms, profile) = (world.now_ms, world.profile);
            let whole_timeout = world.settings.callout_timeout_ms;
            let Some(open) = world.callouts.get_mut(&callout) else { return };
            let timeout_ms = match u64::from(open.callout.timeout_ms) {
                0 if profile.is_envoy() => NEVER,
                0 => whole_timeout,
                some => some,
            };
            let timeout_at = open.callout.at_ms.saturating_add(timeout_ms);
            let by_timeout = matches!(
                ending,
                Ending::Stalled | Ending::StalledAfterHeaders(_) | Ending::Late(_)
            );
            let (at, ending) = match ending {
                ending if by_timeout => (timeout_at, ending),
                _ if now_ms + ms >= timeout_at => (timeout_at, Ending::Stalled),
                ending => (now_ms + ms, ending),
            };
            open.plan = Some((at, ending));
            at <= now_ms
        };
        if due_now {
            self.deliver(callout);
        }
    }

    pub(crate) fn profile(&self) -> Profile {
        self.world.borrow().profile
    }

    pub(crate) fn stream<T>(&self, id: usize, with: impl FnOnce(&mut Stream) -> T) -> T {
        with(self.world.borrow_mut().streams.get_mut(&id).expect("a client that was taken"))
    }

    /// Makes a VM; its index. None for the worker means the main thread.
    pub(crate) fn start_vm(&mut self, worker: Option<usize>, first_token: u32) -> usize {
        let index = self.vms.len();
        self.world.borrow_mut().vms.push(VmState {
            worker,
            alive: true,
            next_context: 1,
            next_token: first_token,
            roots: Vec::new(),
            contexts: std::collections::BTreeMap::new(),
        });
        let vm = Vm::new(&self.guest, &self.world).unwrap_or_else(|error| panic!("{error}"));
        self.vms.push(Some(vm));
        for start in ["_initialize", "_start"] {
            if self.vms[index].as_mut().unwrap().has(start) {
                self.run(start, index, 0, &[], Frame::default());
                break;
            }
        }
        index
    }

    /// Calls a callback of a context.
    pub(crate) fn call(
        &mut self,
        callback: &'static str,
        vm: usize,
        context: u32,
        more: &[u32],
    ) -> Called {
        let arguments = [&[context], more].concat();
        self.run(callback, vm, context, &arguments, Frame::default())
    }

    pub(crate) fn run(
        &mut self,
        callback: &'static str,
        vm: usize,
        context: u32,
        arguments: &[u32],
        frame: Frame,
    ) -> Called {
        let effective = if frame.effective == 0 { context } else { frame.effective };
        let frame = Frame { vm, callback, context, effective, ..frame };
        let armed = {
            let mut world = self.world.borrow_mut();
            let now_ms = world.now_ms;
            world.note(format!("{now_ms} ms, VM {vm}: {callback}{arguments:?}"));
            *world.callbacks.entry(callback).or_default() += 1;
            world.frame = Some(frame);
            let armed = world.traps.iter().position(|name| name == callback);
            armed.map(|index| world.traps.remove(index))
        };
        let Some(instance) = self.vms[vm].as_mut() else { panic!("{callback} in a VM that died") };
        let result = match armed {
            Some(_) => Err(Stop::Trap("on purpose".to_owned())),
            None => instance.call(callback, arguments),
        };
        let frame = self.world.borrow_mut().frame.take().unwrap();
        match result {
            Ok(result) => Called { result, frame, trapped: false },
            Err(stop) => {
                self.stopped(vm, &stop);
                Called { result: None, frame, trapped: true }
            }
        }
    }

    fn stopped(&mut self, vm: usize, stop: &Stop) {
        self.vms[vm] = None;
        let worker = {
            let mut world = self.world.borrow_mut();
            world.note(format!("  {stop}"));
            world.vms[vm].alive = false;
            world.callouts.retain(|_, open| open.callout.vm != vm);
            world.vms[vm].worker
        };
        if let Stop::Broken(rule, what) = stop {
            self.violate(*rule, what);
            if let Some(worker) = worker {
                self.crash(worker);
            }
        }
    }

    /// A rule is broken: the story ends, unless it expects that.
    pub(crate) fn violate(&mut self, rule: Rule, what: &str) {
        let mut world = self.world.borrow_mut();
        let expected = world.expected.contains(&rule);
        world.violations.push((rule, what.to_owned()));
        let trace: Vec<_> = world.trace.iter().map(String::as_str).collect();
        assert!(expected, "{rule}: {what}\n{}", trace.join("\n"));
    }

    /// A worker's process ends: its clients see their connections close.
    pub(crate) fn crash(&mut self, worker: usize) {
        let mut world = self.world.borrow_mut();
        self.workers[worker].dead = true;
        for (index, vm) in world.vms.iter_mut().enumerate() {
            if vm.worker == Some(worker) {
                vm.alive = false;
                vm.contexts.clear();
                self.vms[index] = None;
            }
        }
        let world = &mut *world;
        for stream in world.streams.values_mut().filter(|stream| stream.worker == worker) {
            if stream.stage != Stage::Over {
                (stream.seen, stream.stage) = (Seen::Closed, Stage::Over);
            }
        }
        world.callouts.retain(|_, open| world.vms[open.callout.vm].alive);
    }
}

/// A time that does not come.
pub(crate) const NEVER: u64 = u64::MAX;
