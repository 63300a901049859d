//! `sasl.*`: the mechanism, and the credential or where it comes from.

mod aws;
mod kerberos;
mod options;

use std::collections::BTreeMap;

use super::jaas;
use super::property::{BOOLEANS, Property, PropertyError};
use crate::sasl::{AwsClient, Mechanism, OAuthClient, Sasl, SaslIdentity, is_extension};
use crate::secret::{Secret, SecretSource};
use crate::tls::{HTTPS_CA, HttpsTrust};
pub(super) use kerberos::{KEYTAB, PRINCIPAL, SERVICE};
use options::Options;

pub(super) const MECHANISM: &str = "sasl.mechanism";
pub(super) const JAAS: &str = "sasl.jaas.config";
pub(super) const USER: &str = "sasl.username";
pub(super) const PASSWORD: &str = "sasl.password";
pub(super) const PASSWORD_FILE: &str = "sasl.password.file";
pub(super) const CLIENT_SECRET_FILE: &str =
    "sasl.oauthbearer.client.credentials.client.secret.file";
pub(super) const ENDPOINT: &str = "sasl.oauthbearer.token.endpoint.url";
pub(super) const ENDPOINT_VERIFY: &str = "sasl.oauthbearer.token.endpoint.tls.verify";
pub(super) const CLIENT_ID: &str = "sasl.oauthbearer.client.credentials.client.id";
pub(super) const CLIENT_SECRET: &str = "sasl.oauthbearer.client.credentials.client.secret";
pub(super) const SCOPE: &str = "sasl.oauthbearer.scope";
pub(super) const EXTENSIONS: &str = "sasl.oauthbearer.extensions";
pub(super) const LOGIN_HANDLER: &str = "sasl.login.callback.handler.class";
pub(super) const CLIENT_HANDLER: &str = "sasl.client.callback.handler.class";

/// How a client authenticates, with the credential itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SaslLogin {
    /// PLAIN (RFC 4616).
    Plain {
        /// The user name.
        user: String,
        /// Its password.
        password: Secret,
    },
    /// SCRAM (RFC 5802).
    Scram {
        /// SHA-512 instead of SHA-256.
        is_sha512: bool,
        /// The user name, or the id of a delegation token (KIP-48).
        user: String,
        /// Its password, or the token's HMAC.
        password: Secret,
        /// Whether it is a delegation token.
        is_token: bool,
    },
    /// OAUTHBEARER with tokens by client credentials (KIP-768).
    OAuthBearer {
        /// How tokens are asked for.
        client: OAuthClient,
        /// SASL extensions (KIP-342), such as `logicalCluster`.
        extensions: BTreeMap<String, String>,
    },
    /// OAUTHBEARER with one token (RFC 7628): once that has expired, no new connection is made.
    Token(Secret),
}

impl SaslLogin {
    pub(super) fn check(self) -> Result<Sasl, PropertyError> {
        let (mechanism, identity, extensions) = match self {
            Self::Plain { user, password } => {
                (Mechanism::Plain, with_password(user, password, false)?, BTreeMap::new())
            }
            Self::Scram { is_sha512, user, password, is_token } => {
                let mechanism =
                    if is_sha512 { Mechanism::ScramSha512 } else { Mechanism::ScramSha256 };
                (mechanism, with_password(user, password, is_token)?, BTreeMap::new())
            }
            Self::OAuthBearer { client, extensions } => {
                endpoint(Property { name: ENDPOINT, value: &client.endpoint })?;
                let wrong = extensions.iter().find(|(name, value)| !is_extension(name, value));
                if let Some((name, _)) = wrong {
                    let mechanism = Mechanism::OAuthBearer.name();
                    return Err(PropertyError::Option { option: name.clone(), mechanism });
                }
                (Mechanism::OAuthBearer, SaslIdentity::OAuth(client), extensions)
            }
            Self::Token(token) => {
                (Mechanism::OAuthBearer, SaslIdentity::Token(token), BTreeMap::new())
            }
        };
        Ok(Sasl { mechanism, identity, extensions, region: None })
    }
}

