//! What readers are answered who cannot be served now.

use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;
use tokio::sync::OwnedSemaphorePermit;

use super::*;
use crate::consume::fixture::Fixture;
use crate::limits::{FEED_ANSWERS_BYTES, FEED_GRACE, FEED_PIECE_BYTES};

const MEMORY: usize = 64 * 1024 * 1024;

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
    Arc::new(Readers {
        feeds: feeds.into(),
        sources: None,
        writers,
        authorization,
        connections,
        groups,
    })
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

/// The pieces of a page, each as it comes when it is first asked for; none is "not yet".
async fn pieces(readers: &Arc<Readers>, accept: &str) -> Vec<Option<bytes::Bytes>> {
    let request = axum::http::Request::get("/v1/feeds/orders?from=earliest&limit=190");
    let request = request.header("accept", accept).extension(CancellationToken::new());
    let service = hyper_util::service::TowerToHyperService::new(router(Arc::clone(readers)));
    let reply = hyper::service::Service::call(&service, request.body(Body::empty()).unwrap());
    let mut body = reply.await.unwrap().into_body();
    let mut pieces = Vec::new();
    loop {
        let now = body.frame().now_or_never();
        let Some(next) = now else {
            tokio::task::yield_now().await;
            pieces.push(None);
            continue;
        };
        let Some(piece) = next else { return pieces };
        pieces.push(Some(piece.unwrap().into_data().unwrap()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_is_the_same_whether_it_is_made_while_it_is_sent_or_before() {
    let fixture = Fixture::new(&[1, 2], MEMORY);
    let readers = readers(&fixture);
    for number in 0..200 {
        let value = format!("{{\"n\":{number},\"pad\":\"{}\"}}\n", "x".repeat(number * 10));
        fixture.write(number as i32 % 2, value.as_bytes()).await;
    }
    for accept in ["application/json", "application/x-ndjson", "text/plain"] {
        let made_while_sent = pieces(&readers, accept).await;
        let held = fixture.resources.unmade.hold(crate::limits::FEED_UNMADE_BYTES);
        let made_before = pieces(&readers, accept).await;
        drop(held);
        let whole = |pieces: &[Option<bytes::Bytes>]| {
            let pieces: Vec<_> = pieces.iter().flatten().collect();
            assert!(pieces.len() > 3, "{accept}");
            let least = FEED_PIECE_BYTES - 8 * 1024;
            let (_, all_but_one) = pieces.split_last().unwrap();
            assert!(all_but_one.iter().all(|it| (least..=least + 8 * 1024).contains(&it.len())));
            String::from_utf8(pieces.iter().flat_map(|it| it.to_vec()).collect()).unwrap()
        };
        assert_eq!(whole(&made_while_sent), whole(&made_before));
        // Others have their turn before each piece but the first.
        assert!(made_before.iter().all(Option::is_some));
        let turns: Vec<_> = made_while_sent.iter().map(Option::is_some).collect();
        assert!(turns.chunks(2).all(|turn| turn[0]), "{turns:?}");
        assert!(turns.chunks_exact(2).all(|turn| !turn[1]), "{turns:?}");
    }
    assert_eq!(readers.connections.all.available_permits(), 2);
    assert!(fixture.resources.unmade.try_hold(crate::limits::FEED_UNMADE_BYTES).is_some());
    assert!(fixture.resources.answers.used() == 0);
    let page = whole_page(&readers, "/v1/feeds/orders?from=earliest&limit=190").await;
    assert_eq!(page["items"].as_array().unwrap().len(), 190);
    assert_eq!(
        page["items"][3]["content"],
        "{\"n\":3,\"pad\":\"".to_owned() + &"x".repeat(30) + "\"}\n"
    );
    assert_eq!(page["pagination"]["nextCursor"], page["items"][189]["id"]);
}

async fn whole_page(readers: &Arc<Readers>, path: &str) -> Value {
    let body = reply(readers, path, CancellationToken::new()).await.into_body();
    serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn pages_that_nobody_takes_leave_room_for_those_of_others() {
    const LEFT: usize = 16 * 1024 * 1024;
    let fixture = Fixture::new(&[1], MEMORY);
    let readers = readers(&fixture);
    readers.connections.all.add_permits(1000);
    for _ in 0..200 {
        fixture.write(0, &[b'x'; 10_000]).await;
    }
    let answers = &fixture.resources.answers;
    let path = "/v1/feeds/orders?from=earliest&limit=200";
    let (mut untaken, mut in_use) = (Vec::new(), 0);
    for number in 0..60 {
        if number == 1 {
            // The first one has all that it asks for.
            assert!(in_use > 2_000_000, "{in_use}");
            untaken.clear();
            untaken.push((Response::default(), answers.hold(FEED_ANSWERS_BYTES - LEFT)));
            in_use = answers.used();
        }
        let page = reply(&readers, path, CancellationToken::new()).await;
        assert_eq!(page.status(), StatusCode::OK, "after {number}");
        let bytes = answers.used() - in_use;
        assert!(bytes > 10_000, "{bytes} after {number}");
        in_use = answers.used();
        untaken.push((page, answers.hold(0)));
    }
    assert!(in_use < FEED_ANSWERS_BYTES, "{in_use}");
    // What is taken is free again, piece by piece.
    let mut page = untaken.swap_remove(1).0.into_body();
    let piece = page.frame().await.unwrap().unwrap();
    assert_eq!(answers.used(), in_use);
    drop(piece);
    let freed = in_use - answers.used();
    assert!((FEED_PIECE_BYTES / 2..=FEED_PIECE_BYTES).contains(&freed), "{freed}");
    drop((page, untaken));
    assert_eq!(answers.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn items_that_are_larger_than_a_piece_are_sent_once() {
    let fixture = Fixture::new(&[1], MEMORY);
    let readers = readers(&fixture);
    let values = [100_000, 1, 200_000, 65_536].map(|bytes| "\u{1}".repeat(bytes));
    for value in &values {
        fixture.write(0, value.as_bytes()).await;
    }
    let page = whole_page(&readers, "/v1/feeds/orders?from=earliest&limit=4").await;
    let contents = page["items"].as_array().unwrap().iter().map(|item| &item["content"]);
    assert!(contents.eq(values.iter().map(String::as_str)));
    for (accept, beginning) in [("application/x-ndjson", "{\"id\":"), ("text/plain", "\nitem\n")] {
        let pieces = pieces(&readers, accept).await.into_iter().flatten();
        let text = String::from_utf8(pieces.flatten().collect()).unwrap();
        assert_eq!(text.matches(beginning).count(), 4, "{accept}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_goes_on_from_a_full_page_finds_the_next_one_in_memory() {
    use kafka_client::fake_broker::FETCH;
    let fixture = Fixture::new(&[1], MEMORY);
    let readers = readers(&fixture);
    for _ in 0..1000 {
        fixture.write(0, &[b'x'; 10_000]).await;
    }
    let (mut start, mut items) = ("from=earliest".to_owned(), 0);
    for _ in 0..3 {
        let before = fixture.cluster.requests(FETCH);
        let page = reply(
            &readers,
            &format!("/v1/feeds/orders?limit=300&{start}"),
            CancellationToken::new(),
        )
        .await;
        let asked = fixture.cluster.requests(FETCH) - before;
        assert_eq!(asked == 0, items > 0, "{asked} after {items}");
        let page = page.into_body().collect().await.unwrap().to_bytes();
        let page: Value = serde_json::from_slice(&page).unwrap();
        for item in page["items"].as_array().unwrap() {
            assert_eq!(item["metadata"]["offset"], items);
            items += 1;
        }
        assert_eq!(items % 300, 0);
        start = format!("cursor={}", page["pagination"]["nextCursor"].as_str().unwrap());
        tokio::time::sleep(FEED_GRACE).await;
    }
}
