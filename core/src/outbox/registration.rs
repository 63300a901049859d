//! Where the profile stands with the bridge.

use std::time::Duration;

use crate::outcome::{Code, Reason};

/// Where the profile stands with the bridge. `refused` is why the bridge has refused the profile or
/// the filter's token, if it has and has not accepted them since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Registration {
    /// As far as we know the bridge has it.
    Held,
    /// The bridge does not know it.
    Needed { refused: Option<Code> },
    /// The callout that registers it is in flight.
    InFlight { refused: Option<Code> },
    /// It failed, and is repeated at `again_at` even if no batch needs it: while it is refused no
    /// request is queued, so no batch would.
    Failed { refused: Option<Code>, again_at: Duration },
}

impl Registration {
    /// Why nothing may be queued that depends on it.
    pub(super) const fn refused(self) -> Option<Code> {
        match self {
            Self::Held => None,
            Self::Needed { refused }
            | Self::InFlight { refused }
            | Self::Failed { refused, .. } => refused,
        }
    }

    /// Whether the callout that registers it is to be sent now.
    pub(super) fn is_due(self, now: Duration) -> bool {
        match self {
            Self::Held | Self::InFlight { .. } => false,
            Self::Needed { .. } => true,
            Self::Failed { again_at, .. } => again_at <= now,
        }
    }

    pub(super) const fn is_in_flight(self) -> bool {
        matches!(self, Self::InFlight { .. })
    }

    pub(super) const fn send(&mut self) {
        *self = Self::InFlight { refused: self.refused() };
    }

    /// The bridge does not know the profile.
    pub(super) const fn on_unknown(&mut self) {
        if !self.is_in_flight() {
            *self = Self::Needed { refused: self.refused() };
        }
    }

    /// It failed. Where it `repeats` it is sent again by itself, else when the bridge asks for it.
    pub(super) fn on_failed(&mut self, reason: &Reason, repeats: bool, now: Duration) {
        let refuses = matches!(reason.code, Code::ProfileRefused | Code::BridgeUnauthorized);
        let refused = if refuses { Some(reason.code) } else { self.refused() };
        *self = match repeats {
            true => Self::Failed { refused, again_at: now + REGISTER_AGAIN },
            false => Self::Held,
        };
    }
}

/// Until a failed registration is repeated.
const REGISTER_AGAIN: Duration = Duration::from_secs(5);
