//! SASL: how a client proves to a broker who it is.

mod authentication;
mod aws;
mod lease;
mod login;
mod msk_iam;
mod oauthbearer;
mod plain;
mod scram;

use std::collections::BTreeMap;

use crate::error::codes;
use crate::secret::{Secret, SecretSource};
use crate::tls::HttpsTrust;

pub(crate) use authentication::{Authentication, Session, Turn};
pub use aws::AwsKeys;
pub use lease::{Credential, CredentialSource, Lease, Obtaining};
pub(crate) use login::Login;
pub(crate) use oauthbearer::is_extension;
#[cfg(feature = "fake_broker")]
pub(crate) use scram::Hash as ScramHash;

/// The mechanisms that this client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// User name and password in clear text (RFC 4616).
    Plain,
    /// A proof that the password is known on both sides, with SHA-256 (RFC 5802, RFC 7677).
    ScramSha256,
    /// The same with SHA-512.
    ScramSha512,
    /// A token of an OAuth 2 server (RFC 7628, KIP-255).
    OAuthBearer,
    /// A signature by the keys of an AWS identity, for Amazon MSK.
    AwsMskIam,
}

impl Mechanism {
    /// The name in the protocol and in `sasl.mechanism`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
            Self::OAuthBearer => "OAUTHBEARER",
            Self::AwsMskIam => "AWS_MSK_IAM",
        }
    }
}

/// `sasl.*` of one client. Clients with equal settings are the same to every broker.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Sasl {
    pub(crate) mechanism: Mechanism,
    pub(crate) identity: Identity,
    /// SASL extensions that go with each token, such as `logicalCluster`.
    pub(crate) extensions: BTreeMap<String, String>,
    /// The region of AWS's signature; else that of the broker's name.
    pub(crate) region: Option<String>,
}

/// Who the client is, or where that is learnt.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Identity {
    /// For PLAIN and SCRAM.
    Password { user: String, password: SecretSource, is_token: bool },
    /// For AWS_MSK_IAM.
    Keys(AwsKeys),
    /// As a token endpoint says.
    OAuth(OAuthClient),
    /// As AWS says.
    Aws(AwsClient),
}

/// Where a credential comes from that is not in the properties: for whoever asks there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// OAuth 2's grant of client credentials (KIP-768).
    OAuth(OAuthClient),
    /// One of AWS's credential providers.
    Aws(AwsClient),
}

/// How tokens are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OAuthClient {
    /// The token endpoint: `http://` or `https://`.
    pub endpoint: String,
    /// The client's id.
    pub id: String,
    /// The client's secret.
    pub secret: SecretSource,
    /// Scopes with blanks between, if any are asked for.
    pub scope: Option<String>,
    /// Whose certificates the endpoint may have.
    pub trust: HttpsTrust,
}

/// How AWS's credentials are found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct AwsClient {
    /// A profile of AWS's shared files; else the default chain: environment, web identity,
    /// profile `default`, container and instance.
    pub profile: Option<String>,
    /// Whose certificates AWS's services may have.
    pub trust: HttpsTrust,
}

/// Why a broker does not let us in, by the step that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SaslFault {
    #[error("no credential for {mechanism}: {cause}")]
    NoCredential { mechanism: &'static str, cause: String },
    #[error(
        "SASL mechanism: this listener has no {mechanism}, it has {offered}; \
         set sasl.mechanism to one that it has"
    )]
    NoSuchMechanism { mechanism: &'static str, offered: String },
    #[error("SASL: this listener wants none; set security.protocol to PLAINTEXT or SSL")]
    NotWanted,
    #[error(
        "SASL credential: refused for {mechanism}, {advice}; the broker says {name} ({code}){message}",
        name = codes::name(*code),
        message = shown(message),
        advice = advice(mechanism)
    )]
    Refused { mechanism: &'static str, code: i16, message: Option<String> },
    #[error("SASL: the broker's part of {mechanism} is wrong: {flaw}")]
    Flawed { mechanism: &'static str, flaw: Flaw },
}

/// What is wrong with a message of a broker, as a mechanism sees it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Flaw {
    #[error("its message cannot be read")]
    Unreadable,
    #[error("its nonce does not extend ours")]
    Nonce,
    #[error("{0} iterations are not {least} to {most}", least = scram::ITERATIONS_LEAST, most = scram::ITERATIONS_MOST)]
    Iterations(u64),
    #[error("it says `{0}`")]
    Error(String),
    #[error("its signature is false: it does not know the password")]
    Signature,
    #[error("it said yes before it had proven that it knows the password")]
    TooSoon,
    #[error("more rounds than {0}")]
    Rounds(u32),
    #[error("it goes on when all is said")]
    Unasked,
}

/// What a mechanism does next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Send(Vec<u8>),
    /// Both sides are content.
    Done,
}

/// One run of a mechanism (pure): the broker's bytes in, ours out.
pub(crate) trait Exchange: Send {
    /// What is said first.
    fn first(&mut self) -> Vec<u8>;

    /// The broker's answer to what was said last, if it did not refuse.
    fn on_answer(&mut self, answer: &[u8]) -> Result<Step, Flaw>;

    /// What the broker said of a refusal that it tells now.
    fn complaint(&self) -> Option<&str> {
        None
    }

    /// What the broker was told and may say again.
    fn told(&self) -> Option<&Secret> {
        None
    }

    /// Whether the next answer may cost more time than an IO task has.
    fn is_laborious(&self) -> bool {
        false
    }
}

/// What a broker says, made fit to be shown: bounded, and without control characters.
pub(crate) fn quotable(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(QUOTED_CHARS).map(clean).collect()
}

fn shown(message: &Option<String>) -> String {
    message.as_ref().map(|message| format!(": {message}")).unwrap_or_default()
}

fn advice(mechanism: &str) -> &'static str {
    match mechanism {
        "OAUTHBEARER" => "check the token's issuer, audience, scope and extensions",
        "AWS_MSK_IAM" => "check the keys, the region, the clock and the policy of the identity",
        _ => "check sasl.username and sasl.password",
    }
}

/// Characters of a broker's message that are shown.
const QUOTED_CHARS: usize = 300;

#[cfg(test)]
mod tests;
