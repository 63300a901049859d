//! Servers that keep a connection, close it, talk without end, or say nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

const LIMITS: HttpLimits = HttpLimits {
    connect: Duration::from_millis(200),
    whole: Duration::from_millis(400),
    answer_bytes: 64 * 1024,
};

/// Answers each request by its number on its connection, and counts connections; no answer closes.
async fn server(
    answer: impl Fn(usize) -> Option<String> + Send + Sync + 'static,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, count) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
    let (answer, connections) = (Arc::new(answer), Arc::clone(&count));
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            connections.fetch_add(1, Relaxed);
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                for number in 0.. {
                    let mut heard = Vec::new();
                    while !heard.ends_with(b"\r\n\r\n") {
                        if stream.read_buf(&mut heard).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    let Some(answer) = answer(number) else { return };
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, count)
}

fn ok(body: &str) -> Option<String> {
    Some(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
}

fn client() -> HttpClient {
    HttpClient::new(HttpsTrust::System, LIMITS)
}

async fn get(client: &HttpClient, url: &str) -> Result<String, String> {
    let request = Request::get("/").body(Full::default()).unwrap();
    let answer = client.ask(url, request).await.map_err(|error| error.to_string())?;
    Ok(String::from_utf8(answer.into_body().to_vec()).unwrap())
}

#[tokio::test]
async fn a_connection_is_kept_for_the_next_request_whatever_it_has_heard() {
    let large = "x".repeat(LIMITS.answer_bytes);
    let body = large.clone();
    let (address, connections) = server(move |_| ok(&body)).await;
    let (client, url) = (client(), format!("http://{address}/a?b=c"));
    for _ in 0..40 {
        assert_eq!(get(&client.clone(), &url).await.as_deref(), Ok(&*large));
    }
    assert_eq!(connections.load(Relaxed), 1);
    // Another client has other trust, and none of its connections.
    get(&HttpClient::new(HttpsTrust::Anyone, LIMITS), &url).await.unwrap();
    assert_eq!(connections.load(Relaxed), 2);
}

#[tokio::test]
async fn a_connection_that_its_server_closed_is_replaced() {
    let (address, connections) = server(|_| {
        Some("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok".into())
    })
    .await;
    let (client, url) = (client(), format!("http://{address}"));
    for _ in 0..3 {
        assert_eq!(get(&client, &url).await.as_deref(), Ok("ok"));
    }
    assert_eq!(connections.load(Relaxed), 3);
    // One that is closed when it has the request may have acted on it: nobody sends it again.
    let (address, connections) = server(|number| ok("ok").filter(|_| number == 0)).await;
    let url = format!("http://{address}");
    assert_eq!(get(&client, &url).await.as_deref(), Ok("ok"));
    let cut = get(&client, &url).await.unwrap_err();
    assert_eq!(cut, "HTTP: connection closed before message completed");
    assert_eq!(get(&client, &url).await.as_deref(), Ok("ok"));
    assert_eq!(connections.load(Relaxed), 2);
}

#[tokio::test]
async fn what_fails_is_told_by_its_step() {
    let (continues, _) = server(|_| Some("HTTP/1.1 100 Continue\r\n\r\n".repeat(100_000))).await;
    let (large, _) = server(|_| ok(&"x".repeat(LIMITS.answer_bytes + 1))).await;
    let (silent, _) = server(|_| Some(String::new())).await;
    let (redirects, elsewhere) =
        server(|_| Some("HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n".into()))
            .await;
    for (url, told) in [
        ("nowhere?key=hunter2".to_owned(), "`nowhere` is no address"),
        ("h:1/x?key=hunter2".to_owned(), "`h:1/x` is no address"),
        ("http://127.0.0.1:1/".to_owned(), "no connection: Connection refused (os error 111)"),
        (format!("https://{silent}/"), "TLS: no answer within 200 ms"),
        (format!("http://{silent}/"), "HTTP: no answer within 400 ms"),
        (format!("http://{large}/"), "HTTP: an answer of more than 65536 bytes"),
        (format!("http://{continues}/"), "HTTP: connection closed before message completed"),
    ] {
        assert_eq!(get(&client(), &url).await.unwrap_err(), told, "{url}");
    }
    assert_eq!(get(&client(), &format!("http://{redirects}/")).await.as_deref(), Ok(""));
    assert_eq!(elsewhere.load(Relaxed), 1, "no redirect is followed");
}

#[tokio::test]
async fn a_head_is_there_whatever_the_body_is() {
    let head = |length: usize, body: &str| {
        Some(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}"))
    };
    let (small, kept) = server(move |_| head(2, "ok")).await;
    let (large, _) = server(move |_| head(100_000_000, &"x".repeat(1_000_000))).await;
    let chunks = format!("10000\r\n{}\r\n", "x".repeat(0x10000)).repeat(20);
    let chunks = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunks}");
    let (chunked, _) = server(move |_| Some(chunks.clone())).await;
    let (endless, _) = server(move |_| head(60_000, "x")).await;
    let client = client();
    let tell = async |address| {
        let request = Request::post("/").body(Full::default()).unwrap();
        client.tell(&format!("http://{address}/"), request).await.unwrap().status.as_u16()
    };
    let began = Instant::now();
    let told = [tell(small).await, tell(small).await, tell(large).await, tell(chunked).await];
    assert_eq!(told, [200; 4]);
    assert!(began.elapsed() < LIMITS.whole);
    assert_eq!((tell(endless).await, kept.load(Relaxed)), (200, 1));
    assert!((LIMITS.whole..3 * LIMITS.whole).contains(&began.elapsed()));
}

#[tokio::test]
async fn addresses_of_metadata_services_are_refused_where_that_is_asked_for() {
    for (ip, is_refused) in [
        ("169.254.169.254", true),
        ("169.254.0.1", true),
        ("0.0.0.0", true),
        ("100.100.100.200", true),
        ("168.63.129.16", true),
        ("fe80::1", true),
        ("::", true),
        ("fd00:ec2::254", true),
        ("fd00:ec2::23", true),
        ("fd20:ce::254", true),
        ("fd00:c1::a9fe:a9fe", true),
        ("fd00:42::42", true),
        ("::ffff:169.254.169.254", true),
        ("64:ff9b::a9fe:a9fe", true),
        ("127.0.0.1", false),
        ("10.0.0.1", false),
        ("::1", false),
        ("fd00::1", false),
        ("64:ff9b::a00:1", false),
    ] {
        assert_eq!(is_inner(ip.parse().unwrap()), is_refused, "{ip}");
    }
    let guarded = HttpClient::guarded(HttpsTrust::System, LIMITS);
    let told = get(&guarded, "http://169.254.169.254/latest/meta-data").await.unwrap_err();
    let expected = "169.254.169.254 is a link-local address or one of a metadata service \
        (allow_link_local)";
    assert_eq!(told, expected);
    let (address, _) = server(|_| ok("ok")).await;
    assert_eq!(get(&guarded, &format!("http://{address}/")).await.as_deref(), Ok("ok"));
}
