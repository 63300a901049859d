//! `security.protocol`: what connections are wrapped in, and whether they are authenticated.

use super::property::{Property, PropertyError};

pub(super) const SECURITY_PROTOCOL: &str = "security.protocol";

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
    pub(super) fn parse(property: Property<'_>) -> Result<Self, PropertyError> {
        property.choice(&[
            ("PLAINTEXT", Self::Plaintext),
            ("SSL", Self::Ssl),
            ("SASL_PLAINTEXT", Self::SaslPlaintext),
            ("SASL_SSL", Self::SaslSsl),
        ])
    }

    /// The same with SASL on top.
    pub(super) fn with_sasl(self) -> Self {
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
