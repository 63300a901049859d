//! PEM: certificates and private keys in text, with whatever else stands around them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::key;
use crate::limits::STORE_ENTRIES;
use crate::secret::Secret;

/// What stands between a `BEGIN` and its `END`.
struct Section<'a> {
    label: &'a str,
    content: &'a str,
}

/// All certificates, in order.
pub(in crate::tls) fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let labels = ["CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE"];
    let found = sections(text)?;
    let wanted = found.iter().filter(|section| labels.contains(&section.label));
    wanted.map(|section| Ok(CertificateDer::from(decode(section)?.to_vec()))).collect()
}

/// Refuses a chain without certificates.
pub(in crate::tls) fn at_least_one(
    chain: Vec<CertificateDer<'static>>,
) -> Result<Vec<CertificateDer<'static>>, String> {
    if chain.is_empty() { Err("there is no certificate in it".to_owned()) } else { Ok(chain) }
}

/// The one private key: PKCS#8, which may be encrypted, PKCS#1 or SEC1.
pub(in crate::tls) fn private_key(
    text: &[u8],
    password: Option<&Secret>,
) -> Result<PrivateKeyDer<'static>, String> {
    let found = sections(text)?;
    let mut keys = found.iter().filter(|section| section.label.ends_with("PRIVATE KEY"));
    let section = keys.next().ok_or("there is no private key in it")?;
    if keys.next().is_some() {
        return Err("there is more than one private key in it".to_owned());
    }
    if section.content.contains("Proc-Type:") {
        return Err("the key is encrypted in OpenSSL's own old way; \
                    `openssl pkcs8 -topk8` makes one that can be read"
            .to_owned());
    }
    let bytes = decode(section)?;
    match section.label {
        "PRIVATE KEY" => Ok(PrivateKeyDer::Pkcs8(bytes.to_vec().into())),
        "ENCRYPTED PRIVATE KEY" => key::decrypt(&bytes, password),
        "RSA PRIVATE KEY" => Ok(PrivateKeyDer::Pkcs1(bytes.to_vec().into())),
        "EC PRIVATE KEY" => Ok(PrivateKeyDer::Sec1(bytes.to_vec().into())),
        label => Err(format!("a key of the kind `{label}` cannot be read")),
    }
}

fn sections(text: &[u8]) -> Result<Vec<Section<'_>>, String> {
    let text = std::str::from_utf8(text).map_err(|_| "it is not PEM: not a text")?;
    let mut sections = Vec::new();
    let mut rest = text;
    while let Some((_, begun)) = rest.split_once("-----BEGIN ") {
        let (label, body) = begun.split_once("-----").ok_or("a BEGIN line is cut")?;
        let (content, after) = body
            .split_once(&*format!("-----END {label}-----"))
            .ok_or_else(|| format!("`BEGIN {}` has no END", shown(label)))?;
        if sections.len() >= STORE_ENTRIES {
            return Err(format!("there are more than {STORE_ENTRIES} parts in it"));
        }
        sections.push(Section { label, content });
        rest = after;
    }
    Ok(sections)
}

fn decode(section: &Section<'_>) -> Result<Zeroizing<Vec<u8>>, String> {
    let compact: Zeroizing<String> =
        Zeroizing::new(section.content.chars().filter(|c| !c.is_ascii_whitespace()).collect());
    STANDARD
        .decode(compact.as_bytes())
        .map(Zeroizing::new)
        .map_err(|_| format!("`BEGIN {}` is not followed by base64", shown(section.label)))
}

/// As much of a label as an error may repeat.
fn shown(label: &str) -> String {
    label.chars().filter(|c| !c.is_control()).take(40).collect()
}
