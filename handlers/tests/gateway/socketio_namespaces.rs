//! PROTOCOL 11: several namespaces on one transport, each a connection of its own.

use crate::common::{Backend, Classroom, Packet, SOON, SocketIo, on_both_kinds};
use serde_json::{Value, json};

on_both_kinds!(
    each_namespace_is_a_connection_of_its_own,
    a_further_namespace_without_a_token_is_who_the_first_is,
    at_most_four_are_carried,
    the_first_may_be_left_and_the_others_go_on,
    what_ends_one_permanently_leaves_the_others,
    what_closes_the_transport_ends_each,
    a_drain_is_told_in_each,
    requests_of_each_are_answered_however_many_wait,
);

fn serving(backend: &Backend) -> Backend {
    let namespaces = "/,/teacher,/participant,/a,/b";
    backend.another(|options| options.clone().env("ROLLCALL_SOCKETIO_NAMESPACES", namespaces))
}

/// A transport, and the messages that came on it and were not yet read.
struct Transport {
    client: SocketIo,
    kept: Vec<String>,
}

impl Transport {
    async fn open(backend: &Backend, query: &str) -> Self {
        Self { client: SocketIo::open(backend, query).await, kept: Vec::new() }
    }

    /// Sends CONNECT. `prefix` is the namespace's name and a comma, or empty.
    async fn asks(&mut self, prefix: &str, auth: &Value) {
        self.client.send(&format!("40{prefix}{auth}")).await;
    }

    /// Returns the rest of the first message that begins with `begin`. Other messages are kept.
    async fn next(&mut self, begin: &str) -> String {
        if let Some(place) = self.kept.iter().position(|text| text.starts_with(begin)) {
            return self.kept.remove(place)[begin.len()..].to_owned();
        }
        loop {
            match self.client.text().await {
                Ok(text) if text.starts_with(begin) => return text[begin.len()..].to_owned(),
                Ok(text) => self.kept.push(text),
                Err(code) => panic!("{begin} was awaited, not the end {code:?}; {:?} came", self.kept),
            }
        }
    }

    async fn connects(&mut self, prefix: &str, auth: &Value) -> String {
        self.asks(prefix, auth).await;
        let answer = self.next(&format!("40{prefix}")).await;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        answer["sid"].as_str().unwrap().to_owned()
    }

