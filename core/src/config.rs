//! The plugin configuration, checked: only this form travels further.

mod document;
mod field;
#[cfg(test)]
mod kong_examples;
mod parse;
mod plugin;
mod producer;
mod raw;
mod record;
#[cfg(feature = "schema")]
pub mod schema;
mod settings;

pub use self::field::ConfigError;
pub use self::parse::{nearest, parse_section};
pub use self::plugin::{Plugin, Rule};
pub use self::producer::{check_registry, check_subject};
pub use self::raw::{Host, Mode};
pub use self::settings::{BatchLimits, Bridge, Gating, QueueLimits, Settings};
