//! What `check` says of schema registries, by the stages of a request to one.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::report;
use crate::config::ListenTls;
use crate::registry::fixture::FakeRegistry;

#[tokio::test]
async fn a_registry_and_its_schemas_are_asked_for() {
    let fake = FakeRegistry::with_orders().await;
    fake.put("/schemas/types", 200, r#"["JSON"]"#);
    let toml = format!(
        "[registries.away]\nurl = 'http://127.0.0.1:1'\n[registries.main]\nurl = '{}'\n\
         [clusters.default]\nbootstrap.servers = '127.0.0.1:1'\n[schemas.orders]\nregistry = 'main'\n\
         topics = ['orders']\nvalue_schema = {{ subject_name = 'orders-value', schema_version = 1 }}\n\
         key_schema = {{ subject_name = 'orders-key', schema_version = 'latest' }}\n\
         [feeds.a]\ntopics = ['a']\nentrypoints = ['webhook']\ndeserializer = 'schema-registry'\n\
         schema_registry = 'away'\n[feeds.b]\ntopics = ['b']\nentrypoints = ['webhook']\n\
         key_deserializer = 'schema-registry'\nschema_registry = 'main'",
        fake.url
    );
    let shown = report(&toml, &[], &[]).await;
    for part in [
        "registry away\n  FAIL  connection: the schema registry is not available: no connection: ",
        "  note  feed a: its readers wait for the registry\n",
        "registry main\n  ok    connection: the registry answers, and lets the bridge in\n  \
         ok    feed b: may ask it for schemas\n",
        "  FAIL  schema orders-key: the schema registry does not know it: subject orders-key ",
        "  ok    schema orders-value: JSON, version 1, id 7",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}

#[tokio::test]
async fn what_capture_routes_name_is_asked_for_once() {
    let fake = FakeRegistry::with_orders().await;
    fake.put("/schemas/types", 200, r#"["JSON"]"#);
    let capture = |name: &str, url: &str, subject: &str| {
        format!(
            "[captures.{name}]\ntopic = 'orders'\n[captures.{name}.schema_registry.confluent]\n\
             url = '{url}'\nvalue_schema = {{ subject_name = '{subject}', schema_version = 1 }}\n"
        )
    };
    let toml = [
        "[clusters.default]\nbootstrap.servers = '127.0.0.1:1'\n".to_owned(),
        capture("a", &fake.url, "orders-value"),
        capture("b", &fake.url, "orders-value"),
        capture("c", &fake.url, "other-value"),
        capture("d", "http://127.0.0.1:1", "orders-value"),
        format!("[captures.e]\ntopic = 'e'\nschema_registry.confluent.url = '{}'\n", fake.url),
    ]
    .concat();
    let shown = report(&toml, &[], &[]).await.replace(&fake.url["http://".len()..], "FAKE");
    let (before, shown) = shown.split_once("registry FAKE\n").unwrap();
    let none = "  note  capture e: its schema_registry names no schema\n";
    assert!(before.contains(none), "{before}");
    let told = "  ok    connection: the registry answers, and lets the bridge in\n  \
        ok    schema orders-value: JSON, version 1, id 7\n  \
        FAIL  schema other-value: the schema registry does not know it: subject other-value version 1: \
        Subject not found.\nregistry 127.0.0.1:1\n  FAIL  connection: ";
    assert!(shown.starts_with(told), "{shown}");
}

/// An authority, and what it has issued, as PEM files.
struct Authority {
    dir: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(vec!["authority".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        std::fs::write(dir.path().join("ca.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { dir, issuer: Issuer::new(params, key) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `NAME.crt` and `NAME.key`, for a host.
    fn issue(&self, name: &str, host: &str) -> (PathBuf, PathBuf) {
        let (certificate, secret) =
            (self.path(&format!("{name}.crt")), self.path(&format!("{name}.key")));
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        let issued = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(&certificate, issued.pem()).unwrap();
        std::fs::write(&secret, key.serialize_pem()).unwrap();
        (certificate, secret)
    }

    fn server(&self, host: &str, client_ca: Option<&Path>) -> ListenTls {
        let (certificate_file, key_file) = self.issue(&format!("server-{host}"), host);
        ListenTls { certificate_file, key_file, client_ca_file: client_ca.map(Path::to_owned) }
    }
}

#[tokio::test]
async fn a_registry_with_tls_is_trusted_as_its_section_says() {
    let (authority, other) = (Authority::new(), Authority::new());
    let fake = FakeRegistry::with_orders().await;
    fake.put("/schemas/types", 200, r#"["JSON"]"#);
    let ca = authority.path("ca.crt");
    let open = fake.secure(&authority.server("127.0.0.1", None)).await;
    let elsewhere = fake.secure(&authority.server("registry.test", None)).await;
    let mutual = fake.secure(&authority.server("127.0.0.1", Some(&ca))).await;
    let (certificate, key) = authority.issue("client", "bridge");
    let (strange, strange_key) = other.issue("client", "bridge");
    let ca_file = format!("ca_file = '{}'", ca.display());
    let other_file = format!("ca_file = '{}'", other.path("ca.crt").display());
    let with = |certificate: &Path, key: &Path| {
        let (certificate, key) = (certificate.display(), key.display());
        format!("{ca_file}\ncertificate_file = '{certificate}'\nkey_file = '{key}'")
    };
    let is_good = "  ok    connection: the registry answers, and lets the bridge in";
    let away = "  FAIL  connection: the schema registry is not available: ";
    for (url, lines, told) in [
        (&open, &*ca_file, is_good),
        (&open, "ssl_verify = false", is_good),
        (&mutual, &with(&certificate, &key), is_good),
        (&open, "", &format!("{away}TLS: ")),
        (&open, &other_file, &format!("{away}TLS: ")),
        (&elsewhere, &ca_file, &format!("{away}TLS: ")),
        // The server says what it thinks of a client's certificate when the client believes to be done.
        (&mutual, &ca_file, away),
        (&mutual, &with(&strange, &strange_key), away),
    ] {
        let shown = report(&format!("[registries.main]\nurl = '{url}'\n{lines}\n"), &[], &[]).await;
        assert!(shown.contains(told), "{url} {lines}: {shown}");
    }
}

#[tokio::test]
async fn each_stage_that_fails_is_told_without_a_secret() {
    let (fake, idp) = (FakeRegistry::start().await, FakeRegistry::start().await);
    let authority = Authority::new();
    let secured = idp.secure(&authority.server("127.0.0.1", None)).await;
    let oauth2 = |endpoint: &str| {
        format!(
            "authentication = {{ mode = 'oauth2', oauth2 = {{ token_endpoint = '{endpoint}/token', \
             client_id = 'me', client_secret = 'hunter2' }} }}\nca_file = '{}'",
            authority.path("ca.crt").display()
        )
    };
    let token = |status, body: &str| idp.put("/token", status, body);
    fake.put("/schemas/types", 200, r#"["JSON"]"#);
    fake.demand("Bearer good");
    let away = "the schema registry is not available: ";
    let refused = "the schema registry answered 401 Unauthorized: see authentication".to_owned();
    let is_good = "the registry answers, and lets the bridge in".to_owned();
    let basic =
        "authentication = { mode = 'basic', basic = { username = 'u', password = 'hunter2' } }";
    for (url, lines, (status, body), told) in [
        ("http://registry.invalid", "", (200, ""), format!("{away}name: ")),
        ("http://127.0.0.1:1", "", (200, ""), format!("{away}no connection: ")),
        (&fake.url, "", (200, ""), refused.clone()),
        (&fake.url, basic, (200, ""), refused.clone()),
        (
            &fake.url,
            &oauth2("http://127.0.0.1:1"),
            (200, ""),
            format!("{away}oauth2.token_endpoint: no connection: "),
        ),
        (&fake.url, &oauth2(&idp.url), (401, "hunter2"), format!("{away}oauth2.token_endpoint: ")),
        (&fake.url, &oauth2(&idp.url), (200, "<html>"), format!("{away}oauth2.token_endpoint: ")),
        (&fake.url, &oauth2(&idp.url), (200, r#"{"access_token":"bad"}"#), refused),
        (&fake.url, &oauth2(&idp.url), (200, r#"{"access_token":"good"}"#), is_good.clone()),
        (&fake.url, &oauth2(&secured), (200, r#"{"access_token":"good"}"#), is_good),
    ] {
        token(status, body);
        let shown = report(&format!("[registries.main]\nurl = '{url}'\n{lines}\n"), &[], &[]).await;
        assert!(shown.contains(&format!("connection: {told}")), "{url} {lines}: {shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[tokio::test]
async fn what_a_variable_sets_of_a_registry_counts() {
    let fake = FakeRegistry::start().await;
    fake.put("/schemas/types", 200, r#"["JSON"]"#);
    fake.demand("Basic bWU6aHVudGVyMg==");
    let toml = format!(
        "[registries.main]\nurl = 'http://127.0.0.1:1'\nauthentication.mode = 'basic'\n\
         authentication.basic = {{ username = 'me', password = 'wrong' }}\n[registries.other]\n\
         url = '{}'\nauthentication = {{ mode = 'basic', basic = {{ username = 'me' }} }}",
        fake.url
    );
    let password = "HOST_BRIDGE_REGISTRIES__MAIN__AUTHENTICATION__BASIC__PASSWORD";
    let environment = [("HOST_BRIDGE_REGISTRIES__MAIN__URL", &*fake.url), (password, "hunter2")];
    let shown = report(&toml, &environment, &[]).await;
    let faults = "registries.other.authentication.basic.password: is required";
    assert!(shown.contains(faults), "{shown}");
    let other = password.replace("MAIN", "OTHER");
    let shown = report(&toml, &[&environment[..], &[(&other, "hunter2")]].concat(), &[]).await;
    assert_eq!(shown.matches("  ok    connection: the registry answers").count(), 2, "{shown}");
    let nowhere = [("HOST_BRIDGE_REGISTRIES__MAIN__URL__X", "1")];
    let shown = report(&toml, &nowhere, &[]).await;
    assert!(shown.contains("__URL__X: the file has no such section"), "{shown}");
}
