//! `cargo xtask`: builds and fetches the filter, the bridge, Envoy and Kafka, and runs them.

mod command;

use std::process::ExitCode;

use clap::Parser;

use command::{Command, Outcome};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Runs the filter, the bridge, Envoy and Kafka")]
#[command(after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask demo --broker memory                     a look at it, without Java
  cargo xtask up --kafka 3.9 --brokers 3               something to send requests to
  cargo xtask test --fast                              what a change needs at least
  cargo xtask test --only faults::                     end-to-end tests by name
  cargo xtask mutations                                whether the tests of the client notice bugs
  cargo xtask bench envoy --rounds 5 --only memory     one row of a benchmark
  cargo xtask generate                                 after a change of a configuration's fields
  cargo xtask modules --cycles                         files, lines and imports that run in circles";

fn main() -> ExitCode {
    match Arguments::parse().command.run() {
        Ok(Outcome::Passed) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_command_is_understood() {
        let examples = EXAMPLES.lines().skip(1);
        let examples = examples.map(|line| line.split("   ").next().unwrap_or_default());
        let examples = examples.map(|line| line.split_whitespace().skip(2).map(str::to_owned));
        let documented = xtask::documents::commands("cargo xtask").unwrap();
        for words in documented.into_iter().chain(examples.map(Iterator::collect)) {
            let words = std::iter::once("cargo xtask").chain(words.iter().map(String::as_str));
            let words: Vec<_> = words.collect();
            if words.len() > 1 && words != ["cargo xtask", "…"] {
                let parsed = Arguments::try_parse_from(&words);
                let shows_help = |error: &clap::Error| !error.use_stderr();
                let fault = parsed.err().filter(|error| !shows_help(error));
                assert!(fault.is_none(), "{words:?}: {fault:?}");
            }
        }
    }
}
