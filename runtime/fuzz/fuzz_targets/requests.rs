//! Parses any message. There must be no panic and no invalid id, and the ack must be JSON with the right `ref`.
#![no_main]
use libfuzzer_sys::fuzz_target;
use rollcall_schema::{
    AckError, ConnectRequest, JoinLesson, LessonId, Ref, Refresh, Request, ack,
    id::{AgentLabel, ClassroomId},
    request::RequestError,
};
use serde_json::Value;

const PRIVATE: &[u8] = b"$serde_json::private";

fuzz_target!(|data: &[u8]| {
    let request = Request::parse(data);
    let reference = request.as_ref().map_or_else(|error| error.reference(), |request| request.reference);
    let reply: Value = serde_json::from_slice(&ack::error(reference, AckError::UnknownEvent)).expect("an ack is JSON");
    match reference {
        Ref::Number(number) => assert_eq!(reply["ref"], number),
        Ref::Text(text) => assert_eq!(reply["ref"], text.as_str()),
        Ref::Missing => assert!(reply["ref"].is_null()),
    }
    // If serde_json can parse the message into a tree, the tree has the same values. There are two exceptions: if a
    // field is repeated, the tree keeps the last value, and an object with serde_json's private key for raw text
    // becomes the value of that text.
    let private = data.windows(PRIVATE.len()).any(|name| name == PRIVATE);
    let tree = serde_json::from_slice::<Value>(data).ok().filter(|_| !private);
    let request = match request {
        Ok(request) => request,
        Err(RequestError::NoEvent(_)) => {
            return assert!(tree.is_none_or(|tree| tree.is_object() && !tree["type"].is_string()));
        }
        Err(RequestError::Reference) => return assert!(tree.is_none_or(|tree| !tree["ref"].is_i64())),
        Err(RequestError::Syntax) => return,
    };
    if let Some(tree) = tree {
        assert_eq!(tree["type"], *request.event);
        assert!(!matches!(reference, Ref::Number(number) if tree["ref"] != number));
    }
    if let Ok(JoinLesson { lesson_id: Some(lesson), .. }) = request.payload() {
        assert!(LessonId::parse(lesson.as_str()).is_ok());
    }
    if let Ok(connect) = request.payload::<ConnectRequest>() {
        assert!(AgentLabel::parse(connect.agent_label.as_str()).is_ok());
        assert!(ClassroomId::parse(&connect.classroom_id.to_string()).is_ok());
        assert!(!format!("{connect:?}").contains("eyJ"), "no token is shown");
    }
    let _ = request.payload::<Refresh>();
});
