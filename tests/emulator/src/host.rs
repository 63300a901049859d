//! The host: its VMs, and the events that a test makes happen in it.

use std::cell::RefCell;
use std::rc::Rc;

use crate::callout::{Callout, Ending};
use crate::client::{Reply, Request, Seen};
use crate::profile::{Profile, Settings};
use crate::vm::{Guest, Vm};
use crate::wasmx::callouts::waits_for_more;
use crate::world::{Posted, SharedWorld, Stream, StreamPhase, World};

/// A host with its workers.
pub struct Host {
    pub(crate) world: SharedWorld,
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
            Profile::Wasmx => self.wasmx_configure(route),
            Profile::Apisix => {
                self.apisix_configure(route.0);
                true
            }
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
                stage: StreamPhase::Headers,
                seen: Seen::Pending,
                idle_at_ms,
                response: Vec::new(),
                holds_response: false,
                wants_body: false,
                bodiless_reply: false,
            };
            world.streams.insert(id, stream);
            id
        };
        if self.workers[worker].dead {
            self.stream(id, |stream| {
                (stream.seen, stream.stage) = (Seen::Closed, StreamPhase::Over)
            });
        } else {
            match self.profile() {
                Profile::Envoy | Profile::EnvoyNoStop => self.envoy_open(id),
                Profile::Wasmx => self.wasmx_open(id),
                Profile::Apisix => self.apisix_open(id),
            }
        }
        Client(id)
    }

    /// A client closes its connection.
    pub fn hang_up(&mut self, client: Client) {
        if self.stream(client.0, |stream| stream.stage) == StreamPhase::Over {
            return;
        }
        match self.profile() {
            Profile::Envoy | Profile::EnvoyNoStop => self.close(client.0, Seen::Closed),
            Profile::Wasmx | Profile::Apisix => self.nginx_hang_up(client.0),
        }
    }

    /// Envoy: what stands behind the filter answers a request whose headers have gone on.
    pub fn answer_behind(&mut self, client: Client, reply: Reply) {
        self.world.borrow_mut().settings.upstream = reply;
        self.envoy_goes_on(client.0);
    }

    /// What a client has seen.
    #[must_use]
    pub fn seen(&self, client: Client) -> Seen {
        self.stream(client.0, |stream| stream.seen.clone())
    }

    /// What a client has seen, for the last time.
    pub fn take(&mut self, client: Client) -> Seen {
        let over = self.stream(client.0, |stream| stream.stage == StreamPhase::Over);
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
            let by_timeout = match &ending {
                Ending::Stalled | Ending::StalledAfterHeaders(_) | Ending::Late(_) => true,
                Ending::Reply(reply) => profile == Profile::Wasmx && waits_for_more(reply),
                _ => false,
            };
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

    /// A request is over, for its client and for the filter.
    pub(crate) fn close(&mut self, id: usize, seen: Seen) {
        match self.profile() {
            Profile::Envoy | Profile::EnvoyNoStop => self.envoy_finish(id, seen),
            Profile::Wasmx => self.wasmx_close(id, seen),
            Profile::Apisix => self.apisix_close(id, seen),
        }
    }

    pub(crate) fn profile(&self) -> Profile {
        self.world.borrow().profile
    }

    pub(crate) fn stream<T>(&self, id: usize, with: impl FnOnce(&mut Stream) -> T) -> T {
        with(self.world.borrow_mut().streams.get_mut(&id).expect("a client that was taken"))
    }
}

/// A time that does not come.
pub(crate) const NEVER: u64 = u64::MAX;
