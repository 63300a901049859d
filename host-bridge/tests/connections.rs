//! The bridge's process under callers that take connections, streams and memory.

#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Request;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kafka_client::fake_broker::{FakeCluster, FakeSettings};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};

/// A bridge process on a TCP port and a unix socket, with a token, beside a broker in this process.
struct Bridge {
    process: Child,
    port: u16,
    kafka: FakeCluster,
    dir: tempfile::TempDir,
}

impl Bridge {
    /// `limits` is a command of the shell that runs before the bridge.
    async fn start(limits: &str) -> Self {
        let kafka = FakeCluster::new(FakeSettings::default());
        kafka.listen().await.unwrap();
        kafka.create_topic("orders", &[1]);
        let dir = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let at = |name: &str| dir.path().join(name).display().to_string();
        std::fs::write(at("tokens"), "secret\n").unwrap();
        let config = format!(
            "listen = ['127.0.0.1:{port}', 'unix:{}']\ntoken_file = '{}'\n[clusters.default]\n\
             bootstrap.servers = '{}'\nreconnect.backoff.max.ms = 100\n",
            at("socket"),
            at("tokens"),
            kafka.bootstrap()
        );
        std::fs::write(at("config"), config).unwrap();
        let script = format!(
            "{limits}; exec {} --config {}",
            env!("CARGO_BIN_EXE_host-bridge"),
            at("config")
        );
        let log = std::fs::File::create(at("log")).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", &script]).stdin(Stdio::null()).stderr(log);
        let bridge = Self { process: command.spawn().unwrap(), port, kafka, dir };
        let is_up = async || bridge.request(PROBE).await.is_some_and(|it| it.starts_with(OK));
        wait_for("the bridge", Duration::from_secs(20), is_up).await;
        bridge
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// Of a new connection to the unix socket.
    async fn request(&self, request: &str) -> Option<String> {
        exchange(UnixStream::connect(self.socket()).await.ok()?, request).await
    }

    async fn request_over_tcp(&self, request: &str) -> Option<String> {
        exchange(TcpStream::connect(("127.0.0.1", self.port)).await.ok()?, request).await
    }

    async fn tcp(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).await.unwrap()
    }

    fn of_proc(&self, file: &str, name: &str) -> u64 {
        let path = format!("/proc/{}/{file}", self.process.id());
        let text = std::fs::read_to_string(path).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().find_map(|word| word.parse().ok()).unwrap()
    }