fn with_password(
    user: String,
    password: Secret,
    is_token: bool,
) -> Result<SaslIdentity, PropertyError> {
    if user.is_empty() {
        return Err(PropertyError::Missing(USER));
    }
    text(Property { name: USER, value: &user })?;
    text(Property { name: PASSWORD, value: password.expose() })?;
    Ok(SaslIdentity::Password { user, password: SecretSource::Given(password), is_token })
}

/// What is said of SASL, before it is known whether it makes sense together. Each property that
/// has an option of `sasl.jaas.config` of the same meaning is kept under the option's name.
#[derive(Default)]
pub(super) struct SaslProperties {
    mechanism: Option<Mechanism>,
    endpoint: Option<String>,
    endpoint_unverified: bool,
    options: Options,
    handlers: BTreeMap<&'static str, Handler>,
    /// One that was given.
    any: Option<&'static str>,
}

/// What a callback handler of Java does; its class is a name to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Handler {
    /// Asks a token endpoint.
    Endpoint,
    /// Signs for AWS_MSK_IAM.
    Iam,
    /// Signs a token for OAUTHBEARER.
    IamToken,
}

impl SaslProperties {
    pub(super) fn set(&mut self, property: Property<'_>) -> Result<(), PropertyError> {
        match property.name {
            MECHANISM => self.mechanism = Some(mechanism(property, HAS_KERBEROS)?),
            JAAS => {
                let options = jaas::options(property.value);
                let is_sound = |options: &jaas::Options| {
                    options.iter().all(|(_, value)| !value.expose().contains('\0'))
                };
                let options =
                    options.filter(is_sound).ok_or_else(|| property.invalid_secret(JAAS_FORM))?;
                self.options.texts.extend(options);
            }
            ENDPOINT => self.endpoint = Some(endpoint(property)?),
            ENDPOINT_VERIFY => self.endpoint_unverified = !property.choice(BOOLEANS)?,
            EXTENSIONS => self.extensions(property)?,
            LOGIN_HANDLER => {
                self.handlers.insert(LOGIN_HANDLER, property.choice(&LOGIN_HANDLERS)?);
            }
            CLIENT_HANDLER => {
                self.handlers.insert(CLIENT_HANDLER, property.choice(&CLIENT_HANDLERS)?);
            }
            PASSWORD_FILE | CLIENT_SECRET_FILE => {
                self.options.files.insert(property.name, text(property)?.into());
            }
            _ => {
                let option = OPTIONS.iter().find(|(name, _)| *name == property.name);
                let option = option.map_or(property.name, |(_, option)| option);
                self.options.texts.insert(option.to_owned(), Secret::new(text(property)?));
            }
        }
        self.any = self.any.or(Some(property.name));
        Ok(())
    }

