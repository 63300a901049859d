//! VMs at work: a callback runs, returns, traps, or breaks a rule.

use std::collections::BTreeMap;

use crate::client::Seen;
use crate::host::{Host, Worker};
use crate::profile::Profile;
use crate::rule::Rule;
use crate::vm::{Stop, Vm};
use crate::world::{Frame, StreamPhase, VmState};

/// What a callback did.
pub(crate) struct Called {
    pub(crate) result: Option<u32>,
    pub(crate) frame: Frame,
    pub(crate) trapped: bool,
}

impl Host {
    /// Makes a VM; its index. None for the worker means the main thread.
    pub(crate) fn start_vm(&mut self, worker: Option<usize>, first_token: u32) -> usize {
        let index = self.vms.len();
        self.world.borrow_mut().vms.push(VmState {
            worker,
            alive: true,
            next_context: 1,
            next_token: first_token,
            roots: Vec::new(),
            contexts: BTreeMap::new(),
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
        if instance.has(callback) {
            self.world.borrow_mut().cross(callback);
        }
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

    pub(crate) fn stopped(&mut self, vm: usize, stop: &Stop) {
        self.vms[vm] = None;
        let worker = {
            let mut world = self.world.borrow_mut();
            world.note(format!("  {stop}"));
            world.trapped += 1;
            world.vms[vm].alive = false;
            if world.profile != Profile::Wasmx {
                world.callouts.retain(|_, open| open.callout.vm != vm);
            }
            world.vms[vm].worker
        };
        if let Stop::Broken(rule, what) = stop {
            self.violate(*rule, what);
            if let Some(worker) = worker {
                self.crash(worker);
            }
        }
    }

    /// A rule is broken: the test ends, unless it expects that.
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
            if stream.stage != StreamPhase::Over {
                (stream.seen, stream.stage) = (Seen::Closed, StreamPhase::Over);
                stream.filter = None;
            }
        }
        world.callouts.retain(|_, open| world.vms[open.callout.vm].worker != Some(worker));
    }

    /// Every worker ends, and its clients' requests with it; new ones have no VM yet.
    pub(crate) fn drop_workers(&mut self) {
        for worker in 0..self.workers.len() {
            self.crash(worker);
            self.workers[worker] = Worker::default();
        }
    }
}
