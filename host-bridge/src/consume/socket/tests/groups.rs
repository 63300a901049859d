//! Clients that share the partitions of a group.

use kafka_client::fake_broker::{CONSUMER_GROUP_HEARTBEAT, Fault, HEARTBEAT, Trace, When};

use super::*;
use crate::consume::delivery::{Commit, Delivery, GroupMode, Qos};

const GROUP: &str = "readers";

async fn served_group(qos: Qos, commit: Commit, change: impl FnOnce(&mut Feed)) -> Served {
    served(|feed| {
        let id = Some(GROUP.to_owned());
        let group = GroupMode::Manual { id, allowed: Vec::new(), suffix: String::new() };
        feed.delivery = Delivery { qos, commit, group };
        change(feed);
    })
    .await
}

async fn at_least_once() -> Served {
    at_least_once_within(Duration::from_secs(20)).await
}

async fn at_least_once_within(ack_timeout: Duration) -> Served {
    served_group(Qos::AtLeastOnce, Commit::Client, |feed| {
        feed.conversation.ack_timeout = ack_timeout;
    })
    .await
}

async fn write(served: &Served, partition: i32, range: std::ops::Range<usize>) {
    for number in range {
        served.fixture.write(partition, number.to_string().as_bytes()).await;
    }
}

fn kept(served: &Served, partition: i32) -> Option<i64> {
    served.fixture.cluster.committed(GROUP, "orders", partition).map(|kept| kept.offset)
}

/// Opens one, and says which position it is told first that it has.
async fn open(served: &Served) -> (Client, String) {
    let mut client = Client::open(served, "").await;
    assert_eq!(client.hear_of("welcome").await.get("cursor"), None, "it has no partition yet");
    let position = position(&mut client).await;
    (client, position)
}

async fn position(client: &mut Client) -> String {
    client.hear_of("position").await["id"].as_str().unwrap().to_owned()
}

fn ack(partition: i32, offset: usize) -> Value {
    json!({ "type": "ack", "topic": "orders", "partition": partition, "offset": offset })
}

/// What comes in so many messages, whatever comes between them.
async fn messages(client: &mut Client, count: usize) -> Vec<String> {
    let mut contents = Vec::new();
    while contents.len() < count {
        let frame = client.hear().await;
        if frame["type"] == "message" {
            contents.push(frame["content"].as_str().unwrap().to_owned());
        }
    }
    contents
}

