//! How a fake cluster authenticates its clients: the broker's half of PLAIN, SCRAM and OAUTHBEARER.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kafka_protocol::messages::{
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;

use super::requests::{API_VERSIONS, SASL_AUTHENTICATE, SASL_HANDSHAKE};
use crate::sasl::{Mechanism, ScramHash};

/// What a cluster demands of its clients.
#[derive(Debug, Clone)]
pub struct FakeSasl {
    /// The mechanisms that it has.
    pub mechanisms: Vec<&'static str>,
    /// Passwords by user, for PLAIN and SCRAM.
    pub users: BTreeMap<String, String>,
    /// The tokens that OAUTHBEARER takes.
    pub tokens: BTreeSet<String>,
    /// For how long an authentication holds (`connections.max.reauth.ms`).
    pub lifetime: Option<Duration>,
    /// SCRAM's iterations.
    pub iterations: u32,
    /// Whether it knows the passwords that it claims to know.
    pub is_honest: bool,
}

impl Default for FakeSasl {
    fn default() -> Self {
        Self {
            mechanisms: [
                Mechanism::Plain,
                Mechanism::ScramSha256,
                Mechanism::ScramSha512,
                Mechanism::OAuthBearer,
            ]
            .map(Mechanism::name)
            .to_vec(),
            users: BTreeMap::new(),
            tokens: BTreeSet::new(),
            lifetime: None,
            iterations: 4096,
            is_honest: true,
        }
    }
}

/// How far a connection has come.
#[derive(Debug, Default)]
pub(super) struct SaslState {
    phase: ExchangePhase,
    /// When it was authenticated, and until when that holds.
    authenticated: Option<(Instant, Option<Instant>)>,
}

#[derive(Debug, Default)]
enum ExchangePhase {
    /// No exchange is under way.
    #[default]
    Idle,
    Chosen(String),
    /// SCRAM: what the client must prove, and what is told then.
    Challenged {
        proof: String,
        signature: String,
    },
    /// OAUTHBEARER: what was said is told again as an error.
    Refused,
}

const UNSUPPORTED_SASL_MECHANISM: i16 = 33;
const ILLEGAL_SASL_STATE: i16 = 34;
const SASL_AUTHENTICATION_FAILED: i16 = 58;
/// Two authentications of a connection must be so far apart (KIP-368).
const LEAST_BETWEEN: Duration = Duration::from_secs(1);

impl SaslState {
    /// Whether a request of this API is executed now; if not, the broker hangs up.
    pub(super) fn admits(&self, sasl: Option<&FakeSasl>, api: i16, now: Instant) -> bool {
        if sasl.is_none() {
            return true;
        }
        match (&self.phase, self.authenticated) {
            (ExchangePhase::Idle, Some((_, until))) => {
                api == SASL_HANDSHAKE || until.is_none_or(|until| now < until)
            }
            (ExchangePhase::Idle, None) => [API_VERSIONS, SASL_HANDSHAKE].contains(&api),
            _ => api == SASL_AUTHENTICATE,
        }
    }

    pub(super) fn handshake(
        &mut self,
        sasl: Option<&FakeSasl>,
        request: &SaslHandshakeRequest,
        now: Instant,
    ) -> SaslHandshakeResponse {
        let response = SaslHandshakeResponse::default();
        let is_early = |(at, _)| now.duration_since(at) < LEAST_BETWEEN;
        let Some(sasl) = sasl.filter(|_| !self.authenticated.is_some_and(is_early)) else {
            return response.with_error_code(ILLEGAL_SASL_STATE);
        };
        let names = sasl.mechanisms.iter().map(|name| StrBytes::from_static_str(name));
        let response = response.with_mechanisms(names.collect());
        if !sasl.mechanisms.contains(&request.mechanism.as_str()) {
            return response.with_error_code(UNSUPPORTED_SASL_MECHANISM);
        }
        self.phase = ExchangePhase::Chosen(request.mechanism.to_string());
        response
    }

