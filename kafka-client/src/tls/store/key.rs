//! A private key with its certificates, and how an encrypted one is opened: PKCS#8 with PBES2.

use pkcs8::EncryptedPrivateKeyInfoRef;
use pkcs8::pkcs5::EncryptionScheme;
use pkcs8::pkcs5::pbes2::Kdf;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::limits::{KDF_ITERATIONS, SCRYPT_BYTES};
use crate::secret::Secret;

/// A private key and the certificates that go with it, our own first.
pub(in crate::tls) struct KeyAndChain {
    pub(in crate::tls) key: PrivateKeyDer<'static>,
    pub(in crate::tls) chain: Vec<CertificateDer<'static>>,
}

/// The only one of `found`.
pub(super) fn only<T>(found: Vec<T>) -> Result<T, String> {
    let count = found.len();
    let mut found = found.into_iter();
    match (found.next(), count) {
        (Some(one), 1) => Ok(one),
        (None, _) => Err("there is no private key with its certificate in it".to_owned()),
        (Some(_), _) => Err(format!("there are {count} private keys in it; only one can be used")),
    }
}

/// Opens an `EncryptedPrivateKeyInfo`.
pub(super) fn decrypt(
    der: &[u8],
    password: Option<&Secret>,
) -> Result<PrivateKeyDer<'static>, String> {
    let info = EncryptedPrivateKeyInfoRef::try_from(der)
        .map_err(|error| format!("the encrypted key cannot be read: {error}"))?;
    let EncryptionScheme::Pbes2(parameters) = &info.encryption_algorithm else {
        return Err(
            "the key is encrypted in the old way PBES1; `openssl pkcs8 -topk8 -v2 aes256` \
                    makes one that can be read"
                .to_owned(),
        );
    };
    check_cost(&parameters.kdf)?;
    let password = password.ok_or("the key is encrypted; set `ssl.key.password`")?;
    let key = info
        .decrypt(password.expose())
        .map_err(|_| "`ssl.key.password` does not open the key".to_owned())?;
    Ok(PrivateKeyDer::Pkcs8(key.as_bytes().to_vec().into()))
}

/// Whoever wrote the file chose how much work and memory its key takes.
fn check_cost(kdf: &Kdf) -> Result<(), String> {
    let fits = match kdf {
        Kdf::Pbkdf2(parameters) => parameters.iteration_count <= KDF_ITERATIONS,
        Kdf::Scrypt(parameters) => {
            let cost = parameters
                .cost_parameter
                .saturating_mul(u64::from(parameters.block_size))
                .saturating_mul(128);
            cost <= SCRYPT_BYTES && parameters.parallelization <= 16
        }
        _ => false,
    };
    fits.then_some(()).ok_or_else(|| {
        format!(
            "to open the key would cost too much: at most {KDF_ITERATIONS} iterations of PBKDF2, \
             or {SCRYPT_BYTES} bytes for scrypt"
        )
    })
}
