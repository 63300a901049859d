//! Streams in groups, on brokers in memory: what each reader gets, and what is committed when.

use axum::body::{Body, BodyDataStream};
use axum::http::{Method, Request, StatusCode};
use futures_util::StreamExt as _;
use http_body_util::BodyExt as _;
use kafka_client::GroupOffset;
use kafka_client::fake_broker::{CONSUMER_GROUP_HEARTBEAT, Fault, OFFSET_COMMIT, Trace, When};
use tokio::time::{Instant, sleep};

use super::*;
use crate::consume::delivery::{Commit, Delivery, GroupMode, Qos};
use crate::consume::feeds::{Feed, Reset};
use crate::consume::fixture::Fixture;
use crate::consume::serve::{Readers, router};
use crate::consume::source::Source;

const GROUP: &str = "readers";

/// A bridge with one feed, in a group.
struct Bridge {
    fixture: Fixture,
    readers: Arc<Readers>,
    reader: Arc<FeedReader>,
    shutdown: CancellationToken,
}

impl Bridge {
    fn new(fixture: Fixture, qos: Qos, commit: Commit, change: impl FnOnce(&mut Feed)) -> Self {
        let reader = fixture.reader(|feed| {
            let id = Some(GROUP.to_owned());
            let group = GroupMode::Manual { id, allowed: Vec::new(), suffix: String::new() };
            (feed.delivery, feed.encode_message_id) = (Delivery { qos, commit, group }, false);
            change(feed);
        });
        let readers = Arc::new(Readers::of_one("orders", Arc::clone(&reader)));
        Self { fixture, readers, reader, shutdown: CancellationToken::new() }
    }

    fn best(partitions: usize) -> Self {
        Self::new(fixture(partitions), Qos::AtBest, Commit::Auto, |_| {})
    }

    fn beside(&self) -> Self {
        let Delivery { qos, commit, .. } = self.reader.feed.delivery;
        Self::new(self.fixture.beside(), qos, commit, |_| {})
    }

    async fn ask(&self, request: axum::http::request::Builder, body: String) -> (StatusCode, Body) {
        let request = request.extension(self.shutdown.clone()).body(Body::from(body)).unwrap();
        let service = router(Arc::clone(&self.readers));
        let service = hyper_util::service::TowerToHyperService::new(service);
        let reply = hyper::service::Service::call(&service, request).await.unwrap();
        (reply.status(), reply.into_body())
    }

    async fn open(&self, query: &str) -> Client {
        let request = Request::get(format!("/v1/feeds/orders/events{query}"));
        let (status, body) = self.ask(request, String::new()).await;
        assert_eq!(status, StatusCode::OK);
        Client { body: body.into_data_stream(), id: String::new(), values: Vec::new(), gaps: 0 }
    }

    async fn refused(&self, path: &str) -> (u16, String) {
        let (status, body) =
            self.ask(Request::get(format!("/v1/feeds/orders{path}")), String::new()).await;
        self.error(status, body).await
    }

    async fn commit(&self, cursor: &str) -> (u16, String) {
        let body = serde_json::json!({ "cursor": cursor }).to_string();
        let request = Request::builder().method(Method::POST).uri("/v1/feeds/orders/commits");
        let (status, body) = self.ask(request, body).await;
        self.error(status, body).await
    }

    async fn error(&self, status: StatusCode, body: Body) -> (u16, String) {
        let body = body.collect().await.unwrap().to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        (status.as_u16(), body["error"].as_str().unwrap_or_default().to_owned())
    }

    async fn write(&self, range: std::ops::Range<usize>) {
        let partitions = self.fixture.cluster.partitions("orders") as usize;
        for number in range {
            let partition = i32::try_from(number % partitions).unwrap();
            self.fixture.write(partition, format!("v{number}").as_bytes()).await;
        }
    }

    fn kept(&self, partition: i32) -> Option<i64> {
        self.fixture.cluster.committed(GROUP, "orders", partition).map(|kept| kept.offset)
    }

    fn rebalances(&self) -> u64 {
        self.reader.metrics.rebalances.get()
    }

    /// Without a word to anyone.
    async fn vanish(self) {
        self.reader.hub.client.close(Duration::ZERO).await;
    }
}

/// A client of a stream, and what it has got.
struct Client {
    body: BodyDataStream,
    id: String,
    values: Vec<String>,
    gaps: usize,
}

