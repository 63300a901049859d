//! How often records come, in which order, and in which form.

use super::*;

#[tokio::test]
async fn a_failing_key_holds_up_its_own_records_alone() {
    let kafka = Kafka::new(&[1]);
    for number in 0..40 {
        let key: &[u8] = if number % 4 == 0 { b"bad" } else { b"good" };
        kafka.write(0, key, number.to_string().as_bytes()).await;
    }
    let receiver = Receiver::new(|request, _| match request.header("kafka-key") {
        "bad" => (503, None),
        _ => (200, None),
    })
    .await;
    let webhook = format!("ordering = 'key'\n{SOON}");
    let bridge = kafka.bridge(&receiver, "", &webhook);
    let delivered = |key: &str| {
        let of_key = receiver.all().into_iter().filter(|it| it.header("kafka-key") == key);
        of_key.map(|it| it.place().1).collect::<Vec<_>>()
    };
    let started = Instant::now();
    while delivered("good").len() < 30 {
        assert!(started.elapsed() < WITHIN, "{:?}", delivered("good"));
        sleep(Duration::from_millis(5)).await;
    }
    let good: Vec<_> = (0..40).filter(|number| number % 4 != 0).collect();
    assert_eq!(delivered("good"), good);
    assert!(delivered("bad").iter().all(|offset| *offset == 0), "{:?}", delivered("bad"));
    bridge.end().await;
    assert_eq!(kafka.position(0), Some(0));
    // Whoever comes next sends what is not settled, and nothing else.
    receiver.answers(ok);
    let count = receiver.all().len();
    let bridge = kafka.bridge(&receiver, "", &webhook);
    receiver.has(count + 10).await;
    kafka.committed(0, 40).await;
    let again: Vec<_> = receiver.places()[count..].iter().map(|(_, offset)| *offset).collect();
    assert_eq!(again, (0..40).step_by(4).collect::<Vec<_>>());
    bridge.end().await;
}

#[tokio::test]
async fn without_an_order_requests_of_a_partition_are_made_at_a_time() {
    let kafka = Kafka::new(&[1]);
    kafka.write_numbers(0, 0..50).await;
    let receiver = Receiver::new(|request, _| match request.place().1 {
        7 => (500, None),
        _ => (200, None),
    })
    .await;
    let webhook = format!("ordering = 'none'\n{SOON}");
    let bridge = kafka.bridge(&receiver, "", &webhook);
    let started = Instant::now();
    let distinct =
        || receiver.places().into_iter().collect::<std::collections::BTreeSet<_>>().len();
    while distinct() < 50 {
        assert!(started.elapsed() < WITHIN, "{} came", distinct());
        sleep(Duration::from_millis(5)).await;
    }
    kafka.committed(0, 7).await;
    receiver.answers(ok);
    kafka.committed(0, 50).await;
    bridge.end().await;
}

#[tokio::test]
async fn at_most_once_a_record_is_committed_before_it_is_sent_once() {
    let kafka = Kafka::new(&[1]);
    kafka.write_numbers(0, 0..5).await;
    let receiver = Receiver::new(|request, _| match request.place().1 {
        1 => (503, None),
        2 => (404, None),
        _ => (200, None),
    })
    .await;
    let bridge = kafka.bridge(&receiver, "dlq_topic = 'dead'", "qos = 'at-most-once'");
    receiver.has(5).await;
    kafka.committed(0, 5).await;
    assert_eq!(receiver.places(), [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4)]);
    let started = Instant::now();
    while kafka.dead().len() < 2 {
        assert!(started.elapsed() < WITHIN);
        sleep(Duration::from_millis(5)).await;
    }
    // One that is under way when the bridge is gone is never sent again.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    bridge.end().await;
    kafka.write_numbers(0, 5..6).await;
    let bridge = kafka.bridge(&Receiver { url, ..receiver.clone() }, "", "qos = 'at-most-once'");
    let (stream, _) = silent.accept().await.unwrap();
    assert_eq!(kafka.position(0), Some(6));
    bridge.crash().await;
    drop(stream);
}

