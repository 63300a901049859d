//! `test`: every check there is, one after the other, with the time that each took.

mod report;
mod running;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread::{self, ScopedJoinHandle};

use anyhow::{Context, anyhow, ensure};
use clap::Args;
use xtask::jobs::side_by_side;
use xtask::prerequisites::{Prerequisite, check, require};
use xtask::progress::Step;
use xtask::tools::{self, KafkaVersion, Kerberos};
use xtask::{build, paths};

use super::binaries::{Binaries, Kind};
use super::{Outcome, mutations};
use report::Report;
use running::Run;

/// GiB that the builds, the fetched tools and the scenarios' logs take.
const DISK: u64 = 10;

/// Modules of end-to-end tests that have the machine for themselves, because they load it so much
/// that others would wait for them, or measure how long an honest request takes. The others run
/// side by side.
const ALONE: [&str; 5] = ["fake_servers", "ledger", "memory", "sizes", "soak"];

/// Those that load it as much, and wait for brokers that start again: two at a time.
const CLUSTERS: [&str; 1] = ["cluster"];

/// Modules of end-to-end tests that mostly wait, for sessions that end and for servers that do not
/// answer: they run beside the others.
const WAITING: [&str; 8] =
    ["configuration", "connection_cases", "gssapi", "msk", "oauth", "sasl", "schema_faults", "tls"];

/// How many end-to-end tests run side by side: the others also wait for processes to start.
const SIDE_BY_SIDE: usize = 3;

/// How many of those that mostly wait run beside them.
const WAIT_SIDE_BY_SIDE: usize = 2;

/// Variables that make tests longer, for `--full`.
const FULL: [(&str, &str); 8] = [
    ("CLUSTER_RECORDS", "200000"),
    ("KAFKA_SIM_SEEDS", "10000"),
    ("MEMORY_REQUESTS", "1000000"),
    ("SOAK_SECONDS", "1800"),
    ("READERS_SECONDS", "600"),
    ("REAUTHENTICATION_SECONDS", "300"),
    ("AT_MOST_ONCE_KILLS", "50"),
    ("ROUNDS", "20000"),
];

/// Variables by which cargo has the workspace's own crates compiled by clippy, with the arguments that
/// `cargo clippy -- -D warnings` hands it: lints cost no build of their own.
const LINTS: [(&str, &str); 3] = [
    ("RUSTC_WORKSPACE_WRAPPER", "clippy-driver"),
    ("CLIPPY_ARGS", "-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__"),
    // What is compiled so is debugged nowhere.
    ("CARGO_PROFILE_DEV_DEBUG", "0"),
];

#[derive(Args)]
pub(crate) struct Options {
    /// Only format, lints, unit tests and the rules of the source: needs no Kafka and no Envoy
    #[arg(long, conflicts_with_all = ["only", "full"])]
    fast: bool,
    /// Only the end-to-end tests whose names have this in them
    #[arg(long, value_name = "FILTER")]
    only: Option<String>,
    /// The long forms too: more records, requests and seeds, librdkafka as a peer; some hours
    #[arg(long)]
    full: bool,
}

