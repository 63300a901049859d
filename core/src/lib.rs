//! Everything the filter and host-bridge decide alike: configuration, message formats, batching,
//! outcomes and the bytes between them, without clocks, sockets or host calls.

pub mod body;
pub mod callout;
pub mod capture;
pub mod config;
pub mod expression;
pub mod format;
pub mod limits;
pub mod outbox;
pub mod outcome;
pub mod pairs;
pub mod profile;
pub mod record;
pub mod request;
pub mod time;
pub mod wire;
