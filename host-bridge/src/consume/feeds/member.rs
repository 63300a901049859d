//! The bridge as a member of its readers' groups.

use std::time::Duration;

use super::fields::{Fields, NAME, is_name};

/// The bridge among the members of groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemberOf {
    /// Its own name.
    pub(crate) instance: Option<String>,
    /// What it has goes to others when it was not heard of for so long.
    pub(crate) session: Duration,
}

impl Default for MemberOf {
    fn default() -> Self {
        Self { instance: None, session: Duration::from_millis(SESSION_MS as u64) }
    }
}

impl MemberOf {
    /// Reads `instance_id` and `session_timeout_ms` of `[feeds]`.
    pub(super) fn read(fields: &mut Fields<'_>) -> Self {
        let instance = fields.text("instance_id");
        if instance.as_ref().is_some_and(|instance| !is_name(instance)) {
            fields.fault("instance_id", NAME);
        }
        let session = fields.number("session_timeout_ms", SESSION_MS_RANGE, SESSION_MS);
        Self { instance, session: Duration::from_millis(session as u64) }
    }
}

/// As Kafka's clients have it, and what brokers take unless configured otherwise.
const SESSION_MS: usize = 45_000;
const SESSION_MS_RANGE: (usize, usize) = (6000, 1_800_000);
