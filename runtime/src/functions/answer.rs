//! Reads the answer of a function (PROTOCOL 10).
//!
//! Invariant: an answer that has not exactly the required form has no effect: no part of it is published or sent to the
//! client.
use std::borrow::Cow;

use hyper::StatusCode;
use rollcall_schema::{AckMessage, AgentId, EntityType, Operation, read_object};
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::handler::publisher::{Event, Recipients};

/// An answer of the required form.
#[derive(Debug)]
pub(super) enum Answer {
    /// The data of the ack, and the events to publish before the ack.
    Success { data: Box<RawValue>, publish: Vec<(Recipients, Event)> },
    /// The message of the ack.
    Refused(AckMessage),
}

/// Why an answer is invalid. The text repeats no part of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AnswerError {
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("its answer is not {{\"data\":{{...}},\"publish\":[...]}}")]
    Success,
    #[error("an item of its \"publish\" is not {{\"to\",\"agent_id\",\"entity_type\",\"operation\",\"body\"}}")]
    Item,
    #[error("its answer has more than {0} items to publish")]
    TooMany(usize),
    #[error("its answer is not {{\"message\":\"...\"}} of at most 200 characters")]
    Message,
}

/// Reads an answer that may publish at most `max_events` events.
pub(super) fn read(status: StatusCode, body: &[u8], max_events: usize) -> Result<Answer, AnswerError> {
    match status {
        StatusCode::OK => success(body, max_events),
        status if status.is_client_error() => {
            let Refusal { message } = object(body).ok_or(AnswerError::Message)?;
            AckMessage::parse(&message).map(Answer::Refused).map_err(|_| AnswerError::Message)
        }
        status => Err(AnswerError::Status(status)),
    }
}

#[derive(Deserialize)]
struct Success<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    publish: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct Refusal<'a> {
    #[serde(borrow)]
    message: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow)]
    to: Cow<'a, str>,
    agent_id: Option<AgentId>,
    entity_type: EntityType,
    operation: Operation,
    #[serde(borrow)]
    body: &'a RawValue,
}

fn success(body: &[u8], max_events: usize) -> Result<Answer, AnswerError> {
    let Success { data, publish } = object(body).ok_or(AnswerError::Success)?;
    let data = match data {
        Some(data) if is_object(data) => data.to_owned(),
        Some(_) => return Err(AnswerError::Success),
        None => to_raw_value(&rollcall_schema::ack::Empty {}).map_err(|_| AnswerError::Success)?,
    };
    let items = publish.unwrap_or_default();
    if items.len() > max_events {
        return Err(AnswerError::TooMany(max_events));
    }
    let publish = items.into_iter().map(|item| event(item).ok_or(AnswerError::Item)).collect::<Result<_, _>>()?;
    Ok(Answer::Success { data, publish })
}

fn event(item: &RawValue) -> Option<(Recipients, Event)> {
    let Item { to, agent_id, entity_type, operation, body } = read_object(item.get()).ok()?;
    let recipients = match (&*to, agent_id) {
        ("lesson", None) => Recipients::Lesson,
        ("classroom", None) => Recipients::Classroom,
        ("agent", Some(agent)) => Recipients::Agent(agent),
        _ => return None,
    };
    is_object(body).then(|| (recipients, Event::new(entity_type, operation, &body)))
}

fn object<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Option<T> {
    read_object(std::str::from_utf8(text).ok()?).ok()
}

fn is_object(value: &RawValue) -> bool {
    value.get().starts_with('{')
}

#[cfg(test)]
mod tests {
    use super::*;

    const ITEM: &str = r#"{"to":"lesson","entity_type":"hand","operation":"raised","body":{"id":1}}"#;

    fn ok(body: &str) -> Result<Answer, AnswerError> {
        read(StatusCode::OK, body.as_bytes(), 3)
    }

    fn items(body: &str) -> (String, usize) {
        match ok(body) {
            Ok(Answer::Success { data, publish }) => (data.get().to_owned(), publish.len()),
            other => panic!("{body}: {other:?}"),
        }
    }