    /// `None` closes the connection.
    pub(super) fn authenticate(
        &mut self,
        sasl: &FakeSasl,
        request: &SaslAuthenticateRequest,
        version: i16,
        now: Instant,
    ) -> Option<SaslAuthenticateResponse> {
        let text = String::from_utf8(request.auth_bytes.to_vec()).ok()?;
        let said = match std::mem::take(&mut self.phase) {
            ExchangePhase::Chosen(mechanism) if mechanism == Mechanism::Plain.name() => {
                plain(sasl, &text)
            }
            ExchangePhase::Chosen(mechanism) if mechanism == Mechanism::OAuthBearer.name() => {
                bearer(sasl, &text)
            }
            ExchangePhase::Chosen(mechanism) => challenge(sasl, &mechanism, &text),
            ExchangePhase::Challenged { proof, signature } => {
                Said::check(text.ends_with(&format!(",p={proof}")), format!("v={signature}"))
            }
            ExchangePhase::Refused => Said::No,
            ExchangePhase::Idle => return None,
        };
        let response = SaslAuthenticateResponse::default();
        Some(match said {
            Said::No => {
                self.authenticated = None;
                let message = StrBytes::from_static_str("Authentication failed: who are you?");
                let code = SASL_AUTHENTICATION_FAILED;
                response.with_error_code(code).with_error_message(Some(message))
            }
            Said::Next(phase, bytes) => {
                self.phase = phase;
                response.with_auth_bytes(bytes.into_bytes().into())
            }
            Said::Yes(bytes) => {
                self.authenticated = Some((now, sasl.lifetime.map(|lifetime| now + lifetime)));
                let lifetime = sasl.lifetime.unwrap_or_default().as_millis();
                let lifetime = i64::try_from(lifetime).unwrap_or(0);
                let response = response.with_auth_bytes(bytes.into_bytes().into());
                response.with_session_lifetime_ms(if version > 0 { lifetime } else { 0 })
            }
        })
    }
}

enum Said {
    Yes(String),
    No,
    Next(ExchangePhase, String),
}

impl Said {
    fn check(is_right: bool, answer: String) -> Self {
        if is_right { Self::Yes(answer) } else { Self::No }
    }
}

fn plain(sasl: &FakeSasl, text: &str) -> Said {
    let is_user = |(user, password): (&String, &String)| text == format!("\0{user}\0{password}");
    Said::check(sasl.users.iter().any(is_user), String::new())
}

fn bearer(sasl: &FakeSasl, text: &str) -> Said {
    let begins = |token: &String| text.starts_with(&format!("n,,\u{1}auth=Bearer {token}\u{1}"));
    if sasl.tokens.iter().any(begins) {
        return Said::Yes(String::new());
    }
    Said::Next(ExchangePhase::Refused, r#"{"status":"invalid_token"}"#.to_owned())
}

fn challenge(sasl: &FakeSasl, mechanism: &str, text: &str) -> Said {
    let hash = if mechanism == Mechanism::ScramSha256.name() {
        ScramHash::Sha256
    } else {
        ScramHash::Sha512
    };
    let Some(bare) = text.strip_prefix("n,,") else { return Said::No };
    let mut parts = bare.split(',');
    let user = parts.next().and_then(|part| part.strip_prefix("n=")).unwrap_or_default();
    let nonce = parts.next().and_then(|part| part.strip_prefix("r=")).unwrap_or_default();
    let user = user.replace("=2C", ",").replace("=3D", "=");
    let Some(password) = sasl.users.get(&user) else { return Said::No };
    let (salt, nonce) = (user.as_bytes(), format!("{nonce}broker"));
    let first = format!("r={nonce},s={},i={}", BASE64_STANDARD.encode(salt), sasl.iterations);
    let signed = format!("{bare},{first},c=biws,r={nonce}");
    // Beyond this the client refuses; computing it would only take time.
    let salted = hash.salted(password.as_bytes(), salt, sasl.iterations.min(4096));
    let key = hash.hmac(&salted, b"Client Key");
    let signature = hash.hmac(&hash.digest(&key), signed.as_bytes());
    let proof: Vec<u8> = key.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
    let key = hash.hmac(&salted, if sasl.is_honest { b"Server Key" } else { b"Another Key" });
    let signature = BASE64_STANDARD.encode(hash.hmac(&key, signed.as_bytes()));
    Said::Next(ExchangePhase::Challenged { proof: BASE64_STANDARD.encode(proof), signature }, first)
}
