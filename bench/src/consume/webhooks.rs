//! Webhooks whose receivers take 50 ms for each request.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use harness::bridge::{Bridge, Settings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use super::events::{VALUE_BYTES, Writer};
use super::ground::{Ground, PARTITIONS};
use super::report::Report;

/// How long a receiver takes.
const THINKS: Duration = Duration::from_millis(50);

/// How long all webhooks may take to have their partitions, and to deliver.
const PATIENCE: Duration = Duration::from_secs(300);

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
    let url = receiver().await?;
    let mut settings = Settings::to(ground.kafka.bootstrap());
    settings.binary = Some(ground.program.clone());
    let feed = format!(
        "[feeds.events]\ntopics = ['{topic}']\nentrypoints = ['webhook']\n\
         auto_offset_reset = 'earliest'"
    );
    settings = settings.line(&feed);
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

/// Answers 200 to each request, after its time; says where.
async fn receiver() -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    Ok(url)
}

async fn serve(mut stream: TcpStream) -> anyhow::Result<()> {
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
        heard.drain(..head + length);
        sleep(THINKS).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?;
    }
}
