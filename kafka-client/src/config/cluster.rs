//! Which cluster, and how its brokers are connected to.

use std::time::Duration;

use super::property::{BOOTSTRAP, CLUSTER_ID, DAY_MS, INT_MAX, Property, PropertyError};
use super::sasl::SaslLogin;
use super::tls;
use crate::backoff::Backoff;
use crate::resolve::Endpoint;
use crate::sasl::{Sasl, SaslIdentity, Source};
use crate::tls::{HTTPS_CA, HTTPS_CA_PEM, HttpsTrust, TlsConfig, TlsFileError};

pub(super) const SECURITY_PROTOCOL: &str = "security.protocol";

/// Checked settings of a client: which cluster, and with what credential.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClusterConfig {
    pub(crate) bootstrap: Vec<Endpoint>,
    pub(crate) client_id: String,
    /// The only cluster id that is taken, if one is pinned.
    pub(crate) cluster_id: Option<String>,
    pub(crate) request_timeout: Duration,
    pub(crate) retry: Backoff,
    pub(crate) idle: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) reconnect: Backoff,
    pub(crate) metadata_age: Duration,
    pub(crate) sasl: Option<Sasl>,
    pub(crate) security: SecurityProtocol,
    pub(crate) tls: TlsConfig,
    /// What `https.ca.*` says.
    pub(super) https: HttpsTrust,
}

impl ClusterConfig {
    /// `bootstrap.servers`, 1 to 256 times `host:port` with commas between; without TLS and SASL.
    ///
    /// # Errors
    /// [`PropertyError`] when that is not its form.
    pub fn new(bootstrap_servers: &str) -> Result<Self, PropertyError> {
        let property = Property { name: BOOTSTRAP, value: bootstrap_servers };
        Ok(Self { bootstrap: endpoints(property)?, ..Self::unnamed() })
    }

    /// `client.id`, which brokers log and count by; `kafka-upstream` unless set.
    ///
    /// # Errors
    /// [`PropertyError`] when it has more than 249 bytes or a control character.
    pub fn client_id(mut self, id: &str) -> Result<Self, PropertyError> {
        self.client_id = client_id(Property { name: "client.id", value: id })?;
        Ok(self)
    }

    /// Authenticates by SASL, in place of what the properties say of it (`security.protocol` and
    /// `sasl.*`).
    ///
    /// # Errors
    /// [`PropertyError`] names what is missing, or is not a text for SASL.
    pub fn sasl(mut self, login: SaslLogin) -> Result<Self, PropertyError> {
        self.sasl = Some(login.check()?);
        self.security = self.security.with_sasl();
        Ok(self)
    }

    /// Connects by TLS, in place of what the properties say of it (`security.protocol` and `ssl.*`).
    #[must_use]
    pub fn tls(mut self, tls: TlsConfig) -> Self {
        self.tls = tls;
        self.security = self.security.with_tls();
        self
    }

    /// Whose certificates token endpoints and AWS's services may have (`https.ca.location`).
    #[must_use]
    pub fn https_trust(&self) -> HttpsTrust {
        self.https.clone()
    }

    /// `request.timeout.ms`: how long a broker may take for an answer; 30 s unless set.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Reads the files that `ssl.*` names, if TLS is on, and the one of `https.ca.location`; a client
    /// reads them when it first needs them. Blocks.
    ///
    /// # Errors
    /// [`TlsFileError`] names the property, the file and what is wrong.
    pub fn check_files(&self) -> Result<(), TlsFileError> {
        self.https.check()?;
        if self.security.has_tls() { crate::tls::check(&self.tls) } else { Ok(()) }
    }

    /// Where the credential comes from, if it is not in the properties: whoever makes a client must
    /// give it something that asks there.
    pub fn credential_source(&self) -> Option<Source> {
        match &self.sasl.as_ref()?.identity {
            SaslIdentity::Password { .. } | SaslIdentity::Token(_) | SaslIdentity::Kerberos(_) => {
                None
            }
            SaslIdentity::OAuth(client) => Some(Source::OAuth(client.clone())),
            SaslIdentity::Aws(client) => Some(Source::Aws(client.clone())),
        }
    }

    /// Of no cluster yet.
    pub(super) fn unnamed() -> Self {
        Self {
            bootstrap: Vec::new(),
            client_id: "kafka-upstream".to_owned(),
            cluster_id: None,
            request_timeout: Duration::from_secs(30),
            retry: Backoff { base: Duration::from_millis(100), max: Duration::from_secs(1) },
            idle: Duration::from_secs(540),
            connect_timeout: Duration::from_secs(10),
            reconnect: Backoff { base: Duration::from_millis(50), max: Duration::from_secs(1) },
            metadata_age: Duration::from_secs(300),
            sasl: None,
            security: SecurityProtocol::default(),
            tls: TlsConfig::default(),
            https: HttpsTrust::default(),
        }
    }

