//! Envoy, the request clients and the load generator against Envoy's own replies.

use std::time::Duration;

use bytes::Bytes;
use harness::envoy::{Envoy, EnvoyConfig, Listener};
use harness::http::Request;
use harness::load::{Ending, HangUp, Limit, Load, Requests};

async fn plain() -> anyhow::Result<Envoy> {
    Envoy::start(EnvoyConfig::new("/none").listener(Listener::plain("plain"))).await
}

fn numbers() -> Requests {
    Requests::post("/", "text/plain", |number| number.to_string().into_bytes())
}

#[tokio::test]
async fn both_http_versions_are_answered() {
    let envoy = plain().await.unwrap();
    let port = envoy.port("plain").unwrap();
    let pieces = || vec![Bytes::from("a"), Bytes::from("bc")];
    let pause = Duration::from_millis(5);
    for request in [
        Request::get("/"),
        Request::post("/", "body"),
        Request::post("/", "").pieces(pieces(), pause).trailer("t", "1"),
        Request::get("/").http2(),
        Request::post("/", "").pieces(pieces(), pause).trailer("t", "1").http2(),
    ] {
        let reply = request.send(port).await.unwrap();
        assert_eq!((reply.status, reply.text().as_str()), (200, "ok"));
        assert_eq!(reply.header("content-length"), Some("2"));
    }
    assert_eq!(envoy.stat("http.plain.downstream_rq_completed").await.unwrap(), 5);
    let http2 = envoy.stats("^http\\.plain\\.downstream_rq_http2_total$").await.unwrap();
    assert_eq!(http2.first().map(|(_, count)| *count), Some(2));
}

#[tokio::test]
async fn a_rejected_configuration_is_shown() {
    let config = EnvoyConfig::new("/none")
        .listener(Listener::plain("plain").routes(serde_json::json!([{"no": "such field"}])));
    let error = Envoy::start(config).await.unwrap_err();
    assert!(format!("{error:#}").contains("has unknown fields"), "{error:#}");
}

#[tokio::test]
async fn load_numbers_every_request() {
    let envoy = plain().await.unwrap();
    let port = envoy.port("plain").unwrap();
    let load = Load::new(port, numbers()).connections(8).first(100);
    let report = load.limit(Limit::Requests(1_000)).run().await.unwrap();
    assert_eq!((report.requests(), report.count(200)), (1_000, 1_000));
    assert_eq!(report.endings().next(), Some((100, Ending::Status(200))));
    let timed = Load::new(port, numbers()).limit(Limit::Duration(Duration::from_millis(100)));
    assert!(timed.run().await.unwrap().replies() > 10);
}

#[tokio::test]
async fn load_tells_refused_left_and_slow_apart() {
    let mut envoy = plain().await.unwrap();
    let port = envoy.port("plain").unwrap();
    envoy.process().freeze();
    let load = Load::new(port, numbers()).connections(4).limit(Limit::Requests(8));
    let left = HangUp { fraction: 1.0, within: Duration::from_millis(20) };
    let report = load.clone().hang_up(left).run().await.unwrap();
    assert_eq!(report.counts().get(&Ending::HungUp), Some(&8));
    let report = load.clone().timeout(Duration::from_millis(20)).run().await.unwrap();
    assert_eq!(report.counts().get(&Ending::TimedOut), Some(&8));
    envoy.process().thaw();
    envoy.stop().await.unwrap();
    let report = load.run().await.unwrap();
    assert_eq!(report.counts().get(&Ending::NotSent), Some(&8));
}
