//! What readers are answered who cannot be served now.

use http_body_util::BodyExt as _;
use tokio::sync::OwnedSemaphorePermit;

use super::*;
use crate::consume::fixture::Fixture;

const MEMORY: usize = 1024 * 1024;

async fn reply(readers: &Arc<Readers>, path: &str, shutdown: CancellationToken) -> Response<Body> {
    let request = axum::http::Request::get(path).extension(shutdown).body(Body::empty()).unwrap();
    let service = hyper_util::service::TowerToHyperService::new(router(Arc::clone(readers)));
    hyper::service::Service::call(&service, request).await.unwrap()
}

async fn ask(readers: &Arc<Readers>, path: &str) -> (StatusCode, HeaderMap, String) {
    let reply = reply(readers, path, CancellationToken::new()).await;
    let (parts, mut body) = reply.into_parts();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    (parts.status, parts.headers, String::from_utf8(first.to_vec()).unwrap())
}

fn readers(fixture: &Fixture) -> Arc<Readers> {
    let feeds = [("orders", false), ("browsers", true)].map(|(name, overload_as_stream)| {
        (name.to_owned(), fixture.reader(|feed| feed.sse.overload_as_stream = overload_as_stream))
    });
    let (authorization, connections) = (Authorization::default(), Connections::new(2, 1));
    let (writers, groups) = (BTreeMap::new(), Groups::default());
    Arc::new(Readers { feeds: feeds.into(), writers, authorization, connections, groups })
}

async fn assert_overloaded(readers: &Arc<Readers>) {
    for path in ["/v1/feeds/orders/events", "/v1/feeds/orders", "/v1/feeds/browsers/messages"] {
        let (status, headers, body) = ask(readers, path).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert_eq!(headers["retry-after"], "1", "{path}");
        assert!(body.contains("\"error\":\"overloaded\""), "{body}");
    }
    let (status, headers, body) = ask(readers, "/v1/feeds/browsers/events").await;
    assert_eq!(
        (status, &headers["content-type"]),
        (StatusCode::OK, &"text/event-stream".parse().unwrap())
    );
    assert!(body.starts_with("retry: "), "{body}");
    assert!(body.ends_with("\n\nevent: goaway\ndata: {\"reason\":\"overloaded\"}\n\n"), "{body}");
}

#[tokio::test(start_paused = true)]
async fn one_reader_too_many_is_told_to_come_again() {
    let fixture = Fixture::new(&[1], MEMORY);
    let readers = readers(&fixture);
    let connections = Arc::clone(&readers.connections.all);
    let others: OwnedSemaphorePermit = connections.try_acquire_many_owned(2).unwrap();
    assert_overloaded(&readers).await;
    drop(others);
    assert_eq!(ask(&readers, "/v1/feeds/orders/events").await.0, StatusCode::OK);
    let of_feed = Arc::clone(&readers.feeds["orders"].connections);
    let most = u32::try_from(crate::limits::FEED_CONNECTIONS).unwrap();
    let of_feed = of_feed.try_acquire_many_owned(most).unwrap();
    let (status, ..) = ask(&readers, "/v1/feeds/orders/events").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ask(&readers, "/v1/feeds/browsers/events").await.0, StatusCode::OK);
    drop(of_feed);
    assert_eq!(ask(&readers, "/v1/feeds/orders").await.0, StatusCode::OK);
    assert_eq!(readers.connections.all.available_permits(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_feed_that_is_not_read_so_says_how_it_is() {
    let fixture = Fixture::new(&[1], MEMORY);
    let (status, _, body) = ask(&readers(&fixture), "/v1/feeds/orders/pubsub").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(body.contains("the feed has no entrypoint `pubsub`; it has: get, sse"), "{body}");
    let (status, _, body) = ask(&readers(&fixture), "/v1/feeds/orders?filter=true").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(body.contains("allow_client_filter is false"), "{body}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_for_browsers_says_why_it_ends_at_once() {
    let fixture = Fixture::new(&[1], MEMORY);
    let readers = readers(&fixture);
    fixture.cluster.kill(1);
    fixture.cluster.kill(2);
    let (status, _, body) = ask(&readers, "/v1/feeds/browsers/events").await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        body.ends_with("event: goaway\ndata: {\"reason\":\"kafka_unavailable\"}\n\n"),
        "{body}"
    );
}

#[tokio::test(start_paused = true)]
async fn with_all_memory_in_use_nobody_new_is_served() {
    let fixture = Fixture::new(&[1], MEMORY);
    let readers = readers(&fixture);
    let held = fixture.resources.memory.hold(MEMORY);
    assert_overloaded(&readers).await;
    drop(held);
    assert_eq!(ask(&readers, "/v1/feeds/orders/events").await.0, StatusCode::OK);
}

/// What is asked for at the very end is answered: another bridge goes on from there.
#[tokio::test(start_paused = true)]
async fn a_bridge_that_is_to_end_gives_a_position() {
    let fixture = Fixture::new(&[1], MEMORY);
    let readers = readers(&fixture);
    let ended = CancellationToken::new();
    ended.cancel();
    let page = reply(&readers, "/v1/feeds/orders?min=5", ended.clone()).await;
    assert_eq!(page.status(), StatusCode::OK);
    assert!(page.headers().contains_key("kafka-next-cursor"));
    let stream = reply(&readers, "/v1/feeds/orders/events", ended).await;
    assert_eq!(stream.status(), StatusCode::OK);
    let text = stream.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(text.to_vec()).unwrap();
    assert!(text.starts_with("retry: ") && text.contains("\n\nid: "), "{text}");
    assert!(text.ends_with("event: goaway\ndata: {\"reason\":\"shutdown\"}\n\n"), "{text}");
}
