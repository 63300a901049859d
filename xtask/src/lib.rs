//! Parts that the developer commands and the end-to-end stories share: real tools, run for real.

pub mod bridge;
pub mod build;
pub mod envoy;
pub mod generate;
pub mod http;
pub mod kafka;
pub mod kdc;
pub mod load;
pub mod paths;
pub mod ports;
pub mod process;
pub mod progress;
pub mod reader;
pub mod run_dir;
pub mod samples;
pub mod stack;
pub mod tools;
