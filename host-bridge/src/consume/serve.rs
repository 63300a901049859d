//! The routes of feeds, on listeners and a runtime of their own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Response, StatusCode, header};
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::authorization::{Authorization, Granted};
use super::connections::Connections;
use super::cursor::{Cursor, Position};
use super::dead_letters::DeadLetters;
use super::delivery::Commit;
use super::ending::unless_ending;
use super::envelope::Raw;
use super::feeds::{Entrypoint, Feed, Feeds};
use super::follow::Follower;
use super::groups::{Groups, Share};
use super::hub::Resources;
use super::page::Page;
use super::page_body::PageBody;
use super::pubsub;
use super::query::{self, Form, Media, Query};
use super::reader::FeedReader;
use super::refusal::{Code, Refusal};
use super::selection::Identity;
use super::socket::{Asked, Conversation, Writer};
use super::sources::Sources;
use super::start::Given;
use super::stream::{self, EventStream};
use crate::admission::Unending;
use crate::clock::now_ms;
use crate::clusters::Clusters;
use crate::limits::{
    BODY_TIMEOUT, FEED_COMMIT_BYTES, FEED_MEMORY_BYTES, FEED_PATIENCE, RETRY_AFTER_SECONDS,
};
use crate::metrics::Metrics;
use crate::taking::SlowCloses;
use crate::{reply, websocket};

/// All feeds.
pub(crate) struct Readers {
    feeds: BTreeMap<String, Arc<FeedReader>>,
    /// None where a test has its readers.
    sources: Option<Sources>,
    /// Of feeds to which clients write.
    writers: BTreeMap<String, Writer>,
    authorization: Authorization,
    connections: Connections,
    groups: Groups,
}

impl Readers {
    /// The configured feeds over the clients of their clusters. Feeds that read a cluster at the same
    /// isolation level read it together.
    pub(crate) fn new(
        feeds: &Feeds,
        authorization: Authorization,
        clusters: &Arc<Clusters>,
        metrics: &Arc<Metrics>,
    ) -> Arc<Self> {
        let sources = Sources::new(clusters, Resources::new(FEED_MEMORY_BYTES));
        let (mut readers, mut writers) = (BTreeMap::new(), BTreeMap::new());
        for (number, (name, feed)) in feeds.feeds.iter().enumerate() {
            // The configuration was checked: the cluster is there.
            let Some(pipeline) = clusters.named(&feed.cluster) else { continue };
            let Some(hub) = sources.hub(&feed.cluster, feed.isolation_level) else { continue };
            if feed.can_produce() {
                let (pipeline, metrics) = (Arc::clone(pipeline), Arc::clone(metrics));
                writers.insert(name.clone(), Writer { pipeline, metrics });
            }
            let client = || hub.client.clone();
            let dlq_topic = feed.selection.dlq_topic.as_ref();
            let metrics = metrics.feeds.of(name);
            let dead_letters = dlq_topic
                .map(|topic| DeadLetters::new(name, topic, client(), Arc::clone(&metrics)));
            let reader = FeedReader::new(feed.clone(), number, hub, dead_letters, metrics);
            let registry = feed.schema_registry.as_ref();
            let registry = registry.and_then(|name| clusters.registries().named(name));
            readers.insert(name.clone(), Arc::new(reader.decoding(registry)));
        }
        let connections = Connections::new(feeds.connections_max, feeds.client_connections_max);
        let groups = Groups::of_bridge(&feeds.member);
        Arc::new(Self {
            feeds: readers,
            sources: Some(sources),
            writers,
            authorization,
            connections,
            groups,
        })
    }

    /// Leaves the groups of its readers once the process is to end.
    pub(crate) async fn close(self: Arc<Self>, shutdown: CancellationToken) {
        shutdown.cancelled().await;
        self.groups.close().await;
    }

    /// A feed by its name.
    pub(crate) fn reader(&self, feed: &str) -> Option<Arc<FeedReader>> {
        self.feeds.get(feed).cloned()
    }

    #[cfg(test)]
    pub(crate) fn of_one(name: &str, reader: Arc<FeedReader>) -> Self {
        let (authorization, connections) = (Authorization::default(), Connections::new(8, 8));
        let (feeds, groups) = ([(name.to_owned(), reader)].into(), Groups::default());
        Self { feeds, sources: None, writers: BTreeMap::new(), authorization, connections, groups }
    }

