//! JKS stores, as keytool wrote them up to Java 8 and writes them on request.
//!
//! The format has no specification but the source of the JDK (`sun.security.provider.JavaKeyStore`
//! and `KeyProtector`): counts and lengths in big-endian, a digest over everything at the end, and
//! keys that are XORed with a chain of digests.

use pkcs8::der::asn1::OctetStringRef;
use pkcs8::der::{Decode, Reader as _, SliceReader};
use pkcs8::spki::AlgorithmIdentifierRef;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha1::{Digest, Sha1};
use zeroize::Zeroizing;

use super::key::{KeyAndChain, only};
use crate::limits::STORE_ENTRIES;
use crate::secret::Secret;

/// What stands between the password and the content in the store's digest.
const WHITENER: &[u8] = b"Mighty Aphrodite";
const DIGEST_BYTES: usize = 20;
const PRIVATE_KEY: u32 = 1;
const TRUSTED_CERTIFICATE: u32 = 2;

/// A private key as it is in the store, with its chain.
struct Protected<'a> {
    key: &'a [u8],
    chain: Vec<CertificateDer<'static>>,
}

struct Store<'a> {
    keys: Vec<Protected<'a>>,
    trusted: Vec<CertificateDer<'static>>,
}

/// Without a password the digest is not checked, as in Java.
pub(super) fn trusted(
    bytes: &[u8],
    password: Option<&Secret>,
) -> Result<Vec<CertificateDer<'static>>, String> {
    Ok(open(bytes, password)?.trusted)
}

pub(super) fn identity(
    bytes: &[u8],
    password: Option<&Secret>,
    key_password: Option<&Secret>,
) -> Result<KeyAndChain, String> {
    let found = only(open(bytes, password)?.keys)?;
    let password = key_password.or(password).ok_or("it needs a password")?;
    let key = unprotect(found.key, password)?;
    Ok(KeyAndChain { key: PrivateKeyDer::Pkcs8(key.to_vec().into()), chain: found.chain })
}

fn open<'a>(bytes: &'a [u8], password: Option<&Secret>) -> Result<Store<'a>, String> {
    let cut = "the store is cut";
    let end = bytes.len().checked_sub(DIGEST_BYTES).ok_or(cut)?;
    let (content, digest) = bytes.split_at_checked(end).ok_or(cut)?;
    if let Some(password) = password {
        let expected = Sha1::new()
            .chain_update(utf16(password))
            .chain_update(WHITENER)
            .chain_update(content)
            .finalize();
        if expected.as_slice() != digest {
            return Err("the password does not open it, or it is damaged".to_owned());
        }
    }
    read(content).ok_or_else(|| "it is no JKS store that can be read".to_owned())
}

fn read(content: &[u8]) -> Option<Store<'_>> {
    let mut rest = Rest(content);
    let _magic = rest.number()?;
    let version = rest.number()?;
    if !(1..=2).contains(&version) {
        return None;
    }
    let count = rest.count()?;
    let mut store = Store { keys: Vec::new(), trusted: Vec::new() };
    for _ in 0..count {
        let tag = rest.number()?;
        let _alias = rest.text()?;
        let _created = rest.take(8)?;
        match tag {
            PRIVATE_KEY => {
                let key = rest.block()?;
                let length = rest.count()?;
                let mut chain = Vec::new();
                for _ in 0..length {
                    chain.push(rest.certificate(version)?);
                }
                store.keys.push(Protected { key, chain });
            }
            TRUSTED_CERTIFICATE => store.trusted.push(rest.certificate(version)?),
            _ => return None,
        }
    }
    rest.0.is_empty().then_some(store)
}

/// What is left to read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn count(&mut self) -> Option<usize> {
        usize::try_from(self.number()?).ok().filter(|count| *count <= STORE_ENTRIES)
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = u16::from_be_bytes(self.take(2)?.try_into().ok()?);
        self.take(length.into())
    }

    fn block(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        self.take(length)
    }

    fn certificate(&mut self, version: u32) -> Option<CertificateDer<'static>> {
        if version == 2 && self.text()? != b"X.509" {
            return None;
        }
        Some(self.block()?.to_vec().into())
    }
}

/// Salt, the key XORed with a chain of digests, and a digest of the key.
fn unprotect(wrapped: &[u8], password: &Secret) -> Result<Zeroizing<Vec<u8>>, String> {
    let data = protected(wrapped).map_err(|error| format!("its key cannot be read: {error}"))?;
    let cut = "its key is cut";
    let (salt, rest) = data.split_at_checked(DIGEST_BYTES).ok_or(cut)?;
    let length = rest.len().checked_sub(DIGEST_BYTES).ok_or(cut)?;
    let (hidden, digest) = rest.split_at_checked(length).ok_or(cut)?;
    let password = utf16(password);
    let mut key = Zeroizing::new(Vec::with_capacity(hidden.len()));
    let mut pad = salt.to_vec();
    for piece in hidden.chunks(DIGEST_BYTES) {
        pad = Sha1::new().chain_update(&password).chain_update(&pad).finalize().to_vec();
        key.extend(piece.iter().zip(&pad).map(|(hidden, pad)| hidden ^ pad));
    }
    let expected = Sha1::new().chain_update(&password).chain_update(&key).finalize();
    if expected.as_slice() == digest {
        Ok(key)
    } else {
        Err("the password does not open its key; set `ssl.key.password`".to_owned())
    }
}

/// The octets of an `EncryptedPrivateKeyInfo`, whose algorithm is Sun's own.
fn protected(wrapped: &[u8]) -> pkcs8::der::Result<&[u8]> {
    let mut reader = SliceReader::new(wrapped)?;
    reader.sequence(|reader| {
        let _algorithm = AlgorithmIdentifierRef::decode(reader)?;
        Ok::<_, pkcs8::der::Error>(<&OctetStringRef>::decode(reader)?.as_bytes())
    })
}

fn utf16(password: &Secret) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(password.expose().encode_utf16().flat_map(u16::to_be_bytes).collect())
}
