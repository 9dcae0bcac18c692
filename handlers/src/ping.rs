//! `ping`: a client asks whether its connection is alive (PROTOCOL 2, Ping). The ack is the answer.
use rollcall_runtime::{HandlerError, Session};
use rollcall_schema::ack::Empty;

/// Returns the ack's empty data.
///
/// # Errors
/// Returns no error.
pub async fn handle(_deps: &(), _session: &mut Session, _request: Empty) -> Result<Empty, HandlerError> {
    Ok(Empty {})
}
