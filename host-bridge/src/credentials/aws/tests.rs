//! Each place where AWS has credentials, played by a server of a few lines.

use std::collections::HashMap;
use std::io::Write as _;
use std::time::SystemTime;

use axum::Router;
use axum::extract::Request as Asked;
use axum::http::{HeaderMap, StatusCode};
use kafka_client::{AwsRole, Presigned, aws_time};
use tempfile::NamedTempFile;

use super::*;

type Got = (String, String, Option<String>, Option<Duration>);

async fn ask(client: AwsClient, variables: &[(&str, &str)]) -> Result<Got, String> {
    let all: HashMap<String, String> =
        variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let variables = Variables::of(move |name| all.get(name).cloned());
    let lease = Aws::with(client, variables).obtain().await.map_err(|cause| cause.to_string())?;
    let Credential::Aws { keys, .. } = lease.credential else { panic!("no keys") };
    let token = keys.session_token.map(|token| token.expose().to_owned());
    Ok((keys.id, keys.secret.expose().to_owned(), token, lease.lifetime))
}

fn profile(name: &str) -> AwsClient {
    AwsClient { base: AwsBase::Profile(name.into()), ..AwsClient::default() }
}

fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn path(file: &NamedTempFile) -> &str {
    file.path().to_str().unwrap()
}

type Reply = (StatusCode, HeaderMap, String);

fn ok(body: &str) -> Reply {
    (StatusCode::OK, HeaderMap::new(), body.to_owned())
}

/// Serves `answer("METHOD path session authorization body", host)`.
async fn server(answer: impl Fn(&str, &str) -> Reply + Clone + Send + Sync + 'static) -> String {
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
        answer(&(line + std::str::from_utf8(&body).unwrap()), &header("host"))
    };
    let routes = Router::new().fallback(told);
    tokio::spawn(async move { axum::serve(listener, routes).await });
    url
}

/// Whether a question to STS is signed by these keys for us-east-1.
fn is_signed(line: &str, host: &str, keys: &AwsKeys) -> bool {
    let query = line.split(['?', ' ']).nth(2).unwrap();
    let all: Vec<(String, String)> =
        form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let at = all.iter().find(|(name, _)| name == "X-Amz-Date").unwrap();
    let presigned = Presigned {
        host,
        region: "us-east-1",
        service: "sts",
        arguments: &all
            .iter()
            .filter(|(name, _)| !name.starts_with("X-Amz-"))
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect::<Vec<_>>(),
        lifetime: Duration::from_secs(300),
        at: aws_time(&at.1).unwrap(),
    };
    presigned.query(keys).expose() == query
}

#[tokio::test]
async fn a_profile_of_the_shared_files_has_keys() {
    let credentials = file(
        "[other]\naws_access_key_id=X\n[mine]\n aws_access_key_id = ID # mine\n\
         aws_secret_access_key= SE=CRET\naws_session_token =T\n[last]\n",
    );
    let config = file(
        "[default]\nregion = eu-west-1\n[profile mine]\naws_access_key_id=NO\n[mine]\n\
         aws_access_key_id=NO\n[profile sso]\nsso_session = s\n[profile tool]\n\
         credential_process = /bin/tool\n",
    );
    let variables =
        [("AWS_SHARED_CREDENTIALS_FILE", path(&credentials)), ("AWS_CONFIG_FILE", path(&config))];
    let got = ask(profile("mine"), &variables).await;
    assert_eq!(got, Ok(("ID".into(), "SE=CRET".into(), Some("T".into()), Some(FILE_AGE))));
    let paths = format!("{} and {}", path(&config), path(&credentials));
    let wanted = "has no aws_access_key_id with aws_secret_access_key, and no role_arn";
    let foreign = "which runs a program or a browser and cannot be used here; give it \
        aws_access_key_id and aws_secret_access_key, or role_arn";
    for (name, told) in [
        ("none", format!("the profile none is not in {paths}")),
        ("other", format!("the profile other in {paths} {wanted}")),
        ("sso", format!("the profile sso has sso_session, {foreign}")),
        ("tool", format!("the profile tool has credential_process, {foreign}")),
    ] {
        let refused = ask(profile(name), &variables).await;
        assert_eq!(refused, Err(format!("AWS gives no keys: {told}")));
    }
}

#[tokio::test]
async fn the_region_is_that_of_the_environment_or_the_profile() {
    let config = file("[default]\nregion = eu-west-1\n[profile p]\nregion=eu-west-2\n");
    let keys = [("AWS_ACCESS_KEY_ID", "ID"), ("AWS_SECRET_ACCESS_KEY", "SECRET")];
    for (more, region) in [
        (&[][..], Some("eu-west-1")),
        (&[("AWS_PROFILE", "p")], Some("eu-west-2")),
        (&[("AWS_PROFILE", "q")], None),
        (&[("AWS_DEFAULT_REGION", "r")], Some("r")),
        (&[("AWS_DEFAULT_REGION", "r"), ("AWS_REGION", "s")], Some("s")),
    ] {
        let all = [&keys[..], &[("AWS_CONFIG_FILE", path(&config))], more].concat();
        let all: HashMap<String, String> =
            all.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let variables = Variables::of(move |name| all.get(name).cloned());
        let aws = Aws::with(AwsClient::default(), variables);
        let Credential::Aws { region: found, .. } = aws.obtain().await.unwrap().credential else {
            panic!("no keys")
        };
        assert_eq!(found.as_deref(), region, "{more:?}");
    }
}

