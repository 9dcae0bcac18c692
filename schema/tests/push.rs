//! Which bodies are wrapped and which are forwarded, by the rules of PROTOCOL 3.
use std::borrow::Cow;

use proptest::{prelude::*, test_runner::FileFailurePersistence::WithSource};
use rollcall_schema::{EntityEvent, Offset, Push, PushError};
use serde_json::Value;

const NOTE: Option<EntityEvent<'static>> =
    Some(EntityEvent { entity_type: "note", operation: "created", sequence_id: 7 });

#[test]
fn an_object_with_an_id_is_forwarded_byte_for_byte() {
    for body in [
        r#"{"id":{"entity_type":"x"},"payload":{}}"#,
        r#"{"id":null}"#,
        r#"{"\u0069d":1}"#,
        "{\n  \"a\": {\"b\": [1, 2.50, 1e999]},\r\n\t\"id\" : 1\n}\n",
    ] {
        let push = Push::parse(body.as_bytes(), NOTE).expect("an object");
        assert!(matches!(push.plain(), Cow::Borrowed(bytes) if bytes == body.as_bytes()), "{body}");
    }
}

#[test]
fn without_an_id_the_headers_decide() {
    for body in ["{}", r#"{"a":{"id":1}}"#, "{\n\"text\": \"id\"\n}", r#"{"Id":1,"id ":2}"#, r#"{"\ud800":"\udc00"}"#] {
        let wrapped =
            format!(r#"{{"id":{{"entity_type":"note","operation":"created","sequence_id":7}},"payload":{body}}}"#);
        assert_eq!(*Push::parse(body.as_bytes(), NOTE).expect("an object").plain(), *wrapped.as_bytes(), "{body}");
        assert_eq!(*Push::parse(body.as_bytes(), None).expect("an object").plain(), *body.as_bytes(), "{body}");
    }
}

/// A handler's event reaches clients in one form, whatever the handler has put into its body.
#[test]
fn a_stored_body_always_comes_wrapped() {
    let entity = NOTE.expect("an entity");
    for body in ["{}", r#"{"id":7,"text":"x"}"#, r#"{"type":"ack"}"#, r#"{"id":1,"type":"ack"}"#] {
        let wrapped =
            format!(r#"{{"id":{{"entity_type":"note","operation":"created","sequence_id":7}},"payload":{body}}}"#);
        let stored = Push::wrapped_body(body.as_bytes(), entity).expect("an object");
        assert_eq!(*Push::parse(&stored, NOTE).expect("an object").plain(), *wrapped.as_bytes(), "{body}");
    }
    for body in ["", "[]", "7", "{", "{}{}"] {
        assert_eq!(Push::wrapped_body(body.as_bytes(), entity), Err(PushError::NotAnObject), "{body}");
    }
}

#[test]
fn headers_are_escaped() {
    let odd = EntityEvent { entity_type: "no\"te", operation: "\r\n\u{1b}", sequence_id: i64::MIN };
    let push = Push::parse(b"{}", Some(odd)).expect("an object").plain().into_owned();
    let value: Value = serde_json::from_slice(&push).expect("still JSON");
    assert_eq!(value["id"]["entity_type"], "no\"te");
    assert_eq!(value["id"]["operation"], "\r\n\u{1b}");
    assert_eq!(value["id"]["sequence_id"], i64::MIN);
}

#[test]
fn what_clients_would_take_for_the_gateways_own_is_refused() {
    for kind in ["ack", "ping", "connect_success", "recoverable_session_error", "unrecoverable_session_error"] {
        let escaped: String = kind.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect();
        for body in [
            format!(r#"{{"type":"{kind}"}}"#),
            format!(r#"{{"type":"note","type":"{kind}"}}"#),
            format!(r#"{{"id":1,"t\u0079pe" : "{kind}","type":"note"}}"#),
            format!(r#"{{"type":"{escaped}"}}"#),
        ] {
            assert_eq!(Push::parse(body.as_bytes(), None), Err(PushError::ReservedType), "{body}");
        }
        // A reserved `type` below the top level is no fault.
        for body in [format!(r#"{{"a":{{"type":"{kind}"}}}}"#), format!(r#"{{"type":["{kind}"]}}"#)] {
            assert!(Push::parse(body.as_bytes(), None).is_ok(), "{body}");
        }
        assert!(Push::parse(format!(r#"{{"type":"{kind}"}}"#).as_bytes(), NOTE).is_ok(), "wrapped");
    }
    for body in [r#"{"type":"Ack"}"#, r#"{"type":"ack "}"#, r#"{"type":1}"#, r#"{"type":"\ud800"}"#] {
        assert!(Push::parse(body.as_bytes(), None).is_ok(), "{body}");
    }
}

#[test]
fn a_body_says_of_which_entity_it_is() {
    for body in [
        r#"{"id":{"entity_type":"agent","operation":"left","sequence_id":1},"payload":{}}"#,
        r#"{"\u0069d":{"entity\u005ftype":"\u0061gent"}}"#,
        r#"{"id":{"entity_type":"agent"},"id":{"entity_type":"note"}}"#,
        r#"{"id":{"entity_type":"note","\ud800":1,"entity_type":"agent"},"\ud800":1}"#,
    ] {
        assert!(Push::names_entity(body, "agent"), "{body}");
    }
    for body in [
        "{}",
        r#"{"id":"agent"}"#,
        r#"{"id":{"entity_type":["agent"]}}"#,
        r#"{"id":{"entity_type":"Agent"}}"#,
        r#"{"payload":{"id":{"entity_type":"agent"}}}"#,
        r#"{"entity_type":"agent"}"#,
    ] {
        assert!(!Push::names_entity(body, "agent"), "{body}");
    }
}

#[test]
fn what_is_not_one_object_is_refused() {
    for body in [
        "",
        " ",
        "null",
        "1",
        "\"{}\"",
        "[]",
        "[{}]",
        "{",
        "{}{}",
        "{},",
        "{\"a\"}",
        "{\"a\":1,}",
        "{a:1}",
        "\u{feff}{}",
        "{\"a\":\"\n\"}",
    ] {
        assert_eq!(Push::parse(body.as_bytes(), NOTE), Err(PushError::NotAnObject), "{body:?}");
    }
    assert_eq!(Push::parse(b"{\"a\":\"\xff\"}", None), Err(PushError::NotAnObject));
}

proptest! {
    #![proptest_config(ProptestConfig::with_failure_persistence(WithSource("regressions")))]

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = Push::parse(&bytes, NOTE);
    }

    #[test]
    fn whatever_is_accepted_goes_out_as_one_object(text in r#"\{[\[\]{}:,"\\a0-9 \n]{0,60}\}|\{"[a-z]{1,3}":[0-9]{1,5}\}"#, offset: u64) {
        if let Ok(push) = Push::parse(text.as_bytes(), NOTE) {
            let resumable = push.resumable(Offset(offset));
            let whole: Value = serde_json::from_slice(&resumable).expect("JSON");
            let event: Value = serde_json::from_slice(&push.plain()).expect("JSON");
            prop_assert!(event.is_object());
            prop_assert_eq!(&whole["offset"], &Value::from(offset));
            prop_assert_eq!(&whole["event"], &event);
            prop_assert!(String::from_utf8_lossy(&resumable).contains(&text));
        }
    }
}
