//! SCRAM (RFC 5802, RFC 7677): both sides prove that they know the password.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::digest::{Digest as _, KeyInit};
use hmac::{Hmac, Mac};
use sha2::{Sha256, Sha512};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::exchange::{Exchange, Flaw, NextMessage};
use crate::error::quotable;
use crate::limits::{ITERATIONS_LEAST, ITERATIONS_MOST};
use crate::lock::Lock;
use crate::secret::Secret;

/// Which hash a SCRAM mechanism is built on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hash {
    Sha256,
    Sha512,
}

/// Whose password is proven, and how it is stored.
#[derive(Debug, Clone)]
pub(crate) struct Proof {
    pub(crate) hash: Hash,
    pub(crate) user: String,
    pub(crate) password: Secret,
    /// User and password are a delegation token's id and HMAC (KIP-48).
    pub(crate) is_token: bool,
}

pub(crate) struct Scram {
    proof: Proof,
    nonce: String,
    salted: Arc<Salted>,
    state: ScramPhase,
}

enum ScramPhase {
    /// Our nonce is out.
    Hello,
    /// Our proof is out; this is what the server must prove.
    Proven(Vec<u8>),
    Done,
}

impl Scram {
    /// `nonce` must be unguessable, printable, and without a comma.
    pub(crate) fn new(proof: Proof, nonce: String, salted: Arc<Salted>) -> Self {
        Self { proof, nonce, salted, state: ScramPhase::Hello }
    }

    /// The first message without its header. It is also part of what both sides sign, the
    /// extension for delegation tokens included.
    fn first_bare(&self) -> String {
        // No SASLprep: Kafka hashes the bytes as they are, and preparing them breaks passwords.
        let user = self.proof.user.replace('=', "=3D").replace(',', "=2C");
        let extension = if self.proof.is_token { ",tokenauth=true" } else { "" };
        format!("n={user},r={}{extension}", self.nonce)
    }

    fn prove(&mut self, answer: &[u8]) -> Result<NextMessage, Flaw> {
        let text = std::str::from_utf8(answer).map_err(|_| Flaw::Unreadable)?;
        let challenge = Challenge::parse(text)?;
        let extends = challenge.nonce.strip_prefix(&*self.nonce);
        extends.filter(|rest| !rest.is_empty()).ok_or(Flaw::Nonce)?;
        let hash = self.proof.hash;
        let salted = self.salted.of(&self.proof, &challenge.salt, challenge.iterations);
        let without_proof = format!("c=biws,r={}", challenge.nonce);
        let signed = format!("{},{text},{without_proof}", self.first_bare());
        let client_key = hash.hmac(&salted, b"Client Key");
        let signature = hash.hmac(&hash.digest(&client_key), signed.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
        let server_key = hash.hmac(&salted, b"Server Key");
        self.state = ScramPhase::Proven(hash.hmac(&server_key, signed.as_bytes()));
        let proof = BASE64_STANDARD.encode(proof);
        Ok(NextMessage::Send(format!("{without_proof},p={proof}").into_bytes()))
    }
}

impl Exchange for Scram {
    fn first(&mut self) -> Vec<u8> {
        format!("n,,{}", self.first_bare()).into_bytes()
    }

    fn on_answer(&mut self, answer: &[u8]) -> Result<NextMessage, Flaw> {
        let step = match &self.state {
            ScramPhase::Hello if answer.is_empty() => return Err(Flaw::TooSoon),
            ScramPhase::Hello => return self.prove(answer),
            ScramPhase::Proven(signature) => verify(answer, signature)?,
            ScramPhase::Done => return Err(Flaw::Unasked),
        };
        self.state = ScramPhase::Done;
        Ok(step)
    }

    fn advice(&self, _said: &str) -> String {
        match self.proof.is_token {
            true => "check the delegation token's id and HMAC; has it expired?".to_owned(),
            false => "check sasl.username and sasl.password".to_owned(),
        }
    }