    #[cfg(test)]
    pub(crate) fn writing(mut self, name: &str, writer: Writer) -> Self {
        self.writers.insert(name.to_owned(), writer);
        self
    }

    /// A feed as the request may read it, by whom and for how long.
    fn feed(
        &self,
        path: Result<Path<String>, PathRejection>,
        headers: &HeaderMap,
    ) -> Result<Reading, Refusal> {
        let Ok(Path(name)) = path else { return Err(Code::FeedNotFound.because("no such feed")) };
        let reader = self.feeds.get(&name);
        let feed = reader.map(|reader| &*reader.feed);
        let Granted { feed, identity, group, expires_in, produce, cluster, token } =
            self.authorization.admit(headers, &name, feed, now_ms())?;
        let reader = reader.ok_or_else(|| Code::FeedNotFound.because("there is no such feed"))?;
        let reader = match (&self.sources, cluster, token) {
            (Some(sources), cluster, token) if cluster.is_some() || token.is_some() => {
                let cluster = cluster.unwrap_or_else(|| reader.feed.cluster.clone());
                &sources.reader(reader, &cluster, token)?
            }
            _ => reader,
        };
        let reader = reader.held_to(feed, identity.clone());
        let writing = (self.writers.get(&name).cloned(), produce);
        Ok(Reading { reader, identity, group, expires_in, writing })
    }
}

/// What a request reads.
struct Reading {
    reader: Arc<FeedReader>,
    identity: Identity,
    /// The consumer group.
    group: Option<String>,
    expires_in: Option<Duration>,
    /// What writes for it, and the topics to which it may.
    writing: (Option<Writer>, Vec<String>),
}

impl Reading {
    /// What is asked of it.
    fn query(&self, parts: &Parts) -> Result<Query, Refusal> {
        let last_event_id = last_event_id(&parts.headers)?;
        let query = Query::parse(parts.uri.query().unwrap_or_default(), last_event_id)?;
        match query.start {
            Given::Cursor(_) if !self.reader.feed.delivery.has_cursors() => Err(no_cursors()),
            _ => Ok(query),
        }
    }
}

/// Every route of readers.
pub(crate) fn router(readers: Arc<Readers>) -> Router {
    // Without a handler of its own HEAD is a GET, and a poll may wait.
    let feed = |offered: &'static [Entrypoint]| {
        let handler =
            move |state, path, shutdown, parts| feed(offered, state, path, shutdown, parts);
        get(handler).head(async || wrong_method("GET"))
    };
    Router::new()
        .route("/v1/feeds/{feed}", feed(&[Entrypoint::Get, Entrypoint::Sse, Entrypoint::Websocket]))
        .route("/v1/feeds/{feed}/messages", feed(&[Entrypoint::Get]))
        .route("/v1/feeds/{feed}/events", feed(&[Entrypoint::Sse]))
        .route("/v1/feeds/{feed}/socket", feed(&[Entrypoint::Websocket]))
        .route(
            "/v1/feeds/{feed}/pubsub",
            get(websocket_of_pubsub).head(async || wrong_method("GET")),
        )
        .route("/v1/feeds/{feed}/cursor", get(cursor).head(async || wrong_method("GET")))
        .route("/v1/feeds/{feed}/commits", post(commits).fallback(async || wrong_method("POST")))
        .route("/healthz", get(async || reply::json(StatusCode::OK, &json!({ "alive": true }))))
        .fallback(async || failure(&Code::FeedNotFound.because("there is no such route"), None))
        .method_not_allowed_fallback(async || wrong_method("GET"))
        .with_state(readers)
}

/// A page, a stream or a WebSocket: what the path offers, the feed has, and the client likes best.
async fn feed(
    offered: &'static [Entrypoint],
    State(readers): State<Arc<Readers>>,
    path: Result<Path<String>, PathRejection>,
    Extension(shutdown): Extension<CancellationToken>,
    mut parts: Parts,
) -> Response<Body> {
    let reading = match readers.feed(path, &parts.headers) {
        Ok(found) => found,
        Err(refusal) => return failure(&refusal, None),
    };
    let reader = Arc::clone(&reading.reader);
    let is_socket = offered.contains(&Entrypoint::Websocket)
        && (offered.len() == 1 || websocket::is_asked_for(&parts.headers));
    let replied = match form(offered, &reader.feed, &parts.headers) {
        _ if is_socket => socket(&readers, reading, &mut parts, shutdown).await,
        Ok(Form::Stream) => {
            let streamed = events(&readers, &reading, &parts, shutdown).await;
            match streamed {
                Err(refusal)
                    if refusal.code.is_overload() && reader.feed.sse.overload_as_stream =>
                {
                    event_stream(stream::refused(refusal.code))
                }
                streamed => streamed,
            }
        }
        Ok(Form::Page(media)) => page(&readers, &reading, media, &parts, &shutdown).await,
        Err(refusal) => Err(refusal),
    };
    match replied {
        Ok(response) => response,
        Err(refusal) if refusal.code == Code::OffsetOutOfRange => {
            failure(&refusal, Some(reader.both_ends().await))
        }
        Err(refusal) => failure(&refusal, None),
    }
}

