//! WasmX's callouts: how their ends look to the filter, and what follows them.

use crate::abi;
use crate::callout::Ending;
use crate::client::Reply;
use crate::host::Host;
use crate::world::{Frame, Open, StreamPhase};

impl Host {
    pub(crate) fn wasmx_deliver(&mut self, open: &Open, ending: Ending) {
        let callout = &open.callout;
        let (vm, context) = (callout.vm, callout.context);
        if self.vms[vm].is_none() {
            // The VM that sent it trapped meanwhile: WasmX touches what is freed.
            let worker = self.world.borrow().vms[vm].worker;
            self.crash(worker.unwrap());
            return;
        }
        let (dispatch_status, reply) = seen_by_filter(ending);
        let mut reply = reply.unwrap_or_default();
        let count = |length: usize| u32::try_from(length).unwrap();
        let (headers, body) = (count(reply.headers.len()), count(reply.body.len()));
        let readable = dispatch_status == "ok";
        if let Some(id) = open.stream {
            self.stream(id, |stream| {
                if readable && body > 0 {
                    stream.bodiless_reply = false;
                } else if !callout.body.is_empty() {
                    stream.bodiless_reply = true;
                }
            });
        }
        reply.headers.extend(abi::pairs(&[(":dispatch_status", dispatch_status)]));
        let frame = Frame { reply: Some((reply, readable)), ..Frame::default() };
        let arguments = [context, callout.token, headers, body, 0];
        let called = self.run("proxy_on_http_call_response", vm, context, &arguments, frame);
        if called.trapped {
            self.wasmx_died(vm, open.stream.map(|id| (id, "proxy_on_http_call_response")));
            return;
        }
        let Some(id) = open.stream else { return };
        self.wasmx_answers(vm, &called);
        let over = self.stream(id, |stream| stream.stage) == StreamPhase::Over;
        if !over && !self.waits_for_callout(id) {
            self.wasmx_resume(id);
        }
    }
}

/// `:dispatch_status`, and what of a reply the filter sees.
fn seen_by_filter(ending: Ending) -> (&'static str, Option<Reply>) {
    let with_status = |mut reply: Reply| {
        reply.headers.insert(0, (b":status".to_vec(), reply.status.to_string().into_bytes()));
        reply
    };
    match ending {
        // Without a length it ends only with its connection, which the bridge keeps open.
        Ending::Reply(reply) if waits_for_more(&reply) => ("timeout", Some(with_status(reply))),
        Ending::Reply(reply) | Ending::Duplicate(reply) => ("ok", Some(with_status(reply))),
        Ending::Closed => ("ok", None),
        Ending::Refused | Ending::Reset => ("broken connection", None),
        Ending::Unresolvable => ("resolver failure", None),
        Ending::Garbage => ("reader failure", None),
        Ending::Stalled => ("timeout", None),
        Ending::Cut(reply) => ("reader failure", Some(with_status(reply))),
        Ending::StalledAfterHeaders(reply) | Ending::Late(reply) => {
            ("timeout", Some(with_status(reply)))
        }
        Ending::Overflow | Ending::NoHost => panic!("only Envoy ends a callout so"),
    }
}

/// Whether WasmX goes on reading after a reply's headers until the timeout.
pub(crate) fn waits_for_more(reply: &Reply) -> bool {
    reply.status == 204 && abi::header(&reply.headers, "content-length").is_none()
}