    fn is_laborious(&self) -> bool {
        matches!(self.state, ScramPhase::Hello)
    }
}

fn verify(answer: &[u8], signature: &[u8]) -> Result<NextMessage, Flaw> {
    if answer.is_empty() {
        return Err(Flaw::TooSoon);
    }
    let text = std::str::from_utf8(answer).map_err(|_| Flaw::Unreadable)?;
    let first = text.split(',').next().unwrap_or_default();
    if let Some(error) = first.strip_prefix("e=") {
        return Err(Flaw::Error(quotable(error)));
    }
    let theirs = first.strip_prefix("v=").ok_or(Flaw::Unreadable)?;
    let theirs = BASE64_STANDARD.decode(theirs).map_err(|_| Flaw::Unreadable)?;
    if bool::from(theirs.ct_eq(signature)) { Ok(NextMessage::Done) } else { Err(Flaw::Signature) }
}

/// The server's first message.
struct Challenge {
    nonce: String,
    salt: Vec<u8>,
    iterations: u32,
}

impl Challenge {
    fn parse(text: &str) -> Result<Self, Flaw> {
        if let Some(error) = text.strip_prefix("e=") {
            return Err(Flaw::Error(quotable(error)));
        }
        let mut parts = text.split(',');
        // What else there is, is optional (RFC 5802, section 5.1): what must be understood would
        // stand first.
        let mut attribute =
            |name| parts.next().and_then(|part| part.strip_prefix(name)).ok_or(Flaw::Unreadable);
        let (nonce, salt) = (attribute("r=")?.to_owned(), attribute("s=")?);
        let iterations: u64 = attribute("i=")?.parse().map_err(|_| Flaw::Unreadable)?;
        let salt = BASE64_STANDARD.decode(salt).map_err(|_| Flaw::Unreadable)?;
        let bounded = u32::try_from(iterations).ok();
        let bounded = bounded.filter(|n| (ITERATIONS_LEAST..=ITERATIONS_MOST).contains(n));
        let iterations = bounded.ok_or(Flaw::Iterations(iterations))?;
        if salt.is_empty() { Err(Flaw::Unreadable) } else { Ok(Self { nonce, salt, iterations }) }
    }
}

/// The salted password of the last exchange: without it, connecting again to many brokers would
/// cost thousands of hashes for each.
#[derive(Default)]
pub(crate) struct Salted(Lock<Option<SaltedPassword>>);

struct SaltedPassword {
    password: Secret,
    salt: Vec<u8>,
    iterations: u32,
    hash: Hash,
    salted: Zeroizing<Vec<u8>>,
}

impl Salted {
    /// Whoever asks while it is computed waits for it.
    fn of(&self, proof: &Proof, salt: &[u8], iterations: u32) -> Zeroizing<Vec<u8>> {
        let mut last = self.0.lock();
        let is_same = |entry: &&SaltedPassword| {
            (entry.hash, entry.iterations) == (proof.hash, iterations)
                && entry.salt == salt
                && entry.password == proof.password
        };
        if let Some(entry) = last.as_ref().filter(is_same) {
            return entry.salted.clone();
        }
        let salted = proof.hash.salted(proof.password.expose().as_bytes(), salt, iterations);
        let (password, hash) = (proof.password.clone(), proof.hash);
        let (salt, kept) = (salt.to_vec(), salted.clone());
        *last = Some(SaltedPassword { password, salt, iterations, hash, salted: kept });
        salted
    }
}

impl Hash {
    pub(crate) fn salted(
        self,
        password: &[u8],
        salt: &[u8],
        iterations: u32,
    ) -> Zeroizing<Vec<u8>> {
        match self {
            Self::Sha256 => {
                let salted = pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password, salt, iterations);
                Zeroizing::new(salted.to_vec())
            }
            Self::Sha512 => {
                let salted = pbkdf2::pbkdf2_hmac_array::<Sha512, 64>(password, salt, iterations);
                Zeroizing::new(salted.to_vec())
            }
        }
    }

    pub(crate) fn hmac(self, key: &[u8], text: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha256 => mac::<Hmac<Sha256>>(key, text),
            Self::Sha512 => mac::<Hmac<Sha512>>(key, text),
        }
    }

    pub(crate) fn digest(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha256 => Sha256::digest(bytes).to_vec(),
            Self::Sha512 => Sha512::digest(bytes).to_vec(),
        }
    }
}

