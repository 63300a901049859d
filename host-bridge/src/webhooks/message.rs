//! A request to a receiver: its headers, its idempotency key and its signature.

use std::borrow::Cow;

use axum::http::{HeaderName, HeaderValue, Method, Request, header};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use http_body_util::Full;
use ring::digest::{Context, SHA256};

use super::config::WebhookConfig;
use super::credentials::Credentials;
use super::item::Origin;
use super::permission::REQUEST_ORIGIN;

/// What is the same whenever a request is sent.
pub(super) struct Message {
    pub(super) id: String,
    pub(super) headers: Vec<(Cow<'static, str>, String)>,
    pub(super) content_type: Option<String>,
    pub(super) body: Bytes,
}

impl Message {
    /// As it is sent for the `attempt`th time, at a time in seconds since 1970: verifiers refuse old
    /// ones.
    pub(super) fn request(
        &self,
        config: &WebhookConfig,
        credentials: &Credentials,
        token: Option<&HeaderValue>,
        (attempt, timestamp): (u32, i64),
    ) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = Method::POST;
        let headers = request.headers_mut();
        let mut set = |name: &str, value: &str| {
            // Of a record all is visible ASCII.
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), value.try_into()) {
                headers.insert(name, value);
            }
        };
        if let Some(content_type) = &self.content_type {
            set("content-type", content_type);
        }
        set("user-agent", USER_AGENT);
        for (name, value) in &config.headers {
            set(name.as_str(), value.to_str().unwrap_or_default());
        }
        for (name, value) in &self.headers {
            set(name, value);
        }
        set("idempotency-key", &self.id);
        set("kafka-upstream-attempt", &attempt.to_string());
        set("webhook-id", &self.id);
        set("webhook-timestamp", &timestamp.to_string());
        if let Some(keys) = &credentials.keys {
            set("webhook-signature", &keys.sign(&self.id, timestamp, &self.body));
        }
        if let Some(authorization) = token.or(credentials.authorization.as_ref()) {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        if let Some(origin) = &config.origin {
            headers.insert(REQUEST_ORIGIN, origin.clone());
        }
        request
    }
}

/// By which a receiver knows that it has a request already: of the same records it is the same, unless
/// they are in another topic of the name, or an operator wants another one.
pub(super) fn idempotency_key(
    cluster_id: Option<&str>,
    topic_id: Option<u128>,
    origin: &Origin,
    (first, last): (i64, i64),
    salt: Option<u64>,
) -> String {
    let mut hashed = Context::new(&SHA256);
    let topic = topic_id.map_or_else(|| origin.topic.to_string(), |id| format!("{id:032x}"));
    for part in [cluster_id.unwrap_or_default(), &*topic] {
        hashed.update(part.as_bytes());
        hashed.update(b"\0");
    }
    hashed.update(format!("{}\0{first}\0{last}", origin.partition).as_bytes());
    if let Some(salt) = salt {
        hashed.update(&salt.to_be_bytes());
    }
    let digest = hashed.finish();
    let bytes = digest.as_ref().get(..KEY_BYTES).unwrap_or_default();
    format!("msg_{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

const USER_AGENT: &str = concat!("kafka-upstream-host-bridge/", env!("CARGO_PKG_VERSION"));
/// 144 bits: no two requests have the same by chance.
const KEY_BYTES: usize = 18;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_records_have_the_same_key_and_no_others_do() {
        let origin = |topic: &str, partition| Origin { topic: topic.into(), partition, tag: None };
        let (a, b) = (origin("orders", 0), origin("orders", 1));
        let key = |cluster, id, origin, first, last| {
            idempotency_key(cluster, id, origin, (first, last), None)
        };
        let one = key(Some("c"), Some(1), &a, 5, 5);
        assert_eq!(one, key(Some("c"), Some(1), &a, 5, 5));
        assert_eq!((one.len(), &one[..4], one.contains('.')), (28, "msg_", false));
        for other in [
            key(Some("d"), Some(1), &a, 5, 5),
            key(Some("c"), Some(2), &a, 5, 5),
            key(Some("c"), None, &a, 5, 5),
            key(Some("c"), Some(1), &b, 5, 5),
            key(Some("c"), Some(1), &a, 4, 5),
            key(Some("c"), Some(1), &a, 5, 6),
            key(None, Some(1), &a, 5, 5),
        ] {
            assert_ne!(one, other);
        }
        let named = |topic| idempotency_key(None, None, &origin(topic, 0), (5, 5), None);
        assert_ne!(named("orders"), named("orders2"));
    }

    #[test]
    fn a_request_has_what_the_bridge_says_and_what_is_configured() {
        let headers = [("kafka-topic", "orders"), ("kafka-key", "a\nb")];
        let message = Message {
            id: "msg_1".to_owned(),
            headers: headers.map(|(name, value)| (name.into(), value.to_owned())).into(),
            content_type: Some("application/json".to_owned()),
            body: Bytes::from_static(b"{}"),
        };
        let mut config = WebhookConfig::of_url("http://a");
        config.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/x"));
        config.headers.insert("x-tenant", HeaderValue::from_static("a"));
        config.origin = Some(HeaderValue::from_static("b.example"));
        let authorization = Some(HeaderValue::from_static("Bearer t"));
        let credentials = Credentials { keys: None, authorization };
        let request = message.request(&config, &credentials, None, (3, 17));
        let headers = request.headers().iter();
        let headers = headers.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
        let mut headers: Vec<_> = headers.collect();
        headers.sort();
        let user_agent = format!("user-agent: {USER_AGENT}");
        assert_eq!(
            headers,
            [
                "authorization: Bearer t",
                "content-type: text/x",
                "idempotency-key: msg_1",
                "kafka-topic: orders",
                "kafka-upstream-attempt: 3",
                &user_agent,
                "webhook-id: msg_1",
                "webhook-request-origin: b.example",
                "webhook-timestamp: 17",
                "x-tenant: a",
            ]
        );
        let token = HeaderValue::from_static("Bearer u");
        let request = message.request(&config, &credentials, Some(&token), (3, 17));
        assert_eq!(request.headers()[header::AUTHORIZATION], token);
    }
}
