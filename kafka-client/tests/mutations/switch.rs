//! Which mutation is on. This module is in the scratch copy of `cargo xtask mutations` only.

use std::sync::OnceLock;

/// Whether this process runs under the mutation of that name; without the variable, under none.
pub(crate) fn is(name: &str) -> bool {
    static ON: OnceLock<Option<String>> = OnceLock::new();
    let on = ON.get_or_init(|| std::env::var("KAFKA_CLIENT_MUTATION").ok());
    on.as_deref() == Some(name)
}
