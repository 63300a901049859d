//! Requests that are captured, against brokers in memory.

use std::sync::Arc;

use http_body_util::BodyExt as _;
use kafka_client::fake_broker::{FakeCluster, FakeSettings};
use serde_json::Value;

use super::*;
use crate::captures::Captures;
use crate::clusters::Clusters;
use crate::config::Config;
use crate::registry::fixture::FakeRegistry;
use crate::webhooks::running::Webhooks;

/// A bridge with `[captures.orders]`, at brokers in memory.
async fn bridge(fields: &str) -> (FakeCluster, Bridge) {
    let kafka = FakeCluster::new(FakeSettings { brokers: 1, ..FakeSettings::default() });
    for topic in ["orders", "more"] {
        kafka.create_topic(topic, &[1]);
    }
    kafka.listen().await.unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let servers = kafka.bootstrap();
    let text = format!(
        "token_file = '{0}'\n[clusters.default]\n'bootstrap.servers' = '{servers}'\n\
         [captures.orders]\ntopic = 'orders'\n{fields}",
        file.path().display()
    );
    std::fs::write(file.path(), text).unwrap();
    let args = crate::Args { config: Some(file.path().to_owned()), ..Default::default() };
    let config = Config::load(&args, std::iter::empty()).unwrap();
    let clusters = Arc::new(Clusters::new(&config).unwrap());
    let captures = Captures::new(&config, &clusters).unwrap();
    (kafka, Bridge::new(clusters, captures, Arc::default(), Webhooks::default()))
}

async fn ask(bridge: &Bridge, request: Request<Body>) -> (u16, Option<HeaderValue>, String) {
    let response = answer(bridge, request).await;
    let (status, code) =
        (response.status().as_u16(), response.headers().get("kafka-error").cloned());
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, code, String::from_utf8(body.to_vec()).unwrap())
}

fn post(target: &str, body: &'static str) -> Request<Body> {
    Request::post(target).header("host", "example.org").body(body.into()).unwrap()
}

fn values(kafka: &FakeCluster, topic: &str) -> Vec<String> {
    let text = |value: Option<bytes::Bytes>| String::from_utf8(value.unwrap().to_vec()).unwrap();
    kafka.log(topic, 0).into_iter().map(|record| text(record.value)).collect()
}

const SENT: &str = r#"{"message":"message sent"}"#;

#[tokio::test]
async fn a_request_is_captured_as_kongs_plugin_does_and_no_token_is_in_it() {
    let fields = "producer_async = false\nforward_method = true\nforward_uri = true\n\
        forward_headers = true\ntopics_query_arg = 'to'\nallowed_topics = ['more']\n\
        path_header = 'x-original-uri'";
    let (kafka, bridge) = bridge(fields).await;
    let mut request = post("/v1/capture/orders/a%2Fb?c=1", "x");
    request.headers_mut().insert("authorization", HeaderValue::from_static("Bearer secret"));
    assert_eq!(ask(&bridge, request).await, (200, None, SENT.to_owned()));
    let mut request = post("/v1/capture/orders", "y");
    let headers = request.headers_mut();
    headers.insert("authorization", HeaderValue::from_static("Basic client"));
    headers.insert(GATEWAY_TOKEN, HeaderValue::from_static("secret"));
    headers.insert("x-original-uri", HeaderValue::from_static("/asked?to=more,orders"));
    assert_eq!(ask(&bridge, request).await, (200, None, SENT.to_owned()));
    let [first, second] = &values(&kafka, "orders")[..] else { panic!() };
    let message: Value = serde_json::from_str(first).unwrap();
    assert_eq!(
        message,
        serde_json::json!({
            "method": "POST", "uri": "/a%2Fb?c=1", "uri_args": { "c": "1" },
            "headers": { "host": "example.org" }, "body": "eA==", "body_base64": true,
            "body_args": {},
        })
    );
    let message: Value = serde_json::from_str(second).unwrap();
    assert_eq!(message["uri"], "/asked?to=more,orders");
    assert_eq!(message["headers"]["authorization"], "Basic client");
    assert!(!second.contains("secret"), "{second}");
    assert_eq!(&values(&kafka, "more"), std::slice::from_ref(second));
}

