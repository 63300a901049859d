//! SASL: how a client proves to a broker who it is.

mod authentication;
mod aws;
mod exchange;
#[cfg(feature = "gssapi")]
mod gssapi;
mod identity;
mod lease;
mod login;
mod msk_iam;
mod oauthbearer;
mod plain;
mod scram;

pub(crate) use authentication::{Authentication, Progress, Session};
pub use aws::{AwsKeys, ClockSkew, Presigned, aws_time};
pub(crate) use exchange::SaslFault;
pub use identity::{AwsBase, AwsClient, AwsRole, Mechanism, OAuthClient, Source};
pub(crate) use identity::{Kerberos, Sasl, SaslIdentity, Tickets};
pub use lease::{Credential, CredentialSource, Lease, Obtaining};
pub(crate) use login::Login;
pub use oauthbearer::is_extension;
#[cfg(feature = "fake_broker")]
pub(crate) use scram::Hash as ScramHash;

#[cfg(test)]
mod tests;
