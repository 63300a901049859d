//! PKCS12 stores, of today's keytool and OpenSSL as well as with the ciphers of old ones.

use p12_keystore::error::Error;
use p12_keystore::{KeyStore, KeyStoreEntry, Pkcs12Archive, Pkcs12ImportPolicy};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::key::{KeyAndChain, only};
use crate::secret::Secret;

/// Those that keytool marked as trusted; in a store without any such mark, as OpenSSL writes it,
/// those that belong to no key.
pub(super) fn trusted(
    bytes: &[u8],
    password: Option<&Secret>,
) -> Result<Vec<CertificateDer<'static>>, String> {
    let archive = Pkcs12Archive::from_pkcs12(bytes, text(password))
        .map_err(|error| explain(&error, password))?;
    let is_marked = archive.certs.iter().any(|certificate| certificate.trusted);
    let wanted = archive.certs.iter().filter(|certificate| {
        if is_marked { certificate.trusted } else { certificate.local_key_id.is_none() }
    });
    Ok(wanted.map(|found| found.cert.as_der().to_vec().into()).collect())
}

pub(super) fn identity(bytes: &[u8], password: Option<&Secret>) -> Result<KeyAndChain, String> {
    let store = KeyStore::from_pkcs12(bytes, text(password), Pkcs12ImportPolicy::Strict)
        .map_err(|error| explain(&error, password))?;
    let keys = store.entries().filter_map(|(_, entry)| match entry {
        KeyStoreEntry::PrivateKeyChain(chain) => Some(chain),
        KeyStoreEntry::Certificate(_) | KeyStoreEntry::Secret(_) => None,
    });
    let found = only(keys.collect())?;
    let chain = found.certs().iter().map(|found| found.as_der().to_vec().into()).collect();
    Ok(KeyAndChain { key: PrivateKeyDer::Pkcs8(found.key().as_der().to_vec().into()), chain })
}

fn text(password: Option<&Secret>) -> &str {
    password.map_or("", Secret::expose)
}

fn explain(error: &Error, password: Option<&Secret>) -> String {
    match error {
        Error::MacError(_) | Error::UnpadError | Error::Pkcs5Error(_) if password.is_some() => {
            "the password does not open it".to_owned()
        }
        Error::MacError(_) | Error::UnpadError | Error::Pkcs5Error(_) => {
            "it needs a password".to_owned()
        }
        Error::InvalidParameters => {
            "its parameters cannot be; more than 1000000 iterations are not made".to_owned()
        }
        Error::UnsupportedEncryptionScheme => {
            "its encryption is unknown; `keytool -importkeystore` makes a store with a known one"
                .to_owned()
        }
        other => format!("it is not a readable PKCS12 store: {other}"),
    }
}
