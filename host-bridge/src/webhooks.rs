//! Webhooks: records of feeds, sent to receivers over HTTP.

mod cloudevents;
pub(crate) mod config;
mod credentials;
mod halt;
mod item;
mod message;
pub(crate) mod metrics;
mod opening;
mod partition;
mod permission;
mod place;
mod position;
mod progress;
mod receiver;
mod redelivery;
mod retry;
pub(crate) mod routes;
pub(crate) mod running;
mod signature;
mod source;
mod subscription;
#[cfg(test)]
mod tests;
mod webhook;
mod window;
