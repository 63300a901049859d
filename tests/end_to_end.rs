//! Every end-to-end test, in one program: it is linked once.

mod acks;
mod batches;
mod bridge;
mod callouts;
mod cluster;
mod compression;
mod configuration;
mod connections;
mod doors;
mod faults;
mod fields;
mod filter_size;
mod formats;
mod gateway;
#[cfg(feature = "gssapi")]
mod gssapi;
mod harness_envoy;
mod harness_kafka;
mod hostile;
mod impostors;
mod ledger;
mod memory;
mod messages;
mod msk;
mod oauth;
mod places;
mod queued;
mod readers;
mod reload;
mod replicas;
mod rules;
mod sasl;
mod shipped;
mod sizes;
mod survival;
mod tls;