    #[test]
    fn a_success_has_data_and_events_where_there_are_any() {
        assert_eq!(items("{}"), ("{}".into(), 0));
        assert_eq!(items(r#" {"data":null,"publish":null,"more":[1]} "#), ("{}".into(), 0), "as absent");
        assert_eq!(items(r#"{"data":{"a" : 1.50}}"#), (r#"{"a" : 1.50}"#.into(), 0), "byte for byte");
        assert_eq!(items(&format!(r#"{{"publish":[{ITEM},{ITEM},{ITEM}]}}"#)), ("{}".into(), 3));
        let four = format!(r#"{{"publish":[{ITEM},{ITEM},{ITEM},{ITEM}]}}"#);
        assert_eq!(ok(&four).unwrap_err(), AnswerError::TooMany(3));
    }

    #[test]
    fn lies_about_types_do_nothing() {
        let bodies = [
            "",
            "null",
            "[]",
            "7",
            "OK",
            "<html></html>",
            "[{},[]]",
            "{\"data\":{}",
            "{\"data\":{}}}",
            r#"{"data":[]}"#,
            r#"{"data":"{}"}"#,
            r#"{"data":7}"#,
            r#"{"data":{},"data":{}}"#,
            r#"{"publish":{}}"#,
            r#"{"publish":"all"}"#,
            "{\"data\":{\"a\":\"\u{0}\"}}",
        ];
        for body in bodies {
            assert_eq!(ok(body).unwrap_err(), AnswerError::Success, "{body}");
        }
        assert_eq!(read(StatusCode::OK, b"{\"data\":{\"a\":\"\xff\"}}", 3).unwrap_err(), AnswerError::Success);
    }

    #[test]
    fn an_item_is_checked_before_any_is_published() {
        let wrong = [
            ITEM.replace("\"lesson\"", "\"all\""),
            ITEM.replace("\"lesson\"", "\"Lesson\""),
            ITEM.replace("\"lesson\"", "{\"lesson\":null}"),
            ITEM.replace("\"lesson\"", "\"agent\""),
            ITEM.replace("\"hand\"", "\"agent\""),
            ITEM.replace("\"hand\"", "\"Hand\""),
            ITEM.replace("\"raised\"", "\"raised.now\""),
            ITEM.replace("\"raised\"", "7"),
            ITEM.replace("{\"id\":1}", "[1]"),
            ITEM.replace("{\"id\":1}", "null"),
            ITEM.replace("{\"to\"", "{\"agent_id\":\"web.bob.example.org\",\"to\""),
            ITEM.replace("{\"to\"", "{\"agent_id\":\"*\",\"to\"").replace("\"lesson\"", "\"agent\""),
            r#"["lesson",null,"hand","raised",{}]"#.to_owned(),
            "null".to_owned(),
        ];
        for item in wrong {
            assert_eq!(ok(&format!(r#"{{"publish":[{ITEM},{item}]}}"#)).unwrap_err(), AnswerError::Item, "{item}");
        }
        let named = ITEM.replace("{\"to\"", "{\"agent_id\":\"web.bob.example.org\",\"to\"").replace("lesson", "agent");
        assert_eq!(items(&format!(r#"{{"publish":[{named}]}}"#)).1, 1);
    }

    #[test]
    fn a_refusal_has_a_message() {
        let refused = |body: &str| read(StatusCode::CONFLICT, body.as_bytes(), 3);
        let message = format!(r#"{{"message":"{}"}}"#, "é".repeat(200));
        for body in [r#"{"message":"the poll is over"}"#, r#"{"message":"\u0041","code":7}"#, &message] {
            assert!(matches!(refused(body), Ok(Answer::Refused(_))), "{body}");
        }
        let long = format!(r#"{{"message":"{}"}}"#, "é".repeat(201));
        for body in ["", "{}", r#"{"message":7}"#, r#"{"message":""}"#, r#"["x"]"#, &long] {
            assert_eq!(refused(body).unwrap_err(), AnswerError::Message, "{body}");
        }
    }

    #[test]
    fn any_other_status_is_no_answer() {
        for status in [201, 202, 204, 206, 301, 302, 307, 500, 502, 503] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(read(status, b"{}", 3).unwrap_err(), AnswerError::Status(status));
        }
    }
}
