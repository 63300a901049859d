//! Medians of all rounds, as a table for people and as JSON for machines.

use serde_json::{Value, json};

use super::cell::Figures;
use super::statistics::{median, range};

/// Rows in the order in which they were first measured.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    target: &'static str,
    connections: usize,
    rounds: Vec<Figures>,
}

impl Table {
    pub(super) fn add(&mut self, target: &'static str, connections: usize, figures: Figures) {
        let same = |row: &&mut Row| row.target == target && row.connections == connections;
        match self.rows.iter_mut().find(same) {
            Some(row) => row.rounds.push(figures),
            None => self.rows.push(Row { target, connections, rounds: vec![figures] }),
        }
    }

    /// How many times the requests per second of another target one target has.
    pub(super) fn ratio(&self, target: &str, other: &str, connections: usize) -> Option<f64> {
        let rps = |name: &str| {
            let row =
                self.rows.iter().find(|row| row.target == name && row.connections == connections);
            row.map(|row| row.median(|figures| figures.rps))
        };
        Some(rps(target)? / rps(other)?)
    }

    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "{:69}CPU time per request\n{:>11}  {:<26}{:>10}{:>9}{:>9}{:>9}{:>10}{:>8}\n",
            "",
            "connections",
            "target",
            "requests/s",
            "p50 ms",
            "p99 ms",
            "Envoy µs",
            "bridge µs",
            "sum µs"
        );
        let mut connections = None;
        for row in &self.rows {
            if connections.replace(row.connections) != Some(row.connections) {
                text.push('\n');
            }
            text.push_str(&row.text());
        }
        text
    }

    /// Each row's CPU time per request as a multiple of a baseline's: of the medians, and of the
    /// rounds, which were measured in pairs.
    pub(super) fn against(&self, baseline: &Self) -> String {
        let mut text = format!(
            "{:39}CPU time per request against the baseline\n{:>11}  {:<26}{:>12}{:>18}{:>16}\n",
            "", "connections", "target", "of medians", "median of rounds", "rounds"
        );
        for (row, other) in self.rows.iter().zip(&baseline.rows) {
            let rounds: Vec<f64> = row
                .rounds
                .iter()
                .zip(&other.rounds)
                .map(|(a, b)| a.cpu_us() / b.cpu_us())
                .collect();
            let (low, high) = range(rounds.iter().copied());
            text.push_str(&format!(
                "{:>11}  {:<26}{:>12.3}{:>18.3}{:>16}\n",
                row.connections,
                row.target,
                row.median(Figures::cpu_us) / other.median(Figures::cpu_us),
                median(rounds),
                format!("{low:.2} to {high:.2}"),
            ));
        }
        text
    }

    pub(super) fn json(&self) -> Value {
        self.rows.iter().map(Row::json).collect()
    }
}

impl Row {
    fn median(&self, of: impl Fn(&Figures) -> f64) -> f64 {
        median(self.rounds.iter().map(of))
    }

    fn text(&self) -> String {
        let ms = |us: f64| us / 1000.0;
        let other = self.median(|figures| figures.other);
        let note = if other > 0.0 { format!("  {other:.0} other replies") } else { String::new() };
        format!(
            "{:>11}  {:<26}{:>10.0}{:>9.2}{:>9.2}{:>9.1}{:>10.1}{:>8.1}{note}\n",
            self.connections,
            self.target,
            self.median(|figures| figures.rps),
            ms(self.median(|figures| figures.p50_us)),
            ms(self.median(|figures| figures.p99_us)),
            self.median(|figures| figures.envoy_us),
            self.median(|figures| figures.bridge_us),
            self.median(Figures::cpu_us),
        )
    }

    fn json(&self) -> Value {
        json!({
            "target": self.target,
            "connections": self.connections,
            "rounds": self.rounds.len(),
            "requests_per_second": self.median(|figures| figures.rps),
            "p50_us": self.median(|figures| figures.p50_us),
            "p99_us": self.median(|figures| figures.p99_us),
            "cpu_us_per_request": {
                "envoy": self.median(|figures| figures.envoy_us),
                "bridge": self.median(|figures| figures.bridge_us),
                "sum": self.median(Figures::cpu_us),
            },
            "other_replies": self.median(|figures| figures.other),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(rps: f64) -> Figures {
        Figures { rps, p50_us: 500.0, p99_us: 900.0, envoy_us: 20.0, bridge_us: 5.0, other: 0.0 }
    }

    #[test]
    fn the_median_of_the_rounds_counts() {
        let mut table = Table::default();
        for rps in [10.0, 500.0, 30.0] {
            table.add("a", 1, figures(rps));
        }
        table.add("b", 1, figures(10.0));
        table.add("b", 1, figures(20.0));
        assert_eq!(table.ratio("a", "b", 1), Some(2.0));
        assert_eq!(table.ratio("a", "b", 32), None);
        assert_eq!(table.json()[0]["cpu_us_per_request"]["sum"], 25.0);
        let mut baseline = Table::default();
        baseline.add("a", 1, Figures { envoy_us: 45.0, ..figures(10.0) });
        assert!(table.against(&baseline).contains("0.500"), "{}", table.against(&baseline));
        assert_eq!(table.text().lines().filter(|line| line.contains("0.50")).count(), 2);
    }
}
