//! What the gateways that run the filter do differently, and what the filter does about it: every
//! difference is decided here. The behaviour was observed on Envoy 1.40, ngx_wasm_module on nginx
//! 1.27 and wasm-nginx-module 0.7; `tests/emulator` models it.

use crate::request::Request;
use crate::wire::Delivery;

/// A gateway, by its Proxy-Wasm host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gateway {
    /// Envoy, and Istio's.
    Envoy,
    /// Kong Gateway's and plain nginx's `ngx_wasm_module`.
    Wasmx,
    /// Apache APISIX's `wasm-nginx-module`.
    Apisix,
}

/// What the filter does when a request's headers are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtHeaders {
    /// The request is complete: capture it now.
    Capture,
    /// Hold it back; its body comes in body callbacks.
    Hold,
    /// Let it go on to the body callback, which holds it back.
    GoOn,
    /// Ask the host to read the body first, then as `GoOn`.
    AskForBody,
}

impl Gateway {
    /// By the status with which a host answers a read of the property `ngx.nginx_version` while the
    /// filter is configured; none for an unknown host. Other probes are no use: the property
    /// `plugin_name` ends WasmX's worker when a root reads it.
    #[must_use]
    pub const fn of_probe(status: u32) -> Option<Self> {
        match status {
            1 => Some(Self::Envoy),
            10 => Some(Self::Wasmx),
            2 => Some(Self::Apisix),
            _ => None,
        }
    }

    /// By the properties that a host has while it serves a request: `ngx.nginx_version`, and
    /// `nginx_version`.
    #[must_use]
    pub const fn of_request(has_dotted: bool, has_plain: bool) -> Self {
        match (has_dotted, has_plain) {
            (true, _) => Self::Wasmx,
            (false, true) => Self::Apisix,
            (false, false) => Self::Envoy,
        }
    }

