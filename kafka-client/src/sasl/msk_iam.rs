//! Amazon MSK's proof: a URL that the keys of an AWS identity have signed, as JSON for AWS_MSK_IAM
//! and as a token for OAUTHBEARER.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::aws::{AwsKeys, ClockSkew, Presigned, encoded};
use super::exchange::{Exchange, Flaw, NextMessage};
use crate::secret::Secret;

pub(super) struct MskIam {
    message: String,
    /// What of it nobody else may see: the signature, and the session token in each spelling.
    secrets: Vec<Secret>,
}

impl MskIam {
    /// `host` is the broker that was dialled, not the name that led to it: it is what the broker
    /// verifies.
    pub(super) fn new(keys: &AwsKeys, host: &str, region: &str, at: SystemTime) -> Self {
        let signed = presigned(host, region, at).sign(keys);
        let mut fields = vec![
            ("version".to_owned(), VERSION.to_owned()),
            ("host".to_owned(), host.to_owned()),
            ("user-agent".to_owned(), AGENT.to_owned()),
        ];
        let lower = |(name, value): (String, String)| (name.to_ascii_lowercase(), value);
        fields.extend(signed.arguments.into_iter().map(lower));
        let mut secrets = vec![Secret::new(signed.signature.as_str())];
        if let Some(token) = &keys.session_token {
            let token = token.expose();
            secrets.extend([token, &escaped(token), &encoded(token)].map(Secret::new));
        }
        fields.push(("x-amz-signature".to_owned(), signed.signature));
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| format!("\"{name}\":\"{}\"", escaped(value)))
            .collect();
        Self { message: format!("{{{}}}", fields.join(",")), secrets }
    }
}

/// The signed URL of the region's service, as a token for OAUTHBEARER.
pub(super) fn token(keys: &AwsKeys, region: &str, at: SystemTime) -> Secret {
    let host = format!("kafka.{region}.amazonaws.com");
    let query = presigned(&host, region, at).query(keys);
    // What follows the signature is not signed.
    let url = format!("https://{host}/?{}&User-Agent={}", query.expose(), encoded(AGENT));
    Secret::new(BASE64_URL_SAFE_NO_PAD.encode(url))
}

fn presigned<'a>(host: &'a str, region: &'a str, at: SystemTime) -> Presigned<'a> {
    let arguments = &[("Action", ACTION)];
    Presigned { host, region, service: "kafka-cluster", arguments, lifetime: LIFETIME, at }
}

/// What to check when a broker that says this refuses a signature.
pub(super) fn advice(said: &str) -> String {
    ClockSkew::in_refusal(said).map_or_else(
        || "check the keys, the region, the clock and the policy of the identity".to_owned(),
        |skew| skew.to_string(),
    )
}

impl Exchange for MskIam {
    fn advice(&self, said: &str) -> String {
        advice(said)
    }

    fn first(&mut self) -> Vec<u8> {
        self.message.clone().into_bytes()
    }

    fn told(&self) -> &[Secret] {
        &self.secrets
    }

    /// The broker says yes with a document that names the request.
    fn on_answer(&mut self, answer: &[u8]) -> Result<NextMessage, Flaw> {
        if answer.is_empty() { Err(Flaw::TooSoon) } else { Ok(NextMessage::Done) }
    }
}

