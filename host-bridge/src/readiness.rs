//! `GET /readyz`: whether each configured cluster answers, asked now.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, StatusCode};
use kafka_client::{Client, ConnectionFailure};
use serde_json::{Map, Value};

use crate::auth::Access;
use crate::bridge::Bridge;
use crate::reply::json;

/// 200 when every configured cluster answers, else 503; the body has a reason for each that does
/// not, the faults of single brokers, topics that fail, and profiles that were refused: a filter
/// with a mistake must not take the bridge from the others. Without a configured cluster there is
/// nothing to wait for: filters name their brokers themselves, and the body says so.
///
/// Who has no token where tokens are set hears no name of a cluster, host or topic.
pub(crate) async fn readyz(
    State(bridge): State<Arc<Bridge>>,
    Extension(access): Extension<Access>,
) -> Response<Body> {
    let (status, mut body) = page(bridge.clusters.all()).await;
    if access == Access::Open {
        return json(status, &serde_json::json!({ "ready": status == StatusCode::OK }));
    }
    let (failing, refused) = (bridge.metrics.failing.json(), bridge.profiles.refused_json());
    let halted = bridge.webhooks.faults();
    let registries = bridge.clusters.registries().faults();
    for (name, told) in [
        ("failing_topics", failing),
        ("refused_profiles", refused),
        ("halted_webhooks", halted),
        ("schema_registries", registries),
    ] {
        if let (false, Some(body)) = (told.is_empty(), body.as_object_mut()) {
            body.insert(name.to_owned(), told.into());
        }
    }
    json(status, &body)
}

async fn page(clusters: impl IntoIterator<Item = (String, Client)>) -> (StatusCode, Value) {
    let mut asking = tokio::task::JoinSet::new();
    for (name, client) in clusters {
        asking.spawn(async move {
            let answer = client.ready(PATIENCE).await;
            (name, answer, client.faults())
        });
    }
    let (mut ready, mut clusters, mut faults) = (true, Map::new(), Map::new());
    for (name, answer, found) in asking.join_all().await {
        ready &= answer.is_ok();
        if answer.is_ok() && !found.is_empty() {
            faults.insert(name.clone(), found.iter().map(told).collect());
        }
        let state = answer.map_or_else(|reason| reason.to_string(), |()| "ready".to_owned());
        clusters.insert(name, Value::String(state));
    }
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let is_alone = clusters.is_empty();
    let mut body = serde_json::json!({ "ready": ready, "clusters": clusters });
    if let Some(body) = body.as_object_mut() {
        let note = is_alone.then(|| ("note".to_owned(), NO_CLUSTER.into()));
        let faults = Some(faults).filter(|faults| !faults.is_empty());
        body.extend(note.into_iter().chain(faults.map(|it| ("faults".to_owned(), it.into()))));
    }
    (status, body)
}

/// What is wrong with one broker of a cluster that answers all the same.
fn told(fault: &ConnectionFailure) -> Value {
    let server = fault.server.as_deref().unwrap_or("all brokers");
    Value::String(format!("{server}: {}: {}", fault.stage, fault.cause))
}

const NO_CLUSTER: &str = "no cluster is configured: only filters with bootstrap_servers are served";

/// How long a cluster may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use kafka_client::Config;
    use kafka_client::fake_broker::{FakeCluster, FakeSettings};

    use super::*;

    #[tokio::test]
    async fn a_broker_that_cannot_be_reached_where_it_says_it_is_shows_though_others_answer() {
        let kafka = FakeCluster::new(FakeSettings { brokers: 2, ..FakeSettings::default() });
        kafka.listen().await.unwrap();
        let bootstrap = kafka.bootstrap().split(',').next().unwrap().to_owned();
        let properties = [("bootstrap.servers", &*bootstrap)];
        let client = Client::new(Config::from_properties(properties).unwrap());
        let asked = || page([("default".to_owned(), client.clone())]);
        let sound = serde_json::json!({ "ready": true, "clusters": { "default": "ready" } });
        assert_eq!(asked().await, (StatusCode::OK, sound));
        kafka.advertise(2, "", 9092);
        let (status, body) = asked().await;
        assert_eq!((status, &body["clusters"]["default"]), (StatusCode::OK, &"ready".into()));
        let told = body["faults"]["default"][0].as_str().unwrap();
        assert!(told.starts_with(":9092: name: broker 2 advertises `:9092`"), "{told}");
        assert!(told.ends_with(&format!("advertised by {bootstrap}")), "{told}");
        kafka.advertise(1, "kafka", 0);
        let (status, body) = asked().await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
        let told = body["clusters"]["default"].as_str().unwrap();
        assert!(told.contains("advertises `kafka:0`"), "{told}");
    }
}