    /// The name that the field `host` has for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Envoy => "envoy",
            Self::Wasmx => "wasmx",
            Self::Apisix => "apisix",
        }
    }

    /// What to do at a request's headers. `ended` is the host's flag for the end of the stream:
    /// WasmX never sets it, and APISIX always does, also when a body follows. `stops` says whether
    /// Envoy has its option for it. `protocol` is read only where it decides.
    #[must_use]
    pub fn at_headers(
        self,
        ended: bool,
        stops: bool,
        request: &Request,
        protocol: impl FnOnce() -> Option<Vec<u8>>,
    ) -> AtHeaders {
        match self {
            Self::Envoy if ended => AtHeaders::Capture,
            // A request that continues is routed, and possibly answered, before its body arrives.
            Self::Envoy if stops => AtHeaders::Hold,
            Self::Envoy => AtHeaders::GoOn,
            // Without a body there is no body callback: the request would go to the upstream. With
            // one, nginx reads it only after the headers' callback has continued.
            Self::Wasmx if expects_body(request, protocol) => AtHeaders::GoOn,
            Self::Wasmx => AtHeaders::Capture,
            // It calls back for a body only where the filter has set a property for it.
            Self::Apisix => AtHeaders::AskForBody,
        }
    }

    /// Whether a shared queue can wake the root, so that one callout carries what queued in a turn
    /// of the event loop: 33,700 requests a second on one of Envoy's workers, instead of 15,800
    /// with a callout each. WasmX traps at the calls for queues, and APISIX refuses them.
    #[must_use]
    pub const fn can_wake_root(self) -> bool {
        matches!(self, Self::Envoy)
    }

    /// Whether the host calls the root regularly. APISIX refuses to set a tick period.
    #[must_use]
    pub const fn has_ticks(self) -> bool {
        !matches!(self, Self::Apisix)
    }

    /// Whether a gauge can be added to. WasmX traps, so there it is set.
    #[must_use]
    pub const fn adds_to_gauges(self) -> bool {
        matches!(self, Self::Envoy)
    }

    /// Whether `on_configure` refuses a bad configuration. On WasmX a refusal keeps every worker
    /// from starting, also at a reload and for other locations: there the filter accepts it, and
    /// answers every request with 500.
    #[must_use]
    pub const fn may_refuse_configuration(self) -> bool {
        !matches!(self, Self::Wasmx)
    }

    /// Whether the root may make callouts in other callbacks than ticks. WasmX dispatches a root's
    /// callouts from a tick only, APISIX never.
    #[must_use]
    pub const fn root_dispatches_any_time(self) -> bool {
        matches!(self, Self::Envoy)
    }

    /// Whether records of this delivery mode go into the root's outbox, given that its queue wakes
    /// it or not. Where they do not, each request makes its own callouts: a client that waits for
    /// the outcome would wait for the next tick, too, and without ticks nothing would send at all.
    #[must_use]
    pub const fn queues_in_root(self, delivery: Delivery, root_wakes: bool) -> bool {
        match delivery {
            Delivery::Acked | Delivery::Queued => self.can_wake_root() && root_wakes,
            Delivery::Memory => self.has_ticks(),
        }
    }

    /// Whether one body callback has the whole body. Envoy calls for each piece.
    #[must_use]
    pub const fn has_one_body_callback(self) -> bool {
        !matches!(self, Self::Envoy)
    }

    /// Whether a paused request continues to the upstream by itself when a callout has ended and
    /// nothing has answered it. Envoy leaves it paused.
    #[must_use]
    pub const fn resumes_by_itself(self) -> bool {
        !matches!(self, Self::Envoy)
    }

    /// Most headers that the host passes to the filter; none where it has no bound of its own.
    #[must_use]
    pub const fn headers_max(self) -> Option<usize> {
        match self {
            Self::Envoy => None,
            Self::Wasmx | Self::Apisix => Some(100),
        }
    }

    /// Whether the map of so many headers can be read. WasmX sizes the map in one order and writes
    /// it in another: with 100 pairs or more, four pseudo-headers among them, it writes past the
    /// end.
    #[must_use]
    pub const fn reads_map_of(self, num_headers: usize) -> bool {
        !matches!(self, Self::Wasmx) || num_headers < 96
    }

    /// Whether a reply's body is lost after a callout with a body whose reply had none: on WasmX
    /// the client then gets an empty reply.
    #[must_use]
    pub const fn loses_bodies_after_empty_replies(self) -> bool {
        matches!(self, Self::Wasmx)
    }

    /// Whether a read of the authority or of all headers of a request without `host` (HTTP/1.0)
    /// ends the worker.
    #[must_use]
    pub const fn needs_host_header(self) -> bool {
        matches!(self, Self::Apisix)
    }

    /// Checks a callout's target, where the host would fail late or worse on a bad one.
    ///
    /// # Errors
    /// What a target must look like there.
    pub fn check_target(self, target: &str) -> Result<(), String> {
        let good = match self {
            Self::Envoy => true,
            Self::Wasmx => is_unix_socket(target) || has_port(target, is_name),
            Self::Apisix => has_port(target, |host| is_name(host) && host.contains('.')),
        };
        match (good, self) {
            (true, _) => Ok(()),
            (false, Self::Apisix) => {
                Err("must be IP:PORT, or a name with a dot and a port, on APISIX".to_owned())
            }
            (false, _) => Err("must be HOST:PORT or unix:/PATH on Kong and nginx".to_owned()),
        }
    }
}

/// Whether a body follows, as HTTP has it (RFC 9112, 6.3; RFC 9113, 8.1).
fn expects_body(request: &Request, protocol: impl FnOnce() -> Option<Vec<u8>>) -> bool {
    if let Some(length) = request.header(b"content-length") {
        return length.iter().any(|byte| matches!(byte, b'1'..=b'9'));
    }
    if request.header(b"transfer-encoding").is_some() {
        return true;
    }
    !matches!(request.method.as_slice(), b"GET" | b"HEAD")
        && protocol().is_some_and(|protocol| !protocol.starts_with(b"HTTP/1"))
}

fn is_unix_socket(target: &str) -> bool {
    target.strip_prefix("unix:").is_some_and(|path| {
        path.starts_with('/') && path.len() > 1 && path.chars().all(|c| c.is_ascii_graphic())
    })
}

fn has_port(target: &str, is_host: impl Fn(&str) -> bool) -> bool {
    target.rsplit_once(':').is_some_and(|(host, port)| {
        let digits = !port.is_empty() && port.chars().all(|c| c.is_ascii_digit());
        digits && port.parse::<u16>().is_ok_and(|port| port > 0) && is_host(host)
    })
}

