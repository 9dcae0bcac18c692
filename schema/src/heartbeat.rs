//! Pings that a page sees (PROTOCOL 2, Ping). Browsers answer the WebSocket's own pings without telling the page, so
//! without these a page would not notice that its connection is dead.
use serde::Serialize;

use crate::{id::Offset, request::Request, wire};

/// The longest message that is read as a pong, in bytes.
const MAX_PONG: usize = 64;

/// The type of the answer to a ping. No event may have this name.
pub const PONG: &str = "pong";

#[derive(Serialize)]
struct Ping {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<Offset>,
}

/// Returns the message `{"type":"ping"}`. For a connection that resumes, it has the offset through which the client got
/// every event. So the client can resume from there, even if no event has come for a long time.
#[must_use]
pub fn ping(offset: Option<Offset>) -> Vec<u8> {
    wire::json(&Ping { r#type: "ping", offset })
}

/// Returns whether a client's message is the answer to a ping, `{"type":"pong"}`.
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
