//! Feeds that a gateway has read at another cluster, or by a credential of the request.

use kafka_client::fake_broker::{FakeCluster, FakeSasl, FakeSettings};

use super::*;
use crate::config::Config;
use crate::consume::feeds::Feed;
use crate::consume::fixture::WITHIN;
use crate::consume::start::{Given, Start};

/// A cluster with the topic `orders` of so many partitions, which takes these tokens.
async fn cluster(partitions: usize, tokens: &[&str]) -> FakeCluster {
    let cluster = FakeCluster::new(FakeSettings { brokers: 1, ..FakeSettings::default() });
    cluster.listen().await.unwrap();
    cluster.create_topic("orders", &vec![1; partitions]);
    if !tokens.is_empty() {
        let tokens = tokens.iter().map(ToString::to_string).collect();
        cluster.demand(FakeSasl { tokens, ..FakeSasl::default() });
    }
    cluster
}

/// The feed `orders` of the first cluster, named `own`; the others are `eu` and `us`.
fn sources(clusters: &[&FakeCluster]) -> (Sources, FeedReader) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let section = |(name, cluster): (&str, &&FakeCluster)| {
        format!("[clusters.{name}]\nbootstrap.servers = '{}'\n", cluster.bootstrap())
    };
    let sections: String = ["own", "eu", "us"].into_iter().zip(clusters).map(section).collect();
    std::fs::write(file.path(), sections).unwrap();
    let args = crate::Args { config: Some(file.path().to_owned()), ..Default::default() };
    let config = Config::load(&args, std::iter::empty()).unwrap();
    let clusters = Arc::new(Clusters::new(&config).unwrap());
    let sources = Sources::new(&clusters, Resources::new(64 << 20));
    let feed = Feed { cluster: "own".to_owned(), ..Feed::of_topics(&["orders"]) };
    let hub = sources.hub("own", feed.isolation_level).unwrap();
    (sources, FeedReader::new(feed, 0, hub, None, Arc::default()))
}

async fn partitions(reader: &FeedReader) -> Result<usize, Code> {
    let opened = reader.open(&Given::From(Start::Earliest), None, WITHIN).await;
    let (cursor, _) = opened.map_err(|refusal| refusal.code)?;
    Ok(cursor.topics["orders"].partitions.len())
}

fn secret(token: &str) -> Option<Secret> {
    Some(Secret::new(token))
}

#[tokio::test]
async fn each_cluster_and_each_token_is_read_by_a_client_of_its_own() {
    let (own, eu) = (cluster(1, &[]).await, cluster(2, &["a", "b"]).await);
    let (sources, orders) = sources(&[&own, &eu]);
    assert_eq!(partitions(&orders).await, Ok(1));
    let by = |token| sources.reader(&orders, "eu", secret(token)).unwrap();
    let (a, b) = (by("a"), by("b"));
    assert_eq!((partitions(&a).await, partitions(&b).await), (Ok(2), Ok(2)));
    assert!(Arc::ptr_eq(&a.hub, &by("a").hub) && !Arc::ptr_eq(&a.hub, &b.hub));
    assert_ne!(a.source, b.source);
    assert_eq!(partitions(&by("c")).await, Err(Code::AuthExpired));
}

#[tokio::test]
async fn feeds_read_another_cluster_together() {
    let (own, eu) = (cluster(1, &[]).await, cluster(2, &[]).await);
    let (sources, orders) = sources(&[&own, &eu]);
    let mut other = orders.clone();
    other.number = 1;
    let [one, other] = [&orders, &other].map(|of| sources.reader(of, "eu", None).unwrap());
    assert!(Arc::ptr_eq(&one.hub, &other.hub));
    assert_eq!((partitions(&one).await, partitions(&other).await), (Ok(2), Ok(2)));
}

#[tokio::test(start_paused = true)]
async fn credentials_in_use_are_bounded_and_unused_ones_go() {
    let own = FakeCluster::new(FakeSettings { brokers: 1, ..FakeSettings::default() });
    let (sources, orders) = sources(&[&own]);
    let by = |number: usize| sources.reader(&orders, "own", secret(&format!("token-{number}")));
    let mut held: Vec<_> = (0..FEED_CREDENTIALS).map(|number| by(number).unwrap()).collect();
    assert_eq!(by(FEED_CREDENTIALS).err().unwrap().code, Code::Overloaded);
    // Who has one comes in.
    assert!(by(0).is_ok());
    tokio::time::advance(UNUSED * 2).await;
    assert_eq!(by(FEED_CREDENTIALS).err().unwrap().code, Code::Overloaded, "all are in use");
    drop(held.pop());
    assert!(by(FEED_CREDENTIALS).is_ok());
    assert!(by(0).is_ok());
    let first = Arc::downgrade(&held.remove(0).hub);
    assert!(by(FEED_CREDENTIALS + 1).is_err(), "it was used a moment ago");
    tokio::time::advance(UNUSED).await;
    assert!(by(FEED_CREDENTIALS + 1).is_ok());
    assert!(first.upgrade().is_none(), "its client ends");
}