#[tokio::test]
async fn keys_of_the_environment_are_good_for_ever() {
    let variables = [("AWS_ACCESS_KEY_ID", "ID"), ("AWS_SECRET_ACCESS_KEY", "SECRET")];
    let got = ask(AwsClient::default(), &variables).await;
    assert_eq!(got, Ok(("ID".into(), "SECRET".into(), None, None)));
}

#[tokio::test]
async fn where_there_are_no_keys_all_places_are_named() {
    let off = ("AWS_EC2_METADATA_DISABLED", "true");
    let told = ask(AwsClient::default(), &[off, ("HOME", "/nowhere")]).await.unwrap_err();
    assert_eq!(
        told,
        "AWS gives no keys: there are none in the environment and in /nowhere/.aws/config and \
         /nowhere/.aws/credentials, and no web identity and no container; the instance: \
         AWS_EC2_METADATA_DISABLED is true"
    );
}

#[tokio::test]
async fn a_web_identity_becomes_keys_of_a_role() {
    let token = file("jwt.of.kubernetes\n");
    let url = server(|asked, _| {
        let expected = "POST /  Action=AssumeRoleWithWebIdentity&Version=2011-06-15&\
            RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fr&RoleSessionName=kafka-upstream&\
            WebIdentityToken=jwt.of.kubernetes";
        if asked != expected {
            let error = r#"{"Error":{"Code":"AccessDenied","Message":"not you"}}"#;
            return (StatusCode::FORBIDDEN, HeaderMap::new(), error.to_owned());
        }
        ok(r#"{"AssumeRoleWithWebIdentityResponse":{"AssumeRoleWithWebIdentityResult":{
            "Credentials":{"AccessKeyId":"ID","SecretAccessKey":"SECRET","SessionToken":"T",
            "Expiration":32503680000.0}}}}"#)
    })
    .await;
    let day = Some(Duration::from_secs(86_400));
    let variables = |role| {
        let token = ("AWS_WEB_IDENTITY_TOKEN_FILE", path(&token));
        [("AWS_ENDPOINT_URL_STS", url.as_str()), token, ("AWS_ROLE_ARN", role)]
    };
    let got = ask(AwsClient::default(), &variables("arn:aws:iam::1:role/r")).await;
    assert_eq!(got, Ok(("ID".into(), "SECRET".into(), Some("T".into()), day)));
    let told = ask(AwsClient::default(), &variables("arn:other")).await.unwrap_err();
    let expected = format!(
        "AWS gives no keys: the role arn:other: {url} answered 403 Forbidden AccessDenied: not you"
    );
    assert_eq!(told, expected);
}

fn base() -> AwsKeys {
    AwsKeys { id: "BASE".into(), secret: Secret::new("BASES"), session_token: None }
}

const ROLES: &str = r#"{"AssumeRoleResponse":{"AssumeRoleResult":{"Credentials":{
    "AccessKeyId":"ID","SecretAccessKey":"SECRET","SessionToken":"T",
    "Expiration":32503680000.0}}}}"#;

#[tokio::test]
async fn a_role_is_taken_on_by_a_signed_question() {
    let url = server(|asked, host| {
        let wanted = "GET /?Action=AssumeRole&ExternalId=e%20x&RoleArn=arn%3Ar&\
            RoleSessionName=s&Version=2011-06-15&X-Amz-Algorithm=";
        assert!(asked.starts_with(wanted), "{asked}");
        if is_signed(asked, host, &base()) {
            ok(ROLES)
        } else {
            let error = r#"{"Error":{"Code":"SignatureDoesNotMatch","Message":"GET x"}}"#;
            (StatusCode::FORBIDDEN, HeaderMap::new(), error.to_owned())
        }
    })
    .await;
    let client = |secret| AwsClient {
        base: AwsBase::Keys(AwsKeys { secret: Secret::new(secret), ..base() }),
        role: Some(AwsRole {
            arn: "arn:r".into(),
            session: Some("s".into()),
            external_id: Some("e x".into()),
            sts_region: None,
        }),
        ..AwsClient::default()
    };
    let variables = [("AWS_ENDPOINT_URL_STS", url.as_str())];
    let (id, ..) = ask(client("BASES"), &variables).await.unwrap();
    assert_eq!(id, "ID");
    let told = ask(client("hunter2"), &variables).await.unwrap_err();
    let expected = format!(
        "AWS gives no keys: the role arn:r: {url} answered 403 Forbidden SignatureDoesNotMatch: \
         check the secret access key"
    );
    assert_eq!(told, expected);
}

