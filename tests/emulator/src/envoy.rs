//! A request's life on Envoy: filter iteration, buffering, local replies, the end of a stream.

mod callouts;
pub(crate) mod grpc;
mod vms;

use crate::abi::{PAUSE, Pair};
use crate::client::{Reply, Request, Seen};
use crate::host::{Host, NEVER};
use crate::profile::{FailurePolicy, Profile};
use crate::rule::Rule;
use crate::running::Called;
use crate::vm::Stop;
use crate::world::{Stream, StreamPhase};

impl Host {
    /// A request's headers arrive, and with them all that its client has sent.
    pub(crate) fn envoy_open(&mut self, id: usize) {
        let request = self.stream(id, |stream| stream.request.clone());
        if let Some(refusal) = refused_by_codec(&request) {
            self.envoy_finish(id, Seen::Host(refusal));
            return;
        }
        let (worker, route) = self.stream(id, |stream| (stream.worker, stream.route));
        let Some((vm, root)) = self.envoy_vm(worker, route) else {
            let seen = match self.world.borrow().settings.failure_policy {
                FailurePolicy::Open => {
                    Seen::Upstream(self.world.borrow().settings.upstream.clone())
                }
                _ => Seen::Host(Reply { status: 503, ..Reply::default() }),
            };
            self.envoy_finish(id, seen);
            return;
        };
        let context = {
            let mut world = self.world.borrow_mut();
            let context = world.vms[vm].next_context;
            world.vms[vm].next_context += 1;
            world.vms[vm].contexts.insert(context, id);
            let stream = world.streams.get_mut(&id).unwrap();
            stream.filter = Some((vm, context));
            stream.headers = shown(&request);
            context
        };
        let created = self.call("proxy_on_context_create", vm, context, &[root]);
        if created.trapped {
            self.envoy_after_stream(id, vm, created);
            return;
        }
        let ends = request.ends && request.body.is_empty() && !request.late_end;
        let ends = ends && request.trailers.is_empty();
        let count = u32::try_from(self.stream(id, |stream| stream.headers.len())).unwrap();
        self.stream(id, |stream| stream.ended = ends);
        let called = self.call("proxy_on_request_headers", vm, context, &[count, u32::from(ends)]);
        self.envoy_after_stream(id, vm, called);
        self.envoy_pump(id);
    }

    /// Takes in the pieces of a body that have arrived, as far as the filter lets them.
    pub(crate) fn envoy_pump(&mut self, id: usize) {
        loop {
            let no_stop = self.profile() == Profile::EnvoyNoStop;
            let (limit, idle_at_ms) = {
                let world = self.world.borrow();
                (world.settings.buffer_limit, world.now_ms + world.settings.idle_timeout_ms)
            };
            let stream = self.stream(id, |stream| Arrived::of(stream));
            if stream.stage == StreamPhase::Over || stream.ended {
                return;
            }
            // Without the option a pause holds the body back as well.
            if no_stop && stream.stage == StreamPhase::Headers && stream.paused {
                return;
            }
            let Some((vm, context)) = stream.filter else { return };
            let (piece, trailers, last) = match stream.next {
                Some((piece, last)) => (Some(piece), false, last),
                None if stream.trailers > 0 && stream.request_ends => (None, true, true),
                None if stream.request_ends => (None, false, true),
                None => return,
            };
            self.stream(id, |stream| {
                stream.idle_at_ms = idle_at_ms;
                stream.stage = StreamPhase::Body;
                stream.ended = last;
            });
            let called = if trailers {
                let count = stream.trailers;
                self.call("proxy_on_request_trailers", vm, context, &[count])
            } else {
                if let Some(piece) = piece {
                    if stream.buffered + piece.len() > limit {
                        let reply = Reply::text(413, "Payload Too Large");
                        self.envoy_respond(id, Seen::Host(reply));
                        return;
                    }
                    self.stream(id, |stream| {
                        stream.buffered.push(piece);
                        stream.taken += 1;
                    });
                }
                let size: usize =
                    self.stream(id, |stream| stream.buffered.iter().map(Vec::len).sum());
                let size = u32::try_from(size).unwrap();
                self.call("proxy_on_request_body", vm, context, &[size, u32::from(last)])
            };
            self.envoy_after_stream(id, vm, called);
        }
    }