/// What the tests run with.
struct Setup {
    binaries: Binaries,
    variables: Vec<(&'static str, OsString)>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    check(&prerequisites(options))?;
    if !options.fast {
        require(Prerequisite::WasmTarget)?;
    }
    let mut report = Report::default();
    let ran = steps(options, &mut report);
    // What was measured is shown also when a build failed.
    println!("{}", report.summary());
    ran?;
    Ok(Outcome::of(report.passed()))
}

fn steps(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    if options.only.is_none() {
        report.step("format", |_| cargo(&["fmt", "--all", "--check"]))?;
    }
    if options.fast {
        let setup = report.step("build and lints", |_| natives(None))?;
        return unit_tests(report, &setup);
    }
    let setup = report.step("downloads, build and lints", |_| prepare(options))?;
    if let Some(filter) = &options.only {
        let run = Run::new(1).filter(filter);
        return report
            .step("end-to-end tests", |report| setup.run(&[Kind::EndToEnd], &run, report));
    }
    thread::scope(|scope| {
        let lints = scope.spawn(lint_demo);
        unit_tests(report, &setup)?;
        report.step("lints of what the demo builds", |_| joined(lints))
    })?;
    report.step("mutations", mutations)?;
    let emulator = |report: &mut Report| setup.run(&[Kind::Emulator], &Run::new(2), report);
    report.step("emulated gateways", emulator)?;
    end_to_end(report, &setup)?;
    demos(report, &setup)?;
    if options.full {
        report.step("demo, from its command", |_| demo_command())?;
        report.step("librdkafka as a peer", |_| librdkafka())?;
    }
    Ok(())
}

fn prerequisites(options: &Options) -> Vec<Prerequisite> {
    // What is built already is not built again.
    let disk = if prebuilt().exists() { DISK / 4 } else { DISK };
    let mut wanted = vec![Prerequisite::Compiler, Prerequisite::Clippy, Prerequisite::Disk(disk)];
    if !options.fast {
        wanted.extend([Prerequisite::Pip, Prerequisite::Java, Prerequisite::Jdk]);
        wanted.extend([
            Prerequisite::Maven,
            Prerequisite::Go,
            Prerequisite::Npm,
            Prerequisite::Apt,
        ]);
    }
    wanted
}

/// Builds everything while everything else is fetched. The filter that is shipped is optimized as a
/// whole, on one processor: the other compiles what is native.
fn prepare(options: &Options) -> anyhow::Result<Setup> {
    fs::create_dir_all(prebuilt()).with_context(|| prebuilt().display().to_string())?;
    let (sender, built) = mpsc::channel();
    let native = move || {
        let setup = natives(Some(&tools::kerberos()?))?;
        trapping_filter()?;
        Ok(sender.send(setup)?)
    };
    side_by_side(vec![
        Box::new(native),
        Box::new(shipped_filter),
        Box::new(fetch_from_maven_and_go),
        Box::new(fetch_envoy_and_packages),
    ])?;
    let mut setup = built.recv().context("nothing was built")?;
    setup.variables.push((build::PREBUILT, prebuilt().into()));
    if options.full {
        setup.variables.extend(FULL.map(|(name, value)| (name, value.into())));
    }
    Ok(setup)
}

fn fetch_from_maven_and_go() -> anyhow::Result<()> {
    tools::kafka_libs(KafkaVersion::V4_3)?;
    tools::kafka_libs(KafkaVersion::V3_9)?;
    tools::msk_libs()?;
    tools::apicurio()?;
    tools::custom_resource_definitions()?;
    tools::func_e().map(drop)
}

fn fetch_envoy_and_packages() -> anyhow::Result<()> {
    tools::envoy()?;
    tools::kcat()?;
    tools::nginx()?;
    tools::haproxy()?;
    tools::caddy()?;
    tools::chromium()?;
    tools::pubsub_client()?;
    tools::standard_webhooks()?;
    tools::websockets()?;
    tools::ws()?;
    tools::confluent_kafka()?;
    tools::kubernetes_validate()?;
    tools::standard_webhooks_of_node()?;
    tools::sse_client().map(drop)
}

/// The folder of what end-to-end tests run.
fn prebuilt() -> PathBuf {
    paths::target().join("prebuilt")
}

fn shipped_filter() -> anyhow::Result<()> {
    replace(&build::filter()?, &prebuilt().join(build::FILTER))
}

/// Clippy compiles it, and so reads the sources of both.
fn trapping_filter() -> anyhow::Result<()> {
    let lints = LINTS.map(|(name, value)| (name, value.into()));
    replace(&build::build_filter_with_trap(lints.to_vec())?, &prebuilt().join(build::TRAP))
}

/// Everything that is not wasm, compiled once, by clippy: programs, tests and benchmarks.
fn natives(kerberos: Option<&Kerberos>) -> anyhow::Result<Setup> {
    let (mut command, mut variables) = (build::command(), Vec::new());
    command.args(["build", "--workspace", "--exclude", "kafka-upstream", "--all-targets"]);
    command.envs(LINTS);
    if let Some(kerberos) = kerberos {
        let gssapi = ["kafka-client", "host-bridge", "kafka-upstream-tests"];
        let features = gssapi.map(|package| format!("{package}/gssapi")).join(",");
        command.args(["--features", &features]).envs(kerberos.build_env()?);
        variables.push(kerberos.run_env()?);
    }
    let step = Step::begin("building everything native");
    let binaries = Binaries::build(command)?;
    step.done();
    fs::create_dir_all(prebuilt())?;
    replace(binaries.program(build::BRIDGE)?, &prebuilt().join(build::BRIDGE))?;
    Ok(Setup { binaries, variables })
}

fn unit_tests(report: &mut Report, setup: &Setup) -> anyhow::Result<()> {
    let kinds = [Kind::Rules, Kind::Unit];
    report.step("unit tests", |report| setup.run(&kinds, &Run::new(2), report))
}

/// Whether the unit tests notice what they are there for.
fn mutations(report: &mut Report) -> anyhow::Result<()> {
    if let Outcome::Failed = mutations::run(&mutations::Options::default())? {
        report.fail("a mutation is not detected".to_owned());
    }
    Ok(())
}

fn end_to_end(report: &mut Report, setup: &Setup) -> anyhow::Result<()> {
    let only = |run: Run, modules: &[&str]| {
        modules.iter().fold(run, |run, module| run.filter(&format!("{module}::")))
    };
    let others = [&ALONE[..], &CLUSTERS, &WAITING]
        .concat()
        .iter()
        .fold(Run::new(SIDE_BY_SIDE), |run, module| run.skip(&format!("{module}::")));
    let waiting = only(Run::new(WAIT_SIDE_BY_SIDE), &WAITING);
    let (clusters, alone) = (only(Run::new(2), &CLUSTERS), only(Run::new(1), &ALONE));
    let kind = &[Kind::EndToEnd];
    report.step("end-to-end, side by side", |report| {
        thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let mut report = Report::default();
                setup.run(kind, &waiting, &mut report)?;
                Ok(report)
            });
            setup.run(kind, &others, report)?;
            report.add(joined(waiting)?);
            Ok(())
        })
    })?;
    for (name, run) in [("end-to-end, clusters", clusters), ("end-to-end, alone", alone)] {
        report.step(name, |report| setup.run(kind, &run, report))?;
    }
    report.step("benchmarks", |report| setup.run(&[Kind::Bench], &Run::new(1), report))
}

