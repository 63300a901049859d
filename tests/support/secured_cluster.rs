//! A broker with a listener for each `security.protocol`, those who know it, and every case to it:
//! properties of the bridge's clusters, right ones and wrong ones.

use std::collections::BTreeMap;
use std::time::Duration;

use harness::kafka::{DelegationToken, Kafka, KafkaVersion, Setup};

use crate::keys::{Authority, LEGACY, PASSWORD};
use crate::oidc::{CLIENT, Oidc, SECRET};

/// Alice's password, which every quoting on the way must leave alone.
pub const ALICE: &str = r#"p "4s\s=wo,rd';"#;
/// Bob's, with letters that SASLprep would change.
pub const BOB: &str = "bobs-\u{2168}-secret";
/// What Azure Event Hubs takes as a password.
const CONNECTION: &str = "Endpoint=sb://n.servicebus.windows.net/;SharedAccessKey=azures-key=";
/// What opens nothing.
pub const WRONG: &str = "hunter2";

/// The case whose password is Bob's in the environment.
pub const BY_ENVIRONMENT: &str = "byenvironment";
/// Keys of an AWS identity.
const AWS_SECRET: &str = "aws+secret/access=key";
const AWS_TOKEN: &str = "aws-session-token";

/// The broker and those who know it.
pub struct SecuredCluster {
    /// The broker.
    pub kafka: Kafka,
    /// Who gives tokens that it takes.
    pub oidc: Oidc,
    /// Who issued its certificate.
    pub right: Authority,
    wrong: Authority,
    token: DelegationToken,
}

