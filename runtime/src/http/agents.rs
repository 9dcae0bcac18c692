//! What a client asks with `GET /api/v1/classrooms/{id}/agents` (PROTOCOL 9).
//!
//! Invariant: every id is checked before it is used in a query.
use rollcall_schema::{ClassroomId, SessionId, roster::MAX_PAGE};

use super::reply::HttpError;
use rollcall_store::RosterQuery;

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AgentsPage {
    /// Which agents.
    pub(super) query: RosterQuery,
    /// At most so many.
    pub(super) limit: usize,
}

impl AgentsPage {
    /// Reads the classroom of the path, and `sequence_id` and `limit` of the query.
    pub(super) fn parse(classroom: &str, query: &str) -> Result<Self, HttpError> {
        let classroom =
            ClassroomId::parse(classroom).map_err(|_| HttpError::bad("the classroom's id must be a UUID"))?;
        let (mut after, mut limit) = (0_i64, MAX_PAGE);
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match name {
                "sequence_id" => after = number(name, value)?,
                "limit" => limit = number(name, value)?,
                _ => {}
            }
        }
        let query = RosterQuery { classroom, lesson: None, after: SessionId(after) };
        Ok(Self { query, limit: limit.min(MAX_PAGE) })
    }
}

fn number<T: std::str::FromStr + Default + PartialOrd>(name: &str, value: &str) -> Result<T, HttpError> {
    let number = value.parse().ok().filter(|number| *number >= T::default());
    number.ok_or_else(|| HttpError::bad(format!("{name} must be a whole number from 0")))
}
