//! A registry in memory, behind a real socket.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response, StatusCode, header};
use kafka_client::HttpsTrust;
use kafka_upstream_core::registry::Confluent;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::connection::Connection;
use crate::config::ListenTls;
use crate::tls::server_config;

#[derive(Clone)]
pub(crate) struct FakeRegistry {
    pub(crate) url: String,
    state: Arc<Mutex<Answers>>,
}

#[derive(Default)]
struct Answers {
    /// By path.
    answers: HashMap<String, (u16, String)>,
    /// What is answered whatever the path.
    all: Option<(u16, String)>,
    heads: Vec<String>,
    /// The `Authorization` that every request must have, if any.
    demanded: Option<String>,
}

impl FakeRegistry {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::<Mutex<Answers>>::default();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&state));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, state }
    }

    /// One that has a schema of JSON Schema as the first version of `orders-value`.
    pub(crate) async fn with_orders() -> Self {
        let registry = Self::start().await;
        registry.schema(
            "orders-value",
            1,
            &json!({ "schema": ORDER, "schemaType": "JSON", "id": 7 }),
        );
        registry
    }

    pub(crate) fn put(&self, path: &str, status: u16, body: &str) {
        let mut state = self.state.lock().unwrap();
        state.answers.insert(path.to_owned(), (status, body.to_owned()));
    }

    /// A version of a subject, which is its latest, too.
    pub(crate) fn schema(&self, subject: &str, version: u32, schema: &Value) {
        let mut schema = schema.clone();
        schema["subject"] = json!(subject);
        schema["version"] = json!(version);
        for version in [version.to_string(), "latest".to_owned()] {
            let path = format!("/subjects/{subject}/versions/{version}");
            self.put(&path, 200, &schema.to_string());
        }
    }

    /// Answers everything so, or again as before.
    pub(crate) fn answer_all(&self, answer: Option<(u16, &str)>) {
        let answer = answer.map(|(status, body)| (status, body.to_owned()));
        self.state.lock().unwrap().all = answer;
    }

    /// From now on a request with another `Authorization` gets 401.
    pub(crate) fn demand(&self, authorization: &str) {
        self.state.lock().unwrap().demanded = Some(authorization.to_owned());
    }

    /// The same by TLS. Gives the address.
    pub(crate) async fn secure(&self, tls: &ListenTls) -> String {
        let acceptor = TlsAcceptor::from(Arc::new(server_config(tls, &[]).unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let plain = self.url.strip_prefix("http://").unwrap().to_owned();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, plain) = (acceptor.clone(), plain.clone());
                tokio::spawn(async move {
                    // Who does not trust the certificate hangs up.
                    let mut client = acceptor.accept(stream).await?;
                    let mut registry = TcpStream::connect(plain).await?;
                    tokio::io::copy_bidirectional(&mut client, &mut registry).await
                });
            }
        });
        url
    }

    /// Method, path and headers of each request.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.state.lock().unwrap().heads.clone()
    }

    pub(crate) fn confluent(&self) -> Confluent {
        Confluent { url: Some(self.url.clone()), ..Confluent::default() }
    }

    pub(crate) fn connection(&self) -> Connection {
        Connection::new(&self.confluent(), HttpsTrust::System)
    }
}

async fn answer(
    State(state): State<Arc<Mutex<Answers>>>,
    request: Request<Body>,
) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let mut state = state.lock().unwrap();
    state.heads.push(format!("{} {path} {:?}", request.method(), request.headers()));
    let missing =
        || (404, json!({ "error_code": 40401, "message": "Subject not found." }).to_string());
    let authorization = request.headers().get(header::AUTHORIZATION);
    let is_let_in = state.demanded.as_ref().is_none_or(|it| authorization.is_some_and(|a| a == it));
    let refusal = (!is_let_in).then(|| (401, String::new()));
    let found = refusal.or_else(|| state.all.clone());
    let found = found.or_else(|| state.answers.get(&path).cloned());
    let (status, body) = found.unwrap_or_else(missing);
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

pub(crate) const ORDER: &str =
    r#"{"type":"object","properties":{"id":{"type":"integer"}},"required":["id"]}"#;
