//! The routes of a registry: a schema with all that it refers to, from whichever address answers.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http_body_util::Full;
use hyper::{Request, Response};
use kafka_upstream_core::registry::{Confluent, RegistryAuthentication, RegistryMode};
use kafka_upstream_schema::limits::SCHEMA_BYTES_MAX;
use kafka_upstream_schema::wire::SchemaId;
use kafka_upstream_schema::{Document, Reference, Schema, SchemaType};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::answer::{Answer, ReferenceAnswer, guid_text, refusal, unavailable};
use super::connection::Connection;
use super::oauth::TokenOfRegistry;
use super::schema::{Failure, Key, Registered};
use crate::credentials::sensitive;
use crate::credentials::token::Token;
use crate::http_client::{HttpClient, HttpError, HttpLimits};

pub(super) struct Api {
    http: HttpClient,
    urls: Vec<String>,
    /// Which address answered last.
    current: AtomicUsize,
    authorization: Authorization,
    headers: Vec<(HeaderName, HeaderValue)>,
}

enum Authorization {
    None,
    Basic(Option<HeaderValue>),
    OAuth2(Box<Token<TokenOfRegistry>>),
}

/// What is gathered of a schema.
#[derive(Default)]
struct Gathered {
    references: Vec<Reference>,
    /// By name, subject and version.
    seen: HashSet<(String, String, u32)>,
    bytes: usize,
}

impl Api {
    pub(super) fn new(connection: &Connection) -> Self {
        let Confluent { authentication, .. } = &connection.confluent;
        let urls = connection.confluent.urls().map(|url| url.trim_end_matches('/').to_owned());
        let authentication = authentication.clone().unwrap_or_default();
        let headers = [
            ("target-sr-cluster", &authentication.logical_cluster_id),
            ("confluent-identity-pool-id", &authentication.identity_pool_id),
        ];
        let headers = headers.into_iter().filter_map(|(name, value)| {
            let value = HeaderValue::from_str(value.as_ref()?).ok()?;
            Some((HeaderName::from_static(name), value))
        });
        Self {
            http: HttpClient::new(connection.trust.clone(), LIMITS),
            urls: urls.collect(),
            current: AtomicUsize::new(0),
            headers: headers.collect(),
            authorization: Authorization::new(authentication, connection),
        }
    }

    /// A schema with all that it refers to.
    pub(super) async fn fetch(&self, key: &Key) -> Result<Registered, Failure> {
        let (path, of) = match key {
            Key::Subject(subject, version) => by_subject(subject, *version),
            Key::Id(SchemaId::Number(id)) => (format!("/schemas/ids/{id}"), format!("id {id}")),
            Key::Id(SchemaId::Guid(guid)) => {
                let guid = guid_text(guid);
                (format!("/schemas/guids/{guid}"), format!("guid {guid}"))
            }
        };
        let mut answer = self.schema(&path, &of).await?;
        let mut gathered = Gathered::default();
        gathered.add(answer.schema.len())?;
        let references = answer.references();
        self.gather(references, &mut Vec::new(), &mut gathered).await?;
        let (schema_type, guid, version) = (answer.schema_type()?, answer.guid(), answer.version);
        let id = match key {
            Key::Id(SchemaId::Number(id)) => Some(*id),
            Key::Subject(..) | Key::Id(SchemaId::Guid(_)) => answer.id,
        };
        let guid = match key {
            Key::Id(SchemaId::Guid(guid)) => Some(*guid),
            _ => guid,
        };
        if matches!(key, Key::Subject(..)) && id.is_none() {
            return Err(unavailable("its answer has no id".to_owned()));
        }
        let Gathered { references, bytes, .. } = gathered;
        let document = Document { schema_type, text: answer.schema, references };
        // A large one takes its time.
        let parsing = tokio::task::spawn_blocking(move || Schema::parse(&document));
        let schema = parsing.await.map_err(|_| unusable("its parser failed"))?;
        let schema = schema
            .map_err(|error| unusable(&crate::credentials::quotable(&format!("{of}: {error}"))))?;
        Ok(Registered { schema, id, guid, version, language: language(schema_type), bytes })
    }

    /// Whether there is a registry that lets the bridge in.
    pub(super) async fn probe(&self) -> Result<(), Failure> {
        let answer = self.ask("/schemas/types").await?;
        match (answer.status(), serde_json::from_slice::<Vec<String>>(answer.body())) {
            (StatusCode::OK, Ok(_)) => Ok(()),
            (StatusCode::OK, Err(_)) => {
                Err(unavailable("its answer is no list of types: is its url right?".to_owned()))
            }
            (status, _) => Err(refusal(status, answer.body(), "schema types")),
        }
    }

