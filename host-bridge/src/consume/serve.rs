//! The routes of feeds, on listeners, a runtime and a budget of their own.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Response, StatusCode, header};
use axum::routing::get;
use bytes::Bytes;
use futures_util::stream;
use kafka_client::ConsumerConfig;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::cursor::Position;
use super::envelope::{Envelope, Raw, Record, Shape, TimestampType};
use super::feeds::{Feed, Feeds};
use super::page::{FeedReader, Item, Page};
use super::query::{self, Media, Query};
use super::refusal::{Code, Refusal};
use super::start::{Given, Start};
use crate::clusters::Clusters;
use crate::limits::{
    FEED_CHUNKS, FEED_PAGES, FEED_PATIENCE, FEED_PIECE_BYTES, RETRY_AFTER_SECONDS,
};
use crate::reply;

/// All feeds.
pub(crate) struct Readers {
    feeds: BTreeMap<String, FeedReader>,
    /// Pages at a time.
    pages: Arc<Semaphore>,
    /// Memory for pages, in chunks.
    budget: Arc<Semaphore>,
}

impl Readers {
    /// The configured feeds over the clients of their clusters.
    pub(crate) fn new(feeds: &Feeds, clusters: &Clusters) -> Self {
        let reader = |(name, feed): (&String, &Feed)| {
            let config = ConsumerConfig::default().isolation(feed.isolation_level);
            // The configuration was checked: the cluster is there.
            let consumer = clusters.named(&feed.cluster)?.client().consumer(&config);
            Some((name.clone(), FeedReader::new(feed.clone(), consumer)))
        };
        let feeds = feeds.feeds.iter().filter_map(reader).collect();
        let [pages, budget] =
            [FEED_PAGES, FEED_CHUNKS].map(|count| Arc::new(Semaphore::new(count)));
        Self { feeds, pages, budget }
    }

    fn feed(&self, path: Result<Path<String>, PathRejection>) -> Result<&FeedReader, Refusal> {
        let Ok(Path(name)) = path else { return Err(Code::FeedNotFound.because("no such feed")) };
        self.feeds.get(&name).ok_or_else(|| Code::FeedNotFound.because("there is no such feed"))
    }
}

/// Every route of readers.
pub(crate) fn router(readers: Arc<Readers>) -> Router {
    // Without a handler of its own HEAD is a GET, and a poll may wait.
    let page = || get(messages).head(async || wrong_method());
    Router::new()
        .route("/v1/feeds/{feed}", page())
        .route("/v1/feeds/{feed}/messages", page())
        .route("/v1/feeds/{feed}/cursor", get(cursor).head(async || wrong_method()))
        .route("/healthz", get(async || reply::json(StatusCode::OK, &json!({ "alive": true }))))
        .fallback(async || failure(&Code::FeedNotFound.because("there is no such route"), None))
        .method_not_allowed_fallback(async || wrong_method())
        .with_state(readers)
}

/// A page, by polling.
async fn messages(
    State(readers): State<Arc<Readers>>,
    path: Result<Path<String>, PathRejection>,
    Extension(shutdown): Extension<CancellationToken>,
    parts: Parts,
) -> Response<Body> {
    let reader = match readers.feed(path) {
        Ok(reader) => reader,
        Err(refusal) => return failure(&refusal, None),
    };
    match page(&readers, reader, &parts, &shutdown).await {
        Ok(response) => response,
        Err(refusal) if refusal.code == Code::OffsetOutOfRange => {
            failure(&refusal, Some(both_ends(reader).await))
        }
        Err(refusal) => failure(&refusal, None),
    }
}

async fn page(
    readers: &Readers,
    reader: &FeedReader,
    parts: &Parts,
    shutdown: &CancellationToken,
) -> Result<Response<Body>, Refusal> {
    let media = Media::negotiate(texts(&parts.headers, header::ACCEPT.as_str()))?;
    let last_event_id = texts(&parts.headers, "last-event-id").next();
    let mut query = Query::parse(parts.uri.query().unwrap_or_default(), last_event_id)?;
    if media == Media::OctetStream {
        (query.limit, query.min) = (1, 1);
    }
    let Ok(permit) = Arc::clone(&readers.pages).try_acquire_owned() else {
        let message = "as many pages as may be read at a time are under way: ask again later";
        return Err(Code::Overloaded.because(message));
    };
    let page = reader.page(&query, &readers.budget, shutdown).await?;
    let next_cursor = page.cursor.encode(reader.feed.encode_message_id);
    let body = body(media, reader, &query, &page, &next_cursor);
    let (status, own_headers, body) =
        body.map_err(|error| Code::Internal.because(error.to_string()))?;
    let mut response = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, media.name())
        .header(header::CACHE_CONTROL, "no-store")
        .header("kafka-next-cursor", &next_cursor)
        .header("kafka-lag", page.lag);
    if media != Media::Json && !page.gaps.is_empty() {
        response = response.header("kafka-gaps", json!(page.gaps).to_string());
    }
    for (name, value) in own_headers {
        response = response.header(name, value);
    }
    // In pieces: a page may be larger than the replies that a connection may leave unread. Its records
    // go now, its share of the limits when it is sent.
    let held = (permit, page.memory);
    let pieces = stream::unfold((body, held), |(mut rest, held)| async {
        let piece = rest.split_to(rest.len().min(FEED_PIECE_BYTES));
        (!piece.is_empty()).then_some((Ok::<_, Infallible>(piece), (rest, held)))
    });
    let body = Body::from_stream(pieces);
    response.body(body).map_err(|error| Code::Internal.because(error.to_string()))
}

