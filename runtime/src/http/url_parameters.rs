//! The parameters of a request's URL: those of its path, and those of its query.
//!
//! Invariant: an endpoint gets only valid ids and numbers. An error names the rule that was broken.
use std::{borrow::Cow, str::FromStr};

use percent_encoding::percent_decode_str;
use rollcall_schema::{AgentId, ClassroomId, SessionId, UserId, roster};
use rollcall_store::{RosterQuery, Whose};

use super::reply::HttpError;
use crate::url_query;

/// The maximum number of items on a page.
pub(super) const MAX_PAGE: usize = roster::MAX_PAGE;

/// The parameters of a URL.
pub(super) struct UrlParameters<'a> {
    /// The texts in the places of the path's braces.
    pub(super) path: Vec<&'a str>,
    pub(super) query: &'a str,
}

impl UrlParameters<'_> {
    /// Returns the classroom that the path names.
    pub(super) fn classroom(&self) -> Result<ClassroomId, HttpError> {
        let id = self.path.first().copied().unwrap_or_default();
        ClassroomId::parse(id).map_err(|_| HttpError::bad("the classroom's id must be a UUID"))
    }

    /// Returns a parameter of the query, decoded. If several have this name, returns the last.
    pub(super) fn text(&self, name: &str) -> Result<Option<Cow<'_, str>>, HttpError> {
        let value = url_query::pairs(self.query).rfind(|(given, _)| *given == name).map(|(_, value)| value);
        let decoded = value.map(|value| percent_decode_str(value).decode_utf8()).transpose();
        decoded.map_err(|_| HttpError::bad(format!("{name} is not UTF-8")))
    }

    /// Returns a parameter of the query that must follow a rule.
    pub(super) fn parsed<T: FromStr>(&self, name: &str, rule: &str) -> Result<Option<T>, HttpError> {
        let text = self.text(name)?;
        let value = text.map(|text| text.parse()).transpose();
        value.map_err(|_| HttpError::bad(format!("{name} must be {rule}")))
    }

    /// Returns a number of the query, which must not be negative.
    pub(super) fn number(&self, name: &str) -> Result<Option<i64>, HttpError> {
        const RULE: &str = "a whole number from 0";
        match self.parsed(name, RULE)? {
            Some(number) if number < 0 => Err(HttpError::bad(format!("{name} must be {RULE}"))),
            number => Ok(number),
        }
    }

    /// Returns whose sessions the query asks for: `user_id` or `agent_id`, but not both.
    pub(super) fn whose(&self) -> Result<Option<Whose>, HttpError> {
        const USER: &str = "a token's sub: 1 to 128 printable ASCII characters, percent-encoded";
        let user: Option<UserId> = self.parsed("user_id", USER)?;
        let agent: Option<AgentId> = self.parsed("agent_id", "an agent's id, percent-encoded")?;
        match (user, agent) {
            (Some(_), Some(_)) => Err(HttpError::bad("add one of ?user_id= and ?agent_id=")),
            (user, agent) => Ok(user.map(Whose::User).or(agent.map(Whose::Agent))),
        }
    }

    /// Returns how many items the answer may have: `limit`, at most [`MAX_PAGE`].
    pub(super) fn limit(&self) -> Result<usize, HttpError> {
        let limit = self.number("limit")?.and_then(|limit| usize::try_from(limit).ok());
        Ok(limit.unwrap_or(MAX_PAGE).min(MAX_PAGE))
    }

    /// Returns the requested page of a classroom's agents, and its [`UrlParameters::limit`].
    pub(super) fn roster_page(&self) -> Result<(RosterQuery, usize), HttpError> {
        let after = SessionId(self.number("sequence_id")?.unwrap_or(0));
        Ok((RosterQuery { classroom: self.classroom()?, lesson: None, after }, self.limit()?))
    }
}
