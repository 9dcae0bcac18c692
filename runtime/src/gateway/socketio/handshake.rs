//! What a handshake says before CONNECT: a token, and where to go.
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

/// Bytes of a handshake's token and names that are kept until CONNECT; of a longer one, none are.
const MAX_KEPT: usize = 8 << 10;

/// How long after the handshake, or after it left a namespace, a client may take to send CONNECT.
const CONNECT_WITHIN: std::time::Duration = std::time::Duration::from_secs(20);

/// The parameters of a query that count, with what they are in [`Auth`]. Of a token's three names the first counts.
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
    /// A connection of Socket.IO has come.
    pub(in super::super) fn opened_socketio(
        &self,
        upgrade: &Upgrade,
        permit: ClientPermit,
        waiting: Option<UnauthenticatedPermit>,
    ) -> Peer {
        let bearer = upgrade.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        let handshake = read(upgrade.query().unwrap_or_default(), bearer);
        let state = SocketIoState { handshake, ..SocketIoState::default() };
        Peer::socketio(self.socketio_deadline(), state, permit, waiting)
    }

    /// When CONNECT must have come; see [`Peer::expires`].
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
