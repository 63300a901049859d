//! What is compared with what: the cells, and the properties that make the clients equal.

use std::fmt;

/// Partitions of each topic.
pub(super) const PARTITIONS: i32 = 6;

/// `batch.size`: far more than Kafka's default, as for a high rate.
const BATCH_BYTES: usize = 128 * 1024;

const LINGER_MS: u32 = 5;

/// `buffer.memory`, of which librdkafka counts in KiB.
const BUFFER_KIB: usize = 64 * 1024;

/// `max.request.size`; librdkafka sends a batch a request.
const REQUEST_BYTES: usize = 1024 * 1024;

/// Records of a batch that no client reaches before `batch.size`.
const BATCH_RECORDS: usize = 100_000;

/// A producer of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Peer {
    Ours,
    #[cfg(feature = "librdkafka")]
    Librdkafka,
    Java,
    /// Ours as it was, in a program of its own.
    Baseline,
}

/// Ours first: the others are compared with it.
pub(super) const PEERS: &[Peer] = &[
    Peer::Ours,
    #[cfg(feature = "librdkafka")]
    Peer::Librdkafka,
    Peer::Java,
];

/// With `--baseline`.
pub(super) const WITH_BASELINE: &[Peer] = &[Peer::Ours, Peer::Baseline];

/// When a record counts as acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Promise {
    /// acks 1, one request in flight, which keeps the order.
    Leader,
    /// acks all with idempotence, five requests in flight.
    All,
}

/// One comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) record_bytes: usize,
    pub(super) codec: &'static str,
    pub(super) promise: Promise,
}

/// Every cell whose name has all words of the filter in it.
pub(super) fn cells(filter: &str) -> Vec<Cell> {
    let mut cells = Vec::new();
    for record_bytes in [100, 1024] {
        for codec in ["none", "lz4", "zstd"] {
            for promise in [Promise::Leader, Promise::All] {
                cells.push(Cell { record_bytes, codec, promise });
            }
        }
    }
    let wanted = |cell: &Cell| {
        let name = cell.to_string();
        filter.split_whitespace().all(|word| name.split_whitespace().any(|part| part == word))
    };
    cells.retain(wanted);
    cells
}

/// As in the names of cells: `1024 B, lz4, acks all` is `1024 lz4 all`.
impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { record_bytes, codec, promise } = self;
        write!(f, "{record_bytes} {codec} {}", promise.acks())
    }
}

impl Promise {
    pub(super) fn acks(self) -> &'static str {
        match self {
            Self::Leader => "1",
            Self::All => "all",
        }
    }
}

impl Peer {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ours => "kafka-client",
            #[cfg(feature = "librdkafka")]
            Self::Librdkafka => "librdkafka",
            Self::Java => "Java",
            Self::Baseline => "baseline",
        }
    }

    /// The properties of a cell under the names that this client has for them.
    pub(super) fn properties(self, cell: &Cell) -> Vec<(&'static str, String)> {
        let (idempotence, in_flight) = match cell.promise {
            Promise::Leader => (false, 1),
            Promise::All => (true, 5),
        };
        let mut properties = vec![
            ("acks", cell.promise.acks().to_owned()),
            ("enable.idempotence", idempotence.to_string()),
            ("max.in.flight.requests.per.connection", in_flight.to_string()),
            ("compression.type", cell.codec.to_owned()),
            ("batch.size", BATCH_BYTES.to_string()),
            ("linger.ms", LINGER_MS.to_string()),
        ];
        properties.extend(match self {
            Self::Ours | Self::Baseline => vec![
                ("batch.records", BATCH_RECORDS.to_string()),
                ("buffer.memory", (BUFFER_KIB * 1024).to_string()),
                ("max.request.size", REQUEST_BYTES.to_string()),
            ],
            #[cfg(feature = "librdkafka")]
            Self::Librdkafka => vec![
                ("batch.num.messages", BATCH_RECORDS.to_string()),
                ("queue.buffering.max.kbytes", BUFFER_KIB.to_string()),
                // Only bytes bound the queue, as in the others.
                ("queue.buffering.max.messages", "10000000".to_owned()),
                ("message.max.bytes", REQUEST_BYTES.to_string()),
            ],
            Self::Java => vec![
                ("buffer.memory", (BUFFER_KIB * 1024).to_string()),
                ("max.request.size", REQUEST_BYTES.to_string()),
            ],
        });
        properties
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_leaves_the_cells_that_have_its_words() {
        assert_eq!(cells("").len(), 12);
        assert_eq!(cells("100 lz4").len(), 2);
        let one = Cell { record_bytes: 1024, codec: "zstd", promise: Promise::All };
        assert_eq!(cells("all 1024 zstd"), [one]);
        assert!(cells("snappy").is_empty());
    }

    #[test]
    fn our_client_knows_the_properties_it_is_given() {
        for cell in cells("") {
            let ours = Peer::Ours.properties(&cell);
            let pairs = ours.iter().map(|(name, value)| (*name, value.as_str()));
            let pairs = pairs.chain([("bootstrap.servers", "a:1")]);
            assert!(kafka_client::Config::from_properties(pairs).is_ok(), "{cell}");
        }
    }

    #[cfg(feature = "librdkafka")]
    #[test]
    fn librdkafka_knows_the_properties_it_is_given() {
        for cell in cells("") {
            let mut config = rdkafka::ClientConfig::new();
            for (name, value) in Peer::Librdkafka.properties(&cell) {
                config.set(name, value);
            }
            assert!(config.create_native_config().is_ok(), "{cell}");
        }
    }
}
