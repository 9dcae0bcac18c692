//! A shell script in place of the gateway's process. It prints the lines that PROTOCOL 7 promises.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use rollcall_loadtest::{Gateway, GatewayOptions};

const SOON: Duration = Duration::from_secs(5);

fn script(folder: &tempfile::TempDir, text: &str) -> PathBuf {
    let path = folder.path().join("rollcall");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn its_addresses_are_read_and_outlive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let options = GatewayOptions::new(script(
        &folder,
        r#"echo "secret: $ROLLCALL_HS256_SECRET, $NATS_URL"
        echo "listening on $ROLLCALL_LISTEN"
        echo "admin on $ROLLCALL_ADMIN_LISTEN"
        exec sleep 60"#,
    ));
    let mut gateway = Gateway::start(options.env("NATS_URL", "nats://here")).unwrap();
    let (address, admin) = (gateway.address(), gateway.admin());
    assert!(gateway.output().contains("a secret for tests"));
    assert!(gateway.output().contains("nats://here"));
    let pid = gateway.pid();
    gateway.restart().unwrap();
    assert_ne!(gateway.pid(), pid);
    assert_eq!((gateway.address(), gateway.admin()), (address, admin));
    gateway.terminate().unwrap();
    assert!(!gateway.wait(SOON).unwrap().success());
}

#[test]
fn one_that_ends_at_once_is_an_error_with_its_last_words() {
    let folder = tempfile::tempdir().unwrap();
    let options = GatewayOptions::new(script(&folder, "echo 'no key configured'; exit 64"));
    let error = Gateway::start(options).err().unwrap().to_string();
    assert!(error.contains("no key configured"), "{error}");
    assert!(error.contains("64"), "{error}");
}
