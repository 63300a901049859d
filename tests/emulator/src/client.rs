//! What a client sends, and what it sees of it.

use crate::abi::{self, Pair};

/// A client's request.
#[derive(Debug, Clone)]
pub struct Request {
    /// Method.
    pub method: String,
    /// Target with its query string, as sent.
    pub target: String,
    /// Headers as sent, `host` among them.
    pub headers: Vec<Pair>,
    /// The body in the pieces that it arrives in.
    pub body: Vec<Vec<u8>>,
    /// Trailers.
    pub trailers: Vec<Pair>,
    /// Whether the request ends with the last piece; else the test goes on with it.
    pub ends: bool,
    /// Whether the end arrives by itself, after the last piece (as a chunked body's does).
    pub late_end: bool,
    /// HTTP version in tenths: 10, 11, 20.
    pub version: u32,
    /// A connection that requests share; none for one of its own.
    pub connection: Option<usize>,
}

impl Request {
    /// A request without a body.
    #[must_use]
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: abi::pairs(&[("host", "gateway.test")]),
            body: Vec::new(),
            trailers: Vec::new(),
            ends: true,
            late_end: false,
            version: 11,
            connection: None,
        }
    }

    /// A GET without a body.
    #[must_use]
    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// A POST of plain text with its `content-length`.
    #[must_use]
    pub fn post(body: impl Into<Vec<u8>>) -> Self {
        Self::new("POST", "/").header("content-type", "text/plain").body(body)
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.as_ref().to_vec(), value.as_ref().to_vec()));
        self
    }

    /// Removes the headers of a name.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name.as_bytes()));
        self
    }

    /// Gives it a body in one piece, announced by `content-length`.
    #[must_use]
    pub fn body(self, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        let mut request = self.without("content-length");
        request = request.header("content-length", body.len().to_string());
        request.body = if body.is_empty() { Vec::new() } else { vec![body] };
        request
    }

    /// Gives it a chunked body in pieces, whose end arrives by itself.
    #[must_use]
    pub fn chunked(self, pieces: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let mut request = self.without("content-length").header("transfer-encoding", "chunked");
        request.body = pieces.into_iter().collect();
        request.late_end = true;
        request
    }

    /// Cuts the body into pieces of at most `bytes`.
    #[must_use]
    pub fn in_pieces_of(mut self, bytes: usize) -> Self {
        let whole = self.body.concat();
        self.body = whole.chunks(bytes).map(<[u8]>::to_vec).collect();
        self
    }

    /// Ends the body with trailers.
    #[must_use]
    pub fn trailers(mut self, trailers: &[(&str, &str)]) -> Self {
        self.trailers = abi::pairs(trailers);
        self
    }

    /// As HTTP/1.0, which needs no Host.
    #[must_use]
    pub fn http_1_0(mut self) -> Self {
        self.version = 10;
        self.without("host")
    }

    /// As HTTP/2.
    #[must_use]
    pub fn http_2(mut self) -> Self {
        self.version = 20;
        self.without("transfer-encoding")
    }

    /// Sends it on a connection that stays open for more.
    #[must_use]
    pub fn on_connection(mut self, connection: usize) -> Self {
        self.connection = Some(connection);
        self
    }

    /// Stops after what it has: the test sends the rest, or hangs up.
    #[must_use]
    pub fn unfinished(mut self) -> Self {
        self.ends = false;
        self
    }
}

/// An HTTP reply.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reply {
    /// Status.
    pub status: u32,
    /// Headers in order.
    pub headers: Vec<Pair>,
    /// Body.
    pub body: Vec<u8>,
}

impl Reply {
    /// A reply of text.
    #[must_use]
    pub fn text(status: u32, body: &str) -> Self {
        let headers = abi::pairs(&[("content-type", "text/plain")]);
        Self { status, headers, body: body.as_bytes().to_vec() }
    }

    /// The first value of a header as text; empty when it is absent.
    #[must_use]
    pub fn header(&self, name: &str) -> String {
        let value = abi::header(&self.headers, name).unwrap_or_default();
        String::from_utf8_lossy(value).into_owned()
    }

    /// The body as text.
    #[must_use]
    pub fn body_text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// What a client has seen of its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Nothing yet.
    Pending,
    /// The filter's own reply.
    Answered(Reply),
    /// The request went on to the upstream, which answered.
    Upstream(Reply),
    /// The host's own error.
    Host(Reply),
    /// The connection closed: the client left, or the worker died.
    Closed,
}

impl Seen {
    /// The status that the client got, whoever gave it; 0 without a reply.
    #[must_use]
    pub fn status(&self) -> u32 {
        self.reply().map_or(0, |reply| reply.status)
    }

    /// The reply that the client got, whoever gave it.
    pub(crate) fn reply(&self) -> Option<&Reply> {
        match self {
            Self::Answered(reply) | Self::Upstream(reply) | Self::Host(reply) => Some(reply),
            Self::Pending | Self::Closed => None,
        }
    }

    /// The filter's own reply.
    ///
    /// # Panics
    /// When something else happened.
    #[must_use]
    pub fn answered(&self) -> &Reply {
        match self {
            Self::Answered(reply) => reply,
            other => panic!("the filter did not answer: {other:?}"),
        }
    }
}
