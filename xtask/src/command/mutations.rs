//! `mutations`: adds bugs to a copy of the Kafka client and the schemas, and looks whether the tests detect each.

mod diff;
mod patch;
mod run;
mod scratch;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use xtask::paths;
use xtask::progress::{Step, seconds};

use super::Outcome;
use super::binaries::Binaries;
use patch::{Patch, Target, Test};
use run::{FEW_SEEDS, Run, SEEDS};
use scratch::Scratch;

/// Where the patches are.
const FOLDERS: [&str; 2] = ["kafka-client/tests/mutations", "schema/tests/mutations"];

/// Mutations that are tried at a time.
const SIDE_BY_SIDE: usize = 2;

/// For the tests that one mutation names. All but a few take less than a second.
const PATIENCE: Duration = Duration::from_secs(120);

/// For all named tests, when no mutation is on.
const BASELINE_PATIENCE: Duration = Duration::from_secs(300);

#[derive(Args, Default)]
pub(crate) struct Options {
    /// Only the mutations whose names have this in them
    #[arg(value_name = "FILTER")]
    filter: Option<String>,
}

/// What became of one mutation.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Each of its tests has failed.
    Detected,
    /// These tests have not.
    NotDetected(Vec<String>),
    /// Nothing was shown: its patch does not fit, or its tests are not there or do not end.
    Broken(String),
}

/// The one build that has all mutations in it, and what its tests come to when none is on.
struct Build {
    scratch: Scratch,
    binaries: Binaries,
    baseline: Vec<(Target, Run)>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    let begin = Instant::now();
    let patches = patches()?;
    let is_meant =
        |patch: &&Patch| options.filter.as_deref().is_none_or(|it| patch.name.contains(it));
    let meant: Vec<_> = patches.iter().filter(is_meant).collect();
    ensure!(!meant.is_empty(), "no such patch in {}", FOLDERS.join(" and "));
    // Whichever are meant: another selection would be another build.
    let build = Build::new(&patches, &meant).context("BROKEN")?;
    let (next, undetected) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        while let Some(patch) = meant.get(next.fetch_add(1, Relaxed)) {
            let since = Instant::now();
            let verdict = build.judge(patch);
            undetected.fetch_add(usize::from(verdict != Verdict::Detected), Relaxed);
            println!("{}", row(patch, &verdict, &seconds(since.elapsed())));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(work);
        }
    });
    let (all, undetected) = (meant.len(), undetected.into_inner());
    let took = seconds(begin.elapsed());
    println!("{} of {all} mutations are detected, in {took}", all - undetected);
    Ok(if undetected == 0 { Outcome::Passed } else { Outcome::Failed })
}

fn patches() -> anyhow::Result<Vec<Patch>> {
    let mut patches = Vec::new();
    for folder in FOLDERS {
        patches.extend(Patch::all(&paths::workspace().join(folder))?);
    }
    Ok(patches)
}

impl Build {
    fn new(patches: &[Patch], meant: &[&Patch]) -> anyhow::Result<Self> {
        let step = Step::begin("building the tests with all mutations");
        let scratch = Scratch::new(patches)?;
        let binaries = scratch.build()?;
        step.done();
        let step = Step::begin("running them without a mutation");
        let named: BTreeSet<&Test> = meant.iter().flat_map(|patch| &patch.tests).collect();
        let mut baseline = Vec::new();
        for (target, names) in by_target(named) {
            let parts = (&scratch, &binaries);
            let run = Run::of(parts, (target, &names), None, SEEDS, BASELINE_PATIENCE)?;
            ensure!(run.is_complete(), "the tests crash without a mutation\n{}", run.tail());
            baseline.push((target, run));
        }
        step.done();
        Ok(Self { scratch, binaries, baseline })
    }

