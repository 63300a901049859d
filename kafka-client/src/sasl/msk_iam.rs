//! AWS_MSK_IAM: a URL of the broker, signed by the keys of an AWS identity, as JSON.

use std::time::{Duration, SystemTime};

use super::aws::{AwsKeys, Presigned};
use super::{Exchange, Flaw, Step};

pub(super) struct MskIam {
    message: String,
}

impl MskIam {
    /// `host` is the broker that was dialled, not the name that led to it: it is what the broker
    /// verifies.
    pub(super) fn new(keys: &AwsKeys, host: &str, region: &str, at: SystemTime) -> Self {
        let signed = Presigned {
            host,
            path: "/",
            region,
            service: "kafka-cluster",
            arguments: &[("Action", ACTION)],
            lifetime: LIFETIME,
            at,
        }
        .sign(keys);
        let mut fields = vec![
            ("version".to_owned(), VERSION.to_owned()),
            ("host".to_owned(), host.to_owned()),
            ("user-agent".to_owned(), AGENT.to_owned()),
        ];
        let lower = |(name, value): (String, String)| (name.to_ascii_lowercase(), value);
        fields.extend(signed.arguments.into_iter().map(lower));
        fields.push(("x-amz-signature".to_owned(), signed.signature));
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| format!("\"{name}\":\"{}\"", escaped(value)))
            .collect();
        Self { message: format!("{{{}}}", fields.join(",")) }
    }
}

impl Exchange for MskIam {
    fn first(&mut self) -> Vec<u8> {
        self.message.clone().into_bytes()
    }

    /// The broker says yes with a document that names the request.
    fn on_answer(&mut self, answer: &[u8]) -> Result<Step, Flaw> {
        if answer.is_empty() { Err(Flaw::TooSoon) } else { Ok(Step::Done) }
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
const LIFETIME: Duration = Duration::from_secs(900);

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::secret::Secret;

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

    #[test]
    fn an_empty_answer_is_no_yes() {
        let keys = AwsKeys { id: "A".into(), secret: Secret::new("B"), session_token: None };
        let mut exchange = MskIam::new(&keys, "h", "r", UNIX_EPOCH);
        assert_eq!(exchange.on_answer(b""), Err(Flaw::TooSoon));
        assert_eq!(exchange.on_answer(b"{}"), Ok(Step::Done));
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