    /// Whether it is a property of the cluster, and set; those of SASL and TLS are read elsewhere.
    pub(super) fn set(&mut self, property: Property<'_>) -> Result<bool, PropertyError> {
        match property.name {
            BOOTSTRAP => self.bootstrap = endpoints(property)?,
            "client.id" => self.client_id = client_id(property)?,
            CLUSTER_ID => self.cluster_id = Some(cluster_id(property)?),
            "request.timeout.ms" => self.request_timeout = property.millis(1, INT_MAX)?,
            "retry.backoff.ms" => self.retry.base = property.millis(0, DAY_MS)?,
            "retry.backoff.max.ms" => self.retry.max = property.millis(0, DAY_MS)?,
            "connections.max.idle.ms" => self.idle = property.millis(1000, DAY_MS)?,
            "socket.connection.setup.timeout.ms" => {
                self.connect_timeout = property.millis(1, DAY_MS)?;
            }
            "reconnect.backoff.ms" => self.reconnect.base = property.millis(0, DAY_MS)?,
            "reconnect.backoff.max.ms" => self.reconnect.max = property.millis(0, DAY_MS)?,
            "metadata.max.age.ms" => self.metadata_age = property.millis(1000, DAY_MS)?,
            SECURITY_PROTOCOL => self.security = SecurityProtocol::parse(property)?,
            HTTPS_CA => self.https = HttpsTrust::Authorities(tls::file(property)?),
            HTTPS_CA_PEM => self.https = HttpsTrust::Authorities(tls::pem(property)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(super) fn check(&self) -> Result<(), PropertyError> {
        let conflict = |name, other| Err(PropertyError::Conflict { name, other });
        if self.bootstrap.is_empty() {
            Err(PropertyError::Missing(BOOTSTRAP))
        } else if self.retry.base > self.retry.max {
            conflict("retry.backoff.ms", "retry.backoff.max.ms")
        } else if self.reconnect.base > self.reconnect.max {
            conflict("reconnect.backoff.ms", "reconnect.backoff.max.ms")
        } else {
            Ok(())
        }
    }
}

/// The value of `security.protocol`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) enum SecurityProtocol {
    #[default]
    Plaintext,
    Ssl,
    SaslPlaintext,
    SaslSsl,
}

impl SecurityProtocol {
    fn parse(property: Property<'_>) -> Result<Self, PropertyError> {
        property.choice(&[
            ("PLAINTEXT", Self::Plaintext),
            ("SSL", Self::Ssl),
            ("SASL_PLAINTEXT", Self::SaslPlaintext),
            ("SASL_SSL", Self::SaslSsl),
        ])
    }

    /// The same over TLS.
    fn with_tls(self) -> Self {
        if self.has_sasl() { Self::SaslSsl } else { Self::Ssl }
    }

    /// The same with SASL on top.
    fn with_sasl(self) -> Self {
        if self.has_tls() { Self::SaslSsl } else { Self::SaslPlaintext }
    }

    /// Whether connections are TLS.
    pub(crate) fn has_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }

    /// Whether the client says who it is by SASL.
    pub(crate) fn has_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }
}

fn endpoints(property: Property<'_>) -> Result<Vec<Endpoint>, PropertyError> {
    let parsed: Option<Vec<_>> = property
        .value
        .split(',')
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .map(Endpoint::parse)
        .collect();
    parsed
        .filter(|list| (1..=256).contains(&list.len()))
        .ok_or_else(|| property.invalid("1 to 256 times `host:port`, with commas between".into()))
}

fn client_id(property: Property<'_>) -> Result<String, PropertyError> {
    let len = property.value.len();
    let printable = property.value.chars().all(|c| !c.is_control());
    if printable && len <= 249 {
        Ok(property.value.to_owned())
    } else {
        Err(property.invalid("at most 249 bytes without control characters".into()))
    }
}

fn cluster_id(property: Property<'_>) -> Result<String, PropertyError> {
    let id = property.value;
    if (1..=249).contains(&id.len()) && id.chars().all(|c| c.is_ascii_graphic()) {
        Ok(id.to_owned())
    } else {
        Err(property.invalid("the id of a Kafka cluster, 1 to 249 visible characters".into()))
    }
}
