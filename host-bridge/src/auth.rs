//! Who may use the bridge: callers that have one of its bearer tokens.

use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, Response, StatusCode, header};
use kafka_upstream_core::profile;

use crate::reply;
use crate::watched::{self, Watched};

/// SHA-256 of each token: comparing these takes no longer for a guess that is nearly right.
pub(crate) type Tokens = Arc<Watched<Vec<[u8; 32]>>>;

/// Reads a file with a token on each line.
///
/// # Errors
/// When it cannot be read, or has no token.
pub(crate) fn load(path: PathBuf) -> Result<Tokens, String> {
    Watched::new(vec![path.clone()], move || {
        let text = watched::read(&path)?;
        let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let tokens: Vec<_> = lines.filter(|line| !line.is_empty()).map(profile::id).collect();
        match tokens.is_empty() {
            true => Err(format!("{}: there is no token in it", path.display())),
            false => Ok(tokens),
        }
    })
}

/// What a request may do. An authorized one carries it as an extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// It has a token, or none is configured.
    Authorized,
    /// It has none and asks what everybody may: a probe of an orchestrator, or what a gateway let
    /// through.
    Open,
}

/// None where a token is required and missing.
pub(crate) fn check<B>(tokens: Option<&Tokens>, request: &Request<B>) -> Option<Access> {
    let Some(tokens) = tokens else { return Some(Access::Authorized) };
    let given = request.headers().get(header::AUTHORIZATION);
    let given = given.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    if given.is_some_and(|token| tokens.get().contains(&profile::id(token))) {
        return Some(Access::Authorized);
    }
    let path = request.uri().path();
    (OPEN.contains(&path) || is_bypassed(path)).then_some(Access::Open)
}

/// Whether a path is that of requests which slipped past a filter.
pub(crate) fn is_bypassed(path: &str) -> bool {
    path.starts_with("/v1/bypassed")
}

/// The reply where a token is missing.
pub(crate) fn refusal() -> Response<Body> {
    let error = "a bearer token of the bridge's token_file is required (bridge_token)";
    let mut response = reply::refusal(StatusCode::UNAUTHORIZED, "unauthorized", error);
    let scheme = header::HeaderValue::from_static("Bearer");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
    response
}

/// Routes of probes.
const OPEN: [&str; 2] = ["/healthz", "/readyz"];
