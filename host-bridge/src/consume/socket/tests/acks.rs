//! Clients that acknowledge what they are sent, and that refuse it.

use super::*;

/// With this window and timeout.
async fn served_acks(max_unacked: usize, dlq_topic: Option<&str>) -> Served {
    served(|feed| {
        feed.conversation.client_acks = true;
        feed.conversation.max_unacked = max_unacked;
        feed.selection.dlq_topic = dlq_topic.map(str::to_owned);
    })
    .await
}

fn ack(offset: i64) -> Value {
    json!({ "type": "ack", "topic": "orders", "partition": 0, "offset": offset })
}

async fn write(served: &Served, count: usize) {
    for number in 0..count {
        served.fixture.write(0, number.to_string().as_bytes()).await;
    }
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn exactly_the_window_is_sent_and_goes_on_with_each_acknowledgement() {
    let served = served_acks(10, None).await;
    write(&served, 30).await;
    for batch in [1, 3, 7] {
        let mut client = Client::open(&served, &format!("batch={batch}")).await;
        let welcome = client.hear_of("welcome").await;
        assert_eq!(
            (&welcome["maxUnacked"], &welcome["maxUnackedBytes"]),
            (&json!(10), &json!(4 << 20))
        );
        let mut read = Vec::new();
        let mut ids = Vec::new();
        let mut take = async |client: &mut Client, count: usize| {
            let before = read.len();
            while read.len() < before + count {
                let frame = client.hear().await;
                let items = frame["items"].as_array().cloned().unwrap_or(vec![frame]);
                assert!(items.len() <= batch);
                for item in items {
                    read.push(item["content"].as_str().unwrap().to_owned());
                    ids.push(item["id"].as_str().unwrap().to_owned());
                }
            }
            assert_eq!(read, numbers(0..before + count));
            ids.clone()
        };
        let ids = take(&mut client, 10).await;
        client.hears_nothing().await;
        client.say(json!({ "type": "ack", "id": ids[4] })).await;
        assert_eq!(client.hear().await, json!({ "type": "acked", "id": "orders@0#5.0,1#0;" }));
        take(&mut client, 5).await;
        client.hears_nothing().await;
        client.say(ack(13)).await;
        assert_eq!(client.hear_of("acked").await["id"], "orders@0#14.0,1#0;");
        let ids = take(&mut client, 9).await;
        client.say(json!({ "type": "ack", "id": ids.last() })).await;
        assert_eq!(client.hear_of("acked").await["id"], "orders@0#24.0,1#0;");
        take(&mut client, 6).await;
        client.say(ack(29)).await;
        assert_eq!(client.hear_of("acked").await["id"], "orders@0#30.0,1#0;");
    }
}

#[tokio::test(start_paused = true)]
async fn the_window_has_bytes_too() {
    let served = served_acks(1000, None).await;
    for _ in 0..6 {
        served.fixture.write(0, &[b'x'; 900_000]).await;
    }
    let mut client = Client::open(&served, "").await;
    client.hear_of("welcome").await;
    client.contents(5).await;
    client.hears_nothing().await;
    client.say(ack(0)).await;
    client.hear_of("acked").await;
    client.contents(1).await;
}

#[tokio::test(start_paused = true)]
async fn who_acknowledges_nothing_is_closed_in_time() {
    let served = served_acks(5, None).await;
    write(&served, 20).await;
    let mut client = Client::open(&served, "").await;
    client.hear_of("welcome").await;
    client.contents(5).await;
    // Neither what was acknowledged before nor anything else is a sign of progress.
    tokio::time::sleep(Duration::from_secs(50)).await;
    client.say(ack(1)).await;
    client.hear_of("acked").await;
    client.contents(2).await;
    let began = Instant::now();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        client.say(ack(1)).await;
        client.say(json!({ "type": "ping" })).await;
        client.hear_of("pong").await;
    }
    assert_eq!(client.error().await, "ack_timeout");
    let after = began.elapsed().as_secs();
    assert!((59..=61).contains(&after), "{after}");
    assert_eq!(client.close_code().await, 4408);
}