impl Client {
    /// Reads for so long.
    async fn read(&mut self, time: Duration) -> &[String] {
        let end = Instant::now() + time;
        while let Ok(Some(chunk)) = tokio::time::timeout_at(end, self.body.next()).await {
            let text = String::from_utf8(chunk.unwrap().to_vec()).unwrap();
            for line in text.lines() {
                match line.split_once(": ") {
                    Some(("id", id)) => id.clone_into(&mut self.id),
                    Some(("data", value)) if value.starts_with('v') => {
                        self.values.push(value.to_owned());
                    }
                    Some(("event", "gap")) => self.gaps += 1,
                    Some(("event", event)) if event != "message" => {
                        self.values.push(event.to_owned());
                    }
                    _ => {}
                }
            }
        }
        &self.values
    }

    /// The id without the topic's tag, which the cluster makes up.
    fn cursor(&self) -> String {
        let (topic, positions) = self.id.split_once('@').unwrap_or_default();
        format!("{}@{positions}", topic.split(':').next().unwrap())
    }
}

fn fixture(partitions: usize) -> Fixture {
    Fixture::new(&vec![1; partitions], 1 << 20)
}

fn sorted(values: &[&[String]]) -> Vec<String> {
    let mut all = values.concat();
    all.sort();
    all
}

fn numbered(range: std::ops::Range<usize>) -> Vec<String> {
    let mut all: Vec<_> = range.map(|number| format!("v{number}")).collect();
    all.sort();
    all
}

const SOON: Duration = Duration::from_secs(3);
const LATER: Duration = Duration::from_secs(20);

