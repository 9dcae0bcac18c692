//! A small run of the generator against the floor: it counts exactly what was sent, and the report is complete.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::process::Command;

use serde_json::Value;

#[test]
fn the_floor_is_measured_and_reported() {
    let out = tempfile::tempdir().unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_rollcall-loadtest"))
        .args(["floor", "--agents", "300", "--out"])
        .arg(out.path())
        .status()
        .unwrap();
    assert!(status.success());
    let results = fs::read(out.path().join("results.json")).unwrap();
    let results: Value = serde_json::from_slice(&results).unwrap();
    let value = |name: &str| {
        let figures = results["figures"].as_array().unwrap();
        let found = figures.iter().find(|figure| figure["name"] == name);
        found.unwrap()["value"].as_f64().unwrap()
    };
    assert!(value("upgrade and ack: refused or lost") < 1.0);
    assert!(value("upgrade and ack") > 10.0);
    assert!(value("sends to a room of 300") > 10.0);
    let report = fs::read_to_string(out.path().join("report.html")).unwrap();
    assert!(report.contains("sends to a room of 300"));
    assert!(report.contains("https://centrifugal.dev/"), "what peers publish has its sources");
    assert!(!report.contains("src=") && !report.contains("<link"), "it asks for nothing else");
}

#[test]
fn a_gateway_that_is_missing_is_named() {
    let out = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_rollcall-loadtest"))
        .args(["reconnect", "--gateway", "/nowhere/rollcall", "--out"])
        .arg(out.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--gateway"));
}
