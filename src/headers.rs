//! Reads a request's headers, in the way that each gateway has.

use kafka_upstream_core::config::Settings;
use kafka_upstream_core::gateway::Gateway;
use kafka_upstream_core::outcome::Code;
use kafka_upstream_core::reply::Reply;
use kafka_upstream_core::request::Request;

use crate::host::{self, Map};
use crate::metrics::{Counter, Metrics};

/// A request without its body.
pub(crate) struct RequestHead {
    pub(crate) request: Request,
    /// A read of the whole header map would crash the host: the reply where all headers are needed.
    by_name_only: Option<Reply>,
}

impl RequestHead {
    /// Reads what the rules of `match` look at.
    ///
    /// # Errors
    /// The reply when the gateway does not pass the headers to the filter.
    pub(crate) fn read(
        gateway: Gateway,
        num_headers: usize,
        metrics: &Metrics,
    ) -> Result<Self, Reply> {
        let by_name_only = by_name_only(gateway, num_headers);
        let pairs = match by_name_only {
            Some(_) => read_names(&[":method", ":path", ":scheme", "host"]),
            None => host::headers(Map::Request).ok_or_else(|| {
                let error = "the gateway does not pass the headers to the filter";
                Reply::refused(Code::HostMismatch, error)
            })?,
        };
        let truncated = gateway.headers_max().is_some_and(|most| pairs.len() >= most);
        let mut request = Request::from_host(pairs);
        if truncated {
            metrics.count(Counter::HeadersTruncated);
            let missing = |name: &&&str| request.header(name.as_bytes()).is_none();
            let missing: Vec<_> = DECIDING.iter().filter(missing).copied().collect();
            request.headers.extend(read_names(&missing));
        }
        if gateway == Gateway::Wasmx {
            // `:path` is decoded there.
            let raw = host::property(b"request\0path");
            request.target = raw.unwrap_or(std::mem::take(&mut request.target));
        }
        Ok(Self { request, by_name_only })
    }

    /// Reads what else these settings need.
    ///
    /// # Errors
    /// 400 when they need headers that cannot be read.
    pub(crate) fn complete(
        mut self,
        gateway: Gateway,
        settings: &Settings,
    ) -> Result<Request, Reply> {
        if let Some(reply) = self.by_name_only {
            let names = settings.header_names().ok_or(reply)?;
            self.request.headers.extend(read_names(&names));
        }
        if settings.expressions.use_source() {
            self.request.source_address = source_address(gateway);
        }
        Ok(self.request)
    }
}

fn by_name_only(gateway: Gateway, num_headers: usize) -> Option<Reply> {
    if !gateway.reads_map_of(num_headers) {
        let error = "more headers than the gateway passes to the filter";
        return Some(Reply::refused(Code::TooManyHeaders, error));
    }
    if gateway.needs_host_header() && host::header(Map::Request, "host").is_none() {
        let error = "a request without a Host header cannot be captured on APISIX";
        return Some(Reply::refused(Code::BadRequest, error));
    }
    None
}

fn read_names(names: &[&str]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let read = |name: &&str| Some((name.as_bytes().to_vec(), host::header(Map::Request, name)?));
    names.iter().filter_map(read).collect()
}

/// Address and port of the client, empty when the host has none.
fn source_address(gateway: Gateway) -> Vec<u8> {
    let (address, port): (&[u8], &[u8]) = match gateway {
        Gateway::Envoy => return host::property(b"source\0address").unwrap_or_default(),
        Gateway::Wasmx => (b"ngx\0remote_addr", b"ngx\0remote_port"),
        Gateway::Apisix => (b"remote_addr", b"remote_port"),
    };
    let (address, port) = (host::property(address), host::property(port).unwrap_or_default());
    address.map(|address| [&address[..], b":", &port].concat()).unwrap_or_default()
}

/// The headers by which the filter decides something.
const DECIDING: [&str; 4] = ["content-length", "content-type", "host", "transfer-encoding"];
