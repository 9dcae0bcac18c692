//! `ping`: a client asks whether its line is alive (PROTOCOL 12), and the ack is the answer.
use rollcall_runtime::{HandlerError, Session};
use rollcall_schema::ack::Empty;

/// Answers.
///
/// # Errors
/// None.
pub async fn handle(_deps: &(), _session: &mut Session, _request: Empty) -> Result<Empty, HandlerError> {
    Ok(Empty {})
}