fn is_name(host: &str) -> bool {
    let v6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    match v6 {
        Some(address) => address.parse::<core::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(part),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, headers: &[(&str, &str)]) -> Request {
        let pair = |(name, value): &(&str, &str)| ((*name).into(), (*value).into());
        let headers = headers.iter().map(pair).collect();
        Request { method: method.into(), headers, ..Request::default() }
    }

    #[test]
    fn each_host_is_known_by_its_answers() {
        let of_probe: Vec<_> = (0..13).map(Gateway::of_probe).collect();
        for (status, gateway) in of_probe.into_iter().enumerate() {
            let expected = match status {
                1 => Some(Gateway::Envoy),
                2 => Some(Gateway::Apisix),
                10 => Some(Gateway::Wasmx),
                _ => None,
            };
            assert_eq!(gateway, expected, "{status}");
        }
        assert_eq!(Gateway::of_request(false, false), Gateway::Envoy);
        assert_eq!(Gateway::of_request(true, false), Gateway::Wasmx);
        assert_eq!(Gateway::of_request(false, true), Gateway::Apisix);
    }

    #[test]
    fn wasmx_must_guess_whether_a_body_follows() {
        let http = |version: &'static str| move || Some(version.as_bytes().to_vec());
        for (method, headers, version, expected) in [
            ("GET", &[][..], "HTTP/1.1", AtHeaders::Capture),
            ("POST", &[], "HTTP/1.1", AtHeaders::Capture),
            ("POST", &[("content-length", "0")], "HTTP/1.1", AtHeaders::Capture),
            ("POST", &[("content-length", "00")], "HTTP/2.0", AtHeaders::Capture),
            ("POST", &[("content-length", "0, 0")], "HTTP/1.1", AtHeaders::Capture),
            ("GET", &[("content-length", "10")], "HTTP/1.1", AtHeaders::GoOn),
            ("POST", &[("transfer-encoding", "chunked")], "HTTP/1.1", AtHeaders::GoOn),
            ("POST", &[], "HTTP/2.0", AtHeaders::GoOn),
            ("PATCH", &[], "HTTP/3.0", AtHeaders::GoOn),
            ("DELETE", &[], "HTTP/2.0", AtHeaders::GoOn),
        ] {
            let request = request(method, headers);
            let done = Gateway::Wasmx.at_headers(false, true, &request, http(version));
            assert_eq!(done, expected, "{method} {headers:?} {version}");
        }
        let get = request("GET", &[]);
        assert_eq!(Gateway::Envoy.at_headers(true, false, &get, || None), AtHeaders::Capture);
        assert_eq!(Gateway::Envoy.at_headers(false, true, &get, || None), AtHeaders::Hold);
        assert_eq!(Gateway::Envoy.at_headers(false, false, &get, || None), AtHeaders::GoOn);
        assert_eq!(Gateway::Apisix.at_headers(true, true, &get, || None), AtHeaders::AskForBody);
    }

    #[test]
    fn a_target_that_a_host_cannot_reach_is_refused() {
        let check = |gateway: Gateway, target| gateway.check_target(target).is_ok();
        for good in ["127.0.0.1:9280", "[::1]:9280", "bridge.local:1", "unix:/run/b.sock"] {
            assert!(check(Gateway::Wasmx, good), "{good}");
        }
        for good in ["127.0.0.1:9280", "bridge.local:65535"] {
            assert!(check(Gateway::Apisix, good), "{good}");
        }
        for bad in
            ["bridge", "b:0", "b:65536", "b:+1", "a/b:80", ":80", "unix:", "unix:x", "b:80/x"]
        {
            assert!(!check(Gateway::Wasmx, bad), "{bad}");
            assert!(!check(Gateway::Apisix, bad), "{bad}");
        }
        assert!(!check(Gateway::Apisix, "bridge:80") && !check(Gateway::Apisix, "unix:/b"));
        assert!(check(Gateway::Wasmx, "bridge:80") && check(Gateway::Envoy, "host_bridge"));
    }
}
