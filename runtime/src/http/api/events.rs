//! `GET classrooms/{id}/events` lists the events of a classroom from the stream.
use std::time::Duration;

use hyper::StatusCode;
use rollcall_bus::{BusError, Incoming, Position, Replay, Replayed};
use rollcall_schema::{AgentId, EntityEvent, Offset, Push, RoomId};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout_at};

use crate::http::{
    admin::Admin,
    call::Call,
    reply::{HttpError, Reply, json},
    times::ago,
};

/// The size of events, in bytes, after which a page ends.
const MAX_BYTES: usize = 1 << 20;
/// How long the stream may take to return a page.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Serialize)]
struct Page {
    /// The name of the stream's creation. Offsets of another epoch mean nothing.
    epoch: String,
    events: Vec<Event>,
    /// The offset through which every event was read. It is the `after` of the next page.
    through: Offset,
    /// Whether there is a next page now.
    more: bool,
}

#[derive(Serialize)]
struct Event {
    offset: Offset,
    /// When the event was stored, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    event: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sender: Option<AgentId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receiver: Option<AgentId>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    internal: bool,
}

/// Lists the events after the offset `after` of the stream `epoch`. Without `after`, lists all events that the stream
/// still has. With `after=latest`, lists none, and the answer says where the stream ends.
pub(super) async fn list(admin: &Admin, call: &Call<'_>) -> Result<Reply, HttpError> {
    let (classroom, limit) = (call.url.classroom()?, call.url.limit()?);
    let end = admin.bus.end().await;
    let mut position = match call.url.text("after")?.as_deref() {
        None => admin.bus.oldest().await.map_err(|error| away(admin, &error))?,
        Some("latest") => end.clone(),
        Some(_) => Position { offset: Offset(offset(call)?), ..end.clone() },
    };
    if let Some(epoch) = call.url.text("epoch")? {
        position.epoch = epoch.into_owned();
    }
    // This saves work, because callers poll classrooms without events.
    if position == end {
        let Position { epoch, offset: through } = end;
        return Ok(json(StatusCode::OK, &Page { epoch, events: Vec::new(), through, more: false }));
    }
    let replay = admin.bus.replay(&[RoomId::Classroom(classroom)], &position).await;
    let (events, end) = match replay.map_err(|error| away(admin, &error))? {
        Replay::Events(events, end) => (events, end),
        Replay::Lost => {
            let detail = "the stream does not have all events after that offset; leave out after and epoch to read \
                from its beginning";
            return Err(HttpError::new(StatusCode::GONE, detail));
        }
    };
    let Position { epoch, offset } = position;
    let (events, through, more) = read(events, (offset, end), limit).await.map_err(|error| away(admin, &error))?;
    Ok(json(StatusCode::OK, &Page { epoch, events, through, more }))
}

fn offset(call: &Call<'_>) -> Result<u64, HttpError> {
    let offset: Option<u64> = call.url.parsed("after", "an offset, or latest")?;
    Ok(offset.unwrap_or_default())
}

fn away(admin: &Admin, error: &BusError) -> HttpError {
    tracing::warn!(%error, "a request to the API failed");
    HttpError::away(admin.bus.name())
}

/// Returns a page, the offset through which the page is complete, and whether there are more events before the end.
async fn read(
    mut replayed: Replayed,
    (after, end): (Offset, Offset),
    limit: usize,
) -> Result<(Vec<Event>, Offset, bool), BusError> {
    let deadline = Instant::now() + READ_TIMEOUT;
    let (mut events, mut bytes, mut through) = (Vec::new(), 0, after);
    while events.len() < limit && bytes < MAX_BYTES {
        let next = timeout_at(deadline, replayed.recv()).await;
        let next = next.map_err(|_| BusError(format!("no events within {READ_TIMEOUT:?}")))?;
        let Some(incoming) = next.transpose()? else { return Ok((events, end, false)) };
        through = incoming.offset;
        bytes += incoming.body.len();
        events.extend(event(incoming));
    }
    Ok((events, through, through < end))
}

/// Returns the event in the form in which clients get it, or `None` if no client gets it, because it is not a JSON
/// object.
fn event(incoming: Incoming) -> Option<Event> {
    let Incoming { offset, sender, receiver, internal, entity, age, body, .. } = incoming;
    let entity = entity.as_ref().map(|(entity_type, operation, sequence_id)| EntityEvent {
        entity_type,
        operation,
        sequence_id: *sequence_id,
    });
    let push = Push::parse(&body, entity).ok()?.plain().into_owned();
    let event = RawValue::from_string(String::from_utf8(push).ok()?).ok()?;
    let time = age.map(ago);
    Some(Event { offset, time, event, sender, receiver, internal })
}
