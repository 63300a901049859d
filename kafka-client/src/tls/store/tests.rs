//! Stores and keys that keytool and OpenSSL wrote, and what is said of those that cannot be read.

use std::path::Path;

use base64::Engine as _;
use proptest::prelude::*;

use rustls::pki_types::PrivateKeyDer;

use super::*;

const PASSWORD: &str = "store word";

fn read(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stores");
    std::fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn secret(text: &str) -> Option<Secret> {
    Some(Secret::new(text))
}

fn identity_of(
    name: &str,
    password: Option<&str>,
    key: Option<&str>,
) -> Result<KeyAndChain, String> {
    let (password, key) = (password.map(Secret::new), key.map(Secret::new));
    identity(&read(name), password.as_ref(), key.as_ref())
}

fn trusted_of(name: &str, password: Option<&str>) -> Result<Vec<CertificateDer<'static>>, String> {
    trusted(&read(name), password.map(Secret::new).as_ref())
}

fn key_of(name: &str, password: Option<&str>) -> Result<PrivateKeyDer<'static>, String> {
    pem::private_key(&read(name), password.map(Secret::new).as_ref())
}

#[test]
fn the_same_key_and_chain_come_out_of_every_keystore() {
    let key = key_of("key-pkcs8.pem", None).unwrap();
    let chain = pem::certificates(&read("chain.pem")).unwrap();
    assert_eq!(chain.len(), 2);
    for (name, key_password) in [
        ("client.p12", None),
        ("client-legacy.p12", None),
        ("client-openssl.p12", None),
        ("client.jks", None),
        ("client-keyword.jks", Some("key wörd")),
    ] {
        let found = identity_of(name, Some(PASSWORD), key_password).unwrap();
        assert!(found.key.secret_der() == key.secret_der(), "{name}");
        assert_eq!(found.chain, chain, "{name}");
    }
}

#[test]
fn a_pem_file_has_the_key_and_the_chain_in_any_order() {
    let parts = [read("chain.pem"), read("key-aes.pem")];
    for text in [parts.concat(), [parts[1].clone(), parts[0].clone()].concat()] {
        let found = identity(&text, None, secret(PASSWORD).as_ref()).unwrap();
        assert_eq!(found.chain.len(), 2);
    }
    let error = identity(&parts[1], None, secret(PASSWORD).as_ref()).map(|_| ()).unwrap_err();
    assert_eq!(error, "there is no certificate in it");
    let both = [&parts[0][..], &parts[1], &parts[1]].concat();
    let error = identity(&both, None, secret(PASSWORD).as_ref()).map(|_| ()).unwrap_err();
    assert_eq!(error, "there is more than one private key in it");
}

#[test]
fn the_same_authority_comes_out_of_every_truststore() {
    let authority = pem::certificates(&read("ca.pem")).unwrap();
    for name in ["trust.p12", "trust-legacy.p12", "trust-openssl.p12", "trust.jks", "ca.pem"] {
        assert_eq!(trusted_of(name, Some(PASSWORD)).unwrap(), authority, "{name}");
    }
    for name in ["trust-no-password.p12", "trust.jks", "ca.pem"] {
        assert_eq!(trusted_of(name, None).unwrap(), authority, "{name} without a password");
    }
    let mixed = trusted_of("client.p12", Some(PASSWORD)).unwrap();
    assert_eq!(mixed, authority, "what is trusted, and not the chain of the key");
}

#[test]
fn private_keys_are_read_in_every_common_form() {
    let key = key_of("key-pkcs8.pem", None).unwrap();
    for name in ["key-aes.pem", "key-scrypt.pem", "key-3des-sha1.pem"] {
        let found = key_of(name, Some(PASSWORD)).unwrap();
        assert!(found.secret_der() == key.secret_der(), "{name}");
    }
    assert!(matches!(key_of("key-pkcs1.pem", None), Ok(PrivateKeyDer::Pkcs1(_))));
    assert!(matches!(key_of("key-sec1.pem", None), Ok(PrivateKeyDer::Sec1(_))));
}

