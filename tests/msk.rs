//! Amazon MSK's two forms of a proof, at real brokers that check it with Amazon's own code.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use harness::bridge::{Bridge, Settings};
use harness::envoy::{Envoy, EnvoyConfig, Listener};
use harness::http::Request;
use harness::kafka::KafkaVersion;
use harness::reader::read_all;
use kafka_upstream_tests::msk::{Msk, REGION, ROLE, ROLE_ARN, Services, USER, WEB_IDENTITY};
use kafka_upstream_tests::{configuration, text};
use serde_json::{Value, json};
use xtask::build;

/// As Amazon's documentation has them.
const IAM: &[(&str, &str)] = &[
    ("sasl.mechanism", "AWS_MSK_IAM"),
    ("sasl.client.callback.handler.class", "software.amazon.msk.auth.iam.IAMClientCallbackHandler"),
];
const TOKEN: &[(&str, &str)] = &[
    ("sasl.mechanism", "OAUTHBEARER"),
    (
        "sasl.login.callback.handler.class",
        "software.amazon.msk.auth.iam.IAMOAuthBearerLoginCallbackHandler",
    ),
];
const IAM_MODULE: &str = "software.amazon.msk.auth.iam.IAMLoginModule required";
const TOKEN_MODULE: &str =
    "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required";

/// No keys but those that a test gives, whatever the machine has.
fn nowhere(settings: &mut Settings, home: &Path) {
    let mut set = |name: &str, value: &str| settings.env.push((name.to_owned(), value.to_owned()));
    set("HOME", home.to_str().unwrap_or_default());
    set("AWS_EC2_METADATA_DISABLED", "true");
    for name in [
        "AWS_ACCESS_KEY_ID",
        "AWS_CONFIG_FILE",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_DEFAULT_REGION",
        "AWS_PROFILE",
        "AWS_REGION",
        "AWS_SHARED_CREDENTIALS_FILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
    ] {
        set(name, "");
    }
}

/// A cluster of the bridge's configuration.
fn cluster(msk: &Msk, name: &str, form: &[(&str, &str)], options: &str) -> anyhow::Result<String> {
    let bootstrap = msk.kafka.bootstrap_at("SASL")?;
    let mut toml = format!(
        "[clusters.{name}]\nbootstrap.servers = '{bootstrap}'\n\
         security.protocol = 'SASL_PLAINTEXT'\n"
    );
    for (name, value) in form {
        toml.push_str(&format!("{name} = '{value}'\n"));
    }
    let module = if form == IAM { IAM_MODULE } else { TOKEN_MODULE };
    Ok(format!("{toml}sasl.jaas.config = '{module} {options};'\n"))
}

/// A secret that no key has.
const WRONG: &str = "hunter2";

/// What a cluster is called, and what its login module is told.
type Case<'a> = (&'a str, &'a str);

