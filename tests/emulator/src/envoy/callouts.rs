//! Envoy's callouts: how their ends look to the filter, and what wakes a root.

use crate::abi;
use crate::callout::Ending;
use crate::client::Reply;
use crate::host::Host;
use crate::world::{Frame, Open};

impl Host {
    /// A queue has an item: the VM that registered its name last is woken.
    pub(crate) fn envoy_wake(&mut self, queue: u32) {
        let (vm, root) = self.world.borrow().queues[queue as usize - 1].owner;
        if self.vms[vm].is_some() {
            let called = self.call("proxy_on_queue_ready", vm, root, &[queue]);
            self.envoy_after(vm, called);
        }
    }

    pub(crate) fn envoy_deliver(&mut self, open: &Open, ending: Ending) {
        let callout = &open.callout;
        let (vm, context) = (callout.vm, callout.context);
        if self.vms[vm].is_none() {
            return;
        }
        let reply = seen_by_filter(ending);
        let count = |length: usize| u32::try_from(length).unwrap();
        let (headers, body) = match &reply {
            Some(reply) => (count(reply.headers.len()), count(reply.body.len())),
            None => (0, 0),
        };
        let frame = Frame { reply: Some((reply.unwrap_or_default(), true)), ..Frame::default() };
        let arguments = [context, callout.token, headers, body, 0];
        let called = self.run("proxy_on_http_call_response", vm, context, &arguments, frame);
        match open.stream {
            Some(stream) if called.trapped => {
                self.envoy_died(vm, Some((stream, "proxy_on_http_call_response")));
            }
            _ => self.envoy_after(vm, called),
        }
    }
}

/// What the filter sees; none for a reply that broke off, which has no headers either.
fn seen_by_filter(ending: Ending) -> Option<Reply> {
    let reset = |reason: &str| {
        let text = format!(
            "upstream connect error or disconnect/reset before headers. reset reason: {reason}"
        );
        Some(local(503, &text, &[]))
    };
    match ending {
        Ending::Reply(mut reply) | Ending::Duplicate(mut reply) => {
            let status = reply.status.to_string();
            reply.headers.insert(0, (b":status".to_vec(), status.into_bytes()));
            Some(reply)
        }
        Ending::Refused => reset(
            "remote connection failure, transport failure reason: \
             delayed connect error: Connection refused",
        ),
        Ending::Closed | Ending::Reset => reset("connection termination"),
        Ending::Overflow => {
            let text =
                "upstream connect error or disconnect/reset before headers. reset reason: overflow";
            Some(local(503, text, &[("x-envoy-overloaded", "true")]))
        }
        Ending::NoHost | Ending::Unresolvable => Some(local(503, "no healthy upstream", &[])),
        Ending::Garbage => Some(local(
            502,
            "upstream connect error or disconnect/reset before headers. reset reason: protocol error",
            &[],
        )),
        Ending::Stalled | Ending::Late(_) => Some(local(504, "upstream request timeout", &[])),
        Ending::Cut(_) | Ending::StalledAfterHeaders(_) => None,
    }
}

/// A reply that Envoy makes itself.
fn local(status: u32, text: &str, more: &[(&str, &str)]) -> Reply {
    let (code, length) = (status.to_string(), text.len().to_string());
    let mut headers = abi::pairs(&[
        (":status", &code),
        ("content-length", &length),
        ("content-type", "text/plain"),
    ]);
    headers.extend(abi::pairs(more));
    Reply { status, headers, body: text.as_bytes().to_vec() }
}
