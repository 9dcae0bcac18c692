//! An event in the form for Socket.IO's clients. It has one encoding for each namespace and framing, with and without
//! its offset, made for the first member that needs it (PROTOCOL 11, Events and Recovery).
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
    /// The encodings by namespace, by whether they have the offset, and by framing.
    made: OnceLock<Box<[OnceLock<Bytes>]>>,
}

impl SocketIoFrames {
    /// Creates an event without encodings.
    pub(super) fn new(namespaces: Namespaces, epoch: Arc<str>) -> Self {
        Self { namespaces, epoch, made: OnceLock::new() }
    }

    /// Returns the frame for members in a namespace. The frame is empty if these clients do not get the event, because
    /// its name would mean something else to them. If `own`, the frame ends with the event's own offset. `push` is
    /// called only to make an encoding that is missing.
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

    /// Returns a frame that ends with this offset. The frame is not kept.
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

/// Encodes a push. `position` follows the push unless it is empty.
fn encode(namespace: &str, framing: Framing, push: &Push<'_>, topic: &str, position: &str) -> Bytes {
    let name = push.name();
    let name = name.as_deref().unwrap_or(topic);
    if event::RESERVED.contains(&name) || socketio::RESERVED.contains(&name) {
        metrics::counter!(names::DROPPED, "reason" => "event_reserved_name").increment(1);
        return Bytes::new();
    }
    let body = push.plain();
    // The body is valid JSON in UTF-8, because it was checked, and a name has no characters to escape.
    let data = format!(r#"["{name}",{}{position}]"#, String::from_utf8_lossy(&body));
    let packet = Packet { kind: Kind::Event, attachments: 0, namespace, id: None, data: &data }.encode();
    let mut frame = Vec::with_capacity(packet.len() + 12);
    framing.encode_text(&packet, &mut frame);
    frame.into()
}
