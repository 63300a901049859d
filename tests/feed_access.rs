//! Who reads a feed: gateways that prove themselves, and what their headers and the rules allow.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::ensure;
use harness::bridge::{Bridge, Settings};
use harness::http::{Request, Response};
use harness::kafka::{Kafka, KafkaVersion};
use harness::ports;
use harness::process::wait_until;
use serde_json::Value;

const TOKEN: (&str, &str) = ("kafka-upstream-gateway-token", "now");

async fn get(port: u16, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<Response> {
    let request = Request::get(&format!("/v1/feeds/{path}"));
    let named = |request: Request, (name, value): &(&str, &str)| request.header(name, *value);
    headers.iter().fold(request, named).send(port).await
}

/// Status and code, and no word of the topic that is named.
async fn refusal(
    port: u16,
    path: &str,
    headers: &[(&str, &str)],
) -> anyhow::Result<(u16, String, String)> {
    let reply = get(port, path, headers).await?;
    let body = reply.json()?;
    let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok((reply.status, text("error"), text("message")))
}

fn topics(reply: &Response) -> anyhow::Result<Vec<String>> {
    ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
    let body = reply.json()?;
    let items = body.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
    let topic = |item: &Value| item.pointer("/metadata/topic")?.as_str().map(str::to_owned);
    Ok(items.iter().filter_map(topic).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_get_what_their_gateway_and_the_rules_allow() -> anyhow::Result<()> {
    let kafka = Kafka::pooled(KafkaVersion::V4_3).await?;
    let (port, dir) = (ports::free()?, tempfile::tempdir()?);
    let tokens = dir.path().join("tokens");
    fs::write(&tokens, "before\nnow\n")?;
    let settings = Settings::to(kafka.bootstrap()).line(&format!(
        "[feeds]\nlisten = ['127.0.0.1:{port}']\ngateway = 'token'\n\
         gateway_token_file = '{}'\n\
         [feeds.orders]\ntopics = ['orders', 'orders-eu']\nauto_offset_reset = 'earliest'\n\
         auto_offset_reset_override = ['none']\n\
         [feeds.audit]\ntopics = ['audit']\n\
         [[authorization]]\nconsumer = 'team-*'\nfeeds = ['orders']\n\
         [[authorization]]\nconsumer = 'eu'\nfeeds = ['orders']\ntopics = ['orders-eu', 'gone']",
        tokens.display(),
    ));
    let bridge = Bridge::start(settings).await?;
    for topic in ["orders", "orders-eu", "audit"] {
        kafka.create_topic(topic, 1).await?;
        let path = format!("/v1/clusters/default/topics/{topic}");
        let reply = Request::post(path.as_str(), "x").send(bridge.port()).await?;
        ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
    }
    let team = ("kafka-upstream-consumer", "team-a");
    let eu = ("kafka-upstream-consumer", "eu");
    // Nobody's name counts without the proof, and what clients send as their own token is theirs.
    for headers in [
        &[][..],
        &[team],
        &[team, ("kafka-upstream-gateway-token", "no")],
        &[team, ("authorization", "Bearer now")],
    ] {
        let (status, code, _) = refusal(port, "orders", headers).await?;
        assert_eq!((status, &*code), (401, "gateway_unauthenticated"), "{headers:?}");
    }
    // Both tokens hold until the file has one.
    for token in ["before", "now"] {
        let proof = ("kafka-upstream-gateway-token", token);
        let client = ("authorization", "Bearer of-the-client");
        let page = get(port, "orders?limit=2&min=2", &[proof, team, client]).await?;
        let mut read = topics(&page)?;
        read.sort();
        assert_eq!(read, ["orders", "orders-eu"]);
    }
    fs::write(&tokens, "now\n")?;
    wait_until("the former token's end", Duration::from_secs(15), async || {
        let proof = ("kafka-upstream-gateway-token", "before");
        let reply = get(port, "orders?timeout=0", &[proof, team]).await?;
        ensure!(reply.status == 401, "{}", reply.status);
        Ok(())
    })
    .await?;
    // A rule, and a header, narrow the feed: its cursor, too.
    assert_eq!(topics(&get(port, "orders", &[TOKEN, eu]).await?)?, ["orders-eu"]);
    let narrowed = ("kafka-upstream-topics", "orders");
    assert_eq!(topics(&get(port, "orders", &[TOKEN, team, narrowed]).await?)?, ["orders"]);
    let ends = get(port, "orders/cursor?at=latest", &[TOKEN, eu]).await?.text();
    ensure!(ends.contains("orders-eu") && !ends.contains("\"orders\""), "{ends}");
    // Whether a topic exists is not told to whom it is not for.
    let mut told = Vec::new();
    for topic in ["orders", "audit", "nowhere"] {
        for path in [format!("orders?topics={topic}"), format!("orders?cursor={topic}@0%230")] {
            let (status, code, message) = refusal(port, &path, &[TOKEN, eu]).await?;
            assert_eq!((status, &*code), (403, "topic_not_allowed"), "{path}");
            told.push(message.replace(topic, "TOPIC"));
        }
    }
    told.dedup();
    assert_eq!(told, ["the topic `TOPIC` is not in this feed, or not for you"]);
    let none = ("kafka-upstream-auto-offset-reset", "none");
    let latest = ("kafka-upstream-auto-offset-reset", "latest");
    for (path, headers, status, code) in [
        ("audit", &[TOKEN, team][..], 403, "forbidden"),
        ("nowhere", &[TOKEN, team], 403, "forbidden"),
        ("orders", &[TOKEN, ("kafka-upstream-consumer", "x")], 403, "forbidden"),
        ("orders", &[TOKEN], 401, "identity_required"),
        ("orders", &[TOKEN, team, ("kafka-upstream-expires", "1700000000")], 401, "auth_expired"),
        ("orders", &[TOKEN, team, none], 400, "position_required"),
        ("orders", &[TOKEN, team, latest], 400, "invalid_parameter"),
        ("orders", &[TOKEN, team, eu], 400, "invalid_parameter"),
    ] {
        let (refused, told, message) = refusal(port, path, headers).await?;
        assert_eq!((refused, &*told), (status, code), "{path} {headers:?}: {message}");
    }
    // A stream ends with what its gateway said of the reader.
    let soon = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() + 2;
    let expires = ("kafka-upstream-expires", &*soon.to_string());
    let stream = get(port, "orders/events?from=earliest", &[TOKEN, eu, expires]).await?;
    let (events, goaway) =
        (stream.text(), "event: goaway\ndata: {\"reason\":\"auth_expired\"}\n\n");
    ensure!(stream.status == 200 && events.ends_with(goaway), "{} {events}", stream.status);
    assert_eq!(events.matches("event: message").count(), 1, "{events}");
    // Probes have no token.
    assert_eq!(Request::get("/healthz").send(port).await?.status, 200);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_knows_no_gateway_refuses_what_only_one_may_say() -> anyhow::Result<()> {
    let kafka = Kafka::pooled(KafkaVersion::V4_3).await?;
    kafka.create_topic("orders", 1).await?;
    let ports = [ports::free()?, ports::free()?];
    let mut bridges = Vec::new();
    for (port, gateway) in ports.into_iter().zip(["", "gateway = 'none'\n"]) {
        let settings = Settings::to(kafka.bootstrap()).line(&format!(
            "[feeds]\nlisten = ['127.0.0.1:{port}']\n{gateway}[feeds.orders]\ntopics = ['orders']"
        ));
        bridges.push(Bridge::start(settings).await?);
    }
    let named = &[("kafka-upstream-consumer", "a")];
    let [unknown, everybody] = ports;
    assert_eq!(get(unknown, "orders?timeout=0", &[]).await?.status, 200);
    let (status, code, message) = refusal(unknown, "orders?timeout=0", named).await?;
    assert_eq!((status, &*code), (401, "gateway_unauthenticated"), "{message}");
    assert_eq!(get(everybody, "orders?timeout=0", named).await?.status, 200);
    let logs = bridges.iter().map(|bridge| fs::read_to_string(bridge.process().log()));
    let logs = logs.collect::<Result<Vec<_>, _>>()?;
    let warned: Vec<_> = logs.iter().map(|log| log.contains("gateway_unproven")).collect();
    assert_eq!(warned, [false, true]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_beyond_the_places_of_a_client_or_a_feed_are_told_to_come_later()
-> anyhow::Result<()> {
    let kafka = Kafka::pooled(KafkaVersion::V4_3).await?;
    kafka.create_topics(&["orders", "orders-eu"], 1, 1, &[]).await?;
    let port = ports::free()?;
    let settings = Settings::to(kafka.bootstrap()).line(&format!(
        "[feeds]\nlisten = ['127.0.0.1:{port}']\ngateway = 'none'\nclient_connections_max = 2\n\
         [feeds.orders]\ntopics = ['orders']\n\
         [feeds.few]\ntopics = ['orders']\nconnections_max = 1\n\
         [feeds.all]\ntopics_pattern = 'orders.*'\nauto_offset_reset = 'earliest'\n\
         [[authorization]]\nconsumer = '*'\nfeeds = ['orders', 'few']\n\
         [[authorization]]\nconsumer = 'eu'\nfeeds = ['all']\ntopics = ['*-eu']",
    ));
    let bridge = Bridge::start(settings).await?;
    let [eu, us] = ["eu", "us"].map(|name| ("kafka-upstream-consumer", name));
    let [first, second] = ["1", "2"].map(|id| ("kafka-upstream-client-id", id));
    let waiting = async |feed: &str| {
        let request = Request::get(&format!("/v1/feeds/{feed}?from=latest&timeout=60000"));
        let request = request.header(eu.0, eu.1).header(first.0, first.1);
        request.timeout(Duration::from_secs(90)).send(port).await.map(|reply| reply.status)
    };
    let at_once = async |feed: &str, headers: &[_]| {
        let reply = get(port, &format!("{feed}?from=latest&timeout=0"), headers).await?;
        let retry_after = reply.header("retry-after").map(str::to_owned);
        anyhow::Ok((reply.status, retry_after, reply.text()))
    };
    let checking = async {
        wait_until("both readers", Duration::from_secs(30), async || {
            let scrape = Request::get("/metrics").send(bridge.port()).await?.text();
            for feed in ["orders", "few"] {
                let line = format!("feed_connections{{feed=\"{feed}\",entrypoint=\"get\"}} 1\n");
                ensure!(scrape.contains(&line), "{scrape}");
            }
            Ok(())
        })
        .await?;
        let (status, retry_after, body) = at_once("orders", &[eu, first]).await?;
        assert_eq!((status, retry_after.as_deref()), (429, Some("1")), "{body}");
        ensure!(body.contains("\"error\":\"too_many_connections\""), "{body}");
        for headers in [[eu, second], [us, first]] {
            assert_eq!(at_once("orders", &headers).await?.0, 200, "{headers:?}");
            // The feed has one place, and it is taken.
            let (status, retry_after, body) = at_once("few", &headers).await?;
            assert_eq!((status, retry_after.as_deref()), (503, Some("1")), "{body}");
        }
        let path = "/v1/clusters/default/topics/orders";
        let reply = Request::post(path, "x").send(bridge.port()).await?;
        ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
        anyhow::Ok(())
    };
    let (one, two, checked) = tokio::join!(waiting("orders"), waiting("few"), checking);
    checked?;
    assert_eq!((one?, two?), (200, 200));
    assert_eq!(at_once("few", &[eu, first]).await?.0, 200);
    // Of a pattern, too, a reader gets what a rule allows, and hears of nothing else.
    let reply = Request::post("/v1/clusters/default/topics/orders-eu", "x").send(bridge.port());
    assert_eq!(reply.await?.status, 200);
    assert_eq!(topics(&get(port, "all?timeout=5000", &[eu]).await?)?, ["orders-eu"]);
    for topic in ["orders", "orders-gone"] {
        let (status, code, _) = refusal(port, &format!("all?topics={topic}"), &[eu]).await?;
        assert_eq!((status, &*code), (403, "topic_not_allowed"), "{topic}");
    }
    assert_eq!(refusal(port, "all", &[us]).await?.0, 403);
    Ok(())
}
