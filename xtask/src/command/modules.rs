//! `modules`: a table of each crate's files, and of the imports that run in circles.

use std::path::PathBuf;

use clap::Args;
use xtask::modules::Modules;
use xtask::paths;

use super::Outcome;

#[derive(Args)]
pub(crate) struct Options {
    /// Another checkout of the repository
    #[arg(long)]
    root: Option<PathBuf>,
    /// Names the files of each cycle
    #[arg(long)]
    cycles: bool,
}

/// Folders of sources; each is a crate.
const CRATES: [&str; 8] = [
    "src",
    "core/src",
    "kafka-client/src",
    "schema/src",
    "host-bridge/src",
    "tests/harness/src",
    "bench/src",
    "xtask/src",
];

pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    let root = options.root.clone().unwrap_or_else(paths::workspace);
    println!(
        "| crate | files | lines | median | longest | imports from a parent | cycles | files in cycles |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    let mut named = Vec::new();
    for name in CRATES {
        let modules = Modules::read(&root.join(name))?;
        let cycles = modules.cycles();
        println!(
            "| `{name}` | {} | {} | {} | {} | {} | {} | {} |",
            modules.files(),
            modules.lines(),
            modules.median(),
            modules.longest(),
            modules.upward(),
            cycles.len(),
            cycles.iter().map(Vec::len).sum::<usize>(),
        );
        let names = |cycle: &Vec<&std::path::Path>| {
            let shown = |path: &&std::path::Path| {
                path.strip_prefix(&root).unwrap_or(path).display().to_string()
            };
            cycle.iter().map(shown).collect::<Vec<_>>().join(", ")
        };
        named.extend(cycles.iter().map(names));
    }
    if options.cycles {
        named.iter().for_each(|cycle| println!("\n{cycle}"));
    }
    Ok(Outcome::Passed)
}
