//! The console in a real browser: every page, two nodes, hostile names, wrong tokens, a node that dies.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::common::{Backend, SOON, Servers, in_browser, session_error, until};
use rollcall_loadtest::{Client, Gateway, GatewayOptions, token};
use serde_json::{Value, json};

/// A text with markup in claims, states and ids. The pages must show it as text.
const MARKUP: &str = "<img src=x onerror=\"globalThis.pwned=1\">";
const RIGHT_TO_LEFT: &str = "\u{202e}evil\u{202c} \u{5e9}\u{5dc}\u{5d5}\u{5dd}";
/// The same markup in the form that a user id may have.
const TAG: &str = "<img/src=x/onerror=globalThis.pwned=1//";

/// Sends a GET; the caller reads the answer from the stream.
fn asked(gateway: &Gateway, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.admin()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", gateway.admin()).unwrap();
    stream
}

fn origin(gateway: &Gateway) -> String {
    format!("http://{}", gateway.admin())
}

#[tokio::test]
async fn an_operator_looks_at_two_nodes() {
    let short_lease = |options: &GatewayOptions| options.clone().env("ROLLCALL_LEASE", "3s");
    let mut first = Backend::start(Some(Servers::shared()), short_lease);
    let mut second = Gateway::start(first.beside().env("ROLLCALL_LEASE", "3s")).unwrap();
    let room = first.classroom();
    let (id, algebra, student) = (room.id.clone(), room.algebra.clone(), room.user("seated"));
    let tag = token::claims(&format!("{TAG}{}", "x".repeat(128 - TAG.len())), "participant");
    let info = json!({"info": {"name": MARKUP, "nick": RIGHT_TO_LEFT}});
    let mut teacher = first.teacher(room, "tess").await;
    let mut kicked = first.participant(room, "seated").await;
    let mut hostile = first.enters(room, &token::hs256(token::SECRET, &tag)).await;
    let named = first.enters(room, &room.token_with("named", &info)).await;
    let soon = token::seconds(SystemTime::now() + Duration::from_secs(2));
    let mut expired = first.enters(room, &room.token_with("expired", &json!({"exp": soon}))).await;
    session_error(&expired.client.expect_close(SOON).await.unwrap(), "token_expired", 401, 3005);
    let mut first_tab = first.participant(room, "twice").await;
    let second_tab = first.participant(room, "twice").await;
    session_error(&first_tab.client.expect_close(SOON).await.unwrap(), "replaced", 422, 3503);
    let subject = room.subject("note");
    for agent in [&mut teacher, &mut kicked, &mut hostile] {
        agent.joins(&algebra).await;
    }
    hostile.client.request("set_state", json!({"state": {"hand": MARKUP}})).await.unwrap();
    let texts = [TAG.to_owned(), MARKUP.replace('"', "\\\""), RIGHT_TO_LEFT.to_owned()];
    let settings = [
        ("CONSOLE", origin(&first.gateway)),
        ("CLASSROOM", id.clone()),
        ("LESSON", algebra.clone()),
        ("STUDENT", student.clone()),
        ("EXPIRED", room.user("expired")),
        ("TWICE", room.user("twice")),
        ("OTHER", origin(&second)),
        ("HOSTILE", json!(texts).to_string()),
    ];
    in_browser("console.mjs", &settings, async |step| match step {
        "publish" => first.publish(&subject, &json!({"from": "from another service"})),
        "was told kicked" => session_error(&kicked.client.expect_close(SOON).await.unwrap(), "kicked", 403, 3508),
        "kill the other node" => second.kill().unwrap(),
        "kill this node" => first.gateway.kill().unwrap(),
        "start this node" => first.gateway.restart().unwrap(),
        other => panic!("no such step: {other}"),
    })
    .await;
    drop((teacher, hostile, named, second_tab));
}

#[tokio::test]
async fn a_token_is_asked_for_and_guesses_are_limited() {
    let tokens = [("TOKEN", "token-of-operators"), ("READ_TOKEN", "token-of-readers-only")];
    let backend = Backend::embedded().another(|options| {
        options.clone().env("ROLLCALL_ADMIN_TOKEN", tokens[0].1).env("ROLLCALL_ADMIN_READ_TOKEN", tokens[1].1)
    });
    let room = backend.classroom();
    let _alice = backend.participant(room, "alice").await;
    let mut settings = vec![("CONSOLE", origin(&backend.gateway)), ("CLASSROOM", room.id.clone())];
    settings.extend(tokens.map(|(name, token)| (name, token.to_owned())));
    in_browser("token.mjs", &settings, async |step| panic!("no such step: {step}")).await;
}

#[tokio::test]
async fn the_demo_is_tried_in_the_browser() {
    let options = GatewayOptions::new(env!("CARGO_BIN_EXE_rollcall")).without("ROLLCALL_HS256_SECRET");
    let gateway = Gateway::start(options).unwrap();
    let console = origin(&gateway);
    let printed = async || gateway.output();
    until("the console's address", SOON, printed, |output| output.contains(&format!("console at {console}/"))).await;
    let clients = format!("ws://{}", gateway.address());
    in_browser("try.mjs", &[("CONSOLE", console), ("CLIENTS", clients)], async |step| panic!("no such step: {step}"))
        .await;
    assert!(gateway.output().contains("whom=\"tokens of the demo\""), "the log has a line for it");
}

