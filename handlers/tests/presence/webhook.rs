//! The webhook: every entered and left reaches the receiver, in the order of its classroom, whatever happens to the
//! receiver and the nodes.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use rollcall_loadtest::webhook::{self, Mood, Receiver, Taken};
use rollcall_loadtest::{Client, Gateway, GatewayOptions};
use serde_json::json;

use crate::common::{Agent, Backend, Classroom, SOON, Servers, Whom, agent_event, on_both_kinds, until};

/// The webhook's secret in base64, and the key in it.
const SECRET: (&str, &[u8]) = (webhook::SECRET, b"0123456789abcdef0123456789abcdef");
/// A deadline that is long enough for two nodes and a receiver on a busy machine.
const LATE: Duration = Duration::from_secs(40);

on_both_kinds!(
    events_come_signed_with_their_reason_and_in_order,
    what_happened_while_the_receiver_and_the_node_were_away_comes_later,
    a_classroom_that_is_refused_holds_up_no_other,
    an_event_that_is_never_taken_is_given_up,
    a_receiver_that_hangs_is_asked_again,
    a_state_comes_between_entered_and_left,
);

fn posting_to(receiver: &Receiver, options: GatewayOptions) -> GatewayOptions {
    options
        .env("ROLLCALL_WEBHOOK_URL", receiver.url())
        .env("ROLLCALL_WEBHOOK_SECRET", SECRET.0)
        .env("ROLLCALL_WEBHOOK_MAX_PAUSE", "200ms")
        .env("ROLLCALL_WEBHOOK_TIMEOUT", "2s")
        .env("ROLLCALL_LEASE", "2s")
}

fn backend(kind: &Backend, receiver: &Receiver) -> Backend {
    kind.another(|options| posting_to(receiver, options.clone()))
}

/// The events that a classroom must have, in order.
#[derive(Default)]
struct Expected(Vec<(&'static str, Whom)>);

impl Expected {
    fn entered(&mut self, agent: &Agent) {
        self.0.push(("entered", agent.whom()));
    }

    async fn leaves(&mut self, agent: Agent) {
        self.0.push(("left", agent.leaves().await));
    }

    /// Lets an agent enter and leave.
    async fn visit(&mut self, backend: &Backend, room: &Classroom, name: &str) {
        let agent = backend.participant(room, name).await;
        self.entered(&agent);
        self.leaves(agent).await;
        let gone = format!(
            "select count(*) from agent_session_history where classroom_id = '{}' and agent_id = '{}'",
            room.id,
            room.agent("web", name)
        );
        backend.wait_for_rows(&gone, &["1"]).await;
    }

    /// Waits until the receiver has all these events, and no other event of the classroom.
    async fn come_to(&self, receiver: &Receiver, room: &Classroom) -> Vec<Taken> {
        let of_room = async || {
            let mut ledger = receiver.ledger();
            ledger.retain(|taken| taken.classroom == room.id);
            ledger
        };
        let all = until("the classroom's events", LATE, of_room, |ledger| ledger.len() >= self.0.len()).await;
        let events: Vec<_> = all.iter().map(|taken| taken.event.clone()).collect();
        let wanted: Vec<_> = self.0.iter().map(|(label, whom)| agent_event(label, whom.session, &whom.id)).collect();
        assert_eq!(events, wanted);
        all
    }
}

async fn events_come_signed_with_their_reason_and_in_order(kind: &Backend) {
    let receiver = Receiver::start().unwrap();
    let backend = backend(kind, &receiver);
    let room = backend.classroom();
    let mut expected = Expected::default();
    for name in ["alice", "bob"] {
        expected.visit(&backend, room, name).await;
    }
    let taken = expected.come_to(&receiver, room).await;
    assert_eq!(
        taken.iter().map(|taken| taken.reason.as_deref()).collect::<Vec<_>>(),
        [None, Some("closed"), None, Some("closed")]
    );
    assert!(taken.iter().all(|one| one.epoch == taken[0].epoch && !one.epoch.is_empty()));
    assert!(taken.is_sorted_by_key(|taken| taken.offset));
    let posted = receiver.latest().unwrap();
    let header = |name: &str| posted.headers.get(name).unwrap_or_else(|| panic!("{name} in {:?}", posted.headers));
    assert_eq!(header("content-type"), "application/json");
    let mut signed = format!("{}.{}.", header("webhook-id"), header("webhook-timestamp")).into_bytes();
    signed.extend(&posted.body);
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.1), &signed);
    assert_eq!(header("webhook-signature"), &format!("v1,{}", STANDARD.encode(signature)));
}

