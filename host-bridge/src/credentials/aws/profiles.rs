//! Profiles of AWS's shared files `credentials` and `config`.

use std::collections::HashMap;
use std::fmt;

use kafka_client::{AwsKeys, AwsRole, Secret};

use super::environment::{Variables, read_if_there};

/// All profiles, and the files that were looked for.
#[derive(Default)]
pub(super) struct Profiles {
    paths: Vec<String>,
    profiles: HashMap<String, HashMap<String, String>>,
}

/// Where the first keys of a profile come from.
pub(super) enum KeySource {
    Keys(AwsKeys),
    WebIdentity { file: String, role: AwsRole },
    Environment,
    Container,
    Instance,
}

impl Profiles {
    /// A file that cannot be read has no profiles. What `credentials` says wins.
    pub(super) async fn read(variables: &Variables) -> Self {
        let mut all = Self::default();
        for (variable, name) in
            [("AWS_CONFIG_FILE", "config"), ("AWS_SHARED_CREDENTIALS_FILE", "credentials")]
        {
            let home = || variables.get("HOME").map(|home| format!("{home}/.aws/{name}"));
            let Some(path) = variables.get(variable).or_else(home) else { continue };
            match read_if_there(path.clone()).await {
                Ok(text) => {
                    all.add(&text.unwrap_or_default());
                    all.paths.push(path);
                }
                Err(unreadable) => all.paths.push(unreadable),
            }
        }
        all
    }

    fn add(&mut self, text: &str) {
        let mut own = None;
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
            if let Some(section) = line.strip_prefix('[') {
                own = section.split(']').next().and_then(profile).map(str::to_owned);
            } else if let (Some(profile), Some((key, value))) = (&own, line.split_once('=')) {
                let value = value.split(" #").next().unwrap_or_default().trim();
                let profile = self.profiles.entry(profile.clone()).or_default();
                profile.insert(key.trim().to_ascii_lowercase(), value.to_owned());
            }
        }
    }

    fn value(&self, profile: &str, key: &str) -> Option<String> {
        self.profiles.get(profile)?.get(key).filter(|value| !value.is_empty()).cloned()
    }

    pub(super) fn region(&self, profile: &str) -> Option<String> {
        self.value(profile, "region")
    }

    /// Whether a profile says anything of who one is.
    pub(super) fn has_identity(&self, profile: &str) -> bool {
        let is_of_identity = |key: &String| key.starts_with("aws_") || is_foreign(key);
        let role = self.value(profile, "role_arn");
        role.is_some()
            || self.profiles.get(profile).is_some_and(|own| own.keys().any(is_of_identity))
    }

    /// How one comes to a profile's identity: whose keys are first, and the roles that are then
    /// taken on in turn.
    pub(super) fn steps(&self, name: &str) -> Result<(KeySource, Vec<AwsRole>), String> {
        let (mut name, mut roles) = (name.to_owned(), Vec::new());
        loop {
            let of = |what: &str| format!("the profile {name} {what}");
            if !self.profiles.contains_key(&name) {
                return Err(of(&format!("is not in {self}")));
            }
            let Some(role) = self.role(&name) else { break };
            if self.value(&name, "mfa_serial").is_some() {
                return Err(of("has mfa_serial, and nobody is here to type a code"));
            }
            if let Some(file) = self.value(&name, "web_identity_token_file") {
                roles.reverse();
                return Ok((KeySource::WebIdentity { file, role }, roles));
            }
            roles.push(role);
            if roles.len() > ROLES {
                return Err(of(&format!("is behind more than {ROLES} source_profile")));
            }
            let (source, named) =
                (self.value(&name, "source_profile"), self.value(&name, "credential_source"));
            let step = match (source, named.as_deref()) {
                (Some(next), None) if next != name => {
                    name = next;
                    continue;
                }
                (Some(_), None) => break,
                (None, Some("Environment")) => KeySource::Environment,
                (None, Some("EcsContainer")) => KeySource::Container,
                (None, Some("Ec2InstanceMetadata")) => KeySource::Instance,
                _ => {
                    return Err(of("has a role_arn: beside it must be one of source_profile, \
                         web_identity_token_file, and credential_source with Environment, \
                         EcsContainer or Ec2InstanceMetadata"));
                }
            };
            roles.reverse();
            return Ok((step, roles));
        }
        roles.reverse();
        Ok((KeySource::Keys(self.keys(&name)?), roles))
    }

    fn role(&self, profile: &str) -> Option<AwsRole> {
        Some(AwsRole {
            arn: self.value(profile, "role_arn")?,
            session: self.value(profile, "role_session_name"),
            external_id: self.value(profile, "external_id"),
            sts_region: self.region(profile),
        })
    }

    fn keys(&self, profile: &str) -> Result<AwsKeys, String> {
        let value = |key| self.value(profile, key);
        if let (Some(id), Some(secret)) =
            (value("aws_access_key_id"), value("aws_secret_access_key"))
        {
            let session_token = value("aws_session_token").map(Secret::new);
            return Ok(AwsKeys { id, secret: Secret::new(secret), session_token });
        }
        let own = self.profiles.get(profile).into_iter().flat_map(HashMap::keys);
        Err(match own.filter(|key| is_foreign(key)).min() {
            Some(key) => format!(
                "the profile {profile} has {key}, which runs a program or a browser and cannot be \
                 used here; give it aws_access_key_id and aws_secret_access_key, or role_arn"
            ),
            None => format!(
                "the profile {profile} in {self} has no aws_access_key_id with \
                 aws_secret_access_key, and no role_arn"
            ),
        })
    }
}

impl fmt::Display for Profiles {
    /// Where profiles were looked for.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.paths.as_slice() {
            [] => f.write_str("shared files (there is no HOME)"),
            paths => f.write_str(&paths.join(" and ")),
        }
    }
}

/// `name` of `[name]` in `credentials`, and of `[profile name]` and `[default]` in `config`.
fn profile(section: &str) -> Option<&str> {
    let section = section.trim();
    match section.split_once(char::is_whitespace) {
        None => Some(section),
        Some(("profile", name)) => Some(name.trim().trim_matches('"')),
        Some(_) => None,
    }
}

/// Whether a key is for those who can start a program or a browser.
fn is_foreign(key: &str) -> bool {
    key == "credential_process" || key == "login_session" || key.starts_with("sso_")
}

/// Most roles that are taken on one after the other; AWS itself has none that needs more than two.
const ROLES: usize = 5;
