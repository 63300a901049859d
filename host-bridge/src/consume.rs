//! Reading Kafka over HTTP: feeds as configured, the hub that reads for all, pages and event streams.

mod acks;
mod ahead;
mod asking;
pub(crate) mod authorization;
mod connections;
pub(crate) mod cursor;
mod cursor_text;
pub(crate) mod dead_letters;
mod decoding;
pub(crate) mod delivery;
mod ending;
pub(crate) mod envelope;
pub(crate) mod feed_metrics;
pub(crate) mod feeds;
#[cfg(test)]
mod fixture;
pub(crate) mod follow;
mod globs;
pub(crate) mod gone;
pub(crate) mod groups;
pub(crate) mod hub;
mod json_text;
mod matching;
pub(crate) mod memory;
pub(crate) mod page;
mod page_body;
mod positions;
mod pubsub;
pub(crate) mod query;
pub(crate) mod reader;
pub(crate) mod refusal;
pub(crate) mod select;
pub(crate) mod selection;
pub(crate) mod serve;
#[cfg(test)]
mod served;
mod socket;
pub(crate) mod source;
mod sources;
mod sse;
pub(crate) mod start;
mod steps;
mod stream;
mod timer;
pub(crate) mod topic_log;
pub(crate) mod topics;
pub(crate) mod waiting;