/// A WebSocket that speaks APISIX's protocol.
async fn websocket_of_pubsub(
    State(readers): State<Arc<Readers>>,
    path: Result<Path<String>, PathRejection>,
    Extension(shutdown): Extension<CancellationToken>,
    mut parts: Parts,
) -> Response<Body> {
    let upgrade = || {
        let Reading { reader, identity, expires_in, .. } = readers.feed(path, &parts.headers)?;
        if !reader.feed.entrypoints.contains(&Entrypoint::Pubsub) {
            return Err(not_read_so(&reader.feed, &[Entrypoint::Pubsub]));
        }
        check_origin(&reader.feed, &parts.headers)?;
        let query = Query::parse(parts.uri.query().unwrap_or_default(), None)?;
        let reader = reader.filtered(query.filter)?;
        let connection = readers.connections.admit(&reader, &identity, Entrypoint::Pubsub)?;
        let first = websocket::offered(&parts.headers).next().map(str::to_owned);
        let accepted = websocket::accept(&mut parts, first.as_deref());
        let (response, accepted) = accepted.map_err(|why| Code::InvalidParameter.because(why))?;
        tokio::spawn(async move {
            if let Some(socket) = accepted.open(pubsub::REQUEST_BYTES_MAX).await {
                pubsub::serve(socket, reader, connection, expires_in, shutdown).await;
            }
        });
        Ok(response)
    };
    upgrade().unwrap_or_else(|refusal| failure(&refusal, None))
}

fn check_origin(feed: &Feed, headers: &HeaderMap) -> Result<(), Refusal> {
    match websocket::is_of_site(headers, &feed.origins) {
        true => Ok(()),
        false => Err(Code::Forbidden.because("the Origin is not among the feed's `origins`")),
    }
}

fn not_read_so(feed: &Feed, offered: &[Entrypoint]) -> Refusal {
    let wanted: Vec<_> = offered.iter().map(|entrypoint| entrypoint.name()).collect();
    let has: Vec<_> = feed.entrypoints.iter().map(|entrypoint| entrypoint.name()).collect();
    let (wanted, has) = (wanted.join("` or `"), has.join(", "));
    Code::FeedNotFound.because(format!("the feed has no entrypoint `{wanted}`; it has: {has}"))
}

fn form(offered: &[Entrypoint], feed: &Feed, headers: &HeaderMap) -> Result<Form, Refusal> {
    let has = |entrypoint| offered.contains(&entrypoint) && feed.entrypoints.contains(&entrypoint);
    let pages = Form::PAGES.into_iter().filter(|_| has(Entrypoint::Get));
    let offers: Vec<_> = pages.chain(has(Entrypoint::Sse).then_some(Form::Stream)).collect();
    if offers.is_empty() {
        return Err(not_read_so(feed, offered));
    }
    Form::negotiate(texts(headers, header::ACCEPT.as_str()), &offers)
}

async fn events(
    readers: &Readers,
    reading: &Reading,
    parts: &Parts,
    shutdown: CancellationToken,
) -> Result<Response<Body>, Refusal> {
    let Reading { reader, identity, group, expires_in, .. } = reading;
    let connection = readers.connections.admit(reader, identity, Entrypoint::Sse)?;
    let mut query = reading.query(parts)?;
    let reader = reader.filtered(query.filter.take())?;
    let group = group.as_deref();
    let (follower, share) = follow(readers, reader, group, &query, &shutdown).await?;
    let slow = connection.metrics.by(Entrypoint::Sse).slow_closes.clone();
    let stream = EventStream::new(follower, query.shape, shutdown, connection).sharing(share);
    let direct = stream.direct();
    let mut response = event_stream(stream.expiring(*expires_in).into_body())?;
    response.extensions_mut().insert(SlowCloses(slow));
    response.extensions_mut().insert(direct);
    Ok(response)
}

