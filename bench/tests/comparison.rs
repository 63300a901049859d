//! The comparison of clients, from its start to its table, with few records.

use std::process::Command;

use serde_json::Value;

#[test]
fn every_client_is_measured_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("client.json");
    let mut bench = Command::new(env!("CARGO_BIN_EXE_bench"));
    bench.args(["client", "--rounds", "1", "--records", "300"]);
    bench.args(["--cell", "100 none all", "--json"]).arg(&json);
    let output = bench.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("100 B none"), "{table}");
    let report: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let cell = &report["cells"][0];
    for client in ["kafka-client", "Java"] {
        let rates = &cell["clients"][client]["records_per_cpu_second"]["rounds"];
        assert!(rates[0].as_f64().unwrap() > 0.0, "{cell}");
    }
}
