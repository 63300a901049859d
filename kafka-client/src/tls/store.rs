//! Key and trust stores: what they hold, whichever of the three kinds they are.

pub(super) mod ec;
mod jks;
mod key;
pub(super) mod pem;
mod pkcs12;

#[cfg(test)]
mod tests;

use rustls::pki_types::CertificateDer;

pub(super) use key::KeyAndChain;

use crate::secret::Secret;

/// What a store says of itself by its first bytes; Java, too, trusts them more than a name.
enum StoreKind {
    Jks,
    Pem,
    Pkcs12,
}

impl StoreKind {
    fn of(bytes: &[u8]) -> Result<Self, String> {
        match bytes {
            [0xfe, 0xed, 0xfe, 0xed, ..] => Ok(Self::Jks),
            [0xce, 0xce, 0xce, 0xce, ..] => {
                Err("it is a JCEKS store; `keytool -importkeystore` makes a PKCS12 store of it"
                    .into())
            }
            // A sequence of DER.
            [0x30, 0x80..=0x84, ..] => Ok(Self::Pkcs12),
            [] => Err("it is empty".to_owned()),
            _ => Ok(Self::Pem),
        }
    }
}

/// The certificates that a truststore trusts.
pub(super) fn trusted(
    bytes: &[u8],
    password: Option<&Secret>,
) -> Result<Vec<CertificateDer<'static>>, String> {
    match StoreKind::of(bytes)? {
        StoreKind::Jks => jks::trusted(bytes, password),
        StoreKind::Pem => pem::certificates(bytes),
        StoreKind::Pkcs12 => pkcs12::trusted(bytes, password),
    }
}

/// The one private key of a keystore with its chain. `key_password` opens the key, where that has a
/// password of its own.
pub(super) fn identity(
    bytes: &[u8],
    password: Option<&Secret>,
    key_password: Option<&Secret>,
) -> Result<KeyAndChain, String> {
    match StoreKind::of(bytes)? {
        StoreKind::Jks => jks::identity(bytes, password, key_password),
        StoreKind::Pem => {
            let key = pem::private_key(bytes, key_password)?;
            let chain = pem::certificates(bytes).and_then(pem::at_least_one)?;
            Ok(KeyAndChain { key, chain })
        }
        StoreKind::Pkcs12 => pkcs12::identity(bytes, password),
    }
}
