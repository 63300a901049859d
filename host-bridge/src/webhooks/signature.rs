//! Signatures by Standard Webhooks 1.0.0, by which receivers know who sends.

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};
use kafka_client::Secret;
use ring::hmac;
use ring::signature::Ed25519KeyPair;

/// The keys of a webhook: one, or two while receivers change over from one to the other.
pub(super) struct Keys(Vec<Key>);

enum Key {
    /// `v1`: HMAC-SHA256, with a secret that the receiver has, too.
    Shared(hmac::Key),
    /// `v1a`: ed25519; the receiver has the public key.
    Private(Ed25519KeyPair),
}

impl Keys {
    /// Reads `whsec_…` and `whsk_…`.
    ///
    /// # Errors
    /// What is wrong, without the key.
    pub(super) fn new(texts: &[Secret]) -> Result<Self, &'static str> {
        match texts.len() {
            1 | 2 => texts.iter().map(Key::new).collect::<Result<_, _>>().map(Self),
            0 => Err("there is no secret"),
            _ => Err("there are more than two secrets"),
        }
    }

    /// `webhook-signature` of a message.
    pub(super) fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let signed = [format!("{id}.{timestamp}.").as_bytes(), body].concat();
        let signatures = self.0.iter().map(|key| match key {
            Key::Shared(key) => format!("v1,{}", BASE64_STANDARD.encode(hmac::sign(key, &signed))),
            Key::Private(key) => format!("v1a,{}", BASE64_STANDARD.encode(key.sign(&signed))),
        });
        signatures.collect::<Vec<_>>().join(" ")
    }
}

impl Key {
    fn new(text: &Secret) -> Result<Self, &'static str> {
        // Some leave the padding out.
        let decoded = |base64: &str| {
            let bytes = BASE64_STANDARD_NO_PAD.decode(base64.trim_end_matches('='));
            bytes.map_err(|_| "is not base64")
        };
        if let Some(base64) = text.expose().strip_prefix("whsec_") {
            let bytes = decoded(base64)?;
            return match bytes.len() {
                24..=64 => Ok(Self::Shared(hmac::Key::new(hmac::HMAC_SHA256, &bytes))),
                _ => Err("a `whsec_` secret has 24 to 64 bytes"),
            };
        }
        let base64 = text.expose().strip_prefix("whsk_");
        let bytes = decoded(base64.ok_or("must begin with `whsec_` or `whsk_`")?)?;
        let pair = match bytes.split_at_checked(SEED_BYTES) {
            Some((seed, [])) => Ed25519KeyPair::from_seed_unchecked(seed),
            Some((seed, public)) => Ed25519KeyPair::from_seed_and_public_key(seed, public),
            None => return Err("a `whsk_` key has 32 or 64 bytes"),
        };
        pair.map(Self::Private).map_err(|_| "the `whsk_` key is no ed25519 key")
    }
}

/// Bytes of an ed25519 seed. Behind it may stand the public key.
const SEED_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(texts: &[&str]) -> Result<Keys, &'static str> {
        let secrets: Vec<_> = texts.iter().map(|text| Secret::new(*text)).collect();
        Keys::new(&secrets)
    }

    const SHARED: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    /// A key pair of the specification of ed25519 (RFC 8032, 7.1).
    const SEED: [u8; 32] = [
        0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c,
        0xc4, 0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae,
        0x7f, 0x60,
    ];

    #[test]
    fn the_signature_is_that_of_the_standards_libraries() {
        let (id, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", br#"{"test": 2432232314}"#);
        let signed = keys(&[SHARED]).unwrap().sign(id, 1_614_265_330, body);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn two_keys_of_either_kind_sign_during_a_rotation() {
        let private = format!("whsk_{}", BASE64_STANDARD.encode(SEED));
        let signed = keys(&[&private, SHARED]).unwrap().sign("a", 1, b"b");
        let Some((of_private, of_shared)) = signed.split_once(' ') else { panic!("{signed}") };
        assert_eq!(of_shared, keys(&[SHARED]).unwrap().sign("a", 1, b"b"));
        let signature = BASE64_STANDARD.decode(of_private.strip_prefix("v1a,").unwrap()).unwrap();
        let pair = Ed25519KeyPair::from_seed_unchecked(&SEED).unwrap();
        let public = ring::signature::KeyPair::public_key(&pair).as_ref().to_vec();
        let key = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, &public);
        key.verify(b"a.1.b", &signature).unwrap();
        let whole = format!("whsk_{}", BASE64_STANDARD.encode([&SEED[..], &public].concat()));
        assert_eq!(keys(&[&whole]).unwrap().sign("a", 1, b"b"), of_private);
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_shown() {
        let of =
            |prefix: &str, bytes| format!("{prefix}{}", BASE64_STANDARD.encode(vec![1; bytes]));
        assert!(keys(&[of("whsec_", 25).trim_end_matches('=')]).is_ok());
        assert!(keys(&[&of("whsec_", 24)]).is_ok() && keys(&[&of("whsec_", 64)]).is_ok());
        for (texts, wrong) in [
            (&[][..], "there is no secret"),
            (&[SHARED; 3], "there are more than two secrets"),
            (&["hunter2"], "must begin with `whsec_` or `whsk_`"),
            (&["whsec_hunter2"], "is not base64"),
            (&[&of("whsec_", 23)], "a `whsec_` secret has 24 to 64 bytes"),
            (&[&of("whsec_", 65)], "a `whsec_` secret has 24 to 64 bytes"),
            (&[&of("whsk_", 31)], "a `whsk_` key has 32 or 64 bytes"),
            (&[&of("whsk_", 63)], "the `whsk_` key is no ed25519 key"),
            (&[&of("whsk_", 64)], "the `whsk_` key is no ed25519 key"),
        ] {
            assert_eq!(keys(texts).err(), Some(wrong));
        }
    }
}
