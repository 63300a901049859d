//! A tokio client for Apache Kafka that says what became of each record.
//!
//! ```
//! use std::time::Duration;
//!
//! use kafka_client::{Client, ClusterConfig, Outcome, Record};
//!
//! # use kafka_client::fake_broker::{FakeCluster, FakeSettings};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let cluster = FakeCluster::new(FakeSettings::default());
//! # cluster.create_topic("orders", &[1]);
//! # cluster.listen().await?;
//! # let servers = cluster.bootstrap();
//! // "kafka-1:9092,kafka-2:9092"
//! let client = Client::new(ClusterConfig::new(&servers)?.into());
//! let producer = client.producer();
//! let order = Record::new(br#"{"id":42}"#).key(b"customer-7");
//! match producer.send("orders", order, Duration::from_secs(5)).await {
//!     Outcome::Written { partition, offset, .. } => println!("{partition}, {offset:?}"),
//!     Outcome::NotWritten(reason) => println!("it is not in Kafka: {}", reason.chain()),
//!     Outcome::Unknown(reason) => println!("it may be in Kafka: {}", reason.chain()),
//! }
//! client.close(Duration::from_secs(10)).await;
//! # assert_eq!(cluster.log("orders", 0).len(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! # Outcomes
//!
//! A [`Client`] is one cluster and one credential; its [`Producer`]s send records, and each record ends
//! as exactly one [`Outcome`], no later than its deadline plus 100 ms: [`Written`](Outcome::Written),
//! which is acknowledged as `acks` asks; [`NotWritten`](Outcome::NotWritten), which is a promise that
//! every attempt was refused or never left this process; or [`Unknown`](Outcome::Unknown). To send a
//! record again is safe after `NotWritten`, and may duplicate it after `Unknown`. With `acks=all`, the
//! default, the client's own retries duplicate nothing (KIP-98).
//!
//! # Many records
//!
//! [`Producer::send`] waits for the outcome. To have many records under way, call it from as many tasks,
//! or [`Producer::put`] each and keep the [`Ticket`]s. Records that are sent at the same time share
//! batches and requests; `linger.ms` is 0, because batches form by themselves while one is in flight.
//!
//! # Reading
//!
//! [`Client::consumer`] gives a [`Consumer`], which reads partitions by offset and keeps no position:
//! [`Fetched::next_offset`] is where its caller goes on.
//!
//! # Groups
//!
//! [`Client::group`] gives a [`Group`], whose offsets are read and committed without being a member of
//! it, or by a [`Member`]. Members have partitions given and taken away by [`MemberEvents`]; a
//! [`Consumer`] reads them. A group may have members of other clients.
//!
//! # Settings
//!
//! [`ClusterConfig`] (with [`TlsConfig`] and [`SaslLogin`]), [`ProducerConfig`], [`ConsumerConfig`] and
//! [`GroupConfig`] are typed; [`Config::from_properties`] reads the same settings by Kafka's own names, and refuses one that it
//! does not know. Durations are those of the call, and `delivery.timeout.ms` where a call gives none
//! ([`Deadline`]).
//!
//! # Features
//!
//! - `fake_broker`: a cluster in this process that speaks the protocol and fails on command, for tests
//!   without a Kafka.
//! - `gssapi`: Kerberos; needs MIT Kerberos' library.

mod backoff;
mod calls;
mod client;
mod cluster;
mod config;
mod connection;
mod consumer;
mod deadline;
#[cfg(feature = "fake_broker")]
pub mod decoders;
mod error;
#[cfg(feature = "fake_broker")]
pub mod fake_broker;
#[doc(hidden)]
pub mod files;
mod frame;
mod group;
mod handshake;
mod limits;
mod lock;
mod log_throttle;
mod metadata;
mod probe;
mod producer;
pub mod record_batch;
mod resolve;
mod sasl;
mod secret;
mod shape;
mod stage;
mod stats;
mod tasks;
mod tls;
mod versions;
mod watch;

pub use client::Client;
pub use config::reference::{PropertyDoc, properties};
pub use config::{
    Acks, Assignor, ClusterConfig, Config, ConsumerConfig, GroupConfig, GroupProtocol,
    IsolationLevel, Partitioner, ProducerConfig, PropertyError, SaslLogin,
};
pub use consumer::{At, Consumer, Fetched, Position, ReadError, TopicPartitions};
pub use deadline::Deadline;
pub use error::{Cause, NotReady, Reason};
pub use group::{
    Committed, Group, GroupError, GroupEvent, GroupOffset, Member, MemberEvents, Revocation,
};
pub use metadata::TopicListing;
pub use probe::{Probe, TopicOperation};
pub use producer::{Outcome, Permit, Producer, Ticket, Topic, record_size};
pub use record_batch::{BatchError, Headers, Record, StoredRecord};
pub use sasl::{
    AwsBase, AwsClient, AwsKeys, AwsRole, ClockSkew, Credential, CredentialSource, Lease,
    Mechanism, OAuthClient, Obtaining, Presigned, Source, aws_time, is_extension,
};
pub use secret::{Secret, SecretSource};
pub use stage::{ConnectionFailure, Stage};
pub use stats::Stats;
pub use tls::{
    ClientCertificate, HttpsTrust, TlsChecks, TlsConfig, TlsFileError, TlsStatus, TlsTrust,
    TlsVersions,
};
