//! PROTOCOL 7, the commands that ask a running gateway.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use crate::common::{Backend, SOON, on_both_kinds, session_error};
use rollcall_loadtest::GatewayOptions;
use serde_json::{Value, json};

on_both_kinds!(
    agents_are_listed_and_kicked,
    an_event_is_published_and_tailed,
    what_clients_wrote_is_printed_at_any_depth,
    attendance_is_printed,
    a_user_is_erased,
);

fn command(admin: &str, arguments: &[&str]) -> Command {
    let options = GatewayOptions::new(env!("CARGO_BIN_EXE_rollcall")).env("ROLLCALL_ADMIN", admin);
    let mut command = options.command();
    command.args(arguments);
    command
}

fn admin(backend: &Backend) -> String {
    format!("http://{}", backend.gateway.admin())
}

/// Returns the output of a command that succeeds.
fn run(backend: &Backend, arguments: &[&str]) -> String {
    let output = command(&admin(backend), arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

async fn agents_are_listed_and_kicked(backend: &Backend) {
    let room = backend.classroom();
    assert!(run(backend, &["agents", &room.id]).contains("nobody"));
    let mut alice = backend.participant(room, "alice").await;
    let table = run(backend, &["agents", &room.id]);
    let lines: Vec<_> = table.lines().collect();
    assert!(lines[0].starts_with("SESSION") && lines[1].starts_with(&alice.session.to_string()), "{table}");
    assert!(lines[1].contains(&alice.id), "{table}");
    let listed: Value = serde_json::from_str(&run(backend, &["agents", &room.id, "--json"])).unwrap();
    assert_eq!((&listed[0]["id"], &listed[0]["agent_id"]), (&json!(alice.session), &json!(alice.id)));

    let kick = ["kick", "--agent", &alice.id, "--classroom", &room.id];
    let ended = run(backend, &kick);
    assert!(ended.contains(&alice.id) && ended.starts_with("ENDED"), "{ended}");
    session_error(&alice.client.expect_close(SOON).await.unwrap(), "kicked", 403, 3508);
    assert!(run(backend, &kick).contains("no such session"));
}

async fn an_event_is_published_and_tailed(backend: &Backend) {
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    backend.settled(room, [&mut alice]).await;
    let (_, now) = backend.gateway.get(&format!("/api/v1/classrooms/{}/events?after=latest", room.id)).unwrap();
    let now: Value = serde_json::from_str(&now).unwrap();
    let mut tail = command(&admin(backend), &["tail", &room.id, "--after", &now["through"].to_string(), "--json"]);
    let mut tail = tail.stdout(Stdio::piped()).spawn().unwrap();
    let (subject, body) = (room.subject("note"), json!({"text": "hello"}));
    let published = run(backend, &["publish", &subject, &body.to_string(), "--id", &room.user("first")]);
    assert!(published.starts_with("stored at offset "), "{published}");
    assert_eq!(alice.client.next_event(SOON).await.unwrap().body, body);
    let again = run(backend, &["publish", &subject, &body.to_string(), "--id", &room.user("first")]);
    assert_eq!(again, published, "one id, one event");
    let mut line = String::new();
    BufReader::new(tail.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(event["event"], body);
    tail.kill().unwrap();
    tail.wait().unwrap();
}

/// Tests with a tree that a parser must not refuse, and with numbers and spaces that it must not change.
async fn what_clients_wrote_is_printed_at_any_depth(backend: &Backend) {
    let room = backend.classroom();
    let deep = (0..400).fold(json!([]), |inner, _| json!([inner]));
    let mut alice = backend.participant(room, "alice").await;
    let ack = alice.client.request("set_state", json!({"state": {"a": deep}})).await.unwrap();
    assert_eq!(ack["status"], "SUCCESS", "{ack}");
    assert!(run(backend, &["agents", &room.id]).contains(&alice.id));
    assert!(run(backend, &["agents", &room.id, "--json"]).contains(&deep.to_string()));
    alice.leaves().await;

    let (_, now) = backend.gateway.get(&format!("/api/v1/classrooms/{}/events?after=latest", room.id)).unwrap();
    let now: Value = serde_json::from_str(&now).unwrap();
    let body = format!("{{\"n\": 12345678901234567890123,\n \"z\":1.50,\"a\":{deep}}}");
    let mut publish = command(&admin(backend), &["publish", &room.subject("note"), "-"]);
    let mut publish = publish.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    publish.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
    assert!(publish.wait().unwrap().success());
    let mut tail = command(&admin(backend), &["tail", &room.id, "--after", &now["through"].to_string(), "--json"]);
    let mut tail = tail.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(tail.stdout.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.into_iter().find(|line| !line.contains("\"agent\""));
    tail.kill().unwrap();
    tail.wait().unwrap();
    let shown = body.replace('\n', " ");
    assert!(line.as_ref().is_some_and(|line| line.contains(&shown)), "{line:?}");
}

async fn attendance_is_printed(backend: &Backend) {
    let room = backend.classroom();
    assert!(run(backend, &["attendance", &room.id]).contains("nobody"));
    let gone = backend.participant(room, "alice").await.leaves().await;
    let ended = format!("select reason from agent_session_history where id = {}", gone.session);
    backend.wait_for_rows(&ended, &["closed"]).await;
    let bob = backend.participant(room, "bob").await;
    let table = run(backend, &["attendance", &room.id]);
    let line = |agent: &str| table.lines().find(|line| line.contains(agent)).unwrap_or_else(|| panic!("{table}"));
    assert!(line(&gone.id).ends_with("closed") && line(&bob.id).starts_with(&bob.session.to_string()), "{table}");
    let list: Value = serde_json::from_str(&run(backend, &["attendance", &room.id, "--json"])).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 2);
    let csv = run(backend, &["attendance", &room.id, "--csv", "--from", "2026-01-01T00:00:00Z"]);
    assert!(csv.starts_with("session_id,agent_id") && csv.lines().count() == 3, "{csv}");
    let faulty = command(&admin(backend), &["attendance", &room.id, "--json", "--from", "today"]).output().unwrap();
    assert!(faulty.status.code() == Some(1) && said(&faulty).contains("from must be a time"), "{faulty:?}");
}

async fn a_user_is_erased(backend: &Backend) {
    let room = backend.classroom();
    let user = room.user("seated");
    let mut seated = backend.participant(room, "seated").await;
    seated.joins(&room.algebra).await;
    let erased = run(backend, &["erase", "--user", &user]);
    assert_eq!(erased, "erased: 1 live sessions, 1 of the history, attendee of 2 lessons\n");
    session_error(&seated.client.expect_close(SOON).await.unwrap(), "kicked", 403, 3508);
    for table in ["agent_session", "agent_session_history", "lesson_attendee"] {
        assert_eq!(
            backend.value(&format!("select count(*) from {table} where user_id = '{user}'")).await,
            "0",
            "{table}"
        );
    }
    if let Some(mut keys) = backend.keys().await {
        assert_eq!(keys.ttl(&user).await, -2, "there is no such key");
    }
}

/// Starts a server in place of a gateway, which gives these answers one after the other. Returns its address.
fn gateway_answering(answers: Vec<(u16, Value)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for (status, body) in answers {
            let mut request = BufReader::new(listener.accept().unwrap().0);
            let mut line = String::new();
            while line != "\r\n" {
                line.clear();
                request.read_line(&mut line).unwrap();
            }
            let (body, stream) = (body.to_string(), request.get_mut());
            let length = body.len();
            write!(stream, "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
                .unwrap();
        }
    });
    format!("http://{address}")
}

#[test]
fn a_tail_outlives_a_gateway_that_goes_and_comes_back_with_another_stream() {
    let page = |epoch: &str, through: u64, events: Value| {
        (200, json!({"epoch": epoch, "events": events, "through": through, "more": false}))
    };
    let refusal = |status: u16| (status, json!({"title": "X", "status": status, "detail": "why"}));
    let event = json!({"offset": 3, "event": {"n": 1}});
    let admin = gateway_answering(vec![
        page("a", 5, json!([])),
        refusal(410),
        refusal(503),
        page("b", 2, json!([])),
        page("b", 3, json!([event])),
    ]);
    let mut tail = command(&admin, &["tail", "2b5c0e0c-8f7c-4b0a-9d54-0a8cf9d1c001", "--json"]);
    let mut tail = tail.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(tail.stdout.take().unwrap()).read_line(&mut line).unwrap();
    tail.kill().unwrap();
    tail.wait().unwrap();
    assert_eq!(line, format!("{event}\n"));
}

#[test]
fn a_gateway_that_is_away_and_a_faulty_command_line_are_told_apart() {
    let room = "2b5c0e0c-8f7c-4b0a-9d54-0a8cf9d1c001";
    let away = command("http://127.0.0.1:1", &["agents", room]).output().unwrap();
    assert_eq!(away.status.code(), Some(1));
    assert!(said(&away).contains("127.0.0.1:1") && said(&away).contains("--admin"), "{away:?}");
    for faulty in [&["agents", "x"][..], &["kick"], &["kick", "--user", "a", "--session", "1"], &["tail"]]
        .into_iter()
        .chain([&["publish", "lesson.a.note", "no JSON"][..], &["publish", "lesson.a.note", "[1]"]])
    {
        let output = command("http://127.0.0.1:1", faulty).output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{output:?}");
    }
    let output = command("nowhere", &["agents", room]).output().unwrap();
    assert!(output.status.code() == Some(64) && said(&output).contains("ROLLCALL_ADMIN"), "{output:?}");
}
