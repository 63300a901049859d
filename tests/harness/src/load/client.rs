//! One connection of the load generator: it sends a request, waits for the reply, and so on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::report::{Ending, Sample};
use super::response::{Reply, ResponseReader};
use super::{Load, Tickets};

/// Pause after a refused connection: a server that restarts is not asked thousands of times.
const REFUSED: Duration = Duration::from_millis(5);

pub(super) struct Client {
    load: Load,
    tickets: Arc<Tickets>,
    connection: Option<Connection>,
    request: Vec<u8>,
}

struct Connection {
    stream: TcpStream,
    reader: ResponseReader,
}

impl Client {
    pub(super) fn new(load: Load, tickets: Arc<Tickets>) -> Self {
        Self { load, tickets, connection: None, request: Vec::new() }
    }

    pub(super) async fn run(mut self) -> anyhow::Result<Vec<Sample>> {
        let mut samples = Vec::new();
        while let Some(number) = self.tickets.take() {
            self.request.clear();
            self.load.requests.write(number, &mut self.request);
            let begin = Instant::now();
            let (ending, reply) = self.send_one().await;
            let placement = reply.and_then(|reply| reply.placement);
            samples.push(Sample { number, ending, placement, took: begin.elapsed() });
            if ending == Ending::NotSent {
                tokio::time::sleep(REFUSED).await;
            }
        }
        Ok(samples)
    }

    /// Keeps the connection only if it can take another request.
    async fn send_one(&mut self) -> (Ending, Option<Reply>) {
        let Some(mut connection) = self.connect().await else {
            return (Ending::NotSent, None);
        };
        let limit = self.patience();
        let exchange = connection.exchange(&self.request);
        match tokio::time::timeout(limit.time, exchange).await {
            Ok(Some(reply)) => {
                if reply.keep_alive {
                    self.connection = Some(connection);
                }
                (Ending::Status(reply.status), Some(reply))
            }
            Ok(None) => (Ending::Broken, None),
            Err(_) => (limit.ending, None),
        }
    }

    /// The open connection, if the server has not closed it meanwhile, or a new one.
    async fn connect(&mut self) -> Option<Connection> {
        if let Some(connection) = self.connection.take()
            && connection.is_open()
        {
            return Some(connection);
        }
        let stream = TcpStream::connect(self.load.address).await.ok()?;
        stream.set_nodelay(true).ok()?;
        Some(Connection { stream, reader: ResponseReader::default() })
    }

    fn patience(&self) -> Patience {
        match self.load.hang_up {
            Some(hang_up) if fastrand::f64() < hang_up.fraction => {
                Patience { time: hang_up.within.mul_f64(fastrand::f64()), ending: Ending::HungUp }
            }
            _ => Patience { time: self.load.timeout, ending: Ending::TimedOut },
        }
    }
}

/// How long a client waits, and what it is called when it leaves.
struct Patience {
    time: Duration,
    ending: Ending,
}

impl Connection {
    /// A readable socket between two requests has been closed, or speaks out of turn.
    fn is_open(&self) -> bool {
        let refused = |error: std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
        self.stream.try_read(&mut [0; 1]).is_err_and(refused)
    }

    /// Sends the request and reads its reply; none when the connection breaks.
    async fn exchange(&mut self, request: &[u8]) -> Option<Reply> {
        self.stream.write_all(request).await.ok()?;
        loop {
            let count = self.stream.read_buf(self.reader.buffer()).await.ok()?;
            if count == 0 {
                return self.reader.closed();
            }
            if let Some(reply) = self.reader.poll().ok()? {
                return Some(reply);
            }
        }
    }
}