/// The region in the name of an MSK broker: `b-1.name.id.c2.kafka.eu-west-1.amazonaws.com`, or
/// `boot-id.c1.kafka-serverless.eu-west-1.amazonaws.com`.
pub(super) fn region_of(host: &str) -> Option<&str> {
    let name = host.strip_suffix(".amazonaws.com").or(host.strip_suffix(".amazonaws.com.cn"))?;
    let (before, region) = name.rsplit_once('.')?;
    let is_kafka = before.ends_with(".kafka") || before.ends_with(".kafka-serverless");
    is_kafka.then_some(region)
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

const VERSION: &str = "2020_10_22";
const ACTION: &str = "kafka-cluster:Connect";
const AGENT: &str = concat!("kafka-upstream/", env!("CARGO_PKG_VERSION"));
/// As AWS's own library: how long a signature is good for.
pub(super) const LIFETIME: Duration = Duration::from_secs(900);

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn message(session_token: Option<&str>) -> String {
        let keys = AwsKeys {
            id: "AKID".into(),
            secret: Secret::new("SECRET"),
            session_token: session_token.map(Secret::new),
        };
        let at = UNIX_EPOCH + Duration::from_secs(1_600_000_000);
        let mut exchange =
            MskIam::new(&keys, "b-1.k.x.c2.kafka.eu-west-1.amazonaws.com", "eu-west-1", at);
        String::from_utf8(exchange.first()).unwrap()
    }

    /// The signature was computed by botocore.
    #[test]
    fn the_message_is_that_of_awss_library() {
        assert_eq!(
            message(Some("TO\"KEN")),
            format!(
                "{{\"version\":\"2020_10_22\",\
                 \"host\":\"b-1.k.x.c2.kafka.eu-west-1.amazonaws.com\",\
                 \"user-agent\":\"{AGENT}\",\"action\":\"kafka-cluster:Connect\",\
                 \"x-amz-algorithm\":\"AWS4-HMAC-SHA256\",\
                 \"x-amz-credential\":\"AKID/20200913/eu-west-1/kafka-cluster/aws4_request\",\
                 \"x-amz-date\":\"20200913T122640Z\",\"x-amz-expires\":\"900\",\
                 \"x-amz-security-token\":\"TO\\\"KEN\",\"x-amz-signedheaders\":\"host\",\
                 \"x-amz-signature\":\"ebe8860dae8c0db50ecdeec0178df9c51ae78d4d401377dcb3547b7dbdc3425d\"}}"
            )
        );
        assert!(message(None).contains("\"x-amz-signature\":\"3a474aca46cef981ca81b85da5b22c6e913c9ada5b75c809856b3a8eb80841ef\""), "{}", message(None));
    }

    /// The signature was computed by botocore, as AWS's signer for Python does it.
    #[test]
    fn the_token_is_that_of_awss_signers() {
        let keys = AwsKeys {
            id: "AKID".into(),
            secret: Secret::new("SECRET"),
            session_token: Some(Secret::new("TO\"KEN/+=")),
        };
        let at = UNIX_EPOCH + Duration::from_secs(1_600_000_000);
        let token = token(&keys, "us-west-2", at);
        let url = BASE64_URL_SAFE_NO_PAD.decode(token.expose()).unwrap();
        assert_eq!(
            String::from_utf8(url).unwrap(),
            format!(
                "https://kafka.us-west-2.amazonaws.com/?Action=kafka-cluster%3AConnect&\
                 X-Amz-Algorithm=AWS4-HMAC-SHA256&\
                 X-Amz-Credential=AKID%2F20200913%2Fus-west-2%2Fkafka-cluster%2Faws4_request&\
                 X-Amz-Date=20200913T122640Z&X-Amz-Expires=900&\
                 X-Amz-Security-Token=TO%22KEN%2F%2B%3D&X-Amz-SignedHeaders=host&X-Amz-Signature=\
                 1a914db054b32ffe744733f43f6d8bd0bda9578accbcce1d5b41c74fc2f2fbdb&\
                 User-Agent=kafka-upstream%2F{}",
                env!("CARGO_PKG_VERSION")
            )
        );
    }

    #[test]
    fn what_a_broker_repeats_of_the_proof_is_hidden() {
        let (secret, token) = (Secret::new("SECRET"), Secret::new("TO\"KEN/+="));
        let keys = AwsKeys { id: "AKID".into(), secret, session_token: Some(token) };
        let mut exchange = MskIam::new(&keys, "h", "r", UNIX_EPOCH);
        let message = String::from_utf8(exchange.first()).unwrap();
        let echo = format!("{message} TO\"KEN/+= TO%22KEN%2F%2B%3D");
        let hidden = exchange.told().iter().fold(echo, |said, told| told.hidden_in(&said));
        assert!(!hidden.contains("KEN"), "{hidden}");
        assert!(hidden.contains("\"x-amz-signature\":\"(secret)\""), "{hidden}");
    }

    #[test]
    fn an_empty_answer_is_no_yes() {
        let keys = AwsKeys { id: "A".into(), secret: Secret::new("B"), session_token: None };
        let mut exchange = MskIam::new(&keys, "h", "r", UNIX_EPOCH);
        assert_eq!(exchange.on_answer(b""), Err(Flaw::TooSoon));
        assert_eq!(exchange.on_answer(b"{}"), Ok(NextMessage::Done));
    }

    #[test]
    fn the_region_is_in_the_brokers_name() {
        for (host, region) in [
            ("b-1.k.x.c2.kafka.eu-west-1.amazonaws.com", Some("eu-west-1")),
            ("boot-x.c1.kafka-serverless.us-east-2.amazonaws.com", Some("us-east-2")),
            ("b-1.k.x.c2.kafka.cn-north-1.amazonaws.com.cn", Some("cn-north-1")),
            ("kafka.example.com", None),
            ("10.0.0.1", None),
        ] {
            assert_eq!(region_of(host), region, "{host}");
        }
    }
}
