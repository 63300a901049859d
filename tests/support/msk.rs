//! A broker that has Amazon MSK's mechanisms, checked by Amazon's own code, and the services of AWS
//! that give keys for it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, ensure};
use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use harness::kafka::{Kafka, KafkaVersion, Setup};
use kafka_client::{AwsKeys, Presigned, Secret, aws_time};
use serde_json::{Value, json};
use tempfile::TempDir;
use xtask::tools;

/// Keys of a user.
pub const USER: (&str, &str) = ("AKIDUSER", "users/secret+key");
/// Keys of the role that the user may take on.
pub const ROLE: (&str, &str, &str) = ("ASIAROLE", "roles/secret+key", "roles/session+token==");
/// The role.
pub const ROLE_ARN: &str = "arn:aws:iam::123456789012:role/msk";
/// Where the broker says it is.
pub const REGION: &str = "eu-west-1";
/// What stands for the role.
pub const WEB_IDENTITY: &str = "jwt.of.kubernetes";

/// A broker with the listener `SASL`, whose sessions last 3 s.
pub struct Msk {
    /// The broker.
    pub kafka: Kafka,
    dir: TempDir,
    class_path: Vec<PathBuf>,
}

impl Msk {
    /// Compiles the broker's side and starts it.
    ///
    /// # Errors
    /// When a tool is missing, or a part does not start.
    pub async fn start(version: KafkaVersion) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let into = dir.path().to_owned();
        let class_path = tokio::task::spawn_blocking(move || compile(version, &into)).await??;
        let clock = dir.path().join("clock");
        std::fs::write(&clock, "0")?;
        let ((user, secret), (role, roles, token)) = (USER, ROLE);
        let java = [
            format!("-Dmsk.keys={user}:{secret},{role}:{roles}:{token}"),
            format!("-Dmsk.region={REGION}"),
            // Java's client finds a name for the address.
            "-Dmsk.hosts=127.0.0.1,localhost".to_owned(),
            format!("-Dmsk.clock={}", clock.display()),
        ];
        let bearer =
            "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required ;";
        let setup = Setup {
            properties: &[
                ("sasl.enabled.mechanisms", "AWS_MSK_IAM,OAUTHBEARER"),
                ("connections.max.reauth.ms", "3000"),
                (
                    "listener.name.sasl.aws_msk_iam.sasl.jaas.config",
                    "msk.IamLoginModule required ;",
                ),
                ("listener.name.sasl.oauthbearer.sasl.jaas.config", bearer),
                (
                    "listener.name.sasl.oauthbearer.sasl.server.callback.handler.class",
                    "msk.TokenHandler",
                ),
            ],
            listeners: &[("SASL", "SASL_PLAINTEXT")],
            java: &java,
            class_path: &class_path,
            ..Setup::default()
        };
        let kafka = Kafka::start_setup(version, 1, 1, setup).await?;
        Ok(Self { kafka, dir, class_path })
    }

    /// Sets the broker's clock ahead.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_ahead(&self, seconds: i64) -> anyhow::Result<()> {
        let fresh = self.dir.path().join("clock.new");
        std::fs::write(&fresh, seconds.to_string())?;
        Ok(std::fs::rename(fresh, self.dir.path().join("clock"))?)
    }

    /// Writes records with Java's producer and Amazon's library.
    ///
    /// # Errors
    /// When it fails; what it says is told.
    pub async fn write_with_java(
        &self,
        topic: &str,
        properties: &[(&str, &str)],
        records: u32,
    ) -> anyhow::Result<()> {
        let file = self.dir.path().join("client.properties");
        let mut text = format!("bootstrap.servers={}\n", self.kafka.bootstrap_at("SASL")?);
        text.push_str("security.protocol=SASL_PLAINTEXT\n");
        for (name, value) in properties {
            // Writing to a String cannot fail.
            let _infallible = writeln!(text, "{name}={value}");
        }
        std::fs::write(&file, text)?;
        let mut java = tools::kafka_java(self.kafka.version())?.command(&self.class_path)?;
        java.args(tools::QUICK);
        java.arg("org.apache.kafka.tools.ProducerPerformance");
        java.args(["--topic", topic, "--num-records", &records.to_string()]);
        java.args(["--record-size", "10", "--throughput", "-1", "--producer.config"]).arg(file);
        java.env("AWS_ACCESS_KEY_ID", USER.0).env("AWS_SECRET_ACCESS_KEY", USER.1);
        java.env("AWS_REGION", REGION);
        tokio::task::spawn_blocking(move || run(java)).await?
    }
}

