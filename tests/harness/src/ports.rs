//! Loopback ports that are free now and stay free while their owner restarts.

use std::env;
use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::process;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// First port handed out.
const FIRST: u16 = 20_000;

/// How many ports a process has to hand out.
const COUNT: u16 = 3000;

/// How many processes have ports that no other has.
///
/// The last one's end below 32768, where Linux begins to give ports to outgoing connections: a port
/// that the system chose (`bind` to 0) could be taken by a client's connection while a broker restarts.
const BLOCKS: u16 = 4;

/// A port of 127.0.0.1 that nothing listens on, and that this process has not handed out before, of its
/// last 3,000.
///
/// # Errors
/// When every port of the range is taken.
pub fn free() -> io::Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    static BLOCK: LazyLock<Block> = LazyLock::new(Block::claim);
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + (BLOCK.first + step) % (BLOCKS * COUNT);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no free port between 20000 and 32000"))
}

/// Ports of one process: what it has handed out and nothing listens on yet is not given to another.
struct Block {
    first: u16,
    /// Locked until the process ends.
    _claim: Option<File>,
}

impl Block {
    fn claim() -> Self {
        for block in 0..BLOCKS {
            let path = env::temp_dir().join(format!("kafka-upstream-ports-{block}"));
            if let Ok(file) = File::create(path)
                && file.try_lock().is_ok()
            {
                return Self { first: block * COUNT, _claim: Some(file) };
            }
        }
        // One process more than there are blocks begins anywhere.
        let anywhere = process::id().wrapping_mul(97) % u32::from(BLOCKS * COUNT);
        Self { first: u16::try_from(anywhere).unwrap_or_default(), _claim: None }
    }
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

    #[test]
    fn no_two_processes_have_the_same_ports() {
        let (one, other) = (Block::claim(), Block::claim());
        assert!(one._claim.is_none() || one.first.abs_diff(other.first) >= COUNT);
    }
}
