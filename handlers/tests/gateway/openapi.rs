//! The server API answers every request as `schema/openapi.json` says. schemathesis makes the requests.

use std::path::PathBuf;
use std::process::Command;

use rollcall_loadtest::servers::target_folder;

use crate::common::Backend;

const TOKEN: &str = "token-of-operators";
/// The number of requests for each operation, in each phase.
const EXAMPLES: &str = "10";
/// Checks that are left out. The first two expect that an unknown header makes a request faulty, and that 1.0 is a
/// whole number. The last one sends wrong tokens, after which the admin address refuses its address for a while.
const EXCLUDED: &str = "positive_data_acceptance,negative_data_rejection,ignored_auth";

/// Returns the path to which `loadtest/setup/schemathesis` installs schemathesis.
fn schemathesis() -> PathBuf {
    let binary = target_folder().join("schemathesis/bin/schemathesis");
    assert!(binary.exists(), "no {}: run loadtest/setup/schemathesis", binary.display());
    binary
}

async fn answers_as_it_is_described(backend: Backend) {
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    alice.joins(&room.algebra).await;
    let admin = backend.gateway.admin();
    let mut command = Command::new(schemathesis());
    command.args(["run", &format!("http://{admin}/api/v1/openapi.json"), "--url", &format!("http://{admin}")]);
    command.args(["--header", &format!("Authorization: Bearer {TOKEN}"), "--phases", "coverage,fuzzing"]);
    command.args(["--checks", "all", "--exclude-checks", EXCLUDED, "--max-examples", EXAMPLES, "--seed", "1"]);
    command.current_dir(backend.gateway.folder());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[tokio::test]
async fn an_embedded_gateway_answers_as_it_is_described() {
    let with_token = |options: &rollcall_loadtest::GatewayOptions| options.clone().env("ROLLCALL_ADMIN_TOKEN", TOKEN);
    answers_as_it_is_described(Backend::embedded().another(with_token)).await;
}

#[tokio::test]
async fn a_gateway_on_postgres_answers_as_it_is_described() {
    let with_token = |options: &rollcall_loadtest::GatewayOptions| options.clone().env("ROLLCALL_ADMIN_TOKEN", TOKEN);
    answers_as_it_is_described(Backend::real().another(with_token)).await;
}