    /// Adds what a schema refers to, each behind what it refers to itself.
    fn gather<'a>(
        &'a self,
        references: Vec<ReferenceAnswer>,
        path: &'a mut Vec<(String, u32)>,
        gathered: &'a mut Gathered,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        async move {
            for ReferenceAnswer { name, subject, version } in references {
                let here = (subject, version);
                if path.contains(&here) {
                    return Err(unusable(&format!(
                        "its references run in a circle at `{}`",
                        here.0
                    )));
                }
                let (subject, _) = &here;
                if !gathered.seen.insert((name.clone(), subject.clone(), version)) {
                    continue;
                }
                if path.len() >= DEPTH_MAX || gathered.seen.len() > REFERENCES_MAX {
                    return Err(unusable("it refers to too many schemas, or too deeply"));
                }
                let (route, of) = by_subject(subject, Some(version));
                let mut answer =
                    self.schema(&route, &of).await.map_err(|failure| match failure {
                        Failure::Unknown(_) => {
                            unusable(&format!("it refers to {of}, which is not there"))
                        }
                        other => other,
                    })?;
                gathered.add(answer.schema.len())?;
                path.push(here);
                self.gather(answer.references(), path, gathered).await?;
                path.pop();
                gathered.references.push(Reference { name, text: answer.schema });
            }
            Ok(())
        }
        .boxed()
    }

    async fn schema(&self, path: &str, of: &str) -> Result<Answer, Failure> {
        let answer = self.ask(path).await?;
        Answer::read(answer.status(), answer.body(), of)
    }

    /// Asks one address after the other, first the one that answered last.
    async fn ask(&self, path: &str) -> Result<Response<Bytes>, Failure> {
        let first = self.current.load(Relaxed);
        let mut last = unavailable("it has no address".to_owned());
        for turn in 0..self.urls.len() {
            let position = (first + turn) % self.urls.len().max(1);
            let Some(url) = self.urls.get(position) else { continue };
            match self.ask_at(url, path).await {
                Ok(answer) if !answer.status().is_server_error() => {
                    self.current.store(position, Relaxed);
                    return Ok(answer);
                }
                Ok(answer) => last = refusal(answer.status(), answer.body(), path),
                Err(failure @ Failure::Unavailable(_)) => last = failure,
                Err(failure) => return Err(failure),
            }
        }
        Err(last)
    }

    /// A token that is refused is asked for anew, once.
    async fn ask_at(&self, url: &str, path: &str) -> Result<Response<Bytes>, Failure> {
        let mut refused = None;
        loop {
            let authorization = self.authorization.get(refused.as_ref()).await?;
            let mut request = Request::get("/").header(header::ACCEPT, ACCEPT);
            if let Some(authorization) = &authorization {
                request = request.header(header::AUTHORIZATION, authorization);
            }
            for (name, value) in &self.headers {
                request = request.header(name, value);
            }
            let request = request.body(Full::default());
            let request = request.map_err(|error| unavailable(error.to_string()))?;
            let answer = self.http.ask(&format!("{url}{path}"), request).await;
            let answer = answer.map_err(|error| match error {
                HttpError::Large(_, StatusCode::OK) => {
                    unusable("it is larger than a schema may be")
                }
                error @ HttpError::Http(_) if url.starts_with("http://") => {
                    unavailable(format!("{error}; should its address begin with https://?"))
                }
                error => unavailable(error.to_string()),
            })?;
            let is_token = matches!(self.authorization, Authorization::OAuth2(_));
            if answer.status() == StatusCode::UNAUTHORIZED && is_token && refused.is_none() {
                refused = authorization;
                continue;
            }
            return Ok(answer);
        }
    }
}

impl Authorization {
    fn new(authentication: RegistryAuthentication, connection: &Connection) -> Self {
        match authentication.mode.unwrap_or(RegistryMode::None) {
            RegistryMode::None => Self::None,
            RegistryMode::Basic => {
                let basic = authentication.basic.unwrap_or_default();
                let text = |secret: &Option<_>| {
                    secret
                        .as_ref()
                        .map_or("", kafka_upstream_core::secret::Secret::expose)
                        .to_owned()
                };
                let pair = format!("{}:{}", text(&basic.username), text(&basic.password));
                Self::Basic(sensitive(format!("Basic {}", BASE64_STANDARD.encode(pair))).ok())
            }
            RegistryMode::OAuth2 => {
                let endpoint = TokenOfRegistry::new(authentication, connection.trust.clone());
                Self::OAuth2(Box::new(Token::new(endpoint)))
            }
        }
    }

    async fn get(&self, refused: Option<&HeaderValue>) -> Result<Option<HeaderValue>, Failure> {
        match self {
            Self::None => Ok(None),
            Self::Basic(value) => Ok(value.clone()),
            Self::OAuth2(token) => token.get(refused).await.map(Some).map_err(unavailable),
        }
    }
}

impl Gathered {
    fn add(&mut self, bytes: usize) -> Result<(), Failure> {
        self.bytes += bytes;
        match self.bytes > SCHEMA_BYTES_MAX {
            true => Err(unusable("it is larger than a schema may be")),
            false => Ok(()),
        }
    }
}

fn by_subject(subject: &str, version: Option<u32>) -> (String, String) {
    let version = version.map_or_else(|| "latest".to_owned(), |version| version.to_string());
    let segment = utf8_percent_encode(subject, RESERVED);
    let of = format!("subject {subject} version {version}");
    (format!("/subjects/{segment}/versions/{version}"), of)
}

fn unusable(why: &str) -> Failure {
    Failure::Unusable(why.into())
}

fn language(of: SchemaType) -> &'static str {
    match of {
        SchemaType::Avro => "AVRO",
        SchemaType::Json => "JSON",
        SchemaType::Protobuf => "PROTOBUF",
    }
}

/// What one request to a registry may take. In an answer each byte of a schema may be escaped.
const LIMITS: HttpLimits = HttpLimits {
    connect: Duration::from_secs(3),
    whole: Duration::from_secs(5),
    answer_bytes: 2 * SCHEMA_BYTES_MAX,
};
/// Schemas in one another, and those of a schema together.
const DEPTH_MAX: usize = 16;
const REFERENCES_MAX: usize = 256;
/// What a segment of a path does not have as it is (RFC 3986, section 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const ACCEPT: &str = "application/vnd.schemaregistry.v1+json, application/json";
