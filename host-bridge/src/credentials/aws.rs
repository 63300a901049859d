//! AWS's credentials: from the environment, a profile of the shared file, a web identity, a
//! container or an instance, in this order.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use kafka_client::{
    AwsClient, AwsKeys, Cause, Credential, CredentialSource, HttpsTrust, Lease, Obtaining, Secret,
};
use serde::Deserialize;

use super::http;

/// AWS, asked for the keys of the identity that this process has.
#[derive(Debug)]
pub(super) struct Aws {
    client: AwsClient,
    variable: fn(&str) -> Option<String>,
}

/// Keys as the container's and the instance's services write them.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Keys {
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

impl Aws {
    pub(super) fn new(client: AwsClient) -> Self {
        Self { client, variable: |name| std::env::var(name).ok().filter(|value| !value.is_empty()) }
    }

    fn variable(&self, name: &str) -> Option<String> {
        (self.variable)(name)
    }

    async fn ask(&self) -> Result<Lease, String> {
        if let Some(profile) = &self.client.profile {
            return self.of_profile(profile).await;
        }
        if let (Some(id), Some(secret)) =
            (self.variable("AWS_ACCESS_KEY_ID"), self.variable("AWS_SECRET_ACCESS_KEY"))
        {
            let session_token = self.variable("AWS_SESSION_TOKEN").map(Secret::new);
            return Ok(for_ever(AwsKeys { id, secret: Secret::new(secret), session_token }));
        }
        if let Some(profile) = self.variable("AWS_PROFILE") {
            return self.of_profile(&profile).await;
        }
        if let (Some(file), Some(role)) =
            (self.variable("AWS_WEB_IDENTITY_TOKEN_FILE"), self.variable("AWS_ROLE_ARN"))
        {
            return self.of_web_identity(file, &role).await;
        }
        if let Ok(lease) = self.of_profile("default").await {
            return Ok(lease);
        }
        if let Some(path) = self.variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
            return self.of_container(&format!("{CONTAINER}{path}")).await;
        }
        if let Some(url) = self.variable("AWS_CONTAINER_CREDENTIALS_FULL_URI") {
            return self.of_container(&url).await;
        }
        self.of_instance().await
    }

    async fn of_profile(&self, profile: &str) -> Result<Lease, String> {
        let home = || self.variable("HOME").map(|home| format!("{home}/.aws/credentials"));
        let path = self.variable("AWS_SHARED_CREDENTIALS_FILE").or_else(home);
        let path = path.ok_or("there is no home for a shared credentials file")?;
        let text = read_file(path.clone()).await?;
        let keys = keys_of(&text, profile);
        let keys = keys.ok_or_else(|| format!("{path} has no keys for the profile {profile}"))?;
        // Someone may rewrite the file, as tools of companies do.
        Ok(Lease { credential: Credential::Aws(keys), lifetime: Some(FILE_AGE) })
    }

    async fn of_web_identity(&self, file: String, role: &str) -> Result<Lease, String> {
        let token = read_file(file).await?;
        let region = self.variable("AWS_REGION").or_else(|| self.variable("AWS_DEFAULT_REGION"));
        let endpoint = self.variable("AWS_ENDPOINT_URL_STS").unwrap_or_else(|| match region {
            Some(region) => format!("https://sts.{region}.amazonaws.com"),
            None => "https://sts.amazonaws.com".to_owned(),
        });
        let session = self.variable("AWS_ROLE_SESSION_NAME");
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("Action", "AssumeRoleWithWebIdentity")
            .append_pair("Version", "2011-06-15")
            .append_pair("RoleArn", role)
            .append_pair("RoleSessionName", session.as_deref().unwrap_or("kafka-upstream"))
            .append_pair("WebIdentityToken", token.trim())
            .finish();
        let request = Request::post("/")
            .header("content-type", "application/x-www-form-urlencoded")
            .header("accept", "application/json")
            .body(Full::new(Bytes::from(form)));
        let body = ask(&self.client.trust, &endpoint, request).await?;
        let answer: serde_json::Value = parse(&endpoint, &body)?;
        let path = "/AssumeRoleWithWebIdentityResponse/AssumeRoleWithWebIdentityResult/Credentials";
        let keys = answer.pointer(path).cloned().unwrap_or_default();
        let keys = serde_json::from_value(keys).map_err(|_| format!("{endpoint}: no keys"))?;
        Ok(lease(keys))
    }

    async fn of_container(&self, url: &str) -> Result<Lease, String> {
        let mut request = Request::get("/");
        let token = match self.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
            Some(file) => Some(read_file(file).await?.trim().to_owned()),
            None => self.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
        };
        if let Some(token) = token {
            request = request.header("authorization", token);
        }
        let body = ask(&self.client.trust, url, request.body(Full::default())).await?;
        Ok(lease(parse(url, &body)?))
    }

    /// IMDSv2: a session first, which a request that was forged through a proxy cannot get.
    async fn of_instance(&self) -> Result<Lease, String> {
        let base = self.variable("AWS_EC2_METADATA_SERVICE_ENDPOINT");
        let base = base.unwrap_or_else(|| INSTANCE.to_owned());
        let base = base.trim_end_matches('/');
        let session = Request::put("/").header("x-aws-ec2-metadata-token-ttl-seconds", "60");
        let url = format!("{base}/latest/api/token");
        let session = ask(&self.client.trust, &url, session.body(Full::default())).await?;
        let session = String::from_utf8_lossy(&session).trim().to_owned();
        let get = |url: String| {
            let request = Request::get("/").header("x-aws-ec2-metadata-token", session.as_str());
            let request = request.body(Full::default());
            async move { Ok::<_, String>((ask(&self.client.trust, &url, request).await?, url)) }
        };
        let roles = format!("{base}/latest/meta-data/iam/security-credentials/");
        let (role, _) = get(roles.clone()).await?;
        let role = String::from_utf8_lossy(&role).lines().next().unwrap_or_default().to_owned();
        let (keys, url) = get(format!("{roles}{role}")).await?;
        Ok(lease(parse(&url, &keys)?))
    }
}

