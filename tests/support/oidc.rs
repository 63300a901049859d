//! An OAuth 2 server of one page: it signs tokens for a client that knows its secret, and publishes
//! the key that they are checked with.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::anyhow;
use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::serve::Listener;
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// The client that it knows.
pub const CLIENT: &str = "gateway";
/// The client's secret.
pub const SECRET: &str = "gateways-secret";

/// A running server; it ends with the runtime.
#[derive(Clone)]
pub struct Oidc {
    state: Arc<State>,
    url: String,
}

struct State {
    key: EcdsaKeyPair,
    lifetime: Mutex<Duration>,
    asked: AtomicU64,
    /// Forms of the requests that were answered with a token, and these tokens.
    issued: Mutex<Vec<(String, String)>>,
}

impl Oidc {
    /// Starts it on a free port of loopback, with tokens that live for so long.
    ///
    /// # Errors
    /// When there is no key or no port.
    pub async fn start(lifetime: Duration) -> anyhow::Result<Self> {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let failed = |error: &dyn std::fmt::Display| anyhow!("no key: {error}");
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(|e| failed(&e))?;
        let key = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random)
            .map_err(|error| failed(&error))?;
        let (lifetime, issued) = (Mutex::new(lifetime), Mutex::default());
        let state = Arc::new(State { key, lifetime, asked: AtomicU64::new(0), issued });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let routes = state.routes();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Ok(Self { state, url })
    }

    /// Also gives tokens by TLS, on a port of its own. Gives the address.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn secure_token_endpoint(&self, acceptor: TlsAcceptor) -> anyhow::Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("https://{}/token", listener.local_addr()?);
        let (secure, routes) = (Secure { listener, acceptor }, self.state.routes());
        tokio::spawn(async move { axum::serve(secure, routes).await });
        Ok(url)
    }

    /// Where tokens are given.
    #[must_use]
    pub fn token_endpoint(&self) -> String {
        format!("{}/token", self.url)
    }

    /// Where the key is (`sasl.oauthbearer.jwks.endpoint.url`).
    #[must_use]
    pub fn keys_endpoint(&self) -> String {
        format!("{}/keys", self.url)
    }

    /// How often a token was asked for.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.state.asked.load(Relaxed)
    }

    /// The forms of the requests that got a token.
    #[must_use]
    pub fn forms(&self) -> Vec<String> {
        self.state.issued().iter().map(|(form, _)| form.clone()).collect()
    }

    /// The tokens that they got.
    #[must_use]
    pub fn tokens(&self) -> Vec<String> {
        self.state.issued().iter().map(|(_, token)| token.clone()).collect()
    }
}

/// A listener whose connections are TLS.
struct Secure {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for Secure {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = Listener::accept(&mut self.listener).await;
            // Who does not trust the certificate hangs up.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

impl State {
    fn issued(&self) -> MutexGuard<'_, Vec<(String, String)>> {
        self.issued.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn routes(self: &Arc<Self>) -> Router {
        let (tokens, keys) = (Arc::clone(self), self.keys());
        let issue =
            move |headers: HeaderMap, form: String| async move { tokens.issue(&headers, form) };
        let keys = get(move || async move { keys });
        Router::new().route("/token", post(issue)).route("/keys", keys)
    }

    fn keys(&self) -> String {
        // 4 and both coordinates: the uncompressed form of a point.
        let point = self.key.public_key().as_ref();
        let coordinate = |from: usize| point.get(from..from + 32).unwrap_or_default();
        let (x, y) = (coded(coordinate(1)), coded(coordinate(33)));
        let key = json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "1", "x": x, "y": y,
        });
        json!({ "keys": [key] }).to_string()
    }

    fn issue(&self, headers: &HeaderMap, form: String) -> (StatusCode, String) {
        self.asked.fetch_add(1, Relaxed);
        let expected = format!("Basic {}", BASE64_STANDARD.encode(format!("{CLIENT}:{SECRET}")));
        let given = headers.get("authorization").and_then(|value| value.to_str().ok());
        if given != Some(&*expected) {
            let error = json!({ "error": "invalid_client", "error_description": "who are you?" });
            return (StatusCode::UNAUTHORIZED, error.to_string());
        }
        let lifetime = *self.lifetime.lock().unwrap_or_else(PoisonError::into_inner);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let audience = if form.contains("scope=other") { "other" } else { "kafka" };
        let header = json!({ "alg": "ES256", "kid": "1", "typ": "JWT" }).to_string();
        let claims = json!({
            "iss": "oidc", "aud": audience, "sub": CLIENT, "iat": now, "nbf": now,
            "exp": now + lifetime.as_secs(), "scope": "produce",
        });
        let signed =
            format!("{}.{}", coded(header.as_bytes()), coded(claims.to_string().as_bytes()));
        let Ok(signature) = self.key.sign(&SystemRandom::new(), signed.as_bytes()) else {
            return (StatusCode::INTERNAL_SERVER_ERROR, String::new());
        };
        let token = format!("{signed}.{}", coded(signature.as_ref()));
        self.issued().push((form, token.clone()));
        let answer = json!({
            "access_token": token, "token_type": "Bearer", "expires_in": lifetime.as_secs(),
        });
        (StatusCode::OK, answer.to_string())
    }
}

fn coded(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}
