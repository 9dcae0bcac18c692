//! The protocol of a connection: how its messages become requests, and how answers become messages.
use std::borrow::Cow;

use rollcall_schema::{
    Answer, Ref, Request,
    request::{PayloadError, RequestError},
    socketio,
};
use rollcall_socketio::{Event, Kind, Packet};

use crate::rooms::{Namespace, Namespaces};

/// The protocol that a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// JSON on a plain WebSocket (PROTOCOL 2).
    Plain,
    /// Socket.IO, in this namespace (PROTOCOL 11).
    SocketIo(Namespace),
}

/// The form in which a request is answered.
#[derive(Debug)]
pub(super) enum AckTo {
    /// An ack to a request with this `ref`.
    Plain(Ref),
    /// The answer to a callback of Socket.IO.
    Callback(Namespace, u64),
    /// There is no answer. An error is sent as an event.
    Event(Namespace, Box<str>),
}

impl AckTo {
    /// Returns the message, or `None` if the client expects no message.
    pub(super) fn encode(&self, namespaces: &Namespaces, answer: &Answer) -> Option<Vec<u8>> {
        match self {
            Self::Plain(reference) => answer.plain(*reference),
            Self::Callback(namespace, id) => {
                let data = [b"[", &answer.object()[..], b"]"].concat();
                Some(packet(namespaces, *namespace, Kind::Ack, Some(*id), &data))
            }
            Self::Event(namespace, event) => {
                let error = answer.request_error(event)?;
                Some(event_packet(namespaces, *namespace, socketio::REQUEST_ERROR, &error))
            }
        }
    }
}

/// The request in a message. It is an error if the text cannot be read, or has binary data, which no handler accepts.
pub(super) type ReadRequest<'a> = Result<Request<'a>, PayloadError>;

/// Reads a request. The form of its answer is known in any case.
pub(super) fn read_request(dialect: Dialect, text: &str) -> (ReadRequest<'_>, AckTo) {
    let Dialect::SocketIo(namespace) = dialect else {
        return match Request::parse(text.as_bytes()) {
            Ok(request) => {
                let reference = request.reference;
                (Ok(request), AckTo::Plain(reference))
            }
            Err(error) => (Err(error.into()), AckTo::Plain(RequestError::reference(error))),
        };
    };
    // The packet was valid when it came, and only then it was kept.
    let Ok(packet) = Packet::parse(text) else {
        return (Err(PayloadError::default()), AckTo::Event(namespace, "".into()));
    };
    socketio_request(namespace, &packet, Event::parse(packet.data).ok())
}

/// Reads a request from an event of Socket.IO.
pub(super) fn socketio_request<'a>(
    namespace: Namespace,
    packet: &Packet<'_>,
    event: Option<Event<'a>>,
) -> (ReadRequest<'a>, AckTo) {
    let name = event.as_ref().map_or(Cow::Borrowed(""), |event| event.name.clone());
    let ack = match packet.id {
        Some(id) => AckTo::Callback(namespace, id),
        None => AckTo::Event(namespace, name.into()),
    };
    let request = event.filter(|_| packet.kind == Kind::Event).map(|Event { name, argument }| {
        let payload = argument.filter(|argument| argument.get() != "null");
        Request { event: name, reference: Ref::Missing, payload }
    });
    (request.ok_or_else(PayloadError::default), ack)
}

/// Returns a packet of the gateway whose data is JSON in UTF-8.
pub(super) fn packet(
    namespaces: &Namespaces,
    namespace: Namespace,
    kind: Kind,
    id: Option<u64>,
    data: &[u8],
) -> Vec<u8> {
    let data = String::from_utf8_lossy(data);
    Packet { kind, attachments: 0, namespace: namespaces.name(namespace), id, data: &data }.encode()
}

/// Returns an event of the gateway with one argument.
pub(super) fn event_packet(namespaces: &Namespaces, namespace: Namespace, name: &str, argument: &[u8]) -> Vec<u8> {
    let data = [b"[\"", name.as_bytes(), b"\",", argument, b"]"].concat();
    packet(namespaces, namespace, Kind::Event, None, &data)
}