#[test]
fn what_a_proxy_adds_to_its_clients_headers_is_the_last() {
    let name = |name| Some(HeaderName::from_static(name));
    let proxy = ProxyHeaders {
        path: name("x-original-uri"),
        scheme: name("x-forwarded-proto"),
        client_address: name("x-forwarded-for"),
    };
    let request = post("http://example.com/", "");
    let (mut parts, _) = request.into_parts();
    for (name, [clients, proxys]) in [
        ("x-original-uri", ["/theirs", "/asked"]),
        ("x-forwarded-proto", ["https", "http"]),
        ("x-forwarded-for", ["6.6.6.6", "\"6.6.6.6, 10.0.0.7"]),
    ] {
        parts.headers.insert(name, HeaderValue::from_static(clients));
        parts.headers.append(name, HeaderValue::from_static(proxys));
    }
    let request = of_parts(&parts, "/".to_owned(), &proxy, false).unwrap_or_default();
    let source = &*request.source_address;
    assert_eq!(
        (&*request.target, &*request.scheme, source),
        (&b"/asked"[..], &b"http"[..], &b"10.0.0.7"[..])
    );
    assert_eq!(request.values(b"host").collect::<Vec<_>>(), [b"example.com"]);
}

#[tokio::test]
async fn what_is_no_record_is_refused_as_the_filter_does() {
    let fields = "producer_async = false\nmax_body_bytes = 3\n[[captures.orders.match]]\n\
        methods = ['POST']";
    let (kafka, bridge) = bridge(fields).await;
    let code = async |request| {
        let (status, code, _) = ask(&bridge, request).await;
        (status, code.map(|code| code.to_str().unwrap().to_owned()).unwrap_or_default())
    };
    let refused = |status, code: &str| (status, code.to_owned());
    let to = "/v1/capture/orders/";
    assert_eq!(code(post(to, "1234")).await, refused(413, "body_too_large"));
    let chunks = ["12", "34"].map(Ok::<_, std::io::Error>);
    let endless = Body::from_stream(futures_util::stream::iter(chunks));
    let request = Request::post(to).body(endless).unwrap();
    let announced = ask(&bridge, post(to, "1234")).await;
    assert_eq!(ask(&bridge, request).await, announced, "as the filter, by the same words");
    let broken = futures_util::stream::iter([Ok("1"), Err(std::io::Error::other("reset"))]);
    let request = Request::post(to).body(Body::from_stream(broken)).unwrap();
    assert_eq!(code(request).await, refused(400, "bad_request"));
    let upgrade = Request::post(to).header("connection", "upgrade").header("upgrade", "websocket");
    assert_eq!(code(upgrade.body(Body::empty()).unwrap()).await, refused(400, "bad_request"));
    let grpc = Request::post(to).header("content-type", "application/grpc");
    assert_eq!(code(grpc.body(Body::empty()).unwrap()).await, refused(415, "grpc_unsupported"));
    let get = Request::get(to).body(Body::empty()).unwrap();
    assert_eq!(code(get).await, refused(404, "no_rule"));
    assert_eq!(code(post("/v1/capture/other", "")).await, refused(404, "unknown_capture"));
    let (_, _, body) = ask(&bridge, post("/v1/capture/other", "")).await;
    assert!(body.contains("the bridge's configuration has no section [captures.other]"), "{body}");
    let mut hosts = post(to, "");
    hosts.headers_mut().append("host", HeaderValue::from_static("example.com"));
    assert_eq!(code(hosts).await, refused(400, "bad_request"));
    assert_eq!(values(&kafka, "orders"), <[String; 0]>::default());
    let whole = futures_util::stream::iter(["12", "3"].map(Ok::<_, std::io::Error>));
    let request = Request::post(to).body(Body::from_stream(whole)).unwrap();
    assert_eq!(ask(&bridge, request).await.0, 200, "a body without a length");
    assert_eq!(values(&kafka, "orders").len(), 1);
    let page = bridge.metrics.text(&bridge.clusters, bridge.queued.depth()).unwrap();
    let row = r#"host_bridge_capture_requests_total{capture="orders",status="413"} 3"#;
    assert!(page.contains(row), "{page}");
}

