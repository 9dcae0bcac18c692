//! Pings that a page sees (PROTOCOL 12): browsers answer the WebSocket's own ones without their page, so a page would never
//! notice that its line is dead.
use serde::Serialize;

use crate::{id::Offset, request::Request, wire};

/// The longest message that is read as a pong, in bytes.
const MAX_PONG: usize = 64;

/// The type of the answer. No event may have this name.
pub const PONG: &str = "pong";

#[derive(Serialize)]
struct Ping {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<Offset>,
}

/// `{"type":"ping"}`. It tells a connection that resumes the offset through which it has everything, so that it can
/// resume from there even if no event has come for long.
#[must_use]
pub fn ping(offset: Option<Offset>) -> Vec<u8> {
    wire::json(&Ping { r#type: "ping", offset })
}

/// Whether a client's message is the answer, `{"type":"pong"}`.
#[must_use]
pub fn is_pong(message: &str) -> bool {
    message.len() <= MAX_PONG && Request::parse(message.as_bytes()).is_ok_and(|request| request.event == PONG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_tells_an_offset_where_there_is_one() {
        assert_eq!(ping(None), br#"{"type":"ping"}"#);
        assert_eq!(ping(Some(Offset(7))), br#"{"type":"ping","offset":7}"#);
    }

    #[test]
    fn only_a_pong_is_a_pong() {
        assert!(is_pong(r#"{"type":"pong"}"#) && is_pong(r#" { "type" : "pong", "x": 1 } "#));
        for other in ["pong", "{}", r#"{"type":"ping"}"#, r#"{"type":"pong"#] {
            assert!(!is_pong(other), "{other}");
        }
    }
}