/// With its share, if it is in a group. Who comes at the very end gets a position: browsers do not come
/// back after a refusal.
async fn follow(
    readers: &Readers,
    reader: Arc<FeedReader>,
    group: Option<&str>,
    query: &Query,
    shutdown: &CancellationToken,
) -> Result<(Follower, Option<Share>), Refusal> {
    if let Some(id) = group {
        let share = readers.groups.join(&reader, id, query, shutdown).await?;
        return Ok((Follower::of_share(&reader), Some(share)));
    }
    let open = Follower::open(reader, &query.start, query.topics.as_deref(), FEED_PATIENCE);
    Ok((unless_ending(open, shutdown).await?, None))
}

/// A WebSocket of JSON, or of bare values.
async fn socket(
    readers: &Readers,
    reading: Reading,
    parts: &mut Parts,
    shutdown: CancellationToken,
) -> Result<Response<Body>, Refusal> {
    let query = reading.query(parts);
    let Reading { reader, identity, group, expires_in, writing } = reading;
    if !reader.feed.entrypoints.contains(&Entrypoint::Websocket) {
        return Err(not_read_so(&reader.feed, &[Entrypoint::Websocket]));
    }
    let mut query = query?;
    let (asked, name) = Asked::read(&parts.headers, &query, &reader.feed)?;
    check_origin(&reader.feed, &parts.headers)?;
    let connection = readers.connections.admit(&reader, &identity, Entrypoint::Websocket)?;
    let accepted = websocket::accept(parts, name);
    let (response, accepted) = accepted.map_err(|why| Code::InvalidParameter.because(why))?;
    let reader = reader.filtered(query.filter.take())?.over_socket();
    let following = follow(readers, reader, group.as_deref(), &query, &shutdown).await?;
    let bytes = asked.message_bytes(&writing.1);
    // Boxed until it is in the conversation: the task would have room for it all its life.
    let rest = Box::new((connection, following, writing, shutdown));
    tokio::spawn(async move {
        let conversation = accepted.open(bytes).await.map(|socket| {
            let (connection, following, writing, shutdown) = *rest;
            let sides = (socket, connection);
            Box::new(Conversation::new(sides, following, asked, writing, shutdown))
        });
        if let Some(conversation) = conversation {
            conversation.serve(expires_in).await;
        }
    });
    Ok(response)
}

fn event_stream(body: Body) -> Result<Response<Body>, Refusal> {
    let response = Response::builder()
        .header(header::CONTENT_TYPE, Form::Stream.name())
        .header(header::CACHE_CONTROL, "no-cache, no-transform")
        .header("x-accel-buffering", "no")
        .extension(Unending)
        .body(body);
    response.map_err(|error| Code::Internal.because(error.to_string()))
}

async fn page(
    readers: &Readers,
    reading: &Reading,
    media: Media,
    parts: &Parts,
    shutdown: &CancellationToken,
) -> Result<Response<Body>, Refusal> {
    let Reading { reader, identity, group, expires_in, .. } = reading;
    let mut query = reading.query(parts)?;
    if media == Media::OctetStream {
        (query.limit, query.min) = (1, 1);
    }
    query.timeout = expires_in.map_or(query.timeout, |left| query.timeout.min(left));
    let connection = readers.connections.admit(reader, identity, Entrypoint::Get)?;
    let reader = &reader.filtered(query.filter.take())?;
    let mut turn = match group {
        Some(id) => Some(readers.groups.turn(reader, id, &mut query, shutdown).await?),
        None => None,
    };
    let mut page = Page::read(reader, &query, turn.as_mut(), shutdown).await?;
    let metrics = connection.metrics.by(Entrypoint::Get);
    metrics.records.inc_by(page.len() as u64);
    let mut response = Response::builder()
        .extension(SlowCloses(metrics.slow_closes.clone()))
        .header(header::CONTENT_TYPE, media.name())
        .header(header::CACHE_CONTROL, "no-store")
        .header("kafka-lag", page.lag);
    if reader.feed.delivery.has_cursors() {
        response = response.header("kafka-next-cursor", &page.cursor);
    }
    if media != Media::Json && !page.gaps.is_empty() {
        response = response.header("kafka-gaps", json!(page.gaps).to_string());
    }
    if media == Media::OctetStream {
        if page.len() == 0 {
            response = response.status(StatusCode::NO_CONTENT);
        }
        let mut own_headers = Vec::new();
        page.look_at(0, |_, record| {
            own_headers = Raw::new(&record, &reader.feed, query.shape).headers;
        });
        for (name, value) in own_headers {
            response = response.header(name, value);
        }
    }
    let turn = turn.zip(page.end.take());
    let body = PageBody::new(page, reader, media, &query, connection).after(turn);
    let body = body.into_body().await;
    response.body(body).map_err(|error| Code::Internal.because(error.to_string()))
}

