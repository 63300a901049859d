//! Streams of frames, and the handshake that is made of them.

use kafka_client::decoders::{HANDSHAKE_FRAME_BYTES, READ_STEP_BYTES, frames, handshake};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::memory::peak;
use crate::{KIB, MIB, changed, changes};

/// A buffer doubles, and holds the old one while it does: 3 times the bytes, and a read's room.
fn bound(bytes: usize) -> usize {
    4 * bytes + 2 * READ_STEP_BYTES + 8 * KIB
}

fn stream(sizes: &[usize]) -> Vec<u8> {
    let mut stream = Vec::new();
    for size in sizes {
        stream.extend_from_slice(&u32::try_from(*size).unwrap().to_be_bytes());
        stream.resize(stream.len() + size, 7);
    }
    stream
}

/// A frame with an ApiVersions answer, as a broker of version 4.1 begins.
fn hello() -> Vec<u8> {
    let body = [0, 0, 0, 1, 0, 0, 3, 0, 0, 0, 0, 0, 9, 0, 0, 3, 0, 4, 0, 13, 0, 0, 0, 0, 0, 0];
    [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], &body].concat()
}

#[test]
fn a_handshake_ends_with_a_sound_answer() {
    assert_eq!(handshake(&hello()), Ok(true));
    for cut in 0..hello().len() {
        assert_eq!(handshake(&hello()[..cut]), Ok(false), "{cut}");
    }
}

#[test]
fn a_large_frame_takes_4_times_its_bytes_at_most() {
    for bytes in [100 * KIB, MIB, 5 * MIB, 33 * MIB] {
        let stream = stream(&[bytes]);
        let (got, peak) = peak(|| frames(100 * MIB, stream.chunks(READ_STEP_BYTES)));
        assert_eq!(got, Ok(vec![bytes]));
        println!("frame of {bytes}: peak {peak}, factor {:.2}", peak as f64 / bytes as f64);
        assert!(peak <= bound(bytes), "{bytes}: {peak}");
    }
}

#[test]
fn a_promise_before_the_handshake_is_cut_at_its_limit() {
    let promise = u32::try_from(HANDSHAKE_FRAME_BYTES + 1).unwrap().to_be_bytes();
    let (got, peak) = peak(|| handshake(&promise));
    assert!(got.is_err() && peak <= bound(0), "{got:?}, {peak}");
}

proptest! {
    #[test]
    fn arbitrary_streams_are_cut_or_refused(bytes in vec(any::<u8>(), 0..2000), cut in 1usize..99) {
        let ((), peak) = peak(|| {
            let _ = frames(1000, bytes.chunks(cut));
            let _ = handshake(&bytes);
        });
        prop_assert!(peak <= bound(bytes.len()), "{peak}");
    }

    #[test]
    fn a_changed_stream_is_cut_or_refused(
        sizes in vec(4usize..200, 1..9), changes in changes(), cut in 1usize..99,
    ) {
        let sound = stream(&sizes);
        prop_assert_eq!(frames(1000, sound.chunks(cut)), Ok(sizes));
        let bytes = changed(&sound, &changes);
        let (_, peak) = peak(|| frames(1000, bytes.chunks(cut)));
        prop_assert!(peak <= bound(bytes.len()), "{peak}");
    }

    #[test]
    fn a_changed_handshake_ends_or_is_refused(changes in changes()) {
        let bytes = changed(&hello(), &changes);
        let (_, peak) = peak(|| handshake(&bytes));
        prop_assert!(peak <= bound(bytes.len()), "{peak}");
    }
}