    async fn joins(&mut self, prefix: &str, lesson: &str) {
        self.client.send(&format!("42{prefix}1{}", json!(["join_lesson", {"lesson_id": lesson}]))).await;
        assert_eq!(self.next(&format!("43{prefix}1")).await, r#"[{"status":"SUCCESS","data":{}}]"#);
    }

    /// Returns the first argument of the next event of this name.
    async fn event(&mut self, prefix: &str, name: &str) -> Value {
        let rest = self.next(&format!(r#"42{prefix}["{name}","#)).await;
        serde_json::from_str(rest.strip_suffix(']').unwrap()).unwrap()
    }

    /// Reads to the close frame, and returns its code.
    async fn closes(&mut self) -> Option<u16> {
        loop {
            match self.client.text().await {
                Ok(text) => self.kept.push(text),
                Err(code) => return code,
            }
        }
    }
}

const TEACHER: &str = "/teacher,";
const PARTICIPANT: &str = "/participant,";

fn live(room: &Classroom) -> String {
    format!("select agent_id from agent_session where classroom_id = '{}' order by id", room.id)
}

fn ends(room: &Classroom) -> String {
    format!("select reason from agent_session_history where classroom_id = '{}' order by id", room.id)
}

async fn each_namespace_is_a_connection_of_its_own(backend: &Backend) {
    let backend = &serving(backend);
    let room = backend.classroom();
    let mut transport = Transport::open(backend, "").await;
    let mut sids = vec![transport.client.open["sid"].as_str().unwrap().to_owned()];
    for (prefix, token) in
        [("", room.participant("main")), (TEACHER, room.teacher("tess")), (PARTICIPANT, room.participant("alice"))]
    {
        sids.push(transport.connects(prefix, &json!({"token": token, "classroom_id": room.id})).await);
        let success = transport.event(prefix, "connect_success").await;
        assert_eq!(success["sid"], *sids.last().unwrap());
        transport.joins(prefix, &room.algebra).await;
    }
    sids.sort();
    sids.dedup();
    assert_eq!(sids.len(), 4, "each has a sid of its own");
    let agents = [("web", "main"), ("teacher", "tess"), ("participant", "alice")].map(|(l, u)| room.agent(l, u));
    assert_eq!(backend.rows(&live(room)).await, agents);
    let count = |wanted: f64| backend.gateway.wait_for_metric("rollcall_connections", &[], SOON, move |n| n == wanted);
    count(3.0).unwrap();
    let lesson = format!("lesson.{}.board", room.algebra);
    backend.publish(&lesson, &json!({"n": 1}));
    for prefix in ["", TEACHER, PARTICIPANT] {
        assert_eq!(transport.event(prefix, "board").await, json!({"n": 1}));
    }
    // The client leaves one namespace. The others get agent.left, and the namespace may be connected again.
    transport.client.send("41/teacher,").await;
    // The client sent this before it knew that the namespace was left, so it is dropped.
    transport.client.send(r#"42/teacher,["join_lesson"]"#).await;
    for prefix in ["", PARTICIPANT] {
        assert_eq!(transport.event(prefix, "agent.left").await["payload"]["agent_id"], agents[1]);
    }
    count(2.0).unwrap();
    let again = transport.connects(TEACHER, &json!({"token": room.teacher("tess"), "classroom_id": room.id})).await;
    assert!(!sids.contains(&again));
    backend.publish(&lesson, &json!({"n": 2}));
    assert_eq!(transport.event(PARTICIPANT, "board").await, json!({"n": 2}));
    drop(transport);
    backend.wait_for_rows(&live(room), &[]).await;
    count(0.0).unwrap();
}

async fn a_further_namespace_without_a_token_is_who_the_first_is(backend: &Backend) {
    let backend = &serving(backend);
    let room = backend.classroom();
    let mut transport = Transport::open(backend, &format!("&token={}", room.participant("alice"))).await;
    // The second CONNECT is sent before the first one is answered.
    transport.asks("", &json!({})).await;
    transport.asks(PARTICIPANT, &json!({"classroom_id": room.id})).await;
    transport.next("40{").await;
    transport.next("40/participant,{").await;
    transport.event(PARTICIPANT, "connect_success").await;
    transport.connects(TEACHER, &json!({})).await;
    transport.joins(TEACHER, &room.algebra).await;
    let agents = [room.agent("participant", "alice"), room.agent("teacher", "alice")];
    assert_eq!(backend.rows(&live(room)).await, agents);
    // A namespace's own token counts first. A wrong one is refused, and the other namespaces go on.
    transport.asks("/a,", &json!({"token": "x"})).await;
    let refused: Value = serde_json::from_str(&transport.next("44/a,").await).unwrap();
    assert_eq!(refused["message"], "unauthenticated");
    transport.connects("/a,", &json!({"token": room.participant("bob")})).await;
    transport.joins("/a,", &room.algebra).await;
    assert_eq!(transport.event("/a,", "connect_success").await["agent_id"], room.agent("a", "bob"));
}

async fn at_most_four_are_carried(backend: &Backend) {
    let backend = &serving(backend);
    let room = backend.classroom();
    let mut transport = Transport::open(backend, "").await;
    let auth = json!({"token": room.participant("alice")});
    for prefix in ["", TEACHER, PARTICIPANT, "/a,"] {
        transport.connects(prefix, &auth).await;
    }
    transport.asks("/b,", &auth).await;
    let refused: Value = serde_json::from_str(&transport.next("44/b,").await).unwrap();
    assert_eq!(refused, json!({"message": "at most 4 namespaces a connection: use forceNew"}));
    transport.client.send("41/a,").await;
    transport.connects("/b,", &auth).await;
    transport.joins("/b,", &room.algebra).await;
    // A CONNECT for a namespace that is connected already is a fault of the client, so the transport is closed.
    transport.asks("/b,", &auth).await;
    assert_eq!(transport.closes().await, Some(1002));
}

async fn the_first_may_be_left_and_the_others_go_on(backend: &Backend) {
    let backend = &serving(backend);
    let room = backend.classroom();
    let mut transport = Transport::open(backend, "").await;
    let auth = |name: &str| json!({"token": room.participant(name), "classroom_id": room.id});
    transport.connects("", &auth("first")).await;
    transport.connects(PARTICIPANT, &auth("other")).await;
    transport.client.send("41").await;
    assert_eq!(transport.event(PARTICIPANT, "agent.left").await["payload"]["agent_id"], room.agent("web", "first"));
    transport.joins(PARTICIPANT, &room.algebra).await;
    transport.connects("", &auth("first")).await;
    transport.joins("", &room.biology).await;
    transport.client.send("41/participant,").await;
    transport.event("", "agent.left").await;
    assert_eq!(backend.rows(&live(room)).await, [room.agent("web", "first")]);
}

async fn what_ends_one_permanently_leaves_the_others(backend: &Backend) {
    let backend = &serving(backend);
    let room = backend.classroom();
    let mut transport = Transport::open(backend, "").await;
    let auth = |name: &str| json!({"token": room.participant(name), "classroom_id": room.id});
    transport.connects("", &auth("first")).await;
    transport.connects(PARTICIPANT, &auth("other")).await;
    for (label, name, prefix) in [("participant", "other", PARTICIPANT), ("web", "first", "")] {
        let again = json!({"token": room.participant(name), "classroom_id": room.id, "agent_label": label});
        let mut next = SocketIo::open(backend, "").await;
        next.connects(&again).await;
        assert_eq!(transport.event(prefix, "session_error").await["type"], "replaced");
        transport.next(&format!("41{prefix}")).await;
        // The agent may enter again in the same namespace.
        transport.connects(prefix, &again).await;
        assert_eq!(next.event("connect_success").await["agent_id"], room.agent(label, name));
        loop {
            match next.next().await {
                Packet::Disconnected => break,
                Packet::Event(..) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    transport.joins("", &room.algebra).await;
    transport.joins(PARTICIPANT, &room.algebra).await;
}

async fn what_closes_the_transport_ends_each(backend: &Backend) {
    let backend = &serving(backend);
    for (ending, reasons) in [
        ("frame", ["closed", "closed"]),
        ("packet", ["closed", "closed"]),
        ("nothing", ["lost", "lost"]),
        ("malformed", ["kicked", "lost"]),
        ("expired in the first", ["kicked", "lost"]),
        ("expired in the other", ["lost", "kicked"]),
    ] {
        let room = backend.classroom();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let soon = |expires: bool| json!({"exp": now + if expires { 3 } else { 600 }});
        let mut transport = Transport::open(backend, "").await;
        for (prefix, name, expires) in
            [("", "first", ending == "expired in the first"), (PARTICIPANT, "other", ending == "expired in the other")]
        {
            let token = room.token_with(name, &soon(expires));
            transport.connects(prefix, &json!({"token": token, "classroom_id": room.id})).await;
            transport.event(prefix, "connect_success").await;
        }
        match ending {
            "frame" => transport.client.close_frame().await,
            "packet" => transport.client.send("1").await,
            "malformed" => transport.client.send("4nonsense").await,
            "expired in the first" => {
                assert_eq!(transport.event("", "session_error").await["type"], "token_expired");
                assert_eq!(transport.closes().await, Some(3005));
            }
            "expired in the other" => {
                assert_eq!(transport.event(PARTICIPANT, "session_error").await["type"], "token_expired");
                assert_eq!(transport.closes().await, Some(3005));
            }
            _ => drop(transport),
        }
        backend.wait_for_rows(&ends(room), &reasons).await;
    }
}

async fn a_drain_is_told_in_each(backend: &Backend) {
    let mut backend = serving(backend);
    let room = &backend.classrooms()[0];
    let mut transport = Transport::open(&backend, "").await;
    for (prefix, name) in [("", "first"), (PARTICIPANT, "other"), (TEACHER, "outside")] {
        transport.connects(prefix, &json!({"token": room.participant(name)})).await;
    }
    transport.joins("", &room.algebra).await;
    transport.joins(PARTICIPANT, &room.algebra).await;
    backend.gateway.terminate().unwrap();
    for prefix in ["", PARTICIPANT, TEACHER] {
        assert_eq!(transport.event(prefix, "session_error").await["type"], "terminated");
    }
    assert_eq!(transport.closes().await, Some(3001));
    drop(transport);
    assert!(backend.gateway.wait(2 * SOON).unwrap().success());
}

async fn requests_of_each_are_answered_however_many_wait(backend: &Backend) {
    let backend = &serving(backend);
    let room = backend.classroom();
    let mut transport = Transport::open(backend, "").await;
    let auth = |name: &str| json!({"token": room.participant(name), "classroom_id": room.id});
    transport.connects("", &auth("first")).await;
    transport.connects(PARTICIPANT, &auth("other")).await;
    // The requests are more than may wait while a handler runs, so the gateway stops reading the transport for a while.
    let large = "x".repeat(3 << 10);
    for id in 0..100 {
        for prefix in ["", PARTICIPANT] {
            let request = json!(["set_state", {"state": {"n": id}, "ignored": large}]);
            transport.client.send(&format!("42{prefix}{id}{request}")).await;
        }
    }
    for id in 0..100 {
        for prefix in ["", PARTICIPANT] {
            let ack = transport.next(&format!("43{prefix}{id}[")).await;
            assert!(ack.starts_with(r#"{"status":"SUCCESS""#), "{ack}");
        }
    }
}
