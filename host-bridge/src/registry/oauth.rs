//! Tokens for a registry, asked for as `authentication.oauth2` and `oauth2_client` say.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use form_urlencoded::{Serializer, byte_serialize};
use http_body_util::Full;
use hyper::Request;
use hyper::header::{ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_TYPE};
use kafka_client::{HttpsTrust, Lease, Secret as Hidden};
use kafka_upstream_core::registry::{
    AuthMethod, GrantType, JwtAlgorithm, OAuth2, OAuth2Client, RegistryAuthentication,
};
use kafka_upstream_core::secret::Secret;
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::json;

use crate::credentials::oauth::read;
use crate::credentials::token::Endpoint;
use crate::http_client::{HttpClient, HttpLimits};

pub(super) struct TokenOfRegistry {
    http: HttpClient,
    oauth2: OAuth2,
    client: OAuth2Client,
}

impl TokenOfRegistry {
    pub(super) fn new(authentication: RegistryAuthentication, trust: HttpsTrust) -> Self {
        let oauth2 = authentication.oauth2.unwrap_or_default();
        let client = authentication.oauth2_client.unwrap_or_default();
        let trust = match client.ssl_verify {
            Some(false) => HttpsTrust::Anyone,
            _ => trust,
        };
        let ms = client.timeout.and_then(|ms| u64::try_from(ms).ok());
        let whole = Duration::from_millis(ms.unwrap_or(TIMEOUT_MS).clamp(1, TIMEOUT_MS));
        let limits = HttpLimits { connect: whole, whole, answer_bytes: ANSWER_BYTES };
        Self { http: HttpClient::new(trust, limits), oauth2, client }
    }

    fn url(&self) -> &str {
        self.oauth2.token_endpoint.as_deref().unwrap_or_default()
    }

    fn request(&self, now: SystemTime) -> Result<Request<Full<Bytes>>, String> {
        let Self { oauth2, client, .. } = self;
        let (id, secret) = (text(&oauth2.client_id), text(&oauth2.client_secret));
        let mut request = Request::post("/")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json");
        let mut form = Serializer::new(String::new());
        match oauth2.grant_type.unwrap_or(GrantType::ClientCredentials) {
            GrantType::ClientCredentials => form.append_pair("grant_type", "client_credentials"),
            GrantType::Password => form
                .append_pair("grant_type", "password")
                .append_pair("username", text(&oauth2.username))
                .append_pair("password", text(&oauth2.password)),
        };
        let scopes = oauth2.scopes.as_ref().map_or_else(|| "openid".to_owned(), |it| it.join(" "));
        if !scopes.is_empty() {
            form.append_pair("scope", &scopes);
        }
        for audience in oauth2.audience.iter().flatten() {
            form.append_pair("audience", audience);
        }
        match client.auth_method.unwrap_or(AuthMethod::ClientSecretPost) {
            AuthMethod::ClientSecretPost => {
                form.append_pair("client_id", id).append_pair("client_secret", secret);
            }
            AuthMethod::ClientSecretBasic => {
                request = request.header(AUTHORIZATION, format!("Basic {}", basic(id, secret)));
            }
            AuthMethod::ClientSecretJwt => {
                let assertion = self.assertion(id, secret, now)?;
                form.append_pair("client_id", id)
                    .append_pair("client_assertion_type", ASSERTION)
                    .append_pair("client_assertion", &assertion);
            }
            AuthMethod::None if id.is_empty() => {}
            AuthMethod::None => {
                form.append_pair("client_id", id);
            }
        }
        for (name, value) in oauth2.token_post_args.iter().flatten() {
            form.append_pair(name, value.expose());
        }
        for (name, value) in oauth2.token_headers.iter().flatten() {
            request = request.header(name, value.expose());
        }
        if client.keep_alive == Some(false) {
            request = request.header(CONNECTION, "close");
        }
        let request = request.body(Full::new(Bytes::from(form.finish())));
        // The builder's own error would show nothing more.
        request.map_err(|_| "token_headers: a name or a value is none of HTTP's".to_owned())
    }

