//! Writes the files that are made of the code: `cargo xtask generate`.

use kafka_upstream_tests::generate;

fn main() -> anyhow::Result<()> {
    for path in generate::write()? {
        println!("{}", path.display());
    }
    Ok(())
}
