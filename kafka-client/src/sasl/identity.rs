//! Who a client is to its brokers, by mechanism, and where its credential comes from.

use std::collections::BTreeMap;
use std::fmt;

use super::aws::AwsKeys;
use crate::secret::{Secret, SecretSource};
use crate::tls::HttpsTrust;

/// The mechanisms that this client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
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
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Plain,
        Self::ScramSha256,
        Self::ScramSha512,
        Self::OAuthBearer,
        Self::AwsMskIam,
        Self::Gssapi,
    ];

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
    pub(crate) identity: SaslIdentity,
    /// SASL extensions that go with each token, such as `logicalCluster`.
    pub(crate) extensions: BTreeMap<String, String>,
    /// The region of AWS's signature; else that of the broker's name.
    pub(crate) region: Option<String>,
}

/// Who the client is, or where that is learnt.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum SaslIdentity {
    /// For PLAIN and SCRAM.
    Password { user: String, password: SecretSource, is_token: bool },
    /// As a token endpoint says.
    OAuth(OAuthClient),
    /// For OAUTHBEARER, a token that is not renewed.
    Token(Secret),
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
