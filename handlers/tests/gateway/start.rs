//! PROTOCOL 7, start and end of the process: configuration, the first run, what keeps the gateway from starting,
//! SIGTERM.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;

use crate::common::{Agent, Backend, SOON, Servers, on_both_kinds, session_error, until};
use rollcall_loadtest::{Client, Gateway, GatewayOptions, admin, token};

on_both_kinds!(a_drain_ends_every_session_and_the_process, data_survive_a_kill);

/// Returns a gateway without any setting.
fn bare() -> GatewayOptions {
    GatewayOptions::new(env!("CARGO_BIN_EXE_rollcall")).without("ROLLCALL_HS256_SECRET")
}

/// Returns the exit code and the output of a gateway that does not start.
fn refusal(options: &GatewayOptions) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    refusal_in(options, folder.path())
}

fn refusal_in(options: &GatewayOptions, folder: &std::path::Path) -> (Option<i32>, String) {
    let mut command = options.command();
    let output = command.current_dir(folder).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    (output.status.code(), said)
}

fn on_free_ports(options: GatewayOptions) -> GatewayOptions {
    options.env("ROLLCALL_LISTEN", "127.0.0.1:0").env("ROLLCALL_ADMIN_LISTEN", "127.0.0.1:0")
}

#[test]
fn a_bad_configuration_tells_all_faults_at_once() {
    let faults = [
        ("ROLLCALL_LISTEN", "nonsense"),
        ("ROLLCALL_ADMIN_LISTEN", "127.0.0.1:99999"),
        ("DATABASE_URL", "mysql://localhost/x"),
        ("REDIS_URL", "ftp://localhost"),
        ("NATS_URL", "ftp://localhost"),
        ("ROLLCALL_LEASE", "soon"),
        ("ROLLCALL_LEAVE_GRACE", "-1s"),
        ("ROLLCALL_DRAIN_DEADLINE", "10 parsecs"),
        ("ROLLCALL_JWKS", "no-equals-sign"),
        ("ROLLCALL_GUESTS", "perhaps"),
    ];
    let options = faults.iter().fold(bare(), |options, (name, value)| options.env(name, value));
    let (code, said) = refusal(&options);
    assert_eq!(code, Some(64), "{said}");
    for (name, _) in faults {
        assert!(said.contains(name), "{name} is not named: {said}");
    }
}

#[test]
fn a_lease_under_500_ms_is_a_fault() {
    let (code, said) = refusal(&on_free_ports(bare().env("ROLLCALL_LEASE", "499ms")));
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("ROLLCALL_LEASE"), "{said}");
}

#[test]
fn no_key_on_an_address_that_others_reach_is_a_fault() {
    // An address of documentation (RFC 5737): this machine does not have it, so the gateway cannot listen on it.
    let (_, said) = refusal(&on_free_ports(bare()).env("ROLLCALL_LISTEN", "192.0.2.1:8080"));
    assert!(said.contains("ROLLCALL_HS256_SECRET") || said.contains("ROLLCALL_JWKS"), "{said}");
}

#[test]
fn a_secret_may_come_from_a_file_and_has_no_flag() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    fs::write(&file, format!("{}\n", token::SECRET)).unwrap();
    let minted = |options: &GatewayOptions| {
        let mut command = options.command();
        let output = command.args(["token", "--sub", "alice", "--role", "teacher"]);
        output.current_dir(folder.path()).output().unwrap()
    };
    let from_file = minted(&bare().env("ROLLCALL_HS256_SECRET_FILE", file.display()));
    assert!(from_file.status.success(), "{from_file:?}");
    let printed = String::from_utf8(from_file.stdout).unwrap();
    let (message, signature) = printed.trim_end().rsplit_once('.').unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, token::SECRET.as_bytes());
    hmac::verify(&key, message.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
    let claims = URL_SAFE_NO_PAD.decode(message.rsplit_once('.').unwrap().1).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!((&claims["sub"], &claims["role"]), (&"alice".into(), &"teacher".into()));

    for flag in ["--hs256-secret", "--rollcall-hs256-secret"] {
        let (_, said) = refusal(&bare().arg("serve").arg(flag).arg(token::SECRET));
        assert!(said.contains(flag), "it is not known: {said}");
    }
}

#[test]
fn every_setting_without_a_secret_has_a_flag_of_the_same_name() {
    let folder = tempfile::tempdir().unwrap();
    let options = on_free_ports(bare()).arg("check").arg("--listen").arg("127.0.0.1:4321");
    let options = options.arg("--database-url").arg("sqlite:other.db").arg("--lease").arg("1s");
    let output = options.command().current_dir(folder.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("127.0.0.1:4321") && said.contains("other.db"), "{said}");
}

