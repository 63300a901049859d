//! Token endpoints that answer, refuse, redirect and swell.

use kafka_client::{HttpsTrust, SecretSource};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// Serves one connection: gives what was asked, and says `answer`.
async fn endpoint(answer: String) -> (String, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/token?x=1", listener.local_addr().unwrap());
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut heard = Vec::new();
        while !heard.ends_with(b"scope=a+b%26c") {
            assert!(stream.read_buf(&mut heard).await.unwrap() > 0);
        }
        // Who reads no further than it may closes first.
        let _closed = stream.write_all(answer.as_bytes()).await;
        String::from_utf8(heard).unwrap()
    });
    (url, served)
}

fn client(endpoint: &str) -> TokenEndpoint {
    TokenEndpoint::new(OAuthClient {
        endpoint: endpoint.into(),
        id: "me".into(),
        secret: SecretSource::Given(Secret::new("hunter2")),
        scope: Some("a b&c".into()),
        trust: HttpsTrust::System,
    })
}

fn http(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

async fn obtain(answer: String) -> Result<Lease, String> {
    let (url, _served) = endpoint(answer).await;
    let shown = url.split('?').next().unwrap().to_owned();
    client(&url).obtain().await.map_err(|cause| cause.replace(&shown, "URL"))
}

#[tokio::test]
async fn a_token_is_asked_for_as_rfc_6749_says() {
    let answer = http("200 OK", r#"{"access_token":"abc","token_type":"Bearer","expires_in":60}"#);
    let (url, served) = endpoint(answer).await;
    let lease = client(&url).obtain().await.unwrap();
    let token = Credential::Token(Secret::new("abc"));
    assert_eq!(lease, Lease { credential: token, lifetime: Some(Duration::from_secs(60)) });
    let heard = served.await.unwrap();
    assert!(heard.starts_with("POST /token?x=1 HTTP/1.1\r\n"), "{heard}");
    assert!(heard.contains("authorization: Basic bWU6aHVudGVyMg==\r\n"), "{heard}");
    assert!(heard.ends_with("\r\n\r\ngrant_type=client_credentials&scope=a+b%26c"), "{heard}");
}

#[tokio::test]
async fn what_an_endpoint_says_instead_of_a_token_is_told() {
    let huge = format!(r#"{{"access_token":"{}"}}"#, "x".repeat(64 * 1024));
    let endless = "HTTP/1.1 200 OK\r\n\r\n".to_owned() + &"x".repeat(100_000);
    for (answer, error) in [
        (
            http("401 Unauthorized", r#"{"error":"invalid_client","error_description":"who?"}"#),
            "it answered 401 Unauthorized invalid_client: who?",
        ),
        (http("500 Oops", "<html>"), "it answered 500 Internal Server Error"),
        (
            http("400 No", r#"{"error":"hunter2","error_description":"Basic bWU6aHVudGVyMg=="}"#),
            "it answered 400 Bad Request (secret): Basic (secret)",
        ),
        (
            http("302 Found\r\nlocation: http://evil/", ""),
            "it answered 302 Found, and no redirect is followed",
        ),
        (http("200 OK", "[]"), "its answer is no JSON object"),
        (http("200 OK", "{}"), "its answer has no access_token"),
        (
            http("200 OK", r#"{"access_token":"a\u0001b"}"#),
            "its access_token has characters that no token has",
        ),
        (
            http("200 OK", r#"{"access_token":"a","expires_in":-5}"#),
            "its token has expired; are the clocks right?",
        ),
        (http("200 OK", &huge), "HTTP: an answer of more than 65536 bytes"),
        (endless, "HTTP: an answer of more than 65536 bytes"),
    ] {
        let told = obtain(answer).await.unwrap_err();
        assert_eq!(told, format!("the token endpoint URL ({PROPERTY}): {error}"));
    }
    let nobody = client("http://127.0.0.1:1/").obtain().await.unwrap_err();
    assert!(nobody.contains("no connection: Connection refused"), "{nobody}");
    assert!(!format!("{:?}", client("http://h/")).contains("hunter2"));
}

#[test]
fn the_lifetime_is_the_tokens_own_or_what_the_answer_says() {
    let now = UNIX_EPOCH + Duration::from_secs(1000);
    let jwt = |claims: &str| format!("e30.{}.sig", BASE64_URL_SAFE_NO_PAD.encode(claims));
    let told = |value: &str| serde_json::from_str::<serde_json::Value>(value).unwrap();
    let seconds = Duration::from_secs;
    for (token, expires_in, expected) in [
        ("opaque".to_owned(), Some("60"), seconds(60)),
        ("opaque".to_owned(), Some("\"60\""), seconds(60)),
        ("opaque".to_owned(), None, UNTOLD),
        ("a.?.c".to_owned(), None, UNTOLD),
        (jwt(r#"{"exp":1300}"#), None, seconds(300)),
        (jwt(r#"{"exp":1300}"#), Some("60"), seconds(60)),
        (jwt(r#"{"exp":1030}"#), Some("60"), seconds(30)),
        (jwt(r#"{"exp":900}"#), Some("60"), Duration::ZERO),
        (jwt(r#"{"exp":1e300}"#), None, Duration::from_secs_f64(LONGEST)),
        (jwt(r#"{"sub":"me"}"#), Some("null"), UNTOLD),
        ("opaque".to_owned(), Some("\"NaN\""), UNTOLD),
        ("opaque".to_owned(), Some("\"inf\""), Duration::from_secs_f64(LONGEST)),
        ("opaque".to_owned(), Some("\"abc\""), UNTOLD),
        ("opaque".to_owned(), Some("1e300"), Duration::from_secs_f64(LONGEST)),
        ("opaque".to_owned(), Some("-1"), Duration::ZERO),
    ] {
        let expires_in = expires_in.map(told);
        assert_eq!(lifetime(&token, expires_in.as_ref(), now), expected, "{token} {expires_in:?}");
    }
}

#[tokio::test]
async fn the_arguments_of_an_endpoints_address_are_not_told() {
    let error = client("http://127.0.0.1:1/token?key=hunter2").obtain().await.unwrap_err();
    assert!(error.starts_with("the token endpoint http://127.0.0.1:1/token (sasl."), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}