    /// A callback of a stream is over: its reply, its way on, or its pause.
    pub(crate) fn envoy_after_stream(&mut self, id: usize, vm: usize, called: Called) {
        if called.trapped {
            self.envoy_died(vm, Some((id, called.frame.callback)));
            return;
        }
        let result = called.result;
        let callback = called.frame.callback;
        self.envoy_after(vm, called);
        if self.stream(id, |stream| stream.stage) == StreamPhase::Over
            || callback == "proxy_on_context_create"
        {
            return;
        }
        let is_paused = result.unwrap_or_default() == PAUSE;
        let ended = self.stream(id, |stream| {
            stream.paused = is_paused;
            stream.ended
        });
        if is_paused {
            return;
        }
        if ended || self.world.borrow().settings.answers_early {
            self.envoy_goes_on(id);
        } else if callback == "proxy_on_request_body" {
            self.stream(id, |stream| stream.buffered = Vec::new());
        }
    }

    /// Carries out what a callback asked for, after it has returned.
    pub(crate) fn envoy_after(&mut self, vm: usize, called: Called) {
        if called.trapped {
            self.envoy_died(vm, None);
            return;
        }
        let frame = called.frame;
        let answers = frame.answers.len() + frame.resumed.len();
        if answers > ANSWERS_MAX {
            let what = format!("{answers} answers in {}", frame.callback);
            self.violate(Rule(47), &what);
            self.stopped(vm, &Stop::Trap("Maximum call stack size exceeded".to_owned()));
            self.envoy_died(vm, None);
            return;
        }
        for (position, (context, reply)) in frame.answers.iter().enumerate() {
            let later = &frame.answers[position + 1..];
            if later.iter().any(|(answered, _)| answered == context) {
                continue;
            }
            let stream = self.world.borrow().stream_of(vm, *context);
            if let Some(stream) = stream {
                self.envoy_respond(stream, Seen::Answered(reply.clone()));
            }
        }
        for context in frame.resumed {
            let stream = self.world.borrow().stream_of(vm, context);
            if let Some(stream) = stream {
                self.envoy_goes_on(stream);
            }
        }
        if frame.done {
            self.envoy_root_done(vm, frame.effective);
        }
    }

    /// The request goes to the upstream, which answers.
    pub(crate) fn envoy_goes_on(&mut self, id: usize) {
        let upstream = self.world.borrow().settings.upstream.clone();
        self.envoy_respond(id, Seen::Upstream(upstream));
    }

    /// A response on its way to the client. The first of a stream comes by the filter, which may hold
    /// it back; a local reply then takes its place without coming by the filter.
    fn envoy_respond(&mut self, id: usize, seen: Seen) {
        let filter = self.stream(id, |stream| stream.filter.filter(|_| !stream.holds_response));
        let reply = seen.reply().cloned();
        let (Some((vm, context)), Some(reply)) = (filter, reply) else {
            self.envoy_finish(id, seen);
            return;
        };
        let mut headers = vec![(b":status".to_vec(), reply.status.to_string().into_bytes())];
        headers.extend(reply.headers);
        let count = u32::try_from(headers.len()).unwrap();
        self.stream(id, |stream| stream.response = headers);
        let ends = u32::from(reply.body.is_empty());
        let called = self.call("proxy_on_response_headers", vm, context, &[count, ends]);
        if called.trapped {
            self.envoy_died(vm, Some((id, called.frame.callback)));
            return;
        }
        if called.result == Some(PAUSE) {
            self.stream(id, |stream| {
                (stream.holds_response, stream.idle_at_ms) = (true, NEVER);
            });
            self.envoy_after(vm, called);
            return;
        }
        self.envoy_after(vm, called);
        if ends == 0 {
            let size = u32::try_from(reply.body.len()).unwrap();
            let called = self.call("proxy_on_response_body", vm, context, &[size, 1]);
            self.envoy_after(vm, called);
        }
        self.envoy_finish(id, seen);
    }

