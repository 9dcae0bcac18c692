//! PROTOCOL 2, "The view is whole": a client that reads the list of agents after its success, adds every entered that
//! follows and removes every left, knows exactly which agents are there.

use std::collections::BTreeSet;

use async_nats::jetstream;
use futures_util::future::{join, join_all};
use rollcall_loadtest::{Client, Gateway, GatewayOptions, servers::Nats};
use serde_json::{Value, json};

use crate::common::{Agent, Backend, Classroom, SOON, Servers, session_error, until};

/// Returns the sessions in the list that a node gives, read page by page.
fn listed(node: &Gateway, room: &Classroom) -> BTreeSet<i64> {
    const PAGE: usize = 50;
    let mut all = BTreeSet::new();
    loop {
        let after = all.last().copied().unwrap_or(0);
        let path = format!("/api/v1/classrooms/{}/agents?sequence_id={after}&limit={PAGE}", room.id);
        let (status, body) = node.get(&path).unwrap();
        assert_eq!(status, 200, "{body}");
        let page: Vec<Value> = serde_json::from_str(&body).unwrap();
        all.extend(page.iter().map(|agent| agent["id"].as_i64().unwrap()));
        if page.len() < PAGE {
            return all;
        }
    }
}

/// An agent, and the sessions that it knows of.
struct Viewer {
    agent: Agent,
    view: BTreeSet<i64>,
}

impl Viewer {
    async fn enters(node: &Gateway, room: &Classroom, name: &str) -> Self {
        let mut client = Client::connect(node.address()).await.unwrap();
        let success = client.connect_request(&room.participant(name), &room.id, "web").await.unwrap();
        Self { agent: Agent::of(client, &success), view: listed(node, room) }
    }

    /// Reads events until the agent knows exactly these sessions.
    async fn comes_to_see(&mut self, all: &BTreeSet<i64>) {
        while self.view != *all {
            let event = self.agent.client.next_event(SOON).await;
            let event = event.unwrap_or_else(|error| {
                let missing: Vec<_> = all.difference(&self.view).collect();
                let ghosts: Vec<_> = self.view.difference(all).collect();
                panic!("{error}: {} never saw {missing:?}, and still sees {ghosts:?}", self.agent.session)
            });
            let id = &event.body["id"];
            let session = id["sequence_id"].as_i64().unwrap();
            match id["operation"].as_str() {
                Some("entered") => self.view.insert(session),
                Some("left") => self.view.remove(&session),
                _ => panic!("{}", event.body),
            };
        }
    }
}

