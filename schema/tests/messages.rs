//! Compares every message of the contract with its line in `golden/protocol`.
use std::{sync::Arc, time::Duration};

use rollcall_schema::{
    AckError, AckMessage, AgentEvent, AgentId, Change, ClassroomId, ConnectRequest, ConnectSuccess, EntityEvent,
    JoinLesson, JsonObject, LeftReason, LessonId, Nonce, Offset, Push, Ref, Refresh, Request, Role, RosterAgent,
    RosterPage, Seat, SessionError, SessionId, Sid, StateVersion, Update,
    ack::{self, Empty, LessonJoined, Refreshed, RosterRead},
    connect_success::Start,
    request::RefText,
    session_error,
};
use uuid::Uuid;

const SECOND: Duration = Duration::from_secs(1);

#[track_caller]
fn assert_golden(messages: Vec<Vec<u8>>, golden: &str) {
    let lines: Vec<_> = messages.into_iter().map(|line| String::from_utf8(line).expect("messages are UTF-8")).collect();
    assert_eq!(lines, golden.lines().collect::<Vec<_>>());
}

fn agent() -> AgentId {
    AgentId::parse("web.alice.example.org").expect("an agent id")
}

#[test]
fn acks() {
    let one = Ref::Number(1);
    let success = |reference| ack::success(reference, &Empty {}.into()).expect("a ref was given");
    let joined = |seat, offset| {
        let lesson = LessonId::parse("algebra-1").expect("a lesson");
        ack::success(one, &LessonJoined { lesson, seat, seats: 12, offset }.into()).expect("a ref was given")
    };
    let refreshed = Refreshed { expires_at: 1_700_000_000 }.into();
    let refreshed = ack::success(one, &refreshed).expect("a ref was given");
    assert_golden(
        vec![
            success(one),
            joined(Some(Seat(3)), None),
            joined(None, None),
            joined(None, Some(Offset(41))),
            refreshed,
            ack::error(one, AckError::LessonIdRequired),
            ack::error(one, AckError::LessonNotFound),
            ack::error(one, AckError::HubCannotJoin),
            ack::error(one, AckError::InvalidAccessToken),
            ack::error(one, AckError::AccessTokenOfAnotherUser),
            ack::error(one, AckError::AlreadyConnected),
            ack::error(Ref::Missing, AckError::UnknownEvent),
            ack::error(Ref::Missing, AckError::InvalidPayload),
            ack::error(one, AckError::TooManyRequests(SECOND)),
            ack::error(one, AckError::TryAgainLater(SECOND)),
            ack::error(Ref::Number(i64::MIN), AckError::TimedOut(Duration::ZERO)),
            ack::error(Ref::Text(RefText::new("a\"b").expect("short")), AckError::LessonNotFound),
            ack::error_with(one, AckError::InvalidPayload, Some("lesson_id: [A-Za-z0-9_-]{1,64}")),
            ack::error(one, AckError::NotInALesson),
            ack::error(one, AckError::NotInAClassroom),
            ack::error_of_handler(one, &AckMessage::from_static("the poll is over")),
            ack::success(one, &RosterRead(Arc::new(roster())).into()).expect("a ref was given"),
        ],
        include_str!("../golden/protocol/ack.jsonl"),
    );
}