/// Values of a header's lines that are text.
fn texts<'a>(headers: &'a HeaderMap, name: &'static str) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).iter().filter_map(|value| value.to_str().ok())
}

type Rendered = (StatusCode, Vec<(&'static str, String)>, Bytes);

fn body(
    media: Media,
    reader: &FeedReader,
    query: &Query,
    page: &Page,
    next_cursor: &str,
) -> serde_json::Result<Rendered> {
    let feed = &reader.feed;
    let headers: Vec<Vec<_>> =
        page.items.iter().map(|item| item.record.headers.iter().collect()).collect();
    let mut records =
        page.items.iter().zip(&headers).map(|(item, headers)| (item, item.record_with(headers)));
    let shape = query.shape;
    let mut out = Vec::new();
    match media {
        Media::Json => {
            write_items(&mut out, records.map(|it| envelope(it, feed, shape)))?;
            let rest = json!({
                "pagination": { "nextCursor": next_cursor, "limit": query.limit },
                "gaps": page.gaps,
                "error": page.error.as_ref().map(told),
            });
            let rest = rest.to_string();
            out.extend_from_slice(rest.strip_prefix('{').unwrap_or(&rest).as_bytes());
        }
        Media::Ndjson => {
            records.try_for_each(|it| envelope(it, feed, shape).write_line(&mut out))?;
        }
        Media::Text => {
            out.extend_from_slice(b"items\n\n");
            records.try_for_each(|it| envelope(it, feed, shape).write_text(&mut out))?;
            let limit = query.limit;
            let pagination = format!("pagination\nnextCursor: {next_cursor}\nlimit: {limit}\n");
            out.extend_from_slice(pagination.as_bytes());
        }
        Media::OctetStream => {
            let Some((_, record)) = records.next() else {
                return Ok((StatusCode::NO_CONTENT, Vec::new(), Bytes::new()));
            };
            let raw = Raw::new(&record, feed, shape)?;
            return Ok((StatusCode::OK, raw.headers, Bytes::copy_from_slice(raw.body)));
        }
    }
    Ok((StatusCode::OK, Vec::new(), out.into()))
}

fn envelope<'a>((item, record): (&'a Item, Record<'a>), feed: &Feed, shape: Shape) -> Envelope<'a> {
    Envelope::new(&item.id, &record, feed, shape)
}

/// The beginning of a page of JSON, up to the comma behind its items.
fn write_items<'a>(
    out: &mut Vec<u8>,
    items: impl Iterator<Item = Envelope<'a>>,
) -> serde_json::Result<()> {
    out.extend_from_slice(b"{\"items\":[");
    for (index, item) in items.enumerate() {
        out.extend_from_slice(if index == 0 { b"" } else { b"," });
        serde_json::to_writer(&mut *out, &item)?;
    }
    out.extend_from_slice(b"],");
    Ok(())
}

impl Item {
    /// With its headers, as they were read from the record.
    fn record_with<'a>(&'a self, headers: &'a [(Bytes, Option<Bytes>)]) -> Record<'a> {
        Record {
            topic: &self.topic,
            partition: self.partition,
            offset: self.record.offset,
            timestamp_ms: self.record.timestamp_ms,
            timestamp_type: match self.record.is_log_append_time {
                true => TimestampType::LogAppendTime,
                false => TimestampType::CreateTime,
            },
            key: self.record.key.as_deref(),
            value: self.record.value.as_deref(),
            headers,
        }
    }
}

/// `?at=`: the cursor of a place in every partition.
async fn cursor(
    State(readers): State<Arc<Readers>>,
    path: Result<Path<String>, PathRejection>,
    parts: Parts,
) -> Response<Body> {
    let found = async {
        let reader = readers.feed(path)?;
        let at = query::at(parts.uri.query().unwrap_or_default())?;
        let (cursor, _) = reader.open(&Given::From(at), None, FEED_PATIENCE).await?;
        cursor.check_width()?;
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

/// Where a reader whose position is gone may go on.
async fn both_ends(reader: &FeedReader) -> Value {
    let end = async |start| {
        let (cursor, _) = reader.open(&Given::From(start), None, FEED_PATIENCE).await.ok()?;
        Some(cursor.encode(reader.feed.encode_message_id))
    };
    json!({ "earliest": end(Start::Earliest).await, "latest": end(Start::Latest).await })
}

fn told(refusal: &Refusal) -> Value {
    json!({ "message": refusal.message, "error": refusal.code.name() })
}

fn failure(refusal: &Refusal, cursors: Option<Value>) -> Response<Body> {
    let mut body = told(refusal);
    if let (Some(cursors), Some(body)) = (cursors, body.as_object_mut()) {
        body.insert("cursors".to_owned(), cursors);
    }
    let mut response = reply::json(refusal.code.status(), &body);
    if refusal.code.status() == StatusCode::SERVICE_UNAVAILABLE {
        let seconds = header::HeaderValue::from_static(RETRY_AFTER_SECONDS);
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
}

fn wrong_method() -> Response<Body> {
    let message = "a feed is read with GET";
    let mut response = failure(&Code::MethodNotAllowed.because(message), None);
    response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET"));
    response
}