#[tokio::test]
async fn a_profile_takes_on_a_role_with_the_keys_of_another() {
    let url = server(|asked, host| {
        assert!(is_signed(asked, host, &base()), "{asked}");
        ok(ROLES)
    })
    .await;
    let credentials = file(
        "[base]\naws_access_key_id = BASE\naws_secret_access_key = BASES\n[self]\n\
              aws_access_key_id = BASE\naws_secret_access_key = BASES\n",
    );
    let config = file(
        "[profile mine]\nrole_arn = arn:r\nsource_profile = base\n[profile self]\n\
         role_arn = arn:r\nsource_profile = self\n[profile env]\nrole_arn = arn:r\n\
         credential_source = Environment\n[profile bare]\nrole_arn = arn:r\n[profile mfa]\n\
         role_arn = arn:r\nsource_profile = base\nmfa_serial = m\n[profile a]\nrole_arn = arn:r\n\
         source_profile = b\n[profile b]\nrole_arn = arn:r\nsource_profile = a\n",
    );
    let variables = [
        ("AWS_ENDPOINT_URL_STS", url.as_str()),
        ("AWS_SHARED_CREDENTIALS_FILE", path(&credentials)),
        ("AWS_CONFIG_FILE", path(&config)),
        ("AWS_ACCESS_KEY_ID", "BASE"),
        ("AWS_SECRET_ACCESS_KEY", "BASES"),
    ];
    for name in ["mine", "self", "env"] {
        let (id, ..) = ask(profile(name), &variables).await.unwrap();
        assert_eq!(id, "ID", "{name}");
    }
    for (name, told) in [
        ("bare", "the profile bare has a role_arn: beside it must be one of source_profile"),
        ("mfa", "the profile mfa has mfa_serial, and nobody is here to type a code"),
        ("a", "is behind more than 5 source_profile"),
    ] {
        let refused = ask(profile(name), &variables).await.unwrap_err();
        assert!(refused.contains(told), "{refused}");
    }
}

#[tokio::test]
async fn a_clock_that_is_wrong_is_told_by_how_much() {
    let client = || {
        let (arn, session, external_id, sts_region) = ("arn:r".into(), None, None, None);
        let role = Some(AwsRole { arn, session, external_id, sts_region });
        AwsClient { base: AwsBase::Keys(base()), role, ..AwsClient::default() }
    };
    let expired = "Signature expired: 20210502T144040Z is now earlier than 20210502T173143Z \
        (20210502T174643Z - 15 min.)";
    let late = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(1230));
    for (code, message, date, told) in [
        ("SignatureDoesNotMatch", expired, None, "seems 186 minutes behind, set it by NTP"),
        ("SignatureDoesNotMatch", "x", Some(late), "seems 20 minutes behind, set it by NTP"),
        ("RequestExpired", "x", None, "seems wrong, set it by NTP"),
    ] {
        let error = serde_json::json!({ "Error": { "Code": code, "Message": message } });
        let mut headers = HeaderMap::new();
        if let Some(date) = date {
            headers.insert("date", date.parse().unwrap());
        }
        let reply = (StatusCode::FORBIDDEN, headers, error.to_string());
        let url = server(move |_, _| reply.clone()).await;
        let refused = ask(client(), &[("AWS_ENDPOINT_URL_STS", &url)]).await.unwrap_err();
        let expected = format!(
            "AWS gives no keys: the role arn:r: {url} answered 403 Forbidden {code}: this host's \
             clock {told}"
        );
        assert_eq!(refused, expected);
    }
}

#[tokio::test]
async fn a_container_and_an_instance_are_asked_by_http() {
    let url = server(|asked, _| match asked {
        "GET /container token " => ok(KEYS),
        "PUT /latest/api/token  " => ok("session"),
        "GET /latest/meta-data/iam/security-credentials/ session " => ok("role\n"),
        "GET /latest/meta-data/iam/security-credentials/role session " => ok(KEYS),
        _ => (StatusCode::NOT_FOUND, HeaderMap::new(), String::new()),
    })
    .await;
    let day = Some(Duration::from_secs(86_400));
    let expected = ("ID".to_owned(), "SECRET".to_owned(), Some("T".to_owned()), day);
    let container = format!("{url}/container");
    let container = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", container.as_str()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "token"),
    ];
    assert_eq!(ask(AwsClient::default(), &container).await, Ok(expected.clone()));
    let instance = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", url.as_str())];
    assert_eq!(ask(AwsClient::default(), &instance).await, Ok(expected));
    let elsewhere = format!("{url}/other");
    let elsewhere = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", elsewhere.as_str())];
    let told = ask(AwsClient::default(), &elsewhere).await.unwrap_err();
    assert!(told.ends_with("/other answered 404 Not Found"), "{told}");
}

const KEYS: &str = r#"{"AccessKeyId":"ID","SecretAccessKey":"SECRET","Token":"T",
    "Expiration":"2999-12-31T23:59:59Z"}"#;
