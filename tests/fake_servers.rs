//! Servers that lie, stall and swell: each is refused in bounded time and memory, readiness says
//! why, and the bridge serves its honest cluster meanwhile.

use std::fs;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::ensure;
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use harness::bridge::{Bridge, Settings};
use harness::http::Request;
use harness::process::wait_until;
use kafka_client::fake_broker::{FakeCluster, FakeSettings};
use kafka_upstream_tests::fake_server::{FakeServer, Say};
use kafka_upstream_tests::issuer::{Issuer, self_signed};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

const SECRET: &str = "hunter2";
const MIB: u64 = 1024 * 1024;

/// A cluster of the bridge that is none, and what readiness says of it after its address.
struct Liar {
    name: &'static str,
    server: FakeServer,
    text: String,
}

fn liar(name: &'static str, server: FakeServer, text: impl Into<String>) -> Liar {
    Liar { name, server, text: text.into() }
}

/// A bridge between an honest cluster, its `default`, and liars.
struct Setup {
    bridge: Bridge,
    began: Instant,
    memory: u64,
    descriptors: usize,
    /// What readiness says of each cluster.
    expected: Vec<(&'static str, String)>,
}

impl Setup {
    /// `cluster` gives the properties of a liar's cluster, as lines of TOML.
    async fn set(liars: &[Liar], cluster: impl Fn(&Liar) -> String) -> anyhow::Result<Self> {
        let honest = FakeCluster::new(FakeSettings { brokers: 1, ..FakeSettings::default() });
        honest.listen().await?;
        honest.create_topic("t", &[1]);
        let settings = liars.iter().fold(Settings::to(honest.bootstrap()), |settings, liar| {
            let (name, address) = (liar.name, liar.server.address());
            settings.line(&format!(
                "[clusters.{name}]\nbootstrap.servers = '{address}'\n\
                 socket.connection.setup.timeout.ms = 300\nretry.backoff.ms = 10\n\
                 retry.backoff.max.ms = 10\n{}",
                cluster(liar)
            ))
        });
        let bridge = Bridge::start(settings).await?;
        let (memory, descriptors) =
            (bridge.process().rss_bytes()?, bridge.process().descriptors()?);
        let told = |liar: &Liar| {
            let address = liar.server.address();
            (liar.name, format!("the cluster does not answer: {address}: {}", liar.text))
        };
        let expected = liars.iter().map(told).collect();
        Ok(Self { bridge, began: Instant::now(), memory, descriptors, expected })
    }

    /// Waits until readiness says what it must of each, while the honest cluster is served.
    async fn is_told(&self, within: Duration) -> anyhow::Result<()> {
        wait_until("every liar's text", within, async || {
            let page = self.bridge.get("/readyz").await?;
            ensure!(page.status == 503, "it is ready");
            let page = page.json()?;
            let state = |name: &str| page.get("clusters").and_then(|all| all.get(name)?.as_str());
            ensure!(state("default") == Some("ready"), "{page:#}");
            self.serves().await?;
            let wrong = self.expected.iter().filter(|(name, text)| state(name) != Some(text));
            let wrong: Vec<_> = wrong.map(|(name, text)| (name, text, state(name))).collect();
            ensure!(wrong.is_empty(), "{wrong:#?}");
            Ok(())
        })
        .await?;
        let took = self.began.elapsed();
        ensure!(took < within, "it took {took:?}");
        Ok(())
    }

    async fn serves(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        let request = Request::post("/v1/clusters/default/topics/t", "x");
        let reply = request.send(self.bridge.port()).await?;
        let took = began.elapsed();
        ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
        ensure!(took < Duration::from_secs(1), "an honest record took {took:?}");
        Ok(())
    }

    /// Memory since the start, open descriptors, and secrets in the log.
    fn is_unharmed(&self) -> anyhow::Result<()> {
        let process = self.bridge.process();
        let (peak, open) = (process.peak_bytes()?, process.descriptors()?);
        let grown = peak.saturating_sub(self.memory);
        ensure!(grown < 48 * MIB, "it took {} MiB", grown / MIB);
        let most = self.descriptors + 2 * self.expected.len() + 10;
        ensure!(open <= most, "{open} descriptors are open, {} at first", self.descriptors);
        ensure!(!fs::read_to_string(process.log())?.contains(SECRET), "a secret is in the log");
        Ok(())
    }
}

/// Completes the handshake if it is let, and says nothing more.
async fn tls(acceptor: TlsAcceptor) -> anyhow::Result<FakeServer> {
    FakeServer::start(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let mut stream = acceptor.accept(stream).await?;
            stream.read_u8().await?;
            std::future::pending().await
        }
    })
    .await
}

