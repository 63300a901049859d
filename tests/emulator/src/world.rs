//! Everything that host calls and callbacks share: the clock, streams, callouts, queues, counts.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use crate::abi::Pair;
use crate::callout::{Callout, Ending};
use crate::client::{Reply, Request, Seen};
use crate::profile::{Profile, Settings};
use crate::rule::Rule;

pub(crate) type SharedWorld = Rc<RefCell<World>>;

/// The host's state outside the wasm VMs.
pub(crate) struct World {
    pub(crate) profile: Profile,
    pub(crate) settings: Settings,
    pub(crate) now_ms: u64,
    pub(crate) rng: fastrand::Rng,
    pub(crate) logs: Vec<Log>,
    pub(crate) metrics: Vec<Metric>,
    pub(crate) queues: Vec<Queue>,
    pub(crate) shared_data: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) vms: Vec<VmState>,
    pub(crate) streams: BTreeMap<usize, Stream>,
    pub(crate) callouts: BTreeMap<usize, Open>,
    pub(crate) next_stream: usize,
    pub(crate) next_callout: usize,
    /// The callback that runs.
    pub(crate) frame: Option<Frame>,
    /// What runs at the end of this turn of the event loop.
    pub(crate) posted: VecDeque<Posted>,
    pub(crate) statuses: BTreeMap<(&'static str, u32), u64>,
    pub(crate) callbacks: BTreeMap<&'static str, u64>,
    /// Calls of the guest and of the host that crossed the border, by function.
    pub(crate) crossings: BTreeMap<&'static str, u64>,
    pub(crate) faults: Vec<InjectedStatus>,
    pub(crate) traps: Vec<String>,
    pub(crate) trapped: u64,
    pub(crate) trace: VecDeque<String>,
    pub(crate) expected: Vec<Rule>,
    pub(crate) violations: Vec<(Rule, String)>,
    /// APISIX: the pseudo-headers of the last callout, which stand in for missing ones.
    pub(crate) last_pseudo: BTreeMap<String, Vec<u8>>,
    /// WasmX: bytes that callouts hold, by shared connection or by the only request of one.
    pub(crate) callout_memory: BTreeMap<Result<usize, usize>, usize>,
}

/// A log line of the filter.
#[derive(Debug, Clone)]
pub struct Log {
    /// Severity by the ABI's number: 2 is info, 3 a warning, 4 an error.
    pub level: u32,
    /// The text.
    pub text: String,
}

/// A metric of the filter.
#[derive(Debug, Clone)]
pub(crate) struct Metric {
    pub(crate) kind: u32,
    pub(crate) name: String,
    /// Of a counter or a gauge; of a histogram how many samples it has.
    pub(crate) value: i64,
    pub(crate) samples: Vec<u64>,
}

pub(crate) struct Queue {
    pub(crate) name: Vec<u8>,
    pub(crate) items: VecDeque<Vec<u8>>,
    /// VM and root that are woken.
    pub(crate) owner: (usize, u32),
}

/// A wasm VM as its host sees it.
pub(crate) struct VmState {
    /// The worker that it serves; none for those of the main thread.
    pub(crate) worker: Option<usize>,
    pub(crate) alive: bool,
    pub(crate) next_context: u32,
    pub(crate) next_token: u32,
    pub(crate) roots: Vec<Root>,
    /// Streams by their context.
    pub(crate) contexts: BTreeMap<u32, usize>,
}

pub(crate) struct Root {
    pub(crate) context: u32,
    pub(crate) route: usize,
    /// What it was configured with.
    pub(crate) config: Vec<u8>,
    pub(crate) configured: bool,
    /// Period and next time in ms.
    pub(crate) tick: Option<(u64, u64)>,
    /// Its period was set once.
    pub(crate) tick_set: bool,
    /// WasmX: a trap has reset its period: the tick fires once more.
    pub(crate) last_tick: bool,
    /// Its `on_done` returned false, and `proxy_done` has not come.
    pub(crate) draining: bool,
    pub(crate) done: bool,
}

impl Root {
    pub(crate) fn new(context: u32, route: usize) -> Self {
        Self {
            context,
            route,
            config: Vec::new(),
            configured: false,
            tick: None,
            tick_set: false,
            last_tick: false,
            draining: false,
            done: false,
        }
    }
}

