//! Why nothing of a partition is sent: an operator has paused it, a record could not be delivered, or the
//! receiver is gone for good.

use serde::{Deserialize, Serialize};

/// Why nothing is sent until an operator resumes the webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Halt {
    pub(super) why: Why,
    /// In words.
    pub(super) reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Why {
    /// By an operator.
    Paused,
    /// By a record that could not be delivered.
    Stopped,
    /// By the receiver: 410.
    Disabled,
}

impl Why {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Disabled => "disabled",
        }
    }
}

impl Halt {
    /// The words are kept with each offset.
    pub(super) fn new(why: Why, reason: &str) -> Self {
        let end = reason.floor_char_boundary(REASON_BYTES);
        Self { why, reason: reason.get(..end).unwrap_or_default().to_owned() }
    }
}

const REASON_BYTES: usize = 300;
