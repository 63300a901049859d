//! `bench consume-floor`: what is the least that a fan-out costs. A program that does nothing but write
//! frames that are ready to sockets, those of all clients in turn.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use super::clock;
use super::swarm::MARK;

#[derive(Args)]
pub(crate) struct Options {
    #[arg(long)]
    clients: usize,
    #[arg(long)]
    events: u32,
    #[arg(long)]
    rate: f64,
    /// Bytes of an event with what HTTP puts around it
    #[arg(long)]
    bytes: usize,
}

/// From the last connection to the first event.
const PAUSE: Duration = Duration::from_secs(2);

/// Says `port N`, `ready`, `start NUMBER TIME` for each event, and `done`, each on a line.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("port {}", listener.local_addr()?.port());
    let mut streams = Vec::new();
    for stream in listener.incoming().take(options.clients) {
        streams.push(greet(stream?)?);
    }
    let frames: Vec<_> = (1..=options.events).map(|it| frame(it, options.bytes)).collect();
    let mut starts = Vec::new();
    println!("ready");
    let begin = Instant::now() + PAUSE;
    for (number, frame) in (1_u32..).zip(&frames) {
        let at = begin + Duration::from_secs_f64(f64::from(number - 1) / options.rate);
        while let Some(left) = at.checked_duration_since(Instant::now()).filter(|it| !it.is_zero())
        {
            thread::park_timeout(left);
        }
        starts.push((number, clock::now_us()));
        for stream in &mut streams {
            stream.write_all(frame)?;
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