/// Hears something, and says the same bytes again and again, or once.
async fn says(bytes: &[u8], times: usize) -> anyhow::Result<FakeServer> {
    let bytes = bytes.to_vec();
    FakeServer::start(move |mut stream| {
        let bytes = bytes.clone();
        async move {
            stream.read_u8().await?;
            for _ in 0..times {
                stream.write_all(&bytes).await?;
            }
            std::future::pending().await
        }
    })
    .await
}

const FOREVER: usize = usize::MAX;

async fn tls_liars(root: &Issuer) -> anyhow::Result<Vec<Liar>> {
    let other = Issuer::new("other")?;
    let here = "127.0.0.1";
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    // Since the beginning of 2021.
    let days = (now - 1_609_459_200) / 86_400;
    let untrusted = "the broker's certificate was issued by nobody whom we trust; is its issuer in \
        ssl.truststore.*?";
    let no_tls = "the listener does not speak TLS; does security.protocol fit?";
    let large = "TLS: a message of the handshake is too large";
    let record = |kind: u8, body: &[u8]| {
        let [high, low] = (body.len() as u16).to_be_bytes();
        [&[kind, 3, 3, high, low], body].concat()
    };
    let huge = [&[2, 0xff, 0xff, 0xff][..], &[7; 16_000]].concat();
    let closes = FakeServer::start(|stream| async move {
        drop(stream);
        Ok(())
    });
    Ok(vec![
        liar("issuer", tls(other.server(here, (2020, 4000))?).await?, untrusted),
        liar("own", tls(self_signed(here)?).await?, untrusted),
        liar(
            "expired",
            tls(root.server(here, (2020, 2021))?).await?,
            format!(
                "the broker's certificate, or its issuer's, expired {days} days ago; or is the \
                 clock wrong?"
            ),
        ),
        liar(
            "early",
            tls(root.server(here, (3000, 4000))?).await?,
            "the broker's certificate, or its issuer's, is not valid yet; is the clock right?",
        ),
        liar(
            "name",
            tls(root.server("other.test", (2020, 4000))?).await?,
            "the broker's certificate is for other.test, not for `127.0.0.1`; use such a name in \
             bootstrap.servers and advertised.listeners, or switch the check off \
             (ssl.endpoint.identification.algorithm=)",
        ),
        liar("chain", tls(root.verbose_server(here, 3000)?).await?, large),
        liar("plain", says(b"220 smtp.test ESMTP\r\n", 1).await?, no_tls),
        liar("endless", says(b"220 smtp.test ESMTP\r\n", FOREVER).await?, no_tls),
        liar("garbage", says(&record(0x16, &[0xee; 50]), FOREVER).await?, large),
        liar("huge", says(&record(0x16, &huge), FOREVER).await?, large),
        liar("empty", says(&record(0x16, &[]), FOREVER).await?, no_tls),
        liar(
            "ciphers",
            says(&record(0x14, &[1]), FOREVER).await?,
            "a message of TLS came out of turn; is it the right server?",
        ),
        liar(
            "warnings",
            says(&record(0x15, &[1, 90]), FOREVER).await?,
            "what answers breaks the rules of TLS (too many warning alerts received); is it the \
             right server?",
        ),
        liar(
            "alert",
            says(&record(0x15, &[2, 40]), 1).await?,
            "the broker ended TLS (handshake failure): there is no version or cipher of TLS in \
             common, or it misses a client certificate; see ssl.enabled.protocols and \
             ssl.keystore.*",
        ),
        liar(
            "closes",
            closes.await?,
            "the listener closed the connection in the TLS handshake; does it speak TLS \
             (security.protocol), and does it want a client certificate (ssl.keystore.*)?",
        ),
        liar(
            "stalls",
            says(&[], 1).await?,
            "no TLS handshake within 300 ms; does the listener speak TLS (security.protocol)?",
        ),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_false_tls_server_is_refused_200_times_and_costs_nothing() -> anyhow::Result<()> {
    let root = Issuer::new("root")?;
    let liars = tls_liars(&root).await?;
    let stage = Setup::set(&liars, |_| {
        format!("security.protocol = 'SSL'\nssl.truststore.certificates = '''{}'''\n", root.pem())
    })
    .await?;
    stage.is_told(Duration::from_secs(10)).await?;
    wait_until("200 attempts", Duration::from_secs(60), async || {
        stage.bridge.get("/readyz").await?;
        // Who waits for the timeout comes to 3 attempts a second.
        let enough = |name: &str| if name == "stalls" { 20 } else { 200 };
        let few = liars.iter().filter(|liar| liar.server.met() < enough(liar.name));
        let few: Vec<_> = few.map(|liar| (liar.name, liar.server.met())).collect();
        ensure!(few.is_empty(), "{few:?}");
        Ok(())
    })
    .await?;
    stage.is_unharmed()
}

/// A cluster's properties for a mechanism by password.
fn by_password(mechanism: &str) -> String {
    format!(
        "security.protocol = 'SASL_PLAINTEXT'\nsasl.mechanism = '{mechanism}'\n\
         sasl.username = 'u'\nsasl.password = '{SECRET}'\n"
    )
}

/// A broker that answers SCRAM's first message with `first` of the client's nonce, and whatever
/// follows with `then`.
async fn scram(
    first: impl Fn(&str) -> String + Send + Sync + 'static,
    then: &'static str,
) -> anyhow::Result<FakeServer> {
    FakeServer::broker(move |round, message| {
        let nonce = message.rsplit("r=").next().unwrap_or_default();
        let says = if round == 0 { first(nonce) } else { then.to_owned() };
        Say::Bytes(says.into_bytes())
    })
    .await
}

/// What SCRAM should be answered, but for the salt and the iterations.
fn challenge(
    salt_bytes: usize,
    iterations: u32,
) -> impl Fn(&str) -> String + Send + Sync + 'static {
    let salt = BASE64_STANDARD.encode(vec![7; salt_bytes]);
    move |nonce| format!("r={nonce}more,s={salt},i={iterations}")
}

async fn scram_liars() -> anyhow::Result<Vec<Liar>> {
    let flaw = |flaw: &str| format!("SASL: the broker's part of SCRAM-SHA-256 is wrong: {flaw}");
    let nonce = flaw("its nonce does not extend ours");
    let unreadable = flaw("its message cannot be read");
    let salted = |nonce: &str| format!("r={nonce},s=c2FsdA==,i=4096");
    let zeros = "v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let other = flaw("it says `other-error`");
    Ok(vec![
        liar("foreign", scram(move |_| salted("foreign"), "").await?, &*nonce),
        liar("equal", scram(salted, "").await?, &*nonce),
        liar("short", scram(move |n| salted(n.get(..9).unwrap_or("")), "").await?, &*nonce),
        liar(
            "one",
            scram(challenge(9, 1), "").await?,
            flaw("1 iterations are not 4096 to 1000000"),
        ),
        liar(
            "many",
            scram(challenge(9, 100_000_000), "").await?,
            flaw("100000000 iterations are not 4096 to 1000000"),
        ),
        liar(
            "false",
            scram(challenge(9, 4096), zeros).await?,
            flaw("its signature is wrong: it does not know the password"),
        ),
        liar("none", scram(challenge(9, 4096), "x=").await?, &*unreadable),
        liar(
            "soon",
            scram(|_| String::new(), "").await?,
            flaw("it accepted the login before it had proven that it knows the password"),
        ),
        liar(
            "sooner",
            scram(challenge(9, 4096), "").await?,
            flaw("it accepted the login before it had proven that it knows the password"),
        ),
        liar("again", scram(challenge(9, 4096), "r=a,s=c2FsdA==,i=4096").await?, &*unreadable),
        liar("error", scram(|_| "e=other-error".to_owned(), "").await?, &*other),
        liar("late", scram(challenge(9, 4096), "e=other-error").await?, &*other),
        liar("binary", scram(|_| "\u{0}\u{7f}".repeat(999), "").await?, &*unreadable),
        liar(
            "salt",
            scram(challenge(100_000, 4096), "").await?,
            "a malformed SaslAuthenticate v1 answer: 133384 bytes of SASL are over the \
             limit of 65536",
        ),
        liar(
            "mine",
            scram(challenge(1_000_000, 4096), "").await?,
            "a frame of 1333404 bytes is over the limit of 524288",
        ),
        liar(
            "silent",
            FakeServer::broker(|_, _| Say::Nothing).await?,
            "no handshake within 300 ms",
        ),
        liar(
            "talks",
            FakeServer::broker(|_, _| Say::Refusal(58, "no\n".repeat(9_999))).await?,
            format!(
                "SASL credential: refused for SCRAM-SHA-256, check sasl.username and \
                 sasl.password; the broker says SASL_AUTHENTICATION_FAILED (58): {}",
                "no ".repeat(100)
            ),
        ),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_lies_in_scram_is_refused_and_costs_nothing() -> anyhow::Result<()> {
    let stage = Setup::set(&scram_liars().await?, |_| by_password("SCRAM-SHA-256")).await?;
    stage.is_told(Duration::from_secs(10)).await?;
    let cost = stage.bridge.process().cpu_time()?;
    ensure!(cost < Duration::from_secs(5), "it cost {cost:?}");
    stage.is_unharmed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_says_what_it_was_told_tells_no_secret() -> anyhow::Result<()> {
    let echo = |_: usize, message: &str| Say::Refusal(58, format!("not {message}"));
    let json = |_: usize, _: &str| Say::Bytes(br#"{"status":"invalid_token"}"#.to_vec());
    let denies = move |round: usize, message: &str| match round {
        0 => Say::Bytes(format!(r#"{{"status":"no","token":"{message}"}}"#).into_bytes()),
        _ => Say::Refusal(58, "bad token".to_owned()),
    };
    let token = json!({ "access_token": SECRET, "expires_in": 600 }).to_string();
    let endpoint = FakeServer::start(move |stream| answers(stream, http("200 OK", &token))).await?;
    let refused = "the broker says SASL_AUTHENTICATION_FAILED (58):";
    let bearer = "SASL credential: refused for OAUTHBEARER, check the token's issuer, audience, \
        scope and extensions;";
    let liars = [
        liar(
            "plain",
            FakeServer::broker(echo).await?,
            format!(
                "SASL credential: refused for PLAIN, check sasl.username and sasl.password; \
                 {refused} not  u (secret)"
            ),
        ),
        liar(
            "echo",
            FakeServer::broker(echo).await?,
            format!("{bearer} {refused} not n,, auth=Bearer (secret)  "),
        ),
        liar(
            "json",
            FakeServer::broker(json).await?,
            "SASL: the broker's part of OAUTHBEARER is wrong: it says \
             `{\"status\":\"invalid_token\"}`",
        ),
        liar(
            "denies",
            FakeServer::broker(denies).await?,
            format!(
                "{bearer} {refused} {{\"status\":\"no\",\"token\":\"n,, auth=Bearer (secret)  \"}} \
                 bad token"
            ),
        ),
    ];
    let stage = Setup::set(&liars, |liar| match liar.name {
        "plain" => by_password("PLAIN"),
        _ => by_token(&format!("http://{}/token", endpoint.address())),
    })
    .await?;
    stage.is_told(Duration::from_secs(10)).await?;
    stage.is_unharmed()
}

fn by_token(endpoint: &str) -> String {
    format!(
        "security.protocol = 'SASL_PLAINTEXT'\nsasl.mechanism = 'OAUTHBEARER'\n\
         sasl.oauthbearer.token.endpoint.url = '{endpoint}'\n\
         sasl.oauthbearer.client.credentials.client.id = 'me'\n\
         sasl.oauthbearer.client.credentials.client.secret = '{SECRET}'\n"
    )
}

fn http(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// Answers one request.
async fn answers(mut stream: TcpStream, answer: Vec<u8>) -> anyhow::Result<()> {
    let mut heard = Vec::new();
    while !heard.ends_with(b"client_credentials") {
        ensure!(stream.read_buf(&mut heard).await? > 0, "no whole request");
    }
    stream.write_all(&answer).await?;
    std::future::pending().await
}

/// A token endpoint that begins with `head`, and goes on with `more` as often as it can.
async fn endpoint(
    head: impl Into<Vec<u8>>,
    more: &'static [u8],
    times: usize,
) -> anyhow::Result<FakeServer> {
    let head = head.into();
    FakeServer::start(move |mut stream| {
        let head = head.clone();
        async move {
            stream.read_u8().await?;
            stream.write_all(&head).await?;
            for _ in 0..times {
                stream.write_all(more).await?;
            }
            std::future::pending().await
        }
    })
    .await
}

/// A token endpoint that gives this answer.
async fn token(answer: Value) -> anyhow::Result<FakeServer> {
    endpoint(http("200 OK", &answer.to_string()), b"", 0).await
}

const OK: &str = "HTTP/1.1 200 OK\r\n";
const KIB: &[u8] = &[b'x'; 1024];

async fn endpoint_liars(elsewhere: &FakeServer) -> anyhow::Result<Vec<Liar>> {
    let silent = "HTTP: no answer within 10000 ms";
    let large = "HTTP: an answer of more than 65536 bytes";
    let head = "HTTP: message head is too large";
    let drips = FakeServer::start(|mut stream| async move {
        stream.read_u8().await?;
        let mut each = tokio::time::interval(Duration::from_secs(1));
        for byte in OK.bytes().cycle() {
            each.tick().await;
            stream.write_u8(byte).await?;
        }
        Ok(())
    });
    let redirect = format!("302 Found\r\nlocation: http://{}/", elsewhere.address());
    let hundred = format!("{OK}content-length: 104857600\r\n\r\n");
    let gzip = format!("{OK}content-encoding: gzip\r\ncontent-length: 4\r\n\r\n\u{1f}xyz");
    let claims = BASE64_URL_SAFE_NO_PAD.encode(r#"{"exp":1}"#);
    let deep = [r#"{"x":"#.repeat(9_000), "}".repeat(9_000)].concat();
    let expired = "its token has expired; are the clocks right?";
    let echo = json!({ "error": "invalid_client", "error_description": format!("not {SECRET}") });
    let html = format!("<html>{SECRET}</html>");
    let of = |expires_in: Value| token(json!({ "access_token": "a", "expires_in": expires_in }));
    Ok(vec![
        liar("before", endpoint("", b"", 0).await?, silent),
        liar("after", endpoint(format!("{OK}content-length: 9\r\n\r\n"), b"", 0).await?, silent),
        liar("drips", drips.await?, silent),
        liar(
            "continues",
            endpoint("", b"HTTP/1.1 100 Continue\r\n\r\n", FOREVER).await?,
            "HTTP: connection closed before message completed",
        ),
        liar(
            "redirects",
            endpoint(http(&redirect, ""), b"", 0).await?,
            "it answered 302 Found, and no redirect is followed",
        ),
        liar("declared", endpoint(hundred, KIB, 102_400).await?, large),
        liar(
            "undeclared",
            endpoint(format!("{OK}\r\n"), KIB, 102_400).await?,
            "HTTP: an answer of more than 65536 bytes",
        ),
        liar(
            "chunks",
            endpoint(format!("{OK}transfer-encoding: chunked\r\n\r\n"), b"1\r\nx\r\n", FOREVER)
                .await?,
            "HTTP: an answer of more than 65536 bytes",
        ),
        liar("headers", endpoint(OK, b"a: b\r\n", 100_000).await?, head),
        liar("header", endpoint(format!("{OK}a: "), KIB, FOREVER).await?, head),
        liar(
            "garbage",
            endpoint("\u{0}\u{1}garbage\r\n\r\n", KIB, FOREVER).await?,
            "HTTP: invalid HTTP version parsed",
        ),
        liar("gzip", endpoint(gzip, b"", 0).await?, "its answer is no JSON object"),
        liar(
            "deep",
            endpoint(http("200 OK", &deep), b"", 0).await?,
            "its answer is no JSON object",
        ),
        liar(
            "control",
            token(json!({ "access_token": "a\u{1}auth=x" })).await?,
            "its access_token has characters that no token has",
        ),
        liar("past", token(json!({ "access_token": format!("e30.{claims}.s") })).await?, expired),
        liar("minus", of(json!(-1)).await?, expired),
        liar("eons", of(json!(1e300)).await?, ""),
        liar("letters", of(json!("abc")).await?, ""),
        liar("nan", of(json!("NaN")).await?, ""),
        liar(
            "fails",
            endpoint(http("500 Oops", &html), b"", 0).await?,
            "it answered 500 Internal Server Error",
        ),
        liar(
            "echo",
            endpoint(http("401 No", &echo.to_string()), b"", 0).await?,
            "it answered 401 Unauthorized invalid_client: not (secret)",
        ),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_false_token_endpoint_is_refused_and_costs_nothing() -> anyhow::Result<()> {
    let elsewhere = endpoint("", b"", 0).await?;
    let mut liars = endpoint_liars(&elsewhere).await?;
    for liar in &mut liars {
        let address = liar.server.address();
        liar.text = match &*liar.text {
            // The token is taken; what listens there is no broker.
            "" => "this is an HTTP server, not a Kafka broker".to_owned(),
            text => format!(
                "no credential for OAUTHBEARER: the token endpoint http://{address}/token \
                 (sasl.oauthbearer.token.endpoint.url): {text}"
            ),
        };
    }
    let secure = |liar: &Liar| by_token(&format!("http://{}/token", liar.server.address()));
    let stage = Setup::set(&liars, secure).await?;
    stage.is_told(Duration::from_secs(30)).await?;
    ensure!(elsewhere.met() == 0, "a redirect was followed");
    stage.is_unharmed()
}
