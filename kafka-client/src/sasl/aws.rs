//! AWS's Signature Version 4 of a URL, and who signs.

mod clock;

use std::time::{Duration, SystemTime};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::scram::Hash;
use crate::secret::Secret;
use clock::timestamp;
pub use clock::{ClockSkew, aws_time};

/// Keys of an AWS identity.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AwsKeys {
    /// `AWS_ACCESS_KEY_ID`.
    pub id: String,
    /// `AWS_SECRET_ACCESS_KEY`.
    pub secret: Secret,
    /// `AWS_SESSION_TOKEN`, with keys that expire.
    pub session_token: Option<Secret>,
}

/// A GET of `https://{host}/` without a body, signed in its arguments.
#[derive(Debug, Clone, Copy)]
pub struct Presigned<'a> {
    /// The `host` header.
    pub host: &'a str,
    /// AWS's name of the region.
    pub region: &'a str,
    /// AWS's name of the service in signatures.
    pub service: &'a str,
    /// Arguments besides those of the signature.
    pub arguments: &'a [(&'a str, &'a str)],
    /// For how long the signature is good.
    pub lifetime: Duration,
    /// When it is made.
    pub at: SystemTime,
}

/// The arguments of the signature in order of their names, and the signature itself.
pub(super) struct Signature {
    pub(super) arguments: Vec<(String, String)>,
    pub(super) signature: String,
}

impl Presigned<'_> {
    /// All that follows `https://{host}/?`. It holds the session token, if the keys have one.
    #[must_use]
    pub fn query(&self, keys: &AwsKeys) -> Secret {
        let Signature { arguments, signature } = self.sign(keys);
        Secret::new(format!("{}&X-Amz-Signature={signature}", query(&arguments)))
    }

    pub(super) fn sign(&self, keys: &AwsKeys) -> Signature {
        let time = timestamp(self.at);
        let date = time.split('T').next().unwrap_or_default();
        let scope = format!("{date}/{}/{}/aws4_request", self.region, self.service);
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let mut arguments: Vec<(String, String)> = self.arguments.iter().map(own).collect();
        arguments.extend([
            ("X-Amz-Algorithm".to_owned(), ALGORITHM.to_owned()),
            ("X-Amz-Credential".to_owned(), format!("{}/{scope}", keys.id)),
            ("X-Amz-Date".to_owned(), time.clone()),
            ("X-Amz-Expires".to_owned(), self.lifetime.as_secs().to_string()),
            ("X-Amz-SignedHeaders".to_owned(), "host".to_owned()),
        ]);
        if let Some(token) = &keys.session_token {
            arguments.push(("X-Amz-Security-Token".to_owned(), token.expose().to_owned()));
        }
        arguments.sort();
        let request = format!(
            "GET\n/\n{}\nhost:{}\n\nhost\n{}",
            query(&arguments),
            self.host,
            hex(&Hash::Sha256.digest(b""))
        );
        let hashed = hex(&Hash::Sha256.digest(request.as_bytes()));
        let text = format!("{ALGORITHM}\n{time}\n{scope}\n{hashed}");
        let secret = format!("AWS4{}", keys.secret.expose());
        let steps = [date, self.region, self.service, "aws4_request"];
        let key = steps
            .iter()
            .fold(secret.into_bytes(), |key, step| Hash::Sha256.hmac(&key, step.as_bytes()));
        let signature = hex(&Hash::Sha256.hmac(&key, text.as_bytes()));
        Signature { arguments, signature }
    }
}

/// Arguments as they stand in a URL.
fn query(arguments: &[(String, String)]) -> String {
    let pair = |(name, value): &(String, String)| format!("{}={}", encoded(name), encoded(value));
    arguments.iter().map(pair).collect::<Vec<_>>().join("&")
}

pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// All that RFC 3986 does not call unreserved.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(session_token: Option<&str>) -> AwsKeys {
        AwsKeys {
            id: "AKIDEXAMPLE".into(),
            secret: Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
            session_token: session_token.map(Secret::new),
        }
    }

    fn signature(arguments: &[(&str, &str)], session_token: Option<&str>) -> String {
        let presigned = Presigned {
            host: "example.amazonaws.com",
            region: "us-east-1",
            service: "service",
            arguments,
            lifetime: Duration::from_secs(3600),
            at: aws_time("20150830T123600Z").unwrap(),
        };
        presigned.sign(&keys(session_token)).signature
    }

    /// Amazon's test suite of Signature Version 4, in the form for queries: `get-vanilla` (as
    /// botocore computes it), `get-vanilla-query-order-key-case`, `get-vanilla-with-session-token`.
    #[test]
    fn amazons_test_suite_has_these_signatures() {
        assert_eq!(
            signature(&[], None),
            "e93c787ed7f371d5c6b165c1b38ede9550f4dce4144713e844b25b7192d3865d"
        );
        assert_eq!(
            signature(&[("Param2", "value2"), ("Param1", "value1")], None),
            "86012e2c9ad4d77369f5d81c11f75158aae4f895a085212cc6d3f923d300bed5"
        );
        let token = "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267";
        assert_eq!(
            signature(&[], Some(token)),
            "7ff2b50b376cb4d151970630573d6291dc128cc5c2a12ffb237f73cc53f67b6c"
        );
    }

    /// The signature was computed by botocore.
    #[test]
    fn a_role_is_asked_for_by_a_signed_query() {
        let presigned = Presigned {
            host: "sts.eu-west-1.amazonaws.com",
            region: "eu-west-1",
            service: "sts",
            arguments: &[
                ("Action", "AssumeRole"),
                ("Version", "2011-06-15"),
                ("RoleArn", "arn:aws:iam::123456789012:role/msk"),
                ("RoleSessionName", "kafka-upstream"),
            ],
            lifetime: Duration::from_secs(900),
            at: aws_time("20200913T122640Z").unwrap(),
        };
        let keys = AwsKeys {
            id: "AKID".into(),
            secret: Secret::new("SECRET"),
            session_token: Some(Secret::new("TOKEN")),
        };
        assert_eq!(
            presigned.query(&keys).expose(),
            "Action=AssumeRole&RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fmsk&\
             RoleSessionName=kafka-upstream&Version=2011-06-15&X-Amz-Algorithm=AWS4-HMAC-SHA256&\
             X-Amz-Credential=AKID%2F20200913%2Feu-west-1%2Fsts%2Faws4_request&\
             X-Amz-Date=20200913T122640Z&X-Amz-Expires=900&X-Amz-Security-Token=TOKEN&\
             X-Amz-SignedHeaders=host&X-Amz-Signature=\
             cbf431b9a21ff3a1a2194ad342fbdfb9477875a02298bfcfdbba6ca82b9e09e3"
        );
    }
}
