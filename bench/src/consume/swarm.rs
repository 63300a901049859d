//! Thousands of clients of event streams on one thread: what each was sent, and when.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
use memchr::memchr;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};

use super::clock;

/// What stands before the number of an event in its line.
pub(super) const MARK: &[u8] = b"data: {\"n\":";

/// Bytes that are read at a time.
const BUFFER: usize = 256 * 1024;

/// Longest time until a connection is taken and answered.
const PATIENCE: Duration = Duration::from_secs(60);

/// The token of the waker; clients have those from 0 on.
const WAKER: Token = Token(usize::MAX);

/// One client, and what it was sent.
#[derive(Debug, Default)]
pub(super) struct Client {
    /// Of its whole connection, also the head.
    pub(super) bytes: u64,
    /// Whether the head came, and was a 200, or a 101 for a WebSocket.
    pub(super) is_open: bool,
    /// The head came, and was another.
    pub(super) is_refused: bool,
    /// Its connection has ended.
    pub(super) is_closed: bool,
    pub(super) events: u64,
    /// Of the numbers of its events: with their count it says that all came.
    pub(super) sum: u64,
    /// The last cursor.
    pub(super) id: String,
    /// A line that has begun.
    line: Vec<u8>,
}

/// An event that a client has got: its number, and when.
pub(super) type Arrival = (u32, u64);

/// What a look at all clients finds.
#[derive(Debug, Default, Clone)]
pub(super) struct Sight {
    pub(super) open: usize,
    pub(super) refused: usize,
    pub(super) closed: usize,
    pub(super) bytes: u64,
    pub(super) events: u64,
    pub(super) fewest: u64,
    /// Clients whose sum of numbers is not that of most.
    pub(super) sums: (u64, u64),
    pub(super) ids: Vec<String>,
    pub(super) arrivals: Vec<Arrival>,
}

enum Order {
    Add(TcpStream),
    /// With the arrivals since the last, and the cursors if they are wanted.
    Look(bool, mpsc::Sender<Sight>),
    End,
}

/// The clients, on a thread that ends with them.
pub(super) struct Swarm {
    orders: mpsc::Sender<Order>,
    waker: Waker,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

/// Where a swarm goes, and what it asks for.
pub(super) struct Plan<'a> {
    pub(super) ports: &'a [u16],
    pub(super) clients: usize,
    /// The request of each client, by its number.
    pub(super) request: &'a (dyn Fn(usize) -> String + Sync),
}

impl Swarm {
    /// Connects all, and waits until each has its head.
    pub(super) async fn connect(plan: &Plan<'_>) -> anyhow::Result<Self> {
        let swarm = Self::begin(plan)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let sight = swarm.look().await?;
            if sight.open == plan.clients {
                return Ok(swarm);
            }
            let (Sight { open, refused, closed, .. }, all) = (sight, plan.clients);
            let is_over = closed + refused > 0 || Instant::now() > deadline;
            ensure!(!is_over, "{open} of {all} streams, {refused} refused, {closed} closed");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn begin(plan: &Plan<'_>) -> anyhow::Result<Self> {
        let poll = Poll::new()?;
        let (orders, given) = mpsc::channel();
        let waker = Waker::new(poll.registry(), WAKER)?;
        let thread = thread::Builder::new().name("swarm".to_owned());
        let thread = thread.spawn(move || Reading::new(poll).run(&given))?;
        let swarm = Self { orders, waker, thread: Some(thread) };
        // The first are read while the last connect.
        for (number, port) in (0..plan.clients).zip(plan.ports.iter().cycle()) {
            let stream = open(number, *port, &(plan.request)(number))?;
            swarm.orders.send(Order::Add(stream)).map_err(|_| anyhow!("no swarm"))?;
            swarm.waker.wake()?;
        }
        Ok(swarm)
    }

    /// What came so far; arrivals are told once.
    pub(super) async fn look(&self) -> anyhow::Result<Sight> {
        self.ask(false).await
    }

    /// As [`Self::look`], with the cursor of each client.
    pub(super) async fn look_at_ids(&self) -> anyhow::Result<Sight> {
        self.ask(true).await
    }

    async fn ask(&self, has_ids: bool) -> anyhow::Result<Sight> {
        let (answer, answered) = mpsc::channel();
        self.orders.send(Order::Look(has_ids, answer)).map_err(|_| anyhow!("no swarm"))?;
        self.waker.wake()?;
        let answer = tokio::task::spawn_blocking(move || answered.recv());
        answer.await?.context("the swarm has ended")
    }

    /// Waits until each client has so many events.
    pub(super) async fn wait_for(&self, events: u64, within: Duration) -> anyhow::Result<Sight> {
        let deadline = Instant::now() + within;
        let mut arrivals = Vec::new();
        loop {
            let mut sight = self.look().await?;
            arrivals.append(&mut sight.arrivals);
            if sight.fewest >= events {
                return Ok(Sight { arrivals, ..sight });
            }
            let fewest = sight.fewest;
            ensure!(Instant::now() < deadline, "a client has {fewest} of {events} events");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        let _ended = self.orders.send(Order::End);
        let _ended = self.waker.wake();
        if let Some(thread) = self.thread.take()
            && let Ok(Err(error)) = thread.join()
        {
            eprintln!("swarm: {error:#}");
        }
    }
}

fn open(number: usize, port: u16, request: &str) -> anyhow::Result<TcpStream> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = std::net::TcpStream::connect_timeout(&address, PATIENCE)
        .with_context(|| format!("client {number} cannot connect"))?;
    stream.write_all(request.as_bytes())?;
    stream.set_nonblocking(true)?;
    Ok(TcpStream::from_std(stream))
}

/// The thread's own.
struct Reading {
    poll: Poll,
    streams: Vec<(TcpStream, Client)>,
    arrivals: Vec<Arrival>,
    buffer: Vec<u8>,
}

impl Reading {
    fn new(poll: Poll) -> Self {
        Self { poll, streams: Vec::new(), arrivals: Vec::new(), buffer: vec![0; BUFFER] }
    }

