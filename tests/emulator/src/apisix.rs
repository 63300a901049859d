//! A request's life on APISIX: contexts made inside requests, one callout at a time.

mod conf;

use crate::abi::{self, PAUSE};
use crate::callout::{Callout, Ending};
use crate::client::{Reply, Seen};
use crate::host::Host;
use crate::nginx::Body;
use crate::rule::Rule;
use crate::running::Called;
use crate::world::{Frame, Open, StreamPhase};

impl Host {
    pub(crate) fn apisix_configure(&mut self, route: usize) {
        let config = self.routes[route].take().unwrap_or_default();
        let anew = conf::encode_anew(&config, &mut self.world.borrow_mut().rng);
        self.routes[route] = Some(anew);
    }

    pub(crate) fn apisix_open(&mut self, id: usize) {
        if !self.nginx_takes(id) {
            return;
        }
        let (worker, route) = self.stream(id, |stream| (stream.worker, stream.route));
        let vm = match self.workers[worker].vm {
            Some(vm) => vm,
            None => self.start_vm(Some(worker), 1),
        };
        self.workers[worker].vm = Some(vm);
        let root = match self.vms[vm].is_some() {
            true => self.apisix_root(vm, route),
            false => None,
        };
        let Some(root) = root else {
            // The response phase tries to configure as well.
            if !self.workers[worker].dead && self.vms[vm].is_some() {
                self.apisix_root(vm, route);
            }
            self.close(id, refusal());
            return;
        };
        let context = self.nginx_context(id, vm);
        let created = self.call("proxy_on_context_create", vm, context, &[root]);
        if created.trapped {
            self.apisix_died(vm, Some(id));
            return;
        }
        let called = self.call("proxy_on_request_headers", vm, context, &[0, 1]);
        self.apisix_after_phase(id, vm, called);
    }

    /// The plugin context of a route, made and configured in the first request that wants it.
    fn apisix_root(&mut self, vm: usize, route: usize) -> Option<u32> {
        let known = {
            let world = self.world.borrow();
            let root = world.vms[vm].roots.iter().find(|root| root.route == route);
            root.map(|root| root.context)
        };
        if known.is_some() {
            return known;
        }
        let context = {
            let mut world = self.world.borrow_mut();
            world.vms[vm].next_context += 1;
            world.vms[vm].next_context - 1
        };
        let size = self.nginx_root(vm, route, context);
        let created = self.call("proxy_on_context_create", vm, context, &[0]);
        let trapped = created.trapped || {
            let called = self.call("proxy_on_configure", vm, context, &[size]);
            if !called.trapped && called.result != Some(0) {
                return Some(context);
            }
            called.trapped
        };
        self.world.borrow_mut().vms[vm].roots.retain(|root| root.context != context);
        if trapped {
            self.apisix_died(vm, None);
        }
        None
    }

    /// More of a request has come: its body phase, if the filter wants it.
    pub(crate) fn apisix_pump(&mut self, id: usize) {
        let (stage, filter) = self.stream(id, |stream| (stream.stage, stream.filter));
        let Some((vm, context)) = filter else { return };
        if stage != StreamPhase::Body || self.stream(id, |stream| stream.ended) {
            return;
        }
        let size = match self.nginx_body(id) {
            Body::Incomplete | Body::Refused => return,
            Body::Whole(size) => u32::try_from(size).unwrap(),
        };
        if !self.stream(id, |stream| stream.wants_body) {
            self.nginx_goes_on(id);
            return;
        }
        let called = self.call("proxy_on_request_body", vm, context, &[size, 1]);
        self.stream(id, |stream| {
            stream.wants_body = false;
            stream.buffered = Vec::new();
        });
        self.apisix_after_phase(id, vm, called);
    }

    fn apisix_after_phase(&mut self, id: usize, vm: usize, called: Called) {
        if called.trapped {
            self.apisix_died(vm, Some(id));
            return;
        }
        self.apisix_answers(vm, &called);
        if self.stream(id, |stream| stream.stage) == StreamPhase::Over || self.waits_for_callout(id)
        {
            return;
        }
        if called.result.unwrap_or_default() == PAUSE {
            let what = format!("{} pauses with neither", called.frame.callback);
            let worker = self.stream(id, |stream| stream.worker);
            self.violate(Rule(35), &what);
            self.crash(worker);
            return;
        }
        self.apisix_resume(id);
    }

