//! The cost of a hostile message: beyond a fixed 64 KiB at most 2 bytes of memory for each byte of the message, and no
//! stack.
use allocation_counter::measure;
use rollcall_schema::{ConnectRequest, JoinLesson, Push, Refresh, Request};

const MESSAGE: usize = 64 * 1024;
const BODY: usize = 128 * 1024;
const FIXED: u64 = 64 * 1024;

fn read(message: &str) {
    if let Ok(request) = Request::parse(message.as_bytes()) {
        let _ = request.payload::<JoinLesson>();
        let _ = request.payload::<ConnectRequest>();
        let _ = request.payload::<Refresh>();
    }
}

fn filled(head: &str, filling: &str, tail: &str, length: usize) -> String {
    let room = length - head.len() - tail.len();
    format!("{head}{}{tail}", filling.repeat(room / filling.len()))
}

fn hostile() -> Vec<String> {
    let refresh = r#"{"type":"refresh","payload":{"token":""#;
    vec![
        filled("", "[", "", MESSAGE),
        filled("", "{\"a\":", "", MESSAGE),
        filled(r#"{"type":"a","x":"#, "[", "", MESSAGE),
        format!(r#"{{"type":"join_lesson","payload":{{"x":{0}{1}}}}}"#, "[".repeat(10_000), "]".repeat(10_000)),
        format!(r#"{{"type":"join_lesson","payload":{{"lesson_id":{0}{1}}}}}"#, "[".repeat(32_000), "]".repeat(32_000)),
        format!(r#"{{"type":"join_lesson","ref":{0}1{1}}}"#, "{\"a\":".repeat(10_000), "}".repeat(10_000)),
        filled("", " ", "", MESSAGE),
        filled("", " ", "{}", MESSAGE),
        filled(r#"{"type":"a""#, " ", "}", MESSAGE),
        filled(r#"{"type":""#, "\\n", "\"}", MESSAGE),
        filled(refresh, "a", "\"}}", MESSAGE),
        filled(refresh, "\\u0061", "\"}}", MESSAGE),
        filled(&format!("{refresh}\\n"), "a", "\\n\"}}", MESSAGE),
        filled(refresh, "\\ud800", "\"}}", MESSAGE),
        filled(r#"{"type":"a","ref":"#, "9", "}", MESSAGE),
        filled(r#"{"type":"a""#, ",\"x\":1", "}", MESSAGE),
        filled("{", "\"\\u0078\":1,", "\"type\":\"a\"}", MESSAGE),
        filled(r#"{"type":"a","payload":{"lesson_id":""#, "a", "\"}}", MESSAGE),
    ]
}

#[test]
fn a_request_costs_twice_its_length_at_most() {
    for message in hostile() {
        let cost = measure(|| read(&message));
        let start: String = message.chars().take(60).collect();
        let most = FIXED + 2 * message.len() as u64;
        assert!(cost.bytes_max <= most, "{} of {most} bytes for {start}", cost.bytes_max);
        assert_eq!(cost.bytes_current, 0, "{start}");
    }
}

#[test]
fn an_ordinary_request_allocates_its_texts_only() {
    let message =
        r#"{"type":"join_lesson","ref":1,"payload":{"lesson_id":"algebra-1","access_token":"eyJhbGciOi.J9.x"}}"#;
    let cost = measure(|| {
        let request = Request::parse(message.as_bytes()).expect("a request");
        let join = request.payload::<JoinLesson>().expect("a join_lesson");
        assert!(join.lesson_id.is_some() && join.access_token.is_some());
    });
    assert_eq!(cost.count_total, 2);
}

#[test]
fn checking_a_body_costs_twice_its_length_at_most() {
    let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(BODY / 2 - 4), "]".repeat(BODY / 2 - 4));
    for body in [&*deep, &filled("{\"a\":", "[", "", BODY), &filled("{\"", "\\n", "\":1}", BODY)] {
        let cost = measure(|| drop(Push::parse(body.as_bytes(), None)));
        let most = FIXED + 2 * body.len() as u64;
        assert!(cost.bytes_max <= most, "{} of {most} bytes", cost.bytes_max);
    }
    assert!(Push::parse(deep.as_bytes(), None).is_ok());
}
