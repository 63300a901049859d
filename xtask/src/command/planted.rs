//! `planted`: breaks a rule of the Kafka client, and looks whether the tests notice; patch by patch.

mod patch;
mod scratch;

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::ensure;
use clap::Args;
use xtask::paths;
use xtask::progress::{Step, seconds};

use super::Outcome;
use patch::{Patch, Target, Test};
use scratch::{Run, Scratch};

#[derive(Args)]
pub(crate) struct Options {
    /// Only the patches whose names have this in them
    #[arg(value_name = "FILTER")]
    filter: Option<String>,
}

/// What became of one patch.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Each of its tests has failed.
    Caught,
    /// These tests have not.
    Missed(Vec<String>),
    /// Nothing was shown: it does not apply, does not compile, or does not end.
    Broken(String),
}

pub(crate) async fn run(options: &Options) -> anyhow::Result<Outcome> {
    let is_meant =
        |patch: &Patch| options.filter.as_deref().is_none_or(|filter| patch.name.contains(filter));
    let folder = paths::workspace().join("kafka-client/tests/planted");
    let mut patches = Patch::all(&folder)?;
    patches.retain(is_meant);
    ensure!(!patches.is_empty(), "no such patch in {}", folder.display());
    let scratch = Scratch::new()?;
    let step = Step::begin("the tests pass as long as nothing is planted");
    unplanted(&scratch, &patches).await?;
    step.done();
    let (begin, mut uncaught) = (Instant::now(), 0);
    for patch in &patches {
        let since = Instant::now();
        let verdict = judge(&scratch, patch).await?;
        uncaught += usize::from(verdict != Verdict::Caught);
        println!("{}", row(patch, &verdict, &seconds(since.elapsed())));
    }
    let (all, took) = (patches.len(), seconds(begin.elapsed()));
    println!("{} of {all} planted bugs are caught, in {took}", all - uncaught);
    Ok(if uncaught == 0 { Outcome::Passed } else { Outcome::Failed })
}

/// Every test that a patch names exists, and passes.
async fn unplanted(scratch: &Scratch, patches: &[Patch]) -> anyhow::Result<()> {
    let named: BTreeSet<&Test> = patches.iter().flat_map(|patch| &patch.tests).collect();
    for (target, names) in by_target(named) {
        let run = scratch.test(target, &names, scratch::FIRST_BUILD).await?;
        for name in names {
            let passed = run.passed(name);
            let what = if passed.is_none() { "is not there" } else { "fails" };
            ensure!(passed == Some(true), "{name} {what} without a planted bug\n{}", run.tail());
        }
    }
    Ok(())
}

async fn judge(scratch: &Scratch, patch: &Patch) -> anyhow::Result<Verdict> {
    if let Err(error) = scratch.apply(&patch.path).await {
        return Ok(Verdict::Broken(format!("{error:#}")));
    }
    let mut runs = Vec::new();
    for (target, names) in by_target(&patch.tests) {
        let run = scratch.test(target, &names, scratch::PATIENCE).await;
        runs.push((names, run));
    }
    scratch.revert(&patch.path).await?;
    let mut missed = Vec::new();
    for (names, run) in runs {
        match run {
            Err(error) => return Ok(Verdict::Broken(format!("{error:#}"))),
            Ok(run) if !run.is_complete() => {
                return Ok(Verdict::Broken(format!("the tests have not run\n{}", run.tail())));
            }
            Ok(run) => missed.extend(not_failed(&run, &names)),
        }
    }
    Ok(if missed.is_empty() { Verdict::Caught } else { Verdict::Missed(missed) })
}

fn not_failed(run: &Run, names: &[&str]) -> Vec<String> {
    let missed = names.iter().filter(|name| run.passed(name) != Some(false));
    missed.map(|name| (*name).to_owned()).collect()
}

fn by_target<'a>(tests: impl IntoIterator<Item = &'a Test>) -> Vec<(Target, Vec<&'a str>)> {
    let mut lib = Vec::new();
    let mut simulation = Vec::new();
    for test in tests {
        match test.target {
            Target::Lib => lib.push(test.name.as_str()),
            Target::Simulation => simulation.push(test.name.as_str()),
        }
    }
    let groups = [(Target::Lib, lib), (Target::Simulation, simulation)];
    groups.into_iter().filter(|(_, names)| !names.is_empty()).collect()
}

fn row(patch: &Patch, verdict: &Verdict, took: &str) -> String {
    let mark = match verdict {
        Verdict::Caught => "caught",
        Verdict::Missed(_) => "MISSED",
        Verdict::Broken(_) => "BROKEN",
    };
    let mut row = format!("{mark}  {:<44} {took:>8}", patch.name);
    for test in &patch.tests {
        let is_missed = matches!(verdict, Verdict::Missed(missed) if missed.contains(&test.name));
        let note = if is_missed { "  does not notice" } else { "" };
        row += &format!("\n          {}{note}", test.name);
    }
    match verdict {
        Verdict::Caught => row,
        Verdict::Missed(_) => format!("{row}\n          {}", patch.breaks),
        Verdict::Broken(why) => format!("{row}\n{why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patch() -> Patch {
        let text = "Breaks: All is lost.\nTest: lib a::b\nTest: simulation c\nTest: lib d\n";
        Patch::parse("lost.patch".into(), text).unwrap()
    }

    #[test]
    fn tests_of_one_target_run_together() {
        let patch = patch();
        let groups = by_target(&patch.tests);
        let expected = [(Target::Lib, vec!["a::b", "d"]), (Target::Simulation, vec!["c"])];
        assert_eq!(groups, expected);
    }

    #[test]
    fn every_named_test_must_fail() {
        let run = Run::read("test a ... FAILED\ntest b ... ok\n\ntest result: FAILED.");
        assert_eq!(not_failed(&run, &["a"]), [""; 0]);
        assert_eq!(not_failed(&run, &["a", "b", "c"]), ["b", "c"]);
    }

    #[test]
    fn a_row_tells_which_test_is_blind() {
        let shown = row(&patch(), &Verdict::Missed(vec!["c".to_owned()]), "1.0 s");
        assert!(shown.starts_with("MISSED  lost "), "{shown}");
        assert!(shown.contains("c  does not notice") && shown.ends_with("All is lost."));
    }

    #[test]
    fn the_patches_of_this_workspace_can_be_read() {
        let folder = paths::workspace().join("kafka-client/tests/planted");
        assert!(Patch::all(&folder).unwrap().len() >= 25);
    }
}
