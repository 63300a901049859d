//! `test`: every check there is, one after the other, with a summary.

use std::env;
use std::ffi::OsString;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use xtask::build;
use xtask::paths;
use xtask::process::Process;
use xtask::progress::seconds;
use xtask::tools;

use super::Outcome;

#[derive(Args)]
pub(crate) struct Options {
    /// Leaves out planted bugs, and what needs Kafka, Envoy or cargo-deny
    #[arg(long, conflicts_with = "only")]
    fast: bool,
    /// Runs only the end-to-end tests whose names have this in them
    #[arg(long, value_name = "FILTER")]
    only: Option<String>,
}

/// A command that must succeed.
struct Step {
    name: &'static str,
    program: OsString,
    arguments: Vec<String>,
    variables: Vec<(&'static str, OsString)>,
}

pub(crate) async fn run(options: &Options) -> anyhow::Result<Outcome> {
    let mut results = Vec::new();
    for step in steps(options).await? {
        eprintln!("\n── {}: {}", step.name, step.shown());
        let begin = Instant::now();
        let passed = step.run().await?;
        results.push((step.name, passed, begin.elapsed()));
    }
    println!("\n{}", summary(&results));
    let all = results.iter().all(|(_, passed, _)| *passed);
    Ok(if all { Outcome::Passed } else { Outcome::Failed })
}

async fn steps(options: &Options) -> anyhow::Result<Vec<Step>> {
    if let Some(filter) = &options.only {
        return Ok(vec![stories(Some(filter))]);
    }
    let mut steps = static_checks();
    steps.extend(unit_tests());
    if !options.fast {
        steps.push(own("planted bugs", "planted")?);
        steps.push(deny().await?);
        steps.extend(end_to_end()?);
        steps.extend(kerberos().await?);
    }
    Ok(steps)
}

fn static_checks() -> Vec<Step> {
    vec![
        cargo("format", "fmt --all --check"),
        cargo(
            "lints, native",
            "clippy --workspace --all-targets --exclude kafka-upstream -- -D warnings",
        ),
        cargo(
            "lints, wasm",
            "clippy --package kafka-upstream --target wasm32-wasip1 -- -D warnings",
        ),
    ]
}

fn unit_tests() -> Vec<Step> {
    vec![
        cargo(
            "unit tests",
            "test --no-fail-fast --workspace --exclude kafka-upstream \
             --exclude kafka-upstream-tests --exclude kafka-upstream-emulator --exclude xtask",
        ),
        cargo("unit tests, xtask", "test --package xtask --lib --bins"),
        cargo("rules of the source", "test --package kafka-upstream-tests --test tidy"),
    ]
}

fn end_to_end() -> anyhow::Result<Vec<Step>> {
    Ok(vec![
        cargo("parts", "test --package xtask --test * -- --test-threads=1"),
        cargo("emulated gateways", "test --no-fail-fast --package kafka-upstream-emulator"),
        stories(None),
        own("func-e", "func-e --check")?,
        own("demo", "demo --check")?,
    ])
}

/// What the feature `gssapi` adds; everything before needs no Kerberos.
async fn kerberos() -> anyhow::Result<Vec<Step>> {
    let variables = tokio::task::spawn_blocking(|| tools::kerberos()?.build_env()).await??;
    let packages = "--package kafka-client --package host-bridge";
    let mut steps = vec![
        cargo(
            "lints, gssapi",
            &format!(
                "clippy {packages} --package kafka-upstream-tests --all-targets \
                 --features gssapi -- -D warnings"
            ),
        ),
        cargo(
            "unit tests, gssapi",
            &format!("test {packages} --features gssapi --lib -- sasl access"),
        ),
        cargo(
            "gssapi",
            "test --no-fail-fast --package kafka-upstream-tests --features gssapi --test gssapi \
             -- --test-threads=1",
        ),
    ];
    for step in &mut steps {
        step.variables.clone_from(&variables);
    }
    Ok(steps)
}

/// Another command of this program.
fn own(name: &'static str, arguments: &str) -> anyhow::Result<Step> {
    let program = env::current_exe().context("cannot tell where this program is")?;
    Ok(step(name, program.into_os_string(), arguments))
}

/// The end-to-end tests, one at a time: each has the machine for itself.
fn stories(filter: Option<&String>) -> Step {
    let mut step = cargo(
        "end-to-end tests",
        "test --no-fail-fast --package kafka-upstream-tests -- --test-threads=1",
    );
    step.arguments.extend(filter.cloned());
    step
}

/// The first time this builds cargo-deny, for some minutes. Advisories are left to
/// `cargo deny check advisories`, which needs GitHub.
async fn deny() -> anyhow::Result<Step> {
    let binary = tokio::task::spawn_blocking(tools::cargo_deny).await??;
    Ok(step("dependencies", binary.into_os_string(), "--workspace check licenses bans sources"))
}

fn cargo(name: &'static str, arguments: &str) -> Step {
    let program = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    step(name, program, arguments)
}

fn step(name: &'static str, program: OsString, arguments: &str) -> Step {
    Step { name, program, arguments: words(arguments), variables: Vec::new() }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

impl Step {
    fn shown(&self) -> String {
        let program = std::path::Path::new(&self.program).file_name().unwrap_or(&self.program);
        format!("{} {}", program.display(), self.arguments.join(" "))
    }

    async fn run(&self) -> anyhow::Result<bool> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).current_dir(paths::workspace());
        command.envs(self.variables.iter().cloned());
        build::forget_package(&mut command);
        let mut process = Process::spawn_in_terminal(self.name, command)?;
        Ok(process.wait().await?.success())
    }
}

fn summary(results: &[(&str, bool, Duration)]) -> String {
    let line = |(name, passed, took): &(&str, bool, Duration)| {
        format!("{}  {name:<22} {:>12}", if *passed { "ok  " } else { "FAIL" }, seconds(*took))
    };
    results.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_has_a_line_for_each_step() {
        let results =
            [("format", true, Duration::from_secs(1)), ("demo", false, Duration::from_secs(130))];
        assert_eq!(
            summary(&results),
            "ok    format                        1.0 s\nFAIL  demo                     2 min 10 s"
        );
    }

    #[tokio::test]
    async fn a_fast_run_needs_no_kafka() {
        let options = Options { fast: true, only: None };
        let names: Vec<_> = steps(&options).await.unwrap().iter().map(|step| step.name).collect();
        assert!(names.contains(&"unit tests") && !names.contains(&"end-to-end tests"));
    }

    #[tokio::test]
    async fn a_filter_runs_the_stories_alone() {
        let options = Options { fast: false, only: Some("outage".to_owned()) };
        let steps = steps(&options).await.unwrap();
        assert_eq!(steps.len(), 1);
        assert!(steps[0].shown().ends_with("-- --test-threads=1 outage"));
    }
}
