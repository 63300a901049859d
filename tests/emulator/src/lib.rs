//! The hosts of the filter as an executable model: one thread, a virtual clock, scripted clients
//! and a scripted bridge. What would crash, hang or corrupt on the real host ends the test.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a host for tests reports by panicking"
)]

pub mod abi;
mod apisix;
pub mod bridge;
pub mod callout;
pub mod client;
mod envoy;
mod host;
mod hostcalls;
pub mod imports;
mod nginx;
mod observe;
pub mod profile;
pub mod rule;
mod running;
pub mod scene;
pub mod small;
mod vm;
mod wasi;
mod wasmx;
mod world;

pub use bridge::{Bridge, Does};
pub use callout::{Callout, Ending};
pub use client::{Reply, Request, Seen};
pub use host::{Client, Host, Route};
pub use profile::{FailurePolicy, Profile, Settings};
pub use rule::Rule;
pub use scene::{SERVED, Scene, configuration};
pub use small::Small;
pub use vm::Guest;
pub use wasi::EPOCH_MS;
pub use world::Log;
