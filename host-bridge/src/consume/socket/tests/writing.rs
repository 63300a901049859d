//! Clients that write records.

use kafka_client::fake_broker::{Fault, PRODUCE, When};

use super::*;

/// Clients may write to `orders` and `other`.
async fn served_writing(change: impl FnOnce(&mut Feed)) -> Served {
    let served = served(|feed| {
        feed.conversation.produce = ["orders", "other"].map(str::to_owned).to_vec();
        change(feed);
    })
    .await;
    served.fixture.cluster.create_topic("other", &[2]);
    served
}

fn produce(reference: impl Into<Value>, content: &str) -> Value {
    json!({ "type": "produce", "ref": reference.into(), "content": content, "key": "customer-1" })
}

#[tokio::test(start_paused = true)]
async fn what_is_written_comes_back_on_the_same_socket() {
    let served = served_writing(|_| {}).await;
    let mut client = Client::open(&served, "headers=true").await;
    client.hear_of("welcome").await;
    client
        .say(json!({ "type": "produce", "ref": "a", "content": "hello", "key": "customer-1",
        "headers": { "tenant": ["a"] }, "timestamp": 5 }))
        .await;
    let (mut produced, mut message) = (client.hear().await, client.hear().await);
    if produced["type"] == "message" {
        std::mem::swap(&mut produced, &mut message);
    }
    let partition = produced["partition"].as_i64().unwrap();
    assert_eq!(
        produced,
        json!({ "type": "produced", "ref": "a", "outcome": "written",
        "status": 200, "topic": "orders", "partition": partition, "offset": 0 })
    );
    assert_eq!(message["content"], "hello");
    assert_eq!(message["metadata"]["partition"], partition);
    assert_eq!(
        (&message["metadata"]["timestamp"], &message["metadata"]["key"]),
        (&json!(5), &json!("customer-1"))
    );
    assert_eq!(message["headers"], json!({ "tenant": ["a"] }));
    // Another topic, which the feed does not read.
    client.say(json!({ "type": "produce", "ref": 2, "content": null, "topic": "other", "partition": 0 })).await;
    let produced = client.hear_of("produced").await;
    assert_eq!((&produced["topic"], &produced["ref"]), (&json!("other"), &json!(2)));
    assert_eq!(served.fixture.cluster.log("other", 0)[0].value, None);
}

#[tokio::test(start_paused = true)]
async fn many_are_written_in_the_order_in_which_they_came() {
    let served = served_writing(|_| {}).await;
    let mut client = Client::open(&served, "from=latest&topics=orders").await;
    client.hear_of("welcome").await;
    client.say(json!({ "type": "pause" })).await;
    // Who only sends would wait for a bridge that waits for it to read.
    let (mut sink, mut stream) = client.0.split();
    let saying = async {
        for number in 0..2000 {
            let topic = if number % 10 == 9 { "other" } else { "orders" };
            let frame = json!({ "type": "produce", "ref": number, "content": number.to_string(),
                "topic": topic, "partition": 0 });
            sink.send(Message::text(frame.to_string())).await.unwrap();
        }
    };
    let mut answered = Vec::new();
    let hearing = async {
        while answered.len() < 2000 {
            let produced = stream.next().await.unwrap().unwrap().into_text().unwrap();
            let produced: Value = serde_json::from_str(&produced).unwrap();
            assert_eq!(produced["outcome"], "written");
            answered.push(produced["ref"].as_i64().unwrap());
        }
    };
    tokio::join!(saying, hearing);
    answered.sort_unstable();
    assert_eq!(answered, (0..2000).collect::<Vec<_>>());
    let values = |topic: &str| {
        let log = served.fixture.cluster.log(topic, 0).into_iter();
        let number = log.map(|record| String::from_utf8(record.value.unwrap().to_vec()).unwrap());
        number.map(|number| number.parse::<i64>().unwrap()).collect::<Vec<_>>()
    };
    let of = |is_other: bool| {
        (0..2000).filter(|number| (number % 10 == 9) == is_other).collect::<Vec<i64>>()
    };
    assert_eq!((values("orders"), values("other")), (of(false), of(true)));
}

