//! The figures, each beside what it should be.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use harness::kafka::KafkaVersion;
use serde_json::{Value, json};
use xtask::paths;

use crate::client::machine;
use crate::statistics::{median, range};

/// What was measured, in its rounds.
#[derive(Debug, Default)]
pub(super) struct Report(Vec<Figure>);

#[derive(Debug)]
struct Figure {
    name: String,
    unit: &'static str,
    values: Vec<f64>,
    bound: Option<Bound>,
}

/// What a figure should be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Bound {
    Most(f64),
    Least(f64),
}

impl Report {
    /// Adds a round of a figure.
    pub(super) fn add(&mut self, name: impl Into<String>, unit: &'static str, value: f64) {
        self.put(name.into(), unit, value, None);
    }

    /// As [`Self::add`], with a bound.
    pub(super) fn judge(
        &mut self,
        name: impl Into<String>,
        unit: &'static str,
        value: f64,
        bound: Bound,
    ) {
        self.put(name.into(), unit, value, Some(bound));
    }

    fn put(&mut self, name: String, unit: &'static str, value: f64, bound: Option<Bound>) {
        eprintln!("{name}: {} {unit}", rounded(value));
        match self.0.iter_mut().find(|figure| figure.name == name) {
            Some(figure) => figure.values.push(value),
            None => self.0.push(Figure { name, unit, values: vec![value], bound }),
        }
    }

    /// Shows the figures, and writes those of every round to `path`, or to `target/bench`.
    pub(super) fn finish(&self, name: &str, path: Option<&Path>) -> anyhow::Result<()> {
        println!("{}", self.text());
        let default = paths::target().join(format!("bench/{name}.json"));
        let path = path.unwrap_or(&default);
        let text = json!({
            "machine": machine::description(),
            "kafka": KafkaVersion::V4_3.number(),
            "figures": self.json(),
        });
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(path, format!("{text:#}\n"))
            .with_context(|| format!("cannot write {}", path.display()))?;
        println!("figures: {}", path.display());
        Ok(())
    }

    fn text(&self) -> String {
        let lines = self.0.iter().map(|figure| {
            let (low, high) = range(figure.values.iter().copied());
            let spread = match figure.values.len() {
                1 => String::new(),
                _ => format!("({}–{})", rounded(low), rounded(high)),
            };
            let middle = format!("{} {}", rounded(figure.middle()), figure.unit);
            format!("{:<62} {middle:>16} {spread:<18} {}", figure.name, figure.verdict())
        });
        lines.map(|line| format!("{}\n", line.trim_end())).collect()
    }

    fn json(&self) -> Value {
        let figure = |figure: &Figure| {
            json!({
                "name": figure.name,
                "unit": figure.unit,
                "median": figure.middle(),
                "rounds": figure.values,
                "holds": figure.holds(),
            })
        };
        self.0.iter().map(figure).collect()
    }
}

impl Figure {
    fn middle(&self) -> f64 {
        median(self.values.iter().copied())
    }

    fn holds(&self) -> Option<bool> {
        Some(match self.bound? {
            Bound::Most(most) => self.middle() <= most,
            Bound::Least(least) => self.middle() >= least,
        })
    }

    fn verdict(&self) -> String {
        let (Some(bound), Some(holds)) = (self.bound, self.holds()) else { return String::new() };
        let bound = match bound {
            Bound::Most(most) => format!("≤ {}", rounded(most)),
            Bound::Least(least) => format!("≥ {}", rounded(least)),
        };
        format!("{bound} {}", if holds { "holds" } else { "MISSED" })
    }
}

/// Three digits, or all before the point.
fn rounded(value: f64) -> String {
    match value.abs() {
        0.0..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_held_to_the_bound() {
        let mut report = Report::default();
        for value in [1.0, 9.0, 2.0] {
            report.judge("a", "µs", value, Bound::Most(2.0));
            report.judge("b", "/s", value, Bound::Least(2.5));
        }
        let text = report.text();
        assert!(text.contains("2.00 µs (1.00–9.00)"), "{text}");
        assert!(text.contains("≤ 2.00 holds") && text.contains("≥ 2.50 MISSED"), "{text}");
    }
}
