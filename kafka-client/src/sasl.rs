//! SASL: how a client proves to a broker who it is.

mod authentication;
mod aws;
#[cfg(feature = "gssapi")]
mod gssapi;
mod lease;
mod login;
mod msk_iam;
mod oauthbearer;
mod plain;
mod scram;

use std::collections::BTreeMap;
use std::fmt;

use crate::error::codes;
use crate::secret::{Secret, SecretSource};
use crate::tls::HttpsTrust;

pub(crate) use authentication::{Authentication, Session, Turn};
pub use aws::{AwsKeys, ClockSkew, Presigned, aws_time};
pub use lease::{Credential, CredentialSource, Lease, Obtaining};
pub(crate) use login::Login;
pub use oauthbearer::is_extension;
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
    /// Kerberos (RFC 4752); only with the feature `gssapi`.
    Gssapi,
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
            Self::Gssapi => "GSSAPI",
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
    /// As a token endpoint says.
    OAuth(OAuthClient),
    /// As AWS says: for AWS_MSK_IAM, and for OAUTHBEARER with AWS's callback handler.
    Aws(AwsClient),
    /// As a KDC says.
    Kerberos(Kerberos),
}

/// A Kerberos identity, and what it is shown to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Kerberos {
    /// What the brokers' principals begin with, mostly `kafka`.
    pub(crate) service: String,
    /// Who the client is; else the first one that its tickets are for.
    pub(crate) principal: Option<String>,
    pub(crate) tickets: Tickets,
}

/// Where tickets come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Tickets {
    /// As Kerberos' own settings and environment say.
    Default,
    /// A file with the client's keys.
    Keytab(String),
    /// A cache that someone else keeps fresh.
    Cache(String),
}

impl fmt::Display for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the default ticket cache or client keytab"),
            Self::Keytab(path) => write!(f, "the keytab {path}"),
            Self::Cache(path) => write!(f, "the ticket cache {path}"),
        }
    }
}

/// Where a credential comes from that is not in the properties: for whoever asks there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// OAuth 2's grant of client credentials (KIP-768).
    OAuth(OAuthClient),
    /// AWS's credentials, and the region of its environment.
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
    /// Whose keys are there already.
    pub base: AwsBase,
    /// The role that the base identity takes on, if it does.
    pub role: Option<AwsRole>,
    /// Whose certificates AWS's services may have.
    pub trust: HttpsTrust,
}

/// Where the first keys come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum AwsBase {
    /// The default chain: environment, web identity, profile, container and instance.
    #[default]
    Chain,
    /// A profile of AWS's shared files.
    Profile(String),
    /// These.
    Keys(AwsKeys),
}

/// A role, and how STS is asked for its keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AwsRole {
    /// `awsRoleArn`.
    pub arn: String,
    /// `awsRoleSessionName`, by which the role's uses are told apart in AWS's logs.
    pub session: Option<String>,
    /// `awsRoleExternalId`, which the role's owner may want.
    pub external_id: Option<String>,
    /// `awsStsRegion`; else that of the environment, else the global endpoint.
    pub sts_region: Option<String>,
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
        message = shown(message)
    )]
    Refused { mechanism: &'static str, code: i16, message: Option<String>, advice: String },
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
    #[cfg(feature = "gssapi")]
    #[error("{0}")]
    Kerberos(String),
    #[cfg(feature = "gssapi")]
    #[error("it does without no security layer, its offer is {0}; TLS is what protects Kafka")]
    Layers(u8),
    #[error("more rounds than {0}")]
    Rounds(u32),
    #[error("it goes on when all is said")]
    Unasked,
}

/// What a mechanism does next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Send(Vec<u8>),
    /// Both sides are content.
    Done,
}

/// One run of a mechanism (pure): the broker's bytes in, ours out.
pub(crate) trait Exchange: Send {
    /// What is said first.
    fn first(&mut self) -> Vec<u8>;

    /// The broker's answer to what was said last, if it did not refuse.
    fn on_answer(&mut self, answer: &[u8]) -> Result<Reply, Flaw>;

    /// What the broker said of a refusal that it tells now.
    fn complaint(&self) -> Option<&str> {
        None
    }

    /// What to check when the broker refuses, saying this.
    fn advice(&self, _said: &str) -> String {
        "check sasl.username and sasl.password".to_owned()
    }

    /// What the broker was told and may say again.
    fn told(&self) -> &[Secret] {
        &[]
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

/// Characters of a broker's message that are shown.
const QUOTED_CHARS: usize = 300;

#[cfg(test)]
mod tests;
