//! Webhooks whose receivers take 50 ms for each request, and one whose receiver refuses a key.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use harness::bridge::{Bridge, Settings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use super::clock;
use super::events::{VALUE_BYTES, Writer};
use super::fan_out::delays;
use super::ground::{Ground, PARTITIONS};

use super::swarm::Arrival;
use crate::report::{Bound, Report};

/// How long a receiver takes.
const THINKS: Duration = Duration::from_millis(50);

/// How long all webhooks may take to have their partitions, and to deliver.
const PATIENCE: Duration = Duration::from_secs(300);

/// Of the records by key: a second of them, their keys, and each how manieth has the one that is refused.
const RATE: f64 = 200.0;
const KEYS: u32 = 50;
const REFUSED: u32 = 20;

/// So many webhooks of one topic, to which so many records are written.
pub(super) async fn deliver(
    ground: &Ground,
    webhooks: usize,
    records: u32,
    report: &mut Report,
) -> anyhow::Result<()> {
    let topic = format!("webhooks-{}", fastrand::u32(..));
    ground.kafka.create_topic(&topic, PARTITIONS).await?;
    let mut writer = Writer::new(&ground.kafka.bootstrap(), &topic).await?;
    let url = receiver(THINKS, |_, _| true).await?;
    let mut settings = settings(ground, &topic);
    for number in 0..webhooks {
        let webhook = format!("[webhooks.w{number}]\nfeed = 'events'\nurl = '{url}{number}'\n");
        settings = settings.line(&format!("{webhook}group_id = '{topic}-{number}'"));
    }
    let begin = Instant::now();
    let bridge = Bridge::start(settings).await?;
    let all = webhooks as f64 * f64::from(PARTITIONS);
    until(&bridge, "host_bridge_webhook_partitions", all).await?;
    report.add(
        format!("{webhooks} webhooks have their partitions after"),
        "s",
        begin.elapsed().as_secs_f64(),
    );
    let (cpu, begin) = (bridge.process().cpu_time()?, Instant::now());
    writer.fill(records, VALUE_BYTES).await?;
    let deliveries = webhooks as f64 * f64::from(records);
    until(&bridge, "host_bridge_webhook_attempts_total", deliveries).await?;
    let (time, cpu) = (begin.elapsed(), bridge.process().cpu_time()? - cpu);
    let rate = deliveries / time.as_secs_f64();
    report.add(format!("{webhooks} webhooks, receivers of 50 ms"), "deliveries/s", rate);
    let each = cpu.as_secs_f64() * 1e6 / deliveries;
    report.add(format!("{webhooks} webhooks, bridge CPU of a delivery"), "µs", each);
    Ok(())
}

/// What a key that its receiver refuses costs the others.
pub(super) async fn refused_key(
    ground: &Ground,
    records: u32,
    report: &mut Report,
) -> anyhow::Result<()> {
    let topic = format!("keys-{}", fastrand::u32(..));
    ground.kafka.create_topic(&topic, PARTITIONS).await?;
    let mut writer = Writer::new(&ground.kafka.bootstrap(), &topic).await?;
    let (refuses, arrivals) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<_>>::default());
    let of_receiver = (Arc::clone(&refuses), Arc::clone(&arrivals));
    let url = receiver(Duration::ZERO, move |head, number| {
        let (refuses, arrivals) = &of_receiver;
        if !head.contains("\r\nkafka-key: refused\r\n") {
            lock(arrivals).push((number, clock::now_us()));
            return true;
        }
        !refuses.load(Relaxed)
    })
    .await?;
    let webhook = format!(
        "[webhooks.keys]\nfeed = 'events'\nurl = '{url}'\nordering = 'key'\nformat = 'raw'\n\
         group_id = '{topic}'"
    );
    let bridge = Bridge::start(settings(ground, &topic).line(&webhook)).await?;
    until(&bridge, "host_bridge_webhook_partitions", f64::from(PARTITIONS)).await?;
    let key = |number: u32| match number % REFUSED {
        0 => Some("refused".to_owned()),
        _ => Some(format!("key-{}", number % KEYS)),
    };
    let mut p99 = Vec::new();
    for (records, is_refused) in [(records / 10, false), (records, false), (records, true)] {
        refuses.store(is_refused, Relaxed);
        let starts = writer.write_keyed(records, RATE, key).await?;
        let others = records - records / REFUSED;
        let begin = Instant::now();
        while lock(&arrivals).len() < others as usize {
            ensure!(begin.elapsed() < PATIENCE, "a record did not come");
            sleep(Duration::from_millis(20)).await;
        }
        p99.push(delays(&starts, &std::mem::take(&mut *lock(&arrivals)))?.1);
    }
    if let [_, without, beside] = *p99 {
        report.add("webhook by key, p99", "ms", without);
        report.add("webhook by key, p99 beside a key that is refused", "ms", beside);
        let name = "webhook, beside a refused key / without";
        report.judge(name, "times", beside / without, Bound::Most(1.1));
    }
    Ok(())
}

fn lock(arrivals: &Mutex<Vec<Arrival>>) -> MutexGuard<'_, Vec<Arrival>> {
    arrivals.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A bridge with a feed of a topic, for webhooks.
fn settings(ground: &Ground, topic: &str) -> Settings {
    let mut settings = Settings::to(ground.kafka.bootstrap());
    settings.binary = Some(ground.program.clone());
    settings.line(&format!(
        "[feeds.events]\ntopics = ['{topic}']\nentrypoints = ['webhook']\n\
         auto_offset_reset = 'earliest'"
    ))
}

/// Waits until a metric is so much.
async fn until(bridge: &Bridge, metric: &str, value: f64) -> anyhow::Result<()> {
    let begin = Instant::now();
    loop {
        let is = bridge.metric(metric, "").await?;
        if is >= value {
            return Ok(());
        }
        ensure!(begin.elapsed() < PATIENCE, "{metric} is {is}, not {value}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Answers each request after a time: 200 if its head and the number of its record are taken, else 503.
/// Says where.
async fn receiver(
    thinks: Duration,
    takes: impl Fn(&str, u32) -> bool + Send + Sync + 'static,
) -> anyhow::Result<String> {
    let takes = Arc::new(takes);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, thinks, Arc::clone(&takes)));
        }
    });
    Ok(url)
}

async fn serve(
    mut stream: TcpStream,
    thinks: Duration,
    takes: Arc<impl Fn(&str, u32) -> bool>,
) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut heard = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = memchr::memmem::find(&heard, b"\r\n\r\n") {
                break end + 4;
            }
            ensure!(stream.read_buf(&mut heard).await? > 0, "closed");
        };
        let text = String::from_utf8_lossy(heard.get(..head).unwrap_or_default()).to_lowercase();
        let length = text.split("content-length: ").nth(1).context("no content-length")?;
        let length: usize = length.lines().next().unwrap_or_default().trim().parse()?;
        while heard.len() < head + length {
            ensure!(stream.read_buf(&mut heard).await? > 0, "closed");
        }
        let number = heard.get(head..).and_then(|body| body.strip_prefix(b"{\"n\":"));
        let digits = number.unwrap_or_default().iter().take_while(|byte| byte.is_ascii_digit());
        let number = digits.fold(0, |number, digit| number * 10 + u32::from(digit - b'0'));
        heard.drain(..head + length);
        sleep(thinks).await;
        let status = if takes(&text, number) { "200 OK" } else { "503 Service Unavailable" };
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(answer.as_bytes()).await?;
    }
}
