//! What handlers may depend on, made once at the start. Each handler's `Deps` picks its own.
use std::sync::Arc;

use crate::{
    auth::{Hook, Keyring},
    handler::publisher::Publisher,
    limits::EventLimits,
    mixpanel::Mixpanel,
    rooms::Rooms,
};
use rollcall_presence::Presence;

/// All dependencies that there are. Cheap to clone.
#[derive(Clone)]
pub struct Resources {
    /// Checks tokens.
    pub keyring: Arc<Keyring>,
    /// Asks the authorization service.
    pub hook: Arc<Hook>,
    /// This node's rooms.
    pub rooms: Rooms,
    /// Enters, joins and leaves.
    pub presence: Presence,
    /// Publishes events.
    pub publisher: Publisher,
    /// Sends events to Mixpanel.
    pub mixpanel: Mixpanel,
    /// How often users and guests may connect.
    pub rates: Arc<EventLimits>,
    /// Whether clients without a token are let in.
    pub guests: bool,
}
