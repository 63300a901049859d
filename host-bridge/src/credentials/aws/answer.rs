//! What AWS's services answer: keys, or why there are none, such as a wrong clock.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::DATE;
use hyper::{Request, Response};
use kafka_client::{AwsKeys, ClockSkew, Secret, aws_time};
use serde::Deserialize;

use super::{FILE_AGE, Found};
use crate::credentials::quotable;
use crate::http_client::HttpClient;

/// Keys as all of them write them.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Keys {
    access_key_id: String,
    secret_access_key: String,
    token: Option<String>,
    session_token: Option<String>,
    expiration: Option<Expiration>,
}

/// ISO 8601 in the services of hosts, seconds since 1970 in the JSON of STS.
#[derive(Deserialize)]
#[serde(untagged)]
enum Expiration {
    Text(String),
    Seconds(f64),
}

/// What STS says of a refusal.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Refusal {
    error: Fault,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Fault {
    code: String,
    message: String,
}

/// The body of a success. What follows a `?` in `url` is not told.
pub(super) async fn ask(
    http: &HttpClient,
    url: &str,
    request: Result<Request<Full<Bytes>>, hyper::http::Error>,
) -> Result<Bytes, String> {
    let shown = url.split('?').next().unwrap_or_default().trim_end_matches('/');
    let request = request.map_err(|error| format!("{shown}: {error}"))?;
    let asked = http.ask(url, request).await;
    let answer = asked.map_err(|error| format!("{shown}: {error}"))?;
    let date = answer.headers().get(DATE).and_then(|date| date.to_str().ok());
    let date = date.and_then(|date| httpdate::parse_http_date(date).ok());
    let skew = date.and_then(|date| ClockSkew::between(SystemTime::now(), date));
    if !answer.status().is_success() {
        return Err(format!("{shown} answered {}", refusal(&answer, skew)));
    }
    if let Some(skew) = skew {
        tracing::warn!(url = shown, %skew, "clock_skew");
    }
    Ok(answer.into_body())
}

fn refusal(answer: &Response<Bytes>, skew: Option<ClockSkew>) -> String {
    let status = answer.status();
    let told = serde_json::from_slice::<Refusal>(answer.body()).unwrap_or_default();
    let Fault { code, message } = told.error;
    let skew = skew.or(ClockSkew::in_refusal(&message)).or(ClockSkew::in_refusal(&code));
    let (code, message) = (quotable(&code), quotable(&message));
    match skew {
        Some(skew) => format!("{status} {code}: {skew}"),
        // The message would quote what was signed, with the session token.
        None if code == "SignatureDoesNotMatch" => {
            format!("{status} {code}: check the secret access key")
        }
        None if code.is_empty() => status.to_string(),
        None => format!("{status} {code}: {message}"),
    }
}

/// What is wrong is not told: it could quote a key.
pub(super) fn parse<T: for<'de> Deserialize<'de>>(url: &str, body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|_| format!("{url}: its answer has no keys"))
}

pub(super) fn found(keys: Keys) -> Found {
    let end = match keys.expiration {
        Some(Expiration::Seconds(seconds)) => Duration::try_from_secs_f64(seconds)
            .ok()
            .and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since)),
        Some(Expiration::Text(text)) => aws_time(&text),
        None => None,
    };
    let left =
        end.map_or(FILE_AGE, |end| end.duration_since(SystemTime::now()).unwrap_or_default());
    let keys = AwsKeys {
        id: keys.access_key_id,
        secret: Secret::new(keys.secret_access_key),
        session_token: keys.token.or(keys.session_token).map(Secret::new),
    };
    Found { keys, lifetime: Some(left.clamp(LEAST, MOST)) }
}

/// Keys that have expired, or seem to, are good for one attempt: the clock may be wrong.
const LEAST: Duration = Duration::from_secs(1);
/// Longest lifetime that is believed; a role's keys live at most half of it.
const MOST: Duration = Duration::from_secs(86_400);