async fn what_happened_while_the_receiver_and_the_node_were_away_comes_later(kind: &Backend) {
    let receiver = Receiver::start().unwrap();
    let mut backend = backend(kind, &receiver);
    let (mut expected, room) = (Expected::default(), 0);
    expected.visit(&backend, &backend.classrooms()[room], "alice").await;
    receiver.kill();
    for number in 0..5 {
        expected.visit(&backend, &backend.classrooms()[room], &format!("away-{number}")).await;
    }
    backend.gateway.wait_for_metric("rollcall_webhook_retries_total", &[], SOON, |retries| retries > 0.0).unwrap();
    backend.gateway.kill().unwrap();
    receiver.restart().unwrap();
    backend.gateway.restart().unwrap();
    expected.visit(&backend, &backend.classrooms()[room], "bob").await;
    expected.come_to(&receiver, &backend.classrooms()[room]).await;
    backend.gateway.wait_for_metric("rollcall_webhook_lag_seconds", &[], SOON, |lag| lag == 0.0).unwrap();
}

async fn a_classroom_that_is_refused_holds_up_no_other(kind: &Backend) {
    let receiver = Receiver::start().unwrap();
    let backend = backend(kind, &receiver);
    let (refused, other) = (backend.classroom(), backend.classroom());
    receiver.set(Mood::AnswersClassroom(500, refused.id.clone()));
    let (mut of_refused, mut of_other) = (Expected::default(), Expected::default());
    for number in 0..4 {
        of_refused.visit(&backend, refused, &format!("alice-{number}")).await;
        of_other.visit(&backend, other, &format!("bob-{number}")).await;
    }
    let parked = "rollcall_webhook_parked_classrooms";
    of_other.come_to(&receiver, other).await;
    let mut more = 0;
    // Other classrooms' events must arrive, because only they show that the receiver works.
    while backend.gateway.metric(parked, &[]).unwrap() == 0.0 {
        of_other.visit(&backend, other, &format!("carol-{more}")).await;
        more += 1;
        assert!(more < 200, "never parked");
    }
    of_other.visit(&backend, other, "dave").await;
    of_other.come_to(&receiver, other).await;
    assert!(receiver.ledger().iter().all(|taken| taken.classroom != refused.id));
    receiver.set(Mood::Takes);
    of_refused.come_to(&receiver, refused).await;
    backend.gateway.wait_for_metric(parked, &[], SOON, |parked| parked == 0.0).unwrap();
    of_refused.visit(&backend, refused, "erin").await;
    of_refused.come_to(&receiver, refused).await;
    assert_eq!(backend.gateway.metric("rollcall_webhook_dropped_total", &[]).unwrap(), 0.0);
}

async fn an_event_that_is_never_taken_is_given_up(kind: &Backend) {
    let receiver = Receiver::start().unwrap();
    let backend = kind.another(|options| posting_to(&receiver, options.clone()).env("ROLLCALL_WEBHOOK_HOLD", "500ms"));
    let (refused, other) = (backend.classroom(), backend.classroom());
    receiver.set(Mood::AnswersAgent(500, refused.agent("web", "poison")));
    let _poison = backend.participant(refused, "poison").await;
    let mut expected = Expected::default();
    for number in 0..3 {
        expected.visit(&backend, refused, &format!("alice-{number}")).await;
    }
    let (dropped, reason) = ("rollcall_webhook_dropped_total", ["reason=\"refused\""]);
    let (mut of_other, mut more) = (Expected::default(), 0);
    while backend.gateway.metric(dropped, &reason).unwrap() == 0.0 {
        of_other.visit(&backend, other, &format!("bob-{more}")).await;
        more += 1;
        assert!(more < 2000, "never given up");
    }
    expected.come_to(&receiver, refused).await;
    of_other.come_to(&receiver, other).await;
    let log = backend.gateway.all_output();
    assert!(log.contains("the webhook gives an event up") && log.contains(&refused.id), "{log}");
}

async fn a_receiver_that_hangs_is_asked_again(kind: &Backend) {
    let receiver = Receiver::start().unwrap();
    let backend = backend(kind, &receiver);
    let room = backend.classroom();
    receiver.set(Mood::Hangs);
    let mut expected = Expected::default();
    expected.visit(&backend, room, "alice").await;
    until("two requests", LATE, async || receiver.requests(), |requests| *requests >= 2).await;
    receiver.set(Mood::Takes);
    expected.come_to(&receiver, room).await;
}

