//! What a 200 tells with each of `producer_request_acks`, and the order of one client in memory mode.

use kafka_upstream_tests::{Gateway, record_of, text};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn with_acks_1_and_all_the_place_is_told_and_with_0_it_is_not_known() -> anyhow::Result<()> {
    let acks = |acks| json!({ "producer_async": false, "producer_request_acks": acks });
    let modes = [("none", acks(0)), ("leader", acks(1)), ("all", acks(-1))];
    let gateway = Gateway::start(&modes).await?;
    for (topic, _) in &modes {
        let reply = gateway.send(topic, text("body")).await?;
        assert_eq!(reply.status, 200, "{topic}: {}", reply.text());
        assert_eq!(reply.header("kafka-topic"), Some(*topic));
        assert_eq!(reply.header("kafka-offset").is_some(), *topic != "none");
        let records = gateway.records(topic).await?;
        assert_eq!(records.len(), 1);
        if *topic != "none" {
            record_of(&records, &reply, topic)?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_mode_keeps_the_order_of_one_client() -> anyhow::Result<()> {
    let memory = json!({ "producer_async": true, "producer_async_flush_timeout": 10 });
    let gateway = Gateway::start(&[("order", memory)]).await?;
    for number in 0..300 {
        let reply = gateway.send("order", text(&number.to_string())).await?;
        assert_eq!((reply.status, reply.header("kafka-offset")), (200, None));
    }
    gateway.wait_until_empty().await?;
    let records = gateway.records("order").await?;
    assert_eq!(records.len(), 300);
    for partition in 0..3 {
        let own = records.iter().filter(|record| record.partition == partition);
        let mut last = -1;
        for record in own {
            let body = record.json()?["body"].as_str().unwrap_or_default().parse::<i64>()?;
            assert!(body > last, "partition {partition}: {body} after {last}");
            last = body;
        }
    }
    Ok(())
}
