//! Keys that the host has: those of a container, and those of an instance.

use http_body_util::Full;
use hyper::Request;

use super::answer::{ask, found, parse};
use super::environment::read_file;
use super::{Aws, Found};

impl Aws {
    /// `None` without a container's service.
    pub(super) async fn of_container(&self) -> Option<Result<Found, String>> {
        let relative = self.variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
        let relative = relative.map(|path| format!("{CONTAINER}{path}"));
        let url = relative.or_else(|| self.variable("AWS_CONTAINER_CREDENTIALS_FULL_URI"))?;
        Some(self.of_container_at(&url).await)
    }

    async fn of_container_at(&self, url: &str) -> Result<Found, String> {
        let mut request = Request::get("/");
        let token = match self.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
            Some(file) => Some(read_file(file).await?.trim().to_owned()),
            None => self.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
        };
        if let Some(token) = token {
            request = request.header("authorization", token);
        }
        let body = ask(&self.http, url, request.body(Full::default())).await?;
        Ok(found(parse(url, &body)?))
    }

    /// IMDSv2: a session first, which a request that was forged through a proxy cannot get.
    pub(super) async fn of_instance(&self) -> Result<Found, String> {
        let is_off = self.variable("AWS_EC2_METADATA_DISABLED");
        if is_off.is_some_and(|is_off| is_off.eq_ignore_ascii_case("true")) {
            return Err("AWS_EC2_METADATA_DISABLED is true".to_owned());
        }
        let base = self.variable("AWS_EC2_METADATA_SERVICE_ENDPOINT");
        let base = base.unwrap_or_else(|| INSTANCE.to_owned());
        let base = base.trim_end_matches('/');
        let session = Request::put("/").header("x-aws-ec2-metadata-token-ttl-seconds", "60");
        let url = format!("{base}/latest/api/token");
        let session = ask(&self.http, &url, session.body(Full::default())).await?;
        let session = String::from_utf8_lossy(&session).trim().to_owned();
        let get = |url: String| {
            let request = Request::get("/").header("x-aws-ec2-metadata-token", session.as_str());
            let request = request.body(Full::default());
            async move { Ok::<_, String>((ask(&self.http, &url, request).await?, url)) }
        };
        let roles = format!("{base}/latest/meta-data/iam/security-credentials/");
        let (role, _) = get(roles.clone()).await?;
        let role = String::from_utf8_lossy(&role).lines().next().unwrap_or_default().to_owned();
        let (keys, url) = get(format!("{roles}{role}")).await?;
        Ok(found(parse(&url, &keys)?))
    }
}

const CONTAINER: &str = "http://169.254.170.2";
const INSTANCE: &str = "http://169.254.169.254";