async fn a_state_comes_between_entered_and_left(kind: &Backend) {
    let receiver = Receiver::start().unwrap();
    let backend = backend(kind, &receiver);
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    let ack = alice.client.request("set_state", json!({"state": {"hand": true}})).await.unwrap();
    assert_eq!(ack["status"], "SUCCESS");
    alice.leaves().await;
    let taken = until("three events", LATE, async || receiver.ledger(), |ledger| ledger.len() >= 3).await;
    let operations: Vec<_> = taken.iter().map(|taken| taken.event["id"]["operation"].clone()).collect();
    assert_eq!(operations, ["entered", "updated", "left"]);
    assert_eq!((&taken[1].event["payload"]["state"], &taken[1].reason), (&json!({"hand": true}), &None));
}

/// Enters on a node that is not the backend's own.
async fn enters_on(node: &Gateway, room: &Classroom, name: &str) -> Agent {
    let mut client = Client::connect(node.address()).await.unwrap();
    let success = client.connect_request(&room.participant(name), &room.id, "web").await.unwrap();
    Agent::of(client, &success)
}

#[tokio::test]
async fn another_node_goes_on_for_one_that_is_killed() {
    let receiver = Receiver::start().unwrap();
    let mut first = Backend::start(Some(Servers::shared()), |options| posting_to(&receiver, options.clone()));
    let mut expected = Expected::default();
    expected.visit(&first, &first.classrooms()[0], "alice").await;
    expected.come_to(&receiver, &first.classrooms()[0]).await;
    let second = Gateway::start(posting_to(&receiver, first.beside())).unwrap();
    receiver.kill();
    expected.visit(&first, &first.classrooms()[0], "bob").await;
    first.gateway.kill().unwrap();
    receiver.restart().unwrap();
    let carol = enters_on(&second, &first.classrooms()[0], "carol").await;
    expected.entered(&carol);
    expected.come_to(&receiver, &first.classrooms()[0]).await;
}

/// A node that was stopped posts events late that another node posted meanwhile. Their offsets show that they are late.
#[tokio::test]
async fn a_node_that_stood_still_moves_no_cursor() {
    let receiver = Receiver::start().unwrap();
    let first = Backend::start(Some(Servers::shared()), |options| posting_to(&receiver, options.clone()));
    let room = &first.classrooms()[0];
    let mut expected = Expected::default();
    expected.visit(&first, room, "alice").await;
    expected.come_to(&receiver, room).await;
    let second = Gateway::start(posting_to(&receiver, first.beside())).unwrap();
    receiver.set(Mood::Hangs);
    let before = receiver.requests();
    expected.visit(&first, room, "bob").await;
    until("a request that hangs", SOON, async || receiver.requests(), |requests| *requests > before).await;
    first.gateway.pause().unwrap();
    receiver.set(Mood::Takes);
    let carol = enters_on(&second, room, "carol").await;
    expected.entered(&carol);
    expected.leaves(carol).await;
    expected.come_to(&receiver, room).await;
    first.gateway.resume().unwrap();
    let dave = enters_on(&second, room, "dave").await;
    expected.entered(&dave);
    expected.come_to(&receiver, room).await;
    // The stopped node notices that another node has the lease, and delivers no more.
    let log = async || first.gateway.all_output();
    until("its end", LATE, log, |log| log.contains("this node does not deliver to the webhook any more")).await;
    expected.leaves(dave).await;
    expected.come_to(&receiver, room).await;
}

#[tokio::test]
async fn a_stream_that_is_made_anew_has_another_epoch() {
    let nats = rollcall_loadtest::servers::Nats::start().unwrap();
    let receiver = Receiver::start().unwrap();
    let servers = Servers { nats: nats.url(), ..Servers::shared() };
    let backend = Backend::start(Some(servers), |options| posting_to(&receiver, options.clone()));
    let room = backend.classroom();
    let mut expected = Expected::default();
    expected.visit(&backend, room, "alice").await;
    let before = expected.come_to(&receiver, room).await;
    let context = async_nats::jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    context.delete_stream("CLASSROOM").await.unwrap();
    until("the stream again", LATE, async || context.get_stream("CLASSROOM").await.is_ok(), |there| *there).await;
    expected.visit(&backend, room, "bob").await;
    let after = expected.come_to(&receiver, room).await;
    let (old, new) = (&before[0], after.last().unwrap());
    assert!(new.epoch != old.epoch && new.offset < 100, "{old:?} {new:?}");
}