/// A position that cannot be read must not be taken for none.
fn last_event_id(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let text =
        value.to_str().map_err(|_| Code::CursorMalformed.because("Last-Event-ID: not ASCII"));
    text.map(Some)
}

/// Values of a header's lines that are text.
fn texts<'a>(headers: &'a HeaderMap, name: &'static str) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).iter().filter_map(|value| value.to_str().ok())
}

/// `?at=`: the cursor of a place in every partition.
async fn cursor(
    State(readers): State<Arc<Readers>>,
    path: Result<Path<String>, PathRejection>,
    parts: Parts,
) -> Response<Body> {
    let found = async {
        let Reading { reader, .. } = readers.feed(path, &parts.headers)?;
        let at = query::at(parts.uri.query().unwrap_or_default())?;
        let (cursor, _) = reader.open(&Given::From(at), None, FEED_PATIENCE).await?;
        let mut partitions = Vec::new();
        for (topic, positions) in &cursor.topics {
            for (partition, position) in &positions.partitions {
                let offset = match position {
                    Position::Offset { next, .. } => Value::from(*next),
                    Position::Time(_) => Value::Null,
                };
                partitions
                    .push(json!({ "topic": topic, "partition": partition, "offset": offset }));
            }
        }
        let text = cursor.encode(reader.feed.encode_message_id);
        Ok(reply::json(StatusCode::OK, &json!({ "cursor": text, "partitions": partitions })))
    };
    found.await.unwrap_or_else(|refusal: Refusal| failure(&refusal, None))
}

/// A client acknowledges what is before a cursor.
async fn commits(
    State(readers): State<Arc<Readers>>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Response<Body> {
    let committed = async {
        let Reading { reader, group, .. } = readers.feed(path, &headers)?;
        let delivery = &reader.feed.delivery;
        let Some(group) = group.filter(|_| delivery.commit != Commit::Off) else {
            return Err(Code::FeedNotFound.because("nothing is committed of this feed"));
        };
        if !delivery.has_cursors() {
            return Err(no_cursors());
        }
        let body = timeout(BODY_TIMEOUT, to_bytes(body, FEED_COMMIT_BYTES)).await;
        let body = body.ok().and_then(Result::ok);
        let given = body.and_then(|body| serde_json::from_slice::<Acknowledged>(&body).ok());
        let form = "the body must be {\"cursor\":\"…\"}";
        let given = given.ok_or_else(|| Code::InvalidParameter.because(form))?;
        let cursor = Cursor::parse(&given.cursor)?;
        readers.groups.acknowledge(&reader, &group, cursor).await?;
        let response = Response::builder().status(StatusCode::NO_CONTENT).body(Body::empty());
        response.map_err(|error| Code::Internal.because(error.to_string()))
    };
    committed.await.unwrap_or_else(|refusal: Refusal| failure(&refusal, None))
}

/// The body of what a client sends.
#[derive(serde::Deserialize)]
struct Acknowledged {
    cursor: String,
}

fn no_cursors() -> Refusal {
    Code::CursorNotSupported.because("this feed has no cursors: its `qos` keeps none")
}

fn failure(refusal: &Refusal, cursors: Option<Value>) -> Response<Body> {
    let mut body = refusal.body();
    if let (Some(cursors), Some(body)) = (cursors, body.as_object_mut()) {
        body.insert("cursors".to_owned(), cursors);
    }
    let mut response = reply::json(refusal.code.status(), &body);
    if refusal.code == Code::UpgradeRequired {
        let websocket = header::HeaderValue::from_static("websocket");
        response.headers_mut().insert(header::UPGRADE, websocket);
    }
    if refusal.code.is_overload() {
        let seconds = header::HeaderValue::from_static(RETRY_AFTER_SECONDS);
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
}

fn wrong_method(right: &'static str) -> Response<Body> {
    let message = format!("the method is {right} here");
    let mut response = failure(&Code::MethodNotAllowed.because(message), None);
    response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static(right));
    response
}

#[cfg(test)]
mod tests;