/// What the first run prints for a newcomer.
struct Printed {
    tokens: Vec<String>,
    classroom: String,
    lesson: String,
}

async fn printed(gateway: &Gateway) -> Printed {
    let whole = |output: &String| output.split_once("paste: ").is_some_and(|(_, line)| line.contains('\n'));
    let output = until("a line to paste", SOON, async || gateway.output(), whole).await;
    let words = output.split(|c: char| c.is_whitespace() || "'\"\\,{}=".contains(c));
    let words: Vec<&str> = words.map(|word| word.trim_end_matches(':')).collect();
    let mut tokens: Vec<_> =
        words.iter().filter(|word| word.starts_with("ey") && word.matches('.').count() == 2).collect();
    tokens.sort_unstable();
    tokens.dedup();
    let classroom = words.iter().find(|word| uuid::Uuid::try_parse(word).is_ok() && word.len() == 36);
    let after = words
        .iter()
        .skip_while(|word| !word.ends_with("lesson_id"))
        .skip(1)
        .find(|word| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_'));
    Printed {
        tokens: tokens.into_iter().map(|token| (*token).to_owned()).collect(),
        classroom: (*classroom.unwrap_or_else(|| panic!("a classroom: {output}"))).to_owned(),
        lesson: (*after.unwrap_or_else(|| panic!("a lesson: {output}"))).to_owned(),
    }
}

#[tokio::test]
async fn the_first_run_shows_a_join_and_a_restart_keeps_everything() {
    let mut gateway = Gateway::start(bare()).unwrap();
    let first = printed(&gateway).await;
    assert_eq!(first.tokens.len(), 2, "a teacher's and a participant's:\n{}", gateway.output());
    joins(&gateway, &first).await;
    gateway.terminate().unwrap();
    assert_eq!(gateway.wait(SOON).unwrap().code(), Some(0));

    gateway.restart().unwrap();
    // The tokens of the first run are still valid, in the same classroom.
    joins(&gateway, &first).await;
    let again = printed(&gateway).await;
    assert_eq!((&again.classroom, &again.lesson), (&first.classroom, &first.lesson));
}

async fn joins(gateway: &Gateway, printed: &Printed) {
    for token in &printed.tokens {
        let mut client = Client::connect(gateway.address()).await.unwrap();
        client.connect_request(token, &printed.classroom, "web").await.unwrap();
        let ack = client.join_lesson(&printed.lesson).await.unwrap();
        assert_eq!(ack["status"], "SUCCESS", "{ack}");
        client.close().await.unwrap();
    }
}

#[test]
fn a_second_process_on_one_sqlite_file_does_not_start() {
    let gateway = Gateway::start(bare()).unwrap();
    let (_, said) = refusal_in(&on_free_ports(bare()), gateway.folder());
    assert!(said.contains("rollcall.db"), "{said}");
    assert_eq!(gateway.get("/readyz").unwrap().0, 200, "the first goes on");
}

#[test]
fn keys_or_bus_in_process_do_not_start_beside_another_node() {
    let backend = Backend::real();
    let Servers { postgres, redis, nats, .. } = backend.servers().unwrap();
    let options = on_free_ports(bare()).env("ROLLCALL_HS256_SECRET", token::SECRET).env("DATABASE_URL", postgres);
    for options in [options.clone(), options.clone().env("REDIS_URL", redis), options.clone().env("NATS_URL", nats)] {
        let (_, said) = refusal(&options);
        assert!(said.contains("REDIS_URL") || said.contains("NATS_URL"), "it says what is missing: {said}");
    }
}

async fn a_drain_ends_every_session_and_the_process(backend: &Backend) {
    let mut own = backend.another(|options| options.clone().env("ROLLCALL_DRAIN_DEADLINE", "5s"));
    let room = own.classrooms().first().unwrap();
    let mut alice = own.participant(room, "alice").await;
    let mut bob = own.participant(room, "bob").await;
    let mut expected = [&alice, &bob].map(|agent| format!("{}|{}|drained", agent.session, agent.id));
    expected.sort();
    own.gateway.terminate().unwrap();
    for agent in [&mut alice, &mut bob] {
        let closing = agent.client.expect_close(SOON).await.unwrap();
        session_error(&closing, "terminated", 422, 3001);
    }
    let status = own.gateway.wait(Duration::from_secs(6)).unwrap();
    assert_eq!(status.code(), Some(0), "{}", own.gateway.output());
    let room = own.classrooms().first().unwrap();
    assert_eq!(own.history(room).await, expected);
    assert_eq!(own.live(room).await, [""; 0]);
    if let Some(stored) = own.stored(&room.subject("agent"), 4).await {
        let left = stored.iter().filter(|message| message.header("Left-Reason") == "drained");
        assert_eq!(left.count(), 2);
    }
}

async fn data_survive_a_kill(backend: &Backend) {
    // The lease is short, so that another node soon ends the sessions of the killed one.
    let mut own = backend.another(|options| options.clone().env("ROLLCALL_LEASE", "500ms"));
    let room = own.classrooms().first().unwrap();
    let alice: Agent = own.participant(room, "alice").await;
    let expected = format!("{}|{}|node_lost", alice.session, alice.id);
    own.gateway.kill().unwrap();
    own.gateway.restart().unwrap();
    let room = own.classrooms().first().unwrap();
    let history = format!("select id, agent_id, reason from agent_session_history where classroom_id = '{}'", room.id);
    own.wait_for_rows(&history, &[&expected]).await;
    assert_eq!(own.live(room).await, [""; 0]);
    let mut again = own.participant(room, "alice").await;
    assert!(again.session > alice.session, "an id is never given twice");
    again.joins(&room.algebra).await;
}

#[test]
fn a_gateway_that_says_it_listens_can_be_drained() {
    for _ in 0..8 {
        // In its first run the gateway writes the demo between printing the addresses and the tokens.
        let mut gateway = Gateway::start(bare()).unwrap();
        gateway.terminate().unwrap();
        assert!(gateway.wait(SOON).unwrap().success());
    }
}

#[tokio::test]
async fn any_free_ports_are_printed() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = on_free_ports(bare()).command();
    let output = fs::File::create(folder.path().join("output")).unwrap();
    let mut gateway = command.current_dir(&folder).stdout(output).spawn().unwrap();
    let printed = async || fs::read_to_string(folder.path().join("output")).unwrap();
    let printed = until("the addresses", SOON, printed, |printed| printed.contains("console at ")).await;
    let address = |label: &str| -> SocketAddr {
        let line = printed.lines().find_map(|line| line.strip_prefix(label));
        line.unwrap_or_else(|| panic!("{label}: {printed}")).parse().unwrap()
    };
    let (clients, operators) = (address("listening on "), address("admin on "));
    for address in [clients, operators] {
        assert_eq!(admin::get(address, "/healthz").unwrap().0, 200, "{address}");
    }
    gateway.kill().unwrap();
    gateway.wait().unwrap();
}

