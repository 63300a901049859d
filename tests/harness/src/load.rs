//! A load generator: many keep-alive connections, one thread, a reply kept for each request.

mod client;
mod report;
mod requests;
mod response;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::task::LocalSet;

use client::Client;
pub use report::{Ending, Placement, Report};
pub use requests::Requests;
pub use response::{Reply, ResponseReader};

/// When to stop sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// After this many requests in all.
    Requests(u64),
    /// After this time; requests in flight are finished.
    Duration(Duration),
}

/// Clients that leave while they wait for their reply.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HangUp {
    /// How many of the requests are left, from 0.0 to 1.0, chosen at random.
    pub fraction: f64,
    /// They are left at a random moment up to this long after they were sent.
    pub within: Duration,
}

/// A run of load against one port of loopback.
#[derive(Clone, Debug)]
pub struct Load {
    address: SocketAddr,
    requests: Requests,
    connections: usize,
    limit: Limit,
    timeout: Duration,
    hang_up: Option<HangUp>,
    first: u64,
}

impl Load {
    /// One connection and one request, unless told more.
    #[must_use]
    pub fn new(port: u16, requests: Requests) -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            requests,
            connections: 1,
            limit: Limit::Requests(1),
            timeout: Duration::from_secs(30),
            hang_up: None,
            first: 0,
        }
    }

    /// Sets how many connections send at a time; each has one request in flight.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// Sets when to stop.
    #[must_use]
    pub fn limit(mut self, limit: Limit) -> Self {
        self.limit = limit;
        self
    }

    /// Sets the longest wait for a reply; 30 s otherwise.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Makes some clients leave early.
    #[must_use]
    pub fn hang_up(mut self, hang_up: HangUp) -> Self {
        self.hang_up = Some(hang_up);
        self
    }

    /// Sets the number of the first request, so that several runs do not repeat numbers.
    #[must_use]
    pub fn first(mut self, number: u64) -> Self {
        self.first = number;
        self
    }

    /// Runs it on a thread of its own, so that the caller's tasks do not slow it down.
    ///
    /// A server that refuses connections is no error: its requests end as [`Ending::NotSent`].
    ///
    /// # Errors
    /// When the thread or its runtime cannot start.
    pub async fn run(self) -> anyhow::Result<Report> {
        let (done, report) = tokio::sync::oneshot::channel();
        std::thread::Builder::new().name("load".to_owned()).spawn(move || {
            // The caller may have gone; then nobody wants the report.
            let _nobody = done.send(self.run_here());
        })?;
        report.await.context("the load generator ended early")?
    }

    fn run_here(self) -> anyhow::Result<Report> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let local = LocalSet::new();
        let reports = local.block_on(&runtime, self.run_clients());
        drop(local);
        reports
    }

    async fn run_clients(self) -> anyhow::Result<Report> {
        let begin = Instant::now();
        let tickets = Arc::new(Tickets::new(&self, begin));
        let clients: Vec<_> = (0..self.connections)
            .map(|_| {
                let client = Client::new(self.clone(), Arc::clone(&tickets));
                tokio::task::spawn_local(client.run())
            })
            .collect();
        let mut report = Report::new(self.first)?;
        for client in clients {
            report.add(&client.await??)?;
        }
        report.finish(begin.elapsed());
        Ok(report)
    }
}

/// Hands out request numbers until the limit is reached.
#[derive(Debug)]
struct Tickets {
    next: AtomicU64,
    end: u64,
    until: Option<Instant>,
}

impl Tickets {
    fn new(load: &Load, begin: Instant) -> Self {
        let next = AtomicU64::new(load.first);
        match load.limit {
            Limit::Requests(count) => Self { next, end: load.first + count, until: None },
            Limit::Duration(time) => Self { next, end: u64::MAX, until: Some(begin + time) },
        }
    }

    fn take(&self) -> Option<u64> {
        if self.until.is_some_and(|until| Instant::now() >= until) {
            return None;
        }
        Some(self.next.fetch_add(1, Ordering::Relaxed)).filter(|number| *number < self.end)
    }
}