    fn judge(&self, patch: &Patch) -> Verdict {
        if let Some(why) = self.scratch.unfit.get(&patch.name) {
            return Verdict::Broken(why.clone());
        }
        if let Some(why) = patch.tests.iter().find_map(|test| self.unusable(test)) {
            return Verdict::Broken(why);
        }
        let mut missed = Vec::new();
        for (target, names) in by_target(&patch.tests) {
            match self.mutated(&patch.name, target, &names) {
                Ok(run) if run.is_complete() => missed.extend(not_failed(&run, &names)),
                Ok(run) => return Verdict::Broken(format!("the tests crash\n{}", run.tail())),
                Err(error) => return Verdict::Broken(format!("{error:#}")),
            }
        }
        if missed.is_empty() { Verdict::Detected } else { Verdict::NotDetected(missed) }
    }

    /// Why nothing can be learnt from a test, if so.
    fn unusable(&self, test: &Test) -> Option<String> {
        let (_, run) = self.baseline.iter().find(|(target, _)| *target == test.target)?;
        match run.passed(&test.name) {
            Some(true) => None,
            Some(false) => Some(format!("{} fails without a mutation\n{}", test.name, run.tail())),
            None => Some(format!("{} is not there", test.name)),
        }
    }

    /// Runs these tests with a mutation on.
    fn mutated(&self, name: &str, target: Target, names: &[&str]) -> anyhow::Result<Run> {
        let run = |seeds| {
            let parts = (&self.scratch, &self.binaries);
            Run::of(parts, (target, names), Some(name), seeds, PATIENCE)
        };
        let few = run(FEW_SEEDS)?;
        let is_enough = target != Target::Simulation || not_failed(&few, names).is_empty();
        if is_enough { Ok(few) } else { run(SEEDS) }
    }
}

fn not_failed(run: &Run, names: &[&str]) -> Vec<String> {
    let missed = names.iter().filter(|name| run.passed(name) != Some(false));
    missed.map(|name| (*name).to_owned()).collect()
}

fn by_target<'a>(tests: impl IntoIterator<Item = &'a Test>) -> Vec<(Target, Vec<&'a str>)> {
    let mut groups = Target::ALL.map(|(target, _)| (target, Vec::new()));
    for test in tests {
        let own = groups.iter_mut().filter(|(target, _)| *target == test.target);
        own.for_each(|(_, names)| names.push(test.name.as_str()));
    }
    groups.into_iter().filter(|(_, names)| !names.is_empty()).collect()
}

fn row(patch: &Patch, verdict: &Verdict, took: &str) -> String {
    let mark = match verdict {
        Verdict::Detected => "detected",
        Verdict::NotDetected(_) => "NOT DETECTED",
        Verdict::Broken(_) => "BROKEN",
    };
    let mut row = format!("{mark:<12}  {:<44} {took:>8}", patch.name);
    for test in &patch.tests {
        let is_missed =
            matches!(verdict, Verdict::NotDetected(missed) if missed.contains(&test.name));
        let note = if is_missed { "  does not fail" } else { "" };
        row += &format!("\n              {}{note}", test.name);
    }
    match verdict {
        Verdict::Detected => row,
        Verdict::NotDetected(_) => format!("{row}\n              {}", patch.breaks),
        Verdict::Broken(why) => format!("{row}\n{why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patch() -> Patch {
        let head = "Breaks: All is lost.\nTest: lib a::b\nTest: simulation c\nTest: lib d";
        let diff = "+++ b/x.rs\n@@ -1 +1 @@\n a\n+crate::mutation::is(\"lost\");\n";
        Patch::parse("lost".to_owned(), &format!("{head}\n\n{diff}")).unwrap()
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
    fn a_row_tells_which_test_does_not_fail() {
        let shown = row(&patch(), &Verdict::NotDetected(vec!["c".to_owned()]), "1.0 s");
        assert!(shown.starts_with("NOT DETECTED  lost "), "{shown}");
        assert!(shown.contains("c  does not fail\n") && shown.ends_with("All is lost."));
    }
}
