//! What the filter and host-bridge share: configuration, message formats, batching,
//! outcomes and the bytes between them, without clocks, sockets or host calls.

pub mod access;
pub mod body;
pub mod callout;
pub mod capture;
pub mod config;
pub mod expression;
pub mod format;
pub mod gateway;
pub mod limits;
pub mod matching;
pub mod outbox;
pub mod outcome;
pub mod pairs;
pub mod paused;
pub mod per_request;
pub mod profile;
pub mod query;
pub mod record;
pub mod record_headers;
pub mod registry;
pub mod reply;
pub mod request;
pub mod secret;
pub mod targets;
pub mod throttle;
pub mod time;
pub mod wire;
