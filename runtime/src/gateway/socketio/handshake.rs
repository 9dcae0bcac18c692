//! Reads the parameters of a handshake that come before CONNECT: a token, and where to enter.
use percent_encoding::percent_decode_str;
use rollcall_schema::{request::PayloadError, socketio::Auth};
use serde_json::{Map, Value};

use super::super::{
    Gateway,
    expiry::millis,
    peer::{Peer, SocketIoState},
};
use crate::{
    limits::admission::{ClientPermit, UnauthenticatedPermit},
    url_query,
};
use rollcall_websocket::Upgrade;

/// How many bytes of a handshake's token and names are kept until CONNECT. If there are more, none are kept.
const MAX_KEPT: usize = 8 << 10;

/// How long a client may take to send CONNECT after the handshake, or after it left a namespace.
const CONNECT_WITHIN: std::time::Duration = std::time::Duration::from_secs(20);

/// The parameters of a query that are read, with their names in [`Auth`]. A token has three names, of which the first
/// counts.
const PARAMETERS: [(&str, &str); 7] = [
    ("auth", "access_token"),
    ("access_token", "access_token"),
    ("token", "token"),
    ("classroom_id", "classroom_id"),
    ("agent_label", "agent_label"),
    ("lesson_id", "lesson_id"),
    ("recovery", "recovery"),
];

impl Gateway {
    /// Creates the state of a new connection of Socket.IO.
    pub(in super::super) fn opened_socketio(
        &self,
        upgrade: &Upgrade,
        permit: ClientPermit,
        waiting: Option<UnauthenticatedPermit>,
    ) -> Peer {
        let bearer = upgrade.header("authorization").and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
        });
        let handshake = read(upgrade.query().unwrap_or_default(), bearer);
        let state = SocketIoState { handshake, ..SocketIoState::default() };
        Peer::socketio(self.socketio_deadline(), state, permit, waiting)
    }

    /// Returns when CONNECT must have come, in the form of [`Peer::expires`].
    pub(in super::super) fn socketio_deadline(&self) -> u64 {
        millis(self.started.elapsed() + CONNECT_WITHIN)
    }
}

fn read(query: &str, bearer: Option<&str>) -> Result<Auth, PayloadError> {
    let mut values = Map::new();
    let mut size = 0;
    for (parameter, field) in PARAMETERS {
        let Some(value) = url_query::first(query, parameter) else { continue };
        let Ok(value) = percent_decode_str(value).decode_utf8() else { continue };
        size += value.len();
        values.insert(field.into(), value.into());
    }
    if let Some(bearer) = bearer {
        size += bearer.len();
        values.insert("token".into(), bearer.into());
    }
    if size > MAX_KEPT || values.is_empty() {
        return Ok(Auth::default());
    }
    Auth::parse(&Value::Object(values).to_string())
}
