//! A room's number in this process.
use std::num::NonZeroU64;

/// A room's number in this process. It is never used for another room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RoomKey(NonZeroU64);

impl RoomKey {
    /// The number that no room has.
    pub const NONE: Self = Self(NonZeroU64::MAX);

    /// Returns the key of the room that was made after `earlier` other rooms.
    pub(super) fn new(earlier: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(earlier))
    }
}
