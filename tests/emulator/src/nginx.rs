//! What both nginx hosts do alike: they check a request, show its headers, and read its body.

use crate::abi::{self, Pair};
use crate::client::{Reply, Request, Seen};
use crate::host::Host;
use crate::profile::Profile;
use crate::world::{Root, StreamPhase};

/// How far a request's body is.
pub(crate) enum Body {
    /// Not all of it has come.
    Incomplete,
    /// nginx has answered.
    Refused,
    /// Its size in bytes.
    Whole(usize),
}

impl Host {
    /// Answers by itself what nginx does not take; whether it took the request.
    pub(crate) fn nginx_takes(&mut self, id: usize) -> bool {
        let request = self.stream(id, |stream| stream.request.clone());
        let max = self.world.borrow().settings.client_max_body_size;
        let announced = abi::header(&request.headers, "content-length")
            .and_then(|value| std::str::from_utf8(value).ok()?.parse::<usize>().ok());
        let control = |byte: &u8| matches!(byte, 0 | b'\r' | b'\n');
        let broken = request.headers.iter().any(|(_, value)| value.iter().any(control));
        let no_host = request.version > 10 && abi::header(&request.headers, "host").is_none();
        let status = if broken || no_host {
            400
        } else if max > 0 && announced.is_some_and(|length| length > max) {
            413
        } else {
            let profile = self.profile();
            self.stream(id, |stream| stream.headers = shown(&request, profile));
            return true;
        };
        self.close(id, Seen::Host(Reply { status, ..Reply::default() }));
        false
    }

    /// Reads the body, once it is all there.
    pub(crate) fn nginx_body(&mut self, id: usize) -> Body {
        let max = self.world.borrow().settings.client_max_body_size;
        let (size, ends) = self.stream(id, |stream| {
            let size = stream.request.body.iter().map(Vec::len).sum::<usize>();
            (size, stream.request.ends)
        });
        if max > 0 && size > max {
            self.close(id, Seen::Host(Reply { status: 413, ..Reply::default() }));
            return Body::Refused;
        }
        if !ends {
            return Body::Incomplete;
        }
        self.stream(id, |stream| {
            stream.ended = true;
            stream.buffered = std::mem::take(&mut stream.request.body);
            stream.buffered.retain(|piece| !piece.is_empty());
        });
        Body::Whole(size)
    }

    /// A context for a request; its id.
    pub(crate) fn nginx_context(&mut self, id: usize, vm: usize) -> u32 {
        let mut world = self.world.borrow_mut();
        let context = world.vms[vm].next_context;
        world.vms[vm].next_context += 1;
        world.vms[vm].contexts.insert(context, id);
        world.streams.get_mut(&id).unwrap().filter = Some((vm, context));
        context
    }

    pub(crate) fn nginx_root(&mut self, vm: usize, route: usize, context: u32) -> u32 {
        let config = self.routes[route].clone().unwrap_or_default();
        let size = u32::try_from(config.len()).unwrap();
        self.world.borrow_mut().vms[vm].roots.push(Root { config, ..Root::new(context, route) });
        size
    }

    /// Whether a request waits for a callout.
    pub(crate) fn waits_for_callout(&self, id: usize) -> bool {
        self.world.borrow().callouts.values().any(|open| open.stream == Some(id))
    }

    /// A request goes to the upstream.
    pub(crate) fn nginx_goes_on(&mut self, id: usize) {
        let upstream = self.world.borrow().settings.upstream.clone();
        self.close(id, Seen::Upstream(upstream));
    }

    /// A request is over for its client. Its callout, if it waits for one, runs to its end.
    pub(crate) fn nginx_hang_up(&mut self, id: usize) {
        if self.waits_for_callout(id) {
            self.stream(id, |stream| stream.seen = Seen::Closed);
        } else {
            self.close(id, Seen::Closed);
        }
    }

    /// What a client sees of a request that ended; one that has left sees nothing.
    pub(crate) fn nginx_over(&mut self, id: usize, seen: Seen) -> Option<(usize, u32)> {
        self.stream(id, |stream| {
            if stream.seen == Seen::Pending {
                stream.seen = seen;
            }
            stream.stage = StreamPhase::Over;
            stream.buffered = Vec::new();
            stream.request.body = Vec::new();
            stream.filter.take()
        })
    }
}

/// The headers as a host on nginx shows them: in the client's case, 100 at most.
fn shown(request: &Request, profile: Profile) -> Vec<Pair> {
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.!#$%&'*+^`|~".contains(byte);
    let host = abi::header(&request.headers, "host").unwrap_or_default().to_vec();
    let (authority, path) = match profile {
        Profile::Wasmx => (b"server.name".to_vec(), decoded(&request.target)),
        _ => (host, request.target.clone().into_bytes()),
    };
    let mut shown = vec![
        (b":authority".to_vec(), authority),
        (b":path".to_vec(), path),
        (b":method".to_vec(), request.method.clone().into_bytes()),
        (b":scheme".to_vec(), b"http".to_vec()),
    ];
    // nginx drops headers whose name it does not like.
    let valid = |pair: &&Pair| pair.0.iter().all(token);
    shown.extend(request.headers.iter().filter(valid).take(HEADERS_MAX).cloned());
    shown
}

/// A target whose escapes nginx has decoded.
fn decoded(target: &str) -> Vec<u8> {
    let bytes = target.as_bytes();
    let (mut at, mut decoded) = (0, Vec::new());
    while at < bytes.len() {
        let escape = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        let value = escape.and_then(|hex| u8::from_str_radix(str::from_utf8(hex).ok()?, 16).ok());
        decoded.push(value.unwrap_or(bytes[at]));
        at += if value.is_some() { 3 } else { 1 };
    }
    decoded
}

/// Headers that the hosts on nginx hand over.
const HEADERS_MAX: usize = 100;
