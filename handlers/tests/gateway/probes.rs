//! PROTOCOL 7 in a container: the probes' address, the command that an image's health check runs, and a pod's name.

use std::net::SocketAddr;
use std::process::Output;

use crate::common::{Polling, SOON, until};
use rollcall_loadtest::{Gateway, GatewayOptions, token};
use serde_json::{Value, json};

fn options() -> GatewayOptions {
    GatewayOptions::new(env!("CARGO_BIN_EXE_rollcall"))
}

fn health(options: &GatewayOptions, arguments: &[&str]) -> Output {
    options.command().arg("health").args(arguments).output().unwrap()
}

#[tokio::test]
async fn a_container_is_probed_at_an_address_of_its_own() {
    let mut gateway = Gateway::start(options().env("ROLLCALL_PROBE_LISTEN", "127.0.0.1:0")).unwrap();
    let line = |output: &String| output.split_once("probes on ").is_some_and(|(_, rest)| rest.contains('\n'));
    let printed = until("the probes' address", SOON, async || gateway.output(), line).await;
    let (_, rest) = printed.split_once("probes on ").unwrap();
    let probes: SocketAddr = rest.lines().next().unwrap().parse().unwrap();
    // If a gateway listens on all addresses, as in the image, the health check asks it on loopback.
    let everywhere = options().env("ROLLCALL_PROBE_LISTEN", format!("0.0.0.0:{}", probes.port()));
    let admin = options().env("ROLLCALL_ADMIN_LISTEN", gateway.admin());
    for asks in [&everywhere, &admin] {
        for arguments in [&[][..], &["--ready"]] {
            let output = health(asks, arguments);
            assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
        }
    }
    gateway.kill().unwrap();
    let output = health(&everywhere, &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("ROLLCALL_PROBE_LISTEN"), "{output:?}");
}

#[tokio::test]
async fn a_pods_name_is_the_nodes_label() {
    let gateway = Gateway::start(options().env("ROLLCALL_NODE_LABEL", "rollcall-7d9f.a")).unwrap();
    let (_, nodes) = gateway.get("/api/v1/nodes").unwrap();
    let nodes: Value = serde_json::from_str(&nodes).unwrap();
    assert_eq!(nodes["nodes"][0]["label"], "rollcall-7d9f.a");
    let client = Polling::connect(gateway.address(), &json!({"token": token::participant("alice")})).await;
    assert_eq!(client.node(), "rollcall-7d9f-a", "balancers route by it");
}