#[tokio::test]
async fn the_pages_carry_their_rules_and_the_demo_needs_its_own_secret() {
    let backend = Backend::embedded();
    let (mut stream, mut answer) = (asked(&backend.gateway, "/"), String::new());
    stream.read_to_string(&mut answer).unwrap();
    let header = |name: &str| {
        let lines = answer.lines().filter_map(|line| line.split_once(": "));
        lines.clone().find(|(found, _)| *found == name).map(|(_, value)| value.to_owned()).unwrap_or_default()
    };
    let policy = header("content-security-policy");
    for rule in [
        "default-src 'none'",
        "script-src 'self';",
        "style-src 'self';",
        "connect-src 'self';",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ] {
        assert!(policy.contains(rule), "{rule} in {policy}");
    }
    assert_eq!((header("referrer-policy"), header("cache-control")), ("no-referrer".into(), "no-store".into()));
    let (status, body) = backend.gateway.post("/api/console/demo", &Value::Null).unwrap();
    assert_eq!(status, 404, "{body}");
    let (status, body) = backend.gateway.get("/console/secrets.js").unwrap();
    assert_eq!(status, 404, "{body}");
}

/// A stream of events goes on while a page reads it, and a node that ends does not wait for the stream's end.
#[tokio::test]
async fn a_console_that_is_open_holds_up_no_drain() {
    let mut backend = Backend::embedded().another(GatewayOptions::clone);
    let mut stream = BufReader::new(asked(&backend.gateway, "/api/console/now")).lines();
    assert!(stream.any(|line| line.unwrap().starts_with("data: ")));
    backend.gateway.terminate().unwrap();
    assert!(backend.gateway.wait(Duration::from_secs(10)).unwrap().success());
}

/// Takes pictures of a class on two nodes, as a school would have it.
#[tokio::test]
async fn a_class_is_pictured() {
    const CLASS: &str = "6f1c9d3e-5a40-4a39-9d3b-0d3f7d7c1a01";
    const NAMES: [&str; 10] = ["amara", "ben", "chidi", "dana", "elif", "farid", "grace", "hugo", "ines", "jonas"];
    let servers = Servers::shared();
    let options = servers.of(GatewayOptions::new(env!("CARGO_BIN_EXE_rollcall")));
    let nodes = [Gateway::start(options.clone()).unwrap(), Gateway::start(options.clone()).unwrap()];
    let seats: String = NAMES.iter().zip(1..).map(|(name, seat)| format!("algebra-1,{name},{seat}\n")).collect();
    let folder = nodes[0].folder();
    std::fs::write(folder.join("lessons.csv"), format!("lesson_id,classroom_id,seats\nalgebra-1,{CLASS},12\n"))
        .unwrap();
    std::fs::write(folder.join("attendees.csv"), format!("lesson_id,user_id,seat\n{seats}")).unwrap();
    let load = options.arg("load").arg("--lessons").arg("lessons.csv").arg("--attendees").arg("attendees.csv");
    assert!(load.command().current_dir(folder).status().unwrap().success());
    let enters = async |node: usize, name: &str, role: &str| {
        let mut claims = token::claims(name, role);
        claims["info"] = json!({"class": if role == "teacher" { "maths" } else { "7b" }});
        let mut client = Client::connect(nodes[node].address()).await.unwrap();
        client.connect_request(&token::hs256(token::SECRET, &claims), CLASS, "web").await.unwrap();
        client.join_lesson("algebra-1").await.unwrap();
        client
    };
    let mut class = vec![enters(0, "maria.lopez", "teacher").await];
    for (place, name) in NAMES.iter().enumerate() {
        class.push(enters(place % 2, name, "participant").await);
    }
    class[3].request("set_state", json!({"state": {"hand": "raised"}})).await.unwrap();
    class.remove(6).close().await.unwrap();
    let (status, body) = nodes[0].post("/api/v1/disconnect", &json!({"user_id": "hugo"})).unwrap();
    assert_eq!(status, 200, "{body}");
    let settings = [("CONSOLE", origin(&nodes[0])), ("CLASSROOM", CLASS.to_owned())];
    in_browser("class.mjs", &settings, async |step| panic!("no such step: {step}")).await;
}

#[tokio::test]
async fn the_architecture_is_drawn_from_its_text() {
    let pictures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../loadtest/pictures");
    let drawn = Command::new("node").arg(pictures.join("draw.mjs")).arg(pictures.join("architecture.txt")).output();
    let drawn = String::from_utf8(drawn.unwrap().stdout).unwrap();
    let stored = std::fs::read_to_string(pictures.join("architecture.svg")).unwrap();
    assert!(drawn == stored, "architecture.svg is another: make pictures");
}
