//! How messages of clients are read: the rows of the table in `request.rs`, and arbitrary bytes.
use std::borrow::Cow;

use proptest::{prelude::*, test_runner::FileFailurePersistence::WithSource};
use rollcall_schema::{
    ConnectRequest, JoinLesson, JsonObject, LessonId, Ref, Refresh, Request, Resume, Roster, SessionId, SetState,
    request::{PayloadError, RefText, RequestError},
};

const UUID: &str = "5c2f2c26-6b1c-4a4b-9d4e-2b9f5a3f7d10";

fn parse(message: &str) -> Result<Request<'_>, RequestError> {
    Request::parse(message.as_bytes())
}

fn reference(value: &str) -> Ref {
    parse(&format!(r#"{{"type":"join_lesson","ref":{value},"payload":{{}}}}"#)).expect("only the ref is odd").reference
}

#[track_caller]
fn is_faulty(value: &str) {
    let message = format!(r#"{{"type":"join_lesson","ref":{value}}}"#);
    let error = parse(&message).expect_err(value);
    assert_eq!((error, error.reference()), (RequestError::Reference, Ref::Missing));
    let detail = PayloadError::from(error).detail;
    assert_eq!(detail.as_deref(), Some("ref: an integer of 64 bits, or a text of at most 64 bytes"));
}

fn connect(fields: &str) -> Result<Option<Resume>, PayloadError> {
    let message = format!(r#"{{"type":"connect_request","payload":{{{fields}}}}}"#);
    let request = parse(&message).expect("the envelope is right");
    request.payload::<ConnectRequest>().map(|connect| connect.resume)
}

#[test]
fn a_ref_is_an_integer_or_a_short_text() {
    assert_eq!(reference("null"), Ref::Missing);
    for (value, expected) in
        [("0", 0), ("-0", 0), ("42", 42), ("9223372036854775807", i64::MAX), ("-9223372036854775808", i64::MIN)]
    {
        assert_eq!(reference(value), Ref::Number(expected), "{value}");
    }
    for value in ["1.0", "1e3", "1.5", "9223372036854775808", "-9223372036854775809", "1e999", "[]", "{}", "true"] {
        is_faulty(value);
    }
    let text = |text: &str| RefText::new(text).map(Ref::Text);
    for (value, expected) in [("\"1\"", "1"), ("\"\"", ""), (r#""a\"\u00e9""#, "a\"é")] {
        assert_eq!(Some(reference(value)), text(expected), "{value}");
    }
    let longest = "é".repeat(32);
    assert_eq!(Some(reference(&format!("\"{longest}\""))), text(&longest));
    for value in [format!("\"{longest}x\""), format!("\"{}\"", r"\u0041".repeat(65)), "\"\\ud800\"".to_owned()] {
        is_faulty(&value);
    }
    assert_eq!(parse(r#"{"type":"join_lesson"}"#).expect("a request").reference, Ref::Missing);
}

#[test]
fn a_faulty_payload_is_told_its_field_and_rule() {
    let classroom = "5c2f2c26-6b1c-4a4b-9d4e-2b9f5a3f7d10";
    let detail = |payload: String| {
        let message = format!(r#"{{"type":"connect_request","payload":{payload}}}"#);
        let request = parse(&message).expect("a request");
        request.payload::<ConnectRequest>().expect_err("a faulty payload").detail
    };
    let label = |value: &str| detail(format!(r#"{{"classroom_id":"{classroom}","agent_label":{value}}}"#));
    let rule = Some("agent_label: [A-Za-z0-9_-]{1,64}".to_owned());
    assert_eq!([label("\"a b\""), label("7"), label("null")], [rule.clone(), rule.clone(), rule]);
    assert_eq!(detail("{}".into()).as_deref(), Some("classroom_id: is required"));
    assert_eq!(detail(r#"{"classroom_id":"x"}"#.into()).as_deref(), Some("classroom_id: a UUID with hyphens"));
    assert_eq!(detail(r#"{"token":{"secret":1}}"#.into()), None);
    assert_eq!(detail("[]".into()), None);
}

#[test]
fn a_state_is_a_small_object_or_null() {
    let set = |payload: &str| {
        let message = format!(r#"{{"type":"set_state","payload":{payload}}}"#);
        let request = parse(&message).expect("a request");
        request.payload::<SetState>()
    };
    let state = |text: &str| set(&format!(r#"{{"state":{text}}}"#)).map(|set| set.state);
    assert_eq!(state("null"), Ok(None));
    let text = r#"{ "hand": true, "at": 1.50 }"#;
    assert_eq!(state(text), Ok(Some(JsonObject::parse(text).expect("an object"))));
    let rule = Err(PayloadError { detail: Some("state: a JSON object of at most 1024 bytes".to_owned()) });
    let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(1024));
    for faulty in ["1", "[]", "\"{}\"", "true", &long] {
        assert_eq!(state(faulty), rule, "{faulty}");
    }
    assert_eq!(set("{}"), Err(PayloadError { detail: Some("state: is required".to_owned()) }));
}

#[test]
fn everything_in_roster_is_optional() {
    let roster = |payload: &str| {
        let message = format!(r#"{{"type":"roster","payload":{payload}}}"#);
        let request = parse(&message).expect("a request");
        request.payload::<Roster>()
    };
    assert_eq!(roster(r#"{"after":null,"x":1}"#), Ok(Roster::default()));
    let lesson_id = LessonId::parse("algebra-1").ok();
    let all = Roster { after: Some(SessionId(7)), limit: Some(10), lesson_id };
    assert_eq!(roster(r#"{"after":7,"limit":10,"lesson_id":"algebra-1"}"#), Ok(all));
    assert!(roster(r#"{"limit":-1}"#).is_err() && roster(r#"{"after":"x"}"#).is_err());
}

#[test]
fn what_is_not_an_object_is_no_request() {
    let cut = r#"{"type":"join_lesson""#;
    let twice = format!("{cut}}}{cut}}}");
    for message in [
        "",
        " ",
        "null",
        "1",
        "\"join_lesson\"",
        r#"["join_lesson",1,{}]"#,
        cut,
        &twice,
        "{]",
        "{\"type\":\"a\",}",
        "\u{feff}{}",
        "NaN",
        r#"{"type":"a","payload":{"x":01}}"#,
        r#"{"type":"a" "ref":1}"#,
        "{'type':'a'}",
    ] {
        assert_eq!(parse(message).err(), Some(RequestError::Syntax), "{message:?}");
    }
    assert_eq!(Request::parse(b"{\"type\":\"\xff\"}").err(), Some(RequestError::Syntax));
}

#[test]
fn the_ref_comes_back_where_only_the_type_is_wrong() {
    for (message, expected) in [
        (r#"{"ref":7}"#, Ref::Number(7)),
        (r#"{"ref":7,"type":null}"#, Ref::Number(7)),
        (r#"{"ref":7,"type":5}"#, Ref::Number(7)),
        (r#"{"type":["join_lesson"]}"#, Ref::Missing),
        (r#"{"ref":"x","type":"\ud800"}"#, Ref::Text(RefText::new("x").expect("a short text"))),
        ("{}", Ref::Missing),
    ] {
        let error = parse(message).expect_err("no type");
        assert_eq!(error, RequestError::NoEvent(expected), "{message}");
        assert_eq!(error.reference(), expected);
    }
}

#[test]
fn a_payload_is_an_object_or_absent() {
    for absent in
        ["{}", r#"{"payload":null}"#, r#"{"payload":{}}"#, r#"{"payload":{"lesson_id":null,"access_token":null}}"#]
    {
        let message = absent.replacen('{', r#"{"type":"join_lesson","x":1,"#, 1).replace(",}", "}");
        let join = parse(&message).expect("a request").payload::<JoinLesson>();
        assert_eq!(join, Ok(JoinLesson::default()), "{message}");
    }
    for payload in ["[]", r#"["algebra-1"]"#, "\"algebra-1\"", "1", "true"] {
        let message = format!(r#"{{"type":"join_lesson","ref":1,"payload":{payload}}}"#);
        let request = parse(&message).expect("the envelope is right");
        assert_eq!(request.reference, Ref::Number(1));
        assert!(request.payload::<JoinLesson>().is_err(), "{payload}");
    }
}

#[test]
fn a_connect_request_says_where_to_and_as_what() {
    let place = format!(r#""classroom_id":"{UUID}","agent_label":"web""#);
    assert_eq!(connect(&place), Ok(None));
    for fields in [
        String::new(),
        format!(r#""classroom_id":"{UUID}""#),
        r#""agent_label":"web""#.to_owned(),
        format!(r#""classroom_id":"{UUID}","agent_label":null"#),
        format!(r#""classroom_id":"{UUID}","agent_label":"web.alice""#),
        format!(r#""classroom_id":"{UUID}","agent_label":7"#),
        r#""classroom_id":"' OR 1=1","agent_label":"web""#.to_owned(),
        r#""classroom_id":"*","agent_label":"web""#.to_owned(),
        format!(r#"{place},"token":7"#),
        format!(r#"{place},"token":"\ud800""#),
        format!(r#"{place},"agent_label":"web""#),
        format!(r#"{place},"resume":[]"#),
        format!(r#"{place},"resume":true"#),
        format!(r#"{place},"resume":{{"offset":-1}}"#),
        format!(r#"{place},"resume":{{"offset":1.5}}"#),
        format!(r#"{place},"resume":{{"offset":18446744073709551616}}"#),
        format!(r#"{place},"resume":{{"epoch":1}}"#),
        format!(r#"{place},"resume":{{"lesson_id":"a.>"}}"#),
    ] {
        assert!(connect(&fields).is_err(), "{fields}");
    }
}

#[test]
fn resume_opts_in_and_may_ask() {
    let resume = |value: &str| {
        connect(&format!(r#""classroom_id":"{UUID}","agent_label":"web","resume":{value}"#)).expect("a resume")
    };
    assert_eq!(resume("null"), None);
    assert_eq!(resume("{}"), Some(Resume::default()));
    assert_eq!(resume(r#"{"epoch":null,"offset":null}"#), Some(Resume::default()));
    for half in [r#"{"epoch":"e1"}"#, r#"{"offset":1}"#] {
        assert_eq!(resume(half).expect("opted in").position(), None, "{half}");
    }
}

#[test]
fn known_fields_come_once_and_unknown_ones_as_they_like() {
    for twice in
        [r#""type":"a","type":"a""#, r#""type":"a","ref":1,"ref":1"#, r#""type":"a","payload":{},"payload":{}"#]
    {
        assert_eq!(parse(&format!("{{{twice}}}")).err(), Some(RequestError::Syntax), "{twice}");
    }
    assert_eq!(parse(r#"{"type":"a","\ud800":1}"#).err(), Some(RequestError::Syntax));
    let message = r#"{"x":1,"x":2,"type":"refresh","x":"\ud800","payload":{"y":[],"token":"t","y":{}}}"#;
    let request = parse(message).expect("unknown fields are ignored");
    assert_eq!(request.payload::<Refresh>().expect("a refresh").token.as_str(), "t");
}

#[test]
fn texts_are_borrowed_unless_they_hold_escapes() {
    assert!(matches!(parse(r#"{"type":"join_lesson"}"#).expect("a request").event, Cow::Borrowed("join_lesson")));
    assert_eq!(parse(r#"{"type":"join\u005flesson"}"#).expect("a request").event, "join_lesson");
}

#[test]
fn debug_shows_no_token() {
    let message = format!(
        r#"{{"type":"connect_request","payload":{{"token":"s3cret","classroom_id":"{UUID}","agent_label":"web"}}}}"#
    );
    let request = parse(&message).expect("a request");
    let connect = request.payload::<ConnectRequest>().expect("a connect_request");
    let wrong = request.payload::<JoinLesson>();
    assert!(!format!("{request:?} {connect:?} {wrong:?}").contains("s3cret"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_failure_persistence(WithSource("regressions")))]

    #[test]
    fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = Request::parse(&bytes);
    }

    #[test]
    fn nothing_like_json_makes_the_parser_panic(text in r#"[\[\]{}:,"\\a0-9 .eE+\-]{0,200}"#, cut in 0..64_usize) {
        let message = format!(r#"{{"type":"join_lesson","ref":{text},"payload":{{"lesson_id":{text}}}}}"#);
        for message in [&*text, &message, message.get(..cut).unwrap_or_default()] {
            if let Ok(request) = parse(message) {
                let _ = request.payload::<JoinLesson>();
                let _ = request.payload::<ConnectRequest>();
                let _ = request.payload::<Refresh>();
            }
        }
    }

    #[test]
    fn requests_are_read_back(event in any::<String>(), number: Option<i64>, token in any::<String>()) {
        let message = serde_json::json!({"payload": {"token": token}, "ref": number, "type": event}).to_string();
        let request = parse(&message).expect("a request");
        prop_assert_eq!(&*request.event, &event);
        prop_assert_eq!(request.reference, number.map_or(Ref::Missing, Ref::Number));
        let refresh = request.payload::<Refresh>().expect("a refresh");
        prop_assert_eq!(refresh.token.as_str(), &token);
    }
}