fn roster() -> RosterPage {
    let agent = RosterAgent {
        session_id: SessionId(1),
        agent_id: agent(),
        role: Role::Teacher,
        lesson_id: None,
        seat: None,
        state_n: StateVersion(42),
        info: None,
        state: JsonObject::parse(r#"{"hand":true}"#).ok(),
    };
    let second = RosterAgent { session_id: SessionId(2), ..agent.clone() };
    RosterPage::encode(&[agent, second], 1, |agent| agent)
}

#[test]
fn a_handlers_own_message_has_up_to_200_characters() {
    for text in ["x", "the poll is over", &"é".repeat(200)] {
        assert_eq!(AckMessage::parse(text).expect("it fits").as_str(), text);
    }
    for text in ["", &"é".repeat(201)] {
        assert!(AckMessage::parse(text).is_err(), "{text}");
    }
}

#[test]
fn a_success_without_ref_is_not_acknowledged() {
    assert_eq!(ack::success(Ref::Missing, &Empty {}.into()), None);
}

#[test]
fn session_errors() {
    let wait = Duration::from_millis(1500);
    let detailed = SessionError::Unauthenticated.message_with(wait, Some("token expired"));
    assert_golden(
        session_error::TABLE.iter().map(|row| row.error.message(wait)).chain([detailed]).collect(),
        include_str!("../golden/protocol/session_error.jsonl"),
    );
    let codes: Vec<_> = session_error::TABLE.iter().map(|row| (row.error.name(), row.error.close_code())).collect();
    assert_eq!(
        codes,
        [
            ("terminated", 3001),
            ("internal_server_error", 3004),
            ("token_expired", 3005),
            ("slow_consumer", 3008),
            ("pong_timed_out", 3012),
            ("too_many_requests", 3013),
            ("unauthenticated", 3500),
            ("unsupported_request", 3501),
            ("serialization_failed", 3501),
            ("auth_timed_out", 3502),
            ("replaced", 3503),
            ("access_denied", 3507),
            ("kicked", 3508),
        ]
    );
}

#[test]
fn connect_successes() {
    let agent = agent();
    let page = roster();
    let success_with = |session: Option<_>, start, roster| {
        let (ping_interval, expires_at) = (Duration::from_secs(30), session.map(|_| 1_700_000_000));
        ConnectSuccess { session, sid: Sid(1), ping_interval, expires_at, version: "1.2.3", start, roster }.message()
    };
    let success = |session, start| success_with(session, start, None);
    let start = |epoch, offset, recovered| Some(Start { epoch, offset: Offset(offset), recovered });
    let session = Some((SessionId(1), &agent));
    assert_golden(
        vec![
            success(session, None),
            success(session, start("e1", 0, false)),
            success(session, start("e1", 41, true)),
            success(session, start("e2", 7, false)),
            success(None, None),
            success_with(session, None, Some(&page)),
        ],
        include_str!("../golden/protocol/connect_success.jsonl"),
    );
}

#[test]
fn pushes() {
    let agent = agent();
    let entered = AgentEvent { change: &Change::Entered, session: SessionId(1), agent: &agent, info: None }.body();
    let note = EntityEvent { entity_type: "note", operation: "created", sequence_id: 7 };
    let body = br#"{"text":"hello"}"#;
    let both = |push: Push<'_>, offset| [push.plain().into_owned(), push.resumable(Offset(offset))];
    assert_golden(
        [
            both(Push::parse(&entered, Some(note)).expect("an object"), 12),
            both(Push::parse(body, Some(note)).expect("an object"), 13),
            both(Push::parse(body, None).expect("an object"), 14),
        ]
        .concat(),
        include_str!("../golden/protocol/push.jsonl"),
    );
}

#[test]
fn agent_events_carry_their_headers() {
    let agent = agent();
    let headers = |change: &Change| AgentEvent { change, session: SessionId(7), agent: &agent, info: None }.headers();
    let message_id = |change: &Change, nonce| {
        AgentEvent { change, session: SessionId(7), agent: &agent, info: None }.message_id(Uuid::nil(), Nonce(nonce))
    };
    let expected = |operation: &str| {
        vec![
            ("Is-Internal", "false".to_owned()),
            ("Sender-Agent-Id", "web.alice.example.org".to_owned()),
            ("Entity-Event-Type", "agent".to_owned()),
            ("Entity-Event-Operation", operation.to_owned()),
            ("Entity-Event-Sequence-Id", "7".to_owned()),
        ]
    };
    let nil = "00000000-0000-0000-0000-000000000000";
    assert_eq!(headers(&Change::Entered), expected("entered"));
    assert_eq!(message_id(&Change::Entered, 0xabc), format!("agent.entered:{nil}:7:000000000abc"));
    let updated = Change::Updated(Box::new(update(None, None)));
    assert_eq!(headers(&updated), expected("updated"));
    assert_eq!(message_id(&updated, 1), format!("agent.updated:{nil}:7:000000000001"));

    let reasons = ["closed", "lost", "timed_out", "kicked", "drained", "node_lost"];
    for reason in reasons {
        let left = Change::parse("left", Some(reason)).expect("a reason");
        let mut expected = expected("left");
        expected.push(("Left-Reason", reason.to_owned()));
        assert_eq!(headers(&left), expected);
        assert_eq!(message_id(&left, 1), format!("agent.left:{nil}:7:000000000001"));
    }
}

fn update(state: Option<&str>, role: Option<Role>) -> Update {
    let state = state.map(|state| JsonObject::parse(state).expect("an object"));
    Update { state, state_n: StateVersion(42), role }
}

#[test]
fn agent_events_carry_info_and_state() {
    let agent = agent();
    let info = JsonObject::parse(r#"{"name":"Alice"}"#).expect("an object");
    let body = |change: Change, info| AgentEvent { change: &change, session: SessionId(1), agent: &agent, info }.body();
    let updated = |state, role, info| body(Change::Updated(Box::new(update(state, role))), info);
    assert_golden(
        vec![
            body(Change::Entered, Some(&info)),
            updated(Some(r#"{"hand":true}"#), None, Some(&info)),
            updated(None, None, None),
            updated(None, Some(Role::Teacher), None),
            updated(Some("{}"), Some(Role::Teacher), Some(&info)),
            body(Change::Left(None), Some(&info)),
        ],
        include_str!("../golden/protocol/agent.jsonl"),
    );
}

#[test]
fn changes_are_read_back() {
    for change in [Change::Entered, Change::Left(Some(LeftReason::NodeLost))] {
        let reason = change.reason().map(LeftReason::as_str);
        assert_eq!(Change::parse(change.operation(), reason), Ok(change.clone()));
    }
    for reason in [None, Some("bored")] {
        assert_eq!(Change::parse("left", reason), Ok(Change::Left(None)), "{reason:?}");
    }
    assert!(Change::parse("updated", None).is_err());
}

#[test]
fn requests() {
    let lines: Vec<_> = include_str!("../golden/protocol/request.jsonl").lines().collect();
    let requests: Vec<_> =
        lines.iter().map(|line| Request::parse(line.as_bytes()).expect("a request of the contract")).collect();
    let heads: Vec<_> = requests.iter().map(|request| (&*request.event, request.reference)).collect();
    let connect = ("connect_request", Ref::Missing);
    let join = |n| ("join_lesson", Ref::Number(n));
    assert_eq!(heads, [connect, connect, connect, connect, join(1), join(2), join(3), ("refresh", Ref::Number(4))]);

    let connects = [0, 1, 2, 3].map(|n| requests[n].payload::<ConnectRequest>().expect("a connect_request"));
    let classroom = ClassroomId::parse("5c2f2c26-6b1c-4a4b-9d4e-2b9f5a3f7d10").expect("a UUID");
    assert!(connects.iter().all(|c| c.classroom_id == classroom && c.agent_label.as_str() == "web"));
    let tokens: Vec<_> = connects.iter().map(|c| c.token.as_ref().map(|token| token.as_str())).collect();
    assert_eq!(tokens, [Some("<JWT>"), Some("<JWT>"), Some("<JWT>"), None]);
    let positions: Vec<_> = connects.iter().map(|c| c.resume.as_ref().map(|resume| resume.position())).collect();
    assert_eq!(positions, [None, Some(None), Some(Some(("e1", Offset(41)))), None]);
    let algebra = LessonId::parse("algebra-1").ok();
    assert_eq!(connects[2].resume.as_ref().and_then(|resume| resume.lesson_id.clone()), algebra);

    let joins = [4, 5, 6].map(|n| requests[n].payload::<JoinLesson>().expect("a join_lesson"));
    assert_eq!([&joins[0].lesson_id, &joins[1].lesson_id], [&algebra, &algebra]);
    assert_eq!(joins[1].access_token.as_ref().map(|token| token.as_str()), Some("<JWT>"));
    assert_eq!(joins[2], JoinLesson::default());

    let refresh = requests[7].payload::<Refresh>().expect("a refresh");
    assert_eq!(refresh.token.as_str(), "<JWT>");
}
