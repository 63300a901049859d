//! What stands between Envoy and the real bridge in a test: it passes requests on, and loses, cuts,
//! holds or forges the replies to batches as the test says.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, ensure};
use harness::bridge::Bridge;
use kafka_upstream_core::wire;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// What becomes of a batch.
#[derive(Debug, Clone)]
pub enum Does {
    /// The bridge's work and its reply.
    Answers,
    /// The bridge's work; its reply waits until the test has released as many.
    Holds(usize),
    /// The bridge gets nothing, and the callout ends so.
    Ends(Ending),
    /// The bridge's work, but its reply is lost and the callout ends so.
    WorksBut(Ending),
}

/// How a callout ends without the bridge's reply.
#[derive(Debug, Clone)]
pub enum Ending {
    /// The connection closes.
    Closed,
    /// The connection is reset.
    Reset,
    /// A reply of the bridge's begins, and the connection closes in its body.
    Cut,
    /// A reply of the bridge's begins, and its body does not come.
    StalledInBody,
    /// Nothing comes.
    Stalled,
    /// What comes is no HTTP.
    Garbage,
    /// These bytes come, a whole reply.
    Reply(Vec<u8>),
}

/// A reply with the bridge's marker.
#[must_use]
pub fn marked(status: u16, body: &[u8]) -> Vec<u8> {
    reply(status, &format!("{}: {}\r\n", wire::MARKER, wire::VERSION), body)
}

/// A reply with these header lines, each with its end.
#[must_use]
pub fn reply(status: u16, headers: &str, body: &[u8]) -> Vec<u8> {
    let kind = wire::OUTCOMES_TYPE;
    let head = format!(
        "HTTP/1.1 {status} x\r\n{headers}content-type: {kind}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// A listener on a port of loopback; it ends when this is dropped.
#[derive(Debug)]
pub struct Relay {
    port: u16,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    bridge: u16,
    script: Mutex<Script>,
    released: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Script {
    next: VecDeque<Does>,
    /// What is done in turn when nothing is next.
    always: Vec<Does>,
    requests: usize,
    /// The frames that came, in order.
    batches: Vec<Vec<u8>>,
}

impl Relay {
    /// Passes everything on to a bridge.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start(bridge: &Bridge) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let (script, (released, _)) = (Mutex::default(), watch::channel(0));
        let shared = Arc::new(Shared { bridge: bridge.port(), script, released });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { port, shared, task })
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Does this with the next batch that has no order yet.
    pub fn next(&self, does: Does) {
        self.shared.script().next.push_back(does);
    }

    /// Does these in turn with batches that have no order of their own.
    pub fn always(&self, does: &[Does]) {
        self.shared.script().always = does.to_vec();
    }

    /// Lets the replies go that are held until as many are released.
    pub fn release(&self, count: usize) {
        self.shared.released.send_replace(count);
    }

    /// How many requests came, of whatever kind.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.shared.script().requests
    }

    /// The frames that came, in order; of a batch that came again, each.
    #[must_use]
    pub fn batches(&self) -> Vec<Vec<u8>> {
        self.shared.script().batches.clone()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn order(&self, request: &Message) -> Does {
        let mut script = self.script();
        script.requests += 1;
        if !request.head.starts_with("POST /v1/produce ") {
            return Does::Answers;
        }
        script.batches.push(request.body.clone());
        let turn = script.batches.len() % script.always.len().max(1);
        let always = script.always.get(turn).cloned();
        script.next.pop_front().or(always).unwrap_or(Does::Answers)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            // Its failure is Envoy's to see: the connection ends with it.
            let _closed = serve(BufReader::new(stream), &shared).await;
        });
    }
}

async fn serve(mut envoy: BufReader<TcpStream>, shared: &Shared) -> anyhow::Result<()> {
    while let Some(request) = Message::read(&mut envoy).await? {
        match shared.order(&request) {
            Does::Answers => envoy.write_all(&shared.ask(&request).await?).await?,
            Does::Holds(count) => {
                let reply = shared.ask(&request).await?;
                shared.released.subscribe().wait_for(|released| *released >= count).await?;
                envoy.write_all(&reply).await?;
            }
            Does::Ends(ending) => ending.happen(&mut envoy).await?,
            Does::WorksBut(ending) => {
                shared.ask(&request).await?;
                ending.happen(&mut envoy).await?;
            }
        }
    }
    Ok(())
}

impl Shared {
    /// The bridge's reply to a request.
    async fn ask(&self, request: &Message) -> anyhow::Result<Vec<u8>> {
        let mut bridge = BufReader::new(TcpStream::connect(("127.0.0.1", self.bridge)).await?);
        bridge.write_all(&request.bytes()).await?;
        Ok(Message::read(&mut bridge).await?.context("the bridge closed")?.bytes())
    }
}

impl Ending {
    async fn happen(&self, envoy: &mut BufReader<TcpStream>) -> anyhow::Result<()> {
        let mut whole = marked(200, &[1; 100]);
        whole.truncate(whole.len() - 50);
        match self {
            Self::Closed => {}
            Self::Reset => envoy.get_ref().set_zero_linger()?,
            Self::Cut => envoy.write_all(&whole).await?,
            Self::StalledInBody => {
                envoy.write_all(&whole).await?;
                envoy.read_u8().await?;
            }
            // Until Envoy closes.
            Self::Stalled => drop(envoy.read_u8().await?),
            Self::Garbage => envoy.write_all(b"\x16\x03garbage\r\n\r\n").await?,
            Self::Reply(reply) => return Ok(envoy.write_all(reply).await?),
        }
        anyhow::bail!("the connection ends")
    }
}

/// A request or reply whose length is announced.
struct Message {
    head: String,
    body: Vec<u8>,
}

impl Message {
    /// None at the end of the connection.
    async fn read(from: &mut BufReader<TcpStream>) -> anyhow::Result<Option<Self>> {
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let start = head.len();
            if from.read_line(&mut head).await? == 0 {
                ensure!(head.is_empty(), "half a head");
                return Ok(None);
            }
            let line = head.get(start..).unwrap_or_default();
            if line == "\r\n" {
                break;
            }
            if let Some((name, value)) = line.split_once(':') {
                ensure!(!name.eq_ignore_ascii_case("transfer-encoding"), "no length: {line}");
                if name.eq_ignore_ascii_case("content-length") {
                    length = value.trim().parse()?;
                }
            }
        }
        let mut body = vec![0; length];
        from.read_exact(&mut body).await?;
        Ok(Some(Self { head, body }))
    }

    fn bytes(&self) -> Vec<u8> {
        [self.head.as_bytes(), &self.body].concat()
    }
}
