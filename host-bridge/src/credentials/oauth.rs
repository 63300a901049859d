//! OAuth 2's grant of client credentials (RFC 6749, section 4.4; KIP-768).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use hyper::{Request, StatusCode};
use kafka_client::{Credential, CredentialSource, Lease, OAuthClient, Obtaining, Secret};
use serde::Deserialize;

use super::token::Endpoint;
use super::{LIMITS, quotable};
use crate::http_client::HttpClient;

/// The endpoint that gives this client its tokens.
#[derive(Debug)]
pub(crate) struct TokenEndpoint {
    client: OAuthClient,
    http: HttpClient,
}

/// What an endpoint answers; unknown fields are its own business.
#[derive(Default, Deserialize)]
struct Answer {
    access_token: Option<String>,
    expires_in: Option<serde_json::Value>,
    error: Option<String>,
    error_description: Option<String>,
}

#[derive(Deserialize)]
struct Claims {
    exp: Option<f64>,
}

impl TokenEndpoint {
    pub(crate) fn new(client: OAuthClient) -> Self {
        let http = HttpClient::new(client.trust.clone(), LIMITS);
        Self { client, http }
    }

    async fn leased(&self) -> Result<Lease, String> {
        let source = self.client.secret.clone();
        let secret = tokio::task::spawn_blocking(move || source.read()).await;
        let secret = secret.map_err(|error| error.to_string())?;
        let secret = secret.map_err(|error| format!("the client's secret: {error}"))?;
        // Id and secret go as they are, as Kafka's own client sends them.
        let who = BASE64_STANDARD.encode(format!("{}:{}", self.client.id, secret.expose()));
        let request = self.request(&who)?;
        let asked = self.http.ask(&self.client.endpoint, request).await;
        let answer = asked.map_err(|error| error.to_string())?;
        read(answer.status(), answer.body(), SystemTime::now(), &[secret, Secret::new(who)])
    }

    fn request(&self, who: &str) -> Result<Request<Full<Bytes>>, String> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if let Some(scope) = &self.client.scope {
            form.append_pair("scope", scope);
        }
        let form = Full::new(Bytes::from(form.finish()));
        Request::post("/")
            .header(AUTHORIZATION, format!("Basic {who}"))
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json")
            .body(form)
            .map_err(|error| error.to_string())
    }
}

impl Endpoint for TokenEndpoint {
    async fn ask(&self) -> Result<Lease, String> {
        self.leased().await
    }
}

impl CredentialSource for TokenEndpoint {
    fn obtain(&self) -> Obtaining<'_> {
        Box::pin(async {
            let asked = self.leased().await;
            let told = |what| {
                // An argument may be a secret.
                let endpoint = self.client.endpoint.split('?').next().unwrap_or_default();
                format!("the token endpoint {endpoint} ({PROPERTY}): {what}").into()
            };
            asked.map_err(told)
        })
    }
}

/// `told` is what the endpoint was told and may say again.
pub(crate) fn read(
    status: StatusCode,
    body: &[u8],
    now: SystemTime,
    told: &[Secret],
) -> Result<Lease, String> {
    let answer: Option<Answer> = serde_json::from_slice(body).ok();
    if status.is_redirection() {
        return Err(format!("it answered {status}, and no redirect is followed"));
    }
    if status != StatusCode::OK {
        let answer = answer.unwrap_or_default();
        let why: Vec<_> = [answer.error, answer.error_description].into_iter().flatten().collect();
        let said = format!("it answered {status} {}", why.join(": "));
        return Err(quotable(&told.iter().fold(said, |said, told| told.hidden_in(&said))));
    }
    let answer = answer.ok_or("its answer is no JSON object")?;
    let token = answer.access_token.ok_or("its answer has no access_token")?;
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("its access_token has characters that no token has".to_owned());
    }
    let lifetime = lifetime(&token, answer.expires_in.as_ref(), now);
    if lifetime.is_zero() {
        return Err("its token has expired; are the clocks right?".to_owned());
    }
    let credential = Credential::Token(Secret::new(token));
    Ok(Lease { credential, lifetime: Some(lifetime) })
}

/// The shorter of what the answer and the token itself say; a token that nobody says anything of is
/// asked for again soon.
fn lifetime(token: &str, expires_in: Option<&serde_json::Value>, now: SystemTime) -> Duration {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let told = expires_in.and_then(|told| {
        told.as_f64().or_else(|| told.as_str().and_then(|text| text.parse().ok()))
    });
    let claimed = claims(token).and_then(|claims| claims.exp).map(|exp| exp - now);
    // `NaN` is a number to the parser, and no time.
    let times = [told, claimed].into_iter().flatten().filter(|seconds: &f64| !seconds.is_nan());
    let shortest = times.min_by(f64::total_cmp);
    shortest.map_or(UNTOLD, |seconds| Duration::from_secs_f64(seconds.clamp(0.0, LONGEST)))
}

/// Of a JWT; its signature is for the broker to check.
fn claims(token: &str) -> Option<Claims> {
    let claims = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&claims).ok()
}

/// Where the endpoint's address comes from.
const PROPERTY: &str = "sasl.oauthbearer.token.endpoint.url";
/// For how long a token is kept of which nobody says how long it is good.
const UNTOLD: Duration = Duration::from_secs(300);
/// Longest lifetime that is believed, in s: a year.
const LONGEST: f64 = 365.0 * 86_400.0;

#[cfg(test)]
mod tests;
