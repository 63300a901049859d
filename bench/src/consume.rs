//! `bench consume`: what readers cost, beside the least that they can cost.

mod clock;
mod conversations;
mod events;
mod fan_out;
mod faults;
pub(super) mod floor;
mod ground;
pub(super) mod pages;
pub(super) mod reading;
mod swarm;
mod webhooks;
mod writing;

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::report::Report;
use ground::Ground;

#[derive(Args)]
pub(crate) struct Options {
    /// Times that each figure is taken; the medians count
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// One round with fewer events: a first impression in three minutes
    #[arg(long, conflicts_with = "rounds")]
    quick: bool,
    /// Clients of event streams
    #[arg(long, default_value_t = 10_000)]
    clients: usize,
    /// Measures only these
    #[arg(long, value_delimiter = ',')]
    only: Vec<Cell>,
    /// Another host-bridge
    #[arg(long, value_name = "PROGRAM")]
    bridge: Option<PathBuf>,
    /// Where the figures of every round go [default: target/bench/consume.json]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Cell {
    /// Memory of idle streams
    Idle,
    /// Processor time, delay and fetches of events to many
    Events,
    /// Pages beside a consumer without HTTP
    Pages,
    /// WebSockets with acknowledgements beside a consumer without HTTP
    Sockets,
    /// APISIX's pubsub beside the same, and beside short replies
    Pubsub,
    /// Records that a filter looks at
    Filters,
    /// kafka-client beside kcat and Java's console consumer
    Yardsticks,
    /// Produce requests beside readers
    Writing,
    /// All clients come back to a bridge that was killed
    Reconnect,
    /// A client that reads nothing
    Stalled,
    /// Clients that ask for large pages and read nothing
    StalledPages,
    /// Webhooks whose receivers take 50 ms
    Webhooks,
    /// A webhook by key whose receiver refuses one
    Keys,
}

pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let ground = Ground::start(options.bridge.clone()).await?;
    ground::check_descriptors(options.clients)?;
    let mut report = Report::default();
    let (rounds, records, small) =
        if options.quick { (1, 50_000, 300_000) } else { (options.rounds, 200_000, 2_000_000) };
    let of_pages = [Cell::Pages, Cell::Sockets, Cell::Pubsub, Cell::Filters, Cell::StalledPages];
    if of_pages.into_iter().any(|cell| options.wants(cell)) {
        pages::fill(&ground, records).await?;
    }
    if options.wants(Cell::Yardsticks) {
        reading::fill(&ground, small).await?;
    }
    if options.wants(Cell::Idle) {
        fan_out::idle(&ground, options.clients, &mut report).await?;
    }
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        for cell in Cell::value_variants().iter().filter(|cell| options.wants(**cell)) {
            cell.measure(&ground, options, (records, small), &mut report).await?;
        }
    }
    report.finish("consume", options.json.as_deref())
}

impl Options {
    fn wants(&self, cell: Cell) -> bool {
        self.only.is_empty() || self.only.contains(&cell)
    }
}

impl Cell {
    /// One round of it.
    async fn measure(
        self,
        ground: &Ground,
        options: &Options,
        (records, small): (u32, u32),
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let Options { clients, quick, .. } = *options;
        let of = |few, many| if quick { few } else { many };
        match self {
            // Memory is measured once.
            Self::Idle => Ok(()),
            Self::Events => fan_out::events(ground, clients, of(50, 100), report).await,
            Self::Pages => pages::pages(ground, records, report).await,
            Self::Sockets => conversations::sockets(ground, records, report).await,
            Self::Pubsub => conversations::pubsub(ground, records, report).await,
            Self::Filters => pages::filters(ground, records, report).await,
            Self::Yardsticks => reading::yardsticks(ground, small, report).await,
            Self::Writing => {
                let turns = if quick { (1, 5) } else { (2, 10) };
                writing::beside_readers(ground, clients, turns, report).await
            }
            Self::Reconnect => faults::reconnect(ground, clients, report).await,
            Self::Stalled => faults::stalled(ground, report).await,
            Self::StalledPages => faults::stalled_pages(ground, report).await,
            Self::Webhooks => webhooks::deliver(ground, 1000, of(50, 200), report).await,
            Self::Keys => webhooks::refused_key(ground, of(1000, 4000), report).await,
        }
    }
}
