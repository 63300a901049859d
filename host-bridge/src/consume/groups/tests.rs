//! Pages in groups, on brokers in memory.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use kafka_client::{GroupConfig, GroupOffset};
use serde_json::Value;
use tokio::time::sleep;

use super::*;
use crate::consume::delivery::GroupMode;
use crate::consume::feeds::{Feed, Reset};
use crate::consume::fixture::Fixture;
use crate::consume::serve::{Readers, router};

const GROUP: &str = "readers";

/// A bridge with one feed, in a group.
struct Served(Arc<Readers>);

/// Values, gaps and next cursor of a page.
#[derive(Debug, PartialEq)]
struct Got {
    values: Vec<String>,
    gaps: Vec<String>,
    next: Option<String>,
}

impl Served {
    fn new(fixture: &Fixture, qos: Qos, commit: Commit, change: impl FnOnce(&mut Feed)) -> Self {
        let reader = fixture.reader(|feed| {
            let id = Some(GROUP.to_owned());
            let group = GroupMode::Manual { id, allowed: Vec::new(), suffix: String::new() };
            (feed.delivery, feed.encode_message_id) = (Delivery { qos, commit, group }, false);
            change(feed);
        });
        Self(Arc::new(Readers::of_one("orders", reader)))
    }

    async fn ask(&self, method: Method, path: &str, body: String) -> (StatusCode, Vec<u8>) {
        let request = Request::builder().method(method).uri(format!("/v1/feeds/orders{path}"));
        let request = request.extension(CancellationToken::new()).body(Body::from(body)).unwrap();
        let service = hyper_util::service::TowerToHyperService::new(router(Arc::clone(&self.0)));
        let reply = hyper::service::Service::call(&service, request).await.unwrap();
        let status = reply.status();
        (status, reply.into_body().collect().await.unwrap().to_bytes().to_vec())
    }

    async fn get(&self, query: &str) -> Result<Got, (u16, String)> {
        let path = format!("/messages?timeout=300{query}");
        let (status, body) = self.ask(Method::GET, &path, String::new()).await;
        let body: Value = serde_json::from_slice(&body).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        if status != StatusCode::OK {
            return Err((status.as_u16(), text(&body["error"])));
        }
        let all = |name: &str| body[name].as_array().unwrap().clone();
        let gap = |gap: &Value| format!("{} {}", gap["partition"], text(&gap["reason"]));
        Ok(Got {
            values: all("items").iter().map(|item| text(&item["content"])).collect(),
            gaps: all("gaps").iter().map(gap).collect(),
            next: body["pagination"]["nextCursor"].as_str().map(str::to_owned),
        })
    }

    async fn values(&self, query: &str) -> Vec<String> {
        self.get(query).await.unwrap().values
    }

    async fn commit(&self, cursor: &str) -> (u16, String) {
        let body = serde_json::json!({ "cursor": cursor }).to_string();
        let (status, body) = self.ask(Method::POST, "/commits", body).await;
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        (status.as_u16(), body["error"].as_str().unwrap_or_default().to_owned())
    }
}

fn at_least_once(fixture: &Fixture) -> Served {
    Served::new(fixture, Qos::AtLeastOnce, Commit::Client, |_| {})
}

async fn write(fixture: &Fixture, partition: i32, values: &[&str]) {
    for value in values {
        fixture.write(partition, value.as_bytes()).await;
    }
}

fn kept(fixture: &Fixture, partition: i32) -> Option<i64> {
    fixture.cluster.committed(GROUP, "orders", partition).map(|kept| kept.offset)
}

fn fixture() -> Fixture {
    Fixture::new(&[1, 2], 1 << 20)
}

