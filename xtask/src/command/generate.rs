//! `generate`: writes the files that are made of the code.

use xtask::build;

use super::Outcome;

pub(crate) fn run() -> anyhow::Result<Outcome> {
    let mut command = build::command();
    command.args(["run", "--package", "kafka-upstream-tests", "--bin", "generate"]);
    Ok(Outcome::of(build::run(command)?))
}