#[test]
fn a_listener_that_cannot_be_is_named_with_its_setting() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    // The last address belongs to no machine (RFC 5737).
    for (setting, address, advice) in [
        ("ROLLCALL_LISTEN", address.as_str(), "a free address and port"),
        ("ROLLCALL_ADMIN_LISTEN", &address, "a free address and port"),
        ("ROLLCALL_PROBE_LISTEN", &address, "a free address and port"),
        ("ROLLCALL_LISTEN", "192.0.2.1:8080", "an address of this machine"),
    ] {
        let options = on_free_ports(bare()).env("ROLLCALL_HS256_SECRET", token::SECRET).env(setting, address);
        let (code, said) = refusal(&options);
        let expected = [format!("the listener at {address}: "), format!("set {setting} to {advice}")];
        assert!(code == Some(1) && expected.iter().all(|part| said.contains(part)), "{said}");
    }
}

#[test]
fn what_is_asked_for_and_not_done_is_told() {
    let options = bare().env("ROLLCALL_MAX_CONECTIONS", "7").env("ROLLCALL_DATABASE_URL", "postgres://db/x");
    let gateway = Gateway::start(options.clone().env("ROLLCALL_MAX_CONNECTIONS", usize::MAX)).unwrap();
    let checked = options.arg("check").command().current_dir(gateway.folder()).output().unwrap();
    let checked = String::from_utf8(checked.stdout).unwrap();
    for said in [gateway.output(), checked.clone()] {
        for told in ["a similar one is ROLLCALL_MAX_CONNECTIONS", "this variable is not known; write DATABASE_URL"] {
            assert!(said.contains(told), "{told}: {said}");
        }
    }
    assert!(gateway.output().contains("the limit of open files allows "), "{}", gateway.output());
    assert!(checked.contains("note  environment   ROLLCALL_MAX_CONECTIONS: "), "{checked}");
}
