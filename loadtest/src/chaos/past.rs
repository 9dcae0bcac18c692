//! The history's part of the ledger.

/// A row of agent_session_history.
#[derive(Debug, Default, Clone)]
pub(super) struct Past {
    pub(super) session: i64,
    pub(super) agent: String,
    pub(super) classroom: String,
    pub(super) reason: String,
}
