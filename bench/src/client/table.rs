//! Medians of all rounds and their ratios, as a table for people and as JSON for machines.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::measure::Figures;
use super::settings::{Cell, Peer};
use crate::statistics::{median, range, spread_percent};

/// Rows in the order in which they were first measured.
#[derive(Debug)]
pub(super) struct Table {
    peers: &'static [Peer],
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    cell: Cell,
    /// Each client with its figures, round by round.
    rounds: Vec<(Peer, Vec<Figures>)>,
}

impl Table {
    pub(super) fn of(peers: &'static [Peer]) -> Self {
        Self { peers, rows: Vec::new() }
    }

    pub(super) fn add(&mut self, cell: Cell, peer: Peer, figures: Figures) {
        let known = self.rows.iter().position(|row| row.cell == cell);
        let place = known.unwrap_or_else(|| {
            self.rows.push(Row {
                cell,
                rounds: self.peers.iter().map(|peer| (*peer, Vec::new())).collect(),
            });
            self.rows.len() - 1
        });
        let row = self.rows.get_mut(place).map(|row| &mut row.rounds);
        let of_peer = row.into_iter().flatten().find(|(known, _)| *known == peer);
        of_peer.into_iter().for_each(|(_, rounds)| rounds.push(figures));
    }

    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "{:18} {:^33}  {:^51}  {:^36}\n{:<18}",
            "",
            "thousand records/s",
            "thousand records/CPU s (spread)",
            "kafka-client: times, per CPU s",
            "record codec acks"
        );
        for (width, gap) in [(11, "  "), (17, "  ")] {
            for peer in self.peers {
                let _written = write!(text, "{:>width$}", peer.name());
            }
            text.push_str(gap);
        }
        for peer in self.peers.iter().filter(|peer| is_compared(**peer)) {
            let _written = write!(text, "{:>18}", peer.name());
        }
        text.push('\n');
        self.rows.iter().for_each(|row| row.put(&mut text));
        text
    }

    pub(super) fn json(&self) -> Value {
        self.rows.iter().map(Row::json).collect()
    }
}

impl Row {
    fn put(&self, text: &mut String) {
        let Cell { record_bytes, codec, promise } = &self.cell;
        // Writing to a string cannot fail.
        let _written = write!(text, "{record_bytes:>4} B {codec:<5} {:<6}", promise.acks());
        for (_, rounds) in &self.rounds {
            let rate = median(rounds.iter().map(|round| round.rate));
            let _written = write!(text, "{:>11.0}", rate / 1000.0);
        }
        text.push_str("  ");
        for (_, rounds) in &self.rounds {
            let rates: Vec<f64> = rounds.iter().map(|round| round.cpu_rate).collect();
            let spread = format!("({:.0} %)", spread_percent(&rates));
            let middle = median(rates.iter().copied());
            let _written = write!(text, "{:>9.0} {spread:>7}", middle / 1000.0);
        }
        text.push_str("  ");
        for (peer, _) in self.rounds.iter().filter(|(peer, _)| is_compared(*peer)) {
            let ratios = self.ratios(*peer);
            let (low, high) = range(ratios.iter().copied());
            let _written = write!(text, "{:>5.2} ({low:>4.2}–{high:>4.2})", median(ratios));
        }
        text.push('\n');
    }

    /// How many times the records per CPU second of `peer` we have, round by round.
    fn ratios(&self, peer: Peer) -> Vec<f64> {
        let of = |peer: Peer| {
            let found = self.rounds.iter().find(|(known, _)| *known == peer);
            found.map_or(&[][..], |(_, rounds)| rounds.as_slice())
        };
        let pairs = of(Peer::Ours).iter().zip(of(peer));
        pairs.map(|(ours, other)| ours.cpu_rate / other.cpu_rate).collect()
    }

    fn json(&self) -> Value {
        let Cell { record_bytes, codec, promise } = &self.cell;
        let clients = self.rounds.iter().map(|(peer, rounds)| {
            let of = |rate: fn(&Figures) -> f64| {
                let rates: Vec<f64> = rounds.iter().map(rate).collect();
                json!({"median": median(rates.iter().copied()), "rounds": rates})
            };
            let properties: Value =
                peer.properties(&self.cell).into_iter().map(|(n, v)| (n.to_owned(), v)).collect();
            let figures = json!({
                "properties": properties,
                "records_per_second": of(|round| round.rate),
                "records_per_cpu_second": of(|round| round.cpu_rate),
            });
            (peer.name().to_owned(), figures)
        });
        let clients: Value = clients.collect();
        let ratio = |peer: Peer| (peer.name().to_owned(), json!(median(self.ratios(peer))));
        let compared = self.rounds.iter().map(|(peer, _)| *peer).filter(|peer| is_compared(*peer));
        let ratios: Value = compared.map(ratio).collect();
        json!({
            "record_bytes": record_bytes,
            "codec": codec,
            "acks": promise.acks(),
            "clients": clients,
            "ratio_per_cpu_second": ratios,
        })
    }
}

/// Whether ours is compared with it.
fn is_compared(peer: Peer) -> bool {
    peer != Peer::Ours
}

#[cfg(test)]
mod tests {
    use super::super::settings::{PEERS, Promise};
    use super::*;

    #[test]
    fn rounds_are_compared_in_pairs() {
        let cell = Cell { record_bytes: 100, codec: "lz4", promise: Promise::All };
        let mut table = Table::of(PEERS);
        for cpu_rates in [[400.0, 100.0], [90.0, 30.0], [500.0, 100.0]] {
            for (peer, cpu_rate) in [Peer::Ours, Peer::Java].into_iter().zip(cpu_rates) {
                table.add(cell, peer, Figures { rate: 1000.0, cpu_rate });
            }
        }
        let ratios = &table.json()[0]["ratio_per_cpu_second"];
        assert_eq!(ratios["Java"], json!(4.0));
        assert!(table.text().contains("4.00 (3.00–5.00)"), "{}", table.text());
    }
}
