//! Who may use the bridge: callers that have one of its bearer tokens.

use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use kafka_upstream_core::profile;
use serde_json::json;

use crate::consume::refusal::GATEWAY_UNAUTHENTICATED;
use crate::reply;
use crate::watched::{self, Watched};

/// SHA-256 of each token: comparing these takes no longer for a guess that is nearly right.
pub(crate) type Tokens = Arc<Watched<Vec<[u8; 32]>>>;

/// Accepted tokens, and in which header callers have theirs.
#[derive(Clone)]
pub(crate) enum Proof {
    /// Everybody is authorized who reaches the bridge.
    None,
    /// `Authorization: Bearer`, or the header of gateways.
    Bearer(Tokens),
    /// A header of gateways: what stands in `Authorization` there is their clients'.
    Gateway(Tokens),
}

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
pub(crate) fn check<B>(proof: &Proof, request: &Request<B>) -> Option<Access> {
    let value = |name| request.headers().get(name).map(HeaderValue::as_bytes);
    let (tokens, given) = match proof {
        Proof::None => return Some(Access::Authorized),
        Proof::Bearer(tokens) => {
            let bearer = || value(header::AUTHORIZATION)?.strip_prefix(b"Bearer ");
            (tokens, value(GATEWAY_TOKEN).or_else(bearer))
        }
        Proof::Gateway(tokens) => (tokens, value(GATEWAY_TOKEN)),
    };
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
pub(crate) fn refusal<B>(proof: &Proof, request: &Request<B>) -> Response<Body> {
    if let Proof::Gateway(_) = proof {
        let wrong = match request.headers().contains_key(GATEWAY_TOKEN) {
            true => "matches no line of gateway_token_file",
            false => "is missing",
        };
        let message = format!("the header {GATEWAY_TOKEN} {wrong}");
        let body = json!({ "message": message, "error": GATEWAY_UNAUTHENTICATED });
        return reply::json(StatusCode::UNAUTHORIZED, &body);
    }
    let error = "a token of the bridge's token_file is required: bridge_token of a filter, elsewhere \
                 kafka-upstream-gateway-token or Authorization: Bearer";
    let mut response = reply::refusal(StatusCode::UNAUTHORIZED, "unauthorized", error);
    let scheme = HeaderValue::from_static("Bearer");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
    response
}

/// The header of a gateway's token.
pub(crate) const GATEWAY_TOKEN: HeaderName =
    HeaderName::from_static("kafka-upstream-gateway-token");
/// Routes of probes.
const OPEN: [&str; 2] = ["/healthz", "/readyz"];

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn a_gateway_is_told_what_is_wrong_with_its_token() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "secret\n").unwrap();
        let proof = Proof::Gateway(load(file.path().to_owned()).unwrap());
        let request = |token: Option<&str>| {
            let token = token.map(|token| (GATEWAY_TOKEN, token));
            let builder = Request::get("/v1/feeds/orders");
            token.into_iter().fold(builder, |it, (name, value)| it.header(name, value)).body(())
        };
        assert_eq!(check(&proof, &request(Some("secret")).unwrap()), Some(Access::Authorized));
        for (token, wrong) in
            [(None, "is missing"), (Some("guess"), "matches no line of gateway_token_file")]
        {
            let request = request(token).unwrap();
            assert_eq!(check(&proof, &request), None);
            let refused = refusal(&proof, &request);
            assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
            let body = refused.into_body().collect().await.unwrap().to_bytes();
            let told = format!("the header kafka-upstream-gateway-token {wrong}");
            assert!(String::from_utf8_lossy(&body).contains(&told), "{body:?}");
        }
    }
}
