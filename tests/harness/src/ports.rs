//! Loopback ports that are free now and stay free while their owner restarts.

use std::io;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// First port handed out.
const FIRST: u16 = 20_000;

/// How many ports there are to hand out.
///
/// They end below 32768, where Linux begins to give ports to outgoing connections: a port that
/// the system chose (`bind` to 0) could be taken by a client's connection while a broker restarts.
const COUNT: u16 = 12_000;

/// A port of 127.0.0.1 that nothing listens on, and that this process has not handed out before.
///
/// # Errors
/// When every port of the range is taken.
pub fn free() -> io::Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = first_of_this_process();
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + (start + step) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no free port between 20000 and 32000"))
}

/// Processes begin at different places, so that two that start together do not collide.
fn first_of_this_process() -> u16 {
    let spread = std::process::id().wrapping_mul(97) % u32::from(COUNT);
    u16::try_from(spread).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_distinct_and_can_be_bound() {
        let first = free().unwrap();
        let second = free().unwrap();
        assert_ne!(first, second);
        TcpListener::bind(("127.0.0.1", first)).unwrap();
        TcpListener::bind(("127.0.0.1", second)).unwrap();
    }
}
