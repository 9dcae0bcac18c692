//! What handlers may ask for, made once at the start. Each handler's `Deps` picks its own.
use std::sync::Arc;

use crate::{
    auth::{Hook, Keyring},
    limits::EventLimits,
    mixpanel::Mixpanel,
    rooms::Rooms,
};
use rollcall_keys::LessonKeys;
use rollcall_presence::{key_cleanup::KeyCleanup, sessions::Sessions};

/// The dependencies there are.
pub struct Resources {
    /// Checks tokens.
    pub keyring: Arc<Keyring>,
    /// Asks another service about classrooms.
    pub hook: Arc<Hook>,
    /// This node's rooms.
    pub rooms: Rooms,
    /// Sessions in SQL.
    pub sessions: Sessions,
    /// The keys.
    pub kv: Arc<dyn LessonKeys>,
    /// Keys of who left.
    pub leavings: KeyCleanup,
    /// Analytics.
    pub mixpanel: Mixpanel,
    /// How often users and guests may connect.
    pub rates: Arc<EventLimits>,
    /// How many sessions a user may have at once.
    pub user_sessions: u32,
    /// Whether somebody without a token is let in.
    pub guests: bool,
}