    /// `name=value` with commas between, as librdkafka has it.
    fn extensions(&mut self, property: Property<'_>) -> Result<(), PropertyError> {
        for pair in property.value.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let named = pair.split_once('=').filter(|(name, value)| is_extension(name, value));
            let (name, value) = named.ok_or_else(|| property.invalid(EXTENSIONS_FORM.into()))?;
            self.options.texts.insert(format!("{EXTENSION}{name}"), Secret::new(value));
        }
        Ok(())
    }

    /// `is_wanted` is what `security.protocol` says, `trust` what `https.ca.*` says.
    pub(super) fn check(
        mut self,
        is_wanted: bool,
        trust: HttpsTrust,
    ) -> Result<Option<Sasl>, PropertyError> {
        if !is_wanted {
            let needs = |name| PropertyError::Needs { name, other: PROTOCOL };
            return self.any.map_or(Ok(None), |name| Err(needs(name)));
        }
        let mechanism = self.mechanism.ok_or(PropertyError::Missing(MECHANISM))?;
        let handler = self.handler(mechanism)?;
        let mut sasl = Sasl {
            mechanism,
            identity: SaslIdentity::Aws(AwsClient::default()),
            extensions: BTreeMap::new(),
            region: None,
        };
        match mechanism {
            Mechanism::Plain => sasl.identity = self.password(false)?,
            Mechanism::ScramSha256 | Mechanism::ScramSha512 => {
                let is_token = self.options.take("tokenauth");
                let is_token = is_token.is_some_and(|it| it.expose().eq_ignore_ascii_case("true"));
                sasl.identity = self.password(is_token)?;
            }
            Mechanism::OAuthBearer if handler != Some(Handler::IamToken) => {
                sasl.extensions = self.take_extensions()?;
                sasl.identity = self.oauth(trust)?;
            }
            Mechanism::OAuthBearer | Mechanism::AwsMskIam => {
                sasl.region = aws::region(&mut self.options, aws::REGION)?;
                sasl.identity = aws::identity(&mut self.options, trust)?;
            }
            Mechanism::Gssapi => sasl.identity = kerberos::identity(&mut self.options)?,
        }
        let files = self.options.files.into_keys().map(str::to_owned);
        let endpoint = self.endpoint.map(|_| ENDPOINT.to_owned());
        match self.options.texts.into_keys().chain(files).chain(endpoint).next() {
            Some(option) if option.starts_with("ssl.") && mechanism == Mechanism::OAuthBearer => {
                Err(PropertyError::Elsewhere { option, name: HTTPS_CA })
            }
            Some(option) => Err(PropertyError::Option { option, mechanism: mechanism.name() }),
            None => Ok(Some(sasl)),
        }
    }

    fn password(&mut self, is_token: bool) -> Result<SaslIdentity, PropertyError> {
        let user = self.options.take_text("username").filter(|user| !user.is_empty());
        let user = user.ok_or(PropertyError::Missing(USER))?;
        let password = self.options.secret("password", PASSWORD, PASSWORD_FILE)?;
        Ok(SaslIdentity::Password { user, password, is_token })
    }

    fn oauth(&mut self, trust: HttpsTrust) -> Result<SaslIdentity, PropertyError> {
        Ok(SaslIdentity::OAuth(OAuthClient {
            endpoint: self.endpoint.take().ok_or(PropertyError::Missing(ENDPOINT))?,
            id: self.options.take_text("clientId").ok_or(PropertyError::Missing(CLIENT_ID))?,
            secret: self.options.secret("clientSecret", CLIENT_SECRET, CLIENT_SECRET_FILE)?,
            scope: self.options.take_text("scope").filter(|scope| !scope.is_empty()),
            trust: if self.endpoint_unverified { HttpsTrust::Anyone } else { trust },
        }))
    }

    fn take_extensions(&mut self) -> Result<BTreeMap<String, String>, PropertyError> {
        let mut extensions = BTreeMap::new();
        for (option, value) in std::mem::take(&mut self.options.texts) {
            match option.strip_prefix(EXTENSION) {
                Some(name) if is_extension(name, value.expose()) => {
                    extensions.insert(name.to_owned(), value.expose().to_owned());
                }
                Some(_) => {
                    let mechanism = Mechanism::OAuthBearer.name();
                    return Err(PropertyError::Option { option, mechanism });
                }
                None => drop(self.options.texts.insert(option, value)),
            }
        }
        Ok(extensions)
    }

    /// The handler that is named, if it goes with the mechanism.
    fn handler(&self, mechanism: Mechanism) -> Result<Option<Handler>, PropertyError> {
        let mut named = None;
        for (name, handler) in &self.handlers {
            let (goes_with, other) = match handler {
                Handler::Iam => (Mechanism::AwsMskIam, "sasl.mechanism=AWS_MSK_IAM"),
                Handler::Endpoint | Handler::IamToken => {
                    (Mechanism::OAuthBearer, "sasl.mechanism=OAUTHBEARER")
                }
            };
            if mechanism != goes_with {
                return Err(PropertyError::Needs { name, other });
            }
            if named.is_some_and(|named| named != *handler) {
                return Err(PropertyError::Excludes { name: LOGIN_HANDLER, other: CLIENT_HANDLER });
            }
            named = Some(*handler);
        }
        Ok(named)
    }
}

