//! `generate`: writes the files that are made of the code.

use xtask::generate;

use super::Outcome;

pub(crate) fn run() -> anyhow::Result<Outcome> {
    for path in generate::write()? {
        println!("{}", path.display());
    }
    Ok(Outcome::Passed)
}