/// Kafka's properties of one cluster of the bridge.
pub type Case = Vec<(&'static str, String)>;

/// How a listener checks each mechanism.
fn mechanisms(listener: &str) -> Vec<(String, String)> {
    let security = "org.apache.kafka.common.security";
    // Escapes of JAAS, and those of a Java properties file.
    let alice = ALICE.replace('\\', r"\\").replace('"', "\\\"").replace('\\', r"\\");
    let name = |rest: &str| format!("listener.name.{listener}.{rest}");
    let plain = format!(
        "{security}.plain.PlainLoginModule required user_alice=\"{alice}\" \
         user_$ConnectionString=\"{CONNECTION}\";"
    );
    let scram = format!("{security}.scram.ScramLoginModule required;");
    let bearer = format!("{security}.oauthbearer.OAuthBearerLoginModule required ;");
    let handler = format!("{security}.oauthbearer.OAuthBearerValidatorCallbackHandler");
    vec![
        (name("plain.sasl.jaas.config"), plain),
        (name("scram-sha-256.sasl.jaas.config"), scram.clone()),
        (name("scram-sha-512.sasl.jaas.config"), scram),
        (name("oauthbearer.sasl.jaas.config"), bearer),
        (name("oauthbearer.sasl.server.callback.handler.class"), handler),
    ]
}

/// Who issued the broker's certificate, and clients' in every kind of store.
fn right_authority() -> anyhow::Result<Authority> {
    let right = Authority::new()?;
    right.issue("broker", "ip:127.0.0.1")?;
    right.issue("client", "dns:client")?;
    right.trust("trust.p12", &[])?;
    right.trust("trust-legacy.p12", LEGACY)?;
    right.trust("trust.jks", &["-storetype", "JKS"])?;
    right.convert("client", "client-legacy.p12", LEGACY)?;
    right.convert("client", "client.jks", &["-deststoretype", "JKS"])?;
    Ok(right)
}

fn wrong_authority() -> anyhow::Result<Authority> {
    let wrong = Authority::new()?;
    wrong.issue("client", "dns:client")?;
    Ok(wrong)
}

impl SecuredCluster {
    /// Starts it.
    ///
    /// # Errors
    /// When a part does not start.
    pub async fn start(version: KafkaVersion) -> anyhow::Result<Self> {
        let wrong = tokio::task::spawn_blocking(wrong_authority);
        let right = tokio::task::spawn_blocking(right_authority).await??;
        let wrong = wrong.await??;
        let oidc = Oidc::start(Duration::from_secs(3600)).await?;
        let keys = oidc.keys_endpoint();
        let mut properties = right.listener("mutual", "required")?;
        properties.extend(right.listener("secure", "none")?);
        for listener in ["open", "secure"] {
            properties.extend(mechanisms(listener));
        }
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        properties.extend(
            [
                ("sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER"),
                ("sasl.oauthbearer.jwks.endpoint.url", &keys),
                ("sasl.oauthbearer.expected.audience", "kafka"),
                ("sasl.oauthbearer.expected.issuer", "oidc"),
                // Without its name Kafka 4.1 takes the one for clients, which checks neither signature
                // nor audience.
                (
                    "sasl.oauthbearer.jwt.validator.class",
                    "org.apache.kafka.common.security.oauthbearer.BrokerJwtValidator",
                ),
                ("delegation.token.secret.key", "brokers-own-key"),
            ]
            .iter()
            .map(own),
        );
        let properties: Vec<_> =
            properties.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let setup = Setup {
            properties: &properties,
            listeners: &[("MUTUAL", "SSL"), ("OPEN", "SASL_PLAINTEXT"), ("SECURE", "SASL_SSL")],
            scram: &[("bob", BOB)],
            java: &[
                format!("-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={keys}"),
                "-Dfile.encoding=UTF-8".to_owned(),
            ],
            ..Setup::default()
        };
        let kafka = Kafka::start_setup(version, 1, 1, setup).await?;
        let jaas = format!(
            "org.apache.kafka.common.security.scram.ScramLoginModule required \
         username=\"bob\" password=\"{BOB}\";"
        );
        let login = [
            ("security.protocol", "SASL_PLAINTEXT"),
            ("sasl.mechanism", "SCRAM-SHA-256"),
            ("sasl.jaas.config", &jaas.replace('\u{2168}', "\\u2168")),
        ];
        let token = kafka.delegation_token("OPEN", &login).await?;
        Ok(Self { kafka, oidc, right, wrong, token })
    }

    /// Everything that nobody may be told.
    #[must_use]
    pub fn secrets(&self) -> Vec<String> {
        let known = [ALICE, BOB, WRONG, SECRET, PASSWORD, AWS_SECRET, AWS_TOKEN, CONNECTION];
        let mut secrets = self.oidc.tokens();
        secrets.extend(known.map(str::to_owned));
        secrets.push(self.token.hmac.clone());
        secrets
    }

    fn case(&self, listener: &str, more: &[(&'static str, &str)]) -> anyhow::Result<Case> {
        let protocol = match listener {
            "MUTUAL" => "SSL",
            "OPEN" => "SASL_PLAINTEXT",
            _ => "SASL_SSL",
        };
        let mut case = vec![
            ("bootstrap.servers", self.kafka.bootstrap_at(listener)?),
            ("security.protocol", protocol.to_owned()),
        ];
        if protocol.ends_with("SSL") {
            case.push(("ssl.truststore.location", self.right.path("ca.pem")?));
        }
        for (name, value) in more {
            case.retain(|(known, _)| known != name);
            case.push((*name, (*value).to_owned()));
        }
        Ok(case)
    }

    fn with_stores(&self, trust: &str, key: &str) -> anyhow::Result<Case> {
        self.case(
            "MUTUAL",
            &[
                ("ssl.truststore.location", &self.right.path(trust)?),
                ("ssl.truststore.password", PASSWORD),
                ("ssl.keystore.location", &self.right.path(key)?),
                ("ssl.keystore.password", PASSWORD),
            ],
        )
    }

    fn by_password(
        &self,
        listener: &str,
        mechanism: &str,
        user: &str,
        password: &str,
    ) -> anyhow::Result<Case> {
        let user = ("sasl.username", user);
        self.case(listener, &[("sasl.mechanism", mechanism), user, ("sasl.password", password)])
    }

    fn by_token(&self, secret: &str, scope: &str) -> anyhow::Result<Case> {
        self.case(
            "SECURE",
            &[
                ("sasl.mechanism", "OAUTHBEARER"),
                ("sasl.oauthbearer.token.endpoint.url", &self.oidc.token_endpoint()),
                ("sasl.oauthbearer.client.credentials.client.id", CLIENT),
                ("sasl.oauthbearer.client.credentials.client.secret", secret),
                ("sasl.oauthbearer.scope", scope),
                ("sasl.oauthbearer.extensions", "traceId=a-1"),
            ],
        )
    }

    /// Those that open, by their names.
    ///
    /// # Errors
    /// When a path is not UTF-8.
    pub fn right(&self) -> anyhow::Result<BTreeMap<&'static str, Case>> {
        let localhost = self.kafka.bootstrap_at("MUTUAL")?.replace("127.0.0.1", "localhost");
        let mut nameless = self.with_stores("ca.pem", "client.p12")?;
        nameless.push(("ssl.endpoint.identification.algorithm", String::new()));
        let set = |case: &mut Case, name, value: &str| {
            case.retain(|(known, _)| *known != name);
            case.push((name, value.to_owned()));
        };
        set(&mut nameless, "bootstrap.servers", &localhost);
        let mut tls12 = self.with_stores("ca.pem", "client.p12")?;
        set(&mut tls12, "ssl.enabled.protocols", "TLSv1.2");
        let mut blind = self.with_stores("ca.pem", "client.p12")?;
        set(&mut blind, "ssl.truststore.location", &self.wrong.path("ca.pem")?);
        set(&mut blind, "enable.ssl.certificate.verification", "false");
        let delegated = |mechanism| {
            let (id, hmac) = (&self.token.id, &self.token.hmac);
            let module = "org.apache.kafka.common.security.scram.ScramLoginModule required";
            let jaas =
                format!("{module} username=\"{id}\" password=\"{hmac}\" tokenauth=\"true\";");
            self.case("SECURE", &[("sasl.mechanism", mechanism), ("sasl.jaas.config", &jaas)])
        };
        let file = self.right.path("password")?;
        std::fs::write(&file, format!("{BOB}\n"))?;
        let mut by_file = self.by_password("SECURE", "SCRAM-SHA-256", "bob", "")?;
        by_file.retain(|(name, _)| *name != "sasl.password");
        let by_environment = by_file.clone();
        by_file.push(("sasl.password.file", file));
        let mut event_hubs = self.case("SECURE", &[("sasl.password", CONNECTION)])?;
        event_hubs.retain(|(name, _)| *name != "security.protocol");
        event_hubs.push(("service", "azure-event-hubs".to_owned()));
        Ok(BTreeMap::from([
            ("azure-event-hubs", event_hubs),
            ("byfile", by_file),
            (BY_ENVIRONMENT, by_environment),
            ("tls-pkcs12", self.with_stores("trust.p12", "client.p12")?),
            ("tls-pkcs12-of-java-8", self.with_stores("trust-legacy.p12", "client-legacy.p12")?),
            ("tls-jks", self.with_stores("trust.jks", "client.jks")?),
            ("tls-pem-and-tls-1.2", tls12),
            ("tls-another-name-unchecked", nameless),
            ("tls-nothing-checked", blind),
            ("sasl-ssl-plain", self.by_password("SECURE", "PLAIN", "alice", ALICE)?),
            ("sasl-ssl-scram-256", self.by_password("SECURE", "SCRAM-SHA-256", "bob", BOB)?),
            ("sasl-ssl-scram-512", self.by_password("SECURE", "SCRAM-SHA-512", "bob", BOB)?),
            ("sasl-ssl-oauthbearer", self.by_token(SECRET, "produce")?),
            ("delegation-token-256", delegated("SCRAM-SHA-256")?),
            ("delegation-token-512", delegated("SCRAM-SHA-512")?),
            ("sasl-plaintext-plain", self.by_password("OPEN", "PLAIN", "alice", ALICE)?),
            ("sasl-plaintext-scram-512", self.by_password("OPEN", "SCRAM-SHA-512", "bob", BOB)?),
        ]))
    }

    /// Those that do not.
    ///
    /// # Errors
    /// When a path is not UTF-8.
    pub fn wrong(&self) -> anyhow::Result<BTreeMap<&'static str, Case>> {
        let (plain, mutual) = (self.kafka.bootstrap(), self.kafka.bootstrap_at("MUTUAL")?);
        let open = self.kafka.bootstrap_at("OPEN")?;
        let named = mutual.replace("127.0.0.1", "localhost");
        let stranger = self.wrong.path("client.p12")?;
        let stranger = [("ssl.keystore.location", &*stranger), ("ssl.keystore.password", PASSWORD)];
        let other = self.wrong.path("ca.pem")?;
        let at = |address: &str| vec![("bootstrap.servers", address.to_owned())];
        let token = "org.apache.kafka.common.security.scram.ScramLoginModule required \
             username=\"no-such-token\" password=\"hunter2\" tokenauth=\"true\";";
        let token = [("sasl.mechanism", "SCRAM-SHA-256"), ("sasl.jaas.config", token)];
        let aws = format!(
            "software.amazon.msk.auth.iam.IAMLoginModule required awsAccessKeyId=AKID \
             awsSecretAccessKey=\"{AWS_SECRET}\" awsSessionToken=\"{AWS_TOKEN}\" \
             awsRegion=eu-west-1;"
        );
        let aws = [("sasl.mechanism", "AWS_MSK_IAM"), ("sasl.jaas.config", &*aws)];
        let mut no_sasl = self.by_password("OPEN", "PLAIN", "alice", ALICE)?;
        no_sasl.retain(|(name, _)| *name != "bootstrap.servers");
        no_sasl.extend(at(&plain));
        let mut unwrapped = self.by_password("OPEN", "PLAIN", "alice", ALICE)?;
        unwrapped.retain(|(name, _)| *name != "bootstrap.servers");
        unwrapped.extend(at(&self.kafka.bootstrap_at("SECURE")?));
        Ok(BTreeMap::from([
            ("tls-another-issuer", self.case("MUTUAL", &[("ssl.truststore.location", &other)])?),
            ("tls-another-name", self.case("MUTUAL", &[("bootstrap.servers", &named)])?),
            ("tls-no-certificate", self.case("MUTUAL", &[])?),
            ("tls-a-strangers-certificate", self.case("MUTUAL", &stranger)?),
            ("tls-to-plaintext", self.case("MUTUAL", &[("bootstrap.servers", &plain)])?),
            ("plaintext-to-tls", at(&mutual)),
            ("plaintext-to-sasl", at(&open)),
            ("sasl-to-plaintext", no_sasl),
            ("sasl-plaintext-to-sasl-ssl", unwrapped),
            ("plain-password", self.by_password("SECURE", "PLAIN", "alice", WRONG)?),
            ("scram-256-password", self.by_password("SECURE", "SCRAM-SHA-256", "bob", WRONG)?),
            ("scram-512-unknown-user", self.by_password("SECURE", "SCRAM-SHA-512", "eve", WRONG)?),
            ("delegation-token-unknown", self.case("SECURE", &token)?),
            ("mechanism-not-offered", self.case("SECURE", &aws)?),
            ("oauthbearer-secret", self.by_token(WRONG, "produce")?),
            ("oauthbearer-audience", self.by_token(SECRET, "other")?),
        ]))
    }

    /// Addresses become the names of listeners.
    ///
    /// # Errors
    /// When there is no such listener.
    pub fn anonymous(&self, told: &str) -> anyhow::Result<String> {
        let mut told = told.replace("localhost:", "127.0.0.1:");
        for listener in ["MUTUAL", "OPEN", "SECURE"] {
            told = told.replace(&self.kafka.bootstrap_at(listener)?, listener);
        }
        told = told.replace(&self.kafka.bootstrap(), "PLAINTEXT");
        if let Some(folder) = self.right.path("")?.strip_suffix('/') {
            told = told.replace(folder, "FOLDER");
        }
        Ok(told.replace(&self.oidc.token_endpoint(), "ENDPOINT"))
    }
}
