//! The numbered rules of the hosts: what each does that a filter must not lean on.

use std::fmt;

/// A rule by its number, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule(pub usize);

impl Rule {
    /// The rule's sentence.
    ///
    /// # Panics
    /// When there is no such rule.
    #[must_use]
    pub fn name(self) -> &'static str {
        NAMES[self.0 - 1]
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "rule {}: {}", self.0, self.name())
    }
}

/// How many rules there are.
pub const RULES: usize = NAMES.len();

const NAMES: [&str; 49] = [
    "a host links its own functions with their signatures, and no other",
    "a trap has its host's consequences",
    "every status is a raw number",
    "headers hold any byte; a host's limits apply; order and repeats are kept",
    "a callback has a budget",
    "envoy: body callbacks tell the total so far; the last may repeat it; trailers end a body",
    "envoy: a pause at headers gets the body only with allow_on_headers_stop_iteration",
    "envoy: continue at headers sends the request on at once",
    "envoy: the buffer limit is exact, and its 413 is made outside the filter",
    "envoy: a canary and the main thread's VM are configured and get no request",
    "envoy: a queue wakes the VM that registered its name last",
    "envoy: a dead effective context is refused and the previous one stays",
    "envoy: a local reply goes out after the VM call, and the last one wins",
    "envoy: a callout's failure has Envoy's status, headers and text",
    "envoy: a trap leaves paused streams hanging, and the failure policy decides on later ones",
    "envoy: on_done comes before a late reply; a root may drain",
    "wasmx: the end of stream is never told at headers; one body callback, none without a body",
    "wasmx: a spilled body has a size and reads as absent",
    "wasmx: a read of less than a body in several buffers writes past the allocation",
    "wasmx: a pause without a callout hangs",
    "wasmx: a callout's callback without an answer resumes the request",
    "wasmx: the effective context is a no-op, and a reply from a root kills the worker",
    "wasmx: many calls trap where they do not fit",
    "wasmx: a trap in a callout's reply resumes the request, and may kill the worker",
    "wasmx: :dispatch_status tells how a callout ended, and a failed one's body cannot be read",
    "wasmx: a body in a reply after a callout without a reply's body makes the reply empty",
    "wasmx: a second callout with a body after a reply without one loops for ever",
    "wasmx: a reply gets a line feed; names keep their case; a map of 100 pairs cannot be read",
    "wasmx: plugin_name in a root kills the worker",
    "wasmx: a tick fires once more after a trap, and does not survive its worker",
    "wasmx: callout tokens start at 0",
    "wasmx: a callout's memory lives until the client's connection closes",
    "apisix: headers come without a count and always as the stream's end",
    "apisix: a body is only given when the property asks for it",
    "apisix: a pause without a callout or a reply kills the worker",
    "apisix: one callout at a time, in request phases alone",
    "apisix: every failed callout looks the same",
    "apisix: the request waits for its callout, whatever was returned",
    "apisix: a missing pseudo-header is the previous callout's",
    "apisix: control characters in a callout's headers or path fail it",
    "apisix: the header map of a request without Host kills the worker",
    "apisix: a refused configuration is tried again at each request",
    "apisix: a trap refuses every later request",
    "apisix: no time, no tick, no start, no log, no queue",
    "apisix: response headers also come for local replies, callouts' replies in the root",
    "apisix: the configuration is encoded anew",
    "envoy: hundreds of answers in one callback overflow the stack and end the VM",
    "envoy: a local reply to a gRPC request is HTTP 200 with a grpc-status",
    "envoy: every response comes by the filter; a local reply replaces one that it holds back",
];
