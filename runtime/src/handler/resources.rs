//! The dependencies that handlers may have. They are created once at the start, and each handler's `Deps` takes those
//! that it needs.
use std::sync::Arc;

use crate::{
    auth::{Hook, Keyring},
    handler::publisher::Publisher,
    limits::EventLimits,
    mixpanel::Mixpanel,
    rooms::Rooms,
};
use rollcall_presence::Presence;

/// All dependencies. They are cheap to clone.
#[derive(Clone)]
pub struct Resources {
    /// Checks tokens.
    pub keyring: Arc<Keyring>,
    /// Asks the authorization service.
    pub hook: Arc<Hook>,
    /// This node's rooms.
    pub rooms: Rooms,
    /// Enters classrooms, joins lessons and leaves both.
    pub presence: Presence,
    /// Publishes events.
    pub publisher: Publisher,
    /// Sends events to Mixpanel.
    pub mixpanel: Mixpanel,
    /// Limits how often users and guests may connect.
    pub rates: Arc<EventLimits>,
    /// Whether clients without a token are let in.
    pub guests: bool,
}
