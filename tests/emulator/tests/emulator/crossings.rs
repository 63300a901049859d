//! How often a request crosses the border between host and VM, in both directions: each call costs
//! a gateway's processor more than most of what the filter does in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use kafka_upstream_emulator::{Profile, Request, Scene};
use serde_json::json;

/// Requests of a column, and how many are sent in one turn of the event loop.
struct Case {
    name: &'static str,
    profile: Profile,
    is_acked: bool,
    method: &'static str,
    together: usize,
}

const CASES: [Case; 8] = [
    case("acked POST", Profile::Envoy, true, "POST", 1),
    case("acked GET", Profile::Envoy, true, "GET", 1),
    case("32 acked POST", Profile::Envoy, true, "POST", 32),
    case("acked POST, headers go on", Profile::EnvoyNoStop, true, "POST", 1),
    case("memory POST", Profile::Envoy, false, "POST", 1),
    case("memory GET", Profile::Envoy, false, "GET", 1),
    case("WasmX, acked POST", Profile::Wasmx, true, "POST", 1),
    case("APISIX, acked POST", Profile::Apisix, true, "POST", 1),
];

const fn case(
    name: &'static str,
    profile: Profile,
    is_acked: bool,
    method: &'static str,
    together: usize,
) -> Case {
    Case { name, profile, is_acked, method, together }
}

impl Case {
    /// How often each function is called while the requests are served.
    fn crossings(&self) -> BTreeMap<&'static str, u64> {
        let mut scene = Scene::new(
            self.profile,
            json!({ "producer_async": !self.is_acked, "host": self.host() }),
        );
        assert_eq!(scene.ask(self.request()).status(), 200);
        scene.run_for(2000);
        let before = scene.host.crossings();
        let clients: Vec<_> = (0..self.together).map(|_| scene.send(self.request())).collect();
        scene.host.serve(&mut scene.bridge);
        for client in clients {
            assert_eq!(scene.host.seen(client).status(), 200);
        }
        let more = |(name, count): (&'static str, u64)| {
            (name, count - before.get(name).copied().unwrap_or_default())
        };
        scene.host.crossings().into_iter().map(more).filter(|(_, count)| *count > 0).collect()
    }

    fn host(&self) -> &'static str {
        match self.profile {
            Profile::Envoy | Profile::EnvoyNoStop => "envoy",
            Profile::Wasmx => "wasmx",
            Profile::Apisix => "apisix",
        }
    }

    /// As Envoy hands over one of HTTP/1.1: the end comes after the body.
    fn request(&self) -> Request {
        match self.method {
            "POST" => Request { late_end: true, ..Request::post("a body") },
            _ => Request::get("/"),
        }
    }
}

/// `bench/NOTES.md` has the table: it is what is compared.
#[test]
fn a_request_crosses_the_border_as_often_as_is_written_down() {
    let counted: Vec<_> = CASES.iter().map(Case::crossings).collect();
    let mut table = String::from("| |");
    CASES.iter().for_each(|case| table += &format!(" {} |", case.name));
    table += "\n| --- |";
    CASES.iter().for_each(|_| table += " ---: |");
    let called: BTreeSet<_> = counted.iter().flat_map(BTreeMap::keys).copied().collect();
    let (into, out): (Vec<_>, Vec<_>) =
        called.into_iter().partition(|name| name.starts_with("proxy_on_"));
    for (what, names) in [("into the VM", into), ("out of it", out)] {
        let sum = |of: &BTreeMap<_, u64>| names.iter().filter_map(|name| of.get(name)).sum();
        row(&mut table, &format!("**{what}**"), counted.iter().map(sum));
        for name in &names {
            let of = |of: &BTreeMap<_, u64>| of.get(name).copied().unwrap_or_default();
            row(&mut table, &format!("`{name}`"), counted.iter().map(of));
        }
    }
    println!("{table}");
    let notes = fs::read_to_string(xtask::paths::workspace().join("bench/NOTES.md")).unwrap();
    assert!(notes.contains(&table), "bench/NOTES.md has another table than\n{table}");
}

fn row(table: &mut String, name: &str, counts: impl Iterator<Item = u64>) {
    *table += &format!("\n| {name} |");
    for count in counts {
        match count {
            0 => *table += " |",
            count => *table += &format!(" {count} |"),
        }
    }
}
