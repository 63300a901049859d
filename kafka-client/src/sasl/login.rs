//! How one client logs in: its settings and credentials become an exchange for each connection.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio::time::Instant;

use super::authentication::Authentication;
use super::exchange::{Exchange, SaslFault};
use super::identity::{AwsBase, AwsClient, Mechanism, Sasl, SaslIdentity};
use super::lease::Leases;
use super::lease::{Credential, CredentialSource};
use super::msk_iam::{LIFETIME, MskIam, region_of, token};
use super::oauthbearer::{Bearer, Issuer};
use super::plain::Plain;
use super::scram::{Hash, Proof, Salted, Scram};
use crate::secret::{Secret, SecretSource};

/// Shared by all connections of a client.
pub(crate) struct Login {
    sasl: Sasl,
    leases: Option<Leases>,
    salted: Arc<Salted>,
}

impl Login {
    /// `source` gives what the properties do not say.
    pub(crate) fn new(sasl: Sasl, source: Option<Arc<dyn CredentialSource>>) -> Arc<Self> {
        Arc::new(Self { sasl, leases: source.map(Leases::new), salted: Arc::default() })
    }

    /// What to prove to the broker that was dialled as `host`.
    pub(crate) async fn authentication(&self, host: &str) -> Result<Authentication, SaslFault> {
        #[cfg(feature = "gssapi")]
        if let SaslIdentity::Kerberos(kerberos) = &self.sasl.identity {
            let begun = super::gssapi::worker::begin(kerberos, host).await;
            let (exchange, until) = begun.map_err(|cause| self.no_credential(cause))?;
            return Ok(Authentication::new(self.sasl.mechanism.name(), Box::new(exchange), until));
        }
        let (credential, mut until) = self.credential().await?;
        let is_signed = matches!(credential, Credential::Aws { .. });
        let exchange = self.exchange(credential, host)?;
        if is_signed && self.sasl.mechanism == Mechanism::OAuthBearer {
            // Made by `exchange`; keys may end sooner.
            let end = Instant::now() + LIFETIME;
            until = Some(until.map_or(end, |until| until.min(end)));
        }
        Ok(Authentication::new(self.sasl.mechanism.name(), exchange, until))
    }

    async fn credential(&self) -> Result<(Credential, Option<Instant>), SaslFault> {
        match (&self.leases, &self.sasl.identity) {
            (Some(leases), _) => {
                leases.get().await.map_err(|cause| self.no_credential(cause.to_string()))
            }
            (None, SaslIdentity::Password { user, password, is_token }) => {
                let (user, is_token) = (user.clone(), *is_token);
                let password = self.read(password.clone()).await?;
                Ok((Credential::Password { user, password, is_token }, None))
            }
            (None, SaslIdentity::Token(token)) => Ok((Credential::Token(token.clone()), None)),
            (None, SaslIdentity::Aws(AwsClient { base: AwsBase::Keys(keys), role: None, .. })) => {
                Ok((Credential::Aws { keys: keys.clone(), region: None }, None))
            }
            (None, _) => {
                Err(self.no_credential("no source of credentials is configured".to_owned()))
            }
        }
    }

    /// A password in a file may have changed since the last connection.
    async fn read(&self, source: SecretSource) -> Result<Secret, SaslFault> {
        let SecretSource::File(path) = &source else {
            return source.read().map_err(|error| self.no_credential(error.to_string()));
        };
        let path = path.display().to_string();
        let read = tokio::task::spawn_blocking(move || source.read()).await;
        let read = read.map_err(|error| self.no_credential(error.to_string()))?;
        let secret = read.map_err(|error| self.no_credential(format!("{path}: {error}")))?;
        match secret.expose() {
            // As who writes a new password may leave it for a moment.
            "" => Err(self.no_credential(format!("{path}: it is empty"))),
            text if text.contains('\0') => {
                Err(self.no_credential(format!("{path}: it contains a NUL")))
            }
            _ => Ok(secret),
        }
    }

    fn exchange(&self, credential: Credential, host: &str) -> Result<Box<dyn Exchange>, SaslFault> {
        let scram = |hash, user, password, is_token| -> Result<Box<dyn Exchange>, SaslFault> {
            let proof = Proof { hash, user, password, is_token };
            Ok(Box::new(Scram::new(proof, self.nonce()?, Arc::clone(&self.salted))))
        };
        match (self.sasl.mechanism, credential) {
            (Mechanism::Plain, Credential::Password { user, password, .. }) => {
                Ok(Box::new(Plain::new(user, password)))
            }
            (Mechanism::ScramSha256, Credential::Password { user, password, is_token }) => {
                scram(Hash::Sha256, user, password, is_token)
            }
            (Mechanism::ScramSha512, Credential::Password { user, password, is_token }) => {
                scram(Hash::Sha512, user, password, is_token)
            }
            (Mechanism::OAuthBearer, Credential::Token(token)) => {
                Ok(Box::new(Bearer::new(Issuer::Server, token, self.sasl.extensions.clone())))
            }
            (Mechanism::OAuthBearer, Credential::Aws { keys, region }) => {
                let token = token(&keys, self.region(host, region.as_deref())?, SystemTime::now());
                Ok(Box::new(Bearer::new(Issuer::Aws, token, self.sasl.extensions.clone())))
            }
            (Mechanism::AwsMskIam, Credential::Aws { keys, region }) => {
                let region = self.region(host, region.as_deref())?;
                Ok(Box::new(MskIam::new(&keys, host, region, SystemTime::now())))
            }
            _ => Err(self.no_credential("the credential is for another mechanism".to_owned())),
        }
    }

    /// The region for a signature: as configured, of the broker's name, or of the environment.
    fn region<'a>(
        &'a self,
        host: &'a str,
        environment: Option<&'a str>,
    ) -> Result<&'a str, SaslFault> {
        let configured = self.sasl.region.as_deref();
        configured.or_else(|| region_of(host)).or(environment).ok_or_else(|| {
            self.no_credential(format!(
                "no region is in the broker's name {host}; set awsRegion in sasl.jaas.config or \
                 AWS_REGION"
            ))
        })
    }

    fn nonce(&self) -> Result<String, SaslFault> {
        let mut bytes = [0; NONCE_BYTES];
        let filled = getrandom::fill(&mut bytes);
        filled.map_err(|error| self.no_credential(error.to_string()))?;
        Ok(BASE64_STANDARD.encode(bytes))
    }

    fn no_credential(&self, cause: String) -> SaslFault {
        SaslFault::NoCredential { mechanism: self.sasl.mechanism.name(), cause }
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("sasl", &self.sasl).finish_non_exhaustive()
    }
}

/// As many as Kafka's own client takes, and more than anyone guesses.
const NONCE_BYTES: usize = 24;
