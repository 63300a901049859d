//! Rule 48: what Envoy makes of its own replies, and a filter's, to gRPC requests.

use std::fmt::Write as _;

use crate::abi;
use crate::client::{Reply, Request};

/// A local reply as its client sees it. `status` is the filter's; what is no status is left to
/// Envoy.
pub(crate) fn local_reply(request: &Request, mut reply: Reply, status: Option<u32>) -> Reply {
    if !is_grpc(request) {
        return reply;
    }
    reply.headers.retain(|(name, _)| name != b"content-type" && name != b"content-length");
    reply.headers.extend(abi::pairs(&[("content-type", "application/grpc")]));
    if reply.header("grpc-status").is_empty() {
        let status = status.filter(|status| *status <= 16).unwrap_or(match reply.status {
            400 => 13,
            401 => 16,
            403 => 7,
            404 => 12,
            429 | 502..=504 => 14,
            _ => 2,
        });
        reply.headers.extend(abi::pairs(&[("grpc-status", &status.to_string())]));
    }
    if !reply.body.is_empty() {
        let message = percent_encoded(&reply.body);
        reply.headers.extend(abi::pairs(&[("grpc-message", &message)]));
    }
    (reply.status, reply.body) = (200, Vec::new());
    reply
}

/// As Envoy knows them: to the letter, and without parameters.
fn is_grpc(request: &Request) -> bool {
    let kind = abi::header(&request.headers, "content-type").unwrap_or_default();
    kind == b"application/grpc" || kind.starts_with(b"application/grpc+")
}

fn percent_encoded(body: &[u8]) -> String {
    let mut text = String::new();
    for byte in body {
        match byte {
            b' '..=b'~' if *byte != b'%' => text.push(char::from(*byte)),
            _ => write!(text, "%{byte:02X}").unwrap(),
        }
    }
    text
}
