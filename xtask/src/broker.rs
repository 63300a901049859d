//! Which broker the demo runs on.

/// A broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Broker {
    /// Apache Kafka; needs Java 17 and Maven
    Kafka,
    /// The broker of kafka-client's tests, in memory: nothing to install
    Memory,
}
