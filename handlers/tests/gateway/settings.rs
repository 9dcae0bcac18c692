//! PROTOCOL 7, the settings file, what `rollcall check` says of every setting, and the log's format.

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use rollcall_loadtest::{Client, Gateway, GatewayOptions};
use serde_json::{Value, json};

use crate::common::{SOON, until};

/// A folder with a settings file.
struct Place {
    folder: tempfile::TempDir,
    options: GatewayOptions,
}

impl Place {
    fn new(settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("rollcall.toml"), settings).unwrap();
        let options = GatewayOptions::new(env!("CARGO_BIN_EXE_rollcall")).without("ROLLCALL_HS256_SECRET");
        Self { folder, options }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, options: &GatewayOptions) -> (Option<i32>, String) {
        let Output { status, stdout, stderr } = options.command().current_dir(self.folder.path()).output().unwrap();
        (status.code(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
    }
}

/// Returns the line of a setting in the check's table, as words.
fn line<'a>(said: &'a str, setting: &str) -> Vec<&'a str> {
    let found = said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let found: Vec<_> = found.filter(|words| words.first() == Some(&setting)).collect();
    assert_eq!(found.len(), 1, "{setting}: {said}");
    found[0].clone()
}

#[test]
fn a_variable_beats_the_file_and_a_flag_both_and_check_says_so() {
    let place = Place::new(
        "lease = \"7s\"\nleave-grace = \"3s\"\ndrain-deadline = \"9s\"\nmax-fragments = 10\nguests = true\n\
         origins = [\"https://a.example\", \"https://b.example\"]\nhs256-secret-file = \"secret\"\n",
    );
    fs::write(place.file("secret"), "hunter2-hunter2-hunter2-hunter2-hunter2\n").unwrap();
    let options = place.options.clone().env("ROLLCALL_CONFIG", "rollcall.toml").env("ROLLCALL_LEASE", "8s");
    let options = options.env("ROLLCALL_LEAVE_GRACE", "4s").env("ROLLCALL_ADMIN_TOKEN", "hunter3-and-hunter2");
    let (code, said) = place.run(&options.arg("check").arg("--leave-grace").arg("5s"));
    assert_eq!(code, Some(0), "{said}");
    let from_file = |number| ["file,", "rollcall.toml", "line", number];
    for (setting, value, from) in [
        ("ROLLCALL_LEAVE_GRACE", "5s", &["flag"][..]),
        ("ROLLCALL_LEASE", "8s", &["environment,", "ROLLCALL_LEASE"]),
        ("ROLLCALL_DRAIN_DEADLINE", "9s", &from_file("3")),
        ("ROLLCALL_MAX_FRAGMENTS", "10", &from_file("4")),
        ("ROLLCALL_GUESTS", "true", &from_file("5")),
        ("ROLLCALL_ORIGINS", "https://a.example,https://b.example", &from_file("6")),
        ("ROLLCALL_HS256_SECRET", "set", &from_file("7")),
        ("ROLLCALL_ADMIN_TOKEN", "set", &["environment,", "ROLLCALL_ADMIN_TOKEN"]),
        ("ROLLCALL_PING_INTERVAL", "30s", &["default"]),
        ("REDIS_URL", "none", &["default"]),
    ] {
        assert_eq!(line(&said, setting), [&[setting, value], from].concat());
    }
    assert_eq!(line(&said, "ROLLCALL_ADMIN_READ_TOKEN"), ["ROLLCALL_ADMIN_READ_TOKEN", "not", "set", "default"]);
    assert!(!said.contains("hunter"), "{said}");
}

#[test]
fn a_faulty_file_tells_all_faults_with_their_lines() {
    let place = Place::new(
        "lease = 7\nmax-mesage = 1\nping-interval = \"soon\"\nhs256-secret = \"hunter2\"\npong-timeout = \"40s\"\n\
         listen = nowhere\n",
    );
    let (code, said) =
        place.run(&place.options.clone().arg("--config").arg("rollcall.toml").env("REDIS_URL", "ftp://x"));
    assert_eq!(code, Some(64), "{said}");
    for fault in [
        "ROLLCALL_CONFIG: rollcall.toml: line 1: lease: ",
        "ROLLCALL_CONFIG: rollcall.toml: line 2: max-mesage: is not known",
        "ROLLCALL_PING_INTERVAL: rollcall.toml, line 3: \"soon\" is not a duration",
        "ROLLCALL_CONFIG: rollcall.toml: line 4: hs256-secret: a secret must not be in this file",
        "ROLLCALL_PONG_TIMEOUT: rollcall.toml, line 5: must be shorter than ROLLCALL_PING_INTERVAL",
        "ROLLCALL_CONFIG: rollcall.toml: line 6: ",
        "REDIS_URL: ",
    ] {
        assert!(said.contains(fault), "{fault}: {said}");
    }
    assert!(!said.contains("hunter2"), "{said}");
    let (code, said) = place.run(&place.options.clone().env("ROLLCALL_CONFIG", "missing.toml"));
    assert!(code == Some(64) && said.contains("ROLLCALL_CONFIG: missing.toml: cannot read it"), "{said}");
}

#[tokio::test]
async fn a_log_of_json_has_one_object_a_line() {
    let options = GatewayOptions::new(env!("CARGO_BIN_EXE_rollcall")).env("ROLLCALL_LOG_FORMAT", "json");
    let gateway = Gateway::start(options).unwrap();
    let mut client = Client::connect(gateway.address()).await.unwrap();
    let request = json!({"token": "x", "classroom_id": uuid::Uuid::new_v4().to_string(), "agent_label": "web"});
    assert!(client.connect_request_with(request).await.is_err());
    let logged = async || {
        let said = gateway.output();
        let lines = said.lines().filter(|line| line.starts_with('{'));
        lines.map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    let of_token = |line: &Value| line["message"].as_str().is_some_and(|message| message.contains("token"));
    let lines = until("a line", SOON, logged, |lines| lines.iter().any(of_token)).await;
    let line = lines.iter().find(|line| of_token(line)).unwrap();
    assert_eq!(line["level"], "INFO", "{line}");
    assert!(line["timestamp"].is_string() && line["target"].as_str().unwrap().starts_with("rollcall"), "{line}");
}