#[tokio::test(start_paused = true)]
async fn who_owes_nothing_may_be_silent() {
    let served = served(|_| {}).await;
    write(&served, 2).await;
    let mut client = Client::open(&served, "acks=true").await;
    client.hear_of("welcome").await;
    client.contents(2).await;
    client.say(ack(1)).await;
    client.hear_of("acked").await;
    // Pings are answered while something is read.
    tokio::time::timeout(Duration::from_secs(600), client.next()).await.unwrap_err();
    write(&served, 1).await;
    client.contents(1).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_not_sent_cannot_be_acknowledged() {
    let served = served_acks(5, None).await;
    write(&served, 20).await;
    let mut client = Client::open(&served, "").await;
    client.hear_of("welcome").await;
    client.contents(5).await;
    for forged in [
        ack(5),
        ack(i64::MAX),
        json!({ "type": "ack", "id": "orders@0#6,1#0;" }),
        json!({ "type": "ack", "id": "orders@0#1,1#7;" }),
        json!({ "type": "ack", "topic": "orders", "partition": 7, "offset": 0 }),
        json!({ "type": "ack", "topic": "secret", "partition": 0, "offset": 0 }),
        json!({ "type": "nack", "topic": "orders", "partition": 0, "offset": 5 }),
    ] {
        client.say(forged.clone()).await;
        assert_eq!(client.error().await, "invalid_parameter", "{forged}");
    }
    client.say(json!({ "type": "ack", "id": "nonsense" })).await;
    assert_eq!(client.error().await, "cursor_malformed");
    client.say(ack(2)).await;
    assert_eq!(client.hear_of("acked").await["id"], "orders@0#3.0,1#0;");
    client.contents(3).await;
    for behind in [ack(2), ack(0), ack(-5), json!({ "type": "ack", "id": "orders@0#1" })] {
        client.say(behind).await;
    }
    client.hears_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn who_did_not_say_so_acknowledges_nothing() {
    let served = served(|_| {}).await;
    write(&served, 1).await;
    let mut client = Client::open(&served, "").await;
    client.hear_of("welcome").await;
    client.contents(1).await;
    client.say(ack(0)).await;
    let error = client.hear_of("error").await;
    assert!(error["message"].as_str().unwrap().contains("acks=true"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_a_client_refuses_goes_to_the_dead_letter_topic() {
    let served = served_acks(3, Some("dead")).await;
    served.fixture.cluster.create_topic("dead", &[1]);
    write(&served, 6).await;
    let mut client = Client::open(&served, "").await;
    client.hear_of("welcome").await;
    client.contents(3).await;
    let nack = |offset: i64| {
        json!({ "type": "nack", "topic": "orders", "partition": 0, "offset": offset,
            "reason": "no such customer" })
    };
    client.say(nack(1)).await;
    // 0 is still owed, and 1 would come again with it.
    assert_eq!(client.hear_of("acked").await["id"], "orders@0#0.0,1#0;");
    client.hears_nothing().await;
    client.say(ack(0)).await;
    assert_eq!(client.hear_of("acked").await["id"], "orders@0#2.0,1#0;");
    client.contents(2).await;
    // Once more it is behind.
    client.say(nack(1)).await;
    client.hears_nothing().await;
    let dead = served.fixture.cluster.log("dead", 0);
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].value.as_deref(), Some(&b"1"[..]));
    let headers: Vec<_> = dead[0].headers.iter().collect();
    let header = |name: &str| {
        let named =
            headers.iter().find(|(of, _)| of == format!("kafka-upstream-dlq-{name}").as_bytes());
        named
            .and_then(|(_, value)| value.clone())
            .map(|value| String::from_utf8(value.to_vec()).unwrap())
    };
    let told = ["reason", "topic", "partition", "offset"].map(header);
    assert_eq!(told, ["no such customer", "orders", "0", "1"].map(|told| Some(told.to_owned())));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_written_to_the_dead_letter_topic_is_still_owed() {
    // The topic is missing.
    let served = served_acks(3, Some("dead")).await;
    write(&served, 6).await;
    let mut client = Client::open(&served, "").await;
    client.hear_of("welcome").await;
    client.contents(3).await;
    client.say(json!({ "type": "nack", "topic": "orders", "partition": 0, "offset": 0 })).await;
    let error = client.hear_of("error").await;
    assert_eq!(error["error"], "kafka_unavailable", "{error}");
    client.hears_nothing().await;
    let plain = served_acks(3, None).await;
    write(&plain, 1).await;
    let mut client = Client::open(&plain, "").await;
    client.hear_of("welcome").await;
    client.contents(1).await;
    client.say(json!({ "type": "nack", "topic": "orders", "partition": 0, "offset": 0 })).await;
    let error = client.hear_of("error").await;
    assert_eq!(error["message"], "nack: the feed has no dlq_topic");
}

#[tokio::test(start_paused = true)]
async fn a_log_that_was_cut_is_acknowledged_as_it_is() {
    let served = served_acks(100, None).await;
    write(&served, 5).await;
    let mut client = Client::open(&served, "").await;
    client.hear_of("welcome").await;
    client.contents(5).await;
    served.fixture.cluster.truncate("orders", 0, 2);
    let gap = client.hear_of("gap").await;
    assert_eq!(gap["to"], 2, "{gap}");
    let id = gap["id"].as_str().unwrap();
    client.say(json!({ "type": "ack", "id": id })).await;
    let acked = client.hear_of("acked").await;
    assert_eq!(acked["id"], id);
    write(&served, 1).await;
    assert_eq!(client.contents(1).await, ["0"]);
}
