//! Sends numbered records concurrently: `produce BOOTSTRAP TOPIC COUNT [NAME=VALUE …]`.

use std::time::{Duration, Instant};

use anyhow::Context;
use kafka_client::{Client, Config, Outcome, Record};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [bootstrap, topic, count, properties @ ..] = args.as_slice() else {
        anyhow::bail!("usage: produce BOOTSTRAP TOPIC COUNT [NAME=VALUE …]");
    };
    let properties = properties.iter().filter_map(|property| property.split_once('='));
    let config =
        Config::from_properties(properties.chain([("bootstrap.servers", bootstrap.as_str())]))?;
    let client = Client::new(config);
    let started = Instant::now();
    let mut sends = tokio::task::JoinSet::new();
    for number in 0..count.parse::<u64>().context("COUNT")? {
        let (producer, topic) = (client.producer(), topic.clone());
        sends.spawn(async move {
            let (key, value) = (number.to_be_bytes(), format!("record {number}"));
            producer.send(&topic, Record::new(value.as_bytes()).key(&key), None).await
        });
    }
    let outcomes = sends.join_all().await;
    let written = outcomes.iter().filter(|o| matches!(o, Outcome::Written { .. })).count();
    println!("{written} of {count} written in {:?}", started.elapsed());
    if let Some(other) = outcomes.iter().find(|o| !matches!(o, Outcome::Written { .. })) {
        println!("for instance {other:?}");
    }
    println!("{:#?}", client.stats());
    client.close(Duration::ZERO).await;
    Ok(())
}
