//! A request's life on WasmX: two phases, callouts that resume by themselves, and its traps.

pub(crate) mod callouts;
mod vms;

use crate::abi::PAUSE;
use crate::client::{Reply, Seen};
use crate::host::Host;
use crate::nginx::Body;
use crate::rule::Rule;
use crate::running::Called;
use crate::world::StreamPhase;

impl Host {
    pub(crate) fn wasmx_open(&mut self, id: usize) {
        if !self.nginx_takes(id) {
            return;
        }
        let (worker, route) = self.stream(id, |stream| (stream.worker, stream.route));
        let Some((vm, root)) = self.wasmx_vm(worker, route) else {
            self.close(id, Seen::Host(Reply { status: 500, ..Reply::default() }));
            return;
        };
        let context = self.nginx_context(id, vm);
        let created = self.call("proxy_on_context_create", vm, context, &[root]);
        if created.trapped {
            self.wasmx_died(vm, Some((id, "proxy_on_context_create")));
            return;
        }
        let count = u32::try_from(self.stream(id, |stream| stream.headers.len())).unwrap();
        let called = self.call("proxy_on_request_headers", vm, context, &[count, 0]);
        self.wasmx_after_phase(id, vm, called);
    }

    /// More of a request has come: its body phase, if it got so far.
    pub(crate) fn wasmx_pump(&mut self, id: usize) {
        let (stage, paused, filter) =
            self.stream(id, |stream| (stream.stage, stream.paused, stream.filter));
        let Some((vm, context)) = filter else { return };
        if stage != StreamPhase::Body || paused || self.stream(id, |stream| stream.ended) {
            return;
        }
        let size = match self.nginx_body(id) {
            Body::Incomplete | Body::Refused => return,
            Body::Whole(size) => size,
        };
        if size == 0 {
            self.nginx_goes_on(id);
            return;
        }
        let size = u32::try_from(size).unwrap();
        let called = self.call("proxy_on_request_body", vm, context, &[size, 1]);
        self.wasmx_after_phase(id, vm, called);
    }

    /// A phase's callback is over.
    fn wasmx_after_phase(&mut self, id: usize, vm: usize, called: Called) {
        if called.trapped {
            self.wasmx_died(vm, Some((id, called.frame.callback)));
            return;
        }
        let pauses = called.result.unwrap_or_default() == PAUSE;
        self.wasmx_answers(vm, &called);
        if self.stream(id, |stream| stream.stage) == StreamPhase::Over {
            return;
        }
        // Without a callout nothing ends the pause but the client.
        if pauses {
            self.stream(id, |stream| stream.paused = true);
        } else {
            self.wasmx_resume(id);
        }
    }

    /// A request goes on from where it stands.
    pub(crate) fn wasmx_resume(&mut self, id: usize) {
        let stage = self.stream(id, |stream| {
            stream.paused = false;
            std::mem::replace(&mut stream.stage, StreamPhase::Body)
        });
        match stage {
            StreamPhase::Headers => self.wasmx_pump(id),
            _ => self.nginx_goes_on(id),
        }
    }

    /// The local reply of a callback, with a line feed that WasmX adds.
    pub(crate) fn wasmx_answers(&mut self, vm: usize, called: &Called) {
        let Some((context, reply)) = called.frame.answers.first() else { return };
        let Some(id) = self.world.borrow().stream_of(vm, *context) else { return };
        let mut reply = reply.clone();
        if !reply.body.is_empty() {
            let bodiless = self.stream(id, |stream| stream.bodiless_reply);
            let others = called.frame.callback == "proxy_on_http_call_response"
                && self.waits_for_callout(id);
            if bodiless || others {
                let what = match others {
                    true => "a body while another callout is under way",
                    false => "a body after a callout's reply had none",
                };
                self.violate(Rule(26), what);
                self.close(id, Seen::Closed);
                return;
            }
            reply.body.push(b'\n');
        }
        self.close(id, Seen::Answered(reply));
    }

    /// A request ends, and the filter sees its end.
    pub(crate) fn wasmx_close(&mut self, id: usize, seen: Seen) {
        self.world.borrow_mut().callouts.retain(|_, open| open.stream != Some(id));
        let Some((vm, context)) = self.nginx_over(id, seen) else { return };
        for callback in ["proxy_on_done", "proxy_on_log", "proxy_on_delete"] {
            let called = self.call(callback, vm, context, &[]);
            if called.trapped {
                self.wasmx_died(vm, None);
                return;
            }
        }
        let mut world = self.world.borrow_mut();
        world.vms[vm].contexts.remove(&context);
        let connection = world.streams[&id].request.connection;
        if connection.is_none() {
            world.callout_memory.remove(&Err(id));
        }
    }
}