#[tokio::test(start_paused = true)]
async fn at_least_once_a_page_comes_again_until_it_is_acknowledged() {
    let fixture = fixture();
    let served = at_least_once(&fixture);
    write(&fixture, 0, &["a", "b", "c", "d"]).await;
    let page = served.get("&limit=2").await.unwrap();
    assert_eq!(page.values, ["a", "b"]);
    assert_eq!(served.get("&limit=2").await.unwrap(), page, "nobody has acknowledged it");
    assert_eq!((kept(&fixture, 0), kept(&fixture, 1)), (Some(0), Some(0)), "where it began");
    let next = page.next.unwrap();
    assert_eq!(served.commit(&next).await, (204, String::new()));
    assert_eq!(served.values("").await, ["c", "d"]);
    // A cursor acknowledges what is before it, sent or not, and nothing goes back.
    let ahead = "orders@0%233,1%230;";
    assert_eq!(served.values(&format!("&cursor={ahead}")).await, ["d"]);
    assert_eq!(kept(&fixture, 0), Some(3));
    assert_eq!(served.values("&cursor=orders@0%231,1%230;").await, ["b", "c", "d"], "a replay");
    assert_eq!(served.commit("orders@0#1").await.0, 204);
    assert_eq!(kept(&fixture, 0), Some(3));
    assert_eq!(served.values("").await, ["d"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_written_between_two_pages_on_latest_is_not_skipped() {
    for (qos, commit) in [
        (Qos::AtLeastOnce, Commit::Client),
        (Qos::AtBest, Commit::Client),
        (Qos::AtBest, Commit::Auto),
        (Qos::Balanced, Commit::Auto),
        (Qos::AtMostOnce, Commit::Auto),
    ] {
        let fixture = fixture();
        write(&fixture, 0, &["before"]).await;
        let served = Served::new(&fixture, qos, commit, |feed| feed.reset = Reset::Latest);
        let first = served.get("").await.unwrap();
        assert_eq!(first.values, [""; 0], "{qos:?}");
        write(&fixture, 0, &["a", "b", "c"]).await;
        write(&fixture, 1, &["d", "e"]).await;
        assert_eq!(served.values("").await.len(), 5, "{qos:?}");
        let (again, expected) =
            (served.values("").await, if commit == Commit::Auto { 0 } else { 5 });
        assert_eq!(again.len(), expected, "{qos:?} {commit:?}");
        assert_eq!(first.next.is_some(), qos != Qos::Balanced);
    }
}

#[tokio::test(start_paused = true)]
async fn with_commit_off_nothing_is_committed() {
    let fixture = fixture();
    let served = Served::new(&fixture, Qos::AtLeastOnce, Commit::Off, |_| {});
    write(&fixture, 0, &["a"]).await;
    assert_eq!(served.values("").await, ["a"]);
    assert_eq!(kept(&fixture, 0), None);
    assert_eq!(served.commit("orders@0#1").await, (404, "feed_not_found".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn at_most_once_is_committed_before_it_is_sent() {
    let fixture = fixture();
    let served = Served::new(&fixture, Qos::AtMostOnce, Commit::Auto, |_| {});
    for number in 0..150 {
        fixture.write(0, number.to_string().as_bytes()).await;
    }
    assert_eq!(served.values("&limit=1000").await.len(), 100, "so many may be lost");
    assert_eq!(kept(&fixture, 0), Some(100));
    // An older cursor repeats nothing.
    assert_eq!(served.values("&cursor=orders@0%235,1%230;").await.len(), 50);
    // What is not committed is not sent.
    write(&fixture, 0, &["z"]).await;
    let refused = kafka_client::fake_broker::Fault::Refuse {
        code: 30,
        trace: kafka_client::fake_broker::Trace::Nothing,
    };
    let second = kafka_client::fake_broker::When::Nth(2);
    fixture.cluster.arm(kafka_client::fake_broker::OFFSET_COMMIT, second, refused);
    assert_eq!(served.get("").await, Err((403, "forbidden".to_owned())));
    assert_eq!(served.values("").await, ["z"]);
    assert_eq!(served.values("").await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn balanced_gives_no_cursor_and_takes_none() {
    let fixture = fixture();
    let served = Served::new(&fixture, Qos::Balanced, Commit::Auto, |_| {});
    write(&fixture, 0, &["a", "b"]).await;
    let (_, body) = served.ask(Method::GET, "?limit=1&timeout=100", String::new()).await;
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["items"][0].get("id"), None, "{body}");
    assert_eq!(body["pagination"]["nextCursor"], Value::Null, "{body}");
    assert_eq!(kept(&fixture, 0), Some(1));
    let unsupported = (400, "cursor_not_supported".to_owned());
    assert_eq!(served.get("&cursor=orders@0%230;").await, Err(unsupported.clone()));
    assert_eq!(served.commit("orders@0#0").await, unsupported);
    assert_eq!(served.values("").await, ["b"]);
}

#[tokio::test(start_paused = true)]
async fn a_group_with_members_is_in_use() {
    let fixture = fixture();
    let served = at_least_once(&fixture);
    write(&fixture, 0, &["a"]).await;
    assert_eq!(served.values("").await, ["a"]);
    let (member, mut events) =
        fixture.hub.client.group(GROUP).join(&["orders"], &GroupConfig::default());
    events.next().await.unwrap();
    let in_use = (409, "group_in_use".to_owned());
    assert_eq!(served.get("").await, Err(in_use.clone()));
    assert_eq!(served.commit("orders@0#1").await, in_use);
    member.leave(FEED_PATIENCE).await;
    assert_eq!(served.values("").await, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_position_that_has_expired_goes_on_where_the_group_began() {
    let fixture = fixture();
    let served = Served::new(&fixture, Qos::AtLeastOnce, Commit::Client, |feed| {
        feed.reset = Reset::Latest;
    });
    write(&fixture, 1, &["old"]).await;
    assert_eq!(served.values("").await, [""; 0]);
    write(&fixture, 1, &["a"]).await;
    write(&fixture, 0, &["b"]).await;
    let page = served.get("").await.unwrap();
    served.commit(&page.next.unwrap()).await;
    fixture.cluster.forget_committed(GROUP, "orders", 1);
    let page = served.get("").await.unwrap();
    // Records are of the year 1970 here: none is as new as the group.
    assert_eq!((page.values.len(), &*page.gaps), (0, &["1 uncommitted".to_owned()][..]));
    assert_eq!(kept(&fixture, 1), Some(2), "and from now on it is there");
    assert_eq!(served.get("").await.unwrap().gaps, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_group_of_others_begins_at_the_log_start_where_nothing_may_be_lost() {
    for (qos, expected) in [(Qos::AtLeastOnce, 2), (Qos::AtBest, 1)] {
        let fixture = fixture();
        write(&fixture, 0, &["a"]).await;
        write(&fixture, 1, &["b"]).await;
        let foreign = GroupOffset::new("orders", 0, 0);
        fixture.hub.client.group(GROUP).commit(&[foreign], FEED_PATIENCE).await[0].clone().unwrap();
        let served = Served::new(&fixture, qos, Commit::Client, |feed| feed.reset = Reset::Latest);
        assert_eq!(served.values("").await.len(), expected, "{qos:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn at_least_once_never_jumps_to_the_end() {
    let fixture = fixture();
    let served = Served::new(&fixture, Qos::AtLeastOnce, Commit::Client, |feed| {
        feed.reset = Reset::Latest;
    });
    write(&fixture, 0, &["a", "b"]).await;
    let page = served.get("&cursor=orders@0%239,1%230;").await.unwrap();
    assert_eq!((page.values.len(), &*page.gaps), (2, &["0 beyond_end".to_owned()][..]));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_written_is_acknowledged_by_nobody() {
    let fixture = fixture();
    let served = at_least_once(&fixture);
    write(&fixture, 0, &["a", "b"]).await;
    assert_eq!(served.values("").await, ["a", "b"]);
    let beyond = (410, "offset_out_of_range".to_owned());
    for cursor in ["orders@0#3", "orders@0#1,1#1", "orders@0#9223372036854775807"] {
        assert_eq!(served.commit(cursor).await, beyond, "{cursor}");
    }
    let page = served.get("&cursor=orders@0%239223372036854775807,1%230;").await.unwrap();
    assert_eq!((page.values.len(), &*page.gaps), (2, &["0 beyond_end".to_owned()][..]));
    assert_eq!((kept(&fixture, 0), kept(&fixture, 1)), (Some(0), Some(0)));
    assert_eq!(served.commit("orders@0#2,1#0").await.0, 204);
    assert_eq!(kept(&fixture, 0), Some(2));
    assert_eq!(served.values("&cursor=orders@0%239,1%230;").await, ["a", "b"]);
    assert_eq!(kept(&fixture, 0), Some(2));
}

#[tokio::test(start_paused = true)]
async fn where_the_log_is_shorter_the_group_goes_back_with_its_pages() {
    for (qos, commit) in [(Qos::AtLeastOnce, Commit::Client), (Qos::AtMostOnce, Commit::Auto)] {
        let fixture = fixture();
        let served = Served::new(&fixture, qos, commit, |_| {});
        write(&fixture, 0, &["a", "b", "c"]).await;
        let group = fixture.hub.client.group(GROUP);
        let before = [(0, 9), (1, 0)].map(|(it, next)| GroupOffset::new("orders", it, next));
        let committed = group.commit(&before, FEED_PATIENCE).await;
        assert!(committed.iter().all(Result::is_ok));
        let page = served.get("").await.unwrap();
        assert_eq!((page.values.len(), &*page.gaps), (3, &["0 beyond_end".to_owned()][..]));
        let expected = if commit == Commit::Client { 0 } else { 3 };
        assert_eq!(kept(&fixture, 0), Some(expected), "{qos:?}");
        assert_eq!(served.get("").await.unwrap().gaps, [""; 0], "{qos:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_of_a_group_take_turns_and_wait_no_longer_than_for_records() {
    let fixture = fixture();
    let served = Served::new(&fixture, Qos::Balanced, Commit::Auto, |_| {});
    for number in 0..10 {
        fixture.write(0, number.to_string().as_bytes()).await;
    }
    let pages = futures_util::future::join_all((0..5).map(|_| served.values("&limit=2"))).await;
    let mut all: Vec<_> = pages.into_iter().flatten().collect();
    all.sort();
    assert_eq!(all, (0..10).map(|it| it.to_string()).collect::<Vec<_>>(), "each once");
    let path = "/messages?timeout=60000&min=5";
    let holding = served.ask(Method::GET, path, String::new());
    let second = async {
        sleep(Duration::from_secs(1)).await;
        (served.get("").await, Instant::now())
    };
    let started = Instant::now();
    let (_, (refused, at)) = tokio::join!(holding, second);
    assert_eq!(refused, Err((409, "group_in_use".to_owned())));
    assert_eq!(at - started, Duration::from_millis(1300));
}

#[tokio::test(start_paused = true)]
async fn who_does_not_take_the_reply_gets_it_again() {
    let fixture = fixture();
    let served = Served::new(&fixture, Qos::Balanced, Commit::Auto, |_| {});
    write(&fixture, 0, &["a"]).await;
    let request = Request::get("/v1/feeds/orders?timeout=100").extension(CancellationToken::new());
    let request = request.body(Body::empty()).unwrap();
    let service = hyper_util::service::TowerToHyperService::new(router(Arc::clone(&served.0)));
    let reply = hyper::service::Service::call(&service, request).await.unwrap();
    drop(reply);
    assert_eq!(kept(&fixture, 0), Some(0));
    assert_eq!(served.values("").await, ["a"]);
    assert_eq!(served.values("").await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_acknowledged_is_named_and_nothing_is_committed() {
    let fixture = fixture();
    let served = at_least_once(&fixture);
    write(&fixture, 0, &["a"]).await;
    for (cursor, status, error) in [
        ("nonsense", 400, "cursor_malformed"),
        ("orders@0#1;foreign@0#1;", 403, "topic_not_allowed"),
        ("orders@0#1,7#1;", 400, "cursor_unknown_partition"),
        ("orders:00000001@0#1;", 404, "topic_deleted"),
        ("orders@0#t5;", 400, "cursor_incomplete"),
        (";", 400, "cursor_incomplete"),
    ] {
        assert_eq!(served.commit(cursor).await, (status, error.to_owned()), "{cursor}");
    }
    for body in ["", "[]", "{}", "{\"cursor\":1}"] {
        let (status, _) = served.ask(Method::POST, "/commits", body.to_owned()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    }
    let long = format!("{{\"cursor\":\"{}\"}}", "x".repeat(1 << 20));
    assert_eq!(served.ask(Method::POST, "/commits", long).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(served.ask(Method::GET, "/commits", String::new()).await.0, 405);
    assert_eq!(kept(&fixture, 0), None);
}

#[tokio::test(start_paused = true)]
async fn positions_that_kafka_does_not_give_or_take_are_no_pages() {
    let fixture = fixture();
    let served = at_least_once(&fixture);
    write(&fixture, 0, &["a"]).await;
    assert_eq!(served.values("").await, ["a"]);
    fixture.cluster.kill(1);
    fixture.cluster.kill(2);
    let started = Instant::now();
    assert_eq!(served.get("").await, Err((503, "kafka_unavailable".to_owned())));
    assert!(started.elapsed() < FEED_PATIENCE * 2, "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn groups_that_nobody_reads_are_forgotten() {
    let fixture = fixture();
    let reader = fixture.reader(|_| {});
    let groups = Groups::default();
    let held = groups.seat(&reader, "held");
    for number in 0..FEED_GROUPS + 10 {
        drop(groups.seat(&reader, &number.to_string()));
    }
    assert!(groups.seats.lock().unwrap().len() <= FEED_GROUPS);
    assert!(Arc::ptr_eq(&held, &groups.seat(&reader, "held")));
}