    /// A stream ends: its callouts are cancelled, and the filter sees its end.
    pub(crate) fn envoy_finish(&mut self, id: usize, seen: Seen) {
        let seen = match seen {
            Seen::Host(reply) => {
                Seen::Host(self.stream(id, |it| grpc::local_reply(&it.request, reply, None)))
            }
            seen => seen,
        };
        let filter = {
            let mut world = self.world.borrow_mut();
            world.callouts.retain(|_, open| open.stream != Some(id));
            let stream = world.streams.get_mut(&id).unwrap();
            (stream.seen, stream.stage) = (seen, StreamPhase::Over);
            stream.filter.take()
        };
        let Some((vm, context)) = filter else { return };
        for callback in ["proxy_on_done", "proxy_on_log", "proxy_on_delete"] {
            let called = self.call(callback, vm, context, &[]);
            if called.trapped {
                self.envoy_died(vm, None);
                return;
            }
        }
        let mut world = self.world.borrow_mut();
        world.vms[vm].contexts.remove(&context);
        let stream = world.streams.get_mut(&id).unwrap();
        stream.buffered = Vec::new();
        stream.request.body = Vec::new();
    }

    /// Nothing moved on a stream for too long. A filter whose VM has ended turns Envoy's own reply
    /// into a bare 503, whatever the failure policy.
    pub(crate) fn envoy_idle(&mut self, id: usize) {
        let reply = match self.stream(id, |stream| stream.filter.is_some()) {
            true => Reply::text(504, "stream timeout"),
            false => Reply { status: 503, ..Reply::default() },
        };
        self.envoy_respond(id, Seen::Host(reply));
    }
}

/// What there is of a request, and what of it comes next.
struct Arrived {
    stage: StreamPhase,
    ended: bool,
    paused: bool,
    filter: Option<(usize, u32)>,
    buffered: usize,
    /// The next piece, and whether the request ends with it.
    next: Option<(Vec<u8>, bool)>,
    trailers: u32,
    request_ends: bool,
}

impl Arrived {
    fn of(stream: &Stream) -> Self {
        let request = &stream.request;
        let pieces = request.body.len();
        let last = request.ends && !request.late_end && request.trailers.is_empty();
        let next = request.body.get(stream.taken).cloned();
        Self {
            stage: stream.stage,
            ended: stream.ended,
            paused: stream.paused,
            filter: stream.filter,
            buffered: stream.buffered.iter().map(Vec::len).sum(),
            next: next.map(|piece| (piece, last && stream.taken + 1 == pieces)),
            trailers: u32::try_from(request.trailers.len()).unwrap(),
            request_ends: request.ends,
        }
    }
}

/// The headers as Envoy shows them: pseudo-headers first, names in lower case.
fn shown(request: &Request) -> Vec<Pair> {
    let mut shown = vec![
        (b":path".to_vec(), request.target.clone().into_bytes()),
        (b":method".to_vec(), request.method.clone().into_bytes()),
        (b":scheme".to_vec(), b"http".to_vec()),
    ];
    for (name, value) in &request.headers {
        let name = name.to_ascii_lowercase();
        match name.as_slice() {
            b"host" => shown.insert(0, (b":authority".to_vec(), value.clone())),
            _ => shown.push((name, value.clone())),
        }
    }
    shown.push((b"x-forwarded-proto".to_vec(), b"http".to_vec()));
    shown.push((b"x-request-id".to_vec(), b"00000000-0000-4000-8000-000000000000".to_vec()));
    shown
}

/// What Envoy's codec refuses by itself.
fn refused_by_codec(request: &Request) -> Option<Reply> {
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let clean = |byte: &u8| *byte >= b' ' && *byte != 0x7f || *byte == b'\t';
    let bad = |(name, value): &Pair| {
        name.is_empty() || !name.iter().all(token) || !value.iter().all(clean)
    };
    if request.headers.iter().any(bad) {
        Some(Reply::text(400, "Bad Request"))
    } else if request.headers.len() > HEADERS_MAX {
        Some(Reply::text(431, "Request Header Fields Too Large"))
    } else {
        None
    }
}

/// Answers in one callback that Envoy is known to carry out. Each is carried out when the callback
/// has returned, and calls the VM again within the one before.
const ANSWERS_MAX: usize = 300;
/// Envoy's default for the number of a request's headers.
const HEADERS_MAX: usize = 100;
