//! Registries that answer, refuse, swell, go away and come back.

use futures_util::future::join_all;
use kafka_client::HttpsTrust;
use kafka_upstream_core::registry::Confluent;
use kafka_upstream_schema::Schema;
use kafka_upstream_schema::wire::SchemaId;
use serde_json::json;

use super::fixture::{FakeRegistry, ORDER};
use super::*;

fn client(confluent: &Confluent) -> Arc<Registry> {
    let connection = Connection::new(confluent, HttpsTrust::System);
    Arc::new(Registry::new("main".to_owned(), &connection))
}

fn latest(subject: &str) -> Key {
    Key::Subject(subject.into(), None)
}

#[tokio::test]
async fn a_schema_is_asked_for_once_however_many_wait() {
    let fake = FakeRegistry::with_orders().await;
    let registry = client(&fake.confluent());
    let key = latest("orders-value");
    for _ in 0..2 {
        let found = join_all((0..50).map(|_| registry.get(&key))).await;
        for registered in found {
            let registered = registered.unwrap();
            assert_eq!((registered.id, registered.version), (Some(7), Some(1)));
        }
    }
    let heads = fake.heads();
    assert_eq!(heads.len(), 1, "{heads:?}");
    assert!(heads[0].starts_with("GET /subjects/orders-value/versions/latest "), "{heads:?}");
}

#[tokio::test]
async fn a_schema_is_found_by_subject_and_version_id_and_guid() {
    let fake = FakeRegistry::with_orders().await;
    let guid = "0123abcd-4567-89ab-cdef-00112233ffee";
    let schema = json!({ "schema": ORDER, "schemaType": "JSON", "guid": guid }).to_string();
    fake.put("/schemas/ids/9", 200, &schema);
    fake.put(&format!("/schemas/guids/{guid}"), 200, &schema);
    fake.put(
        "/subjects/a%2Fb%20c/versions/3",
        200,
        &json!({
            "schema": ORDER, "schemaType": "JSON", "id": 4, "version": 3,
        })
        .to_string(),
    );
    let registry = client(&fake.confluent());
    let by_id = registry.get(&Key::Id(SchemaId::Number(9))).await.unwrap();
    let number = by_id.guid.unwrap();
    assert_eq!((by_id.id, number[0]), (Some(9), 1));
    let by_guid = registry.get(&Key::Id(SchemaId::Guid(number))).await.unwrap();
    assert_eq!((by_guid.id, by_guid.guid), (None, Some(number)));
    let odd = registry.get(&Key::Subject("a/b c".into(), Some(3))).await.unwrap();
    assert_eq!(odd.id, Some(4));
}