    fn run(mut self, orders: &mpsc::Receiver<Order>) -> anyhow::Result<()> {
        let mut events = Events::with_capacity(1024);
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    return Err(error.into());
                }
                _ => {}
            }
            for event in &events {
                self.read(event);
            }
            for order in orders.try_iter() {
                match order {
                    Order::Add(mut stream) => {
                        let token = Token(self.streams.len());
                        let registry = self.poll.registry();
                        registry.register(&mut stream, token, Interest::READABLE)?;
                        self.streams.push((stream, Client::default()));
                    }
                    Order::Look(has_ids, answer) => drop(answer.send(self.sight(has_ids))),
                    Order::End => return Ok(()),
                }
            }
        }
    }

    fn read(&mut self, event: &Event) {
        let Some((stream, client)) = self.streams.get_mut(event.token().0) else { return };
        loop {
            match stream.read(&mut self.buffer) {
                Ok(0) => client.is_closed = true,
                Ok(count) => {
                    let now = clock::now_us();
                    let read = self.buffer.get(..count).unwrap_or_default();
                    client.take(read, |number| self.arrivals.push((number, now)));
                    // With less than there is room for there was no more.
                    if count == BUFFER {
                        continue;
                    }
                }
                Err(error) => {
                    let is_over = error.kind() != io::ErrorKind::WouldBlock;
                    client.is_closed = is_over || client.is_closed;
                }
            }
            return;
        }
    }

    fn sight(&mut self, has_ids: bool) -> Sight {
        let clients = || self.streams.iter().map(|(_, client)| client);
        let sums = clients().map(|client| client.sum);
        Sight {
            open: clients().filter(|client| client.is_open).count(),
            refused: clients().filter(|client| client.is_refused).count(),
            closed: clients().filter(|client| client.is_closed).count(),
            bytes: clients().map(|client| client.bytes).sum(),
            events: clients().map(|client| client.events).sum(),
            fewest: clients().map(|client| client.events).min().unwrap_or_default(),
            sums: (sums.clone().min().unwrap_or_default(), sums.max().unwrap_or_default()),
            ids: clients().filter(|_| has_ids).map(|client| client.id.clone()).collect(),
            arrivals: std::mem::take(&mut self.arrivals),
        }
    }
}

impl Client {
    /// Goes through what was read, line by line: the lines between chunks are none of the stream's.
    fn take(&mut self, mut read: &[u8], mut arrived: impl FnMut(u32)) {
        self.bytes += read.len() as u64;
        while let Some(end) = memchr(b'\n', read) {
            let (line, rest) = read.split_at(end);
            read = rest.get(1..).unwrap_or_default();
            if self.line.is_empty() {
                self.take_line(line, &mut arrived);
            } else {
                let mut whole = std::mem::take(&mut self.line);
                whole.extend_from_slice(line);
                self.take_line(&whole, &mut arrived);
                whole.clear();
                self.line = whole;
            }
        }
        self.line.extend_from_slice(read);
    }

    fn take_line(&mut self, line: &[u8], arrived: &mut impl FnMut(u32)) {
        if let Some(rest) = line.strip_prefix(MARK) {
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit());
            let number = digits.fold(0_u32, |number, digit| {
                number.wrapping_mul(10).wrapping_add(u32::from(digit - b'0'))
            });
            self.events += 1;
            self.sum += u64::from(number);
            arrived(number);
        } else if let Some(id) = line.strip_prefix(b"id: ") {
            self.id.clear();
            self.id.push_str(std::str::from_utf8(id).unwrap_or_default());
        } else if !self.is_open && line.starts_with(b"HTTP/1.1 ") {
            self.is_open = [&b"200"[..], b"101"].contains(&line.get(9..12).unwrap_or_default());
            self.is_refused = !self.is_open;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_count_however_they_are_cut() {
        let text = b"HTTP/1.1 200 OK\r\n\r\n5f\r\nid: abc\ndata: {\"n\":000012,\"x\":1}\n\n\r\n\
                     5f\r\nid: abd\ndata: {\"n\":000030,\"x\":1}\n\n\r\n";
        for size in 1..text.len() {
            let (mut client, mut numbers) = (Client::default(), Vec::new());
            for piece in text.chunks(size) {
                client.take(piece, |number| numbers.push(number));
            }
            assert_eq!((numbers, client.sum, &*client.id), (vec![12, 30], 42, "abd"));
            assert!(client.is_open);
        }
    }
}
