//! `bench consume-floor`: what is the least that a fan-out costs. A program that does nothing but write
//! frames that are ready to sockets, those of all clients in turn.

use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use harness::process::Process;

use super::clock;
use super::events::Start;
use super::ground::Ground;
use super::swarm::{MARK, Plan, Swarm};

#[derive(Args)]
pub(crate) struct Options {
    #[arg(long)]
    pub(super) clients: usize,
    #[arg(long)]
    pub(super) events: u32,
    /// Events a second
    #[arg(long)]
    pub(super) rate: f64,
    /// Bytes of an event with what HTTP puts around it
    #[arg(long)]
    pub(super) bytes: usize,
    /// Clients that are written to at a time, if not all: groups in turn from one event to the next
    #[arg(long)]
    pub(super) group: Option<usize>,
}

/// From the last connection to the first event.
pub(super) const PAUSE: Duration = Duration::from_secs(2);

const PATIENCE: Duration = Duration::from_secs(60);

/// The program, and its clients.
pub(super) struct Floor {
    pub(super) process: Process,
    pub(super) swarm: Swarm,
}

impl Floor {
    /// All are connected; the first event comes after [`PAUSE`].
    pub(super) async fn start(ground: &Ground, options: &Options) -> anyhow::Result<Self> {
        let Options { clients, events, rate, bytes, group } = *options;
        let log = ground.dir.path().join(format!("floor-{}.log", fastrand::u32(..)));
        let mut command = Command::new(env::current_exe()?);
        command.args(["consume-floor", "--clients", &clients.to_string()]);
        command.args(["--events", &events.to_string(), "--rate", &rate.to_string()]);
        command.args(["--bytes", &bytes.to_string()]);
        command.args(group.map(|group| format!("--group={group}")));
        let mut process = Process::spawn("floor", command, &log)?;
        let port = said(&mut process, "port").await?;
        let port = port.trim_start_matches("port ").parse()?;
        let request = |_| "GET / HTTP/1.1\r\nhost: bench\r\n\r\n".to_owned();
        let plan = Plan { ports: &[port], clients, request: &request };
        let swarm = Swarm::connect(&plan).await?;
        said(&mut process, "ready").await?;
        Ok(Self { process, swarm })
    }

    /// When each event was begun to be written, once all are.
    pub(super) async fn starts(&mut self) -> anyhow::Result<Vec<Start>> {
        said(&mut self.process, "done").await?;
        let text = std::fs::read_to_string(self.process.log())?;
        let starts = text.lines().filter_map(|line| {
            let (number, at) = line.strip_prefix("start ")?.split_once(' ')?;
            Some((number.parse().ok()?, at.parse().ok()?))
        });
        Ok(starts.collect())
    }
}

/// The first line that begins so.
async fn said(process: &mut Process, word: &str) -> anyhow::Result<String> {
    let log = process.log().to_path_buf();
    let look = || async {
        let text = std::fs::read_to_string(&log)?;
        let line = text.lines().find(|line| line.starts_with(word));
        line.map(str::to_owned).context("not yet")
    };
    process.wait_ready(&format!("to say {word}"), PATIENCE, look).await
}

/// Says `port N`, `ready`, `start NUMBER TIME` for each event, and `done`, each on a line.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    // As threads of readers in the bridge.
    let _refused = rustix::process::nice(5);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("port {}", listener.local_addr()?.port());
    let mut streams = Vec::new();
    for stream in listener.incoming().take(options.clients) {
        streams.push(greet(stream?)?);
    }
    let frames: Vec<_> = (1..=options.events).map(|it| frame(it, options.bytes)).collect();
    let at_a_time = options.group.unwrap_or(options.clients).max(1);
    let groups = streams.len().div_ceil(at_a_time);
    let mut starts = Vec::new();
    println!("ready");
    let begin = Instant::now() + PAUSE;
    for (number, frame) in (1_u32..).zip(&frames) {
        for (index, group) in streams.chunks_mut(at_a_time).enumerate() {
            let part = index as f64 / groups as f64;
            let at = begin + Duration::from_secs_f64((f64::from(number - 1) + part) / options.rate);
            while let Some(left) =
                at.checked_duration_since(Instant::now()).filter(|it| !it.is_zero())
            {
                thread::park_timeout(left);
            }
            if index == 0 {
                starts.push((number, clock::now_us()));
            }
            for stream in group {
                stream.write_all(frame)?;
            }
        }
    }
    for (number, start) in starts {
        println!("start {number} {start}");
    }
    println!("done");
    // Until it is ended.
    loop {
        thread::park();
    }
}

/// Reads a request's head, and answers as the bridge does.
fn greet(stream: TcpStream) -> anyhow::Result<TcpStream> {
    stream.set_nodelay(true)?;
    let mut lines = BufReader::with_capacity(1024, stream);
    let mut line = String::new();
    while lines.read_line(&mut line)? > 2 {
        line.clear();
    }
    let mut stream = lines.into_inner();
    stream.write_all(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
    )?;
    Ok(stream)
}

/// A chunk with one event, of so many bytes.
fn frame(number: u32, bytes: usize) -> Vec<u8> {
    let mut event = b"event: message\n".to_vec();
    event.extend_from_slice(MARK);
    event.extend_from_slice(format!("{number:09},\"pad\":\"").as_bytes());
    // Behind it: the end of the value and of the event; around it: the chunk's size and lines.
    event.resize(bytes.saturating_sub(4 + 7), b'x');
    event.extend_from_slice(b"\"}\n\n");
    let mut frame = format!("{:x}\r\n", event.len()).into_bytes();
    frame.append(&mut event);
    frame.extend_from_slice(b"\r\n");
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_as_long_as_the_bridges() {
        assert_eq!(frame(7, 1250).len(), 1250);
    }
}