    /// RFC 7523, section 2.2, with the secret as the key.
    fn assertion(&self, id: &str, secret: &str, now: SystemTime) -> Result<String, String> {
        let (name, algorithm) = match self.client.client_secret_jwt_alg {
            Some(JwtAlgorithm::Hs256) => ("HS256", hmac::HMAC_SHA256),
            None | Some(JwtAlgorithm::Hs512) => ("HS512", hmac::HMAC_SHA512),
        };
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut unique = [0; 16];
        SystemRandom::new().fill(&mut unique).map_err(|_| "no random bytes".to_owned())?;
        let header = json!({ "alg": name, "typ": "JWT" });
        let claims = json!({
            "iss": id, "sub": id, "aud": self.url(), "iat": now, "exp": now + ASSERTION_SECONDS,
            "jti": BASE64_URL_SAFE_NO_PAD.encode(unique),
        });
        let part = |json: serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let key = hmac::Key::new(algorithm, secret.as_bytes());
        let signature = hmac::sign(&key, signed.as_bytes());
        Ok(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
    }

    /// What the endpoint is sent, and must not be quoted in an error message.
    fn secrets(&self) -> Vec<Hidden> {
        let OAuth2 { client_id, client_secret, password, .. } = &self.oauth2;
        let given =
            [client_secret, password].into_iter().flatten().map(|it| Hidden::new(it.expose()));
        let more = [&self.oauth2.token_headers, &self.oauth2.token_post_args].into_iter().flatten();
        let more = more.flat_map(|it| it.values()).map(|it| Hidden::new(it.expose()));
        let pair = Hidden::new(basic(text(client_id), text(client_secret)));
        given.chain(more).chain([pair]).collect()
    }
}

impl Endpoint for TokenOfRegistry {
    async fn ask(&self) -> Result<Lease, String> {
        let request = self.request(SystemTime::now())?;
        let asked = self.http.ask(self.url(), request).await;
        let answer = asked.map_err(|error| error.to_string())?;
        read(answer.status(), answer.body(), SystemTime::now(), &self.secrets())
    }
}

fn text(secret: &Option<Secret>) -> &str {
    secret.as_ref().map_or("", Secret::expose)
}

/// RFC 6749, section 2.3.1.
fn basic(id: &str, secret: &str) -> String {
    let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    BASE64_STANDARD.encode(format!("{}:{}", encoded(id), encoded(secret)))
}

const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// How long an assertion may be on its way.
const ASSERTION_SECONDS: u64 = 60;
/// Longest wait for the endpoint, ms: records wait for it.
const TIMEOUT_MS: u64 = 10_000;
/// A token with many claims has a few KiB.
const ANSWER_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn form(authentication: &str) -> (Option<String>, Vec<(String, String)>) {
        let authentication = serde_json::from_str(authentication).unwrap();
        let endpoint = TokenOfRegistry::new(authentication, HttpsTrust::System);
        let request = endpoint.request(UNIX_EPOCH + Duration::from_secs(1000)).unwrap();
        let (head, body) = request.into_parts();
        let basic = head.headers.get(AUTHORIZATION).map(|it| it.to_str().unwrap().to_owned());
        let collecting = http_body_util::BodyExt::collect(body);
        let body = futures_util::FutureExt::now_or_never(collecting).unwrap().unwrap().to_bytes();
        (basic, form_urlencoded::parse(&body).into_owned().collect())
    }

    fn value<'a>(form: &'a [(String, String)], name: &str) -> Option<&'a str> {
        form.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn a_client_authenticates_as_its_method_says() {
        let oauth2 = r#""oauth2":{"token_endpoint":"http://idp/t","client_id":"a b","client_secret":"s:t",
            "audience":["x","y"],"token_post_args":{"tenant":"1"}}"#;
        let (header, post) = form(&format!("{{{oauth2}}}"));
        assert_eq!((header, value(&post, "client_secret")), (None, Some("s:t")));
        assert_eq!(value(&post, "grant_type"), Some("client_credentials"));
        assert_eq!((value(&post, "scope"), value(&post, "tenant")), (Some("openid"), Some("1")));
        assert_eq!(post.iter().filter(|(name, _)| name == "audience").count(), 2);
        let (header, none) = form(&format!(
            r#"{{{oauth2},"oauth2_client":{{"auth_method":"client_secret_basic"}}}}"#
        ));
        assert_eq!(header.unwrap(), format!("Basic {}", BASE64_STANDARD.encode("a+b:s%3At")));
        assert_eq!((value(&none, "client_id"), value(&none, "client_secret")), (None, None));
        let (_, public) =
            form(&format!(r#"{{{oauth2},"oauth2_client":{{"auth_method":"none"}}}}"#));
        assert_eq!(
            (value(&public, "client_id"), value(&public, "client_secret")),
            (Some("a b"), None)
        );
        let (_, user) =
            form(r#"{"oauth2":{"grant_type":"password","username":"u","password":"p"}}"#);
        assert_eq!((value(&user, "username"), value(&user, "password")), (Some("u"), Some("p")));
    }

    #[test]
    fn an_assertion_is_signed_with_the_secret() {
        for (algorithm, alg) in [("HS256", hmac::HMAC_SHA256), ("HS512", hmac::HMAC_SHA512)] {
            let (_, jwt) = form(&format!(
                r#"{{"oauth2":{{"token_endpoint":"http://idp/t","client_id":"me",
                    "client_secret":"hunter2"}},"oauth2_client":{{
                    "auth_method":"client_secret_jwt","client_secret_jwt_alg":"{algorithm}"}}}}"#
            ));
            assert_eq!(value(&jwt, "client_secret"), None);
            let assertion = value(&jwt, "client_assertion").unwrap();
            let (signed, signature) = assertion.rsplit_once('.').unwrap();
            let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap();
            let key = hmac::Key::new(alg, b"hunter2");
            hmac::verify(&key, signed.as_bytes(), &signature).unwrap();
            let (header, claims) = signed.split_once('.').unwrap();
            let json = |part| {
                let bytes = BASE64_URL_SAFE_NO_PAD.decode(part).unwrap();
                serde_json::from_slice::<serde_json::Value>(&bytes).unwrap()
            };
            assert_eq!(json(header)["alg"], algorithm);
            let claims = json(claims);
            assert_eq!((&claims["iss"], &claims["aud"]), (&json!("me"), &json!("http://idp/t")));
            assert_eq!(claims["exp"], 1060);
        }
    }
}
