//! What an answer of the authorization service means (PROTOCOL 10).
//!
//! Invariant: only a complete answer with status 200 can be a yes. A temporary failure is never read as a no.
use hyper::StatusCode;
use serde_json::Value;

/// Why there is no answer. Both reasons are temporary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HookError {
    /// There are too many questions at the same time, in this process or at the service.
    #[error("the authorization service is asked too much at once")]
    Busy,
    /// There was no answer, a late answer, or an answer that does not decide the question.
    #[error("the authorization service is away")]
    Away,
}

/// Reads an answer to a question about this action.
///
/// # Errors
/// Returns an error if the answer does not decide the question, because the service does not work or is busy.
pub(super) fn read(status: StatusCode, body: &[u8], action: &str) -> Result<bool, HookError> {
    match status {
        StatusCode::OK => Ok(allows(body, action)),
        // These statuses are temporary by definition (RFC 6585 and 9110): the same question may get another answer
        // later.
        StatusCode::TOO_MANY_REQUESTS => Err(HookError::Busy),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY => Err(HookError::Away),
        status if status.is_client_error() => Ok(false),
        _ => Err(HookError::Away),
    }
}

/// Returns whether the body permits the action. Some services answer with the list of allowed actions, so an empty list
/// is a no. Others answer a yes without a body.
fn allows(body: &[u8], action: &str) -> bool {
    if body.is_empty() {
        return true;
    }
    serde_json::from_slice::<Vec<Value>>(body)
        .is_ok_and(|actions| actions.iter().any(|allowed| allowed.as_str() == Some(action)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_yes_is_an_empty_body_or_an_array_with_the_action() {
        for body in ["", r#"["connect"]"#, r#"["read", "connect"]"#, r#" [ 7, "connect" ] "#] {
            assert_eq!(read(StatusCode::OK, body.as_bytes(), "connect"), Ok(true), "{body:?}");
        }
        let others = [
            "[]",
            r#"["read"]"#,
            r#"["connected"]"#,
            r#"[["connect"]]"#,
            r#"{"connect":true}"#,
            r#""connect""#,
            "connect",
            "true",
            "null",
            " ",
            r#"["connect""#,
            r#"["connect"] x"#,
            "<html>sign in</html>",
        ];
        for body in others {
            assert_eq!(read(StatusCode::OK, body.as_bytes(), "connect"), Ok(false), "{body:?}");
        }
    }

    #[test]
    fn only_what_would_be_the_same_again_is_a_no() {
        for status in [400, 401, 403, 404, 410, 422, 451] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(read(status, b"[\"connect\"]", "connect"), Ok(false), "{status}");
        }
        for status in [201, 202, 204, 206, 301, 302, 307, 408, 425, 500, 502, 503, 504, 599] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(read(status, b"[\"connect\"]", "connect"), Err(HookError::Away), "{status}");
        }
        assert_eq!(read(StatusCode::TOO_MANY_REQUESTS, b"", "connect"), Err(HookError::Busy));
    }
}
