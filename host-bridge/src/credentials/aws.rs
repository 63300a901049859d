//! AWS's credentials: given, from a profile, or from the default chain, and those of a role.

mod answer;
mod environment;
mod hosts;
mod profiles;
mod sts;

use std::time::Duration;

use kafka_client::{
    AwsBase, AwsClient, AwsKeys, Cause, Credential, CredentialSource, Lease, Obtaining, Secret,
};

use environment::Variables;
use profiles::{KeySource, Profiles};

use super::LIMITS;
use crate::http_client::HttpClient;

/// AWS, asked for the keys of the identity that this process has.
#[derive(Debug)]
pub(super) struct Aws {
    client: AwsClient,
    variables: Variables,
    http: HttpClient,
}

/// Keys, and for how long they are good; none means for ever.
struct Found {
    keys: AwsKeys,
    lifetime: Option<Duration>,
}

impl Aws {
    pub(super) fn new(client: AwsClient) -> Self {
        Self::with(client, Variables::of_process())
    }

    fn with(client: AwsClient, variables: Variables) -> Self {
        let http = HttpClient::new(client.trust.clone(), LIMITS);
        Self { client, variables, http }
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name)
    }

    async fn ask(&self) -> Result<Lease, String> {
        let profiles = Profiles::read(&self.variables).await;
        let base = match &self.client.base {
            AwsBase::Keys(keys) => Found { keys: keys.clone(), lifetime: None },
            AwsBase::Profile(name) => self.of_profile(&profiles, name).await?,
            AwsBase::Chain => self.of_chain(&profiles).await?,
        };
        let found = match &self.client.role {
            Some(role) => self.assume(role, &base.keys).await?,
            None => base,
        };
        let region = self.region().or_else(|| profiles.region(&self.profile()));
        let credential = Credential::Aws { keys: found.keys, region };
        Ok(Lease { credential, lifetime: found.lifetime })
    }

    /// The profile that counts where none must be.
    fn profile(&self) -> String {
        match &self.client.base {
            AwsBase::Profile(name) => name.clone(),
            _ => self.variable("AWS_PROFILE").unwrap_or_else(|| "default".to_owned()),
        }
    }

    fn region(&self) -> Option<String> {
        self.variable("AWS_REGION").or_else(|| self.variable("AWS_DEFAULT_REGION"))
    }

    async fn of_chain(&self, profiles: &Profiles) -> Result<Found, String> {
        if let Some(found) = self.of_environment() {
            return Ok(found);
        }
        if let Some(profile) = self.variable("AWS_PROFILE") {
            return self.of_profile(profiles, &profile).await;
        }
        if let (Some(file), Some(role)) =
            (self.variable("AWS_WEB_IDENTITY_TOKEN_FILE"), self.variable("AWS_ROLE_ARN"))
        {
            let session = self.variable("AWS_ROLE_SESSION_NAME");
            return self.of_web_identity(file, &role, session.as_deref()).await;
        }
        if profiles.has_identity("default") {
            return self.of_profile(profiles, "default").await;
        }
        if let Some(asked) = self.of_container().await {
            return asked;
        }
        let asked = self.of_instance().await;
        asked.map_err(|what| {
            format!(
                "there are none in the environment and in {profiles}, and no web identity and no \
                 container; the instance: {what}"
            )
        })
    }

    fn of_environment(&self) -> Option<Found> {
        let id = self.variable("AWS_ACCESS_KEY_ID")?;
        let secret = Secret::new(self.variable("AWS_SECRET_ACCESS_KEY")?);
        let session_token = self.variable("AWS_SESSION_TOKEN").map(Secret::new);
        Some(Found { keys: AwsKeys { id, secret, session_token }, lifetime: None })
    }

    /// A profile's own keys, or those of its role, for which another identity asks.
    async fn of_profile(&self, profiles: &Profiles, name: &str) -> Result<Found, String> {
        let (step, roles) = profiles.steps(name)?;
        let no_keys = |source: &str| format!("the profile {name} wants keys of {source}: none");
        let mut found = match step {
            // Someone may rewrite the file, as tools of companies do.
            KeySource::Keys(keys) => Found { keys, lifetime: Some(FILE_AGE) },
            KeySource::WebIdentity { file, role } => {
                self.of_web_identity(file, &role.arn, role.session.as_deref()).await?
            }
            KeySource::Environment => {
                self.of_environment().ok_or_else(|| no_keys("Environment"))?
            }
            KeySource::Container => {
                self.of_container().await.ok_or_else(|| no_keys("EcsContainer"))??
            }
            KeySource::Instance => self.of_instance().await?,
        };
        for role in &roles {
            found = self.assume(role, &found.keys).await?;
        }
        Ok(found)
    }
}

impl CredentialSource for Aws {
    fn obtain(&self) -> Obtaining<'_> {
        Box::pin(async {
            let asked = self.ask().await;
            asked.map_err(|what| Cause::from(format!("AWS gives no keys: {what}")))
        })
    }
}

/// After this time a file, or keys without an end, are read again.
const FILE_AGE: Duration = Duration::from_secs(900);

#[cfg(test)]
mod tests;