#[test]
fn what_cannot_be_opened_says_why() {
    let wrong = Some("wrong");
    for (name, password, said) in [
        ("client.p12", wrong, "the password does not open it"),
        ("client-legacy.p12", wrong, "the password does not open it"),
        ("client.p12", None, "it needs a password"),
        ("client.jks", wrong, "the password does not open it, or it is damaged"),
        ("client.jks", None, "it needs a password"),
        ("client-keyword.jks", Some(PASSWORD), "the password does not open its key"),
        ("client.jceks.jks", Some(PASSWORD), "it is a JCEKS store"),
        ("trust.p12", Some(PASSWORD), "there is no private key with its certificate in it"),
        ("trust.jks", Some(PASSWORD), "there is no private key with its certificate in it"),
        ("trust-costly.p12", Some(PASSWORD), "its parameters cannot be; more than 1000000"),
    ] {
        let error = identity_of(name, password, None).map(|_| ()).unwrap_err();
        assert!(error.starts_with(said), "{name}: {error}");
    }
    for (name, password, said) in [
        ("key-aes.pem", wrong, "`ssl.key.password` does not open the key"),
        ("key-aes.pem", None, "the key is encrypted; set `ssl.key.password`"),
        ("key-costly.pem", Some(PASSWORD), "to open the key would cost too much"),
        ("key-pbes1.pem", Some(PASSWORD), "the encrypted key cannot be read: "),
        ("key-openssl.pem", Some(PASSWORD), "the key is encrypted in OpenSSL's own old way"),
        ("ca.pem", None, "there is no private key in it"),
    ] {
        let error = key_of(name, password).map(|_| ()).unwrap_err();
        assert!(error.starts_with(said), "{name}: {error}");
        assert!(!error.contains(PASSWORD), "{error}");
    }
    assert_eq!(trusted(&[], None).unwrap_err(), "it is empty");
}

#[test]
fn the_memory_that_scrypt_takes_is_bounded() {
    let text = String::from_utf8(read("key-scrypt.pem")).unwrap();
    let inner: String = text.lines().filter(|line| !line.starts_with('-')).collect();
    let mut key = base64::engine::general_purpose::STANDARD.decode(inner).unwrap();
    let place = key.windows(7).position(|seven| seven == [2, 2, 0x40, 0, 2, 1, 8]).unwrap();
    assert!(key::decrypt(&key, secret(PASSWORD).as_ref()).is_ok());
    // A block size of 127 instead of 8: 266 MB.
    key[place + 6] = 127;
    let error = key::decrypt(&key, secret(PASSWORD).as_ref()).map(|_| ()).unwrap_err();
    assert!(error.starts_with("to open the key would cost too much"), "{error}");
}

#[test]
fn a_key_of_java_without_its_public_half_can_be_used() {
    let usable =
        |key: &PrivateKeyDer<'_>| rustls::crypto::ring::sign::any_supported_type(key).is_ok();
    let found = identity_of("curve.p12", Some(PASSWORD), None).unwrap();
    assert!(!usable(&found.key), "then what adds it is no longer needed");
    let completed = ec::with_public_key(found);
    assert!(usable(&completed.key));
    let again = completed.key.clone_key();
    assert!(ec::with_public_key(completed).key == again, "a whole key stays as it is");
    let other = identity_of("client.p12", Some(PASSWORD), None).unwrap();
    let before = other.key.clone_key();
    assert!(ec::with_public_key(other).key == before);
}

#[test]
fn a_cut_store_or_pem_is_an_error() {
    for name in ["trust.jks", "client.jks", "trust-no-password.p12", "chain.pem"] {
        let whole = read(name);
        for length in 1..whole.trim_ascii_end().len() {
            let (cut, password) = (&whole[..length], secret(PASSWORD));
            let found = trusted(cut, if name.ends_with("p12") { None } else { password.as_ref() });
            // Of a cut PEM the whole parts are left, and what follows the last one is text.
            let least = found.map_or(0, |found| found.len());
            assert!(least < 2 && (least == 0 || name == "chain.pem"), "{name} cut at {length}");
        }
    }
}

fn any_store() -> impl Strategy<Value = (Vec<u8>, Option<Secret>)> {
    // Without a KDF's work: the digests are not checked, so that what is damaged is read.
    let names = ["trust.jks", "client.jks", "client-keyword.jks", "trust-no-password.p12"];
    let pems = ["chain.pem", "key-pkcs8.pem", "key-sec1.pem", "key-openssl.pem"];
    let names = [&names[..], &pems[..]].concat();
    let damage = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6);
    (prop::sample::select(names), damage, any::<bool>()).prop_map(|(name, damage, has_password)| {
        let mut bytes = read(name);
        for (place, value) in damage {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        (bytes, has_password.then(|| Secret::new(PASSWORD)))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damaged_stores_never_panic((bytes, password) in any_store()) {
        let _found = trusted(&bytes, password.as_ref());
        let _found = identity(&bytes, password.as_ref(), secret("x").as_ref());
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..300),
        magic in prop::sample::select(vec![
            &[][..], &[0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2], &[0x30, 0x82], b"-----BEGIN CERTIFICATE-----",
        ]),
    ) {
        bytes.splice(0..0, magic.iter().copied());
        let _found = trusted(&bytes, None);
        let _found = identity(&bytes, None, secret("x").as_ref());
        let _found = key::decrypt(&bytes, secret("x").as_ref());
    }
}