fn mac<M: Mac + KeyInit>(key: &[u8], text: &[u8]) -> Vec<u8> {
    // HMAC takes a key of any length.
    let mac = <M as KeyInit>::new_from_slice(key).ok();
    mac.map(|mac| mac.chain_update(text).finalize().into_bytes().to_vec()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const FIRST: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    fn scram(hash: Hash, user: &str, password: &str, nonce: &str, is_token: bool) -> Scram {
        let proof = Proof { hash, user: user.into(), password: Secret::new(password), is_token };
        Scram::new(proof, nonce.into(), Arc::default())
    }

    /// What the client proves with, and what the server must answer.
    fn run(mut scram: Scram, first: &str, proof: &str, signature: &str) {
        let NextMessage::Send(message) = scram.on_answer(first.as_bytes()).unwrap() else {
            panic!("done")
        };
        let message = String::from_utf8(message).unwrap();
        let nonce = first.split(',').next().unwrap();
        assert_eq!(message, format!("c=biws,{nonce},p={proof}"));
        assert_eq!(scram.on_answer(format!("v={signature}").as_bytes()), Ok(NextMessage::Done));
        assert_eq!(scram.on_answer(b""), Err(Flaw::Unasked));
    }

    #[test]
    fn the_exchange_of_rfc_7677() {
        let mut scram = scram(Hash::Sha256, "user", "pencil", NONCE, false);
        assert_eq!(scram.first(), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let proof = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        run(scram, FIRST, proof, "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    /// Computed by Python's hashlib.
    #[test]
    fn the_same_exchange_with_sha_512() {
        let scram = scram(Hash::Sha512, "user", "pencil", NONCE, false);
        let proof = "gMGXRcevScNtxZ6/8lQYpGtnsNAc3mGcmNomv+xnoOMw+3R2xNJdMNnzMlTN8PPC6wdp6dybEmDYXYTxwnYPJQ==";
        run(
            scram,
            FIRST,
            proof,
            "ZQnYEgWQMFmmsM8aQMF0nDDCy/AgCzkwk8CmMZYcMg0vSVlKDanekLtifDSeVGT4+5ZxXnJq199RVG2rR7N7Zw==",
        );
    }

    /// Computed by Python's hashlib.
    #[test]
    fn a_delegation_token_is_named_in_the_message_and_in_what_is_signed() {
        let mut scram = scram(Hash::Sha256, "tokenid", "aG1hYw==", "abc", true);
        assert_eq!(scram.first(), b"n,,n=tokenid,r=abc,tokenauth=true");
        let proof = "66KM4COG00r8SQjxcH6oMTJO6bTfXl1oqyDvb+eIoXA=";
        run(
            scram,
            "r=abcdef,s=c2FsdA==,i=4096",
            proof,
            "XnONmFZ3BQActRlgOnCG4FeKAuZQSjzDt8oWtV1FPH8=",
        );
    }

    /// Computed by Python's hashlib. SASLprep would make another password of the Angstrom sign and
    /// drop the soft hyphen.
    #[test]
    fn passwords_are_hashed_as_they_are() {
        let scram = scram(Hash::Sha256, "user", "p\u{e4}ss\u{212b}\u{ad}", "abc", false);
        let proof = "rW5oE0X5vPh+i6SW9CXY/b+UjDPBwXhf6y0R5OR4TVc=";
        run(
            scram,
            "r=abcdef,s=c2FsdA==,i=4096",
            proof,
            "gFEXfKP3fYJ2rklwQ4vEHY8oIR9GDs0QdbygH7/IWzc=",
        );
    }

    #[test]
    fn a_user_name_cannot_add_attributes() {
        let mut scram = scram(Hash::Sha256, "a=b,c", "p", "abc", false);
        assert_eq!(scram.first(), b"n,,n=a=3Db=2Cc,r=abc");
    }

    #[test]
    fn what_a_server_says_first_is_checked() {
        for (first, flaw) in [
            ("r=abc,s=c2FsdA==,i=4096", Flaw::Nonce),
            ("r=abd123,s=c2FsdA==,i=4096", Flaw::Nonce),
            ("r=abcdef,s=c2FsdA==,i=4095", Flaw::Iterations(4095)),
            ("r=abcdef,s=c2FsdA==,i=1000001", Flaw::Iterations(1_000_001)),
            ("r=abcdef,s=c2FsdA==,i=100000000", Flaw::Iterations(100_000_000)),
            ("r=abcdef,s=c2FsdA==,i=99999999999999999999999", Flaw::Unreadable),
            ("r=abcdef,s=c2FsdA==,i=-1", Flaw::Unreadable),
            ("r=abcdef,s=,i=4096", Flaw::Unreadable),
            ("r=abcdef,s=?,i=4096", Flaw::Unreadable),
            ("r=abcdef,i=4096", Flaw::Unreadable),
            ("m=must,r=abcdef,s=c2FsdA==,i=4096", Flaw::Unreadable),
            ("e=unknown-user", Flaw::Error("unknown-user".into())),
            ("", Flaw::TooSoon),
        ] {
            let mut scram = scram(Hash::Sha256, "user", "p", "abc", false);
            assert_eq!(scram.on_answer(first.as_bytes()), Err(flaw), "{first}");
        }
        let mut scram = scram(Hash::Sha256, "user", "p", "abc", false);
        assert_eq!(scram.on_answer(&[0xff, 0xfe]), Err(Flaw::Unreadable));
    }

    #[test]
    fn a_server_must_prove_that_it_knows_the_password() {
        let other = BASE64_STANDARD.encode([7; 32]);
        for (last, flaw) in [
            (format!("v={other}"), Flaw::Signature),
            ("v=".into(), Flaw::Signature),
            ("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G==".into(), Flaw::Unreadable),
            ("e=invalid-proof".into(), Flaw::Error("invalid-proof".into())),
            ("x=1".into(), Flaw::Unreadable),
            (String::new(), Flaw::TooSoon),
        ] {
            let mut scram = scram(Hash::Sha256, "user", "pencil", NONCE, false);
            scram.on_answer(FIRST.as_bytes()).unwrap();
            assert_eq!(scram.on_answer(last.as_bytes()), Err(flaw), "{last}");
        }
    }

    #[test]
    fn a_salted_password_is_computed_once_for_the_same_salt() {
        let proof = Proof {
            hash: Hash::Sha256,
            user: "u".into(),
            password: Secret::new("p"),
            is_token: false,
        };
        let salted = Salted::default();
        let one = salted.of(&proof, b"salt", 4096);
        // Another would take minutes if it were computed.
        salted.0.lock().as_mut().unwrap().iterations = ITERATIONS_MOST;
        assert_eq!(salted.of(&proof, b"salt", ITERATIONS_MOST), one);
        assert_ne!(salted.of(&proof, b"other", 4096), one);
        let other = Proof { password: Secret::new("q"), ..proof };
        assert_ne!(salted.of(&other, b"salt", 4096), one);
    }
}