#[tokio::test(start_paused = true)]
async fn readers_of_a_bridge_share_what_it_has_and_each_record_comes_once() {
    let bridge = Bridge::best(4);
    bridge.write(0..40).await;
    let mut first = bridge.open("").await;
    assert_eq!(sorted(&[first.read(SOON).await]), numbered(0..40));
    assert_eq!(first.cursor(), "orders@0#10.0,1#10.0,2#10.0,3#10.0", "a share has no `;`");
    let mut second = bridge.open("").await;
    // What goes to the second is what the first gives up.
    first.read(SOON).await;
    second.read(SOON).await;
    bridge.write(40..80).await;
    first.read(SOON).await;
    second.read(SOON).await;
    assert_eq!(sorted(&[&first.values, &second.values]), numbered(0..80));
    assert_eq!(second.values.len(), 20, "{:?}", second.values);
    assert_eq!(first.cursor().matches('#').count(), 2, "{}", first.id);
    drop(first);
    bridge.write(80..120).await;
    second.read(SOON).await;
    // All of it but what the first would have got, and may have been in flight.
    assert_eq!(second.values.len(), 60, "{:?}", second.values);
    drop(second);
    sleep(Duration::from_millis(100)).await;
    assert_eq!((bridge.kept(0), bridge.kept(3)), (Some(30), Some(30)), "at close, at once");
    assert_eq!(bridge.rebalances(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_is_committed_every_few_seconds_and_goes_on_there() {
    let bridge = Bridge::new(fixture(2), Qos::Balanced, Commit::Auto, |feed| {
        feed.reset = Reset::Latest;
    });
    bridge.write(0..2).await;
    let mut client = bridge.open("").await;
    assert_eq!(client.read(SOON).await, [""; 0]);
    assert_eq!((bridge.kept(0), bridge.kept(1)), (Some(1), Some(1)), "where it began");
    bridge.write(2..10).await;
    assert_eq!(sorted(&[client.read(SOON).await]), numbered(2..10));
    client.read(Duration::from_secs(5)).await;
    assert_eq!((bridge.kept(0), bridge.kept(1)), (Some(5), Some(5)));
    assert_eq!(client.id, "", "no position");
    drop(client);
    bridge.write(10..14).await;
    let mut client = bridge.open("").await;
    assert_eq!(sorted(&[client.read(SOON).await]), numbered(10..14));
    let unsupported = (400, "cursor_not_supported".to_owned());
    assert_eq!(bridge.refused("/events?cursor=orders@0%231").await, unsupported);
}

#[tokio::test(start_paused = true)]
async fn clients_that_come_and_go_cause_no_rebalance_and_the_last_leaves_after_a_time() {
    let bridge = Bridge::best(3);
    let stays = bridge.open("").await;
    for _ in 0..500 {
        let mut client = bridge.open("").await;
        client.read(Duration::from_millis(10)).await;
    }
    assert_eq!(bridge.rebalances(), 1);
    assert_eq!(bridge.fixture.cluster.members(GROUP).len(), 1);
    drop(stays);
    sleep(Duration::from_secs(29)).await;
    assert_eq!(bridge.fixture.cluster.members(GROUP).len(), 1);
    drop(bridge.open("").await);
    sleep(Duration::from_secs(29)).await;
    assert_eq!(bridge.fixture.cluster.members(GROUP).len(), 1, "it counts from the last");
    sleep(Duration::from_secs(10)).await;
    assert_eq!(bridge.fixture.cluster.members(GROUP).len(), 0);
    bridge.write(0..3).await;
    assert_eq!(sorted(&[bridge.open("").await.read(SOON).await]), numbered(0..3));
}

#[tokio::test(start_paused = true)]
async fn two_bridges_read_disjoint_shares_and_one_takes_over_what_the_other_had() {
    for is_classic in [false, true] {
        let bridge = Bridge::best(4);
        if is_classic {
            let cluster = &bridge.fixture.cluster;
            [1, 2].iter().for_each(|id| cluster.upgrade(*id, CONSUMER_GROUP_HEARTBEAT, 1, 0));
        }
        two_bridges(bridge).await;
    }
}

async fn two_bridges(bridge: Bridge) {
    let other = bridge.beside();
    let (mut first, mut second) = tokio::join!(bridge.open(""), other.open(""));
    tokio::join!(first.read(LATER), second.read(LATER));
    bridge.write(0..40).await;
    tokio::join!(first.read(LATER), second.read(LATER));
    assert_eq!(sorted(&[&first.values, &second.values]), numbered(0..40));
    assert_eq!((first.values.len(), second.values.len()), (20, 20));
    let partition_of_first: i32 = first.cursor()["orders@".len()..][..1].parse().unwrap();
    let cursor = format!("orders@{partition_of_first}#1");
    assert_eq!(bridge.commit(&cursor).await, (204, String::new()));
    assert_eq!(other.commit(&cursor).await, (409, "group_in_use".to_owned()));
    assert_eq!(bridge.refused("/messages?timeout=0").await, (409, "group_in_use".to_owned()));
    other.vanish().await;
    bridge.write(40..80).await;
    first.read(Duration::from_secs(90)).await;
    let mut all = [&*first.values, &*second.values].concat();
    all.sort();
    all.dedup();
    assert_eq!(all, numbered(0..80), "nothing is lost");
    assert_eq!(first.cursor().matches('#').count(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_bridge_that_is_to_end_commits_and_leaves() {
    let bridge = Bridge::best(2);
    let other = bridge.beside();
    bridge.write(0..10).await;
    let mut client = bridge.open("").await;
    assert_eq!(sorted(&[client.read(SOON).await]), numbered(0..10));
    bridge.shutdown.cancel();
    client.read(Duration::from_millis(10)).await;
    assert_eq!(client.values.last().unwrap(), "goaway");
    drop(client);
    let began = Instant::now();
    Arc::clone(&bridge.readers).close(bridge.shutdown.clone()).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!((bridge.kept(0), bridge.kept(1)), (Some(5), Some(5)));
    assert_eq!(bridge.fixture.cluster.members(GROUP).len(), 0);
    assert_eq!(other.open("").await.read(SOON).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_holds_no_rebalance_up() {
    let bridge = Bridge::best(2);
    let other = bridge.beside();
    bridge.write(0..2).await;
    // It takes nothing: not even the sign that a partition goes.
    let mut slow = bridge.open("").await;
    slow.read(SOON).await;
    assert_eq!(slow.values.len(), 2);
    let mut quick = other.open("").await;
    quick.read(LATER).await;
    bridge.write(2..12).await;
    quick.read(LATER).await;
    assert_eq!(quick.values.len(), 5, "{:?}", quick.values);
    assert_eq!(quick.cursor().matches('#').count(), 1);
    slow.read(LATER).await;
    assert_eq!(sorted(&[&slow.values, &quick.values]), numbered(0..12));
}

#[tokio::test(start_paused = true)]
async fn at_least_once_everything_comes_again_until_it_is_acknowledged() {
    let bridge = Bridge::new(fixture(1), Qos::AtLeastOnce, Commit::Client, |_| {});
    bridge.write(0..10).await;
    let mut client = bridge.open("").await;
    assert_eq!(client.read(SOON).await, numbered(0..10));
    assert_eq!(bridge.kept(0), Some(0), "where it began");
    drop(client);
    let mut client = bridge.open("").await;
    assert_eq!(client.read(SOON).await.len(), 10);
    assert_eq!(bridge.commit("orders@0#4").await, (204, String::new()));
    assert_eq!(bridge.kept(0), Some(4));
    assert_eq!(bridge.commit("orders@0#2").await, (204, String::new()));
    drop(client);
    let mut client = bridge.open("").await;
    assert_eq!(client.read(SOON).await.len(), 6, "nothing goes back");
    // A cursor acknowledges what is before it, and is where it goes on; once.
    drop(client);
    let mut client = bridge.open("?cursor=orders@0%238").await;
    assert_eq!(client.read(SOON).await, ["v8", "v9"]);
    assert_eq!(bridge.kept(0), Some(8));
    drop(client);
    let mut client = bridge.open("?cursor=orders@0%236").await;
    assert_eq!(client.read(SOON).await.len(), 4, "a replay");
    assert_eq!(bridge.kept(0), Some(8));
    assert_eq!(bridge.refused("/events?from=earliest").await.1, "invalid_parameter");
    assert_eq!(bridge.refused("/events?cursor=orders@7%230").await.1, "cursor_unknown_partition");
}

#[tokio::test(start_paused = true)]
async fn where_the_log_is_shorter_the_group_goes_back_with_it() {
    let bridge = Bridge::new(fixture(1), Qos::AtLeastOnce, Commit::Client, |_| {});
    bridge.write(0..4).await;
    let group = bridge.reader.hub.client.group(GROUP);
    let before = GroupOffset::new("orders", 0, 9);
    group.commit(&[before], FEED_PATIENCE).await[0].clone().unwrap();
    let mut client = bridge.open("").await;
    assert_eq!(client.read(SOON).await.len(), 4, "{:?}", client.values);
    assert_eq!(client.gaps, 1);
    assert_eq!(bridge.commit("orders@0#9").await, (410, "offset_out_of_range".to_owned()));
    assert_eq!(bridge.commit("orders@0#2").await.0, 204);
    assert_eq!(bridge.kept(0), Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_acknowledges_nothing_that_is_not_written() {
    let bridge = Bridge::new(fixture(2), Qos::AtLeastOnce, Commit::Client, |_| {});
    bridge.write(0..4).await;
    let mut client = bridge.open("").await;
    assert_eq!(client.read(SOON).await.len(), 4);
    // Both partitions are another one's; the first cursor is of a topic that was deleted.
    for cursor in ["orders:00000001@0%231,1%231", "orders@0%239,1%239223372036854775807"] {
        let mut newcomer = bridge.open(&format!("?cursor={cursor}")).await;
        newcomer.read(SOON).await;
        assert_eq!((bridge.kept(0), bridge.kept(1)), (Some(0), Some(0)), "{cursor}");
    }
    assert_eq!(bridge.commit("orders@0#1,1#2").await.0, 204);
    assert_eq!((bridge.kept(0), bridge.kept(1)), (Some(1), Some(2)));
}

#[tokio::test(start_paused = true)]
async fn at_least_once_a_newcomer_waits_for_acknowledgements_or_for_their_time() {
    let bridge = Bridge::new(fixture(2), Qos::AtLeastOnce, Commit::Client, |_| {});
    bridge.write(0..8).await;
    for is_acknowledged in [true, false] {
        let mut first = bridge.open("").await;
        first.read(SOON).await;
        let mut second = bridge.open("").await;
        first.read(SOON).await;
        assert_eq!(second.read(SOON).await, [""; 0], "the first owes an acknowledgement");
        assert_eq!(second.id, "");
        if is_acknowledged {
            assert_eq!(bridge.commit("orders@0#3,1#3").await.0, 204);
            second.read(Duration::from_secs(1)).await;
            assert_eq!(second.values, [""; 0], "not all is acknowledged");
            assert_eq!(bridge.commit("orders@0#4,1#4").await.0, 204);
            second.read(Duration::from_secs(1)).await;
            assert_eq!(second.values, [""; 0]);
            bridge.write(8..12).await;
            second.read(SOON).await;
            assert_eq!(second.values.len(), 2, "{:?}", second.values);
        } else {
            second.read(Duration::from_secs(60)).await;
            assert_eq!(second.values.len(), 2, "again: {:?}", second.values);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn at_most_once_is_committed_before_it_is_sent_a_hundred_at_a_time() {
    let bridge = Bridge::new(fixture(1), Qos::AtMostOnce, Commit::Auto, |_| {});
    bridge.write(0..250).await;
    let mut client = bridge.open("").await;
    // The first text, the position, the first hundred: taken off the stream, and lost with the bridge.
    for _ in 0..3 {
        client.body.next().await.unwrap().unwrap();
    }
    assert_eq!(bridge.kept(0), Some(100));
    bridge.reader.hub.client.close(Duration::ZERO).await;
    drop(client);
    let other = bridge.beside();
    let mut client = other.open("").await;
    client.read(Duration::from_secs(90)).await;
    assert_eq!((client.values.len(), &*client.values[0]), (150, "v100"));
    // What is not committed is not sent.
    let refused = Fault::Refuse { code: 30, trace: Trace::Nothing };
    other.fixture.cluster.arm(OFFSET_COMMIT, When::PerMille(1000), refused);
    other.write(250..260).await;
    client.read(SOON).await;
    assert_eq!((client.values.len(), &*client.values[150]), (151, "failure"));
    other.fixture.cluster.disarm();
    let mut client = other.open("?cursor=orders@0%2380").await;
    assert_eq!(sorted(&[client.read(SOON).await]), numbered(250..260), "not before the group's");
}

#[tokio::test(start_paused = true)]
async fn bridges_that_begin_a_group_together_miss_nothing_of_it() {
    let bridge = Bridge::best(4);
    bridge.write(0..40).await;
    let other = bridge.beside();
    let (mut first, mut second) = tokio::join!(bridge.open(""), other.open(""));
    tokio::join!(first.read(LATER), second.read(LATER));
    let mut all = [&*first.values, &*second.values].concat();
    all.sort();
    all.dedup();
    assert_eq!(all, numbered(0..40));
}

#[tokio::test(start_paused = true)]
async fn a_position_that_is_gone_goes_on_where_the_group_began() {
    let bridge = Bridge::new(fixture(2), Qos::AtBest, Commit::Auto, |feed| {
        feed.reset = Reset::Latest;
    });
    let metadata = "anchor=900";
    let kept = GroupOffset::new("orders", 0, 1).metadata(metadata);
    bridge.write(0..4).await;
    let group = bridge.reader.hub.client.group(GROUP);
    group.commit(&[kept], FEED_PATIENCE).await.remove(0).unwrap();
    let mut client = bridge.open("").await;
    client.read(SOON).await;
    assert_eq!(sorted(&[&client.values]), ["v1", "v2", "v3"], "records are of the time 1000");
}

#[tokio::test(start_paused = true)]
async fn a_bridge_with_the_name_of_another_takes_its_place_and_that_one_is_told() {
    let bridge = Bridge::best(1);
    let cluster = &bridge.fixture.cluster;
    [1, 2].iter().for_each(|id| cluster.upgrade(*id, CONSUMER_GROUP_HEARTBEAT, 1, 0));
    let other = bridge.beside();
    let query = Query::parse("", None).unwrap();
    let join = async |bridge: &Bridge, members: &Members| {
        let share = members.join(&bridge.reader, GROUP, &query, &bridge.shutdown).await;
        let mut share = share.ok().unwrap();
        share.next().await.unwrap();
        share
    };
    let named = || MemberOf { instance: Some("b1".to_owned()), ..MemberOf::default() };
    let (members, others) = (Members::of_bridge(&named()), Members::of_bridge(&named()));
    let mut first = join(&bridge, &members).await;
    let _second = join(&other, &others).await;
    let end = tokio::time::timeout(LATER, first.next()).await.unwrap().unwrap_err();
    assert_eq!(end.code, Code::GroupInUse, "{end}");
    assert!(members.of(&Source::of("default"), GROUP).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_bridge_is_a_member_of_so_many_groups_and_no_more() {
    let bridge = Bridge::best(1);
    let members =
        Members::of_bridge(&MemberOf { instance: Some("b1".to_owned()), ..MemberOf::default() });
    let query = Query::parse("", None).unwrap();
    let join = async |id: &str| members.join(&bridge.reader, id, &query, &bridge.shutdown).await;
    let mut shares = Vec::new();
    for number in 0..FEED_MEMBERS {
        shares.push(join(&format!("group-{number}")).await.ok().unwrap());
    }
    assert_eq!(join("one-more").await.err().unwrap().code, Code::Overloaded);
    assert!(join("group-7").await.is_ok());
    shares.remove(3);
    sleep(Duration::from_secs(36)).await;
    assert!(join("one-more").await.is_ok());
}
