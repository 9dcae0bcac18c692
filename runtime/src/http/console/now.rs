//! `GET /api/console/now` sends the state of the nodes as server-sent events until the client disconnects.
//!
//! Invariant: an event is encoded once for all clients. A client that does not read gets the latest event when it reads
//! again, and no other events are kept for it.
use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::{Response, body::Frame, header};

use crate::http::{
    admin::Admin,
    call::Call,
    reply::{BodyError, HttpError, Streamed},
};

pub(super) async fn stream(admin: &Admin, _: &Call<'_>) -> Result<Streamed, HttpError> {
    let look = admin.board.look();
    let events = stream::unfold(look, |mut look| async move {
        let event = look.next().await?;
        Some((Ok::<_, BodyError>(Frame::<Bytes>::data(event)), look))
    });
    let mut reply = Response::new(StreamBody::new(events).boxed_unsync());
    let headers = reply.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // This header keeps proxies from buffering the stream.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ] {
        headers.insert(name, header::HeaderValue::from_static(value));
    }
    Ok(reply)
}