async fn acked(client: &mut Client) -> String {
    client.hear_of("acked").await["id"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_cut_off_goes_on_behind_what_it_acknowledged() {
    let served = at_least_once().await;
    write(&served, 0, 0..1000).await;
    let (mut client, position) = open(&served).await;
    assert_eq!(position, "orders@0#0,1#0");
    assert_eq!(client.contents(1000).await.last().unwrap(), "999");
    client.say(ack(0, 499)).await;
    assert_eq!(acked(&mut client).await, "orders@0#500.0,1#0");
    drop(client);
    let (mut client, position) = open(&served).await;
    assert_eq!(position, "orders@0#500.0,1#0");
    assert_eq!(client.contents(500).await[0], "500");
    assert_eq!(kept(&served, 0), Some(500));
}

#[tokio::test(start_paused = true)]
async fn a_partition_moves_when_what_was_sent_of_it_is_acknowledged() {
    let served = at_least_once().await;
    write(&served, 0, 0..3).await;
    write(&served, 1, 0..3).await;
    let (mut first, _) = open(&served).await;
    first.contents(6).await;
    let mut second = Client::open(&served, "").await;
    second.hear_of("welcome").await;
    let left = position(&mut first).await;
    let (stays, goes) = if left == "orders@0#3.0" { (0, 1) } else { (1, 0) };
    second.hears_nothing().await;
    // Also of what it has no longer: it was sent that.
    first.say(ack(goes, 1)).await;
    assert!(acked(&mut first).await.contains(&format!("{goes}#2.0")));
    second.hears_nothing().await;
    first.say(ack(goes, 2)).await;
    acked(&mut first).await;
    assert_eq!(position(&mut second).await, format!("orders@{goes}#3.0"));
    second.hears_nothing().await;
    write(&served, goes, 3..5).await;
    assert_eq!(second.contents(2).await, ["3", "4"]);
    write(&served, stays, 3..4).await;
    assert_eq!(first.contents(1).await, ["3"]);
    second.say(ack(goes, 4)).await;
    acked(&mut second).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!((kept(&served, goes), kept(&served, stays)), (Some(5), Some(0)));
}

#[tokio::test(start_paused = true)]
async fn a_later_cursor_acknowledges_a_partition_that_it_does_not_list() {
    let served = at_least_once().await;
    write(&served, 0, 0..3).await;
    write(&served, 1, 0..3).await;
    let (mut first, before) = open(&served).await;
    first.contents(6).await;
    let mut second = Client::open(&served, "").await;
    second.hear_of("welcome").await;
    let left = position(&mut first).await;
    let (stays, goes) = if left == "orders@0#3.0" { (0, 1) } else { (1, 0) };
    // Neither is of a record that came later.
    for id in [before, left] {
        first.say(json!({ "type": "ack", "id": id })).await;
    }
    acked(&mut first).await;
    second.hears_nothing().await;
    write(&served, stays, 3..4).await;
    let later = first.hear_of("message").await["id"].clone();
    first.say(json!({ "type": "ack", "id": later })).await;
    assert_eq!(position(&mut second).await, format!("orders@{goes}#3.0"));
    second.hears_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn who_acknowledges_nothing_in_time_is_closed_and_its_partitions_move_on() {
    let served = at_least_once().await;
    write(&served, 0, 0..3).await;
    write(&served, 1, 0..3).await;
    let (mut silent, _) = open(&served).await;
    silent.contents(6).await;
    let mut second = Client::open(&served, "").await;
    second.hear_of("welcome").await;
    position(&mut silent).await;
    assert_eq!(silent.error().await, "ack_timeout");
    assert_eq!(silent.close_code().await, 4408);
    let mut read = messages(&mut second, 6).await;
    read.sort();
    assert_eq!(read, ["0", "0", "1", "1", "2", "2"]);
    assert_eq!(served.reader.metrics.rebalances.get(), 1, "the member stays");
}

#[tokio::test(start_paused = true)]
async fn what_is_owed_of_a_partition_that_is_lost_comes_again_when_it_is_back() {
    let served = at_least_once().await;
    write(&served, 0, 0..5).await;
    let (mut client, _) = open(&served).await;
    client.contents(5).await;
    client.say(ack(0, 1)).await;
    acked(&mut client).await;
    // The coordinator has forgotten the member.
    let refused = Fault::Refuse { code: 25, trace: Trace::Nothing };
    for api in [CONSUMER_GROUP_HEARTBEAT, HEARTBEAT] {
        served.fixture.cluster.arm(api, When::Nth(1), refused.clone());
    }
    let again = timeout(Duration::from_secs(15), messages(&mut client, 3)).await;
    assert_eq!(again.unwrap(), ["2", "3", "4"]);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(kept(&served, 0), Some(2));
    assert_eq!(served.reader.metrics.rebalances.get(), 3, "lost, and assigned again");
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_was_created_again_is_read_from_its_start() {
    for is_owed in [false, true] {
        // At once, before what is known of topics is asked for again, and when the group knows.
        for after_ms in [0, 500, 12_000] {
            created_again(is_owed, Duration::from_millis(after_ms)).await;
        }
    }
}

async fn created_again(is_owed: bool, after: Duration) {
    let served = match is_owed {
        true => at_least_once_within(Duration::from_secs(120)).await,
        false => served_group(Qos::AtBest, Commit::Auto, |feed| feed.reset = Reset::Latest).await,
    };
    let (mut client, _) = open(&served).await;
    write(&served, 0, 0..5).await;
    client.contents(5).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(kept(&served, 0), Some(if is_owed { 0 } else { 5 }));
    let cluster = &served.fixture.cluster;
    cluster.delete_topic("orders");
    tokio::time::sleep(after).await;
    cluster.create_topic("orders", &[1, 1]);
    write(&served, 0, 5..15).await;
    let gap = async {
        loop {
            let frame = client.hear().await;
            if frame["type"] == "gap" && frame["partition"] == 0 {
                break frame;
            }
        }
    };
    let gap = timeout(Duration::from_secs(30), gap).await;
    let gap = gap.unwrap_or_else(|_| panic!("no gap: {is_owed}, {after:?}"));
    assert_eq!((&gap["reason"], &gap["to"]), (&json!("recreated"), &json!(0)), "{gap}");
    let anew = timeout(Duration::from_secs(15), messages(&mut client, 10)).await.unwrap();
    assert_eq!(anew, (5..15).map(|it| it.to_string()).collect::<Vec<_>>(), "{is_owed}, {after:?}");
    if is_owed {
        client.say(ack(0, 3)).await;
        acked(&mut client).await;
    }
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(kept(&served, 0), Some(if is_owed { 4 } else { 10 }), "{is_owed}, {after:?}");
    drop(client);
    let (mut client, _) = open(&served).await;
    write(&served, 0, 15..16).await;
    let rest = messages(&mut client, if is_owed { 7 } else { 1 }).await;
    assert_eq!(rest.first().unwrap(), if is_owed { "9" } else { "15" });
}

#[tokio::test(start_paused = true)]
async fn without_acknowledgements_what_was_sent_is_committed() {
    let served = served_group(Qos::Balanced, Commit::Auto, |_| {}).await;
    write(&served, 0, 0..5).await;
    let mut client = Client::open(&served, "").await;
    client.hear_of("welcome").await;
    assert_eq!(client.contents(5).await.len(), 5);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(kept(&served, 0), Some(5));
    drop(client);
    write(&served, 0, 5..7).await;
    let mut client = Client::open(&served, "").await;
    client.hear_of("welcome").await;
    assert_eq!(client.contents(2).await, ["5", "6"]);
}

#[tokio::test(start_paused = true)]
async fn at_most_once_a_record_is_committed_before_it_is_sent() {
    let served = served_group(Qos::AtMostOnce, Commit::Auto, |_| {}).await;
    write(&served, 0, 0..250).await;
    let (mut client, _) = open(&served).await;
    for number in 0..250 {
        assert_eq!(client.contents(1).await, [number.to_string()]);
        assert!(kept(&served, 0) > Some(number), "{number}");
    }
    let commits = served.reader.metrics.commits.get();
    assert_eq!(commits, 4, "where it began, and three hundreds");
}
