//! Elliptic-curve keys as Java writes them: without the public half, which our cryptography wants.

use pkcs8::PrivateKeyInfoRef;
use pkcs8::der::asn1::{ObjectIdentifier, OctetStringRef};
use pkcs8::der::{Decode, Encode, Reader as _, SliceReader};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::key::KeyAndChain;

/// `id-ecPublicKey` (RFC 5480).
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
/// `[1]`, where the public key stands in an `ECPrivateKey` (RFC 5915).
const PUBLIC_KEY: u8 = 0xa1;

/// Adds the public key of the certificate to a private key that lacks it. Whether the two belong
/// together is checked when the key is used; any other key stays as it is.
pub(in crate::tls) fn with_public_key(identity: KeyAndChain) -> KeyAndChain {
    let completed = match (&identity.key, identity.chain.first()) {
        (PrivateKeyDer::Pkcs8(key), Some(own)) => complete(key.secret_pkcs8_der(), own),
        _ => None,
    };
    match completed {
        Some(key) => KeyAndChain { key: PrivateKeyDer::Pkcs8(key.to_vec().into()), ..identity },
        None => identity,
    }
}

fn complete(key: &[u8], certificate: &CertificateDer<'_>) -> Option<Zeroizing<Vec<u8>>> {
    let info = PrivateKeyInfoRef::try_from(key).ok()?;
    if info.algorithm.oid != EC {
        return None;
    }
    let scalar = lonely_scalar(info.private_key.as_bytes())?;
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let point = &certificate.public_key().subject_public_key.data;
    let unused_bits: &[u8] = &[0];
    let public = tlv(PUBLIC_KEY, &[&tlv(BIT_STRING, &[unused_bits, point])?])?;
    let version: &[u8] = &[2, 1, 1];
    let inner = tlv(SEQUENCE, &[version, &tlv(OCTET_STRING, &[scalar])?, &public])?;
    let algorithm = info.algorithm.to_der().ok()?;
    let version: &[u8] = &[2, 1, 0];
    tlv(SEQUENCE, &[version, &algorithm, &tlv(OCTET_STRING, &[&inner])?])
}

/// The scalar of an `ECPrivateKey` that has no public key.
fn lonely_scalar(key: &[u8]) -> Option<&[u8]> {
    let mut reader = SliceReader::new(key).ok()?;
    let read = reader.sequence(|reader| {
        let _version = u8::decode(reader)?;
        let scalar = <&OctetStringRef>::decode(reader)?.as_bytes();
        let rest = reader.read_slice(reader.remaining_len())?;
        Ok::<_, pkcs8::der::Error>((scalar, rest))
    });
    let (scalar, rest) = read.ok()?;
    // What may stand there else are the parameters, which the algorithm names as well.
    let is_alone = rest.is_empty() || !has_public_key(rest);
    is_alone.then_some(scalar)
}

fn has_public_key(rest: &[u8]) -> bool {
    let after_parameters = match rest {
        [0xa0, length, rest @ ..] => rest.get(usize::from(*length)..).unwrap_or_default(),
        rest => rest,
    };
    after_parameters.first() == Some(&PUBLIC_KEY)
}

/// Tag, length and the parts of the content, of at most 64 KiB.
fn tlv(tag: u8, parts: &[&[u8]]) -> Option<Zeroizing<Vec<u8>>> {
    let length = u16::try_from(parts.iter().map(|part| part.len()).sum::<usize>()).ok()?;
    let mut bytes = Zeroizing::new(vec![tag]);
    match length.to_be_bytes() {
        [0, short @ ..=0x7f] => bytes.push(short),
        [0, byte] => bytes.extend([0x81, byte]),
        both => bytes.extend([&[0x82], &both[..]].concat()),
    }
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    Some(bytes)
}