impl CredentialSource for Aws {
    fn obtain(&self) -> Obtaining<'_> {
        Box::pin(async {
            let asked = self.ask().await;
            asked.map_err(|what| Cause::from(format!("AWS gives no keys: {what}")))
        })
    }
}

async fn ask(
    trust: &HttpsTrust,
    url: &str,
    request: Result<Request<Full<Bytes>>, hyper::http::Error>,
) -> Result<Bytes, String> {
    let request = request.map_err(|error| format!("{url}: {error}"))?;
    let asked = http::ask(url, request, trust).await;
    match asked.map_err(|error| format!("{url}: {error}"))? {
        (status, body) if status.is_success() => Ok(body),
        (status, _) => Err(format!("{url} answered {status}")),
    }
}

/// What is wrong is not told: it could quote a key.
fn parse<T: for<'de> Deserialize<'de>>(url: &str, body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|_| format!("{url}: its answer has no keys"))
}

fn lease(keys: Keys) -> Lease {
    let session_token = keys.token.or(keys.session_token).map(Secret::new);
    let secret = Secret::new(keys.secret_access_key);
    let credential = Credential::Aws(AwsKeys { id: keys.access_key_id, secret, session_token });
    let end = match keys.expiration {
        Some(Expiration::Seconds(seconds)) => Some(seconds),
        Some(Expiration::Text(text)) => seconds_of(&text),
        None => None,
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let left = end.map_or(FILE_AGE.as_secs_f64(), |end| (end - now).clamp(1.0, 86_400.0));
    Lease { credential, lifetime: Some(Duration::from_secs_f64(left)) }
}

fn for_ever(keys: AwsKeys) -> Lease {
    Lease { credential: Credential::Aws(keys), lifetime: None }
}

/// `2024-05-06T07:08:09Z` in seconds since 1970.
fn seconds_of(text: &str) -> Option<f64> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    // Howard Hinnant's days_from_civil.
    let year = if month <= 2 { year - 1 } else { year };
    let months = (month + 9) % 12;
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (153 * months + 2) / 5
        + day
        - 1
        - 719_468;
    Some((days * 86_400 + hour * 3600 + minute * 60 + second) as f64)
}

/// The keys under `[profile]` of a shared credentials file.
fn keys_of(text: &str, profile: &str) -> Option<AwsKeys> {
    let lines = text.lines().map(str::trim);
    let own = lines.skip_while(|line| *line != format!("[{profile}]")).skip(1);
    let own: Vec<_> = own.take_while(|line| !line.starts_with('[')).collect();
    let value = |name: &str| {
        let pairs = own.iter().filter_map(|line| line.split_once('='));
        let found = pairs.map(|(key, value)| (key.trim(), value.trim())).find(|it| it.0 == name);
        found.map(|(_, value)| value.to_owned())
    };
    Some(AwsKeys {
        id: value("aws_access_key_id")?,
        secret: Secret::new(value("aws_secret_access_key")?),
        session_token: value("aws_session_token").map(Secret::new),
    })
}

async fn read_file(path: String) -> Result<String, String> {
    let source = kafka_client::SecretSource::File(PathBuf::from(&path));
    let read = tokio::task::spawn_blocking(move || source.read()).await;
    let read = read.map_err(|error| error.to_string())?;
    read.map(|secret| secret.expose().to_owned()).map_err(|error| format!("{path}: {error}"))
}

const CONTAINER: &str = "http://169.254.170.2";
const INSTANCE: &str = "http://169.254.169.254";
/// After this time a file, or keys without an end, are read again.
const FILE_AGE: Duration = Duration::from_secs(900);

#[cfg(test)]
mod tests;