/// Whether this build has Kerberos' library.
const HAS_KERBEROS: bool = cfg!(feature = "gssapi");

fn mechanism(property: Property<'_>, has_kerberos: bool) -> Result<Mechanism, PropertyError> {
    match property.choice(&Mechanism::ALL.map(|mechanism| (mechanism.name(), mechanism)))? {
        Mechanism::Gssapi if !has_kerberos => Err(property.unsupported(NO_KERBEROS)),
        mechanism => Ok(mechanism),
    }
}

fn endpoint(property: Property<'_>) -> Result<String, PropertyError> {
    let rest = property.value.strip_prefix("https://").or(property.value.strip_prefix("http://"));
    let host = rest.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
    // With a `/` in it, a password becomes a port with a path.
    let port = host.rsplit_once(':').map_or("", |(_, port)| port);
    let is_port = host.ends_with(']') || port.bytes().all(|byte| byte.is_ascii_digit());
    if host.contains('@') || (!is_port && property.value.contains('@')) {
        return Err(property.invalid_secret("an address without a user and a password"));
    }
    let is_address = |rest: &&str| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_graphic());
    match rest.filter(is_address) {
        Some(_) => Ok(property.value.to_owned()),
        None => Err(property.invalid("an address with http:// or https://".into())),
    }
}

/// NUL would end the user name or password of PLAIN.
fn text<'a>(property: Property<'a>) -> Result<&'a str, PropertyError> {
    let is_sound = !property.value.contains('\0');
    is_sound.then_some(property.value).ok_or_else(|| property.invalid_secret("a text without NUL"))
}

const NO_KERBEROS: &str = "this build has no Kerberos; with libkrb5-dev and libclang-dev, \
    `cargo build --release -p host-bridge --features gssapi` makes one that has";
/// Properties, and the options of login modules that mean the same.
const OPTIONS: [(&str, &str); 8] = [
    (USER, "username"),
    (PASSWORD, "password"),
    (CLIENT_ID, "clientId"),
    (CLIENT_SECRET, "clientSecret"),
    (SCOPE, "scope"),
    (SERVICE, "serviceName"),
    (PRINCIPAL, "principal"),
    (KEYTAB, "keyTab"),
];
const LOGIN_HANDLERS: [(&str, Handler); 3] = [
    (
        "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginCallbackHandler",
        Handler::Endpoint,
    ),
    (
        "org.apache.kafka.common.security.oauthbearer.secured.OAuthBearerLoginCallbackHandler",
        Handler::Endpoint,
    ),
    (IAM_TOKEN, Handler::IamToken),
];
const CLIENT_HANDLERS: [(&str, Handler); 2] = [
    ("software.amazon.msk.auth.iam.IAMClientCallbackHandler", Handler::Iam),
    // As AWS writes it for OAUTHBEARER.
    (IAM_TOKEN, Handler::IamToken),
];
const IAM_TOKEN: &str = "software.amazon.msk.auth.iam.IAMOAuthBearerLoginCallbackHandler";
const EXTENSION: &str = "extension_";
const PROTOCOL: &str = "security.protocol=SASL_…";
const JAAS_FORM: &str =
    "a login module: `class required name=\"value\" …;`, with the `;`, lines without a last `\\`";
const EXTENSIONS_FORM: &str =
    "`name=value` with commas between, names of letters only and not `auth`";

#[cfg(test)]
mod tests;
