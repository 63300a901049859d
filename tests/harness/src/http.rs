//! One HTTP request at a time, over HTTP/1.1 or HTTP/2, with the body in the pieces asked for.

mod body;
mod connect;

use std::time::Duration;

use anyhow::{Context, anyhow};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::{Uri, Version};

use body::Pieces;
pub use connect::Address;
use connect::exchange;

/// Longest time for a request and its whole reply, unless a request says otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A request, built up from [`Request::get`] or [`Request::post`].
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    target: String,
    headers: Vec<(String, Vec<u8>)>,
    pieces: Vec<Bytes>,
    pause: Duration,
    trailers: Vec<(String, String)>,
    version: Version,
    timeout: Duration,
}

/// A whole reply.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// All headers in order, names in lower case, values as text.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// A reply whose body is still to come; dropping it closes the connection.
#[derive(Debug)]
pub struct Opened {
    /// The status code.
    pub status: u16,
    body: Incoming,
}

impl Request {
    /// A GET of a path with its query.
    #[must_use]
    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// A POST with a body whose length is announced.
    #[must_use]
    pub fn post(target: &str, body: impl Into<Bytes>) -> Self {
        let mut request = Self::new("POST", target);
        request.pieces = vec![body.into()];
        request
    }

    /// A request of any method, without a body.
    #[must_use]
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            pieces: Vec::new(),
            pause: Duration::ZERO,
            trailers: Vec::new(),
            version: Version::HTTP_11,
            timeout: TIMEOUT,
        }
    }

    /// Sets the method.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        method.clone_into(&mut self.method);
        self
    }

    /// Adds a header; one that is there already is sent twice. `host` replaces the built-in one.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// Sends the body in pieces with a pause after each: chunked on HTTP/1.1, DATA frames on
    /// HTTP/2, with a length only if a `content-length` header is added.
    #[must_use]
    pub fn pieces(mut self, pieces: Vec<Bytes>, pause: Duration) -> Self {
        // An empty last piece tells a body of one piece from one whose length is announced.
        self.pieces = pieces;
        self.pieces.push(Bytes::new());
        self.pause = pause;
        self
    }

    /// Adds a trailer, which makes the body one in pieces.
    #[must_use]
    pub fn trailer(mut self, name: &str, value: &str) -> Self {
        self.trailers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Speaks HTTP/2 without TLS (prior knowledge) instead of HTTP/1.1.
    #[must_use]
    pub fn http2(mut self) -> Self {
        self.version = Version::HTTP_2;
        self
    }

    /// Sets the longest time for the request and its whole reply; 30 seconds otherwise.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sends it on a new connection and reads the whole reply.
    ///
    /// # Errors
    /// When nothing listens, the connection breaks, or the time is over.
    pub async fn send(self, to: impl Into<Address>) -> anyhow::Result<Response> {
        let address = to.into();
        let what = format!("{} {} at {address}", self.method, self.target);
        let (timeout, version) = (self.timeout, self.version);
        let work = async {
            let reply = exchange(&address, version, self.into_hyper(&address)?).await?;
            let (head, body) = reply.into_parts();
            let body = body.collect().await?.to_bytes().to_vec();
            Ok(Response { status: head.status.as_u16(), headers: texts(&head.headers), body })
        };
        let reply: anyhow::Result<Response> = tokio::time::timeout(timeout, work)
            .await
            .unwrap_or_else(|_| Err(anyhow!("no whole reply in {timeout:?}")));
        reply.with_context(|| what)
    }

    /// Sends it on a new connection and reads the head of the reply alone.
    ///
    /// # Errors
    /// As [`Request::send`].
    pub async fn open(self, to: impl Into<Address>) -> anyhow::Result<Opened> {
        let address = to.into();
        let what = format!("{} {} at {address}", self.method, self.target);
        let (timeout, version) = (self.timeout, self.version);
        let work = async {
            let reply = exchange(&address, version, self.into_hyper(&address)?).await?;
            let (head, body) = reply.into_parts();
            Ok(Opened { status: head.status.as_u16(), body })
        };
        let opened: anyhow::Result<Opened> = tokio::time::timeout(timeout, work)
            .await
            .unwrap_or_else(|_| Err(anyhow!("no reply in {timeout:?}")));
        opened.with_context(|| what)
    }

    fn into_hyper(self, address: &Address) -> anyhow::Result<hyper::Request<Pieces>> {
        let uri: Uri = match self.version {
            Version::HTTP_2 => format!("http://{}{}", address.authority(), self.target).parse()?,
            _ => self.target.parse()?,
        };
        let mut request =
            hyper::Request::new(Pieces::new(self.pieces, self.pause, header_map(&self.trailers)?));
        *request.method_mut() = self.method.parse()?;
        *request.uri_mut() = uri;
        *request.version_mut() = self.version;
        let headers = request.headers_mut();
        for (name, value) in &self.headers {
            headers.append(HeaderName::try_from(name)?, HeaderValue::from_bytes(value)?);
        }
        if self.version != Version::HTTP_2 && !headers.contains_key(HOST) {
            headers.insert(HOST, address.authority().parse()?);
        }
        Ok(request)
    }
}

impl Opened {
    /// What comes next of the body; none at its end.
    ///
    /// # Errors
    /// When the connection breaks before that.
    pub async fn chunk(&mut self) -> anyhow::Result<Option<Bytes>> {
        while let Some(frame) = self.body.frame().await {
            if let Ok(data) = frame?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

impl Response {
    /// The first header of a name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(found, _)| found == name)?;
        Some(value)
    }

    /// The body as text; what is not UTF-8 is replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is not JSON; the error shows the status and the body.
    pub fn json(&self) -> anyhow::Result<serde_json::Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("{}: not JSON: {:?}", self.status, self.text()))
    }
}

fn header_map(pairs: &[(String, String)]) -> anyhow::Result<HeaderMap> {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
    }
    Ok(map)
}

fn texts(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}
