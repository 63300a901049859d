//! Reading Kafka over HTTP: feeds as configured, cursors, queries and envelopes.

pub(crate) mod cursor;
pub(crate) mod envelope;
pub(crate) mod feeds;
pub(crate) mod page;
pub(crate) mod query;
pub(crate) mod refusal;
pub(crate) mod serve;
pub(crate) mod start;
