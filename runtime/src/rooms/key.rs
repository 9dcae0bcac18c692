//! A room's number in this process.
use std::num::NonZeroU64;

/// A room's number in this process, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RoomKey(NonZeroU64);

impl RoomKey {
    /// The number of no room.
    pub const NONE: Self = Self(NonZeroU64::MAX);

    /// The key of the room that was made after `earlier` others.
    pub(super) fn new(earlier: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(earlier))
    }
}