#[tokio::test(start_paused = true)]
async fn each_record_has_an_outcome_whatever_becomes_of_it() {
    let served = served_writing(|feed| feed.conversation.produce.push("missing".to_owned())).await;
    let mut client = Client::open(&served, "from=latest").await;
    client.hear_of("welcome").await;
    client.say(json!({ "type": "pause" })).await;
    let mut outcome = async |frame: Value| {
        client.say(frame).await;
        let produced = client.hear_of("produced").await;
        let text = |name: &str| produced[name].as_str().unwrap_or_default().to_owned();
        (text("outcome"), produced["status"].as_i64().unwrap(), text("error"))
    };
    let told = |outcome: &str, status, error: &str| (outcome.to_owned(), status, error.to_owned());
    let missing = json!({ "type": "produce", "ref": 1, "content": "a", "topic": "missing" });
    assert_eq!(outcome(missing).await, told("not_written", 502, "unknown_topic"));
    let nowhere = json!({ "type": "produce", "ref": 1, "content": "a", "partition": 7 });
    assert_eq!(outcome(nowhere).await, told("not_written", 502, "rejected"));
    // Every acknowledgement is lost.
    let cluster = &served.fixture.cluster;
    cluster.arm(PRODUCE, When::PerMille(1000), Fault::CloseAfter);
    let (lost, status, _) = outcome(produce(2, "a")).await;
    assert_eq!((&*lost, status), ("unknown", 504));
    cluster.disarm();
    [1, 2].into_iter().for_each(|broker| cluster.kill(broker));
    let (down, status, error) = outcome(produce(3, "a")).await;
    assert_eq!((&*down, status), ("not_written", 503), "{error}");
}

#[tokio::test(start_paused = true)]
async fn who_may_not_write_is_told_for_each_record() {
    let served = served_writing(|_| {}).await;
    let mut client = Client::open(&served, "").await;
    client.hear_of("welcome").await;
    client.say(json!({ "type": "produce", "ref": 1, "content": "a", "topic": "secret" })).await;
    let error = client.hear_of("error").await;
    assert_eq!((&error["error"], &error["ref"]), (&json!("topic_not_allowed"), &json!(1)));
    client.say(json!({ "type": "produce", "ref": "x", "content": "a", "partition": -1 })).await;
    let error = client.hear_of("error").await;
    assert_eq!((&error["error"], &error["ref"]), (&json!("invalid_parameter"), &json!("x")));
    let reading = super::served(|_| {}).await;
    let mut client = Client::open(&reading, "").await;
    client.hear_of("welcome").await;
    client.say(produce(1, "a")).await;
    let error = client.hear_of("error").await;
    assert_eq!((&error["error"], &error["ref"]), (&json!("produce_disabled"), &json!(1)));
    client.hears_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn without_memory_a_record_is_not_written() {
    let served = served_writing(|_| {}).await;
    let mut client = Client::open(&served, "").await;
    client.hear_of("welcome").await;
    let answers = &served.fixture.resources.answers;
    let held = answers.hold(1 << 40);
    client.say(produce(1, "a")).await;
    let produced = client.hear_of("produced").await;
    assert_eq!((&produced["outcome"], &produced["status"]), (&json!("not_written"), &json!(503)));
    drop(held);
    client.say(produce(2, "b")).await;
    let frames = [client.hear().await, client.hear().await];
    assert!(frames.iter().any(|frame| frame["outcome"] == "written"), "{frames:?}");
}

#[tokio::test(start_paused = true)]
async fn outcomes_come_before_the_end_of_the_process() {
    let served = served_writing(|_| {}).await;
    let mut client = Client::open(&served, "from=latest").await;
    client.hear_of("welcome").await;
    client.say(json!({ "type": "pause" })).await;
    for number in 0..50 {
        client.say(produce(number, "a")).await;
    }
    client.say(json!({ "type": "ping", "state": "all" })).await;
    let mut outcomes = 0;
    loop {
        let frame = client.hear().await;
        match frame["type"].as_str().unwrap() {
            "produced" => outcomes += 1,
            "pong" => served.shutdown.fail("test"),
            "goaway" => break,
            _ => panic!("{frame}"),
        }
    }
    assert_eq!(outcomes, 50);
    assert_eq!(client.close_code().await, 1012);
}

#[tokio::test(start_paused = true)]
async fn bare_values_are_written_and_what_is_not_ends_the_connection() {
    let served = served_writing(|_| {}).await;
    let mut client = Client::of(&served, "", RAW).await.unwrap();
    for value in
        [Message::text("a"), Message::binary(b"\xff".to_vec()), Message::binary(Bytes::new())]
    {
        client.0.send(value.clone()).await.unwrap();
        assert_eq!(client.next().await, value);
    }
    let cluster = &served.fixture.cluster;
    [1, 2].into_iter().for_each(|broker| cluster.kill(broker));
    client.0.send(Message::text("b")).await.unwrap();
    assert_eq!(client.close_code().await, 1013);
}
