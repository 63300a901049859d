//! Keys of a role, from AWS's Security Token Service.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use kafka_client::{AwsKeys, AwsRole, Presigned};

use super::answer::{ask, found, parse};
use super::environment::read_file;
use super::{Aws, Found};

/// Where STS is, and the region that it verifies signatures for.
struct Endpoint {
    url: String,
    region: String,
}

impl Aws {
    /// The keys of a role that an identity may take on. The query is signed, not a header.
    pub(super) async fn assume(&self, role: &AwsRole, keys: &AwsKeys) -> Result<Found, String> {
        let endpoint = self.endpoint(role.sts_region.as_deref());
        let host = endpoint.url.split("://").nth(1).unwrap_or_default();
        let session = role.session.as_deref().unwrap_or(SESSION);
        let mut arguments = vec![
            ("Action", "AssumeRole"),
            ("Version", VERSION),
            ("RoleArn", &role.arn),
            ("RoleSessionName", session),
        ];
        arguments.extend(role.external_id.as_deref().map(|id| ("ExternalId", id)));
        let presigned = Presigned {
            host,
            region: &endpoint.region,
            service: "sts",
            arguments: &arguments,
            lifetime: LIFETIME,
            at: SystemTime::now(),
        };
        let url = format!("{}/?{}", endpoint.url, presigned.query(keys).expose());
        let request = Request::get("/").header("accept", "application/json");
        let body = ask(&self.http, &url, request.body(Full::default())).await;
        let body = body.map_err(|what| format!("the role {}: {what}", role.arn))?;
        keys_in("AssumeRole", &endpoint.url, &body)
    }

    /// The keys of a role that a token of Kubernetes, say, stands for.
    pub(super) async fn of_web_identity(
        &self,
        file: String,
        role: &str,
        session: Option<&str>,
    ) -> Result<Found, String> {
        let token = read_file(file).await?;
        let endpoint = self.endpoint(None);
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("Action", "AssumeRoleWithWebIdentity")
            .append_pair("Version", VERSION)
            .append_pair("RoleArn", role)
            .append_pair("RoleSessionName", session.unwrap_or(SESSION))
            .append_pair("WebIdentityToken", token.trim())
            .finish();
        let request = Request::post("/")
            .header("content-type", "application/x-www-form-urlencoded")
            .header("accept", "application/json")
            .body(Full::new(Bytes::from(form)));
        let body = ask(&self.http, &endpoint.url, request).await;
        let body = body.map_err(|what| format!("the role {role}: {what}"))?;
        keys_in("AssumeRoleWithWebIdentity", &endpoint.url, &body)
    }

    fn endpoint(&self, region: Option<&str>) -> Endpoint {
        let region = region.map(str::to_owned).or_else(|| self.region());
        let url = self.variable("AWS_ENDPOINT_URL_STS");
        let url = url.map(|url| url.trim_end_matches('/').to_owned());
        match region {
            Some(region) => {
                let domain =
                    if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
                let url = url.unwrap_or_else(|| format!("https://sts.{region}.{domain}"));
                Endpoint { url, region }
            }
            None => Endpoint {
                url: url.unwrap_or_else(|| "https://sts.amazonaws.com".to_owned()),
                region: "us-east-1".to_owned(),
            },
        }
    }
}

fn keys_in(action: &str, url: &str, body: &[u8]) -> Result<Found, String> {
    let answer: serde_json::Value = parse(url, body)?;
    let path = format!("/{action}Response/{action}Result/Credentials");
    let keys = answer.pointer(&path).cloned().unwrap_or_default();
    let keys = serde_json::from_value(keys);
    keys.map(found).map_err(|_| format!("{url}: its answer has no keys"))
}

const VERSION: &str = "2011-06-15";
/// By which AWS's logs name this process unless it is told a name.
const SESSION: &str = "kafka-upstream";
/// How long the signed question is good; it is asked at once.
const LIFETIME: Duration = Duration::from_secs(300);