    fn apisix_resume(&mut self, id: usize) {
        let stage =
            self.stream(id, |stream| std::mem::replace(&mut stream.stage, StreamPhase::Body));
        match stage {
            StreamPhase::Headers => self.apisix_pump(id),
            _ => self.nginx_goes_on(id),
        }
    }

    fn apisix_answers(&mut self, vm: usize, called: &Called) {
        let Some((context, reply)) = called.frame.answers.last() else { return };
        let stream = self.world.borrow().stream_of(vm, *context);
        if let Some(id) = stream {
            self.close(id, Seen::Answered(reply.clone()));
        }
    }

    /// A callout ends. Its reply comes in the plugin context, and acts on the request.
    pub(crate) fn apisix_deliver(&mut self, open: &Open, ending: Ending) {
        let callout = &open.callout;
        let Some(id) = open.stream else { return };
        if self.vms[callout.vm].is_none() {
            return;
        }
        let reply = match ending {
            _ if fails_by_itself(callout) => None,
            Ending::Reply(reply) | Ending::Duplicate(reply) => Some(reply),
            Ending::Overflow | Ending::NoHost => panic!("only Envoy ends a callout so"),
            _ => None,
        };
        let reply = reply.map(|mut reply| {
            let status = reply.status.to_string().into_bytes();
            reply.headers.insert(0, (b":status".to_vec(), status));
            reply
        });
        let count = |length: usize| u32::try_from(length).unwrap();
        let (headers, body) = match &reply {
            Some(reply) => (count(reply.headers.len()), count(reply.body.len())),
            None => (0, 0),
        };
        let vm = callout.vm;
        let root = self.world.borrow_mut().root_of(vm, callout.context).unwrap().context;
        let frame = Frame {
            effective: callout.context,
            reply: Some((reply.unwrap_or_default(), true)),
            ..Frame::default()
        };
        let arguments = [root, callout.token, headers, body, 0];
        let called = self.run("proxy_on_http_call_response", vm, root, &arguments, frame);
        if called.trapped {
            self.apisix_died(vm, Some(id));
            return;
        }
        self.apisix_answers(vm, &called);
        let over = self.stream(id, |stream| stream.stage) == StreamPhase::Over;
        if !over && !self.waits_for_callout(id) {
            self.apisix_resume(id);
        }
    }

    /// The VM trapped: every later request is refused, or the worker aborts.
    fn apisix_died(&mut self, vm: usize, of: Option<usize>) {
        let (aborts, worker) = {
            let mut world = self.world.borrow_mut();
            let world = &mut *world;
            for stream in world.vms[vm].contexts.values() {
                world.streams.get_mut(stream).unwrap().filter = None;
            }
            world.vms[vm].contexts.clear();
            let worker = world.vms[vm].worker;
            let aborts = world.settings.trap_aborts;
            (aborts, worker)
        };
        match worker {
            Some(worker) if aborts => self.crash(worker),
            _ => {
                if let Some(id) = of {
                    self.close(id, refusal());
                }
            }
        }
    }

    /// A request is over: the response phase runs for every reply.
    pub(crate) fn apisix_close(&mut self, id: usize, seen: Seen) {
        self.world.borrow_mut().callouts.retain(|_, open| open.stream != Some(id));
        let Some((vm, context)) = self.nginx_over(id, seen) else { return };
        let steps: [(&'static str, &[u32]); 3] = [
            ("proxy_on_response_headers", &[0, 1]),
            ("proxy_on_done", &[]),
            ("proxy_on_delete", &[]),
        ];
        for (callback, arguments) in steps {
            if self.call(callback, vm, context, arguments).trapped {
                self.apisix_died(vm, None);
                return;
            }
        }
        self.world.borrow_mut().vms[vm].contexts.remove(&context);
    }
}

fn refusal() -> Seen {
    Seen::Host(Reply { status: 503, ..Reply::default() })
}

/// What APISIX takes and then cannot send: other targets than addresses and dotted names, control
/// characters in headers, and some characters in the path.
fn fails_by_itself(callout: &Callout) -> bool {
    let host = callout.target.rsplit_once(':').map_or(callout.target.as_str(), |(host, _)| host);
    let bare = callout.target.starts_with("unix:") || !host.contains('.') && !host.contains('[');
    let control = |byte: &u8| *byte < b' ' || *byte == 0x7f;
    let path = abi::header(&callout.headers, ":path").unwrap_or_default();
    bare || callout.headers.iter().any(|(_, value)| value.iter().any(control))
        || path.iter().any(|byte| b" <>#".contains(byte))
}
