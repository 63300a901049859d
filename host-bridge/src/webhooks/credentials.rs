//! What tells a receiver who sends, read from the files that the configuration names, and again when they
//! change.

use std::path::PathBuf;
use std::sync::Arc;

use axum::http::HeaderValue;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kafka_client::{Secret, SecretSource, TlsFileError};

use super::config::{Auth, Secrets, WebhookConfig};
use super::signature::Keys;
use crate::credentials::sensitive;
use crate::watched::Watched;

/// As they are now.
pub(super) struct Credentials {
    pub(super) keys: Option<Keys>,
    pub(super) authorization: Option<HeaderValue>,
}

/// Reads them. Blocks.
///
/// # Errors
/// What is wrong with which field.
pub(super) fn load(config: &WebhookConfig) -> Result<Arc<Watched<Credentials>>, String> {
    let of_keys = match &config.secrets {
        Some(Secrets::File(source)) => Some(source),
        _ => None,
    };
    let of_auth = match &config.auth {
        Auth::None | Auth::OAuth2(_) => None,
        Auth::Basic { password, .. } => Some(password),
        Auth::Bearer(token) => Some(token),
    };
    let files = of_keys.into_iter().chain(of_auth).filter_map(path).collect();
    config.trust.check().map_err(|error| of_field(&error))?;
    let config = config.clone();
    Watched::new(files, move || {
        let keys = config.secrets.as_ref().map(keys).transpose();
        Ok(Credentials { keys: keys?, authorization: authorization(&config.auth)? })
    })
}

fn keys(secrets: &Secrets) -> Result<Keys, String> {
    let (field, texts) = match secrets {
        Secrets::Given(texts) => ("secrets", texts.clone()),
        Secrets::File(source) => {
            let text = read(source, "secrets")?;
            let lines = text.expose().lines().map(str::trim).filter(|line| !line.is_empty());
            ("secrets_file", lines.map(Secret::new).collect())
        }
    };
    Keys::new(&texts).map_err(|error| format!("{field}: {error}"))
}

fn authorization(auth: &Auth) -> Result<Option<HeaderValue>, String> {
    let (value, field) = match auth {
        Auth::None | Auth::OAuth2(_) => return Ok(None),
        Auth::Basic { username, password } => {
            let pair = format!("{username}:{}", read(password, "password")?.expose());
            (format!("Basic {}", BASE64_STANDARD.encode(pair)), "password")
        }
        Auth::Bearer(token) => {
            (format!("Bearer {}", read(token, "token")?.expose().trim()), "token")
        }
    };
    let value = sensitive(value);
    value.map(Some).map_err(|()| format!("{field}: has characters that no header may have"))
}

fn read(source: &SecretSource, field: &str) -> Result<Secret, String> {
    let place = path(source).map(|path| format!("{field}_file: {}", path.display()));
    let place = place.unwrap_or_else(|| field.to_owned());
    source.read().map_err(|error| format!("{place}: {error}"))
}

/// The error names the property of a cluster that the webhook's field stands for.
fn of_field(error: &TlsFileError) -> String {
    let field = |property| match property {
        "https.ca.location" | "ssl.truststore.certificates" => "ca_file",
        "ssl.keystore.key" => "key_file",
        "ssl.keystore.certificate.chain" => "certificate_file",
        other => other,
    };
    match error {
        TlsFileError::Unreadable { property, path, what } => {
            format!("{}: {path}: {what}", field(property))
        }
        TlsFileError::Unusable { property, what } => format!("{}: {what}", field(property)),
        other => other.to_string(),
    }
}

fn path(source: &SecretSource) -> Option<PathBuf> {
    match source {
        SecretSource::File(path) => Some(path.clone()),
        SecretSource::Given(_) => None,
    }
}
