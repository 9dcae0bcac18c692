//! The output of the process (PROTOCOL 7): when nobody reads it, and the log as JSON in every case.

use std::fs::File;
use std::io::pipe;
use std::process::{Command, Stdio};

use rollcall_loadtest::servers::free_port;
use rollcall_loadtest::{Gateway, GatewayOptions, admin};
use serde_json::Value;

use crate::common::failpoint::{arm, breakable};
use crate::common::{SOON, until};

fn options() -> GatewayOptions {
    GatewayOptions::new(env!("CARGO_BIN_EXE_rollcall"))
}

/// Gives a command a reader that has closed the output, as `head` does.
fn unread(command: &mut Command) -> &mut Command {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    command.stdout(writer)
}

fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

#[test]
fn a_command_whose_output_is_closed_or_full_does_not_panic() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [&["check"][..], &["migrate"], &["token", "--sub", "alice"]] {
        let output = unread(options().command().args(arguments)).current_dir(&folder).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
        let output = options().command().args(arguments).current_dir(&folder).stdout(full()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains("error: the output: "), "{arguments:?}: {said}");
    }
    // The exit code reports the fault that stderr cannot report.
    let mut faulty = options().env("ROLLCALL_LEASE", "soon").command();
    assert_eq!(faulty.stderr(full()).status().unwrap().code(), Some(64));
}

#[tokio::test]
async fn a_gateway_serves_also_if_nobody_can_read_what_it_prints() {
    for closes in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port().unwrap();
        let options = options().env("ROLLCALL_LISTEN", "127.0.0.1:0").without("ROLLCALL_HS256_SECRET");
        let mut command = options.env("ROLLCALL_ADMIN_LISTEN", format!("127.0.0.1:{port}")).command();
        command.current_dir(&folder).stderr(full());
        let command = if closes { unread(&mut command) } else { command.stdout(full()) };
        let mut gateway = command.stdin(Stdio::null()).spawn().unwrap();
        let ready = async || (admin::get(([127, 0, 0, 1], port).into(), "/readyz").ok(), gateway.try_wait().unwrap());
        let (answer, ended) =
            until("an answer", SOON, ready, |(answer, ended)| answer.is_some() || ended.is_some()).await;
        gateway.kill().unwrap();
        gateway.wait().unwrap();
        assert_eq!((answer.map(|(status, _)| status), ended), (Some(200), None));
    }
}

#[tokio::test]
async fn a_log_of_json_has_nothing_else_also_of_a_panic_and_of_the_end() {
    let options = breakable(&options().env("ROLLCALL_LOG_FORMAT", "json").env("ROLLCALL_LOG", "off"));
    let mut gateway = Gateway::start(options).unwrap();
    arm(&gateway, "statistics", "PANIC");
    assert_eq!(gateway.wait(SOON).unwrap().code(), Some(1));
    let said = gateway.output();
    let printed =
        |line: &&str| ["listening on ", "admin on ", "console at "].iter().any(|start| line.starts_with(start));
    let logged = said.lines().filter(|line| !printed(line));
    let logged: Vec<Value> = logged.map(|line| serde_json::from_str(line).expect(line)).collect();
    let messages: Vec<_> = logged.iter().map(|line| line["message"].as_str().unwrap()).collect();
    let [panic, end] = messages[..] else { panic!("{said}") };
    assert!(panic.contains("panicked at ") && panic.contains("armed at \"statistics\""), "{panic}");
    assert_eq!(end, "the task \"statistics\" panicked: armed at \"statistics\"");
    for line in &logged {
        assert!(line["timestamp"].is_string() && line["level"] == "ERROR" && line["target"].is_string(), "{line}");
    }
}