/// A gateway whose topics have a cluster of their own, each case in both forms.
async fn gateway(msk: &Msk, home: &Path, cases: &[Case<'_>]) -> anyhow::Result<(Envoy, Bridge)> {
    let mut settings = Settings::to(msk.kafka.bootstrap());
    nowhere(&mut settings, home);
    let mut topics = Vec::new();
    for (name, options) in cases {
        for (form, prefix) in [(IAM, "iam"), (TOKEN, "token")] {
            let name = format!("{prefix}-{name}");
            settings = settings.line(&cluster(msk, &name, form, options)?);
            topics.push(name);
        }
    }
    let bridge = Bridge::start(settings).await?;
    let mut config = EnvoyConfig::new(build::filter()?).concurrency(1).bridge(&bridge);
    for topic in &topics {
        msk.kafka.create_topic(topic, 1).await?;
        let fields = json!({
            "cluster": topic, "producer_async": false, "delivery_timeout": 2000,
            "error_handling": { "return_error_message": true },
        });
        config = config.listener(Listener::filter(topic, configuration(topic, &fields)));
    }
    Ok((Envoy::start(config).await?, bridge))
}

async fn send(envoy: &Envoy, topic: &str) -> anyhow::Result<(u16, String)> {
    let reply = text(topic).send(envoy.port(topic)?).await?;
    Ok((reply.status, reply.text()))
}

const FORMS: [(&str, &str); 2] = [("iam", "AWS_MSK_IAM"), ("token", "OAUTHBEARER")];

async fn through_a_filter(version: KafkaVersion) -> anyhow::Result<()> {
    let msk = Msk::start(version).await?;
    let home = tempfile::tempdir()?;
    let keys = |secret: &str| format!("awsAccessKeyId={} awsSecretAccessKey=\"{secret}\"", USER.0);
    let region = format!("awsRegion={REGION}");
    let (homeless, right) = (keys(USER.1), format!("{} {region}", keys(USER.1)));
    let wrong_secret = format!("{} {region}", keys(WRONG));
    let wrong_region = format!("{homeless} awsRegion=us-east-1");
    let cases = [
        ("right", &*right),
        ("secret", &wrong_secret),
        ("region", &wrong_region),
        ("none", &region),
        ("homeless", &homeless),
    ];
    let (envoy, bridge) = gateway(&msk, home.path(), &cases).await?;
    let page = bridge.get("/readyz").await?.json()?;
    for (form, mechanism) in FORMS {
        let topic = format!("{form}-right");
        let (status, told) = send(&envoy, &topic).await?;
        ensure!(status == 200, "{topic}: {status} {told}");
        let held = read_all(&msk.kafka.bootstrap(), &topic).await?;
        ensure!(held.len() == 1, "{topic}: {} records", held.len());

        let refused = format!(
            "SASL credential: refused for {mechanism}, check the keys, the region, the clock and \
             the policy of the identity; the broker says SASL_AUTHENTICATION_FAILED (58): "
        );
        let none = format!("no credential for {mechanism}: AWS gives no keys: there are none in");
        let homeless = format!("no credential for {mechanism}: no region is in the broker's name");
        for (case, step, cause) in [
            (
                "secret",
                &refused,
                "The request signature we calculated does not match the signature you provided.",
            ),
            ("region", &refused, "Credential should be scoped to a valid region and service"),
            ("none", &none, "no container; the instance: AWS_EC2_METADATA_DISABLED is true"),
            ("homeless", &homeless, "set awsRegion in sasl.jaas.config or AWS_REGION"),
        ] {
            // A filter is told the beginning.
            let (status, told) = send(&envoy, &format!("{form}-{case}")).await?;
            ensure!(status == 503 && told.contains(step), "{form}-{case}: {status} {told}");
            let told = page.pointer(&format!("/clusters/{form}-{case}")).and_then(Value::as_str);
            let told = told.unwrap_or_default();
            ensure!(told.contains(step) && told.contains(cause), "{form}-{case}: {told}");
        }
    }
    holds_no_secret(&bridge)?;
    for (case, ahead_s, side) in [("slow", 1230, "behind"), ("fast", -1230, "ahead")] {
        msk.set_ahead(ahead_s)?;
        let (envoy, bridge) = gateway(&msk, home.path(), &[(case, &right)]).await?;
        for (form, mechanism) in FORMS {
            let (status, told) = send(&envoy, &format!("{form}-{case}")).await?;
            let step = format!(
                "SASL credential: refused for {mechanism}, this host's clock seems 20 minutes \
                 {side}, set it by NTP; the broker says SASL_AUTHENTICATION_FAILED (58): "
            );
            ensure!(status == 503 && told.contains(&step), "{form}-{case}: {status} {told}");
        }
        holds_no_secret(&bridge)?;
    }
    Ok(())
}

fn holds_no_secret(bridge: &Bridge) -> anyhow::Result<()> {
    let log = fs::read_to_string(bridge.config_path().with_file_name("host-bridge.log"))?;
    for secret in [USER.1, ROLE.1, ROLE.2, WEB_IDENTITY, WRONG, "X-Amz-Signature"] {
        ensure!(!log.contains(secret), "{secret} is in the log");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_writes_to_kafka_4_3_with_both_forms() -> anyhow::Result<()> {
    through_a_filter(KafkaVersion::V4_3).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_writes_to_kafka_3_9_with_both_forms() -> anyhow::Result<()> {
    through_a_filter(KafkaVersion::V3_9).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_takes_what_amazons_own_client_sends() -> anyhow::Result<()> {
    let msk = Msk::start(KafkaVersion::V4_3).await?;
    for (topic, form, module) in [("iam", IAM, IAM_MODULE), ("token", TOKEN, TOKEN_MODULE)] {
        msk.kafka.create_topic(topic, 1).await?;
        let jaas = format!("{module};");
        let all = [form, &[("sasl.jaas.config", &jaas)]].concat();
        msk.write_with_java(topic, &all, 10).await?;
        let held = read_all(&msk.kafka.bootstrap(), topic).await?;
        ensure!(held.len() == 10, "{topic}: {} records", held.len());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_3_s_is_renewed_each_time_with_a_new_signature() -> anyhow::Result<()> {
    let msk = Msk::start(KafkaVersion::V4_3).await?;
    let home = tempfile::tempdir()?;
    // What was signed more than 8 s ago is now refused.
    msk.set_ahead(892)?;
    let (id, secret) = USER;
    let right = format!("awsAccessKeyId={id} awsSecretAccessKey=\"{secret}\" awsRegion={REGION}");
    for (topic, form) in [("iam", IAM), ("token", TOKEN)] {
        msk.kafka.create_topic(topic, 1).await?;
        let mut settings = Settings::to(msk.kafka.bootstrap());
        settings = settings.line(&cluster(&msk, "msk", form, &right)?);
        nowhere(&mut settings, home.path());
        let bridge = Bridge::start(settings).await?;
        let opened = "host_bridge_kafka_connections_opened_total";
        let (mut sent, mut before) = (0, None);
        let end = Instant::now() + Duration::from_secs(14);
        while Instant::now() < end {
            let path = format!("/v1/clusters/msk/topics/{topic}");
            let reply = Request::post(&path, "x".to_owned()).send(bridge.port()).await?;
            ensure!(reply.status == 200, "{topic}: {} {}", reply.status, reply.text());
            sent += 1;
            let now = bridge.metric(opened, "cluster=\"msk\"").await?;
            let first = *before.get_or_insert(now);
            let is_kept = first > 0.5 && (now - first).abs() < 0.5;
            ensure!(is_kept, "{topic}: {first} connections became {now}");
        }
        let held = read_all(&msk.kafka.bootstrap(), topic).await?.len();
        ensure!(held == sent, "{topic}: {held} of {sent} are in Kafka");
    }
    Ok(())
}

/// A home with a profile of keys, and one that takes on the role with them.
fn write_profiles(home: &Path) -> anyhow::Result<()> {
    let folder = home.join(".aws");
    fs::create_dir(&folder)?;
    let (id, secret) = USER;
    fs::write(
        folder.join("credentials"),
        format!("[user]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n"),
    )?;
    fs::write(
        folder.join("config"),
        format!(
            "[profile user]\nregion = {REGION}\n[profile role]\nrole_arn = {ROLE_ARN}\n\
             source_profile = user\nregion = {REGION}\n"
        ),
    )?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_come_from_every_place_that_aws_has() -> anyhow::Result<()> {
    let msk = Msk::start(KafkaVersion::V4_3).await?;
    msk.kafka.create_topic("t", 1).await?;
    let services = Services::start().await?;
    let home = tempfile::tempdir()?;
    write_profiles(home.path())?;
    let identity = home.path().join("identity");
    fs::write(&identity, format!("{WEB_IDENTITY}\n"))?;
    let identity = identity.to_str().unwrap_or_default();
    let role = format!("awsRoleArn=\"{ROLE_ARN}\" awsRoleSessionName=\"gateway\"");
    let user = [("AWS_ACCESS_KEY_ID", USER.0), ("AWS_SECRET_ACCESS_KEY", USER.1)];
    let region = [("AWS_REGION", REGION)];
    let service = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", services.url.as_str())];
    let web = [("AWS_WEB_IDENTITY_TOKEN_FILE", identity), ("AWS_ROLE_ARN", ROLE_ARN)];
    let on = [("AWS_EC2_METADATA_DISABLED", "false")];
    let mut written = 0;
    for (place, options, env, questions) in [
        ("environment", "", [&user[..], &region].concat(), &[][..]),
        ("profile", "awsProfileName=user", vec![], &[]),
        ("AWS_PROFILE", "", vec![("AWS_PROFILE", "user")], &[]),
        ("profile of a role", "awsProfileName=role", vec![], &["AssumeRole"]),
        ("role", &role, [&user[..], &region].concat(), &["AssumeRole"]),
        ("web identity", "", [&web[..], &region].concat(), &["AssumeRoleWithWebIdentity"]),
        ("instance", "", [&service[..], &on, &region].concat(), &["IMDS", "IMDS", "IMDS"]),
    ] {
        for form in [IAM, TOKEN] {
            let mut settings = Settings::to(msk.kafka.bootstrap());
            settings = settings.line(&cluster(&msk, "msk", form, options)?);
            nowhere(&mut settings, home.path());
            let sts = ("AWS_ENDPOINT_URL_STS", services.url.as_str());
            for (name, value) in env.iter().chain([&sts]) {
                settings.env.push(((*name).to_owned(), (*value).to_owned()));
            }
            let bridge = Bridge::start(settings).await?;
            let request = Request::post("/v1/clusters/msk/topics/t", place.to_owned());
            let reply = request.send(bridge.port()).await?;
            ensure!(reply.status == 200, "{place}: {} {}", reply.status, reply.text());
            written += 1;
            let asked = services.questions();
            ensure!(asked == questions, "{place}: asked {asked:?}");
            holds_no_secret(&bridge)?;
        }
    }
    let held = read_all(&msk.kafka.bootstrap(), "t").await?.len();
    ensure!(held == written, "{held} of {written} are in Kafka");
    Ok(())
}
