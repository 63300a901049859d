//! Each place where AWS has credentials, played by a server of a few lines.

use std::io::Write as _;

use axum::Router;
use axum::extract::Request as Asked;
use axum::http::StatusCode;

use super::*;

fn keys(lease: Lease) -> (String, String, Option<String>, Option<Duration>) {
    let Credential::Aws(keys) = lease.credential else { panic!("no keys") };
    let token = keys.session_token.map(|token| token.expose().to_owned());
    (keys.id, keys.secret.expose().to_owned(), token, lease.lifetime)
}

/// Serves `answer(method, path, authorization, body)`.
async fn server(answer: fn(String) -> Result<String, StatusCode>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let told = move |asked: Asked| async move {
        let (head, body) = asked.into_parts();
        let header = |name: &str| {
            let value = head.headers.get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let (session, own) = (header("x-aws-ec2-metadata-token"), header("authorization"));
        let line = format!("{} {} {session}{own} ", head.method, head.uri);
        let body = axum::body::to_bytes(body, 10_000).await.unwrap();
        answer(line + std::str::from_utf8(&body).unwrap())
    };
    let routes = Router::new().fallback(told);
    tokio::spawn(async move { axum::serve(listener, routes).await });
    url
}

#[tokio::test]
async fn a_profile_of_the_shared_file_has_keys() {
    let text = "[other]\naws_access_key_id=X\n[mine]\n aws_access_key_id = ID\n\
        aws_secret_access_key= SE=CRET\naws_session_token =T\n[last]\n";
    let found = keys_of(text, "mine").unwrap();
    assert_eq!((found.id.as_str(), found.secret.expose()), ("ID", "SE=CRET"));
    assert_eq!(found.session_token.unwrap().expose(), "T");
    assert!(keys_of(text, "other").is_none() && keys_of(text, "last").is_none());
    let aws = Aws {
        client: AwsClient { profile: Some("none".into()), ..AwsClient::default() },
        variable: |_| None,
    };
    let told = aws.obtain().await.unwrap_err();
    assert_eq!(&*told, "AWS gives no keys: there is no home for a shared credentials file");
}

#[tokio::test]
async fn keys_of_the_environment_are_good_for_ever() {
    let variable = |name: &str| match name {
        "AWS_ACCESS_KEY_ID" => Some("ID".to_owned()),
        "AWS_SECRET_ACCESS_KEY" => Some("SECRET".to_owned()),
        _ => None,
    };
    let aws = Aws { client: AwsClient::default(), variable };
    let got = keys(aws.obtain().await.unwrap());
    assert_eq!(got, ("ID".into(), "SECRET".into(), None, None));
}

#[tokio::test]
async fn a_web_identity_becomes_keys_of_a_role() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"jwt.of.kubernetes\n").unwrap();
    let url = server(|asked| {
        let expected = "POST /  Action=AssumeRoleWithWebIdentity&Version=2011-06-15&\
            RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fr&RoleSessionName=kafka-upstream&\
            WebIdentityToken=jwt.of.kubernetes";
        if asked != expected {
            return Err(StatusCode::FORBIDDEN);
        }
        Ok(r#"{"AssumeRoleWithWebIdentityResponse":{"AssumeRoleWithWebIdentityResult":{
            "Credentials":{"AccessKeyId":"ID","SecretAccessKey":"SECRET","SessionToken":"T",
            "Expiration":32503680000.0}}}}"#
            .to_owned())
    })
    .await;
    let variable = |name: &str| (name == "AWS_ENDPOINT_URL_STS").then(|| STS.get().cloned())?;
    STS.set(url).unwrap();
    let aws = Aws { client: AwsClient::default(), variable };
    let path = file.path().to_str().unwrap().to_owned();
    let got = keys(aws.of_web_identity(path.clone(), "arn:aws:iam::1:role/r").await.unwrap());
    let day = Some(Duration::from_secs(86_400));
    assert_eq!(got, ("ID".into(), "SECRET".into(), Some("T".into()), day));
    let told = aws.of_web_identity(path, "arn:other").await.unwrap_err();
    assert!(told.ends_with("answered 403 Forbidden"), "{told}");
}

static STS: std::sync::OnceLock<String> = std::sync::OnceLock::new();
static IMDS: std::sync::OnceLock<String> = std::sync::OnceLock::new();

#[tokio::test]
async fn a_container_and_an_instance_are_asked_by_http() {
    let url = server(|asked| match asked.as_str() {
        "GET /container token " => Ok(KEYS.to_owned()),
        "PUT /latest/api/token  " => Ok("session".to_owned()),
        "GET /latest/meta-data/iam/security-credentials/ session " => Ok("role\n".to_owned()),
        "GET /latest/meta-data/iam/security-credentials/role session " => Ok(KEYS.to_owned()),
        _ => Err(StatusCode::NOT_FOUND),
    })
    .await;
    IMDS.set(url.clone()).unwrap();
    let variable = |name: &str| match name {
        "AWS_CONTAINER_AUTHORIZATION_TOKEN" => Some("token".to_owned()),
        "AWS_EC2_METADATA_SERVICE_ENDPOINT" => IMDS.get().cloned(),
        _ => None,
    };
    let aws = Aws { client: AwsClient::default(), variable };
    let expected = ("ID".to_owned(), "SECRET".to_owned(), Some("T".to_owned()));
    for lease in [aws.of_container(&format!("{url}/container")).await, aws.of_instance().await] {
        let (id, secret, token, lifetime) = keys(lease.unwrap());
        assert_eq!((id, secret, token), expected);
        assert_eq!(lifetime, Some(Duration::from_secs(86_400)));
    }
    assert!(aws.of_container(&format!("{url}/other")).await.is_err());
}

const KEYS: &str = r#"{"AccessKeyId":"ID","SecretAccessKey":"SECRET","Token":"T",
    "Expiration":"2999-12-31T23:59:59Z"}"#;

#[test]
fn times_are_read_in_utc() {
    for (text, seconds) in [
        ("1970-01-01T00:00:00Z", 0.0),
        ("2000-02-29T00:00:00Z", 951_782_400.0),
        ("2024-12-31T23:59:59Z", 1_735_689_599.0),
    ] {
        assert_eq!(seconds_of(text), Some(seconds), "{text}");
    }
    assert_eq!(seconds_of("soon"), None);
}
