//! Real parts that the demo, the end-to-end tests and the benchmarks run: Envoy, host-bridge, Kafka
//! and a KDC, each a process that ends with its owner; clients and readers that judge them.

pub mod bridge;
pub mod envoy;
pub mod http;
pub mod kafka;
pub mod kdc;
pub mod load;
pub mod ports;
pub mod process;
pub mod reader;
pub mod record;
pub mod registry;
pub mod run_dir;
pub mod samples;
pub mod stack;
