//! One question by HTTP to whoever gives credentials: bounded in time and size, and no redirect is
//! followed, because it would carry a secret elsewhere.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Body;
use hyper::header::{DATE, HOST, HeaderValue};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use kafka_client::{Cause, HttpsTrust};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, join, split};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};

/// Which step of a question failed. No text holds what was sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    #[error("`{0}` is no address")]
    Address(String),
    #[error("name: {0}")]
    Name(std::io::Error),
    #[error("no connection: {0}")]
    Connect(std::io::Error),
    #[error("TLS: {0}")]
    Tls(Cause),
    #[error("HTTP: {0}")]
    Http(String),
    #[error("{0}: no answer within {ms} ms", ms = PATIENCE.as_millis())]
    Silent(&'static str),
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// The server's clock, if it tells.
    pub(super) date: Option<SystemTime>,
    pub(super) body: Bytes,
}

/// Sends a request to `url`, whose host and path it gets.
pub(super) async fn ask(
    url: &str,
    mut request: Request<Full<Bytes>>,
    trust: &HttpsTrust,
) -> Result<Answer, HttpError> {
    let end = Instant::now() + PATIENCE;
    // What follows may be signed, and hold a secret.
    let shown = url.split('?').next().unwrap_or_default();
    let wrong = || HttpError::Address(shown.to_owned());
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let (host, is_https) = (uri.host().ok_or_else(wrong)?, uri.scheme_str() == Some("https"));
    let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
    let authority = uri.authority().map_or(host, |authority| authority.as_str());
    let authority = HeaderValue::from_str(authority).map_err(|_| wrong())?;
    request.headers_mut().insert(HOST, authority);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse().map_err(|_| wrong())?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let addresses = within(end, "name", lookup_host((host, port))).await?;
    let addresses: Vec<_> = addresses.map_err(HttpError::Name)?.collect();
    let stream = within(end, "no connection", TcpStream::connect(&*addresses)).await?;
    let stream = stream.map_err(HttpError::Connect)?;
    if !is_https {
        return within(end, "HTTP", exchange(stream, request)).await?;
    }
    let stream = within(end, "TLS", trust.connect(stream, host)).await?.map_err(HttpError::Tls)?;
    within(end, "HTTP", exchange(stream, request)).await?
}

async fn within<T>(
    end: Instant,
    step: &'static str,
    work: impl Future<Output = T>,
) -> Result<T, HttpError> {
    timeout_at(end, work).await.map_err(|_| HttpError::Silent(step))
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |error: hyper::Error| HttpError::Http(error.to_string());
    let (reader, writer) = split(stream);
    let stream = join(reader.take(HEARD_BYTES), writer);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let work = async {
        let (head, body) = sender.send_request(request).await.map_err(failed)?.into_parts();
        if body.size_hint().lower() > ANSWER_BYTES as u64 {
            return Err(HttpError::Http(format!("an answer of more than {ANSWER_BYTES} bytes")));
        }
        let whole = Limited::new(body, ANSWER_BYTES).collect().await;
        let whole = whole.map_err(|error| HttpError::Http(error.to_string()))?;
        let date = head.headers.get(DATE).and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| httpdate::parse_http_date(date).ok());
        Ok(Answer { status: head.status, date, body: whole.to_bytes() })
    };
    tokio::pin!(work);
    tokio::select! {
        answer = &mut work => answer,
        // The peer is done with the connection; what it said may still be unread.
        ended = connection => match (work.await, ended) {
            // Who speaks first cancels the request; why, the connection alone knows.
            (Err(_), Err(error)) => Err(failed(error)),
            (answer, _) => answer,
        },
    }
}

/// How long connection, TLS and answer may take together.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest answer; a token with many claims has a few KiB.
const ANSWER_BYTES: usize = 64 * 1024;
/// All that is read of a peer, bytes: the largest answer with each byte in a chunk of its own, and
/// its head. Without it, `100 Continue` after `100 Continue` would keep a thread busy.
const HEARD_BYTES: u64 = 1024 * 1024;
