//! A tokio client for Apache Kafka that says what became of each record.
//!
//! A [`Client`] is one cluster; its [`Producer`] sends records, and each record ends as exactly
//! one [`Outcome`]: written, provably not written, or unknown.

mod backoff;
mod calls;
mod client;
mod cluster;
mod config;
mod connection;
#[cfg(feature = "fake_broker")]
pub mod decoders;
mod error;
#[cfg(feature = "fake_broker")]
pub mod fake_broker;
#[doc(hidden)]
pub mod files;
mod frame;
mod handshake;
mod limits;
mod lock;
mod log_throttle;
mod metadata;
mod news;
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

pub use client::Client;
pub use config::{
    Acks, ClusterConfig, Config, Partitioner, ProducerConfig, PropertyDoc, PropertyError,
    SaslLogin, properties,
};
pub use error::{Cause, NotReady, Reason};
pub use metadata::TopicListing;
pub use probe::Probe;
pub use producer::{Outcome, Permit, Producer, Ticket, Topic, record_size};
pub use record_batch::Record;
pub use sasl::{
    AwsBase, AwsClient, AwsKeys, AwsRole, ClockSkew, Credential, CredentialSource, Lease,
    Mechanism, OAuthClient, Obtaining, Presigned, Source, aws_time, is_extension,
};
pub use secret::{Secret, SecretSource};
pub use stage::{Fault, Stage};
pub use stats::Stats;
pub use tls::{
    ClientCertificate, HttpsTrust, TlsChecks, TlsConfig, TlsFileError, TlsStatus, TlsTrust,
    TlsVersions,
};
