//! No bytes from the wire make a decoder panic, or take more memory than its stated bound.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test reports by panicking")]
#![allow(missing_docs, unreachable_pub, reason = "a test has no users")]

mod answers;
mod batches;
mod codecs;
mod frames;
mod groups;
mod memory;

use proptest::prelude::*;
use proptest::sample::Index;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Some bytes set to something else, as a list of places and values.
fn changes() -> impl Strategy<Value = Vec<(Index, u8)>> {
    let byte = prop_oneof![Just(0), Just(1), Just(0x7f), Just(0x80), Just(0xff), any::<u8>()];
    proptest::collection::vec((any::<Index>(), byte), 1..5)
}

fn changed(bytes: &[u8], changes: &[(Index, u8)]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (at, byte) in changes {
        let at = at.index(bytes.len());
        bytes[at] = *byte;
    }
    bytes
}
