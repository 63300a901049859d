//! SCRAM (RFC 5802, RFC 7677): both sides prove that they know the password.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::digest::{Digest as _, KeyInit};
use hmac::{Hmac, Mac};
use sha2::{Sha256, Sha512};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::exchange::{Exchange, Flaw, Reply};
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
    state: State,
}

enum State {
    /// Our nonce is out.
    Hello,
    /// Our proof is out; this is what the server must prove.
    Proven(Vec<u8>),
    Done,
}

impl Scram {
    /// `nonce` must be unguessable, printable, and without a comma.
    pub(crate) fn new(proof: Proof, nonce: String, salted: Arc<Salted>) -> Self {
        Self { proof, nonce, salted, state: State::Hello }
    }

    /// The first message without its header. It is also part of what both sides sign, the
    /// extension for delegation tokens included.
    fn first_bare(&self) -> String {
        // No SASLprep: Kafka hashes the bytes as they are, and preparing them breaks passwords.
        let user = self.proof.user.replace('=', "=3D").replace(',', "=2C");
        let extension = if self.proof.is_token { ",tokenauth=true" } else { "" };
        format!("n={user},r={}{extension}", self.nonce)
    }

    fn prove(&mut self, answer: &[u8]) -> Result<Reply, Flaw> {
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
        self.state = State::Proven(hash.hmac(&server_key, signed.as_bytes()));
        let proof = BASE64_STANDARD.encode(proof);
        Ok(Reply::Send(format!("{without_proof},p={proof}").into_bytes()))
    }
}

impl Exchange for Scram {
    fn first(&mut self) -> Vec<u8> {
        format!("n,,{}", self.first_bare()).into_bytes()
    }

    fn on_answer(&mut self, answer: &[u8]) -> Result<Reply, Flaw> {
        let step = match &self.state {
            State::Hello if answer.is_empty() => return Err(Flaw::TooSoon),
            State::Hello => return self.prove(answer),
            State::Proven(signature) => verify(answer, signature)?,
            State::Done => return Err(Flaw::Unasked),
        };
        self.state = State::Done;
        Ok(step)
    }

    fn advice(&self, _said: &str) -> String {
        match self.proof.is_token {
            true => "check the delegation token's id and HMAC; has it expired?".to_owned(),
            false => "check sasl.username and sasl.password".to_owned(),
        }
    }

    fn is_laborious(&self) -> bool {
        matches!(self.state, State::Hello)
    }
}

fn verify(answer: &[u8], signature: &[u8]) -> Result<Reply, Flaw> {
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
    if bool::from(theirs.ct_eq(signature)) { Ok(Reply::Done) } else { Err(Flaw::Signature) }
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
pub(crate) struct Salted(Lock<Option<Entry>>);

struct Entry {
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
        let is_same = |entry: &&Entry| {
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
        *last = Some(Entry { password, salt, iterations, hash, salted: kept });
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
mod tests;
