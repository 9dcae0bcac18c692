//! An event as Socket.IO's clients get it: one encoding for each namespace and framing, with and without its offset, made
//! for the first member that needs it (PROTOCOL 11, Pushes and Recovery).
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use rollcall_schema::{Offset, Push, socketio};
use rollcall_socketio::{Kind, Packet, event};

use super::namespaces::{Namespace, Namespaces};
use rollcall_base::names;
use rollcall_websocket::Framing;

/// The encodings of one event.
pub(super) struct SocketIoFrames {
    namespaces: Namespaces,
    /// The epoch of the event's stream.
    epoch: Arc<str>,
    /// The encodings, by namespace, with or without the offset, and framing.
    made: OnceLock<Box<[OnceLock<Bytes>]>>,
}

impl SocketIoFrames {
    /// No frame is encoded yet.
    pub(super) fn new(namespaces: Namespaces, epoch: Arc<str>) -> Self {
        Self { namespaces, epoch, made: OnceLock::new() }
    }

    /// The frame for members in a namespace. It is empty where these clients do not get the event, since its name would
    /// mean something else to them. With `own` it ends with the event's own offset. The event is read only for the first of
    /// them.
    pub(super) fn get<'a>(
        &self,
        (namespace, framing): (Namespace, Framing),
        push: impl FnOnce() -> Push<'a>,
        topic: &str,
        own: Option<Offset>,
    ) -> Bytes {
        let made = self.made.get_or_init(|| (0..4 * self.namespaces.len()).map(|_| OnceLock::new()).collect());
        let place = 4 * namespace.place() + 2 * usize::from(own.is_some()) + usize::from(framing == Framing::Polling);
        let encode = || self.encode((namespace, framing), &push(), topic, own);
        made.get(place).map(|frame| frame.get_or_init(encode).clone()).unwrap_or_default()
    }

    /// The same, not kept: it ends with this offset.
    pub(super) fn encode(
        &self,
        (namespace, framing): (Namespace, Framing),
        push: &Push<'_>,
        topic: &str,
        shown: Option<Offset>,
    ) -> Bytes {
        let position = shown.map(|offset| socketio::position(&self.epoch, offset)).unwrap_or_default();
        encode(self.namespaces.name(namespace), framing, push, topic, &position)
    }
}

/// `position` follows the push, if it is not empty.
fn encode(namespace: &str, framing: Framing, push: &Push<'_>, topic: &str, position: &str) -> Bytes {
    let name = push.name();
    let name = name.as_deref().unwrap_or(topic);
    if event::RESERVED.contains(&name) || socketio::RESERVED.contains(&name) {
        metrics::counter!(names::DROPPED, "reason" => "event_reserved_name").increment(1);
        return Bytes::new();
    }
    let body = push.plain();
    // A body was checked to be JSON in UTF-8, and a name has no characters to escape.
    let data = format!(r#"["{name}",{}{position}]"#, String::from_utf8_lossy(&body));
    let packet = Packet { kind: Kind::Event, attachments: 0, namespace, id: None, data: &data }.encode();
    let mut frame = Vec::with_capacity(packet.len() + 12);
    framing.encode_text(&packet, &mut frame);
    frame.into()
}