#[tokio::test]
async fn what_a_registry_says_instead_of_a_schema_is_told_apart_and_passes() {
    let large = format!(r#"{{"id":1,"schema":"{}"}}"#, "x".repeat(5 * 1024 * 1024));
    let nested =
        json!({ "id": 1, "schemaType": "JSON", "schema": "[".repeat(500_000) }).to_string();
    let missing = r#"{"error_code":40402,"message":"Version not found."}"#;
    for (status, body, kind) in [
        (404, missing, "unknown"),
        (401, "", "refused"),
        (403, "", "refused"),
        (404, "<html>", "refused"),
        (302, "", "refused"),
        (500, "{}", "unavailable"),
        (503, "", "unavailable"),
        (429, "", "unavailable"),
        (200, "<html>", "unavailable"),
        (200, r#"{"schema":"{}","schemaType":"JSON"}"#, "unavailable"),
        (200, &large, "unusable"),
        (200, &nested, "unusable"),
        (200, r#"{"id":1,"schema":"{}","schemaType":"XML"}"#, "unusable"),
        (200, r#"{"id":1,"schema":"not Avro"}"#, "unusable"),
    ] {
        let fake = FakeRegistry::with_orders().await;
        fake.answer_all(Some((status, body)));
        let (registry, key) = (client(&fake.confluent()), latest("orders-value"));
        let failure = registry.get(&key).await.unwrap_err();
        let told = match failure {
            Failure::Unavailable(_) => "unavailable",
            Failure::Unknown(_) => "unknown",
            Failure::Refused(_) => "refused",
            Failure::Unusable(_) => "unusable",
        };
        let shown = &body[..body.len().min(60)];
        assert_eq!(told, kind, "{status} {shown}: {failure}");
        let answered = matches!(failure, Failure::Unknown(_) | Failure::Unusable(_));
        assert_eq!(registry.health().fault.is_none(), answered, "{status} {shown}");
        assert_eq!(registry.get(&key).await.unwrap_err(), failure, "remembered");
        assert_eq!(fake.heads().len(), 1, "{status} {shown}");
        fake.answer_all(None);
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(10)).await;
        tokio::time::resume();
        assert_eq!(registry.get(&key).await.unwrap().id, Some(7), "{status} {shown}");
        assert!(registry.health().fault.is_none(), "{status} {shown}");
    }
    let nobody = Confluent { url: Some("http://127.0.0.1:1".to_owned()), ..Confluent::default() };
    let failure = client(&nobody).get(&latest("s")).await.unwrap_err();
    assert!(matches!(failure, Failure::Unavailable(_)), "{failure}");
}

#[tokio::test]
async fn the_last_schema_serves_while_the_registry_is_away() {
    let fake = FakeRegistry::with_orders().await;
    let registry = client(&Confluent { ttl: Some(0), ..fake.confluent() });
    let key = latest("orders-value");
    let first = registry.get(&key).await.unwrap();
    fake.answer_all(Some((500, "")));
    for _ in 0..3 {
        let again = registry.get(&key).await.unwrap();
        assert!(Arc::ptr_eq(&first, &again));
    }
    assert_eq!(fake.heads().len(), 2, "one that is away is not asked for each record");
    let health = registry.health();
    assert!(health.fault.is_some() && health.stale == 3, "{health:?}");
    let other = registry.get(&latest("other")).await.unwrap_err();
    assert!(matches!(other, Failure::Unavailable(_)), "{other}");
    fake.answer_all(None);
    fake.schema("orders-value", 2, &json!({ "schema": ORDER, "schemaType": "JSON", "id": 8 }));
    let back = async {
        while registry.get(&key).await.unwrap().id != Some(8) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(10), back).await.unwrap();
    assert!(registry.health().fault.is_none());
    // A subject that was deleted is an answer.
    fake.put("/subjects/orders-value/versions/latest", 404, r#"{"error_code":40401}"#);
    let gone = registry.get(&key).await.unwrap_err();
    assert!(matches!(gone, Failure::Unknown(_)), "{gone}");
}

#[tokio::test]
async fn another_address_answers_for_one_that_does_not() {
    let (away, fake) = (FakeRegistry::start().await, FakeRegistry::with_orders().await);
    away.answer_all(Some((502, "")));
    let urls = format!("http://127.0.0.1:1, {}/, {}/", away.url, fake.url);
    let registry = client(&Confluent { url: Some(urls), ..Confluent::default() });
    registry.get(&latest("orders-value")).await.unwrap();
    registry.get(&Key::Subject("orders-value".into(), Some(1))).await.unwrap();
    assert_eq!((away.heads().len(), fake.heads().len()), (1, 2), "the one that answered is asked");
}

#[tokio::test]
async fn references_are_gathered_each_behind_its_own() {
    let fake = FakeRegistry::start().await;
    let refers =
        |name: &str| json!([{ "name": format!("{name}.json"), "subject": name, "version": 1 }]);
    let schema = |text: serde_json::Value, references| json!({ "schema": text.to_string(), "schemaType": "JSON", "id": 1, "references": references });
    let of = |name: &str| json!({ "$ref": format!("{name}.json") });
    fake.schema("c", 1, &schema(json!({ "type": "integer" }), json!([])));
    fake.schema("b", 1, &schema(of("c"), refers("c")));
    fake.schema("a", 1, &schema(of("b"), refers("b")));
    let registry = client(&fake.confluent());
    let found = registry.get(&latest("a")).await.unwrap();
    let encode = |json: &[u8]| found.schema.encode(json, Default::default());
    assert!(encode(b"1").is_ok() && encode(b"true").is_err());
    // Round in a circle, into nothing, and on without an end.
    fake.schema("x", 1, &schema(of("y"), refers("y")));
    fake.schema("y", 1, &schema(of("x"), refers("x")));
    fake.schema("n", 1, &schema(of("nowhere"), refers("nowhere")));
    for depth in 0..20 {
        let next = format!("d{}", depth + 1);
        fake.schema(&format!("d{depth}"), 1, &schema(of(&next), refers(&next)));
    }
    for (subject, why) in [
        ("x", "its references run in a circle at `y`"),
        ("n", "it refers to subject nowhere version 1, which is not there"),
        ("d0", "it refers to too many schemas, or too deeply"),
    ] {
        let failure = registry.get(&latest(subject)).await.unwrap_err();
        assert_eq!(failure, Failure::Unusable(why.into()));
    }
}

#[tokio::test]
async fn a_registry_is_asked_as_its_authentication_says() {
    let fake = FakeRegistry::with_orders().await;
    let authenticated = |authentication: serde_json::Value| Confluent {
        authentication: serde_json::from_value(authentication).unwrap(),
        ..fake.confluent()
    };
    let basic = client(&authenticated(json!({
        "mode": "basic", "basic": { "username": "me", "password": "hunter2" },
        "logical_cluster_id": "lsrc-1", "identity_pool_id": "pool-1",
    })));
    basic.get(&latest("orders-value")).await.unwrap();
    let head = fake.heads().pop().unwrap();
    for header in [r#""target-sr-cluster": "lsrc-1""#, r#""confluent-identity-pool-id": "pool-1""#]
    {
        assert!(head.contains(header), "{head}");
    }
    assert!(head.contains("Basic bWU6aHVudGVyMg=="), "{head}");
    let idp = FakeRegistry::start().await;
    idp.put("/token", 200, r#"{"access_token":"abc","expires_in":600}"#);
    let oauth2 = client(&authenticated(json!({
        "mode": "oauth2", "oauth2": {
            "token_endpoint": format!("{}/token", idp.url), "client_id": "i", "client_secret": "s",
        },
    })));
    oauth2.get(&latest("orders-value")).await.unwrap();
    oauth2.get(&Key::Subject("orders-value".into(), Some(1))).await.unwrap();
    assert!(fake.heads().pop().unwrap().contains(r#""authorization": "Bearer abc""#));
    assert_eq!(idp.heads().len(), 1, "a token is kept");
    fake.answer_all(Some((401, "")));
    let refused = oauth2.get(&latest("other")).await.unwrap_err();
    assert!(matches!(refused, Failure::Refused(_)), "{refused}");
    assert_eq!(idp.heads().len(), 2, "one that is refused is asked for anew, once");
}

#[tokio::test]
async fn a_token_that_ends_or_is_refused_is_replaced_unnoticed() {
    let (fake, idp) = (FakeRegistry::with_orders().await, FakeRegistry::start().await);
    let token = |token: &str, seconds: u64| {
        idp.put(
            "/token",
            200,
            &json!({ "access_token": token, "expires_in": seconds }).to_string(),
        );
        fake.demand(&format!("Bearer {token}"));
    };
    let registry = client(&Confluent {
        ttl: Some(0),
        authentication: serde_json::from_value(json!({
            "mode": "oauth2", "logical_cluster_id": "lsrc-1", "oauth2": {
                "token_endpoint": format!("{}/token", idp.url), "client_id": "i",
                "client_secret": "s",
            },
        }))
        .unwrap(),
        ..fake.confluent()
    });
    let asked = async |asked: usize, tokens: usize| {
        registry.get(&latest("orders-value")).await.unwrap();
        assert_eq!((fake.heads().len(), idp.heads().len()), (asked, tokens));
    };
    token("short", 1);
    asked(1, 1).await;
    token("long", 600);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    asked(2, 2).await;
    token("other", 600);
    // With the token that is refused, and again.
    asked(4, 3).await;
    asked(5, 3).await;
    assert!(registry.health().fault.is_none());
    assert!(fake.heads().iter().all(|head| head.contains(r#""target-sr-cluster": "lsrc-1""#)));
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_is_slow_is_given_up_after_five_seconds() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Some(format!("http://{}", silent.local_addr().unwrap()));
    let registry = client(&Confluent { url, ..Confluent::default() });
    let began = Instant::now();
    let failure = registry.get(&latest("s")).await.unwrap_err();
    assert_eq!(began.elapsed().as_secs(), 5);
    let told = "the schema registry is not available: HTTP: no answer within 5000 ms";
    assert_eq!(failure.to_string(), told);
    // Others are not kept waiting by it.
    assert_eq!(registry.get(&latest("s")).await.unwrap_err(), failure);
    assert_eq!(began.elapsed().as_secs(), 5);
}

#[tokio::test]
async fn what_is_kept_is_bounded_and_gets_old() {
    let document = kafka_upstream_schema::Document {
        schema_type: kafka_upstream_schema::SchemaType::Json,
        text: ORDER.to_owned(),
        references: Vec::new(),
    };
    let registered = |bytes| {
        let schema = Schema::parse(&document).unwrap();
        let (id, language) = (Some(1), "JSON");
        Arc::new(Registered { schema, id, guid: None, version: None, language, bytes })
    };
    let flight = || {
        let never = std::future::pending::<Result<Arc<Registered>, Failure>>();
        never.boxed().shared()
    };
    let (mut cache, now, ttl) = (Cache::default(), Instant::now(), Duration::from_secs(60));
    let key = |number: u32| latest(&number.to_string());
    for number in 0..3000 {
        let asked = cache.find(&key(number), ttl, now, flight);
        assert!(matches!(asked, Found::Asked(None, _)), "{number}");
        let _settled = cache.settle(&key(number), Ok(registered(1)), now);
    }
    assert!(matches!(cache.find(&key(2999), ttl, now, flight), Found::Known(_)));
    let old = now + ttl;
    assert!(matches!(cache.find(&key(2999), ttl, old, flight), Found::Asked(Some(_), _)));
    let away = Failure::Unavailable("gone".into());
    let _settled = cache.settle(&key(2999), Err(away), old);
    assert!(matches!(cache.find(&key(2999), ttl, old, flight), Found::Stale(_)));
    let later = old + Duration::from_secs(1);
    assert!(matches!(cache.find(&key(2999), ttl, later, flight), Found::Asked(Some(_), _)));
    assert!(
        matches!(cache.find(&key(1999), ttl, now, flight), Found::Asked(None, _)),
        "the oldest go"
    );
    let id = Key::Id(SchemaId::Number(1));
    let _asked = cache.find(&id, ttl, now, flight);
    let _settled = cache.settle(&id, Ok(registered(1)), now);
    assert!(matches!(cache.find(&id, ttl, old, flight), Found::Known(_)), "an id is for ever");
    // As many bytes as there may be leave no room for any other.
    let large = key(0);
    let _asked = cache.find(&large, ttl, now, flight);
    let _settled = cache.settle(&large, Ok(registered(16 * 1024 * 1024)), now);
    assert!(matches!(cache.find(&large, ttl, now, flight), Found::Asked(..) | Found::Known(_)));
    assert!(matches!(cache.find(&id, ttl, now, flight), Found::Asked(None, _)));
}

#[tokio::test(start_paused = true)]
async fn an_id_that_a_replica_does_not_know_yet_is_asked_for_again() {
    let mut cache = Cache::default();
    let never = || std::future::pending::<Result<Arc<Registered>, Failure>>().boxed().shared();
    let start = Instant::now();
    let mut ask = |id: u32, seconds: u64| {
        let (key, now) = (Key::Id(SchemaId::Number(id)), start + Duration::from_secs(seconds));
        match cache.find(&key, Duration::ZERO, now, never) {
            Found::Asked(..) => {
                cache.settle(&key, Err(Failure::Unknown("id".into())), now).unwrap_err()
            }
            Found::Failed(failure) => failure,
            Found::Known(_) | Found::Stale(_) => panic!("nobody knows it"),
        }
    };
    for second in 0..10 {
        assert!(matches!(ask(1, second), Failure::Unavailable(_)), "{second}");
    }
    for second in 10..30 {
        assert!(matches!(ask(1, second), Failure::Unknown(_)), "{second}");
    }
    // Where that is how records begin, each of them is none.
    for id in 2..1000 {
        assert!(matches!(ask(id, 25), Failure::Unknown(_)), "{id}");
    }
    assert!(matches!(ask(1000, 36), Failure::Unavailable(_)));
}
