//! Who may use the bridge: callers that have one of its bearer tokens.

use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response, StatusCode, header};
use axum::middleware::Next;
use kafka_upstream_core::profile;

use crate::Bridge;
use crate::reply::refusal;
use crate::routes;
use crate::watched::{self, Watched};

/// SHA-256 of each token: comparing these takes no longer for a guess that is nearly right.
pub(crate) type Tokens = Watched<Vec<[u8; 32]>>;

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

/// Refuses a request without a token, where tokens are configured. Probes of an orchestrator, and
/// requests that a gateway let through, have none.
pub(crate) async fn check(
    State(bridge): State<Arc<Bridge>>,
    request: Request<Body>,
    next: Next,
) -> Response<Body> {
    let Some(tokens) = &bridge.tokens else { return next.run(request).await };
    let given = request.headers().get(header::AUTHORIZATION);
    let given = given.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let known = given.is_some_and(|token| tokens.get().contains(&profile::id(token)));
    let path = request.uri().path();
    if known || OPEN.contains(&path) || routes::is_bypassed(path) {
        return next.run(request).await;
    }
    let error = "a bearer token of the bridge's token_file is required (bridge_token)";
    let mut response = refusal(StatusCode::UNAUTHORIZED, "unauthorized", error);
    let scheme = header::HeaderValue::from_static("Bearer");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
    response
}

/// Routes of probes.
const OPEN: [&str; 2] = ["/healthz", "/readyz"];
