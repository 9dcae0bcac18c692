//! A small form of an agent's id that is quick to compare.
use std::{
    hash::{BuildHasher, RandomState},
    num::NonZeroU64,
    sync::LazyLock,
};

use rollcall_schema::AgentId;

/// Represents an agent's id in comparisons: 64 bits of a hash with a key of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentMark(NonZeroU64);

impl AgentMark {
    /// Returns the mark of an agent.
    #[must_use]
    pub fn new(agent: &AgentId) -> Self {
        static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        Self(NonZeroU64::MIN.saturating_add(KEY.hash_one(agent) >> 1))
    }
}