/// What a thread returned.
fn joined<T>(thread: ScopedJoinHandle<'_, anyhow::Result<T>>) -> anyhow::Result<T> {
    thread.join().map_err(|_| anyhow!("a step panicked"))?
}

fn demos(report: &mut Report, setup: &Setup) -> anyhow::Result<()> {
    report.step("demo", |_| setup.demo(&[]))?;
    report.step("demo, embedded broker", |_| setup.demo(&["--memory"]))?;
    let home = paths::target().join("func-e");
    let home = home.to_str().context("the path of the target folder is not UTF-8")?;
    report.step("func-e", |_| setup.demo(&["--func-e", home]))
}

/// As a person types it.
fn demo_command() -> anyhow::Result<()> {
    let mut command = build::command();
    command.args(["xtask", "demo", "--check"]).envs(LINTS);
    ensure!(build::run(command)?, "`cargo xtask demo --check` failed");
    Ok(())
}

/// The bridge without Kerberos, and without what tests ask of its libraries.
fn lint_demo() -> anyhow::Result<()> {
    let packages = ["--package", "host-bridge", "--package", "kafka-upstream-harness", "--bins"];
    cargo(&[&["clippy"], &packages[..], &["--", "-D", "warnings"]].concat())
}

/// What the feature `librdkafka` of the benchmarks adds.
fn librdkafka() -> anyhow::Result<()> {
    let package = ["--package", "kafka-upstream-bench", "--features", "librdkafka"];
    cargo(&[&["clippy", "--all-targets"], &package[..], &["--", "-D", "warnings"]].concat())?;
    cargo(&[&["test"], &package[..]].concat())
}

fn cargo(arguments: &[&str]) -> anyhow::Result<()> {
    let mut command = build::command();
    command.args(arguments);
    ensure!(build::run(command)?, "cargo {} failed", arguments.join(" "));
    Ok(())
}

impl Setup {
    fn run(&self, kinds: &[Kind], run: &Run, report: &mut Report) -> anyhow::Result<()> {
        let before = report.ran();
        for binary in self.binaries.tests(kinds) {
            run.binary(binary, &self.variables, report)?;
        }
        ensure!(report.ran() > before, "no test has run");
        Ok(())
    }

    fn demo(&self, more: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new(self.binaries.program("demo")?);
        command.arg("--filter").arg(prebuilt().join(build::FILTER));
        command.arg("--bridge").arg(prebuilt().join(build::BRIDGE));
        command.args(["--check"]).args(more).current_dir(paths::workspace());
        command.envs(self.variables.iter().cloned());
        ensure!(build::run(command)?, "the demo failed");
        Ok(())
    }
}

/// Puts a file at another place; a program that runs from there keeps its own.
fn replace(from: &Path, to: &Path) -> anyhow::Result<()> {
    let fresh = to.with_extension("new");
    fs::copy(from, &fresh).with_context(|| from.display().to_string())?;
    fs::rename(&fresh, to).with_context(|| to.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_run_needs_no_kafka_and_no_envoy() {
        let options = Options { fast: true, only: None, full: false };
        let fast = prerequisites(&options);
        assert!(fast.contains(&Prerequisite::Clippy) && !fast.contains(&Prerequisite::Maven));
        let options = Options { fast: false, ..options };
        assert!(prerequisites(&options).contains(&Prerequisite::Maven));
    }
}
