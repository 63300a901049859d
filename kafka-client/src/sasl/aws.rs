//! AWS's Signature Version 4 of a URL, and who signs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::scram::Hash;
use crate::secret::Secret;

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

/// What is signed: a GET of `https://{host}/` with these arguments and no body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Presigned<'a> {
    pub(super) host: &'a str,
    pub(super) path: &'a str,
    pub(super) region: &'a str,
    pub(super) service: &'a str,
    /// Arguments besides those of the signature.
    pub(super) arguments: &'a [(&'a str, &'a str)],
    pub(super) lifetime: Duration,
    pub(super) at: SystemTime,
}

/// The arguments of the signature in order of their names, and the signature itself.
pub(super) struct Signature {
    pub(super) arguments: Vec<(String, String)>,
    pub(super) signature: String,
}

impl Presigned<'_> {
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
            "GET\n{}\n{}\nhost:{}\n\nhost\n{}",
            self.path,
            query(&arguments),
            self.host,
            self.payload_hash()
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

    /// S3 alone does not say what the body is.
    fn payload_hash(&self) -> String {
        if self.service == "s3" {
            return "UNSIGNED-PAYLOAD".to_owned();
        }
        hex(&Hash::Sha256.digest(b""))
    }
}

/// Arguments as they stand in a URL.
pub(super) fn query(arguments: &[(String, String)]) -> String {
    let pair = |(name, value): &(String, String)| format!("{}={}", encoded(name), encoded(value));
    arguments.iter().map(pair).collect::<Vec<_>>().join("&")
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `yyyyMMdd'T'HHmmss'Z'` in UTC.
fn timestamp(at: SystemTime) -> String {
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// The date of a day after 1970-01-01 (Howard Hinnant's `civil_from_days`).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// All that RFC 3986 does not call unreserved.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of "Authenticating Requests: Using Query Parameters" in Amazon's documentation.
    #[test]
    fn the_url_that_amazon_publishes_has_its_signature() {
        let keys = AwsKeys {
            id: "AKIAIOSFODNN7EXAMPLE".into(),
            secret: Secret::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
            session_token: None,
        };
        let presigned = Presigned {
            host: "examplebucket.s3.amazonaws.com",
            path: "/test.txt",
            region: "us-east-1",
            service: "s3",
            arguments: &[],
            lifetime: Duration::from_secs(86_400),
            at: UNIX_EPOCH + Duration::from_secs(1_369_353_600),
        };
        let signed = presigned.sign(&keys);
        assert_eq!(
            query(&signed.arguments),
            "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2F\
             us-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&\
             X-Amz-SignedHeaders=host"
        );
        assert_eq!(
            signed.signature,
            "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
        );
    }

    #[test]
    fn times_are_written_in_utc() {
        for (seconds, text) in [
            (0, "19700101T000000Z"),
            (951_782_399, "20000228T235959Z"),
            (951_782_400, "20000229T000000Z"),
            (1_735_689_599, "20241231T235959Z"),
            (4_107_542_400, "21000301T000000Z"),
        ] {
            assert_eq!(timestamp(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
}
