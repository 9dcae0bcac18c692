//! The disk is full, the log cannot be written, or the memory is used up: new connections are refused, and old ones
//! stay. (`hostile/node_limits.rs` tests a limit of open files.)

use std::process::Command;
use std::time::{Duration, Instant};

use rollcall_loadtest::client::ClientError;
use rollcall_loadtest::{Client, GatewayOptions};
use serde_json::json;

use crate::common::{Agent, Backend, Classroom, SOON, refused, session_error, until};

/// Within this time every request is answered.
const ANSWER: Duration = Duration::from_secs(2);
/// Within this time everything works again.
const RECOVERY: Duration = Duration::from_secs(3);

/// Returns an embedded gateway that a shell starts after these commands.
fn started_by(words: &str) -> Backend {
    let shell = GatewayOptions::new("/bin/sh").arg("-c").arg(format!("{words} exec \"$0\" \"$@\""));
    Backend::embedded().another(|_| shell.arg(env!("CARGO_BIN_EXE_rollcall")).env("ROLLCALL_LEASE", "500ms"))
}

/// Limits how far into a file a gateway may write. A write beyond fails as on a full disk.
fn may_write(backend: &Backend, bytes: &str) {
    let pid = backend.gateway.pid().to_string();
    let limited = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={bytes}:")]).status().unwrap();
    assert!(limited.success());
}

async fn is_in_touch(backend: &Backend, room: &Classroom, agents: [&mut Agent; 2]) {
    backend.nothing_came(room, agents).await;
    assert_eq!(backend.gateway.get("/healthz").unwrap().0, 200);
}

#[tokio::test]
async fn a_full_disk_keeps_new_ones_out_and_old_ones_in() {
    // The kernel's signal for this limit would end the process, so it is ignored; a full disk sends no signal.
    let mut backend = started_by("trap '' XFSZ;");
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    let mut bob = backend.participant(room, "bob").await;
    let carl = backend.participant(room, "carl").await;
    alice.joins(&room.algebra).await;
    backend.settled(room, [&mut alice, &mut bob]).await;

    may_write(&backend, "1");
    let newcomer = room.connect_request(&room.participant("dora"), "web");
    let newcomer = json!({"type": "connect_request", "payload": newcomer}).to_string();
    for _ in 0..3 {
        let asked = Instant::now();
        let closing = refused(&backend, &newcomer).await;
        session_error(&closing, "internal_server_error", 500, 3004);
        assert!(asked.elapsed() <= ANSWER, "after {:?}", asked.elapsed());
    }
    bob.is_refused(json!({"lesson_id": room.algebra}), "try again later").await;
    let carl = carl.leaves().await;
    is_in_touch(&backend, room, [&mut alice, &mut bob]).await;

    may_write(&backend, "unlimited");
    for agent in [&mut alice, &mut bob] {
        agent.sees("left", &carl).await;
    }
    let joins = async || bob.client.join_lesson(&room.algebra).await.unwrap()["status"].clone();
    until("join_lesson", RECOVERY, joins, |status| status == "SUCCESS").await;
    let dora = backend.participant(room, "dora").await;
    for agent in [&mut alice, &mut bob] {
        agent.sees("entered", &dora.whom()).await;
    }
    is_in_touch(&backend, room, [&mut alice, &mut bob]).await;
    // All rows are whole, and refused agents left none.
    let live = [&alice, &bob, &dora].map(|agent| format!("{}|{}", agent.session, agent.id));
    assert_eq!(backend.live(room).await, live);
    assert_eq!(backend.history(room).await, [format!("{}|{}|closed", carl.session, carl.id)]);
    backend.gateway.kill().unwrap();
    backend.gateway.restart().unwrap();
    let ended =
        format!("select count(*) from agent_session_history where classroom_id = '{}'", backend.classrooms()[0].id);
    backend.wait_for_rows(&ended, &["4"]).await;
}

#[tokio::test]
async fn a_log_that_takes_nothing_ends_nothing() {
    let backend = started_by("trap '' XFSZ; exec 2>/dev/full;");
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    backend.settled(room, [&mut alice]).await;
    // The node tries to write to its log as long as it runs.
    may_write(&backend, "1");
    let missed = [r#"operation="renew_lease""#];
    backend.gateway.wait_for_metric("rollcall_backend_errors_total", &missed, SOON, |missed| missed >= 1.0).unwrap();
    may_write(&backend, "unlimited");
    let renewed = async || backend.value("select lease_until from node").await;
    let before = renewed().await;
    until("the next renewal", SOON, renewed, |after| *after != before).await;
    let bob = backend.participant(room, "bob").await;
    alice.sees("entered", &bob.whom()).await;
    let bob = bob.leaves().await;
    alice.sees("left", &bob).await;
}

#[tokio::test]
async fn memory_at_its_end_keeps_new_ones_out_and_old_ones_in() {
    let used = Backend::embedded().gateway.metric("process_resident_memory_bytes", &[]).unwrap();
    assert!(used > 1e6, "{used}");
    let most = used + 24e6;
    let backend = Backend::embedded().another(|options| {
        let options = options.clone().env("ROLLCALL_MAX_MEMORY", format!("{most:.0}"));
        options.env("ROLLCALL_MAX_QUEUE", "200MiB").env("ROLLCALL_PING_INTERVAL", "60s")
    });
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    // The events that wait for this client use up the memory.
    let mut silent = backend.participant(room, "silent").await;
    backend.settled(room, [&mut alice, &mut silent]).await;
    let body = json!({"text": "x".repeat(100 << 10)});
    let full = async || {
        backend.publish(&room.subject("note"), &body);
        assert!(alice.client.next_event(SOON).await.unwrap().body == body);
        backend.gateway.metric("process_resident_memory_bytes", &[]).unwrap()
    };
    until("the memory", 3 * SOON, full, |used| *used > most).await;
    let dial = async || Client::connect(backend.gateway.address()).await;
    let refusal = until("a refusal", ANSWER, dial, Result::is_err).await;
    assert!(matches!(refusal, Err(ClientError::Refused(503))), "{refusal:?}");
    alice.joins(&room.algebra).await;
    backend.fence(room).is_next_for(&mut alice).await;
    drop(silent);
}
