//! Answers a request on the admin address: checks the caller, finds the route, and reads the body.
//!
//! Invariant: a caller without access learns nothing, not even which paths exist. No body is kept in memory beyond its
//! limit.
use std::{
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::{Method, Request, StatusCode, body::Body, header, http::request::Parts};
use tokio::time::timeout;

use super::{
    access::{Caller, Need, Origin},
    admin::Admin,
    api::ROUTES,
    audit::AuditLine,
    call::Call,
    console,
    reply::{HttpError, Streamed, streamed},
    route::{Route, Verb},
    url_parameters::UrlParameters,
};

/// How much of a refused request's body is read, in bytes. If a connection is closed while its client still sends, the
/// client loses the answer.
const MAX_DISCARD: u64 = 64 << 20;
/// For how long the body of a refused request is read.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);

/// Answers one request. `address` is the address of the peer.
pub async fn answer<B>(admin: &Admin, request: Request<B>, address: Option<SocketAddr>) -> Streamed
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (head, body) = request.into_parts();
    let mut body = pin!(body);
    match respond(admin, &head, body.as_mut(), address).await {
        Ok(reply) => reply,
        Err(refusal) => {
            discard(&head, body).await;
            streamed(refusal.reply())
        }
    }
}

/// Reads the rest of a body, unless its client waits until it is asked for the body.
async fn discard<B: Body<Data = Bytes>>(head: &Parts, mut body: Pin<&mut B>) {
    if head.headers.contains_key(header::EXPECT) || body.size_hint().lower() > MAX_DISCARD {
        return;
    }
    let rest = async {
        let mut length = 0;
        while length <= MAX_DISCARD
            && let Some(Ok(frame)) = body.frame().await
        {
            length += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
    };
    // The client may be slow or gone.
    drop(timeout(DISCARD_TIMEOUT, rest).await);
}

async fn respond<B>(admin: &Admin, head: &Parts, body: B, address: Option<SocketAddr>) -> Result<Streamed, HttpError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // The targets of OPTIONS (`*`) and CONNECT (a host) have no path.
    let path = head.uri.path();
    let need = Need::of(path);
    let caller = admin.access.admit(&head.headers, need, admin.tries.of(address))?;
    if need == Need::Page {
        return admin.pages.file(&head.method, path).map(streamed);
    }
    let (route, parameters) = find(&head.method, path)?;
    if route.changes && caller == Caller::ReadToken {
        let detail = "ROLLCALL_ADMIN_READ_TOKEN reads only: send ROLLCALL_ADMIN_TOKEN";
        return Err(HttpError::new(StatusCode::FORBIDDEN, detail));
    }
    let body = if route.verb == Verb::Post { read(body, (route.max_body)(admin)).await? } else { Bytes::new() };
    let audit = AuditLine::new(Origin { caller, address }, route.path, Arc::clone(&admin.acts));
    let url = UrlParameters { path: parameters, query: head.uri.query().unwrap_or_default() };
    let call = Call { url, headers: &head.headers, body, audit };
    let result = (route.endpoint)(admin, &call).await;
    call.audit.answered(result.as_ref().map_or_else(|refusal| refusal.status, Streamed::status));
    result
}

/// Returns the route of a request.
fn find<'a>(method: &Method, path: &'a str) -> Result<(&'static Route, Vec<&'a str>), HttpError> {
    let mut allowed = None;
    for route in ROUTES.iter().chain(console::ROUTES) {
        match route.parameters(path) {
            Some(parameters) if route.answers(method) => return Ok((route, parameters)),
            Some(_) => allowed = Some(route.verb.as_str()),
            None => {}
        }
    }
    Err(allowed.map_or_else(
        || HttpError::new(StatusCode::NOT_FOUND, "there is nothing at this path; see /api/v1/openapi.json"),
        HttpError::method,
    ))
}

async fn read<B>(body: B, max: usize) -> Result<Bytes, HttpError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // A body whose Content-Length is too large is refused without reading it.
    let large = || HttpError::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {max} bytes"));
    if body.size_hint().lower() > max as u64 {
        return Err(large());
    }
    match Limited::new(body, max).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(large()),
        Err(_) => Err(HttpError::bad("the body broke off")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_has_one_method() {
        // The header `Allow` of an answer with status 405 names one method.
        for (number, route) in ROUTES.iter().enumerate() {
            let twice = ROUTES[..number].iter().find(|earlier| earlier.parameters(route.path).is_some());
            assert!(twice.is_none(), "{}", route.path);
        }
    }
}
