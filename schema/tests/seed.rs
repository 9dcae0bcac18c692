//! Compares the seeds' text with the golden files, and the golden files with the messages that this crate writes.
//!
//! The examples are cut out of the two documents here, so a golden file that was edited by hand fails.
use std::time::Duration;

use rollcall_schema::{
    AckError, AgentEvent, AgentId, Change, ClassroomId, LeftReason, LessonId, Ref, SessionId, Subject, UserId,
    ack::{self, Empty},
    connect_success::ConnectSuccess,
    key,
};

const EVENTS: &str = include_str!("../golden/seed/000_0e1baf6bac64ba06.txt");
const JOIN_LESSON: &str = include_str!("../golden/seed/003_cbbeea603c727fa3.txt");

const AGENT_ENTERED: &str = include_str!("../golden/agent_entered.json");
const AGENT_LEFT: &str = include_str!("../golden/agent_left.json");
const DATA: &str = include_str!("../golden/join_lesson_data.txt");
const SUCCESS: &str = include_str!("../golden/join_lesson_success.json");
const ERROR: &str = include_str!("../golden/join_lesson_error.txt");
const CLIENT_EVENT_HANDLER: &str = include_str!("../golden/client_event_handler.txt");

/// Returns the language and the text of each fenced block, without the fence's indentation.
fn blocks(document: &str) -> Vec<(&str, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, &str, String)> = None;
    for line in document.split_inclusive('\n') {
        let indent = line.len() - line.trim_start_matches(' ').len();
        let fence = line[indent..].strip_prefix("```").map(str::trim);
        match (&mut open, fence) {
            (None, Some(language)) => open = Some((indent, language, String::new())),
            (None, None) => {}
            (Some(_), Some(_)) => blocks.extend(open.take().map(|(_, language, text)| (language, text))),
            (Some((fence, _, text)), None) => text.push_str(&line[indent.min(*fence)..]),
        }
    }
    assert!(open.is_none(), "a block that is not closed");
    blocks
}

fn examples(document: &str) -> Vec<(&str, String)> {
    blocks(document).into_iter().filter(|(language, _)| *language != "mermaid").collect()
}

fn diagrams(document: &str) -> Vec<String> {
    blocks(document).into_iter().filter(|(language, _)| *language == "mermaid").map(|(_, text)| text).collect()
}

/// Returns JSON without blanks between its tokens. Equal texts have equal values in the same order.
fn compact(json: &str) -> String {
    let mut in_text = false;
    let mut escaped = false;
    json.chars()
        .filter(|&c| {
            let keep = in_text || !c.is_ascii_whitespace();
            in_text ^= c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            keep
        })
        .collect()
}

fn text(message: Vec<u8>) -> String {
    String::from_utf8(message).expect("messages are UTF-8")
}

fn agent() -> AgentId {
    AgentId::parse("dev.testing01.svc.foxford.ru").expect("the seed's agent id")
}

#[test]
fn every_example_of_the_seeds_is_a_golden_file() {
    let owned = |blocks: &[(&'static str, &str)]| -> Vec<_> {
        blocks.iter().map(|(language, text)| (*language, (*text).to_owned())).collect()
    };
    assert_eq!(examples(EVENTS), owned(&[("json", AGENT_ENTERED), ("json", AGENT_LEFT)]));
    assert_eq!(examples(JOIN_LESSON), owned(&[("", DATA), ("", SUCCESS), ("", ERROR), ("", CLIENT_EVENT_HANDLER)]));
    assert_eq!((diagrams(EVENTS).len(), diagrams(JOIN_LESSON).len()), (2, 2));
}

#[test]
fn agent_events_are_the_seeds() {
    let agent = agent();
    let body = |change: &Change| text(AgentEvent { change, session: SessionId(1), agent: &agent, info: None }.body());
    assert_eq!(body(&Change::Entered), compact(AGENT_ENTERED));
    assert_eq!(body(&Change::Left(Some(LeftReason::Closed))), compact(AGENT_LEFT));
}

#[test]
fn agent_events_go_where_the_seed_says() {
    let classroom = ClassroomId::parse("5c2f2c26-6b1c-4a4b-9d4e-2b9f5a3f7d10").expect("a UUID");
    let subjects: Vec<_> = EVENTS.lines().filter_map(|line| line.strip_prefix("Subject: ")).collect();
    let ours = format!("`{}`", Subject::agent(classroom));
    assert_eq!(subjects.len(), 2);
    for subject in subjects {
        assert_eq!(subject.replace("{:CLASSROOM_ID}", &classroom.to_string()), ours);
    }
}

#[test]
fn acks_hold_the_seeds_objects() {
    let in_envelope = |object: String| object.replacen('{', r#"{"type":"ack","ref":1,"#, 1);
    let success = ack::success(Ref::Number(1), &Empty {}.into()).expect("a ref was given");
    assert_eq!(text(success), in_envelope(compact(SUCCESS)));

    let error = compact(ERROR).replace("str(e)", r#""lesson not found""#);
    assert_eq!(text(ack::error(Ref::Number(1), AckError::LessonNotFound)), in_envelope(error));
}

#[test]
fn keys_are_named_as_in_the_seed() {
    let lesson = LessonId::parse("algebra-1").expect("a lesson id");
    let user = UserId::parse("alice").expect("a user id");
    let named = |diagram: &str| -> Vec<String> {
        let mut names: Vec<_> = diagram
            .lines()
            .filter_map(|line| line.split_once('[')?.1.split_once(']'))
            .map(|(name, _)| {
                let name = name.replace("{lesson_id}", lesson.as_str());
                name.replace("{user_id}", user.as_str()).replace("{client_id}", user.as_str())
            })
            .collect();
        names.dedup();
        names
    };
    let flows = diagrams(JOIN_LESSON);
    assert_eq!(named(&flows[0]), [key::lesson_seat(&lesson), key::lesson_teacher(&lesson), key::user(&user)]);
    assert_eq!(named(&flows[1]), [key::lesson_seat(&lesson), key::user(&user), key::lesson_student(&lesson)]);
    for flow in flows {
        assert!(flow.contains("TTL 24"), "in hours");
    }
    assert_eq!(key::TTL_SECONDS, 24 * 3600);
}

#[test]
fn clients_are_told_the_seeds_ping_interval() {
    assert!(diagrams(EVENTS)[0].contains("loop Every 30s"));
    let message = ConnectSuccess {
        session: None,
        sid: rollcall_schema::Sid(1),
        ping_interval: Duration::from_secs(30),
        expires_at: None,
        version: "1.2.3",
        start: None,
        roster: None,
    }
    .message();
    assert!(text(message).contains(r#""ping_interval":30"#));
}