/// The class path that a broker needs beside Kafka's own.
fn compile(version: KafkaVersion, into: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let amazon = tools::msk_libs()?.join("*");
    let libs = [tools::kafka_libs(version)?.join("*"), amazon.clone()];
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("java/msk");
    let mut javac = Command::new(tools::javac()?);
    javac.args(["--release", "17", "-nowarn", "-d"]).arg(into);
    javac.arg("-cp").arg(std::env::join_paths(libs)?);
    for source in ["Signatures.java", "IamLoginModule.java", "TokenHandler.java"] {
        javac.arg(sources.join(source));
    }
    run(javac)?;
    Ok(vec![into.to_owned(), amazon])
}

fn run(mut command: Command) -> anyhow::Result<()> {
    let output = command.output().context("cannot run it")?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    ensure!(output.status.success() && !text.contains("Exception"), "{text}");
    Ok(())
}

/// STS and the service of an instance, on one port; it ends with the runtime.
pub struct Services {
    /// Its address.
    pub url: String,
    questions: Arc<Mutex<Vec<String>>>,
}

impl Services {
    /// Starts them on a free port of loopback.
    ///
    /// # Errors
    /// When there is none.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let host = listener.local_addr()?.to_string();
        let url = format!("http://{host}");
        let questions = Arc::new(Mutex::new(Vec::new()));
        let asked = Arc::clone(&questions);
        let answer = move |request: Request| async move {
            let (head, body) = request.into_parts();
            let body = axum::body::to_bytes(body, 64 * 1024).await.unwrap_or_default();
            let body = String::from_utf8_lossy(&body).into_owned();
            let session = head.headers.get("x-aws-ec2-metadata-token");
            let has_session = session.is_some_and(|session| session == "session");
            let answered = match (head.method.as_str(), head.uri.path(), head.uri.query()) {
                ("PUT", "/latest/api/token", _) => Some(("IMDS", "session".to_owned())),
                ("GET", path, _) if path.starts_with("/latest/") && has_session => {
                    instance(path).map(|answer| ("IMDS", answer))
                }
                ("GET", "/", Some(query)) if is_signed(query, &host) => {
                    Some(("AssumeRole", sts("AssumeRole")))
                }
                ("POST", "/", _) if body.contains(&format!("WebIdentityToken={WEB_IDENTITY}")) => {
                    let action = "AssumeRoleWithWebIdentity";
                    Some((action, sts(action)))
                }
                _ => None,
            };
            match answered {
                Some((question, answer)) => {
                    let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
                    asked.push(question.to_owned());
                    (StatusCode::OK, answer)
                }
                None => (StatusCode::FORBIDDEN, String::new()),
            }
        };
        let routes = Router::new().fallback(answer);
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Ok(Self { url, questions })
    }

    /// What was asked and answered since the last call.
    #[must_use]
    pub fn questions(&self) -> Vec<String> {
        std::mem::take(&mut self.questions.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn instance(path: &str) -> Option<String> {
    match path.strip_prefix("/latest/meta-data/iam/security-credentials/")? {
        "" => Some("msk\n".to_owned()),
        "msk" => Some(keys("Token").to_string()),
        _ => None,
    }
}

fn sts(action: &str) -> String {
    let result = json!({ format!("{action}Result"): { "Credentials": keys("SessionToken") } });
    json!({ format!("{action}Response"): result }).to_string()
}

fn keys(token: &str) -> Value {
    let end = "2999-12-31T23:59:59Z";
    json!({
        "AccessKeyId": ROLE.0, "SecretAccessKey": ROLE.1, token: ROLE.2, "Expiration": end,
    })
}

/// Whether the user's keys have signed a question for the role just now.
fn is_signed(query: &str, host: &str) -> bool {
    let all: Vec<(String, String)> =
        form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let value = |name: &str| {
        let found = all.iter().find(|(own, _)| own == name);
        found.map(|(_, value)| value.as_str()).unwrap_or_default()
    };
    let Some(at) = aws_time(value("X-Amz-Date")) else { return false };
    let is_now = SystemTime::now().duration_since(at).is_ok_and(|age| age.as_secs() < 60);
    let arguments = all.iter().filter(|(name, _)| !name.starts_with("X-Amz-"));
    let arguments: Vec<_> =
        arguments.map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let presigned = Presigned {
        host,
        region: REGION,
        service: "sts",
        arguments: &arguments,
        lifetime: Duration::from_secs(300),
        at,
    };
    let keys = AwsKeys { id: USER.0.into(), secret: Secret::new(USER.1), session_token: None };
    let is_role = value("Action") == "AssumeRole" && value("RoleArn") == ROLE_ARN;
    is_now && is_role && presigned.query(&keys).expose() == query
}