/// A request on its way.
pub(crate) struct Stream {
    pub(crate) worker: usize,
    pub(crate) route: usize,
    /// VM and context; none when the filter does not see it.
    pub(crate) filter: Option<(usize, u32)>,
    pub(crate) request: Request,
    /// The headers as the filter gets them.
    pub(crate) headers: Vec<Pair>,
    /// What the filter can read of the body, in its pieces.
    pub(crate) buffered: Vec<Vec<u8>>,
    /// How many pieces of the request were taken in.
    pub(crate) taken: usize,
    /// The filter has seen the end of the request.
    pub(crate) ended: bool,
    pub(crate) paused: bool,
    /// Its headers were held back and not yet let go.
    pub(crate) stage: StreamPhase,
    pub(crate) seen: Seen,
    pub(crate) idle_at_ms: u64,
    /// Envoy: the headers of a response on its way, and whether the filter holds it back.
    pub(crate) response: Vec<Pair>,
    pub(crate) holds_response: bool,
    /// APISIX: the property that asks for the body.
    pub(crate) wants_body: bool,
    /// WasmX: the last callout's reply had no body although the callout had one.
    pub(crate) bodiless_reply: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamPhase {
    Headers,
    Body,
    Over,
}

/// A callout that has not ended.
#[derive(Debug, Clone)]
pub(crate) struct Open {
    pub(crate) callout: Callout,
    pub(crate) stream: Option<usize>,
    /// When and how it ends, if that is settled.
    pub(crate) plan: Option<(u64, Ending)>,
}

/// What a callback may touch, and what it asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Frame {
    pub(crate) vm: usize,
    pub(crate) callback: &'static str,
    pub(crate) context: u32,
    pub(crate) effective: u32,
    /// Another effective context was refused to it.
    pub(crate) strayed: bool,
    /// The callout's reply that it may read, and whether the body is handed over.
    pub(crate) reply: Option<(Reply, bool)>,
    /// Local replies by context.
    pub(crate) answers: Vec<(u32, Reply)>,
    /// Contexts whose stream goes on.
    pub(crate) resumed: Vec<u32>,
    /// Callouts dispatched.
    pub(crate) dispatched: Vec<usize>,
    /// `proxy_done` was called.
    pub(crate) done: bool,
}

/// Something that runs once the current event is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Posted {
    Wake { queue: u32 },
}

pub(crate) struct InjectedStatus {
    pub(crate) name: String,
    /// Calls that succeed before it takes effect; none where each call has it.
    pub(crate) after: Option<u64>,
    pub(crate) status: u32,
}

impl World {
    pub(crate) fn new(profile: Profile) -> Self {
        Self {
            profile,
            settings: Settings {
                answers_early: profile != Profile::EnvoyNoStop,
                ..Settings::default()
            },
            now_ms: 0,
            rng: fastrand::Rng::with_seed(1),
            logs: Vec::new(),
            metrics: Vec::new(),
            queues: Vec::new(),
            shared_data: BTreeMap::new(),
            vms: Vec::new(),
            streams: BTreeMap::new(),
            callouts: BTreeMap::new(),
            next_stream: 0,
            next_callout: 0,
            frame: None,
            posted: VecDeque::new(),
            statuses: BTreeMap::new(),
            callbacks: BTreeMap::new(),
            crossings: BTreeMap::new(),
            faults: Vec::new(),
            traps: Vec::new(),
            trapped: 0,
            trace: VecDeque::new(),
            expected: Vec::new(),
            violations: Vec::new(),
            last_pseudo: BTreeMap::new(),
            callout_memory: BTreeMap::new(),
        }
    }

    /// Remembers a step for the trace of a violation.
    pub(crate) fn note(&mut self, step: String) {
        if self.trace.len() == TRACE {
            self.trace.pop_front();
        }
        self.trace.push_back(step);
    }

    /// Counts a call that crosses the border between host and guest.
    pub(crate) fn cross(&mut self, function: &'static str) {
        *self.crossings.entry(function).or_default() += 1;
    }

    pub(crate) fn frame(&mut self) -> &mut Frame {
        self.frame.as_mut().expect("a host call outside a callback")
    }

    /// The stream of a context of a VM.
    pub(crate) fn stream_of(&self, vm: usize, context: u32) -> Option<usize> {
        self.vms[vm].contexts.get(&context).copied()
    }

    /// The stream that host calls act on.
    pub(crate) fn effective_stream(&self) -> Option<usize> {
        let frame = self.frame.as_ref()?;
        self.stream_of(frame.vm, frame.effective)
    }

    /// The root that a context is, or belongs to.
    pub(crate) fn root_of(&mut self, vm: usize, context: u32) -> Option<&mut Root> {
        let route = self.stream_of(vm, context).map(|stream| self.streams[&stream].route);
        let roots = &mut self.vms[vm].roots;
        roots.iter_mut().find(|root| root.context == context || Some(root.route) == route)
    }

    pub(crate) fn is_root(&self, vm: usize, context: u32) -> bool {
        self.vms[vm].roots.iter().any(|root| root.context == context)
    }

    /// The status that a test wants a call to return, if it wants one now.
    pub(crate) fn fault(&mut self, name: &str) -> Option<u32> {
        let fault = self.faults.iter_mut().find(|fault| fault.name == name)?;
        match &mut fault.after {
            None => Some(fault.status),
            Some(0) => {
                let status = fault.status;
                self.faults.retain(|fault| fault.name != name || fault.after != Some(0));
                Some(status)
            }
            Some(left) => {
                *left -= 1;
                None
            }
        }
    }
}

/// Steps that a trace keeps.
const TRACE: usize = 60;