#[tokio::test]
async fn without_a_promise_nothing_is_committed() {
    let kafka = Kafka::new(&[1]);
    kafka.write_numbers(0, 0..3).await;
    let receiver = Receiver::new(ok).await;
    for round in 1..=2 {
        let bridge = kafka.bridge(&receiver, "", "qos = 'none'");
        receiver.has(3 * round).await;
        bridge.end().await;
        assert_eq!(kafka.position(0), None);
    }
}

#[tokio::test]
async fn cloudevents_are_sent_to_a_receiver_that_agrees_at_its_pace() {
    let kafka = Kafka::new(&[1]);
    kafka.write_numbers(0, 0..3).await;
    let receiver = Receiver::new(ok).await;
    receiver.agrees(Some(("hub.example", "300")));
    let webhook = "format = 'cloudevents'\n\
        cloudevents = { source = '/a', type = 'b', origin = 'hub.example' }";
    let started = Instant::now();
    let bridge = kafka.bridge(&receiver, "", webhook);
    let received = receiver.has(3).await;
    let first = &received[0];
    assert_eq!((first.header("ce-source"), first.header("ce-type")), ("/a", "b"));
    assert_eq!(first.header("ce-id"), first.header("webhook-id"));
    assert_eq!(
        (first.header("webhook-request-origin"), &first.body[..]),
        ("hub.example", &b"0"[..])
    );
    // From when the first may have gone at the earliest: it may have been on its way for long.
    assert!(received[2].at - started >= Duration::from_millis(400));
    bridge.end().await;
    receiver.agrees(None);
    let webhook = format!("{webhook}\nbatch_max = 3\ngroup_id = 'other'\n{SOON}");
    let bridge = kafka.bridge(&receiver, "", &webhook);
    let state = bridge.is("last_error", DENIED).await;
    assert_eq!((&state["position"], receiver.all().len()), (&0.into(), 3));
    receiver.agrees(Some(("*", "*")));
    let received = receiver.has(4).await;
    assert_eq!(received[3].header("content-type"), "application/cloudevents-batch+json");
    let events: Vec<Value> = serde_json::from_slice(&received[3].body).unwrap();
    assert_eq!(
        (events.len(), &events[2]["data_base64"], &events[2]["data"]),
        (3, &Value::Null, &"2".into())
    );
    bridge.end().await;
}

const DENIED: &str =
    "OPTIONS: it answered 200 OK, without webhook-allowed-origin for `hub.example`";

#[tokio::test]
async fn requests_say_whose_they_are_and_a_token_that_is_refused_is_replaced() {
    let kafka = Kafka::new(&[1]);
    kafka.write_numbers(0, 0..2).await;
    let receiver = Receiver::new(ok).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "t1\n").unwrap();
    let bearer = format!("auth = 'bearer'\ntoken_file = '{}'", file.display());
    let basic = "auth = 'basic'\nusername = 'u'\npassword = 'p'\ngroup_id = 'basic'";
    for (webhook, expected) in [(&*bearer, "Bearer t1"), (basic, "Basic dTpw")] {
        let count = receiver.all().len();
        let bridge = kafka.bridge(&receiver, "", webhook);
        let received = receiver.has(count + 2).await;
        assert_eq!(received[count].header("authorization"), expected);
        bridge.end().await;
    }
    // Each token is another one; the first is refused.
    let tokens = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = Arc::clone(&tokens);
    let routes = Router::new().fallback(move |body: Bytes| {
        assert_eq!(&body[..], b"grant_type=client_credentials&scope=hooks");
        let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        async move { format!(r#"{{"access_token":"t{number}","expires_in":3600}}"#) }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    let receiver = Receiver::new(|request, _| match request.header("authorization") {
        "Bearer t0" => (401, None),
        _ => (200, None),
    })
    .await;
    let webhook = format!(
        "auth = 'oauth2'\ngroup_id = 'oauth2'\noauth2 = {{ token_endpoint = 'http://{endpoint}/', \
         client_id = 'i', client_secret = 's', scope = 'hooks' }}"
    );
    let bridge = kafka.bridge(&receiver, "", &webhook);
    let received = receiver.has(3).await;
    let tokens: Vec<_> = received.iter().map(|it| it.header("authorization")).collect();
    assert_eq!(tokens, ["Bearer t0", "Bearer t1", "Bearer t1"]);
    assert_eq!(receiver.places(), [(0, 0), (0, 0), (0, 1)]);
    bridge.end().await;
}