#[tokio::test]
async fn a_topic_has_its_schema_unless_the_route_names_one() {
    let fake = FakeRegistry::with_orders().await;
    fake.schema(
        "texts",
        1,
        &serde_json::json!({ "schema": r#"{"type":"string"}"#,
        "schemaType": "JSON", "id": 8 }),
    );
    let fields = format!(
        "message_format = 'body'\nproducer_async = false\n[captures.queued]\ntopic = 'orders'\n\
         message_format = 'body'\n[captures.own]\ntopic = 'orders'\nmessage_format = 'body'\n\
         producer_async = false\nschema_registry.confluent.url = '{0}'\n\
         schema_registry.confluent.value_schema = {{ subject_name = 'texts', schema_version = 1 }}\n\
         [registries.main]\nurl = '{0}'\n[schemas.orders]\nregistry = 'main'\n\
         topics = ['orders']\nvalue_schema = {{ subject_name = 'orders-value', schema_version = 1 }}",
        fake.url
    );
    let (kafka, bridge) = bridge(&fields).await;
    for name in ["orders", "queued"] {
        let to = format!("/v1/capture/{name}");
        let (status, code, body) = ask(&bridge, post(&to, "{}")).await;
        assert_eq!((status, code.unwrap().as_bytes()), (422, &b"schema_mismatch"[..]), "{body}");
        assert!(body.contains("orders-value version 1: $: "), "{body}");
        assert_eq!(ask(&bridge, post(&to, r#"{"id":1}"#)).await.0, 200);
    }
    assert_eq!(ask(&bridge, post("/v1/capture/own", r#""text""#)).await.0, 200);
    bridge.queued.drain(Instant::now() + std::time::Duration::from_secs(20)).await;
    let framed = |id: char, json: &str| format!("\0\0\0\0{id}{json}");
    let mut values = values(&kafka, "orders");
    values.sort_unstable();
    let order = framed('\u{7}', r#"{"id":1}"#);
    assert_eq!(values, [order.clone(), order, framed('\u{8}', r#""text""#)]);
}

#[tokio::test]
async fn in_memory_mode_a_200_comes_before_kafkas_answer_and_the_record_after_it() {
    let (kafka, bridge) = bridge("success_response = { status = 204 }").await;
    kafka.kill(1);
    let (status, _, body) = ask(&bridge, post("/v1/capture/orders/", "x")).await;
    assert_eq!((status, body.as_str()), (204, ""));
    assert_eq!(bridge.queued.depth().records, 1);
    kafka.restart(1);
    let end = Instant::now() + std::time::Duration::from_secs(20);
    bridge.queued.drain(end).await;
    assert_eq!(values(&kafka, "orders").len(), 1);
}

#[tokio::test]
async fn while_deliveries_fail_memory_mode_refuses_where_it_is_gated() {
    let gated = "[[captures.orders.match]]\npath_prefix = '/gated'\n\
        config = { producer_async_health_gating = true }\n[[captures.orders.match]]";
    let (kafka, bridge) = bridge(gated).await;
    let ask = async |path: &str| {
        let (status, code, _) = ask(&bridge, post(&format!("/v1/capture/orders{path}"), "x")).await;
        (status, code.is_some_and(|code| code == "delivery_failing"))
    };
    assert_eq!(ask("/gated").await, (200, false));
    let end = Instant::now() + std::time::Duration::from_secs(20);
    bridge.queued.drain(end).await;
    kafka.kill(1);
    let mut taken = 1;
    while ask("/gated").await == (200, false) {
        taken += 1;
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        assert!(Instant::now() < end);
    }
    assert_eq!((ask("/gated").await, ask("/").await), ((503, true), (200, false)));
    kafka.restart(1);
    while ask("/gated").await != (200, false) {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        assert!(Instant::now() < end);
    }
    bridge.queued.drain(end).await;
    assert_eq!(values(&kafka, "orders").len(), taken + 2);
}

#[tokio::test]
async fn what_a_client_makes_of_a_body_is_bounded() {
    let fields = "producer_async = false\nmessage_format = 'body'\nmax_body_bytes = 8388608\n\
        topics_query_arg = 'to'\nallowed_topics = ['more']";
    let (kafka, bridge) = bridge(fields).await;
    let large = || Body::from(vec![b'x'; 8_388_608]);
    let request = Request::post("/v1/capture/orders/?to=orders,more").body(large()).unwrap();
    let (status, code, body) = ask(&bridge, request).await;
    assert_eq!((status, code.unwrap().as_bytes()), (413, &b"record_too_large"[..]), "{body}");
    assert_eq!(values(&kafka, "orders"), <[String; 0]>::default());
    // Of 128 MiB others hold 120: there is room for a body of 3 MiB, but not for its record as well.
    let (mut others, parts) = (Vec::new(), Request::new(()).into_parts().0);
    for _ in 0..15 {
        let read = bridge.captured_bodies.read(&parts, large(), 8_388_608).await;
        others.push(read.map(|(_, held)| held).unwrap_or_else(|unread| panic!("{unread}")));
    }
    let body = Body::from(vec![b'x'; 3_145_728]);
    let request = Request::post("/v1/capture/orders/").body(body).unwrap();
    let (status, code, body) = ask(&bridge, request).await;
    assert_eq!((status, code.unwrap().as_bytes()), (503, &b"queue_full"[..]), "{body}");
    assert!(bridge.bodies.read(&parts, large(), 8_388_608).await.is_ok(), "filters have their own");
}
