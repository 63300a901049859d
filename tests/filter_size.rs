//! The filter as it is shipped: every worker of a gateway loads and compiles it.

use std::fs;

/// Largest filter in bytes. It has half of that; what doubles it should be worth it.
const MAX_BYTES: u64 = 2 * 1024 * 1024;

#[test]
fn the_filter_stays_small() -> anyhow::Result<()> {
    let path = xtask::build::filter()?;
    let size = fs::metadata(&path)?.len();
    println!("{}: {size} bytes", path.display());
    assert!(size <= MAX_BYTES, "{} has {size} bytes, more than {MAX_BYTES}", path.display());
    Ok(())
}
