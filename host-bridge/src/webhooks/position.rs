//! What is committed with an offset: since when the group reads, why nothing is sent, and what behind the
//! offset is settled.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::halt::Halt;

/// The metadata of an offset, as JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    /// When the group began to read, ms since 1970: a partition without an offset is read from then on.
    pub(super) anchor: i64,
    /// Begins the id of the topic that the offset is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tag: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) halt: Option<Halt>,
    /// As [`Window::runs`](super::window::Window::runs).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) settled: Vec<i64>,
}

impl Note {
    /// What brokers keep: of what is settled as much as fits. The rest is sent again if another bridge
    /// has the partition next.
    pub(super) fn encode(mut self) -> String {
        loop {
            let text = serde_json::to_string(&self).unwrap_or_default();
            if text.len() <= METADATA_BYTES || self.settled.is_empty() {
                return text;
            }
            // A run has two bytes at least.
            let most = self.settled.len() - (text.len() - METADATA_BYTES).div_ceil(RUN_BYTES_MOST);
            self.settled.truncate(most.min(METADATA_BYTES / 2) / 2 * 2);
        }
    }

    /// None of an offset that somebody else has committed.
    pub(super) fn decode(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

/// The settled ones of these runs.
pub(super) fn ranges(position: i64, runs: &[i64]) -> Vec<Range<i64>> {
    let (mut ranges, mut at) = (Vec::new(), position);
    for pair in runs.chunks_exact(2) {
        let [open, settled] = [0, 1].map(|place| pair.get(place).copied().unwrap_or_default());
        let begin = at.saturating_add(open.max(0));
        at = begin.saturating_add(settled.max(0));
        ranges.push(begin..at);
    }
    ranges
}

/// Bytes that brokers keep with an offset (`offset.metadata.max.bytes`).
const METADATA_BYTES: usize = 4096;
/// Digits of a run and a comma, at most.
const RUN_BYTES_MOST: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhooks::halt::Why;

    #[test]
    fn what_is_committed_is_read_again_and_what_others_have_committed_is_nothing() {
        let halt = Halt { why: Why::Paused, reason: "by an operator".to_owned() };
        let note = Note { anchor: 5, tag: Some(7), halt: Some(halt), settled: vec![1, 2, 3, 4] };
        let text = note.clone().encode();
        assert_eq!(
            text,
            r#"{"anchor":5,"tag":7,"halt":{"why":"paused","reason":"by an operator"},"settled":[1,2,3,4]}"#
        );
        assert_eq!(Note::decode(&text), Some(note));
        assert_eq!(Note::default().encode(), r#"{"anchor":0}"#);
        for foreign in ["", "host-1", "{}", "[1]", "{\"anchor\":\"x\"}"] {
            assert_eq!(Note::decode(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn what_does_not_fit_is_left_out_from_its_end() {
        for settled in [vec![1; 10_000], vec![i64::MAX / 10_000; 6000], vec![1; 2000]] {
            let note = Note { settled: settled.clone(), ..Note::default() };
            let text = note.encode();
            assert!(text.len() <= 4096, "{}", text.len());
            let kept = Note::decode(&text).unwrap().settled;
            assert!(settled.starts_with(&kept) && kept.len().is_multiple_of(2));
            assert!(text.len() > 3900, "{}", text.len());
        }
        assert_eq!(ranges(10, &[1, 2, 3, 4]), [11..13, 16..20]);
        assert_eq!(ranges(10, &[]), []);
        assert_eq!(ranges(0, &[-1, i64::MAX, i64::MAX, 1]).len(), 2);
    }
}