    /// In KB.
    fn resident(&self) -> u64 {
        self.of_proc("status", "VmRSS:")
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// The reply to a request that closes its connection; none if the connection ends without.
async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &str,
) -> Option<String> {
    let mut reply = String::new();
    stream.write_all(request.as_bytes()).await.ok()?;
    let read = timeout(Duration::from_secs(5), stream.read_to_string(&mut reply)).await;
    read.ok()?.ok().filter(|length| *length > 0)?;
    Some(reply)
}

async fn wait_for(what: &str, longest: Duration, mut holds: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + longest;
    while !holds().await {
        assert!(Instant::now() < end, "{what}: not within {longest:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// HTTP/2 without an answer being read: no stream may send a byte of its body.
fn unread_streams(streams: u32) -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // SETTINGS with INITIAL_WINDOW_SIZE = 0.
    bytes.extend([0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0]);
    let path = b"/healthz";
    for stream in 0..streams {
        // :method GET, :scheme http, a literal :path and :authority.
        let mut block = vec![0x82, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
        block.extend(path);
        block.extend([0x01, 1, b'b']);
        // HEADERS with END_STREAM and END_HEADERS.
        bytes.extend([0, 0, u8::try_from(block.len()).unwrap(), 1, 5]);
        bytes.extend((2 * stream + 1).to_be_bytes());
        bytes.extend(block);
    }
    bytes
}

fn produce() -> String {
    let mut request = String::from("POST /v1/clusters/default/topics/orders HTTP/1.1\r\n");
    write!(request, "host: b\r\nauthorization: Bearer secret\r\n").unwrap();
    write!(request, "connection: close\r\ncontent-length: 1\r\n\r\nx").unwrap();
    request
}

const PROBE: &str = "GET /healthz HTTP/1.1\r\nhost: b\r\nconnection: close\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\n";

#[tokio::test]
async fn a_flood_on_one_listener_leaves_kafka_and_the_other_listener_their_descriptors() {
    let bridge = Bridge::start("ulimit -n 256").await;
    assert!(bridge.request(&produce()).await.unwrap().starts_with(OK));
    let mut flood = Vec::new();
    for _ in 0..400 {
        flood.push(bridge.tcp().await);
    }
    bridge.kafka.kill(1);
    bridge.kafka.restart(1);
    let is_written = |reply: Option<String>| reply.is_some_and(|reply| reply.starts_with(OK));
    let over_unix = async || is_written(bridge.request(&produce()).await);
    wait_for("a record over the unix socket", Duration::from_secs(10), over_unix).await;
    let over_tcp = async || is_written(bridge.request_over_tcp(&produce()).await);
    wait_for("a record over TCP, among the silent", Duration::from_secs(10), over_tcp).await;
    let log = bridge.log();
    let about_accept = |line: &&str| {
        line.contains("event=accept_failed") || line.contains("event=connections_full")
    };
    assert!(log.lines().filter(about_accept).count() <= 1, "{log}");
}

#[tokio::test]
async fn the_soft_limit_of_descriptors_is_raised_to_the_hard_one() {
    let bridge = Bridge::start("ulimit -S -n 64; ulimit -H -n 512").await;
    assert_eq!(bridge.of_proc("limits", "Max open files"), 512);
}

#[tokio::test]
async fn connections_without_a_token_end_soon_and_those_with_one_stay() {
    let bridge = Bridge::start("true").await;
    let head = "GET /healthz HTTP/1.1\r\nhost: b\r\n";
    let (mut silent, mut probing, mut known) =
        (bridge.tcp().await, bridge.tcp().await, bridge.tcp().await);
    probing.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
    let authorized = format!("{head}authorization: Bearer secret\r\n\r\n");
    known.write_all(authorized.as_bytes()).await.unwrap();
    for stream in [&mut silent, &mut probing] {
        let (mut rest, longest) = (Vec::new(), Duration::from_secs(15));
        let read = timeout(longest, stream.read_to_end(&mut rest)).await;
        read.expect("the connection ends").unwrap();
    }
    known
        .write_all(authorized.replace("host", "connection: close\r\nhost").as_bytes())
        .await
        .unwrap();
    let mut replies = String::new();
    known.read_to_string(&mut replies).await.unwrap();
    assert_eq!(replies.matches(OK).count(), 2, "{replies}");
}

#[tokio::test]
async fn a_head_over_http2_may_be_as_long_as_over_http1() {
    let bridge = Bridge::start("true").await;
    let stream = TokioIo::new(bridge.tcp().await);
    let (mut client, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://b/healthz").header("x-long", "x".repeat(100_000));
    let reply = client.send_request(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(reply.status(), 200);
}

#[tokio::test]
async fn answers_that_nobody_reads_take_little_memory_before_authentication() {
    let bridge = Bridge::start("true").await;
    let before = bridge.resident();
    let mut unread = Vec::new();
    for _ in 0..40 {
        let mut stream = bridge.tcp().await;
        // The bridge may close it before it has read all.
        let _broken = stream.write_all(&unread_streams(1000)).await;
        unread.push(stream);
    }
    let mut most = 0;
    let all_closed = async || {
        most = most.max(bridge.resident());
        bridge.of_proc_connections() == 0
    };
    wait_for("the end of all connections", Duration::from_secs(20), all_closed).await;

    // 40 connections of 128 streams each; the allocator keeps what is free for a second, in pages of 2 MiB.
    assert!(most < before + 24 * 1024, "{before} KB before, {most} KB at most");
}

#[tokio::test]
async fn a_probe_without_a_token_hears_no_name_of_a_host_or_cluster() {
    let bridge = Bridge::start("true").await;
    bridge.kafka.kill(1);
    let without = "GET /readyz HTTP/1.1\r\nhost: b\r\nconnection: close\r\n\r\n";
    let with = without.replace("connection", "authorization: Bearer secret\r\nconnection");
    let bare = bridge.request(without).await.unwrap();
    assert!(bare.starts_with("HTTP/1.1 503 "), "{bare}");
    assert!(bare.ends_with("\r\n\r\n{\"ready\":false}"), "{bare}");
    let detailed = bridge.request(&with).await.unwrap();
    assert!(detailed.contains("\"default\":"), "{detailed}");
}

impl Bridge {
    /// Sockets of the bridge's TCP port that are established.
    fn of_proc_connections(&self) -> usize {
        let table = std::fs::read_to_string(Path::new("/proc/net/tcp")).unwrap();
        let own = format!(":{:04X}", self.port);
        let is_own = |line: &&str| {
            let mut words = line.split_whitespace().skip(1);
            let (local, _, state) = (words.next(), words.next(), words.next());
            local.is_some_and(|it| it.ends_with(&own)) && state == Some("01")
        };
        table.lines().filter(is_own).count()
    }
}