fn two_nodes() -> (Backend, Gateway) {
    // Clients answer pings only while they read, and here they wait for each other.
    let patient = |options: &GatewayOptions| options.clone().env("ROLLCALL_PONG_TIMEOUT", "25s");
    let first = Backend::start(Some(Servers::shared()), patient);
    let second = Gateway::start(patient(&first.beside())).unwrap();
    (first, second)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_that_commit_out_of_order_hide_no_agent() {
    let (first, second) = two_nodes();
    let room = first.classroom();
    // Another transaction locks the key of the first agent, whose id is drawn already.
    let (mut postgres, connection) =
        tokio_postgres::connect(&first.servers().unwrap().postgres, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let lock = postgres.transaction().await.unwrap();
    let row = format!(
        "insert into agent_session (agent_id, classroom_id, user_id, node_id, sid, role) \
         select '{}', '{}', 'early', id, 'locked', 'participant' from node limit 1",
        room.agent("web", "early"),
        room.id
    );
    lock.batch_execute(&row).await.unwrap();
    let early = Viewer::enters(&first.gateway, room, "early");
    let late = async {
        let waiting =
            "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query ~ 'agent_session'";
        first.wait_for_rows(waiting, &["1"]).await;
        let late = Viewer::enters(&second, room, "late").await;
        lock.rollback().await.unwrap();
        late
    };
    let (mut early, mut late) = join(early, late).await;
    assert!(early.agent.session < late.agent.session, "it had its id before");
    let all = BTreeSet::from([early.agent.session, late.agent.session]);
    assert_eq!(late.view, BTreeSet::from([late.agent.session]), "the list was read before the commit");
    join(early.comes_to_see(&all), late.comes_to_see(&all)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pairs_that_enter_two_nodes_at_once_all_see_each_other() {
    const PAIRS: usize = 100;
    let (first, second) = two_nodes();
    let room = first.classroom();
    let entering = (0..PAIRS).map(async |number| {
        let (here, there) = (format!("here{number}"), format!("there{number}"));
        let pair = join(Viewer::enters(&first.gateway, room, &here), Viewer::enters(&second, room, &there)).await;
        <[Viewer; 2]>::from(pair)
    });
    let mut viewers: Vec<_> = join_all(entering).await.into_iter().flatten().collect();
    // Some agents leave while others still get the entered events of those that came.
    for viewer in viewers.drain(..PAIRS / 3) {
        viewer.agent.leaves().await;
    }
    let all: BTreeSet<_> = viewers.iter().map(|viewer| viewer.agent.session).collect();
    join_all(viewers.iter_mut().map(|viewer| viewer.comes_to_see(&all))).await;
    let lists = async || [listed(&first.gateway, room), listed(&second, room)];
    until("both lists", SOON, lists, |lists| lists.iter().all(|list| *list == all)).await;
}

#[tokio::test]
async fn an_agent_is_told_the_end_of_its_own_earlier_session() {
    for backend in [Backend::real(), Backend::embedded()] {
        let room = backend.classroom();
        let resumes = async |resume: Value| {
            let mut client = backend.client().await;
            let mut request = room.connect_request(&room.participant("alice"), "web");
            request["resume"] = resume;
            let success = client.connect_request_with(request).await.unwrap();
            (Agent::of(client, &success), success)
        };
        let (before, success) = resumes(json!({})).await;
        let start = json!({"epoch": success["epoch"], "offset": success["offset"]});
        let gone = before.leaves().await;
        backend
            .wait_for_rows(&format!("select count(*) from agent_session where classroom_id = '{}'", room.id), &["0"])
            .await;
        let (mut after, success) = resumes(start).await;
        assert_eq!(success["recovered"], true);
        after.sees("left", &gone).await;
        backend.settled(room, [&mut after]).await;
    }
}

#[tokio::test]
async fn the_ack_of_join_lesson_names_the_lesson_and_where_its_events_start() {
    for backend in [Backend::real(), Backend::embedded()] {
        let room = backend.classroom();
        let mut plain = backend.participant(room, "seated").await;
        let ack = plain.client.join_lesson(&room.algebra).await.unwrap();
        let lesson = json!({"lesson_id": room.algebra, "seat": Classroom::SEAT, "seats": Classroom::SEATS});
        assert_eq!((&ack["data"], &ack["lesson"], ack.get("offset")), (&json!({}), &lesson, None), "{ack}");

        let subject = format!("lesson.{}.board", room.algebra);
        let mut client = backend.client().await;
        let mut request = room.connect_request(&room.participant("alice"), "web");
        request["resume"] = json!({});
        let start = client.connect_request_with(request).await.unwrap()["offset"].as_u64().unwrap();
        backend.publish(&subject, &json!({"n": 1}));
        let ack = client.join_lesson(&room.algebra).await.unwrap();
        let lesson = json!({"lesson_id": room.algebra, "seat": null, "seats": Classroom::SEATS});
        assert_eq!((&ack["data"], &ack["lesson"]), (&json!({}), &lesson), "{ack}");
        let begins = ack["offset"].as_u64().unwrap();
        assert!(begins > start, "what was published before is not for it");
        backend.publish(&subject, &json!({"n": 2}));
        loop {
            let event = client.next_event(SOON).await.unwrap();
            if event.body["n"] != Value::Null {
                assert_eq!(event.body["n"], 2);
                assert!(event.offset.unwrap() > begins);
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_stream_is_deleted_every_view_is_closed_and_read_anew() {
    let nats = Nats::start().unwrap();
    let servers = Servers { nats: nats.url(), ..Servers::shared() };
    let backend = Backend::start(Some(servers), |options| options.clone().env("ROLLCALL_RESET_SPREAD", "1s"));
    let room = backend.classroom();
    let mut plain = backend.participant(room, "alice").await;
    let mut resuming = backend.client().await;
    let mut request = room.connect_request(&room.participant("bob"), "web");
    request["resume"] = json!({});
    resuming.connect_request_with(request).await.unwrap();
    backend.settled(room, [&mut plain]).await;
    let context = jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    context.delete_stream("CLASSROOM").await.unwrap();
    for client in [&mut plain.client, &mut resuming] {
        session_error(&client.expect_close(SOON).await.unwrap(), "internal_server_error", 500, 3004);
    }
    let mut again = backend.participant(room, "carol").await;
    let dave = backend.participant(room, "dave").await;
    let seen = async || again.client.next_event(SOON).await.unwrap().body["id"]["sequence_id"].as_i64();
    let mut seen = seen;
    while seen().await != Some(dave.session) {}
}
