//! OAUTHBEARER (RFC 7628, KIP-255): a token, and extensions beside it.

use std::collections::BTreeMap;

use super::exchange::{Exchange, Flaw, NextMessage};
use super::msk_iam;
use crate::error::quotable;
use crate::secret::Secret;

pub(super) struct Bearer {
    issuer: Issuer,
    token: Secret,
    extensions: BTreeMap<String, String>,
    /// What the broker said instead of yes.
    refusal: Option<String>,
}

/// Who made the token.
#[derive(Debug, Clone, Copy)]
pub(super) enum Issuer {
    /// An OAuth 2 server.
    Server,
    /// This client, by signing for AWS.
    Aws,
}

impl Bearer {
    pub(super) fn new(issuer: Issuer, token: Secret, extensions: BTreeMap<String, String>) -> Self {
        Self { issuer, token, extensions, refusal: None }
    }
}

impl Exchange for Bearer {
    fn first(&mut self) -> Vec<u8> {
        let mut message = format!("n,,\u{1}auth=Bearer {}\u{1}", self.token.expose());
        for (name, value) in &self.extensions {
            message.push_str(&format!("{name}={value}\u{1}"));
        }
        message.push('\u{1}');
        message.into_bytes()
    }

    /// Only nothing means yes. Anything else is a refusal, although the broker calls it a success:
    /// it waits for one byte ^A, and tells then what is wrong.
    fn on_answer(&mut self, answer: &[u8]) -> Result<NextMessage, Flaw> {
        match self.refusal.take() {
            Some(refusal) => Err(Flaw::Error(refusal)),
            None if answer.is_empty() => Ok(NextMessage::Done),
            None => {
                let said = self.token.hidden_in(&String::from_utf8_lossy(answer));
                self.refusal = Some(quotable(&said));
                Ok(NextMessage::Send(vec![1]))
            }
        }
    }

    fn advice(&self, said: &str) -> String {
        match self.issuer {
            Issuer::Server => "check the token's issuer, audience, scope and extensions".to_owned(),
            Issuer::Aws => msk_iam::advice(said),
        }
    }

    fn told(&self) -> &[Secret] {
        std::slice::from_ref(&self.token)
    }

    fn complaint(&self) -> Option<&str> {
        self.refusal.as_deref()
    }
}

/// Whether an extension can be sent: RFC 7628 has letters only in its name, and `auth` is the
/// token's own.
pub fn is_extension(name: &str, value: &str) -> bool {
    let is_name =
        !name.is_empty() && name != "auth" && name.chars().all(|c| c.is_ascii_alphabetic());
    let is_value = |c: char| c.is_ascii_graphic() || " \t\r\n".contains(c);
    is_name && !value.is_empty() && value.chars().all(is_value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(extensions: &[(&str, &str)]) -> Bearer {
        let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
        Bearer::new(Issuer::Server, Secret::new("abc.def"), extensions.iter().map(owned).collect())
    }

    #[test]
    fn token_and_extensions_are_separated_by_control_a() {
        assert_eq!(bearer(&[]).first(), b"n,,\x01auth=Bearer abc.def\x01\x01");
        let mut bearer = bearer(&[("logicalCluster", "lkc-1"), ("identityPoolId", "pool-2")]);
        let message = b"n,,\x01auth=Bearer abc.def\x01identityPoolId=pool-2\x01\
            logicalCluster=lkc-1\x01\x01";
        assert_eq!(bearer.first(), message);
        assert_eq!(bearer.on_answer(b""), Ok(NextMessage::Done));
    }

    #[test]
    fn a_success_with_a_body_is_a_failure() {
        let mut bearer = bearer(&[]);
        let json = br#"{"status":"invalid_token"}"#;
        assert_eq!(bearer.on_answer(json), Ok(NextMessage::Send(vec![1])));
        let refusal = Flaw::Error(r#"{"status":"invalid_token"}"#.into());
        assert_eq!(bearer.on_answer(b""), Err(refusal), "even if the broker calls it a success");
        assert_eq!(bearer.on_answer(b"no abc.def"), Ok(NextMessage::Send(vec![1])));
        assert_eq!(bearer.complaint(), Some("no (secret)"));
    }

    #[test]
    fn what_an_extension_may_be() {
        assert!(is_extension("logicalCluster", "lkc-1 a"));
        for (name, value) in
            [("auth", "x"), ("", "x"), ("a1", "x"), ("a_b", "x"), ("a", ""), ("a", "x\u{1}y")]
        {
            assert!(!is_extension(name, value), "{name}={value:?}");
        }
    }
}
