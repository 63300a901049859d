//! Tests of the sockets: many clients, silent ones, and such as send garbage.

use kafka_protocol::messages::{MetadataRequest, MetadataResponse};
use tokio::net::TcpStream;

use super::*;

async fn listening() -> FakeCluster {
    let cluster = FakeCluster::new(FakeSettings::embedded(1024 * 1024));
    cluster.create_topic("orders", &[1]);
    cluster.listen().await.unwrap();
    cluster
}

async fn dial(cluster: &FakeCluster) -> TcpStream {
    TcpStream::connect(cluster.bootstrap()).await.unwrap()
}

/// Whether the broker hangs up after these bytes, without an answer.
async fn ends_with(cluster: &FakeCluster, bytes: &[u8]) -> bool {
    let mut stream = dial(cluster).await;
    stream.write_all(bytes).await.unwrap();
    let mut answer = [0; 1];
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut answer)).await;
    !matches!(read.unwrap(), Ok(1..))
}

/// A frame of an API and version, without client id.
fn frame(api: i16, version: i16, body: &[u8]) -> Vec<u8> {
    let mut frame = BytesMut::new();
    frame.put_i32(i32::try_from(body.len() + 10).unwrap());
    frame.put_i16(api);
    frame.put_i16(version);
    frame.put_i32(1);
    frame.put_i16(-1);
    frame.put_slice(body);
    frame.to_vec()
}

async fn is_well(cluster: &FakeCluster) {
    let client = Client::new(config(cluster));
    assert!(matches!(send(&client, "a").await, Outcome::Written { .. }));
}

#[tokio::test]
async fn garbage_ends_its_own_connection_alone() {
    let cluster = listening().await;
    let mut dice = Dice::new(1);
    let noise: Vec<u8> = (0..1000).map(|_| u8::try_from(dice.between(0, 255)).unwrap()).collect();
    assert!(ends_with(&cluster, b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n").await);
    assert!(ends_with(&cluster, &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0, 0, 0, 0]).await);
    for length in [-1, 0, 7, i32::MAX] {
        assert!(ends_with(&cluster, &length.to_be_bytes()).await, "{length}");
    }
    assert!(ends_with(&cluster, &frame(99, 0, &[])).await, "an API that it does not have");
    assert!(ends_with(&cluster, &frame(PRODUCE, 2, &[])).await, "a version that it does not have");
    let least = [(PRODUCE, 3), (FETCH, 4), (LIST_OFFSETS, 1), (METADATA, 0), (INIT_PRODUCER_ID, 0)];
    for (api, version) in least {
        assert!(ends_with(&cluster, &frame(api, version, &noise)).await, "{api}");
        assert!(ends_with(&cluster, &frame(api, version, &[0x7f; 60])).await, "{api}");
    }
    for (api, version) in [(PRODUCE, 12), (FETCH, 18), (LIST_OFFSETS, 10), (METADATA, 13)] {
        assert!(ends_with(&cluster, &frame(api, version, &noise)).await, "{api}");
        // The largest count of a compact array, wherever one is.
        assert!(ends_with(&cluster, &frame(api, version, &[0xff, 0xff, 0xff, 0xff, 0x0f])).await);
    }
    is_well(&cluster).await;
}

#[tokio::test]
async fn many_connections_and_silent_ones_hinder_nobody() {
    let cluster = listening().await;
    let mut silent = Vec::new();
    for count in 0..100 {
        let mut stream = dial(&cluster).await;
        // Some say nothing, some the half of a length, and some promise 100 MiB.
        let said: &[u8] = match count % 3 {
            0 => &[],
            1 => &[0, 0],
            _ => &[0x06, 0x40, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1],
        };
        stream.write_all(said).await.unwrap();
        silent.push(stream);
    }
    is_well(&cluster).await;
    assert!(cluster.connections() >= 100);
    let asked = MetadataRequest::default().with_topics(None);
    let mut body = BytesMut::new();
    asked.encode(&mut body, 1).unwrap();
    let mut asking = Vec::new();
    for _ in 0..100 {
        let (mut stream, request) = (dial(&cluster).await, frame(METADATA, 1, &body));
        asking.push(tokio::spawn(async move {
            stream.write_all(&request).await.unwrap();
            let mut answer = vec![0; usize::try_from(stream.read_i32().await.unwrap()).unwrap()];
            stream.read_exact(&mut answer).await.unwrap();
            MetadataResponse::decode(&mut Bytes::from(answer).slice(4..), 1).unwrap().topics.len()
        }));
    }
    for asked in asking {
        assert_eq!(asked.await.unwrap(), 1);
    }
    drop(silent);
    let ended = async {
        while cluster.connections() > 0 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), ended).await.unwrap();
}

#[tokio::test]
async fn a_broker_that_is_down_takes_nobody_in() {
    let cluster = listening().await;
    cluster.kill(1);
    assert!(ends_with(&cluster, &[]).await);
    cluster.restart(1);
    is_well(&cluster).await;
}
